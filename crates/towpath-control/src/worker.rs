//! One server's share of the work: claims due work, does it, renews its leases.
//!
//! - **Invariant:** only the server with the lease does a piece of work. A server that loses the lease stops at once,
//!   and the store rejects commits with its guard.
//! - **Invariant:** work that fails is retried with growing delays, and in the end set aside with its reason; it never
//!   blocks the work behind it. An unreachable storage does not count as a failure.

use crate::{
    capacity::{Capacity, Occupant, choose},
    storage::patiently,
};
use futures::{FutureExt, future::BoxFuture};
use std::{
    collections::{BTreeMap, HashMap},
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use towpath_delivery::DeliveryError;
use towpath_store::{Commit, Guard, Lease, ServerRow, Store, StoreError, Topic, WorkKey, WorkKind, Write};
use towpath_types::Clock;

/// How long a lease lasts unless it is renewed.
pub const LEASE: Duration = Duration::from_secs(20);
/// How often to renew leases.
const RENEW_EVERY: Duration = Duration::from_secs(5);
/// The longest wait before looking for work: a lost connection may lose notifications.
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_secs(10);
/// How many queued jobs one scheduling decision considers.
const QUEUE_WINDOW: u32 = 500;
/// How often to try work before giving up on it or setting it aside.
const TRIES: u32 = 8;
/// The same for triggers: somebody waits for the pipeline, or for the reason why there is none.
const TRIGGER_TRIES: u32 = 4;
/// The pause before retrying work after the store did not answer.
const STORE_PAUSE: Duration = Duration::from_secs(2);
/// The pause after the first failure; it doubles with each failure.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The longest pause after a failure.
const LONGEST_RETRY: Duration = Duration::from_mins(5);

/// How many pieces of work of a kind one server does at once. The machine's capacity limits jobs instead.
fn limit(kind: WorkKind) -> usize {
    match kind {
        WorkKind::Job => usize::MAX,
        WorkKind::Trigger => 4,
        WorkKind::Timer => 16,
        WorkKind::Release | WorkKind::Run => 64,
        WorkKind::Gate | WorkKind::Environment | WorkKind::Project => 2,
    }
}

/// The most tries; `None` for work that is retried for ever, because it keeps the rows of pages up to date.
fn tries(kind: WorkKind) -> Option<u32> {
    match kind {
        WorkKind::Trigger => Some(TRIGGER_TRIES),
        WorkKind::Job | WorkKind::Timer | WorkKind::Release | WorkKind::Run => Some(TRIES),
        WorkKind::Gate | WorkKind::Environment | WorkKind::Project => None,
    }
}

/// Whether this is the last try.
fn is_last_try(lease: &Lease) -> bool {
    tries(lease.work.key.kind).is_some_and(|tries| lease.work.failures + 1 >= tries)
}

/// How a handler ended its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// The work is done; the worker removes it from the store.
    Finished,
    /// The work is done, and the handler's last commit removed it.
    Committed,
    /// The work is due again at this time.
    Again(jiff::Timestamp),
}

/// Does one kind of work.
///
/// # Contract
/// - any server may call `handle` for the same work again after a failure, a crash or a lost lease; it checks what
///   already exists before it does anything.
/// - It stops when `lost` is cancelled: another server has the work, or this one is stopping.
/// - Commits that must not happen without the lease carry [`Guard::from`] of it.
pub trait Handler: Send + Sync {
    /// Does the work that `lease` covers.
    ///
    /// # Errors
    /// Why it could not be done now; the worker retries.
    fn handle<'a>(
        &'a self,
        lease: &'a Lease,
        lost: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<Done, DeliveryError>>;

    /// Ends the subject of the work as errored with `error`, after the last try: somebody waits for it, or it blocks
    /// others. `None` if there is nothing to end; the worker then sets the work aside with its reason.
    ///
    /// # Errors
    /// Why it could not be ended; the worker then sets the work aside.
    fn give_up<'a>(
        &'a self,
        lease: &'a Lease,
        error: &'a DeliveryError,
    ) -> BoxFuture<'a, Result<Option<Done>, DeliveryError>> {
        let _ = (lease, error);
        Box::pin(async { Ok(None) })
    }
}

/// The identity of this server.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct ServerIdentity {
    /// New with each start of the process.
    pub id: String,
    pub address: String,
    /// The engines that it has, by name.
    pub engines: Vec<String>,
    /// The capacity that its jobs share.
    pub capacity: Capacity,
    /// Whether no other server can use the store at the same time: every other known one is dead.
    pub alone: bool,
}

struct Running {
    lease: Lease,
    lost: CancellationToken,
}

struct Inner {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    server: ServerIdentity,
    started_at: jiff::Timestamp,
    handlers: BTreeMap<WorkKind, Arc<dyn Handler>>,
    running: Mutex<HashMap<WorkKey, Running>>,
    /// Notified when capacity becomes free.
    freed: Notify,
    tasks: TaskTracker,
}

/// Claims and does work until it is told to stop. Clones share everything.
#[derive(Clone)]
pub struct Worker(Arc<Inner>);

impl Worker {
    /// A worker for the kinds of work that have handlers.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        server: ServerIdentity,
        handlers: BTreeMap<WorkKind, Arc<dyn Handler>>,
    ) -> Self {
        let started_at = clock.now();
        Self(Arc::new(Inner {
            store,
            clock,
            server,
            started_at,
            handlers,
            running: Mutex::default(),
            freed: Notify::new(),
            tasks: TaskTracker::new(),
        }))
    }

    /// How many pieces of work are being done.
    #[must_use]
    pub fn busy(&self) -> usize {
        self.lock().len()
    }

    /// Works until `shutdown`, then stops its handlers and releases their leases. The work continues after the next
    /// start.
    pub async fn run(&self, shutdown: CancellationToken) {
        // Write this server's row first, so that a predecessor's engine always has a known server.
        let joined = match self.beat().await {
            Ok(()) => self.forget_predecessors().await,
            Err(error) => Err(error),
        };
        if let Err(error) = joined {
            tracing::warn!(
                error = towpath_types::with_causes(&error),
                "failed to end the leases of earlier processes; they end by themselves"
            );
        }
        let beat = tokio::spawn({
            let worker = self.clone();
            let shutdown = shutdown.clone();
            async move { worker.beat_until(&shutdown).await }
        });
        let mut changes = self.0.store.changes();
        while !shutdown.is_cancelled() {
            let freed = self.0.freed.notified();
            let claimed = match self.claim_due().await {
                Ok(claimed) => claimed,
                Err(error) => {
                    tracing::warn!(error = towpath_types::with_causes(&error), "failed to look for work");
                    0
                }
            };
            if claimed > 0 {
                continue;
            }
            let wait = self.next_look().await;
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = freed => {}
                () = self.0.clock.sleep(wait) => {}
                open = changes.of(&Topic::Work) => if !open { break },
            }
        }
        for running in self.lock().values() {
            running.lost.cancel();
        }
        self.0.tasks.close();
        self.0.tasks.wait().await;
        beat.abort();
        // Keep the row: jobs on this server's engines wait for its return.
        if let Err(error) = self.0.store.forget_server(&self.0.server.id).await {
            // The leases expire by themselves.
            tracing::warn!(
                error = towpath_types::with_causes(&error),
                "failed to give the leases up"
            );
        }
    }

    /// Ends the leases of processes that are certainly dead, so that their work need not wait for the leases to expire:
    /// of those with our address, and of all others where this server is alone.
    async fn forget_predecessors(&self) -> Result<(), StoreError> {
        let me = &self.0.server;
        for known in self.0.store.servers(jiff::Timestamp::MIN).await? {
            if known.id != me.id && (me.alone || known.address == me.address) {
                self.0.store.forget_server(&known.id).await?;
                self.0.store.remove_server(&known.id).await?;
            }
        }
        Ok(())
    }

    /// Stops the handlers as if the process were killed, without releasing anything.
    #[cfg(test)]
    pub(crate) fn abandon(&self) {
        for running in self.lock().values() {
            running.lost.cancel();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<WorkKey, Running>> {
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long to wait before the next look.
    async fn next_look(&self) -> Duration {
        let kinds: Vec<WorkKind> = self.0.handlers.keys().copied().collect();
        let Ok(Some(due)) = self.0.store.next_due(&kinds).await else {
            return LOOK_AT_LEAST_EVERY;
        };
        let until = due.duration_since(self.0.clock.now());
        // Due work that nobody claimed waits for free capacity or for its engine. Do not poll for it continuously.
        Duration::try_from(until)
            .ok()
            .filter(|until| !until.is_zero())
            .map_or(LOOK_AT_LEAST_EVERY, |until| until.min(LOOK_AT_LEAST_EVERY))
    }

    /// Claims and starts due work that there is capacity for.
    async fn claim_due(&self) -> Result<usize, StoreError> {
        let now = self.0.clock.now();
        let mut wanted = Vec::new();
        for kind in self.0.handlers.keys().copied() {
            let (here, occupants) = self.occupants(kind);
            let room = limit(kind).saturating_sub(here);
            if room == 0 {
                continue;
            }
            let window = u32::try_from(room).unwrap_or(u32::MAX).min(QUEUE_WINDOW);
            let mut due = self
                .0
                .store
                .due_work(&[kind], &self.0.server.engines, now, window)
                .await?;
            // An expired lease may be ours, if the heartbeat was late; its task still runs here.
            due.retain(|work| !self.lock().contains_key(&work.key));
            if kind == WorkKind::Job {
                wanted.extend(choose(&due, &occupants, self.0.server.capacity));
            } else {
                wanted.extend(due.into_iter().map(|work| work.key));
            }
        }
        if wanted.is_empty() {
            return Ok(0);
        }
        let leases = self.0.store.claim(&wanted, &self.0.server.id, now, LEASE).await?;
        let count = leases.len();
        for lease in leases {
            self.begin(lease);
        }
        Ok(count)
    }

    fn occupants(&self, kind: WorkKind) -> (usize, Vec<Occupant>) {
        let running = self.lock();
        let of_kind = running.values().filter(|running| running.lease.work.key.kind == kind);
        let occupants: Vec<Occupant> = of_kind
            .map(|running| Occupant {
                project: running.lease.work.project.clone(),
                needs: Capacity {
                    cpu_millis: running.lease.work.cpu_millis,
                    memory_bytes: running.lease.work.memory_bytes,
                },
            })
            .collect();
        (occupants.len(), occupants)
    }

    fn begin(&self, lease: Lease) {
        let Some(handler) = self.0.handlers.get(&lease.work.key.kind).cloned() else {
            return;
        };
        let lost = CancellationToken::new();
        let running = Running {
            lease: lease.clone(),
            lost: lost.clone(),
        };
        self.lock().insert(lease.work.key.clone(), running);
        let worker = self.clone();
        self.0.tasks.spawn(async move {
            // A panic in a handler must not keep its lease for ever.
            let handled = AssertUnwindSafe(handler.handle(&lease, &lost)).catch_unwind();
            let result = tokio::select! {
                result = handled => Some(result.unwrap_or_else(|_| {
                    Err(DeliveryError::internal("a defect of Towpath ended this; the server's log has the place"))
                })),
                () = lost.cancelled() => None,
            };
            if let Some(result) = result {
                let result = match result {
                    Err(error) if is_last_try(&lease) && !error.is_of_store_that_is_away() => {
                        worker.give_up(&*handler, &lease, error).await
                    }
                    other => other,
                };
                worker.leave(&lease, result).await;
            }
            worker.lock().remove(&lease.work.key);
            worker.0.freed.notify_one();
        });
    }

    /// Lets the handler end the subject of the work.
    async fn give_up(&self, handler: &dyn Handler, lease: &Lease, error: DeliveryError) -> Result<Done, DeliveryError> {
        let reason = error.chain();
        tracing::error!(work = %lease.work.key, error = reason, "failed again and again; giving up");
        match AssertUnwindSafe(handler.give_up(lease, &error)).catch_unwind().await {
            Ok(Ok(Some(done))) => Ok(done),
            Ok(Ok(None)) | Err(_) => Err(error),
            Ok(Err(other)) => {
                tracing::error!(work = %lease.work.key, error = other.chain(), "failed to give up");
                Err(error)
            }
        }
    }

    /// Stores how the work ended; retries until the store answers.
    async fn leave(&self, lease: &Lease, result: Result<Done, DeliveryError>) {
        let guard = Guard::from(lease);
        let write = match result {
            Ok(Done::Committed) => return,
            Ok(Done::Finished) => Write::WorkDone(guard),
            Ok(Done::Again(due)) => Write::WorkReturned {
                guard,
                due,
                engine: lease.work.engine.clone(),
            },
            // The job may have been bound to an engine since it was claimed; keep that.
            Err(error) if error.is_of_store_that_is_away() && lease.work.key.kind != WorkKind::Job => {
                tracing::warn!(work = %lease.work.key, error = error.chain(), "the storage does not work; trying again");
                Write::WorkReturned {
                    guard,
                    due: self.0.clock.now() + STORE_PAUSE,
                    engine: lease.work.engine.clone(),
                }
            }
            Err(error) => {
                let failures = lease.work.failures + 1;
                let reason = error.chain();
                let retry = (!is_last_try(lease)).then(|| self.0.clock.now() + back_off(failures));
                match retry {
                    Some(_) => tracing::warn!(work = %lease.work.key, failures, error = reason, "failed; trying again"),
                    None => tracing::error!(work = %lease.work.key, failures, error = reason, "failed; set aside"),
                }
                Write::WorkFailed { guard, reason, retry }
            }
        };
        let commit = Commit::new().with(write);
        let stored = patiently(&*self.0.clock, "how work ended", || self.0.store.commit(commit.clone())).await;
        match stored {
            // If the answer was lost, the second commit is refused. A lease of another server is not ours to end.
            Ok(_) | Err(StoreError::Fenced(_)) => {}
            Err(error) => {
                tracing::error!(work = %lease.work.key, error = towpath_types::with_causes(&error), "failed to store how work ended");
            }
        }
    }

    /// Sends heartbeats and renews leases until `shutdown`.
    async fn beat_until(&self, shutdown: &CancellationToken) {
        loop {
            // Handlers continue without an answer: if another server takes over, the fence decides.
            if let Err(error) = self.beat().await {
                tracing::warn!(error = towpath_types::with_causes(&error), "failed to renew the leases");
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.0.clock.sleep(RENEW_EVERY) => {}
            }
        }
    }

    async fn beat(&self) -> Result<(), StoreError> {
        let now = self.0.clock.now();
        let row = ServerRow {
            id: self.0.server.id.clone(),
            address: self.0.server.address.clone(),
            engines: self.0.server.engines.clone(),
            started_at: self.0.started_at,
            seen_at: now,
        };
        self.0.store.put_server(&row).await?;
        // Only leases claimed before the query can be missing from its answer.
        let mine: Vec<(WorkKey, u64)> = self
            .lock()
            .iter()
            .map(|(key, one)| (key.clone(), one.lease.fence))
            .collect();
        let kept = self.0.store.renew(&self.0.server.id, now, LEASE).await?;
        let running = self.lock();
        for (key, fence) in mine {
            if !kept.contains(&(key.clone(), fence))
                && let Some(one) = running.get(&key).filter(|one| one.lease.fence == fence)
            {
                tracing::warn!(work = %key, "the lease was lost");
                one.lost.cancel();
            }
        }
        Ok(())
    }
}

/// The pause before retrying work that has failed `failures` times.
fn back_off(failures: u32) -> jiff::SignedDuration {
    let pause = FIRST_RETRY.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)));
    jiff::SignedDuration::try_from(pause.min(LONGEST_RETRY)).unwrap_or(jiff::SignedDuration::from_mins(5))
}
