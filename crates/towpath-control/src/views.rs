//! What pages, the API and the command line show. Plain data, serialised as the API's own answers.

use crate::OnFailure;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use towpath_deploy::{Deploying, Hold, Writer};
use towpath_types::{CommitId, Digest, JobId, PipelineId, ReleaseId, WorkflowId};

/// The first page: everything at a glance.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Board {
    /// Every project with its environments.
    pub projects: Vec<ProjectView>,
    /// The newest pipelines of all projects, newest first.
    pub pipelines: Vec<PipelineView>,
    /// Gates that wait for somebody, oldest first.
    pub gates: Vec<GateView>,
}

/// A project and what runs where.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProjectView {
    /// `claims`.
    pub name: String,
    /// Its environments, in the order of their names.
    pub environments: Vec<EnvironmentView>,
}

/// One pipeline with its workflows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PipelineView {
    /// Its id.
    pub id: PipelineId,
    /// The project's name.
    pub project: String,
    /// Its number in the project, from 1.
    pub number: i64,
    /// The branch pushed to; `None` for a tag.
    pub branch: Option<String>,
    /// The tag pushed.
    pub tag: Option<String>,
    /// The commit.
    pub commit: CommitId,
    /// The first line of the commit's message.
    pub subject: String,
    /// The commit's author.
    pub author: String,
    /// CircleCI's word: `created`, `pending` or `errored`.
    pub state: String,
    /// Why it errored, each for a person, with file, line and column where a file is at fault.
    pub errors: Vec<String>,
    /// What compiles but was noticed.
    pub warnings: Vec<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Its workflows in the order of the configuration.
    pub workflows: Vec<WorkflowView>,
}

/// One workflow with its jobs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WorkflowView {
    /// Its id.
    pub id: WorkflowId,
    /// The pipeline that it belongs to.
    pub pipeline: PipelineId,
    /// The pipeline's number.
    pub pipeline_number: i64,
    /// The project's name.
    pub project: String,
    /// Its name in the configuration.
    pub name: String,
    /// CircleCI's word: `running`, `on_hold`, `success`, `failing`, `failed`, `error`, `canceled`, `not_run`.
    pub status: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ended.
    pub stopped_at: Option<Timestamp>,
    /// Its jobs in the order of the configuration.
    pub jobs: Vec<JobView>,
}

/// One job, an approval too.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobView {
    /// Its id.
    pub id: JobId,
    /// Its number in the project; `None` until it runs, and for approvals.
    pub number: Option<i64>,
    /// Its name in the workflow.
    pub name: String,
    /// CircleCI's word: `build`, `approval` or `no-op`.
    pub kind: String,
    /// CircleCI's word: `blocked`, `queued`, `not_running`, `running`, `on_hold`, `success`, `failed`, `canceled`,
    /// `not_run`, `infrastructure_fail`, `timedout`, `unauthorized`.
    pub status: String,
    /// The names of the jobs that it requires.
    pub requires: Vec<String>,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub stopped_at: Option<Timestamp>,
    /// Why it ended as it did, for a person.
    pub message: Option<String>,
    /// The environment that this gate opens, when it is a gate of one.
    pub environment: Option<String>,
    /// Who approved it.
    pub approved_by: Option<String>,
}

/// One job with what it did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobDetail {
    /// The job.
    pub job: JobView,
    /// The workflow that it belongs to, with all its jobs.
    pub workflow: WorkflowView,
    /// Its steps, node by node.
    pub steps: Vec<StepView>,
    /// Its artifacts.
    pub artifacts: Vec<ArtifactView>,
    /// Its tests.
    pub tests: TestsView,
    /// The image that its primary container ran, pinned, when it ran in one.
    pub image: Option<String>,
}

/// One step of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepView {
    /// The node, from 0.
    pub node: u32,
    /// The step, from 0.
    pub index: u32,
    /// Its display name.
    pub name: String,
    /// `running`, `success`, `failed`, `canceled`, `timedout`, `errored`.
    pub status: String,
    /// The exit code of its command.
    pub exit_code: Option<i32>,
    /// What to say about its end.
    pub message: Option<String>,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub stopped_at: Option<Timestamp>,
    /// How long its log is.
    pub log_bytes: u64,
}

/// One stored artifact.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ArtifactView {
    /// The node that stored it.
    pub node: u32,
    /// Its path.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// What is in it.
    pub digest: Digest,
}

/// The tests of one job.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct TestsView {
    /// How many ran.
    pub total: u64,
    /// How many failed or errored.
    pub failed: u64,
    /// How many were skipped.
    pub skipped: u64,
    /// The failed ones: name and message.
    pub failures: Vec<TestFailure>,
}

/// One failed test.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TestFailure {
    /// Class and name.
    pub name: String,
    /// What it said.
    pub message: String,
}

/// One gate: a held job and what approving it would do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GateView {
    /// The approval job.
    pub job: JobView,
    /// The workflow that it belongs to.
    pub workflow: WorkflowId,
    /// The workflow's name.
    pub workflow_name: String,
    /// The project's name.
    pub project: String,
    /// The pipeline's number.
    pub pipeline_number: i64,
    /// The branch.
    pub branch: Option<String>,
    /// The commit.
    pub commit: CommitId,
    /// The first line of the commit's message.
    pub subject: String,
    /// What would change in which environment; `None` when the gate leads to no deployment.
    pub plan: Option<PlanView>,
    /// Why no plan could be made, when the gate leads to a deployment.
    pub plan_error: Option<String>,
}

/// What a deployment would do, or did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanView {
    /// Names exactly this content: the same plan has the same id.
    pub id: String,
    /// The environment.
    pub environment: String,
    /// The image, pinned by its digest.
    pub image: String,
    /// The image that runs now, when another release is there.
    pub previous_image: Option<String>,
    /// The release that it starts from.
    pub parent: Option<ReleaseId>,
    /// The commit whose manifests these are.
    pub commit: Option<CommitId>,
    /// The commits since the release that it starts from, newest first: short id, author, subject.
    pub commits: Vec<PlanCommit>,
    /// Every object that would change.
    pub changes: Vec<PlanChange>,
    /// How many objects stay as they are.
    pub unchanged: usize,
    /// What becomes of it when it fails.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// What stands in the way, each for a person; a plan with blockers can not be carried out.
    pub blockers: Vec<String>,
    /// What was noticed and does not stand in the way.
    pub warnings: Vec<String>,
}

/// One commit of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanCommit {
    /// Its id.
    pub id: CommitId,
    /// Who wrote it.
    pub author: String,
    /// The first line of its message.
    pub subject: String,
}

/// One object that a plan changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanChange {
    /// `created`, `changed` or `deleted`.
    pub action: String,
    /// `Deployment`.
    pub kind: String,
    /// `claims-web`.
    pub name: String,
    /// A unified diff of its YAML; Secret values never.
    pub diff: String,
}

/// One environment: what runs there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EnvironmentView {
    /// The project's name.
    pub project: String,
    /// `dev`.
    pub name: String,
    /// What runs.
    pub workloads: Vec<WorkloadView>,
    /// Where its applications answer, such as `http://127.0.0.1:32768`.
    pub addresses: Vec<String>,
    /// The newest release that succeeded.
    pub release: Option<ReleaseView>,
    /// The release under way.
    pub deploying: Option<ReleaseView>,
    /// A deployment that the environment knows to be under way, whoever carries it out.
    pub under_way: Option<Deploying>,
    /// Who keeps others from deploying.
    pub hold: Option<Hold>,
    /// When the last deployment failed and nothing was put back: what is to be known, a sentence.
    pub between: Option<String>,
    /// What is not as the release has it, when that was looked for.
    pub drift: Option<DriftView>,
}

/// What in an environment is not as its release has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriftView {
    /// When it was looked.
    pub at: Timestamp,
    /// Each object that differs.
    pub objects: Vec<DriftedObject>,
}

/// One object that is not as its release has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriftedObject {
    /// `changed`, or `deleted`.
    pub action: String,
    /// `Deployment`.
    pub kind: String,
    /// `claims-web`.
    pub name: String,
    /// A unified diff from the release to what is there; Secret values never.
    pub diff: String,
    /// Who wrote what differs, the latest first.
    pub writers: Vec<Writer>,
}

/// One workload of an environment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WorkloadView {
    /// `Deployment`, `CronJob`, `Job`.
    pub kind: String,
    /// `claims-web`.
    pub name: String,
    /// The image that it runs.
    pub image: String,
    /// Pods that are ready.
    pub ready: u32,
    /// Pods that are wanted.
    pub desired: u32,
    /// How often its containers were restarted.
    pub restarts: u32,
    /// A sentence: what it does or waits for.
    pub message: String,
}

/// One release.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReleaseView {
    /// Its id.
    pub id: ReleaseId,
    /// Its number in the environment, from 1.
    pub number: i64,
    /// `running`, `succeeded`, `failed`, `errored`.
    pub state: String,
    /// The image, pinned by its digest.
    pub image: String,
    /// The commit whose manifests these are.
    pub commit: Option<CommitId>,
    /// Who.
    pub by: String,
    /// When it began.
    pub at: Timestamp,
    /// When it ended.
    pub stopped_at: Option<Timestamp>,
    /// How it came to be: `gate hold-dev of pipeline 3`, `towpath deploy`, `rollback to release 2`.
    pub cause: String,
    /// Why it failed.
    pub message: Option<String>,
}

/// What has happened so far in a release or a one-off job.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Progress {
    /// The lines from the one asked for.
    pub lines: Vec<String>,
    /// The number of the next line.
    pub next: usize,
    /// How it ended, when it did.
    pub outcome: Option<towpath_types::Outcome>,
    /// The exit code of a one-off job that ended.
    pub exit_code: Option<i32>,
}

/// One manifest file as the command line sends it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ManifestFile {
    /// Its path from the repository's root.
    pub path: String,
    /// What is in it.
    pub text: String,
}

/// Something to do in one environment from a laptop's working tree.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct LaptopRequest {
    /// `latest`, `<branch>-latest`, a commit's id or a whole tag; `None` for what the environment runs.
    pub tag: Option<String>,
    /// Every file below `.k8s/`.
    pub files: Vec<ManifestFile>,
    /// `towpath.toml`, when there is one.
    pub project_file: Option<String>,
    /// The commit that is checked out.
    pub commit: Option<CommitId>,
    /// The name of a job or cron job, where one is meant.
    pub name: Option<String>,
    /// The environment whose image is meant, instead of a tag's.
    #[serde(default)]
    pub from: Option<String>,
    /// What becomes of it when it fails, instead of what `towpath.toml` says.
    #[serde(default)]
    pub on_failure: Option<OnFailure>,
    /// Why it is deployed although the environment is frozen.
    #[serde(default)]
    pub despite_freeze: Option<String>,
}

/// A secret's or a context's key, without its value.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeyView {
    /// The Secret, or the context.
    pub name: String,
    /// The key.
    pub key: String,
    /// Who set it.
    pub by: String,
    /// When it was set.
    pub at: Timestamp,
}
