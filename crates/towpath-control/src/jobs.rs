//! One job, from the state machine's wish to its end: numbers, environments, adoption, cancellation.

use crate::{
    Control, ControlError,
    conductor::store_error,
    jobspec::Prepared,
    records::{ServiceRecord, WorkflowRecord, collection},
    steps::{NodeHistory, worst},
};
use jiff::Timestamp;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use towpath_engines::{Engine, EngineError, EnvironmentId, EnvironmentState, ServiceLog};
use towpath_types::{JobId, Outcome};
use towpath_workflow::Event;

/// How often a job's environment is looked at, in case it ended without a word.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long an environment may be gone or ended before its job is given up: its last report may still be on its way.
const GONE_FOR: Duration = Duration::from_secs(6);
/// How long a canceled job may take to end by itself.
const CANCEL_GRACE: Duration = Duration::from_secs(30);
/// How long an engine that fails is tried again.
const ENGINE_PATIENCE: Duration = Duration::from_secs(60);

/// The jobs that this process looks after.
#[derive(Default)]
pub(crate) struct RunningJobs(Mutex<HashMap<JobId, Arc<Running>>>);

/// One job that this process looks after.
pub(crate) struct Running {
    /// Whether its environments are whole, so that its agents may begin.
    pub ready: watch::Sender<bool>,
    /// Whether it is to stop.
    pub cancel: watch::Sender<bool>,
    /// Something was reported.
    pub reported: Notify,
}

impl RunningJobs {
    /// Registers a job; `None` when it is looked after already.
    fn begin(&self, job: JobId) -> Option<Arc<Running>> {
        let mut jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if jobs.contains_key(&job) {
            return None;
        }
        let running = Arc::new(Running {
            ready: watch::Sender::new(false),
            cancel: watch::Sender::new(false),
            reported: Notify::new(),
        });
        jobs.insert(job, running.clone());
        Some(running)
    }

    /// The job, when this process looks after it.
    pub(crate) fn get(&self, job: JobId) -> Option<Arc<Running>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&job).cloned()
    }

    fn end(&self, job: JobId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&job);
    }
}

impl Control {
    /// Looks after a job until it ended, unless somebody does already.
    pub(crate) fn supervise(self: &Arc<Self>, record: Arc<WorkflowRecord>, job: JobId) {
        let Some(running) = self.running.begin(job) else { return };
        let control = self.clone();
        self.tasks.spawn(async move {
            let shutdown = control.shutdown.clone();
            tokio::select! {
                // The job goes on without us; the next start takes it up again.
                () = shutdown.cancelled() => {}
                () = control.run_job_to_its_end(&record, job, &running) => {}
            }
            control.running.end(job);
        });
    }

    /// Tells a job to stop; one that nobody looks after is looked after first.
    pub(crate) fn order_cancel(self: &Arc<Self>, record: Arc<WorkflowRecord>, job: JobId) {
        self.supervise(record, job);
        if let Some(running) = self.running.get(job) {
            running.cancel.send_replace(true);
            running.reported.notify_one();
        }
    }

    async fn run_job_to_its_end(self: &Arc<Self>, record: &Arc<WorkflowRecord>, job: JobId, running: &Running) {
        let (outcome, message) = match self.run_environments(record, job, running).await {
            Ok(ended) => ended,
            Err(error) => {
                tracing::warn!(workflow = %record.id, %job, error = error.chain(), "job errored");
                (Outcome::Errored, Some(error.chain()))
            }
        };
        // Storage that does not work now (a full disk, say) must not lose how the job ended.
        let mut pause = Duration::from_millis(200);
        loop {
            match self.finish_job(record, job, outcome, message.clone()).await {
                Ok(()) => return,
                Err(error) if error.kind() == crate::ErrorKind::Conflict => {
                    tracing::warn!(%job, error = error.chain(), "the job had ended already");
                    return;
                }
                Err(error) => {
                    tracing::error!(%job, error = error.chain(), "failed to record how a job ended; trying again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(10));
                }
            }
        }
    }

    /// Makes the job's environments, waits for its end, and takes them away.
    async fn run_environments(
        self: &Arc<Self>,
        record: &Arc<WorkflowRecord>,
        job: JobId,
        running: &Running,
    ) -> Result<(Outcome, Option<String>), ControlError> {
        self.mark_started(record, job).await?;
        let prepared = self.prepare(record, job).await?;
        let engine = self.engine_for(&prepared)?;
        self.keep_image(job, &prepared).await?;
        let ids: Vec<EnvironmentId> = (0..prepared.nodes).map(|node| EnvironmentId { job, node }).collect();
        let ended = match self.histories(job, prepared.nodes).await? {
            histories if histories.iter().all(|history| history.finished.is_some()) => Ok(histories),
            histories => {
                self.start_and_wait(&prepared, engine.as_ref(), &ids, running, &histories)
                    .await
            }
        };
        if ended.is_ok() {
            self.keep_service_logs(engine.as_ref(), &ids, &prepared).await;
        }
        for id in &ids {
            if let Err(error) = engine.stop(id).await {
                tracing::warn!(environment = %id, %error, "failed to take a job's environment away");
            }
        }
        ended.map(|histories| worst(histories.into_iter().filter_map(|history| history.finished)))
    }

    async fn start_and_wait(
        &self,
        prepared: &Prepared,
        engine: &dyn Engine,
        ids: &[EnvironmentId],
        running: &Running,
        before: &[NodeHistory],
    ) -> Result<Vec<NodeHistory>, ControlError> {
        for (id, history) in ids.iter().zip(before) {
            let reported = !history.steps.is_empty() || history.finished.is_some();
            if reported && engine.state(id).await.map_err(engine_error)? == EnvironmentState::Absent {
                if history.finished.is_none() {
                    return Err(ControlError::unavailable(
                        "the job's environment disappeared while Towpath was not running",
                    ));
                }
                continue;
            }
            self.start_patiently(engine, prepared, *id, running).await?;
        }
        running.ready.send_replace(true);
        self.wait_for_end(engine, ids, running).await
    }

    async fn start_patiently(
        &self,
        engine: &dyn Engine,
        prepared: &Prepared,
        id: EnvironmentId,
        running: &Running,
    ) -> Result<(), ControlError> {
        let request = prepared.environment(
            id,
            self.tokens.issue(&crate::Grant::Job {
                job: id.job,
                node: id.node,
            }),
        );
        let begun = Instant::now();
        loop {
            match engine.start(&request).await {
                Ok(()) => return Ok(()),
                Err(EngineError::Failed { .. }) if begun.elapsed() < ENGINE_PATIENCE && !*running.cancel.borrow() => {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                Err(error) => return Err(engine_error(error)),
            }
        }
    }

    async fn wait_for_end(
        &self,
        engine: &dyn Engine,
        ids: &[EnvironmentId],
        running: &Running,
    ) -> Result<Vec<NodeHistory>, ControlError> {
        let Some(job) = ids.first().map(|id| id.job) else {
            return Ok(Vec::new());
        };
        let nodes = u32::try_from(ids.len()).unwrap_or(u32::MAX);
        let mut gone_since: HashMap<EnvironmentId, Instant> = HashMap::new();
        let mut canceled_at = None;
        loop {
            let histories = self.histories(job, nodes).await?;
            if histories.iter().all(|history| history.finished.is_some()) {
                return Ok(histories);
            }
            if *running.cancel.borrow() {
                let at = *canceled_at.get_or_insert_with(Instant::now);
                if at.elapsed() >= CANCEL_GRACE {
                    return Ok(end_all(
                        histories,
                        Outcome::Canceled,
                        "canceled; it did not stop by itself in time",
                    ));
                }
            }
            for (id, history) in ids.iter().zip(&histories) {
                if history.finished.is_some() {
                    continue;
                }
                match engine.state(id).await {
                    Ok(EnvironmentState::Running) => {
                        gone_since.remove(id);
                    }
                    Ok(state) if gone_since.entry(*id).or_insert_with(Instant::now).elapsed() >= GONE_FOR => {
                        return Err(ControlError::unavailable(ended_silently(&state)));
                    }
                    Ok(_) => {}
                    Err(error) => tracing::warn!(environment = %id, %error, "failed to look at a job's environment"),
                }
            }
            tokio::select! {
                () = running.reported.notified() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    async fn mark_started(self: &Arc<Self>, record: &Arc<WorkflowRecord>, job: JobId) -> Result<(), ControlError> {
        let Some(known) = record.job(job) else {
            return Err(ControlError::internal(format!(
                "job {job} is not of workflow {}",
                record.id
            )));
        };
        let started = {
            let live = self.live(record.id).await?;
            let live = live.lock().await;
            live.state.job(&known.name).is_some_and(|job| job.has_started())
        };
        if started {
            return Ok(());
        }
        let event = Event::JobStarted {
            job: known.name.clone(),
            at: Timestamp::now(),
        };
        self.advance(record.id, event, |batch| batch.number_job(job)).await
    }

    async fn finish_job(
        self: &Arc<Self>,
        record: &Arc<WorkflowRecord>,
        job: JobId,
        outcome: Outcome,
        message: Option<String>,
    ) -> Result<(), ControlError> {
        let Some(known) = record.job(job) else { return Ok(()) };
        let images = if outcome == Outcome::Succeeded {
            self.newly_pushed(record).await?
        } else {
            None
        };
        let images = images.map(|images| crate::conductor::to_json(&images)).transpose()?;
        let event = Event::JobFinished {
            job: known.name.clone(),
            outcome,
            message,
            at: Timestamp::now(),
        };
        self.advance(record.id, event, |batch| {
            if let Some(images) = images {
                batch.document(collection::IMAGES, record.id.to_string(), Some(images));
            }
        })
        .await
    }

    /// What each node of a job has reported.
    pub(crate) async fn histories(&self, job: JobId, nodes: u32) -> Result<Vec<NodeHistory>, ControlError> {
        let mut histories = Vec::new();
        for node in 0..nodes {
            let reports: Vec<towpath_protocol::Report> = self.events(&reports_stream(job, node)).await?;
            histories.push(NodeHistory::fold(node, &reports));
        }
        Ok(histories)
    }

    async fn keep_image(&self, job: JobId, prepared: &Prepared) -> Result<(), ControlError> {
        let Some(image) = &prepared.image else { return Ok(()) };
        let mut batch = towpath_store::Batch::default();
        batch.document(collection::JOB_IMAGES, job.to_string(), Some(image.to_string().into()));
        self.store.commit(batch).await.map_err(store_error)
    }

    async fn keep_service_logs(&self, engine: &dyn Engine, ids: &[EnvironmentId], prepared: &Prepared) {
        for id in ids {
            let logs = match engine.service_logs(id).await {
                Ok(logs) => logs,
                Err(error) => {
                    tracing::warn!(environment = %id, %error, "failed to read the logs of a job's services");
                    continue;
                }
            };
            for (index, log) in logs.into_iter().enumerate() {
                let step = prepared.service_log_step(index);
                let kept = self
                    .keep_service_log(*id, step, &log, &prepared.masked(&log.output))
                    .await;
                if let Err(error) = kept {
                    tracing::warn!(environment = %id, error = error.chain(), "failed to keep the log of a service");
                }
            }
        }
    }

    async fn keep_service_log(
        &self,
        id: EnvironmentId,
        step: u32,
        log: &ServiceLog,
        output: &[u8],
    ) -> Result<(), ControlError> {
        self.store
            .logs()
            .append(id.job, id.node, step, 0, output)
            .await
            .map_err(store_error)?;
        let record = ServiceRecord {
            node: id.node,
            step,
            name: log.name.clone(),
            exit_code: log.exit_code,
            at: Timestamp::now(),
        };
        let mut batch = towpath_store::Batch::default();
        let key = format!("{}/{}/{step:06}", id.job, id.node);
        batch.document(collection::JOB_SERVICES, key, Some(crate::conductor::to_json(&record)?));
        self.store.commit(batch).await.map_err(store_error)
    }
}

/// The stream of one node's reports; a report's sequence number is its place in it.
pub(crate) fn reports_stream(job: JobId, node: u32) -> String {
    format!("job/{job}/{node}")
}

fn end_all(histories: Vec<NodeHistory>, outcome: Outcome, message: &str) -> Vec<NodeHistory> {
    histories
        .into_iter()
        .map(|mut history| {
            history.finished.get_or_insert((outcome, Some(message.to_string())));
            history
        })
        .collect()
}

fn ended_silently(state: &EnvironmentState) -> String {
    match state {
        EnvironmentState::Exited { code, detail } => {
            let code = code.map(|code| format!(" with code {code}")).unwrap_or_default();
            let detail = if detail.is_empty() {
                String::new()
            } else {
                format!(": {detail}")
            };
            format!("the job's environment ended{code} before its job did{detail}")
        }
        _ => "the job's environment disappeared: was its container removed?".to_string(),
    }
}

fn engine_error(error: EngineError) -> ControlError {
    match error {
        EngineError::Refused { message } => ControlError::invalid(message),
        failed => ControlError::unavailable("the engine does not do what the job needs").caused_by(failed),
    }
}
