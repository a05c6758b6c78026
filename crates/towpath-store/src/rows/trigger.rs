//! Triggers: requests for pipelines.

use jiff::Timestamp;
use serde_json::Value;
use towpath_types::{Actor, CommitId, PipelineId, ProjectName, TriggerId, TriggerStatus};

/// The source of a trigger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TriggerKind {
    /// A push moved this ref: `refs/heads/main`.
    Push {
        /// The whole name of the ref.
        ref_name: String,
    },
    /// Somebody asked, by the API or the command line.
    Api,
    /// A schedule was due.
    Schedule,
}

/// A request for one pipeline. It is committed before the requester gets an answer, and a worker makes the pipeline.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct TriggerRow {
    pub id: TriggerId,
    pub project: ProjectName,
    pub kind: TriggerKind,
    pub branch: Option<String>,
    pub tag: Option<String>,
    /// The new target of the ref: a commit or a tag object. For a push it may be anything that git allows people to
    /// tag.
    pub commit: CommitId,
    /// Pipeline parameters, a JSON object.
    pub parameters: Value,
    pub actor: Actor,
    /// The pipeline that it makes, fixed from the beginning so that its address is known at once.
    pub pipeline: PipelineId,
    /// That pipeline's number; 0 in an insert takes the project's next one.
    pub number: i64,
    pub status: TriggerStatus,
    /// Why it was dropped.
    pub reason: Option<String>,
    pub created_at: Timestamp,
    pub version: u64,
}

/// Where a ref pointed when its last push was handled.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct HandledRef {
    pub project: ProjectName,
    /// The whole name: `refs/heads/main`.
    pub name: String,
    /// A commit, or a tag object. `None` in a write removes the row: the ref was deleted.
    pub commit: Option<CommitId>,
    /// The number of the pipeline made from it; 0 if there was none. A write with a lower number than the row's changes
    /// nothing, because pipelines of one ref may be made out of order; a write with 0 always takes effect.
    pub number: i64,
}
