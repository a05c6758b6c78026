//! Projects and pipelines.

use jiff::Timestamp;
use serde_json::Value;
use towpath_types::{Actor, CommitId, PipelineId, PipelineStatus, ProjectName, TriggerId};

/// A project: a repository that receives pushes, or one whose manifests came from a laptop.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ProjectRow {
    pub name: ProjectName,
    /// The default branch: `main`.
    pub default_branch: String,
    /// The newest commit of that branch; `None` before the first push.
    pub head: Option<CommitId>,
    pub created_at: Timestamp,
    pub version: u64,
}

/// One run of a configuration for one trigger.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct PipelineRow {
    pub id: PipelineId,
    pub trigger: TriggerId,
    pub project: ProjectName,
    /// Its number in the project, from 1; taken by its trigger.
    pub number: i64,
    pub branch: Option<String>,
    pub tag: Option<String>,
    pub commit: CommitId,
    /// The first line of the commit's message.
    pub subject: String,
    /// The commit's author.
    pub author: String,
    pub status: PipelineStatus,
    /// Why it errored, and the warnings: a wire form that only its writer reads.
    pub diagnostics: Value,
    /// Who pushed or asked.
    pub actor: Actor,
    pub created_at: Timestamp,
    pub version: u64,
}

/// A pipeline's configuration, in its own table because it is large and rarely read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipelineConfig {
    /// The pipeline.
    pub pipeline: PipelineId,
    /// As its author wrote it; empty if the commit has none.
    pub source: String,
    /// As `config process` prints it; empty if it does not compile.
    pub processed: String,
    /// `towpath.toml` at the commit.
    pub project_file: Option<String>,
}
