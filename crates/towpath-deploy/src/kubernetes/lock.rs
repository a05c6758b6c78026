//! The lock of an environment: one deployment at a time, whoever starts it.
//!
//! The lock is part of the state's Secret, so writing it is a compare-and-set on that Secret's version. Its holder renews it; a
//! holder that is silent for too long, or whose process on this machine has ended, loses it.

use super::{
    error::ClusterError,
    process::Process,
    record::{self, Lock, State, StoredState},
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
use towpath_kube::Client;
use towpath_types::{ReleaseId, with_causes};

/// How often a waiting deployment checks the lock.
const CHECK: Duration = Duration::from_millis(500);
/// How often a write is repeated after a conflict.
const CONFLICTS: usize = 10;
/// After this many expiries by the clock, take a lock without watching it first: clocks do not differ by that much.
const CERTAIN: u32 = 10;

/// A lock that this process holds. Only its holder writes the state. When dropped, it is no longer renewed and expires.
pub(super) struct Held {
    claim: Arc<Claim>,
    /// The version of the state when the lock was taken.
    version_before: Option<String>,
    /// Stops the renewal. A renewal in progress is finished first, so that it is known what was written.
    renewal: CancellationToken,
}

/// What the holder and the renewal share.
struct Claim {
    client: Arc<Client>,
    environment: Environment,
    key: Vec<u8>,
    /// Identifies this deployment in the lock.
    holder: String,
    stored: Mutex<StoredState>,
    /// Why the lock was lost.
    lost: StdMutex<Option<String>>,
}

/// Why the lock could not be taken.
pub(super) enum NotTaken {
    /// Somebody else was still deploying at the deadline. The sentence says who.
    Busy(String),
    Failed(ClusterError),
}

impl From<ClusterError> for NotTaken {
    fn from(error: ClusterError) -> Self {
        Self::Failed(error)
    }
}

/// What is needed to take a lock.
pub(super) struct Request<'a> {
    pub client: &'a Arc<Client>,
    pub environment: &'a Environment,
    /// Who deploys what, for others who wait.
    pub by: String,
    pub what: String,
    pub release: ReleaseId,
    /// The key for fingerprints, if the environment has none yet.
    pub key: &'a [u8],
    /// How long a holder may give no sign of life.
    pub expiry: Duration,
    /// When to stop waiting for another holder.
    pub deadline: Instant,
    /// The state as it was read just now.
    pub stored: StoredState,
}

/// Takes the lock. Waits for another holder to end.
pub(super) async fn take(request: Request<'_>, progress: &mpsc::UnboundedSender<Progress>) -> Result<Held, NotTaken> {
    let (client, environment) = (request.client, request.environment);
    let holder = uuid::Uuid::from_u128(rand::random()).to_string();
    let mut watched: Option<(String, u64, Instant)> = None;
    let mut told = false;
    let mut known = Some(request.stored);
    loop {
        let mut stored = match known.take() {
            Some(stored) => stored,
            None => record::load(client, environment).await?,
        };
        if let Some(lock) = stored.state.lock.as_ref().filter(|lock| lock.holder != holder) {
            let sign = (lock.holder.clone(), lock.renewals);
            let since = match &watched {
                Some((holder, renewals, since)) if (holder, renewals) == (&sign.0, &sign.1) => *since,
                _ => Instant::now(),
            };
            watched = Some((sign.0, sign.1, since));
            let silent = Timestamp::now().duration_since(lock.renewed);
            let is_long_dead = Duration::try_from(silent).is_ok_and(|silent| silent > request.expiry * CERTAIN);
            let is_gone = lock.process.as_ref().is_some_and(Process::is_gone);
            if since.elapsed() < request.expiry && !is_long_dead && !is_gone {
                let who = format!(
                    "{} has been deploying here since {} ({})",
                    lock.by, lock.since, lock.what
                );
                if Instant::now() >= request.deadline {
                    return Err(NotTaken::Busy(who));
                }
                if !told {
                    told = true;
                    let message = format!("{who}; waiting for that deployment to end");
                    let _ = progress.send(Progress { object: None, message });
                }
                tokio::time::sleep(CHECK).await;
                continue;
            }
            let message = format!(
                "the deployment of {} ({}) gave no sign of life and is taken over",
                lock.by, lock.what
            );
            let _ = progress.send(Progress { object: None, message });
        }
        let now = Timestamp::now();
        stored.state.lock = Some(Lock {
            holder: holder.clone(),
            by: request.by.clone(),
            what: request.what.clone(),
            since: now,
            renewed: now,
            renewals: 0,
            release: request.release,
            process: Process::this(),
        });
        let key = stored.key.clone().unwrap_or_else(|| request.key.to_vec());
        let version_before = stored.version.clone();
        if !record::save(client, environment, &mut stored, &key).await? {
            continue;
        }
        let claim = Arc::new(Claim {
            client: Arc::clone(client),
            environment: environment.clone(),
            key,
            holder,
            stored: Mutex::new(stored),
            lost: StdMutex::new(None),
        });
        let renewal = CancellationToken::new();
        tokio::spawn(renew(renewal.clone(), Arc::clone(&claim), request.expiry / 3));
        return Ok(Held {
            claim,
            version_before,
            renewal,
        });
    }
}

impl Claim {
    /// Writes the state. Keeps the hold of a person that was written in the meantime. Returns `false` if somebody else has the
    /// lock, or nobody.
    async fn save(&self, stored: &mut StoredState) -> Result<bool, ClusterError> {
        for _ in 0..CONFLICTS {
            if record::save(&self.client, &self.environment, stored, &self.key).await? {
                return Ok(true);
            }
            let current = record::load(&self.client, &self.environment).await?;
            if current
                .state
                .lock
                .as_ref()
                .is_none_or(|lock| lock.holder != self.holder)
            {
                return Ok(false);
            }
            stored.version = current.version;
            stored.state.hold = current.state.hold;
        }
        Ok(false)
    }
}

/// Renews the lock until it is released or lost.
async fn renew(ended: CancellationToken, claim: Arc<Claim>, every: Duration) {
    loop {
        if ended.run_until_cancelled(tokio::time::sleep(every)).await.is_none() {
            return;
        }
        let mut stored = claim.stored.lock().await;
        // The lock was released in the meantime.
        if ended.is_cancelled() {
            return;
        }
        let Some(lock) = &mut stored.state.lock else { return };
        lock.renewed = Timestamp::now();
        lock.renewals += 1;
        match claim.save(&mut stored).await {
            Ok(true) => {}
            Ok(false) => {
                let message = "somebody else has taken the environment's lock, or deleted it";
                *claim.lost.lock().unwrap_or_else(PoisonError::into_inner) = Some(message.to_string());
                return;
            }
            // The next renewal may succeed.
            Err(error) => tracing::warn!(
                error = with_causes(&error),
                "failed to renew the lock of the environment"
            ),
        }
    }
}

impl Held {
    /// The current state.
    pub(super) async fn state(&self) -> State {
        self.claim.stored.lock().await.state.clone()
    }

    /// Whether nobody has written the state between reading `version` and taking the lock.
    pub(super) fn directly_follows(&self, version: Option<&str>) -> bool {
        self.version_before.as_deref() == version
    }

    /// Changes the state and writes it. The error is a sentence: the lock was lost, or the cluster does not answer.
    pub(super) async fn update(&self, change: impl FnOnce(&mut State)) -> Result<(), String> {
        let mut stored = self.claim.stored.lock().await;
        self.check()?;
        change(&mut stored.state);
        match self.claim.save(&mut stored).await {
            Ok(true) => Ok(()),
            Ok(false) => Err("somebody else has taken the environment's lock".into()),
            Err(error) => Err(with_causes(&error)),
        }
    }

    /// Fails if the lock was lost.
    pub(super) fn check(&self) -> Result<(), String> {
        let lost = self.claim.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.clone().map_or(Ok(()), Err)
    }

    /// Releases the lock, together with a last change of the state.
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
