//! The rows that pages read, and the other things that are kept.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use towpath_types::{CommitId, Digest, JobId, PipelineId, ReleaseId, WorkflowId};

/// A row to write, in place of the one with the same id.
#[derive(Debug, Clone, PartialEq)]
pub enum Row {
    /// A pipeline.
    Pipeline(PipelineRow),
    /// A workflow.
    Workflow(WorkflowRow),
    /// A job.
    Job(JobRow),
    /// A release.
    Release(ReleaseRow),
    /// A document.
    Document(Document),
}

/// A pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipelineRow {
    /// Its id.
    pub id: PipelineId,
    /// The project.
    pub project: String,
    /// Its number in the project; 0 takes the next one.
    pub number: i64,
    /// The branch.
    pub branch: Option<String>,
    /// The tag.
    pub tag: Option<String>,
    /// The commit.
    pub commit: CommitId,
    /// The first line of the commit's message.
    pub subject: String,
    /// The commit's author.
    pub author: String,
    /// `created` or `errored`.
    pub state: String,
    /// Why it errored.
    pub errors: Vec<String>,
    /// What was noticed.
    pub warnings: Vec<String>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A workflow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkflowRow {
    /// Its id.
    pub id: WorkflowId,
    /// Its pipeline.
    pub pipeline: PipelineId,
    /// Its place among the pipeline's workflows.
    pub position: i64,
    /// Its name.
    pub name: String,
    /// Its status, in words.
    pub status: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ended.
    pub stopped_at: Option<Timestamp>,
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRow {
    /// Its id.
    pub id: JobId,
    /// Its workflow.
    pub workflow: WorkflowId,
    /// Its project.
    pub project: String,
    /// Its place among the workflow's jobs.
    pub position: i64,
    /// Its number in the project; given by [`crate::Batch::number_job`] and kept by later writes of the row.
    pub number: Option<i64>,
    /// Its name.
    pub name: String,
    /// `build`, `approval`, `no-op`.
    pub kind: String,
    /// Its status, in words.
    pub status: String,
    /// What it requires.
    pub requires: Vec<String>,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub stopped_at: Option<Timestamp>,
    /// Why it ended as it did.
    pub message: Option<String>,
    /// The environment that it opens.
    pub environment: Option<String>,
    /// Who approved it.
    pub approved_by: Option<String>,
}

/// A release.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReleaseRow {
    /// Its id.
    pub id: ReleaseId,
    /// Its environment.
    pub environment: String,
    /// Its number in the environment; 0 takes the next one.
    pub number: i64,
    /// `running`, `succeeded`, `failed`, `errored`.
    pub state: String,
    /// The image.
    pub image: String,
    /// The commit.
    pub commit: Option<CommitId>,
    /// Who.
    pub by: String,
    /// How it came to be.
    pub cause: String,
    /// When it began.
    pub at: Timestamp,
    /// When it ended.
    pub stopped_at: Option<Timestamp>,
    /// Why it failed.
    pub message: Option<String>,
    /// What was carried out.
    pub plan: serde_json::Value,
}

/// A document: JSON that only its writer reads.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// The collection.
    pub collection: &'static str,
    /// Its key in it.
    pub key: String,
    /// Its content; `None` removes it.
    pub json: Option<serde_json::Value>,
}

/// A cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    /// Its whole key.
    pub key: String,
    /// Its archive.
    pub digest: Digest,
    /// The archive's size.
    pub bytes: u64,
}

/// One layer of a workflow's workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkspaceLayerRow {
    /// The job that kept it.
    pub job: JobId,
    /// The node.
    pub node: u32,
    /// The step.
    pub step: u32,
    /// Its archive.
    pub digest: Digest,
}

/// An artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// The node that stored it.
    pub node: u32,
    /// Its path.
    pub path: String,
    /// Its content.
    pub digest: Digest,
    /// Its size.
    pub bytes: u64,
}

/// One test of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TestRow {
    /// Its name.
    pub name: String,
    /// Its class.
    pub classname: Option<String>,
    /// Its file.
    pub file: Option<String>,
    /// How long it took.
    pub seconds: f64,
    /// `success`, `failure` or `skipped`.
    pub result: String,
    /// What a failure says.
    pub message: String,
}
