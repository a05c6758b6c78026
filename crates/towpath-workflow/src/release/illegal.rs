//! Why an event is refused.

use towpath_types::{Digest, Outcome, ReleaseStatus};

/// Why an event was refused. `Display` writes the message for the requester.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum Illegal {
    /// The first event, and only the first, makes a release.
    #[error("a release begins with its plan, once")]
    Order,
    /// The approval names another plan than the release's.
    #[error("the plan of this release is `{plan}`, not `{approved}` that was approved: look at the plan again")]
    OtherPlan { plan: Digest, approved: Digest },
    /// The release is in a state that does not allow this event.
    #[error("the release is {is}, so it cannot be {wanted}")]
    WrongState { is: &'static str, wanted: &'static str },
    /// The release has ended.
    #[error("the release has already ended ({0})")]
    Over(ReleaseStatus),
    /// A release cannot fail with this outcome.
    #[error("a release cannot fail as {0}")]
    NotAFailure(Outcome),
}
