//! The results of jobs: artifacts, tests, caches, workspace layers.

use towpath_types::{Digest, JobId, ProjectName, TestResult, WorkflowId};

/// A stored file of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Artifact {
    pub job: JobId,
    pub attempt: u32,
    pub node: u32,
    pub path: String,
    pub digest: Digest,
    pub bytes: u64,
}

/// One test of a job.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct TestRow {
    pub name: String,
    pub classname: Option<String>,
    pub file: Option<String>,
    pub seconds: f64,
    pub result: TestResult,
    /// The failure's message.
    pub message: String,
}

/// A cache.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Cache {
    pub project: ProjectName,
    /// The trust domain of the job that saved it; keys are unique within a domain.
    pub domain: String,
    /// The full key.
    pub key: String,
    pub digest: Digest,
    pub bytes: u64,
}

/// One layer of a workflow's workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct WorkspaceLayer {
    pub workflow: WorkflowId,
    pub job: JobId,
    pub attempt: u32,
    pub node: u32,
    pub step: u32,
    pub digest: Digest,
    pub bytes: u64,
}
