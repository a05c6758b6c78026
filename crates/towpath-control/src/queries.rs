//! What people ask: pipelines, workflows, jobs, logs.

use crate::{
    Control, ControlError,
    conductor::store_error,
    records::{PipelineRecord, ServiceRecord, WorkflowRecord, collection},
    views::{ArtifactView, Board, JobDetail, JobView, PipelineView, StepView, TestFailure, TestsView, WorkflowView},
};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use tokio::io::AsyncRead;
use towpath_store::{JobRow, PipelineRow, Row, WorkflowRow};
use towpath_types::{JobId, Outcome, PipelineId, WorkflowId};
use towpath_workflow::{Job, JobKind, JobState, Status, Workflow};

/// How many pipelines the board shows.
const BOARD_PIPELINES: u32 = 20;

impl Control {
    pub(crate) async fn document<T: DeserializeOwned>(
        &self,
        collection: &str,
        key: &str,
    ) -> Result<Option<T>, ControlError> {
        self.store.document(collection, key).await.map_err(store_error)
    }

    pub(crate) async fn events<T: DeserializeOwned>(&self, stream: &str) -> Result<Vec<T>, ControlError> {
        self.store.events(stream).await.map_err(store_error)
    }

    pub(crate) async fn pipeline_record(&self, id: PipelineId) -> Result<Arc<PipelineRecord>, ControlError> {
        self.document(collection::PIPELINES, &id.to_string())
            .await?
            .map(Arc::new)
            .ok_or_else(|| ControlError::not_found(format!("there is no pipeline {id}")))
    }

    /// The workflow that a job belongs to.
    pub(crate) async fn record_of(&self, job: JobId) -> Result<Arc<WorkflowRecord>, ControlError> {
        let id = self.workflow_of(job).await?;
        let live = self.live(id).await?;
        let live = live.lock().await;
        Ok(live.record.clone())
    }

    /// Everything at a glance.
    ///
    /// # Errors
    /// When the storage does not work.
    pub async fn board(self: &Arc<Self>) -> Result<Board, ControlError> {
        let rows = self
            .store
            .pipelines(None, None, BOARD_PIPELINES)
            .await
            .map_err(store_error)?;
        Ok(Board {
            projects: self.projects().await?,
            pipelines: self.pipeline_views(rows).await?,
            gates: self.gates().await?,
        })
    }

    /// The pipelines of a project numbered below `before`, newest first.
    ///
    /// # Errors
    /// When the storage does not work.
    pub async fn pipelines(
        &self,
        project: &str,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<PipelineView>, ControlError> {
        let rows = self
            .store
            .pipelines(Some(project), before, limit.min(200))
            .await
            .map_err(store_error)?;
        self.pipeline_views(rows).await
    }

    /// A pipeline.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    pub async fn pipeline(&self, id: PipelineId) -> Result<PipelineView, ControlError> {
        let row = self.store.pipeline(id).await.map_err(store_error)?;
        self.pipeline_view(row.ok_or_else(|| ControlError::not_found(format!("there is no pipeline {id}")))?)
            .await
    }

    /// A project's pipeline by its number.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    pub async fn pipeline_by_number(&self, project: &str, number: i64) -> Result<PipelineView, ControlError> {
        let row = self
            .store
            .pipeline_by_number(project, number)
            .await
            .map_err(store_error)?;
        let missing = || ControlError::not_found(format!("project `{project}` has no pipeline {number}"));
        self.pipeline_view(row.ok_or_else(missing)?).await
    }

    /// A pipeline's configuration: as written, and as compiled.
    ///
    /// # Errors
    /// `NotFound` when there is no such pipeline.
    pub async fn pipeline_config(&self, id: PipelineId) -> Result<(String, String), ControlError> {
        let record = self.pipeline_record(id).await?;
        Ok((record.source.clone(), record.compiled_text.clone()))
    }

    async fn pipeline_views(&self, rows: Vec<PipelineRow>) -> Result<Vec<PipelineView>, ControlError> {
        let mut views = Vec::with_capacity(rows.len());
        for row in rows {
            views.push(self.pipeline_view(row).await?);
        }
        Ok(views)
    }

    async fn pipeline_view(&self, row: PipelineRow) -> Result<PipelineView, ControlError> {
        let mut workflows = Vec::new();
        for workflow in self.store.workflows(row.id).await.map_err(store_error)? {
            workflows.push(self.workflow_view(&row, workflow).await?);
        }
        Ok(PipelineView {
            id: row.id,
            project: row.project,
            number: row.number,
            branch: row.branch,
            tag: row.tag,
            commit: row.commit,
            subject: row.subject,
            author: row.author,
            state: row.state,
            errors: row.errors,
            warnings: row.warnings,
            created_at: row.created_at,
            workflows,
        })
    }

    async fn workflow_view(&self, pipeline: &PipelineRow, row: WorkflowRow) -> Result<WorkflowView, ControlError> {
        let jobs = self.store.jobs(row.id).await.map_err(store_error)?;
        Ok(WorkflowView {
            id: row.id,
            pipeline: row.pipeline,
            pipeline_number: pipeline.number,
            project: pipeline.project.clone(),
            name: row.name,
            status: row.status,
            created_at: row.created_at,
            stopped_at: row.stopped_at,
            jobs: jobs.into_iter().map(job_view).collect(),
        })
    }

    /// A workflow.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    pub async fn workflow(&self, id: WorkflowId) -> Result<WorkflowView, ControlError> {
        let missing = || ControlError::not_found(format!("there is no workflow {id}"));
        let row = self
            .store
            .workflow(id)
            .await
            .map_err(store_error)?
            .ok_or_else(missing)?;
        let pipeline = self
            .store
            .pipeline(row.pipeline)
            .await
            .map_err(store_error)?
            .ok_or_else(missing)?;
        self.workflow_view(&pipeline, row).await
    }

    /// A job with what it did.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    pub async fn job(self: &Arc<Self>, project: &str, number: i64) -> Result<JobDetail, ControlError> {
        let row = self.store.job_by_number(project, number).await.map_err(store_error)?;
        let row = row.ok_or_else(|| ControlError::not_found(format!("project `{project}` has no job {number}")))?;
        let (id, workflow) = (row.id, row.workflow);
        let record = self.record_of(id).await?;
        let nodes = {
            let live = self.live(workflow).await?;
            let live = live.lock().await;
            match live.state.definition().job(&row.name).map(|job| job.kind) {
                Some(JobKind::Build { nodes }) => nodes,
                _ => 0,
            }
        };
        let mut steps = Vec::new();
        for history in self.histories(id, nodes).await? {
            for mut step in history.steps {
                step.log_bytes = self.store.logs().len(id, step.node, step.index).await;
                steps.push(step);
            }
        }
        let services: Vec<(String, ServiceRecord)> = self
            .store
            .documents(collection::JOB_SERVICES, &format!("{id}/"))
            .await
            .map_err(store_error)?;
        for (_, service) in services {
            steps.push(StepView {
                node: service.node,
                index: service.step,
                name: format!("Service {}", service.name),
                status: if service.exit_code.is_none_or(|code| code == 0) {
                    "success"
                } else {
                    "failed"
                }
                .into(),
                exit_code: service.exit_code.and_then(|code| i32::try_from(code).ok()),
                message: None,
                started_at: service.at,
                stopped_at: Some(service.at),
                log_bytes: self.store.logs().len(id, service.node, service.step).await,
            });
        }
        let artifacts = self.store.artifacts(id).await.map_err(store_error)?;
        let artifacts = artifacts
            .into_iter()
            .map(|a| ArtifactView {
                node: a.node,
                path: a.path,
                bytes: a.bytes,
                digest: a.digest,
            })
            .collect();
        Ok(JobDetail {
            job: job_view(row),
            workflow: self.workflow(workflow).await?,
            steps,
            artifacts,
            tests: self.tests_of(id).await?,
            image: self
                .document::<String>(collection::JOB_IMAGES, &id.to_string())
                .await?
                .filter(|_| record.job(id).is_some()),
        })
    }

    async fn tests_of(&self, job: JobId) -> Result<TestsView, ControlError> {
        let mut view = TestsView::default();
        for test in self.store.tests(job).await.map_err(store_error)? {
            view.total += 1;
            match test.result.as_str() {
                "failure" => {
                    view.failed += 1;
                    let class = test.classname.map(|class| format!("{class} ")).unwrap_or_default();
                    view.failures.push(TestFailure {
                        name: format!("{class}{}", test.name),
                        message: test.message,
                    });
                }
                "skipped" => view.skipped += 1,
                _ => {}
            }
        }
        Ok(view)
    }

    /// An artifact's content.
    ///
    /// # Errors
    /// `NotFound` when the job stored none of that path.
    pub async fn artifact(
        &self,
        job: JobId,
        node: u32,
        path: &str,
    ) -> Result<impl AsyncRead + Send + Unpin + use<>, ControlError> {
        let artifacts = self.store.artifacts(job).await.map_err(store_error)?;
        let found = artifacts
            .into_iter()
            .find(|artifact| artifact.node == node && artifact.path == path);
        let found = found.ok_or_else(|| ControlError::not_found(format!("the job stored no artifact `{path}`")))?;
        self.store.blobs().get(&found.digest).await.map_err(store_error)
    }

    /// Part of a step's log, as it was sent: masked.
    ///
    /// # Errors
    /// When the storage does not work.
    pub async fn step_log(
        &self,
        job: JobId,
        node: u32,
        step: u32,
        from: u64,
        limit: u64,
    ) -> Result<Bytes, ControlError> {
        self.store
            .logs()
            .read(job, node, step, from, limit.min(1 << 20))
            .await
            .map_err(store_error)
    }

    /// The rows that differ between two states of a workflow.
    pub(crate) fn changed_rows(
        &self,
        record: &WorkflowRecord,
        before: Option<&Workflow>,
        after: &Workflow,
    ) -> Vec<Row> {
        let mut rows = vec![Row::Workflow(WorkflowRow {
            id: record.id,
            pipeline: record.pipeline,
            position: record.position,
            name: record.name.clone(),
            status: workflow_status(after.status()).to_string(),
            created_at: after.created_at(),
            stopped_at: after.ended_at(),
        })];
        for (position, (known, definition)) in (0..).zip(record.jobs.iter().zip(after.definition().jobs())) {
            let Some(job) = after.job(&known.name) else { continue };
            if before.and_then(|before| before.job(&known.name)) == Some(job) {
                continue;
            }
            let (stopped_at, message) = match &job.state {
                JobState::Ended { at, message, .. } => (Some(*at), message.clone()),
                _ => (None, None),
            };
            rows.push(Row::Job(JobRow {
                id: known.id,
                workflow: record.id,
                project: record.project.clone(),
                position,
                number: None,
                name: known.name.clone(),
                kind: job_kind(definition.kind).to_string(),
                status: job_status(job).to_string(),
                requires: definition
                    .requires
                    .iter()
                    .map(|requirement| requirement.job.clone())
                    .collect(),
                started_at: job.started_at,
                stopped_at,
                message,
                environment: known.gate_of.clone(),
                approved_by: job.approval.as_ref().map(|approval| approval.by.clone()),
            }));
        }
        rows
    }
}

pub(crate) fn job_view(row: JobRow) -> JobView {
    JobView {
        id: row.id,
        number: row.number,
        name: row.name,
        kind: row.kind,
        status: row.status,
        requires: row.requires,
        started_at: row.started_at,
        stopped_at: row.stopped_at,
        message: row.message,
        environment: row.environment,
        approved_by: row.approved_by,
    }
}

fn job_kind(kind: JobKind) -> &'static str {
    match kind {
        JobKind::Build { .. } => "build",
        JobKind::Approval => "approval",
        JobKind::NoOp => "no-op",
    }
}

/// CircleCI's words for a job. Source: <https://circleci.com/docs/api/v2/#operation/listWorkflowJobs>
fn job_status(job: &Job) -> &'static str {
    match &job.state {
        JobState::Blocked => "blocked",
        JobState::Queued => "queued",
        JobState::Running { .. } => "running",
        JobState::OnHold => "on_hold",
        JobState::Ended { outcome, .. } => match outcome {
            Outcome::Succeeded => "success",
            Outcome::Failed => "failed",
            Outcome::Errored => "infrastructure_fail",
            Outcome::TimedOut => "timedout",
            Outcome::Canceled => "canceled",
            Outcome::Skipped => "not_run",
            Outcome::Rejected => "unauthorized",
        },
    }
}

/// CircleCI's words for a workflow. Source: <https://circleci.com/docs/api/v2/#operation/getWorkflowById>
fn workflow_status(status: Status) -> &'static str {
    match status {
        Status::Running => "running",
        Status::Failing => "failing",
        Status::OnHold => "on_hold",
        Status::Ended(outcome) => match outcome {
            Outcome::Succeeded => "success",
            Outcome::Failed | Outcome::TimedOut => "failed",
            Outcome::Errored => "error",
            Outcome::Canceled => "canceled",
            Outcome::Skipped => "not_run",
            Outcome::Rejected => "unauthorized",
        },
    }
}
