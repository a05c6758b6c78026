//! Errors as answers.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use towpath_control::{ControlError, ErrorKind};

/// An error on its way out of an API: `{"message": …}`.
pub(crate) struct Failure(pub ControlError);

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        Self(error)
    }
}

/// The status code of an error.
pub(crate) fn status(error: &ControlError) -> StatusCode {
    match error.kind() {
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::Invalid => StatusCode::BAD_REQUEST,
        ErrorKind::Forbidden => StatusCode::FORBIDDEN,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Logs what went wrong here.
pub(crate) fn log(error: &ControlError) {
    if status(error).is_server_error() {
        tracing::error!(error = error.chain(), "a request failed");
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        log(&self.0);
        (
            status(&self.0),
            // Whoever may ask may know why.
            Json(serde_json::json!({ "message": self.0.chain() })),
        )
            .into_response()
    }
}

/// What API handlers return.
pub(crate) type Answer<T> = Result<Json<T>, Failure>;
