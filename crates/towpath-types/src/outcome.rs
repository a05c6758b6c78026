//! How a job, a workflow or a release ended.

/// How something ended. `Failed` is the user's command; `Errored` is Towpath or what it stands on: the two never merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// Everything asked for was done.
    Succeeded,
    /// The user's command or application failed.
    Failed,
    /// Towpath, the engine, the registry or the machine failed.
    Errored,
    /// A deadline passed.
    TimedOut,
    /// Somebody canceled it.
    Canceled,
    /// It did not have to run: what it requires can no longer happen.
    Skipped,
    /// A gate was refused, or whoever asked was not allowed to.
    Rejected,
}

impl Outcome {
    /// Whether this is `Succeeded`.
    #[must_use]
    pub fn is_success(self) -> bool {
        self == Self::Succeeded
    }

    /// Whether it went wrong by itself: `Failed`, `Errored` or `TimedOut`.
    #[must_use]
    pub fn is_failure(self) -> bool {
        matches!(self, Self::Failed | Self::Errored | Self::TimedOut)
    }
}
