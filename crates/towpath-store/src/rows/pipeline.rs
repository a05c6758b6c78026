//! Projects and pipelines.

use jiff::Timestamp;
use towpath_types::{Actor, CommitId, PipelineId, PipelineStatus, ProjectName, TriggerId};

/// A project: a repository that is pushed to, or one whose manifests a laptop showed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ProjectRow {
    pub name: ProjectName,
    /// Where its main line of work is: `main`.
    pub default_branch: String,
    /// The newest commit of that branch; `None` while nothing was pushed to it.
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
    /// Why it errored: one text per diagnostic, with file, line and column where a file is at fault.
    pub errors: Vec<String>,
    /// What compiles but deserves a look.
    pub warnings: Vec<String>,
    /// Who pushed or asked.
    pub actor: Actor,
    pub created_at: Timestamp,
    pub version: u64,
}

/// A pipeline's configuration. Beside its row, because it is large and few readers need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipelineConfig {
    /// Whose it is.
    pub pipeline: PipelineId,
    /// As its author wrote it; empty where the commit has none.
    pub source: String,
    /// As `config process` prints it; empty where it does not compile.
    pub processed: String,
    /// `towpath.toml` at the commit.
    pub project_file: Option<String>,
}
