//! Why a pod does not start, and what an engine's errors mean for it and for a target.

use crate::target::TargetError;
use towpath_container::{ContainerError, ErrorKind, PullError, PullFailure};

/// Why a container could not be made or an image not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// Trying again cannot help: there is no such image, user or program.
    #[error("{0}")]
    Terminal(String),
    /// It may.
    #[error("{0}")]
    Passing(String),
}

impl From<ContainerError> for StartError {
    fn from(error: ContainerError) -> Self {
        let text = format!("failed to {}: {}", error.attempted(), error.said());
        match error.kind() {
            ErrorKind::Impossible => Self::Terminal(text),
            ErrorKind::Unreachable | ErrorKind::Failed => Self::Passing(text),
        }
    }
}

impl From<PullError> for StartError {
    fn from(error: PullError) -> Self {
        let text = format!("the image `{}` cannot be pulled: {}", error.image(), error.said());
        match error.failure() {
            PullFailure::Absent => Self::Terminal(format!("{text}; check its name and tag, or push it first")),
            PullFailure::Denied => Self::Terminal(format!(
                "{text}; check its name, and whether this server's credentials may read it"
            )),
            PullFailure::Failed => Self::Passing(text),
        }
    }
}

impl From<ContainerError> for TargetError {
    fn from(error: ContainerError) -> Self {
        let (attempted, source) = error.into_parts();
        Self::Failed { attempted, source }
    }
}
