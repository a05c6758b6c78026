//! One deployment of an environment at a time, whoever begins it.

use super::{
    api::{Api, ApiError},
    process::Process,
    record::{self, Loaded, Lock, State},
};
use crate::target::{Environment, Progress};
use jiff::Timestamp;
use std::{
    sync::{Arc, Mutex as StdMutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Mutex, mpsc},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use towpath_types::ReleaseId;

/// How often whoever waits looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// How often a state is written again over what others wrote.
const CONFLICTS: usize = 10;
/// After how many expiries a lock is taken at once, without watching it: clocks do not differ by so much.
const LONG_DEAD: u32 = 10;

/// A lock that is held, and the state that only its holder writes. Dropped, it expires.
pub(super) struct Held {
    claim: Arc<Claim>,
    /// The version of the state that it was taken over.
    taken_over: Option<String>,
    /// Ends the signs of life; one that is being given is given to its end, or it would not be known what was written.
    renewal: CancellationToken,
}

/// What its holder and its signs of life share.
struct Claim {
    api: Arc<Api>,
    environment: Environment,
    key: Vec<u8>,
    /// This deployment's own name in the lock.
    holder: String,
    loaded: Mutex<Loaded>,
    /// Why it was lost.
    lost: StdMutex<Option<String>>,
}

/// Why a lock was not had.
pub(super) enum NotHeld {
    /// Somebody else deploys, and will for longer than this waits.
    Busy(String),
    /// The cluster could not be asked.
    Failed(ApiError),
}

impl From<ApiError> for NotHeld {
    fn from(error: ApiError) -> Self {
        Self::Failed(error)
    }
}

/// What taking a lock needs.
pub(super) struct Request<'a> {
    pub api: &'a Arc<Api>,
    pub environment: &'a Environment,
    /// Who and what, for whoever waits behind.
    pub by: String,
    pub what: String,
    pub release: ReleaseId,
    /// The key of the environment's fingerprints, where it has none yet.
    pub key: &'a [u8],
    /// After how long without a sign of life a holder is taken for dead.
    pub expiry: Duration,
    pub deadline: Instant,
    /// What the environment said of itself just now.
    pub loaded: Loaded,
}

/// Takes the lock, after its holder if there is one.
pub(super) async fn take(request: Request<'_>, progress: &mpsc::UnboundedSender<Progress>) -> Result<Held, NotHeld> {
    let (api, environment) = (request.api, request.environment);
    let holder = uuid::Uuid::from_u128(rand::random()).to_string();
    let mut watched: Option<(String, u64, Instant)> = None;
    let mut told = false;
    let mut known = Some(request.loaded);
    loop {
        let mut loaded = match known.take() {
            Some(loaded) => loaded,
            None => record::load(api, environment).await?,
        };
        if let Some(lock) = loaded.state.lock.as_ref().filter(|lock| lock.holder != holder) {
            let sign = (lock.holder.clone(), lock.renewals);
            let since = match &watched {
                Some((holder, renewals, since)) if (holder, renewals) == (&sign.0, &sign.1) => *since,
                _ => Instant::now(),
            };
            watched = Some((sign.0, sign.1, since));
            let silent = Timestamp::now().duration_since(lock.renewed);
            let long_dead = Duration::try_from(silent).is_ok_and(|silent| silent > request.expiry * LONG_DEAD);
            let is_gone = lock.process.as_ref().is_some_and(Process::is_gone);
            if since.elapsed() < request.expiry && !long_dead && !is_gone {
                let who = format!("{} is deploying here since {} ({})", lock.by, lock.since, lock.what);
                if Instant::now() >= request.deadline {
                    return Err(NotHeld::Busy(who));
                }
                if !told {
                    told = true;
                    let message = format!("{who}; waiting for that to end");
                    let _ = progress.send(Progress { object: None, message });
                }
                tokio::time::sleep(LOOK_AGAIN).await;
                continue;
            }
            let message = format!(
                "{}, who was deploying here ({}), gave no sign of life: going on",
                lock.by, lock.what
            );
            let _ = progress.send(Progress { object: None, message });
        }
        let now = Timestamp::now();
        loaded.state.lock = Some(Lock {
            holder: holder.clone(),
            by: request.by.clone(),
            what: request.what.clone(),
            since: now,
            renewed: now,
            renewals: 0,
            release: request.release,
            process: Process::this(),
        });
        let key = loaded.key.clone().unwrap_or_else(|| request.key.to_vec());
        let taken_over = loaded.version.clone();
        if !record::save(api, environment, &mut loaded, &key).await? {
            continue;
        }
        let claim = Arc::new(Claim {
            api: Arc::clone(api),
            environment: environment.clone(),
            key,
            holder,
            loaded: Mutex::new(loaded),
            lost: StdMutex::new(None),
        });
        let renewal = CancellationToken::new();
        tokio::spawn(renew(renewal.clone(), Arc::clone(&claim), request.expiry / 3));
        return Ok(Held {
            claim,
            taken_over,
            renewal,
        });
    }
}

impl Claim {
    /// Writes the state. A person's word that others are to stay out may have been written meanwhile: it is taken along.
    /// Answers `false` when the lock is somebody else's, or gone.
    async fn save(&self, loaded: &mut Loaded) -> Result<bool, ApiError> {
        for _ in 0..CONFLICTS {
            if record::save(&self.api, &self.environment, loaded, &self.key).await? {
                return Ok(true);
            }
            let there = record::load(&self.api, &self.environment).await?;
            if there.state.lock.as_ref().is_none_or(|lock| lock.holder != self.holder) {
                return Ok(false);
            }
            loaded.version = there.version;
            loaded.state.hold = there.state.hold;
        }
        Ok(false)
    }
}

/// Gives a sign of life now and then.
async fn renew(ended: CancellationToken, claim: Arc<Claim>, every: Duration) {
    loop {
        if ended.run_until_cancelled(tokio::time::sleep(every)).await.is_none() {
            return;
        }
        let mut loaded = claim.loaded.lock().await;
        // Given back while this waited for its turn.
        if ended.is_cancelled() {
            return;
        }
        let Some(lock) = &mut loaded.state.lock else { return };
        lock.renewed = Timestamp::now();
        lock.renewals += 1;
        match claim.save(&mut loaded).await {
            Ok(true) => {}
            Ok(false) => {
                let message = "somebody else has taken the environment's lock, or deleted it";
                *claim.lost.lock().unwrap_or_else(PoisonError::into_inner) = Some(message.to_string());
                return;
            }
            // The next sign may come through.
            Err(error) => tracing::warn!(error = %error, "the environment's lock is not renewed"),
        }
    }
}

impl Held {
    /// What the environment says of itself.
    pub(super) async fn state(&self) -> State {
        self.claim.loaded.lock().await.state.clone()
    }

    /// Whether nobody wrote between a look at the state, which found `version`, and the taking of this lock.
    pub(super) fn is_next_after(&self, version: Option<&str>) -> bool {
        self.taken_over.as_deref() == version
    }

    /// Writes the state after `change`. An error, a sentence, when the lock was lost or the cluster does not answer.
    pub(super) async fn update(&self, change: impl FnOnce(&mut State)) -> Result<(), String> {
        let mut loaded = self.claim.loaded.lock().await;
        self.check()?;
        change(&mut loaded.state);
        match self.claim.save(&mut loaded).await {
            Ok(true) => Ok(()),
            Ok(false) => Err("somebody else has taken the environment's lock".into()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Whether the lock is still held.
    pub(super) fn check(&self) -> Result<(), String> {
        let lost = self.claim.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.clone().map_or(Ok(()), Err)
    }

    /// Gives the lock back, with a last change of the state.
    pub(super) async fn release(self, change: impl FnOnce(&mut State)) -> Result<(), String> {
        self.renewal.cancel();
        self.update(|state| {
            change(state);
            state.lock = None;
        })
        .await
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.renewal.cancel();
    }
}
