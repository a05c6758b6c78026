//! Error answers of the API.

use super::{RegistryError, store::ManifestRefusal, upload::UploadError};
use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, StatusCode, header};
use towpath_types::Digest;

/// An error answer in the form that the specification prescribes.
///
/// Source: <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#error-codes>
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
    /// The digests that the refusal is about; mostly empty.
    digests: Vec<Digest>,
    headers: Vec<(HeaderName, String)>,
}

impl Refusal {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            digests: Vec::new(),
            headers: Vec::new(),
        }
    }

    pub fn with(mut self, name: HeaderName, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    pub fn unauthenticated() -> Self {
        let message = "sign in to this registry: docker login";
        Self::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", message)
            .with(header::WWW_AUTHENTICATE, "Basic realm=\"towpath\"".to_string())
    }

    pub fn forbidden() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "DENIED",
            "these credentials do not allow this for this repository",
        )
    }

    pub fn unavailable() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "UNAVAILABLE",
            "the registry cannot look up these credentials now: try again",
        )
    }

    pub fn method() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "UNSUPPORTED",
            "this address does not support this method",
        )
    }

    pub fn blob_unknown() -> Self {
        Self::new(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", "the repository has no such blob")
    }

    pub fn manifest_unknown() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "MANIFEST_UNKNOWN",
            "the repository has no such manifest",
        )
    }

    pub fn upload_unknown() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "BLOB_UPLOAD_UNKNOWN",
            UploadError::Unknown.to_string(),
        )
    }

    pub fn digest_invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", message)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut error = serde_json::json!({"code": self.code, "message": self.message});
        if !self.digests.is_empty() {
            error["detail"] = serde_json::json!({"digests": self.digests});
        }
        let mut response = (self.status, Json(serde_json::json!({"errors": [error]}))).into_response();
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

impl From<RegistryError> for Refusal {
    /// Paths and the operating system's messages go to our log, not to the client.
    fn from(error: RegistryError) -> Self {
        let chain = match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        tracing::error!(error = chain, "failed to answer a request to the registry");
        let (status, message) = if error.is_disk_full() {
            (
                StatusCode::INSUFFICIENT_STORAGE,
                "the registry's disk is full: nothing of this request was stored",
            )
        } else {
            (
                StatusCode::INTERNAL_SERVER_ERROR,
                "the registry failed to read or write its folder: see the server's log",
            )
        };
        Self::new(status, "UNKNOWN", message)
    }
}

impl From<UploadError> for Refusal {
    fn from(error: UploadError) -> Self {
        let message = error.to_string();
        match error {
            UploadError::Unknown => Self::upload_unknown(),
            UploadError::TooMany => Self::new(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", message),
            UploadError::OutOfOrder { .. } => {
                Self::new(StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID", message)
            }
            UploadError::WrongLength { .. } => Self::new(StatusCode::BAD_REQUEST, "SIZE_INVALID", message),
            UploadError::Interrupted { .. } => Self::new(StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID", message),
            UploadError::WrongDigest { .. } => Self::digest_invalid(message),
            UploadError::Registry(error) => error.into(),
        }
    }
}

impl From<ManifestRefusal> for Refusal {
    fn from(refusal: ManifestRefusal) -> Self {
        let message = refusal.to_string();
        match refusal {
            ManifestRefusal::Rejected(_) => Self::new(StatusCode::BAD_REQUEST, "MANIFEST_INVALID", message),
            ManifestRefusal::WrongDigest { .. } => Self::digest_invalid(message),
            ManifestRefusal::WrongSize { .. } => Self::new(StatusCode::BAD_REQUEST, "SIZE_INVALID", message),
            ManifestRefusal::Unknown(digests) => Self {
                digests,
                ..Self::new(StatusCode::NOT_FOUND, "MANIFEST_BLOB_UNKNOWN", message)
            },
            ManifestRefusal::NotNoted(why) => {
                let status = match why.is_disk_full {
                    true => StatusCode::INSUFFICIENT_STORAGE,
                    false => StatusCode::SERVICE_UNAVAILABLE,
                };
                Self::new(status, "UNKNOWN", message)
            }
            ManifestRefusal::Registry(error) => error.into(),
        }
    }
}
