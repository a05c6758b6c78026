//! What happens to a release, and what follows from it.

use jiff::Timestamp;
use towpath_types::{Digest, Outcome, ReleaseId};

/// What happens when a release fails half-way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// The release before is put back.
    Rollback,
    /// The environment is left as it is.
    Stop,
}

/// Why a release was abandoned before it changed anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The environment is not as the plan expects it.
    StalePlan,
    /// A later decision about the environment replaces this one.
    NewerDecision,
    /// The environment, a lock or a freeze refuses the plan.
    Refused,
    /// Somebody took it back.
    Withdrawn,
    /// Towpath, the cluster or the engine could not begin.
    Unable,
}

impl Why {
    /// What it counts as.
    #[must_use]
    pub fn outcome(self) -> Outcome {
        match self {
            Self::StalePlan | Self::NewerDecision | Self::Refused => Outcome::Rejected,
            Self::Withdrawn => Outcome::Canceled,
            Self::Unable => Outcome::Errored,
        }
    }
}

/// Something that happened. An event is stored before anything acts on it.
///
/// `at` is when it happened by the clock of whoever reports it; `message` is for people.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Event {
    /// The release was made. Always the first event, and only the first.
    Planned {
        plan: Digest,
        /// The release that the plan starts from, and that is gone back to.
        parent: Option<ReleaseId>,
        on_failure: OnFailure,
        at: Timestamp,
    },
    /// Somebody who may do so agreed to the plan that they were shown.
    Approved { plan: Digest, by: String, at: Timestamp },
    /// The environment is locked and as the plan expects it. Commit this before you write the first object.
    ApplyBegan { at: Timestamp },
    /// Every object is in. Rollouts may still be under way.
    Applied { at: Timestamp },
    /// Everything runs.
    Succeeded { at: Timestamp },
    /// It failed after something was changed, or may have been. If nothing was, report [`Event::Abandoned`].
    Failed {
        outcome: Outcome,
        message: String,
        at: Timestamp,
    },
    /// The environment is locked, and nobody else has deployed to it since. Commit this before you put the first object
    /// back.
    RollbackBegan { at: Timestamp },
    /// The release before runs again.
    RolledBack { at: Timestamp },
    /// Going back failed too.
    RollbackFailed { message: String, at: Timestamp },
    /// Somebody else deployed to the environment after this release had changed something: what becomes of it is theirs
    /// to decide.
    Overtaken {
        /// Who, or which release.
        by: String,
        at: Timestamp,
    },
    /// It will not be carried out, and nothing was changed.
    Abandoned { why: Why, message: String, at: Timestamp },
    /// How it ended is in the environment's own record.
    Recorded { at: Timestamp },
}

/// Something to do. Every effect is safe twice, and starts from what is true in the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Effect {
    /// Lock the environment and compare it with the plan; then report [`Event::ApplyBegan`] or [`Event::Abandoned`].
    BeginApply,
    /// Write the objects; then report [`Event::Applied`].
    Apply,
    /// Watch the rollouts; then report [`Event::Succeeded`] or [`Event::Failed`].
    Watch,
    /// Lock the environment, see that nobody deployed to it since; then report [`Event::RollbackBegan`] or
    /// [`Event::Overtaken`].
    BeginRollback { to: ReleaseId },
    /// Put the objects of a release back; then report [`Event::RolledBack`] or [`Event::RollbackFailed`].
    RollBack { to: ReleaseId },
    /// Write how it ended into the environment's own record; then report [`Event::Recorded`].
    Record,
}
