//! How a job, a workflow or a release ended.

use serde::{Deserialize, Serialize};
use std::fmt;

/// How something ended. `Failed` is the user's command; `Errored` is Towpath or what it stands on: the two never merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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

    /// The word for people and for stored rows.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Errored => "errored",
            Self::TimedOut => "timed_out",
            Self::Canceled => "canceled",
            Self::Skipped => "skipped",
            Self::Rejected => "rejected",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
