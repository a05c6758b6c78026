//! What every step uses, and how steps end.

use crate::{client::Client, client::ClientError, surroundings::Surroundings};
use std::{path::Path, sync::Arc, time::Duration};
use towpath_protocol::JobSpec;
use towpath_types::{Mask, Outcome};

/// What every step of the running job uses.
#[derive(Debug, Clone)]
pub(crate) struct RunningJob {
    pub(crate) client: Client,
    pub(crate) surroundings: Arc<Surroundings>,
    pub(crate) spec: Arc<JobSpec>,
    pub(crate) mask: Mask,
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StepEnd {
    pub(crate) outcome: Outcome,
    pub(crate) exit_code: Option<i32>,
    pub(crate) message: Option<String>,
}

impl StepEnd {
    pub(crate) fn new(outcome: Outcome, message: Option<String>) -> Self {
        Self {
            outcome,
            exit_code: None,
            message,
        }
    }

    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(Outcome::Failed, Some(message.into()))
    }
}

/// Why a step other than a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StepError {
    /// The configuration asks for something impossible.
    #[error("{0}")]
    Failed(String),
    /// The server or the machine failed.
    #[error("{0}")]
    Errored(String),
    /// The server no longer knows the job.
    #[error("the server no longer knows this job")]
    Gone,
}

impl StepError {
    /// Adds the name of the file to the message.
    pub(crate) fn about(self, file: &Path) -> Self {
        match self {
            Self::Failed(message) => Self::Failed(format!("{}: {message}", file.display())),
            Self::Errored(message) => Self::Errored(format!("{}: {message}", file.display())),
            Self::Gone => Self::Gone,
        }
    }
}

impl From<ClientError> for StepError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Gone => Self::Gone,
            error => Self::Errored(error.to_string()),
        }
    }
}

impl From<Result<(), StepError>> for StepEnd {
    fn from(result: Result<(), StepError>) -> Self {
        match result {
            Ok(()) => Self::new(Outcome::Succeeded, None),
            Err(StepError::Failed(message)) => Self::failed(message),
            Err(StepError::Errored(message)) => Self::new(Outcome::Errored, Some(message)),
            Err(error @ StepError::Gone) => Self::new(Outcome::Canceled, Some(error.to_string())),
        }
    }
}

/// Formats a duration as Go does, like CircleCI's messages: `10m0s`.
pub(crate) fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (hours, minutes, seconds) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (seconds, expect) in [
            (0, "0s"),
            (30, "30s"),
            (600, "10m0s"),
            (3600, "1h0m0s"),
            (5461, "1h31m1s"),
        ] {
            assert_eq!(go_duration(Duration::from_secs(seconds)), expect);
        }
    }
}
