//! What happens to a release, and the effects.

use jiff::Timestamp;
use towpath_types::{Digest, Outcome, ReleaseId};

/// What to do when a release fails half-way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// The previous release is restored.
    Rollback,
    /// The environment is left as it is.
    Stop,
}

/// Why a release was abandoned before it changed anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The environment differs from what the plan expects.
    StalePlan,
    /// A later decision about the environment replaces this one.
    NewerDecision,
    /// The environment, a lock or a freeze refuses the plan.
    Refused,
    /// Somebody withdrew it.
    Withdrawn,
    /// Towpath, the cluster or the engine could not begin.
    Unable,
}

impl Why {
    /// The outcome that it counts as.
    #[must_use]
    pub fn outcome(self) -> Outcome {
        match self {
            Self::StalePlan | Self::NewerDecision | Self::Refused => Outcome::Rejected,
            Self::Withdrawn => Outcome::Canceled,
            Self::Unable => Outcome::Errored,
        }
    }
}

/// Something that happened. Store an event before acting on it.
///
/// `at` is the time by the reporter's clock; `message` is for people.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Event {
    /// The release was made. Always the first event, and only the first.
    Planned {
        plan: Digest,
        /// The release that the plan starts from, and that a rollback restores.
        parent: Option<ReleaseId>,
        on_failure: OnFailure,
        at: Timestamp,
    },
    /// Somebody with permission agreed to the plan that they saw.
    Approved { plan: Digest, by: String, at: Timestamp },
    /// The environment is locked and as the plan expects it. Commit this before you write the first object.
    ApplyBegan { at: Timestamp },
    /// Every object is written. Rollouts may still be in progress.
    Applied { at: Timestamp },
    /// Every workload runs.
    Succeeded { at: Timestamp },
    /// It failed after it changed something, or may have. If it changed nothing, report [`Event::Abandoned`].
    Failed {
        outcome: Outcome,
        message: String,
        at: Timestamp,
    },
    /// The environment is locked, and nobody else has deployed to it since. Commit this before you put the first object
    /// back.
    RollbackBegan { at: Timestamp },
    /// The previous release runs again.
    RolledBack { at: Timestamp },
    /// The rollback failed too.
    RollbackFailed { message: String, at: Timestamp },
    /// Somebody else deployed to the environment after this release had changed something: they are responsible for it
    /// now.
    Overtaken {
        /// The person or the release.
        by: String,
        at: Timestamp,
    },
    /// It will not be carried out, and has changed nothing.
    Abandoned { why: Why, message: String, at: Timestamp },
    /// The environment's own record has its outcome.
    Recorded { at: Timestamp },
}

/// Something to do. Every effect is safe to repeat, and starts from the actual state of the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Effect {
    /// Lock the environment and compare it with the plan; then report [`Event::ApplyBegan`] or [`Event::Abandoned`].
    BeginApply,
    /// Write the objects; then report [`Event::Applied`].
    Apply,
    /// Watch the rollouts; then report [`Event::Succeeded`] or [`Event::Failed`].
    Watch,
    /// Lock the environment, and check that nobody has deployed to it since; then report [`Event::RollbackBegan`] or
    /// [`Event::Overtaken`].
    BeginRollback { to: ReleaseId },
    /// Restore the objects of a release; then report [`Event::RolledBack`] or [`Event::RollbackFailed`].
    RollBack { to: ReleaseId },
    /// Write the outcome into the environment's own record; then report [`Event::Recorded`].
    Record,
}
