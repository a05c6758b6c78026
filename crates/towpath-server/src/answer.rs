//! Errors as answers.

use axum::{
    Json,
    extract::{FromRequest, Request},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
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

/// A body that is a JSON object. `serde` would also take an array for a struct, its items in the order of the fields.
pub(crate) struct Object<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Object<T> {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let Json(value) = Json::<Value>::from_request(request, state)
            .await
            .map_err(IntoResponse::into_response)?;
        object(value).map(Self).map_err(|error| Failure(error).into_response())
    }
}

/// Reads a JSON object.
pub(crate) fn object<T: DeserializeOwned>(value: Value) -> Result<T, DeliveryError> {
    if !value.is_object() {
        return Err(DeliveryError::invalid("the body is not a JSON object"));
    }
    serde_json::from_value(value)
        .map_err(|error| DeliveryError::invalid(format!("the body is not what is asked for: {error}")))
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
