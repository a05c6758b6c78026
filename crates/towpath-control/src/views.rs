//! What pages, the API and the command line show of pipelines: plain data, made from rows alone.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use towpath_delivery::{EnvironmentView, PlanView};
use towpath_store::WorkKind;
use towpath_types::{
    CommitId, Digest, EnvironmentId, JobId, JobKind, JobStatus, Outcome, PipelineId, PipelineStatus, RunId, RunKind,
    StepStatus, WorkflowId, WorkflowStatus,
};
use towpath_yaml::StoredDiagnostic;

/// The first page: an overview of everything.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Board {
    /// Every project with its environments, by name.
    pub projects: Vec<ProjectView>,
    /// The newest pipelines of all projects, newest first.
    pub pipelines: Vec<PipelineView>,
    /// Gates that wait for somebody, oldest first; the first page of them.
    pub gates: Vec<GateView>,
    /// How many gates wait.
    pub waiting_gates: u64,
}

/// A project and its environments.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ProjectView {
    pub name: String,
    /// Its environments, by name.
    pub environments: Vec<EnvironmentView>,
}

/// One pipeline with its workflows.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct PipelineView {
    pub id: PipelineId,
    pub project: String,
    /// Its number in the project, from 1.
    pub number: i64,
    /// The branch pushed to; `None` for a tag.
    pub branch: Option<String>,
    pub tag: Option<String>,
    pub commit: CommitId,
    /// The first line of the commit's message.
    pub subject: String,
    pub author: String,
    pub status: PipelineStatus,
    /// Why it errored.
    pub errors: Vec<StoredDiagnostic>,
    pub warnings: Vec<StoredDiagnostic>,
    /// Who pushed or asked.
    pub by: String,
    pub created_at: Timestamp,
    /// In the order of the configuration.
    pub workflows: Vec<WorkflowView>,
}

/// One workflow with its jobs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct WorkflowView {
    pub id: WorkflowId,
    pub pipeline: PipelineId,
    pub pipeline_number: i64,
    pub project: String,
    pub name: String,
    pub status: WorkflowStatus,
    /// Why it cannot run at all, if so.
    pub message: Option<String>,
    pub created_at: Timestamp,
    pub stopped_at: Option<Timestamp>,
    /// In the order of the configuration.
    pub jobs: Vec<JobView>,
}

/// One job, an approval too.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct JobView {
    pub id: JobId,
    /// Its number in the project; `None` until it runs, and for approvals.
    pub number: Option<i64>,
    pub name: String,
    pub kind: JobKind,
    pub status: JobStatus,
    /// The attempt's number, from 1.
    pub attempt: u32,
    /// The names of the jobs that it requires.
    pub requires: Vec<String>,
    pub started_at: Option<Timestamp>,
    pub stopped_at: Option<Timestamp>,
    /// Why it ended as it did, for a person.
    pub message: Option<String>,
    /// The environment that this gate leads to, or that this job deploys to.
    pub environment: Option<String>,
    pub approved_by: Option<String>,
}

/// One job with its results.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct JobDetail {
    pub job: JobView,
    /// The workflow that it belongs to, with all its jobs.
    pub workflow: WorkflowView,
    /// Its steps, by node.
    pub steps: Vec<StepView>,
    pub artifacts: Vec<ArtifactView>,
    pub tests: TestsView,
    /// The pinned image of its primary container, if it ran in one.
    pub image: Option<String>,
}

/// One step of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct StepView {
    /// The node's number, from 0.
    pub node: u32,
    /// The step's number, from 0.
    pub index: u32,
    pub name: String,
    pub status: StepStatus,
    pub exit_code: Option<i32>,
    /// Details of how it ended.
    pub message: Option<String>,
    pub started_at: Timestamp,
    pub stopped_at: Option<Timestamp>,
    /// The length of its log.
    pub log_bytes: u64,
}

/// One stored artifact.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ArtifactView {
    pub node: u32,
    pub path: String,
    pub bytes: u64,
    pub digest: Digest,
}

/// The tests of one job.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct TestsView {
    pub total: u64,
    /// How many failed or could not run.
    pub failed: u64,
    pub skipped: u64,
    pub failures: Vec<TestFailure>,
}

/// One failed test.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TestFailure {
    /// The class and the name.
    pub name: String,
    /// The failure's message.
    pub message: String,
}

/// One gate: a job on hold, and what approving it would do.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct GateView {
    /// The approval job's id.
    pub job: JobId,
    /// The approval job's name.
    pub name: String,
    pub status: JobStatus,
    pub workflow: WorkflowId,
    pub workflow_name: String,
    pub project: String,
    pub pipeline_number: i64,
    pub branch: Option<String>,
    pub tag: Option<String>,
    pub commit: CommitId,
    /// The first line of the commit's message.
    pub subject: String,
    /// The environment that it leads to; `None` when approving it deploys nothing.
    pub environment: Option<EnvironmentId>,
    /// Whether it still waits for somebody.
    pub waiting: bool,
    /// What approval would change, or did; `None` while there is no plan.
    pub plan: Option<PlanView>,
    /// Why no plan could be made.
    pub plan_error: Option<String>,
    /// When the plan was last made or failed.
    pub as_of: Option<Timestamp>,
    pub approved_by: Option<String>,
    /// Why the job ended without an approval.
    pub message: Option<String>,
}

/// One execution of a one-off job, or a manual one of a cron job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct RunView {
    pub id: RunId,
    pub kind: RunKind,
    /// The name in the request.
    pub name: String,
    /// The name of the Job object in the environment; empty while it is being started.
    pub object: String,
    pub image: String,
    pub by: String,
    pub at: Timestamp,
    pub stopped_at: Option<Timestamp>,
    /// How it ended, if it did.
    pub outcome: Option<Outcome>,
    pub exit_code: Option<i64>,
    pub message: Option<String>,
}

/// A context's variable, or a Secret's key, without its value.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct KeyView {
    /// The Secret, or the context.
    pub name: String,
    pub key: String,
    /// Who set it.
    pub by: String,
    pub at: Timestamp,
}

/// A piece of work that was set aside because it failed again and again.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct SetAsideView {
    pub kind: WorkKind,
    pub key: String,
    pub project: Option<String>,
    pub failures: u32,
    pub reason: String,
    pub since: Timestamp,
}
