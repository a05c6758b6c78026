//! Answers for people. Every answer comes from rows: no cluster, no registry, no git, no engine.

use crate::{
    storage::store_error,
    views::{
        ArtifactView, Board, GateView, JobDetail, JobView, PipelineView, ProjectView, RunView, SetAsideView, StepView,
        TestFailure, TestsView, WorkflowView,
    },
};
use bytes::Bytes;
use std::{collections::HashMap, sync::Arc};
use towpath_delivery::{DeliveryError, EnvironmentView, HISTORY, PlanView, ReleaseView};
use towpath_store::{
    BlobReader, EnvironmentRow, GateRow, JobRow, LogId, Objects, PipelineRow, PlanRow, RunRow, StepRow, Store, TestRow,
    WorkState, WorkflowRow,
};
use towpath_types::{
    Clock, EnvironmentId, JobId, JobStatus, PipelineId, PipelineStatus, ProjectName, ReleaseId, TestResult, WorkflowId,
};
use towpath_yaml::{Diagnostic, StoredDiagnostic, read_diagnostics};

/// How many pipelines the board shows.
const BOARD_PIPELINES: u32 = 20;
/// How many gates the board shows.
const BOARD_GATES: u32 = 50;
/// How many of an environment's runs are listed.
const LISTED_RUNS: u32 = 20;
/// How many releases of an environment to read in order to find what runs there.
const SHOWN_RELEASES: u32 = 20;
/// The largest piece of a log that one request reads.
const LOG_PIECE: u64 = 1 << 20;
/// The most pipelines that one page lists.
const LONGEST_PAGE: u32 = 200;

/// Answers from rows. Clones share everything.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct Queries {
    pub store: Arc<dyn Store>,
    pub objects: Arc<dyn Objects>,
    pub clock: Arc<dyn Clock>,
}

impl Queries {
    /// An overview of everything.
    ///
    /// # Errors
    /// When the storage does not work.
    pub async fn board(&self) -> Result<Board, DeliveryError> {
        let rows = self
            .store
            .pipelines(None, None, BOARD_PIPELINES)
            .await
            .map_err(store_error)?;
        Ok(Board {
            projects: self.projects().await?,
            pipelines: self.pipeline_views(rows).await?,
            gates: self.gates(None, 0, BOARD_GATES).await?,
            waiting_gates: self.store.count_waiting_gates().await.map_err(store_error)?,
        })
    }

    /// Every project with its environments.
    ///
    /// # Errors
    /// When the storage does not work.
    pub async fn projects(&self) -> Result<Vec<ProjectView>, DeliveryError> {
        let rows = self.store.environments(None).await.map_err(store_error)?;
        let mut environments: HashMap<String, Vec<EnvironmentView>> = HashMap::new();
        for row in rows {
            let view = self.environment_view(&row).await?;
            environments.entry(row.id.project().to_string()).or_default().push(view);
        }
        let projects = self.store.projects().await.map_err(store_error)?;
        let view = |name: String| ProjectView {
            environments: environments.remove(&name).unwrap_or_default(),
            name,
        };
        Ok(projects.into_iter().map(|row| row.name.to_string()).map(view).collect())
    }

    /// An environment, as it was last seen.
    ///
    /// # Errors
    /// `NotFound` when it is not known.
    pub async fn environment(&self, id: &EnvironmentId) -> Result<EnvironmentView, DeliveryError> {
        let row = self.store.environment(id).await.map_err(store_error)?;
        let missing = || {
            DeliveryError::not_found(format!(
                "project `{}` has no environment `{}`",
                id.project(),
                id.environment()
            ))
        };
        self.environment_view(&row.ok_or_else(missing)?).await
    }

    /// The newest releases of an environment, newest first.
    ///
    /// # Errors
    /// When the storage does not work.
    pub async fn history(&self, id: &EnvironmentId) -> Result<Vec<ReleaseView>, DeliveryError> {
        let rows = self.store.releases(id, HISTORY).await.map_err(store_error)?;
        Ok(rows.iter().map(ReleaseView::from).collect())
    }

    /// The newest one-off runs of an environment, newest first.
    ///
    /// # Errors
    /// When the storage does not work.
    pub async fn runs(&self, id: &EnvironmentId) -> Result<Vec<RunView>, DeliveryError> {
        let rows = self.store.runs(id, LISTED_RUNS).await.map_err(store_error)?;
        Ok(rows.into_iter().map(run_view).collect())
    }

    async fn environment_view(&self, row: &EnvironmentRow) -> Result<EnvironmentView, DeliveryError> {
        // These include the running release, the one under way and the last that failed.
        let releases = self
            .store
            .releases(&row.id, SHOWN_RELEASES)
            .await
            .map_err(store_error)?;
        let view = EnvironmentView::from_row(row, &releases, self.clock.now());
        view.map_err(|error| {
            DeliveryError::internal(format!("what was seen of {} cannot be read", row.id)).caused_by(error)
        })
    }

    /// The pipelines of a project numbered below `before`, newest first.
    ///
    /// # Errors
    /// When the storage does not work.
    pub async fn pipelines(
        &self,
        project: &ProjectName,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<PipelineView>, DeliveryError> {
        let rows = self
            .store
            .pipelines(Some(project), before, limit.min(LONGEST_PAGE))
            .await;
        self.pipeline_views(rows.map_err(store_error)?).await
    }

    /// A pipeline.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    pub async fn pipeline(&self, id: PipelineId) -> Result<PipelineView, DeliveryError> {
        let row = self.store.pipeline(id).await.map_err(store_error)?;
        self.pipeline_view(row.ok_or_else(|| DeliveryError::not_found(format!("there is no pipeline {id}")))?)
            .await
    }

    /// A project's pipeline by its number.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    pub async fn pipeline_by_number(&self, project: &ProjectName, number: i64) -> Result<PipelineView, DeliveryError> {
        let row = self
            .store
            .pipeline_by_number(project, number)
            .await
            .map_err(store_error)?;
        let missing = || DeliveryError::not_found(format!("project `{project}` has no pipeline {number}"));
        self.pipeline_view(row.ok_or_else(missing)?).await
    }

    /// A pipeline's configuration: as written, and as compiled.
    ///
    /// # Errors
    /// `NotFound` when there is no such pipeline.
    pub async fn pipeline_config(&self, id: PipelineId) -> Result<(String, String), DeliveryError> {
        let config = self.store.pipeline_config(id).await.map_err(store_error)?;
        let config = config.ok_or_else(|| DeliveryError::not_found(format!("there is no pipeline {id}")))?;
        Ok((config.source, config.processed))
    }

    async fn pipeline_view(&self, row: PipelineRow) -> Result<PipelineView, DeliveryError> {
        let views = self.pipeline_views(vec![row]).await?;
        views
            .into_iter()
            .next()
            .ok_or_else(|| DeliveryError::internal("a pipeline was lost"))
    }

    /// Takes two queries, however many rows there are.
    async fn pipeline_views(&self, rows: Vec<PipelineRow>) -> Result<Vec<PipelineView>, DeliveryError> {
        let ids: Vec<PipelineId> = rows.iter().map(|row| row.id).collect();
        let workflows = self.store.workflows_of(&ids).await.map_err(store_error)?;
        let mut views: HashMap<PipelineId, Vec<WorkflowView>> = HashMap::new();
        for view in self.workflow_views(workflows).await? {
            views.entry(view.pipeline).or_default().push(view);
        }
        let view = |row: PipelineRow| {
            let (errors, warnings) = diagnostics(&row);
            PipelineView {
                workflows: views.remove(&row.id).unwrap_or_default(),
                id: row.id,
                project: row.project.to_string(),
                number: row.number,
                branch: row.branch,
                tag: row.tag,
                commit: row.commit,
                subject: row.subject,
                author: row.author,
                status: row.status,
                errors,
                warnings,
                by: row.actor.name,
                created_at: row.created_at,
            }
        };
        Ok(rows.into_iter().map(view).collect())
    }

    async fn workflow_views(&self, rows: Vec<WorkflowRow>) -> Result<Vec<WorkflowView>, DeliveryError> {
        let ids: Vec<WorkflowId> = rows.iter().map(|row| row.id).collect();
        let mut jobs: HashMap<WorkflowId, Vec<JobView>> = HashMap::new();
        for row in self.store.jobs_of(&ids).await.map_err(store_error)? {
            jobs.entry(row.workflow).or_default().push(job_view(row));
        }
        let view = |row: WorkflowRow| WorkflowView {
            jobs: jobs.remove(&row.id).unwrap_or_default(),
            id: row.id,
            pipeline: row.pipeline,
            pipeline_number: row.pipeline_number,
            project: row.project.to_string(),
            name: row.name,
            status: row.status,
            message: row.message,
            created_at: row.created_at,
            stopped_at: row.stopped_at,
        };
        Ok(rows.into_iter().map(view).collect())
    }

    /// A workflow.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    pub async fn workflow(&self, id: WorkflowId) -> Result<WorkflowView, DeliveryError> {
        let missing = || DeliveryError::not_found(format!("there is no workflow {id}"));
        let row = self
            .store
            .workflow(id)
            .await
            .map_err(store_error)?
            .ok_or_else(missing)?;
        let views = self.workflow_views(vec![row]).await?;
        views.into_iter().next().ok_or_else(missing)
    }

    /// A job with the data of its current attempt.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    pub async fn job(&self, project: &ProjectName, number: i64) -> Result<JobDetail, DeliveryError> {
        let row = self.store.job_by_number(project, number).await.map_err(store_error)?;
        let row = row.ok_or_else(|| DeliveryError::not_found(format!("project `{project}` has no job {number}")))?;
        let (id, attempt) = (row.id, row.attempt);
        let mut steps = Vec::new();
        for step in self.store.steps(id, attempt).await.map_err(store_error)? {
            steps.push(self.step_view(step).await?);
        }
        let artifacts = self.store.artifacts(id, attempt).await.map_err(store_error)?;
        let artifacts = artifacts.into_iter().map(|artifact| ArtifactView {
            node: artifact.node,
            path: artifact.path,
            bytes: artifact.bytes,
            digest: artifact.digest,
        });
        Ok(JobDetail {
            workflow: self.workflow(row.workflow).await?,
            steps,
            artifacts: artifacts.collect(),
            tests: tests_view(self.store.tests(id, attempt).await.map_err(store_error)?),
            image: row.image.as_ref().map(ToString::to_string),
            job: job_view(row),
        })
    }

    /// The results of the tests that a job's current attempt ran.
    ///
    /// # Errors
    /// `NotFound` when there is no such job.
    pub async fn tests(&self, project: &ProjectName, number: i64) -> Result<Vec<TestRow>, DeliveryError> {
        let row = self.store.job_by_number(project, number).await.map_err(store_error)?;
        let row = row.ok_or_else(|| DeliveryError::not_found(format!("project `{project}` has no job {number}")))?;
        self.store.tests(row.id, row.attempt).await.map_err(store_error)
    }

    async fn step_view(&self, step: StepRow) -> Result<StepView, DeliveryError> {
        let log = LogId::Step {
            job: step.job,
            attempt: step.attempt,
            node: step.node,
            step: step.step,
        };
        Ok(StepView {
            node: step.node,
            index: step.step,
            name: step.name,
            status: step.status,
            exit_code: step.exit_code,
            message: step.message,
            started_at: step.started_at,
            stopped_at: step.stopped_at,
            log_bytes: self.objects.log_length(log).await.map_err(store_error)?,
        })
    }

    /// An artifact's content.
    ///
    /// # Errors
    /// `NotFound` when the job's current attempt stored none of that path.
    pub async fn artifact(&self, job: JobId, node: u32, path: &str) -> Result<BlobReader, DeliveryError> {
        let attempt = self.attempt(job).await?;
        let artifacts = self.store.artifacts(job, attempt).await.map_err(store_error)?;
        let found = artifacts
            .into_iter()
            .find(|artifact| artifact.node == node && artifact.path == path);
        let found = found.ok_or_else(|| DeliveryError::not_found(format!("the job stored no artifact `{path}`")))?;
        self.objects.blob(&found.digest).await.map_err(store_error)
    }

    /// Part of a step's log, as the agent sent it: masked.
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
    ) -> Result<Bytes, DeliveryError> {
        let attempt = self.attempt(job).await?;
        let log = LogId::Step {
            job,
            attempt,
            node,
            step,
        };
        self.objects
            .read_log(log, from, limit.min(LOG_PIECE))
            .await
            .map_err(store_error)
    }

    async fn attempt(&self, job: JobId) -> Result<u32, DeliveryError> {
        let row = self.store.job(job).await.map_err(store_error)?;
        let row = row.ok_or_else(|| DeliveryError::not_found(format!("there is no job {job}")))?;
        Ok(row.attempt)
    }

    /// The waiting gates, oldest first.
    ///
    /// # Errors
    /// When the storage does not work.
    pub async fn gates(
        &self,
        project: Option<&ProjectName>,
        offset: u32,
        limit: u32,
    ) -> Result<Vec<GateView>, DeliveryError> {
        let rows = self.store.waiting_gates(project, offset, limit.min(LONGEST_PAGE)).await;
        let mut views = Vec::new();
        for row in rows.map_err(store_error)? {
            views.push(self.gate_view(row).await?);
        }
        Ok(views)
    }

    /// A gate, whether it waits or not.
    ///
    /// # Errors
    /// `NotFound` when there is no such approval job, or it was not reached yet.
    pub async fn gate(&self, job: JobId) -> Result<GateView, DeliveryError> {
        let row = self.store.gate(job).await.map_err(store_error)?;
        self.gate_view(row.ok_or_else(|| DeliveryError::not_found(format!("there is no gate {job}")))?)
            .await
    }

    async fn gate_view(&self, row: GateRow) -> Result<GateView, DeliveryError> {
        let job = match row.waiting {
            true => None,
            false => self.store.job(row.job).await.map_err(store_error)?,
        };
        let plan = match &row.plan {
            None => None,
            Some(digest) => self.store.plan(digest).await.map_err(store_error)?,
        };
        Ok(GateView {
            job: row.job,
            name: row.name,
            status: job.as_ref().map_or(JobStatus::OnHold, |job| job.status),
            workflow: row.workflow,
            workflow_name: row.workflow_name,
            project: row.project.to_string(),
            pipeline_number: row.pipeline_number,
            branch: row.branch,
            tag: row.tag,
            commit: row.commit,
            subject: row.subject,
            environment: row.environment,
            waiting: row.waiting,
            plan: plan.as_ref().map(plan_view).transpose()?,
            plan_error: row.plan_error,
            as_of: row.as_of,
            approved_by: row.approved_by,
            message: job.and_then(|job| job.message),
        })
    }

    /// Work that was set aside, oldest first.
    ///
    /// # Errors
    /// When the storage does not work.
    pub async fn set_aside(&self) -> Result<Vec<SetAsideView>, DeliveryError> {
        let work = self.store.set_aside().await.map_err(store_error)?;
        let view = |work: towpath_store::Work| SetAsideView {
            reason: match work.state {
                WorkState::SetAside { reason } => reason,
                WorkState::Ready | WorkState::Leased { .. } => work.last_failure.unwrap_or_default(),
            },
            kind: work.key.kind,
            key: work.key.key,
            project: work.project.map(|project| project.to_string()),
            failures: work.failures,
            since: work.created_at,
        };
        Ok(work.into_iter().map(view).collect())
    }

    /// The release that a job's step requested, if it did.
    ///
    /// # Errors
    /// When the storage does not work.
    pub async fn release_of_job(
        &self,
        job: JobId,
        environment: &EnvironmentId,
    ) -> Result<Option<ReleaseId>, DeliveryError> {
        let release = self.store.release_of_job(job, environment).await.map_err(store_error)?;
        Ok(release.map(|release| release.id))
    }
}

fn plan_view(row: &PlanRow) -> Result<PlanView, DeliveryError> {
    PlanView::from_row(row)
        .map_err(|error| DeliveryError::internal(format!("plan {} cannot be read", row.digest)).caused_by(error))
}

pub(crate) fn job_view(row: JobRow) -> JobView {
    JobView {
        id: row.id,
        number: row.number,
        name: row.name,
        kind: row.kind,
        status: row.status,
        attempt: row.attempt,
        requires: row.requires,
        started_at: row.started_at,
        stopped_at: row.stopped_at,
        message: row.message,
        environment: row.environment,
        approved_by: row.approved_by,
    }
}

fn run_view(row: RunRow) -> RunView {
    RunView {
        id: row.id,
        kind: row.kind,
        name: row.name,
        object: row.object,
        image: row.image,
        by: row.actor.name,
        at: row.created_at,
        stopped_at: row.stopped_at,
        outcome: row.outcome,
        exit_code: row.exit_code,
        message: row.message,
    }
}

fn tests_view(tests: Vec<TestRow>) -> TestsView {
    let mut view = TestsView::default();
    for test in tests {
        view.total += 1;
        match test.result {
            TestResult::Success => {}
            TestResult::Skipped => view.skipped += 1,
            TestResult::Failure => {
                view.failed += 1;
                let class = test.classname.map(|class| format!("{class} ")).unwrap_or_default();
                view.failures.push(TestFailure {
                    name: format!("{class}{}", test.name),
                    message: test.message,
                });
            }
        }
    }
    view
}

/// The errors and the warnings of a pipeline. What a newer Towpath stored is one diagnostic that says so: a page shows the
/// rest of the pipeline.
fn diagnostics(row: &PipelineRow) -> (Vec<StoredDiagnostic>, Vec<StoredDiagnostic>) {
    let diagnostics = read_diagnostics(&row.diagnostics).unwrap_or_else(|error| {
        let new = match row.status {
            PipelineStatus::Errored => Diagnostic::error,
            PipelineStatus::Created => Diagnostic::warning,
        };
        vec![new("towpath::stored", error.to_string()).stored()]
    });
    diagnostics.into_iter().partition(StoredDiagnostic::is_error)
}
