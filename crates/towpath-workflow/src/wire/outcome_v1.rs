//! Version 1 of an outcome.

use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    Succeeded,
    Failed,
    Errored,
    TimedOut,
    Canceled,
    Skipped,
    Rejected,
}

impl From<towpath_types::Outcome> for Outcome {
    fn from(outcome: towpath_types::Outcome) -> Self {
        match outcome {
            towpath_types::Outcome::Succeeded => Self::Succeeded,
            towpath_types::Outcome::Failed => Self::Failed,
            towpath_types::Outcome::Errored => Self::Errored,
            towpath_types::Outcome::TimedOut => Self::TimedOut,
            towpath_types::Outcome::Canceled => Self::Canceled,
            towpath_types::Outcome::Skipped => Self::Skipped,
            towpath_types::Outcome::Rejected => Self::Rejected,
        }
    }
}

impl From<Outcome> for towpath_types::Outcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Succeeded => Self::Succeeded,
            Outcome::Failed => Self::Failed,
            Outcome::Errored => Self::Errored,
            Outcome::TimedOut => Self::TimedOut,
            Outcome::Canceled => Self::Canceled,
            Outcome::Skipped => Self::Skipped,
            Outcome::Rejected => Self::Rejected,
        }
    }
}
