//! Why an engine did not do what it was asked.
//!
//! Engines answer with a status and a sentence. Only this module inspects the words of a sentence, where nothing else
//! tells two cases apart.

use bollard::errors::Error as DockerError;
use std::error::Error;
use towpath_types::ImageReference;

/// A request that failed. `Display` says what was attempted, the source what the engine said.
#[derive(Debug, thiserror::Error)]
#[error("failed to {attempted}")]
pub struct ContainerError {
    attempted: String,
    kind: ErrorKind,
    status: Option<u16>,
    is_said_midway: bool,
    source: Box<dyn Error + Send + Sync>,
}

/// Whether a retry can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// No engine answers. It may next time.
    Unreachable,
    /// The request can never succeed: there is no such user, program or option.
    Impossible,
    /// The engine failed, and may succeed next time.
    Failed,
}

impl ContainerError {
    pub(crate) fn of(attempted: impl Into<String>) -> impl Fn(DockerError) -> Self {
        let attempted = attempted.into();
        move |error| Self {
            attempted: attempted.clone(),
            kind: kind(&error),
            status: status(&error),
            is_said_midway: matches!(error, DockerError::DockerStreamError { .. }),
            source: said(error),
        }
    }

    /// A failure without a message from the engine.
    pub(crate) fn other<E: Into<Box<dyn Error + Send + Sync>>>(attempted: impl Into<String>) -> impl FnOnce(E) -> Self {
        move |source| Self {
            attempted: attempted.into(),
            kind: ErrorKind::Failed,
            status: None,
            is_said_midway: false,
            source: source.into(),
        }
    }

    /// The attempted action and its object: `start the container `x``.
    #[must_use]
    pub fn attempted(&self) -> &str {
        &self.attempted
    }

    #[allow(missing_docs)]
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The HTTP status of an error answer. `None` when there was no answer, or when the answer began successfully.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.status
    }

    /// Whether the engine reported the error after it had begun, as in a build.
    #[must_use]
    pub fn is_said_midway(&self) -> bool {
        self.is_said_midway
    }

    /// The engine's own words.
    #[must_use]
    pub fn said(&self) -> String {
        self.source.to_string()
    }

    /// The attempted action and the cause, for an error of the caller's own.
    #[must_use]
    pub fn into_parts(self) -> (String, Box<dyn Error + Send + Sync>) {
        (self.attempted, self.source)
    }
}

/// An image that could not be pulled.
#[derive(Debug, thiserror::Error)]
#[error("the image `{image}` cannot be pulled")]
pub struct PullError {
    image: String,
    failure: PullFailure,
    source: Box<dyn Error + Send + Sync>,
}

/// Why an image could not be pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullFailure {
    /// The registry has no such image. Trying again does not help.
    Absent,
    /// The registry denies these credentials, or anonymous access. A retry does not help.
    Denied,
    /// The engine could not reach the registry, or the registry failed.
    Failed,
}

impl PullError {
    pub(crate) fn of(image: &ImageReference, error: DockerError) -> Self {
        let source = said(error);
        let words = source.to_string().to_lowercase();
        let says = |any: &[&str]| any.iter().any(|word| words.contains(word));
        let denied = ["denied", "unauthorized", "authentication required", "no basic auth"];
        let absent = ["not found", "manifest unknown", "does not exist", "no such image"];
        let failure = if says(&denied) {
            PullFailure::Denied
        // "No such host" messages also contain "not found".
        } else if says(&absent) && !says(&["no such host"]) {
            PullFailure::Absent
        } else {
            PullFailure::Failed
        };
        Self {
            image: image.to_string(),
            failure,
            source,
        }
    }

    #[allow(missing_docs)]
    #[must_use]
    pub fn image(&self) -> &str {
        &self.image
    }

    #[allow(missing_docs)]
    #[must_use]
    pub fn failure(&self) -> PullFailure {
        self.failure
    }

    /// The engine's own words, which are often the registry's.
    #[must_use]
    pub fn said(&self) -> String {
        self.source.to_string()
    }

    /// The cause, for an error of the caller's own.
    #[must_use]
    pub fn into_source(self) -> Box<dyn Error + Send + Sync> {
        self.source
    }
}

/// The HTTP status of an answer that is an error.
pub(crate) fn status(error: &DockerError) -> Option<u16> {
    match error {
        DockerError::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// The engine's message, or the library's error if there is none.
fn said(error: DockerError) -> Box<dyn Error + Send + Sync> {
    match error {
        DockerError::DockerResponseServerError { message, .. } => message.trim().into(),
        DockerError::DockerStreamError { error } => error.trim().into(),
        other => other.into(),
    }
}

fn kind(error: &DockerError) -> ErrorKind {
    match error {
        DockerError::HyperLegacyError { err } if err.is_connect() => ErrorKind::Unreachable,
        DockerError::SocketNotFoundError(_) => ErrorKind::Unreachable,
        DockerError::DockerResponseServerError { status_code, message } => {
            let message = message.to_lowercase();
            let impossible = [
                "unable to find user",
                "executable file not found",
                "exec format error",
                "no such file or directory: unknown",
            ];
            if *status_code == 400 || impossible.iter().any(|words| message.contains(words)) {
                ErrorKind::Impossible
            } else {
                ErrorKind::Failed
            }
        }
        _ => ErrorKind::Failed,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn answer(status_code: u16, message: &str) -> DockerError {
        DockerError::DockerResponseServerError {
            status_code,
            message: message.to_string(),
        }
    }

    #[test]
    fn what_can_never_be_is_told_from_what_may_be() {
        for (status, message, expect) in [
            (400, "invalid option", ErrorKind::Impossible),
            (
                500,
                "unable to find user nobody: no matching entries",
                ErrorKind::Impossible,
            ),
            (
                500,
                "exec: \"serve\": Executable file not found in $PATH",
                ErrorKind::Impossible,
            ),
            (404, "network towpath-x not found", ErrorKind::Failed),
            (500, "no space left on device", ErrorKind::Failed),
        ] {
            let error = ContainerError::of("start the container `x`")(answer(status, message));
            assert_eq!((error.kind(), error.status()), (expect, Some(status)), "{message}");
            assert_eq!(error.to_string(), "failed to start the container `x`");
            assert_eq!(error.said(), message);
        }
    }

    #[test]
    fn an_absent_image_is_told_from_a_private_one_and_from_a_dead_registry() {
        for (message, expect) in [
            ("manifest for x not found: manifest unknown", PullFailure::Absent),
            (
                "pull access denied for x, repository does not exist",
                PullFailure::Denied,
            ),
            ("unauthorized: authentication required", PullFailure::Denied),
            ("no basic auth credentials", PullFailure::Denied),
            ("dial tcp: lookup r.io: no such host", PullFailure::Failed),
            ("Service Unavailable", PullFailure::Failed),
        ] {
            let image: ImageReference = "127.0.0.1:7070/claims:app-1".parse().unwrap();
            let error = PullError::of(&image, answer(404, message));
            assert_eq!(
                (error.failure(), error.image()),
                (expect, "127.0.0.1:7070/claims:app-1"),
                "{message}"
            );
            assert_eq!(error.said(), message);
        }
    }
}
