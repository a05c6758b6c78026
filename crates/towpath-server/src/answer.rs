//! Errors as answers.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use std::str::FromStr;
use towpath_delivery::{DeliveryError, ErrorKind};
use towpath_types::{EnvironmentId, ProjectName};

/// An error answer of an API: `{"message": …}`. It adds `"plan"` if the request would go through once it names that plan.
pub(crate) struct Failure(pub DeliveryError);

impl From<DeliveryError> for Failure {
    fn from(error: DeliveryError) -> Self {
        Self(error)
    }
}

/// The status code of an error.
pub(crate) fn status(error: &DeliveryError) -> StatusCode {
    if error.is_of_full_disk() {
        return StatusCode::INSUFFICIENT_STORAGE;
    }
    match error.kind() {
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::Invalid => StatusCode::BAD_REQUEST,
        ErrorKind::Forbidden => StatusCode::FORBIDDEN,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Logs an error that is not the caller's.
pub(crate) fn log(error: &DeliveryError) {
    if status(error).is_server_error() {
        tracing::error!(error = error.chain(), "a request failed");
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        log(&self.0);
        // Only the owner gets this answer, and the owner may see the causes.
        let mut body = serde_json::json!({ "message": self.0.chain() });
        if let Some(plan) = self.0.plan() {
            body["plan"] = serde_json::json!(plan);
        }
        (status(&self.0), Json(body)).into_response()
    }
}

/// What API handlers return.
pub(crate) type Answer<T> = Result<Json<T>, Failure>;

/// The project that a path names.
pub(crate) fn project(name: &str) -> Result<ProjectName, DeliveryError> {
    name.parse()
        .map_err(|error: towpath_types::ProjectNameError| DeliveryError::invalid(error.to_string()))
}

/// The environment that a path names.
pub(crate) fn environment(project: &str, environment: &str) -> Result<EnvironmentId, DeliveryError> {
    EnvironmentId::new(project, environment).map_err(|error| DeliveryError::invalid(error.to_string()))
}

/// An id in a path. `what` names its kind for the error: `a gate`.
pub(crate) fn id<T: FromStr>(text: &str, what: &str) -> Result<T, DeliveryError> {
    text.parse()
        .map_err(|_| DeliveryError::not_found(format!("there is no {what} `{}`", text.escape_debug())))
}
