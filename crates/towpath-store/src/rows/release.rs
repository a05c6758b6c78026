//! Releases, runs of one-off jobs, and pushed images.

use jiff::Timestamp;
use std::collections::BTreeMap;
use towpath_types::{
    Actor, CommitId, Digest, EnvironmentId, ImageReference, JobId, Outcome, ProjectName, RecordedState, ReleaseId,
    ReleaseStatus, RunId, RunKind, WorkflowId,
};

/// One plan carried out in one environment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ReleaseRow {
    pub id: ReleaseId,
    pub environment: EnvironmentId,
    /// Its number in the environment, from 1; 0 in an insert takes the next one.
    pub number: i64,
    pub status: ReleaseStatus,
    /// How it ended, once it did: `Failed` and `TimedOut` are the application's, `Errored` is Towpath's or the cluster's.
    pub outcome: Option<Outcome>,
    /// The project's images by name, each pinned by its digest. A project's only image has the project's name.
    pub images: BTreeMap<String, ImageReference>,
    pub commit: Option<CommitId>,
    pub actor: Actor,
    /// Its origin: a gate or a command.
    pub cause: String,
    pub plan: Digest,
    /// The release that the plan started from.
    pub parent: Option<ReleaseId>,
    /// The job whose step asked for it.
    pub job: Option<JobId>,
    pub created_at: Timestamp,
    pub stopped_at: Option<Timestamp>,
    pub message: Option<String>,
    /// How often it was deployed again without a change.
    pub repeats: i64,
    /// The time of the last repeat.
    pub repeated_at: Option<Timestamp>,
    pub version: u64,
}

impl ReleaseRow {
    /// Where it stands, in the word of its environment's record.
    #[must_use]
    pub fn recorded_state(&self) -> RecordedState {
        let outcome = self.outcome.filter(|_| self.status.is_over());
        outcome.map_or(RecordedState::Running, RecordedState::Ended)
    }
}

/// One run of a one-off job, or of a cron job by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct RunRow {
    pub id: RunId,
    pub environment: EnvironmentId,
    pub kind: RunKind,
    /// The name in the request.
    pub name: String,
    /// The name of its Job in the environment, chosen before the environment is asked to start it.
    pub object: String,
    pub image: String,
    pub actor: Actor,
    /// How it ended, if it did.
    pub outcome: Option<Outcome>,
    pub exit_code: Option<i64>,
    pub message: Option<String>,
    pub created_at: Timestamp,
    pub stopped_at: Option<Timestamp>,
    pub version: u64,
}

/// One push of an image under one tag.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ImagePush {
    pub project: ProjectName,
    /// The workflow whose job pushed it; `None` for a push by somebody else.
    pub workflow: Option<WorkflowId>,
    /// The image, with its tag and its digest.
    pub image: ImageReference,
    pub at: Timestamp,
}
