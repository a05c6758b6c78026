//! Feeds events to the state machine of each workflow, commits them, and carries out what it answers.
//!
//! A workflow's truth is its stream of events. What is held in memory is a fold of it, and is thrown away with the
//! process: `adopt` makes it again and reissues what is outstanding.

use crate::{
    Control, ControlError,
    records::{PipelineRecord, WorkflowRecord, collection},
};
use jiff::Timestamp;
use std::sync::Arc;
use tokio::sync::Mutex;
use towpath_store::Batch;
use towpath_types::{JobId, WorkflowId};
use towpath_workflow::{Effect, Event, Illegal, Workflow};

/// One workflow that is being worked on.
pub(crate) struct Live {
    pub record: Arc<WorkflowRecord>,
    pub pipeline: Arc<PipelineRecord>,
    pub state: Workflow,
    pub version: u64,
}

/// The stream of a workflow's events.
pub(crate) fn stream(id: WorkflowId) -> String {
    format!("workflow/{id}")
}

impl Control {
    /// The workflow, from memory or folded from its events.
    pub(crate) async fn live(&self, id: WorkflowId) -> Result<Arc<Mutex<Live>>, ControlError> {
        // Held across the load, so that two tasks never fold the same workflow into two truths.
        let mut lives = self.lives.lock().await;
        if let Some(live) = lives.get(&id) {
            return Ok(live.clone());
        }
        let record: WorkflowRecord = self
            .document(collection::WORKFLOWS, &id.to_string())
            .await?
            .ok_or_else(|| ControlError::not_found(format!("there is no workflow {id}")))?;
        let pipeline = self.pipeline_record(record.pipeline).await?;
        let events: Vec<Event> = self.events(&stream(id)).await?;
        let version = events.len() as u64;
        let state = Workflow::fold(events).map_err(|error| {
            ControlError::internal(format!("the events of workflow {id} do not follow from each other"))
                .caused_by(error)
        })?;
        let live = Arc::new(Mutex::new(Live {
            record: Arc::new(record),
            pipeline,
            state,
            version,
        }));
        lives.insert(id, live.clone());
        Ok(live)
    }

    /// Applies `event`, commits it with the rows that change (and what `also` adds), and carries out what follows.
    pub(crate) async fn advance(
        self: &Arc<Self>,
        id: WorkflowId,
        event: Event,
        also: impl FnOnce(&mut Batch),
    ) -> Result<(), ControlError> {
        let live = self.live(id).await?;
        let (record, effects) = {
            let mut live = live.lock().await;
            let mut next = live.state.clone();
            let effects = next.apply(event.clone()).map_err(illegal)?;
            let mut batch = Batch::default();
            batch.append(stream(id), Some(live.version), vec![to_json(&event)?]);
            for row in self.changed_rows(&live.record, Some(&live.state), &next) {
                batch.put(row);
            }
            also(&mut batch);
            self.store.commit(batch).await.map_err(store_error)?;
            live.state = next;
            live.version += 1;
            (live.record.clone(), effects)
        };
        self.carry_out(&record, effects).await;
        Ok(())
    }

    /// Starts what the state machine asks for. Every effect is safe twice: each looks at what is there first.
    pub(crate) async fn carry_out(self: &Arc<Self>, record: &Arc<WorkflowRecord>, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::StartJob { job } => {
                    if let Some(job) = record.named(&job) {
                        self.supervise(record.clone(), job.id);
                    }
                }
                Effect::CancelJob { job } => {
                    if let Some(job) = record.named(&job) {
                        self.order_cancel(record.clone(), job.id);
                    }
                }
                Effect::HoldJob { job } => tracing::info!(workflow = %record.id, job, "waits for approval"),
                Effect::Finished { outcome } => {
                    tracing::info!(workflow = %record.id, name = record.name, %outcome, "workflow ended");
                }
            }
        }
    }

    /// Takes up every workflow that has not ended, as after a start.
    pub(crate) async fn adopt(self: &Arc<Self>) -> Result<(), ControlError> {
        for row in self.store.unfinished_workflows().await.map_err(store_error)? {
            let live = self.live(row.id).await?;
            let (record, effects) = {
                let live = live.lock().await;
                (live.record.clone(), live.state.outstanding())
            };
            tracing::info!(workflow = %record.id, name = record.name, "taken up again");
            self.carry_out(&record, effects).await;
        }
        Ok(())
    }

    /// The workflow of a job, and the job's name in it.
    pub(crate) async fn workflow_of(&self, job: JobId) -> Result<WorkflowId, ControlError> {
        self.document::<WorkflowId>(collection::JOBS, &job.to_string())
            .await?
            .ok_or_else(|| ControlError::not_found(format!("there is no job {job}")))
    }

    /// Cancels a workflow.
    ///
    /// # Errors
    /// When there is none, or it has ended.
    pub async fn cancel(self: &Arc<Self>, workflow: WorkflowId, by: &str) -> Result<(), ControlError> {
        self.advance(
            workflow,
            Event::CancelRequested {
                by: by.to_string(),
                at: Timestamp::now(),
            },
            |_| {},
        )
        .await
    }
}

pub(crate) fn illegal(error: Illegal) -> ControlError {
    ControlError::conflict(error.to_string())
}

pub(crate) fn to_json(value: &impl serde::Serialize) -> Result<serde_json::Value, ControlError> {
    serde_json::to_value(value)
        .map_err(|error| ControlError::internal("failed to write down what happened").caused_by(error))
}

pub(crate) fn store_error(error: towpath_store::StoreError) -> ControlError {
    ControlError::unavailable("Towpath's own storage does not work").caused_by(error)
}
