//! Why a pod does not start, and how an engine's errors map to this and to a target's errors.

use crate::target::TargetError;
use towpath_container::{ContainerError, ErrorKind, PullError, PullFailure};

/// Why a container could not be created, or an image could not be pulled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// A retry cannot help: the image, user or program does not exist.
    #[error("{0}")]
    Terminal(String),
    /// A retry may help.
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
