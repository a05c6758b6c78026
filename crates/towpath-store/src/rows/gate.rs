//! Gates and plans.

use jiff::Timestamp;
use serde_json::Value;
use towpath_types::{CommitId, Digest, EnvironmentId, JobId, PipelineId, ProjectName, WorkflowId};

/// An approval job on hold, and the plan that approving it would carry out.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct GateRow {
    /// The approval job.
    pub job: JobId,
    pub workflow: WorkflowId,
    pub workflow_name: String,
    pub pipeline: PipelineId,
    pub pipeline_number: i64,
    pub project: ProjectName,
    /// The approval job's name.
    pub name: String,
    pub branch: Option<String>,
    pub tag: Option<String>,
    pub commit: CommitId,
    /// The first line of the commit's message.
    pub subject: String,
    /// The environment that it leads to; `None` when approving it deploys nothing.
    pub environment: Option<EnvironmentId>,
    /// Whether it still waits for somebody.
    pub waiting: bool,
    /// The plan that approving would carry out; once approved, the plan that was approved.
    pub plan: Option<Digest>,
    /// The reason why there is no plan.
    pub plan_error: Option<String>,
    /// When the plan was last made or failed.
    pub as_of: Option<Timestamp>,
    pub approved_by: Option<String>,
    pub created_at: Timestamp,
    pub version: u64,
}

/// A plan, named by the digest of its content. Plans never change.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct PlanRow {
    pub digest: Digest,
    pub environment: EnvironmentId,
    pub created_at: Timestamp,
    /// Its wire form.
    pub plan: Value,
}
