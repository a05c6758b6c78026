//! Workflows and the events that they are folded from.

use jiff::Timestamp;
use serde_json::Value;
use towpath_types::{CommitId, PipelineId, ProjectName, WorkflowId, WorkflowStatus};

/// A workflow of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct WorkflowRow {
    pub id: WorkflowId,
    pub pipeline: PipelineId,
    pub pipeline_number: i64,
    pub project: ProjectName,
    /// Its place among the pipeline's workflows, from 0.
    pub position: i64,
    pub name: String,
    pub status: WorkflowStatus,
    pub branch: Option<String>,
    pub tag: Option<String>,
    pub commit: CommitId,
    /// The reason why it cannot run at all, if so.
    pub message: Option<String>,
    pub created_at: Timestamp,
    pub stopped_at: Option<Timestamp>,
    pub version: u64,
}

/// One event of a stream, in its writer's wire form.
#[derive(Debug, Clone, PartialEq)]
pub struct EventRow {
    /// Its index in the stream, from 0, without gaps.
    pub sequence: u64,
    /// The event.
    pub event: Value,
}
