//! Why an event is refused.

use towpath_types::{Digest, Outcome, ReleaseStatus};

/// Why an event was refused. The text is for whoever asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum Illegal {
    /// The first event, and only the first, makes a release.
    #[error("a release begins with its plan, once")]
    Order,
    /// Somebody approved something else than what would be done.
    #[error("the plan of this release is `{plan}`, not `{approved}` that was approved: look at the plan again")]
    OtherPlan { plan: Digest, approved: Digest },
    /// The release is somewhere where this cannot happen to it.
    #[error("the release is {is}, so it cannot be {wanted}")]
    WrongState { is: &'static str, wanted: &'static str },
    /// The release has ended.
    #[error("the release has already ended ({0})")]
    Over(ReleaseStatus),
    /// A release does not fail like this.
    #[error("a release cannot fail as {0}")]
    NotAFailure(Outcome),
}
