//! Jobs, their nodes and their steps.

use jiff::Timestamp;
use serde_json::Value;
use towpath_types::{
    ImageReference, JobId, JobKind, JobStatus, Outcome, PipelineId, ProjectName, StepStatus, WorkflowId,
};

/// A job of a workflow, an approval too.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct JobRow {
    pub id: JobId,
    pub workflow: WorkflowId,
    pub pipeline: PipelineId,
    pub project: ProjectName,
    /// Its index among the workflow's jobs, from 0.
    pub position: i64,
    /// Its number in the project, assigned by [`crate::Write::NumberJob`] when it starts; other writes of the row keep
    /// it.
    pub number: Option<i64>,
    pub name: String,
    pub kind: JobKind,
    pub status: JobStatus,
    /// The names of the jobs that it requires.
    pub requires: Vec<String>,
    /// `parallelism`: the number of nodes; 0 for approvals and jobs that do nothing.
    pub nodes: u32,
    /// The processors that it counts as in the queue, all nodes together, in thousandths of one.
    pub cpu_millis: u64,
    /// The memory that it counts as in the queue, all nodes together, in bytes.
    pub memory_bytes: u64,
    /// The attempt's number, from 1.
    pub attempt: u32,
    /// The environment whose gate it is, or that it deploys to.
    pub environment: Option<String>,
    pub queued_at: Option<Timestamp>,
    pub started_at: Option<Timestamp>,
    pub stopped_at: Option<Timestamp>,
    /// The reason for its outcome.
    pub message: Option<String>,
    /// Who approved it.
    pub approved_by: Option<String>,
    /// Whether the current attempt is to stop.
    pub stop_requested: bool,
    /// The engine of the current attempt; only a server with that engine can supervise it.
    pub engine: Option<String>,
    /// The image of its primary container, pinned by digest where that is known.
    pub image: Option<ImageReference>,
    pub version: u64,
}

impl JobRow {
    /// Whether `attempt` is the current one and runs, so that its reports count.
    #[must_use]
    pub fn runs(&self, attempt: u32) -> bool {
        self.attempt == attempt && matches!(self.status, JobStatus::Claimed | JobStatus::Running)
    }

    /// Whether `attempt` runs and is not to stop, so that its steps' requests are carried out.
    #[must_use]
    pub fn goes_on(&self, attempt: u32) -> bool {
        self.runs(attempt) && !self.stop_requested
    }
}

/// What a job does, in the conductor's wire form. Written once, with the job.
#[derive(Debug, Clone, PartialEq)]
pub struct JobSpecRow {
    /// The job.
    pub job: JobId,
    /// The wire form.
    pub spec: Value,
}

/// What one node of one attempt of a job has reported.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct NodeRow {
    pub job: JobId,
    pub attempt: u32,
    /// From 0.
    pub node: u32,
    /// The number of accepted reports, which is also the next report's number and the row's version: an insert expects
    /// [`crate::Expect::Absent`] and has 1.
    pub reports: u64,
    /// How it ended, if it did.
    pub outcome: Option<Outcome>,
    pub message: Option<String>,
    pub stopped_at: Option<Timestamp>,
}

/// One step of one node. The row is replaced at each change.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct StepRow {
    pub job: JobId,
    pub attempt: u32,
    pub node: u32,
    /// Its index among the node's steps, from 0.
    pub step: u32,
    pub name: String,
    pub status: StepStatus,
    pub exit_code: Option<i32>,
    pub message: Option<String>,
    pub started_at: Timestamp,
    pub stopped_at: Option<Timestamp>,
}
