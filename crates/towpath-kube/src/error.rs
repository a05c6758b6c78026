//! Why a request to an API server failed.

use std::time::Duration;

/// Why a request failed. Every message names the server or the kube context.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ApiError {
    /// The server answered with an error.
    #[error("{message}")]
    Answered {
        /// The HTTP status.
        code: u16,
        /// Kubernetes' word for it: `AlreadyExists`.
        reason: String,
        /// The server's sentence.
        message: String,
        /// The fields that it is about, each with a sentence.
        causes: Vec<(String, String)>,
        /// The pause that the server asks for.
        retry_after: Option<Duration>,
    },
    /// There was no answer.
    #[error("cannot reach the API server at {server}: {why}")]
    #[allow(missing_docs)]
    Unreachable { server: String, why: String },
    /// The answer took too long.
    #[error("the API server at {server} did not answer within {} s", .after.as_secs())]
    #[allow(missing_docs)]
    TimedOut { server: String, after: Duration },
    /// Something other than an API server answered.
    #[error("the answer from {server} is not from a Kubernetes API server: {why}")]
    #[allow(missing_docs)]
    Malformed { server: String, why: String },
    /// The kubeconfig's credentials are not available.
    #[error("cannot get credentials for the kube context `{kube_context}`: {why}")]
    #[allow(missing_docs)]
    Credentials { kube_context: String, why: String },
}

impl ApiError {
    /// The HTTP status, if the server answered.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Answered { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether the object, or the kind, does not exist.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.code() == Some(404)
    }

    /// Whether the account lacks a permission, or an admission controller denied the request.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        self.code() == Some(403)
    }

    /// Whether somebody else wrote or created the object first.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }

    /// Whether the same request may succeed a little later.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } => true,
            // API servers answer 500 to an object that does not fit its schema.
            Self::Answered { code: 500, message, .. } => !message.contains("typed patch object"),
            Self::Answered { code, .. } => matches!(code, 429 | 502..=504),
            Self::Malformed { .. } | Self::Credentials { .. } => false,
        }
    }
}
