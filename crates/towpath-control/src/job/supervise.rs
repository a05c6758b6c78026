//! Supervises one attempt of a job: environments, readiness, the end.
//!
//! The server with the lease on the job's work is its supervisor. Rows hold everything that matters: the attempt, its
//! engine, whether to stop it, what its nodes reported. Memory holds only what lets agents wait for answers.

use crate::{
    capacity::Capacity,
    conductor::{Also, Conductor, NotApplied},
    job::{
        WARNING_STEP,
        prepare::{Preparation, Prepared, Subject},
        stored::{StoredExecutor, StoredJob},
    },
    loaded::{Loaded, Placement},
    storage::{Pauses, patiently, store_error},
    tokens::{Grant, Identity},
    worker::{Done, Handler},
};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use towpath_delivery::DeliveryError;
use towpath_engines::{Engine, EngineError, EnvironmentState, ServiceLog};
use towpath_store::{
    Change, Changes, Commit, Guard, JobRow, Lease, LogId, NodeRow, Objects, StepRow, Store, Topic, Write,
};
use towpath_types::{Clock, JobId, JobStatus, Mask, NodeId, Outcome, StepStatus, WorkflowId};
use towpath_workflow::{Event, Illegal};

/// How often to check a job's environments, in case one ended without an event.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long an environment may be gone before its job fails. Its last report may still be on its way.
const GONE_FOR: Duration = Duration::from_secs(6);
/// How long to retry a failing engine.
const ENGINE_PATIENCE: Duration = Duration::from_secs(60);
/// The pause between two tries.
const ENGINE_PAUSE: Duration = Duration::from_secs(1);

/// The engines of this server.
#[derive(Clone)]
pub struct Engines {
    /// For jobs in containers; `None` when the server was started without one.
    pub containers: Option<Arc<dyn Engine>>,
    /// For jobs on the host.
    pub host: Arc<dyn Engine>,
}

impl Engines {
    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Arc<dyn Engine>> {
        self.containers.iter().chain(std::iter::once(&self.host))
    }

    /// The engine called `name`.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<Arc<dyn Engine>> {
        self.all().find(|engine| engine.name().as_str() == name).cloned()
    }
}

/// What the agents of one attempt wait for.
pub(crate) struct Attended {
    /// The attempt's number.
    pub attempt: u32,
    /// Hides the job's secrets, once they are known.
    pub mask: OnceLock<Mask>,
    /// Set once its environments are ready, so that its agents may begin.
    pub ready: watch::Sender<Option<Arc<Prepared>>>,
    /// Whether the attempt is to stop.
    pub stop: watch::Sender<bool>,
}

impl Attended {
    /// `text` with the job's secrets masked. Until the secrets are loaded, no text can contain them.
    fn masked(&self, text: &str) -> String {
        self.mask.get().map_or_else(|| text.to_string(), |mask| mask.text(text))
    }
}

/// The jobs that this process supervises now. Agents wait on these; the rows are the truth.
#[derive(Clone, Default)]
pub struct Attendance(Arc<Mutex<HashMap<JobId, Arc<Attended>>>>);

impl Attendance {
    pub(crate) fn get(&self, job: JobId) -> Option<Arc<Attended>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&job).cloned()
    }

    fn begin(&self, job: JobId, attempt: u32) -> Arc<Attended> {
        let attended = Arc::new(Attended {
            attempt,
            mask: OnceLock::new(),
            ready: watch::Sender::new(None),
            stop: watch::Sender::new(false),
        });
        let mut jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.insert(job, attended.clone());
        attended
    }

    fn end(&self, job: JobId, attended: &Arc<Attended>) {
        let mut jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if jobs.get(&job).is_some_and(|known| Arc::ptr_eq(known, attended)) {
            jobs.remove(&job);
        }
    }
}

/// Supervises jobs.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct Supervisor {
    pub store: Arc<dyn Store>,
    pub objects: Arc<dyn Objects>,
    pub clock: Arc<dyn Clock>,
    pub conductor: Conductor,
    pub engines: Engines,
    pub preparation: Preparation,
    pub identity: Arc<dyn Identity>,
    pub attendance: Attendance,
    /// This server's id.
    pub server: String,
    /// The most that one container may use.
    pub machine: Capacity,
}

impl Handler for Supervisor {
    fn handle<'a>(&'a self, lease: &'a Lease, _: &'a CancellationToken) -> BoxFuture<'a, Result<Done, DeliveryError>> {
        Box::pin(async move {
            let job: JobId = lease.work.key.key.parse().map_err(|_| {
                DeliveryError::internal(format!("`{}` is not a job's id", lease.work.key.key.escape_debug()))
            })?;
            self.run(job, lease).await
        })
    }

    fn give_up<'a>(
        &'a self,
        lease: &'a Lease,
        error: &'a DeliveryError,
    ) -> BoxFuture<'a, Result<Option<Done>, DeliveryError>> {
        Box::pin(async move {
            let Ok(job) = lease.work.key.key.parse() else {
                return Ok(None);
            };
            let row = self.row(job).await?;
            let end = (Outcome::Errored, Some(error.chain()));
            self.clear(&row, row.attempt).await;
            self.finish(&row, row.attempt, end, lease).await.map(Some)
        })
    }
}

/// How an attempt ended, or that it was already over.
enum End {
    With(Outcome, Option<String>),
    Over,
}

impl Supervisor {
    async fn run(&self, job: JobId, lease: &Lease) -> Result<Done, DeliveryError> {
        let row = self.row(job).await?;
        let loaded = self.conductor.load(row.workflow).await?;
        let Some(state) = loaded.state.job(&row.name) else {
            return Err(DeliveryError::internal(format!(
                "workflow {} has no job `{}`",
                row.workflow, row.name
            )));
        };
        match state.status() {
            JobStatus::Queued | JobStatus::Claimed | JobStatus::Running => {}
            // The job was blocked, held or ended in the meantime.
            JobStatus::Blocked | JobStatus::OnHold | JobStatus::Ended(_) => return Ok(Done::Finished),
        }
        let attempt = state.attempt;
        let attended = self.attendance.begin(job, attempt);
        let end = self.attend(&loaded, job, attempt, lease, &attended).await;
        self.attendance.end(job, &attended);
        let end = match end {
            Ok(End::Over) => {
                self.clear(&row, attempt).await;
                return Ok(Done::Finished);
            }
            Ok(End::With(outcome, message)) => (outcome, message.map(|message| attended.masked(&message))),
            Err(error) => {
                // An engine's message may quote a container's output, and an image's name may contain a context
                // variable.
                let message = attended.masked(&error.chain());
                tracing::warn!(%job, attempt, error = message, "job errored");
                (Outcome::Errored, Some(message))
            }
        };
        self.clear(&row, attempt).await;
        self.finish(&row, attempt, end, lease).await
    }

    /// Stores how an attempt ended, and ends its work.
    async fn finish(
        &self,
        row: &JobRow,
        attempt: u32,
        (outcome, message): (Outcome, Option<String>),
        lease: &Lease,
    ) -> Result<Done, DeliveryError> {
        let job = row.id;
        let event = Event::JobFinished {
            job: row.name.clone(),
            attempt,
            outcome,
            message,
            at: self.clock.now(),
        };
        let also = Also {
            writes: vec![Write::WorkDone(Guard::from(lease))],
            guard: Some(Guard::from(lease)),
            placement: None,
        };
        match self.conductor.apply_patiently(row.workflow, event, also).await {
            Ok(_) => Ok(Done::Committed),
            // The attempt could not be claimed. Keep the work and try again.
            Err(NotApplied::Illegal(_)) if self.is_queued(row.workflow, &row.name, attempt).await? => {
                Err(DeliveryError::unavailable(format!("job {job} could not be claimed")))
            }
            // The state machine ended it first, or another attempt has begun.
            Err(NotApplied::Illegal(illegal)) => {
                tracing::info!(%job, attempt, reason = %illegal, "the job had ended already");
                Ok(Done::Finished)
            }
            Err(other) => Err(other.into()),
        }
    }

    async fn is_queued(&self, workflow: WorkflowId, job: &str, attempt: u32) -> Result<bool, DeliveryError> {
        let loaded = self.conductor.load(workflow).await?;
        let state = loaded.state.job(job);
        Ok(state.is_some_and(|state| state.attempt == attempt && state.status() == JobStatus::Queued))
    }

    async fn row(&self, job: JobId) -> Result<JobRow, DeliveryError> {
        let row = patiently(&*self.clock, "a job's row", || self.store.job(job)).await;
        row.map_err(store_error)?
            .ok_or_else(|| DeliveryError::internal(format!("there is no job {job}")))
    }

    /// Creates the attempt's environments and waits for its end.
    async fn attend(
        &self,
        loaded: &Arc<Loaded>,
        job: JobId,
        attempt: u32,
        lease: &Lease,
        attended: &Arc<Attended>,
    ) -> Result<End, DeliveryError> {
        // Subscribe before reading, so that no change is missed.
        let mut changes = self.store.changes();
        let engine = self.engine_for(job).await?;
        let Some(loaded) = self.claim(loaded, job, attempt, lease, engine.as_ref()).await? else {
            return Ok(End::Over);
        };
        let row = loaded
            .job(job)
            .ok_or_else(|| DeliveryError::internal(format!("job {job} is not of workflow {}", loaded.row.id)))?;
        let subject = Subject {
            job: row,
            workflow: &loaded.row,
            pipeline: &loaded.pipeline,
        };
        let nodes = self.nodes(job, attempt).await?;
        let reported = |node: u32| nodes.iter().find(|row| row.node == node);
        let prepared = Arc::new(self.prepare(&subject, &attended.mask).await?);
        let ids: Vec<NodeId> = (0..prepared.nodes).map(|node| NodeId { job, attempt, node }).collect();
        if ids
            .iter()
            .all(|id| reported(id.node).is_some_and(|row| row.outcome.is_some()))
        {
            self.keep_service_logs(engine.as_ref(), &ids, &prepared).await;
            return Ok(worst(&nodes));
        }
        for id in &ids {
            if let Some(node) = reported(id.node) {
                if node.outcome.is_some() {
                    continue;
                }
                if self.state_patiently(engine.as_ref(), id).await? == EnvironmentState::Absent {
                    // The server that had the job takes the environment away once the node has reported its end. That may
                    // have happened since the rows were read.
                    let nodes = self.nodes(job, attempt).await?;
                    if nodes.iter().any(|row| row.node == id.node && row.outcome.is_some()) {
                        continue;
                    }
                    return Err(DeliveryError::unavailable(
                        "the job's environment disappeared while Towpath was not running",
                    ));
                }
            }
            if !self
                .start_patiently(engine.as_ref(), &prepared, *id, &mut changes)
                .await?
            {
                return Ok(End::With(Outcome::Canceled, Some("canceled".into())));
            }
        }
        self.mark_started(row, attempt, lease, &prepared).await?;
        if let Some(warning) = &prepared.warning {
            self.say(job, attempt, warning).await;
        }
        attended.ready.send_replace(Some(prepared.clone()));
        let end = self.wait_for_end(engine.as_ref(), &ids, attended, &mut changes).await?;
        self.keep_service_logs(engine.as_ref(), &ids, &prepared).await;
        Ok(end)
    }

    /// Prepares the job; retries for as long as the storage is away.
    async fn prepare(&self, subject: &Subject<'_>, known: &OnceLock<Mask>) -> Result<Prepared, DeliveryError> {
        let mut pauses = Pauses::default();
        loop {
            match self.preparation.prepare(subject, self.machine, known).await {
                Err(error) if error.is_of_store_that_is_away() => {
                    pauses.wait(&*self.clock, "what a job needs", &error).await;
                }
                other => return other,
            }
        }
    }

    /// The state of a started environment. Retries, because the engine may be starting itself.
    async fn state_patiently(&self, engine: &dyn Engine, id: &NodeId) -> Result<EnvironmentState, DeliveryError> {
        let begun = Instant::now();
        loop {
            match engine.state(id).await {
                Err(EngineError::Failed { .. }) if begun.elapsed() < ENGINE_PATIENCE => {
                    self.clock.sleep(ENGINE_PAUSE).await;
                }
                other => return other.map_err(engine_error),
            }
        }
    }

    /// Records that this server runs the attempt and on which engine, unless that is already recorded. From then on
    /// only a server with that engine can take over, because no other can see the environments. `None` when nothing is
    /// left to do.
    async fn claim(
        &self,
        loaded: &Arc<Loaded>,
        job: JobId,
        attempt: u32,
        lease: &Lease,
        engine: &dyn Engine,
    ) -> Result<Option<Arc<Loaded>>, DeliveryError> {
        let Some(row) = loaded.job(job) else { return Ok(None) };
        let queued = loaded
            .state
            .job(&row.name)
            .is_some_and(|state| state.status() == JobStatus::Queued);
        if !queued {
            return Ok(Some(loaded.clone()));
        }
        let event = Event::JobClaimed {
            job: row.name.clone(),
            attempt,
            by: self.server.clone(),
            at: self.clock.now(),
        };
        let engine = engine.name().to_string();
        let also = Also {
            writes: vec![Write::WorkBound {
                guard: Guard::from(lease),
                engine: engine.clone(),
            }],
            guard: Some(Guard::from(lease)),
            placement: Some(Placement {
                job,
                engine: Some(engine),
                image: None,
            }),
        };
        match self.conductor.apply_patiently(loaded.row.id, event, also).await {
            Ok(loaded) => Ok(Some(loaded)),
            Err(NotApplied::Illegal(Illegal::StaleAttempt { .. } | Illegal::WrongState { .. } | Illegal::Ended(_))) => {
                Ok(None)
            }
            Err(other) => Err(other.into()),
        }
    }

    /// The engine that a job runs on.
    async fn engine_for(&self, job: JobId) -> Result<Arc<dyn Engine>, DeliveryError> {
        let spec = patiently(&*self.clock, "what a job does", || self.store.job_spec(job)).await;
        let lost = || DeliveryError::internal(format!("what job {job} does was lost"));
        let stored = StoredJob::read(&spec.map_err(store_error)?.ok_or_else(lost)?.spec)?;
        if stored.executor == StoredExecutor::Host {
            return Ok(self.engines.host.clone());
        }
        let absent = || DeliveryError::unavailable("this Towpath was started without a container engine");
        self.engines.containers.clone().ok_or_else(absent)
    }

    /// Creates a node's environment; `false` when the job is to stop first.
    async fn start_patiently(
        &self,
        engine: &dyn Engine,
        prepared: &Prepared,
        id: NodeId,
        changes: &mut Changes,
    ) -> Result<bool, DeliveryError> {
        let token = self.identity.issue(&Grant::Agent(id));
        let request = prepared.environment(id, token);
        let begun = Instant::now();
        loop {
            match engine.start(&request).await {
                Ok(()) => return Ok(true),
                Err(EngineError::Failed { .. }) if begun.elapsed() < ENGINE_PATIENCE => {
                    if self.row(id.job).await?.stop_requested {
                        return Ok(false);
                    }
                    let changed = Topic::Job(id.job);
                    tokio::select! {
                        () = self.clock.sleep(ENGINE_PAUSE) => {}
                        _ = changes.of(&changed) => {}
                    }
                }
                Err(error) => return Err(engine_error(error)),
            }
        }
    }

    async fn mark_started(
        &self,
        row: &JobRow,
        attempt: u32,
        lease: &Lease,
        prepared: &Prepared,
    ) -> Result<(), DeliveryError> {
        let event = Event::JobStarted {
            job: row.name.clone(),
            attempt,
            at: self.clock.now(),
        };
        let also = Also {
            writes: Vec::new(),
            guard: Some(Guard::from(lease)),
            placement: Some(Placement {
                job: row.id,
                engine: None,
                image: prepared.image.clone(),
            }),
        };
        match self.conductor.apply_patiently(row.workflow, event, also).await {
            // Refused if it already started or is over: the wait that follows finds out.
            Ok(_) | Err(NotApplied::Illegal(_)) => Ok(()),
            Err(other) => Err(other.into()),
        }
    }

    async fn nodes(&self, job: JobId, attempt: u32) -> Result<Vec<NodeRow>, DeliveryError> {
        patiently(&*self.clock, "a job's nodes", || self.store.nodes(job, attempt))
            .await
            .map_err(store_error)
    }

    async fn wait_for_end(
        &self,
        engine: &dyn Engine,
        ids: &[NodeId],
        attended: &Attended,
        changes: &mut Changes,
    ) -> Result<End, DeliveryError> {
        let Some(NodeId { job, attempt, .. }) = ids.first().copied() else {
            return Ok(End::With(Outcome::Succeeded, None));
        };
        let mut gone_since: HashMap<NodeId, Instant> = HashMap::new();
        loop {
            let row = self.row(job).await?;
            if row.attempt != attempt || row.status.outcome().is_some() {
                return Ok(End::Over);
            }
            attended
                .stop
                .send_if_modified(|stop| std::mem::replace(stop, row.stop_requested) != row.stop_requested);
            let nodes = self.nodes(job, attempt).await?;
            let ended = |id: &NodeId| nodes.iter().any(|row| row.node == id.node && row.outcome.is_some());
            if ids.iter().all(ended) {
                return Ok(worst(&nodes));
            }
            for id in ids.iter().filter(|id| !ended(id)) {
                match engine.state(id).await {
                    Ok(EnvironmentState::Running) => {
                        gone_since.remove(id);
                    }
                    Ok(state) if gone_since.entry(*id).or_insert_with(Instant::now).elapsed() >= GONE_FOR => {
                        return Err(DeliveryError::unavailable(ended_silently(&state)));
                    }
                    Ok(EnvironmentState::Absent | EnvironmentState::Exited { .. }) => {}
                    Err(error) => tracing::warn!(environment = %id, %error, "failed to look at a job's environment"),
                }
            }
            tokio::select! {
                open = relevant(changes, job) => if !open {
                    return Err(DeliveryError::unavailable("Towpath is stopping"));
                },
                () = self.clock.sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Removes the environments of an attempt.
    async fn clear(&self, row: &JobRow, attempt: u32) {
        for engine in self.engines.all() {
            for node in 0..row.nodes.max(1) {
                let id = NodeId {
                    job: row.id,
                    attempt,
                    node,
                };
                // The reconciler removes whatever is left.
                if let Err(error) = engine.stop(&id).await {
                    tracing::warn!(environment = %id, %error, "failed to take a job's environment away");
                }
            }
        }
        if let Err(error) = self.objects.close_logs(row.id).await {
            tracing::debug!(job = %row.id, error = towpath_types::with_causes(&error), "failed to close the logs");
        }
    }

    /// Writes a line from Towpath before a job's steps.
    async fn say(&self, job: JobId, attempt: u32, line: &str) {
        tracing::warn!(%job, attempt, line, "job");
        let step = StepRow {
            job,
            attempt,
            node: 0,
            step: WARNING_STEP,
            name: "Resource class".into(),
            status: StepStatus::Ended(Outcome::Succeeded),
            exit_code: None,
            message: Some(line.to_string()),
            started_at: self.clock.now(),
            stopped_at: Some(self.clock.now()),
        };
        self.keep_step(step, Bytes::from(format!("{line}\n"))).await;
    }

    async fn keep_service_logs(&self, engine: &dyn Engine, ids: &[NodeId], prepared: &Prepared) {
        for id in ids {
            let logs = match engine.service_logs(id).await {
                Ok(logs) => logs,
                Err(error) => {
                    tracing::warn!(environment = %id, %error, "failed to read the logs of a job's services");
                    continue;
                }
            };
            for (index, log) in logs.iter().enumerate() {
                let output = Bytes::from(prepared.masked(&log.output));
                let step = service_step(*id, prepared.service_log_step(index), log, self.clock.now());
                self.keep_step(step, output).await;
            }
        }
    }

    async fn keep_step(&self, step: StepRow, output: Bytes) {
        let log = LogId::Step {
            job: step.job,
            attempt: step.attempt,
            node: step.node,
            step: step.step,
        };
        let kept = patiently(&*self.clock, "the log of a service", || async {
            // The log ignores bytes that it already has.
            self.objects.append_log(log, 0, output.clone()).await?;
            self.store.commit(Commit::new().with(Write::Step(step.clone()))).await
        });
        if let Err(error) = kept.await {
            tracing::warn!(%log, error = towpath_types::with_causes(&error), "failed to keep the log of a service");
        }
    }
}

/// Waits for a change that concerns `job`; `false` once the store is closed.
async fn relevant(changes: &mut Changes, job: JobId) -> bool {
    loop {
        match changes.next().await {
            Some(Change::Everything) => return true,
            Some(change) if change.concerns(&Topic::Job(job)) => return true,
            Some(Change::Topics(_)) => {}
            None => return false,
        }
    }
}

fn service_step(id: NodeId, step: u32, log: &ServiceLog, at: jiff::Timestamp) -> StepRow {
    let well = log.exit_code.is_none_or(|code| code == 0);
    StepRow {
        job: id.job,
        attempt: id.attempt,
        node: id.node,
        step,
        name: format!("Service {}", log.name),
        status: StepStatus::Ended(if well { Outcome::Succeeded } else { Outcome::Failed }),
        exit_code: log.exit_code.and_then(|code| i32::try_from(code).ok()),
        message: None,
        started_at: at,
        stopped_at: Some(at),
    }
}

/// The outcome of a job from those of its nodes: the worst one. A failure of the user's command outranks an
/// infrastructure error.
fn worst(nodes: &[NodeRow]) -> End {
    let rank = |outcome: Outcome| match outcome {
        Outcome::Succeeded => 0,
        Outcome::Skipped => 1,
        Outcome::Rejected => 2,
        Outcome::Canceled => 3,
        Outcome::Errored => 4,
        Outcome::TimedOut => 5,
        Outcome::Failed => 6,
    };
    let ended = nodes
        .iter()
        .filter_map(|node| Some((node.outcome?, node.message.clone())));
    let (outcome, message) = ended
        .max_by_key(|(outcome, _)| rank(*outcome))
        .unwrap_or((Outcome::Succeeded, None));
    End::With(outcome, message)
}

fn ended_silently(state: &EnvironmentState) -> String {
    match state {
        EnvironmentState::Exited { code, detail } => {
            let code = code.map(|code| format!(" with code {code}")).unwrap_or_default();
            let detail = match detail.as_str() {
                "" => String::new(),
                detail => format!(": {detail}"),
            };
            format!("the job's environment ended{code} before its job did{detail}")
        }
        EnvironmentState::Absent | EnvironmentState::Running => {
            "the job's environment disappeared: was its container removed?".to_string()
        }
    }
}

fn engine_error(error: EngineError) -> DeliveryError {
    match error {
        EngineError::Refused { message } => DeliveryError::invalid(message),
        failed => DeliveryError::unavailable("the engine cannot do what the job needs").caused_by(failed),
    }
}
