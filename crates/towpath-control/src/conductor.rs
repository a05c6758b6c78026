//! Feeds events to the state machine of each workflow and stores them with everything that follows.
//!
//! The stream of events defines a workflow. One commit stores an event, the rows that it changes and the work that it
//! requests, and expects the stream's length to be unchanged; the loser of a race loads and decides again. Memory holds
//! only a bounded cache.
//!
//! - **Invariant:** a transition runs in its own task and completes even if its request is dropped.
//! - **Invariant:** nothing acts on an event before it is stored: effects are rows and work of the same commit.

use crate::{
    loaded::{Loaded, Placement},
    projection::project,
    storage::{Pauses, store_error},
};
use jiff::Timestamp;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use towpath_delivery::DeliveryError;
use towpath_store::{Commit, GateRow, Guard, JobRow, PipelineRow, Store, StoreError, WorkflowRow, Write};
use towpath_types::{Clock, WorkflowId};
use towpath_workflow::{Event, Illegal, Workflow, wire};

/// How many workflows stay folded in memory.
const CACHED: usize = 256;
/// How often a transition that lost a race is decided again.
const RACES: u32 = 50;

/// The longest pause after a lost race.
const LONGEST_RACE_PAUSE: Duration = Duration::from_millis(100);

/// How long to wait after losing race number `race`, counted from 1. The wait is random with a bound that doubles each
/// time, so that servers do not collide again and again.
fn pause_after(race: u32) -> Duration {
    let bound = Duration::from_millis(1 << race.min(7)).min(LONGEST_RACE_PAUSE);
    // The lower bits of a version 7 are random.
    let random = uuid::Uuid::now_v7().as_u128() % (bound.as_micros() + 1);
    Duration::from_micros(u64::try_from(random).unwrap_or_default())
}

/// The stream of a workflow's events.
pub(crate) fn stream(id: WorkflowId) -> String {
    format!("workflow/{id}")
}

/// What to store with an event, and under which condition.
#[derive(Debug, Clone, Default)]
pub(crate) struct Also {
    /// Additional writes.
    pub writes: Vec<Write>,
    /// The lease that must still hold.
    pub guard: Option<Guard>,
    /// Where the event's job runs, as far as it is known.
    pub placement: Option<Placement>,
}

/// Why a transition did not happen.
#[derive(Debug)]
pub(crate) enum NotApplied {
    /// The state machine refused the event.
    Illegal(Illegal),
    /// Other servers changed the workflow before each attempt to store this. The caller may try again.
    Contended(WorkflowId),
    /// Anything else.
    Failed(DeliveryError),
    /// The storage failed.
    Store(StoreError),
}

impl From<NotApplied> for DeliveryError {
    fn from(error: NotApplied) -> Self {
        match error {
            NotApplied::Illegal(illegal) => DeliveryError::conflict(illegal.to_string()),
            NotApplied::Contended(id) => DeliveryError::unavailable(format!(
                "workflow {id} changes faster than this could be decided; ask again"
            )),
            NotApplied::Failed(error) => error,
            NotApplied::Store(error) => store_error(error),
        }
    }
}

impl From<StoreError> for NotApplied {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

type Slot = Arc<tokio::sync::Mutex<Option<Arc<Loaded>>>>;

/// Applies events to workflows. Clones share the cache.
#[derive(Clone)]
pub struct Conductor {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    /// One slot per workflow, so that transitions in this process take turns instead of racing.
    slots: Arc<Mutex<HashMap<WorkflowId, Slot>>>,
}

impl Conductor {
    /// A conductor of the workflows in `store`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        Self {
            store,
            clock,
            slots: Arc::default(),
        }
    }

    /// Cancels a workflow.
    ///
    /// # Errors
    /// `NotFound` when there is none; `Conflict` when it has ended or was canceled before.
    pub async fn cancel(&self, workflow: WorkflowId, by: &str) -> Result<(), DeliveryError> {
        let event = Event::CancelRequested {
            by: by.to_string(),
            at: self.clock.now(),
        };
        self.apply(workflow, event, Also::default()).await?;
        Ok(())
    }

    /// The workflow as it is stored now, or as this process last stored it.
    pub(crate) async fn load(&self, id: WorkflowId) -> Result<Arc<Loaded>, NotApplied> {
        let slot = self.slot(id);
        let mut slot = slot.lock().await;
        if let Some(loaded) = slot.as_ref() {
            return Ok(loaded.clone());
        }
        let loaded = Arc::new(self.read(id).await?);
        *slot = Some(loaded.clone());
        Ok(loaded)
    }

    /// Applies `event`, and stores it with its consequences and with `also`. It completes even if the caller goes away.
    pub(crate) async fn apply(&self, id: WorkflowId, event: Event, also: Also) -> Result<Arc<Loaded>, NotApplied> {
        let conductor = self.clone();
        let applied = tokio::spawn(async move { conductor.apply_to_end(id, event, also).await });
        applied.await.unwrap_or_else(|_| {
            Err(NotApplied::Failed(DeliveryError::unavailable(
                "Towpath stopped before this was decided; ask again",
            )))
        })
    }

    /// Like [`Conductor::apply`], but retries for as long as the store is away or other servers win the race.
    pub(crate) async fn apply_patiently(
        &self,
        id: WorkflowId,
        event: Event,
        also: Also,
    ) -> Result<Arc<Loaded>, NotApplied> {
        let mut pauses = Pauses::default();
        loop {
            match self.apply(id, event.clone(), also.clone()).await {
                Err(NotApplied::Store(error)) if error.is_temporary() => {
                    pauses.wait(&*self.clock, "a workflow's event", &error).await;
                }
                Err(NotApplied::Contended(id)) => tracing::debug!(workflow = %id, "lost many races; trying on"),
                other => return other,
            }
        }
    }

    fn slot(&self, id: WorkflowId) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(&id) {
            return slot.clone();
        }
        if slots.len() >= CACHED {
            // Keep only slots in use. If all are in use, the cache grows until they are released.
            slots.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        slots.entry(id).or_default().clone()
    }

    async fn read(&self, id: WorkflowId) -> Result<Loaded, NotApplied> {
        let missing = || NotApplied::Failed(DeliveryError::not_found(format!("there is no workflow {id}")));
        // Read the row first. Events and rows change together, so a row read after the events may be newer than them;
        // the commit's expectation then fails and everything is read again.
        let row = self.store.workflow(id).await?.ok_or_else(missing)?;
        let pipeline = self.store.pipeline(row.pipeline).await?.ok_or_else(missing)?;
        let stored = self.store.events(&stream(id), 0).await?;
        let mut events = Vec::with_capacity(stored.len());
        for stored in &stored {
            events.push(wire::read_workflow_event(stored.event.clone()).map_err(|error| unreadable(id, error))?);
        }
        let count = events.len() as u64;
        let state = Workflow::fold(events).map_err(|error| not_a_history(id, error))?;
        let jobs = self.store.jobs_of(&[id]).await?;
        Ok(Loaded {
            row,
            pipeline: Arc::new(pipeline),
            jobs: jobs.into_iter().map(|job| (job.name.clone(), job)).collect(),
            state,
            events: count,
        })
    }

    /// Brings `stale` up to date: reads the events stored since, and the rows of the jobs that they changed. `None`
    /// when the stream has no new event.
    ///
    /// A job's row changes only together with an event that changes the job's state, so no other row can be newer.
    async fn catch_up(&self, stale: &Loaded) -> Result<Option<Loaded>, NotApplied> {
        let id = stale.row.id;
        let row = self.store.workflow(id).await?;
        let stored = self.store.events(&stream(id), stale.events).await?;
        let Some(row) = row.filter(|_| !stored.is_empty()) else {
            return Ok(None);
        };
        let mut fresh = Loaded {
            row,
            ..Loaded::clone(stale)
        };
        for stored in &stored {
            let event = wire::read_workflow_event(stored.event.clone()).map_err(|error| unreadable(id, error))?;
            fresh.state.apply(event).map_err(|error| not_a_history(id, error))?;
        }
        fresh.events += stored.len() as u64;
        for (name, row) in &mut fresh.jobs {
            if stale.state.job(name) != fresh.state.job(name)
                && let Some(stored) = self.store.job(row.id).await?
            {
                *row = stored;
            }
        }
        Ok(Some(fresh))
    }

    async fn apply_to_end(&self, id: WorkflowId, event: Event, also: Also) -> Result<Arc<Loaded>, NotApplied> {
        let slot = self.slot(id);
        let mut slot = slot.lock().await;
        // The state that lost the last race.
        let mut stale: Option<Arc<Loaded>> = None;
        // Where our event is if a commit that reported a failure was stored after all.
        let mut doubtful: Option<u64> = None;
        for race in 0..RACES {
            if race > 0 {
                self.clock.sleep(pause_after(race)).await;
            }
            let loaded = match (slot.take(), stale.take()) {
                (Some(loaded), _) => loaded,
                (None, Some(stale)) => Arc::new(match self.catch_up(&stale).await? {
                    Some(fresh) => fresh,
                    None => self.read(id).await?,
                }),
                (None, None) => Arc::new(self.read(id).await?),
            };
            if let Some(at) = doubtful.take()
                && self.is_stored(id, at, &event).await?
            {
                *slot = Some(loaded.clone());
                return Ok(loaded);
            }
            let mut next = Loaded::clone(&loaded);
            let effects = match next.state.apply(event.clone()) {
                Ok(effects) => effects,
                Err(illegal) => {
                    // The cache may be behind another server's decision: refuse an event only on fresh state.
                    let Some(fresh) = self.catch_up(&loaded).await? else {
                        *slot = Some(loaded);
                        return Err(NotApplied::Illegal(illegal));
                    };
                    *slot = Some(Arc::new(fresh));
                    continue;
                }
            };
            let gates = self.gates_that_close(&loaded, &next).await?;
            let mut commit = Commit::new();
            if let Some(guard) = also.guard.clone() {
                commit.guard(guard);
            }
            commit.write(Write::Events {
                stream: stream(id),
                expected: loaded.events,
                events: vec![wire::write_workflow_event(&event)],
            });
            if let Some(placement) = &also.placement {
                next.place(placement);
            }
            project(&loaded, &mut next, &effects, gates, self.clock.now(), &mut commit);
            for write in also.writes.clone() {
                commit.write(write);
            }
            next.events += 1;
            match self.store.commit(commit).await {
                Ok(committed) => {
                    for (job, number) in committed.jobs {
                        if let Some(row) = next.jobs.values_mut().find(|row| row.id == job) {
                            row.number = Some(number);
                        }
                    }
                    let next = Arc::new(next);
                    // Nobody asks about an ended workflow, so do not cache it.
                    *slot = next.row.stopped_at.is_none().then(|| next.clone());
                    return Ok(next);
                }
                Err(StoreError::Conflict { what }) => {
                    tracing::debug!(workflow = %id, what, "lost a race; deciding again");
                    stale = Some(loaded);
                }
                Err(error) if error.is_temporary() => {
                    doubtful = Some(loaded.events);
                    // The next read shows whether the event was stored. If that read fails too, report the error to the
                    // caller.
                    if self.store.events(&stream(id), loaded.events).await.is_err() {
                        return Err(error.into());
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(NotApplied::Contended(id))
    }

    async fn is_stored(&self, id: WorkflowId, at: u64, event: &Event) -> Result<bool, NotApplied> {
        let stored = self.store.events(&stream(id), at).await?;
        Ok(stored
            .first()
            .is_some_and(|stored| stored.event == wire::write_workflow_event(event)))
    }

    /// The rows of the gates whose jobs this event released from hold.
    async fn gates_that_close(&self, before: &Loaded, after: &Loaded) -> Result<Vec<GateRow>, NotApplied> {
        let mut gates = Vec::new();
        for (name, row) in &before.jobs {
            let held = |loaded: &Loaded| {
                let job = loaded.state.job(name);
                job.is_some_and(|job| job.status() == towpath_types::JobStatus::OnHold)
            };
            if held(before)
                && !held(after)
                && let Some(gate) = self.store.gate(row.id).await?
            {
                gates.push(gate);
            }
        }
        Ok(gates)
    }
}

fn not_a_history(id: WorkflowId, error: Illegal) -> NotApplied {
    let what = format!("the events of workflow {id} do not follow from each other");
    NotApplied::Failed(DeliveryError::internal(what).caused_by(error))
}

fn unreadable(id: WorkflowId, error: wire::WireError) -> NotApplied {
    NotApplied::Failed(DeliveryError::internal(format!("an event of workflow {id} cannot be read")).caused_by(error))
}

/// Adds a new workflow to `commit`: its first event, its rows, and the work that it asks for.
///
/// # Errors
/// When the event does not make a workflow.
pub(crate) fn begin(
    row: WorkflowRow,
    pipeline: Arc<PipelineRow>,
    jobs: Vec<JobRow>,
    event: Event,
    now: Timestamp,
    commit: &mut Commit,
) -> Result<(), Illegal> {
    let (state, effects) = Workflow::create(event.clone())?;
    let id = row.id;
    let mut loaded = Loaded {
        row,
        pipeline,
        jobs: jobs.into_iter().map(|job| (job.name.clone(), job)).collect(),
        state,
        events: 1,
    };
    commit.write(Write::Events {
        stream: stream(id),
        expected: 0,
        events: vec![wire::write_workflow_event(&event)],
    });
    crate::projection::insert(&mut loaded, &effects, now, commit);
    Ok(())
}
