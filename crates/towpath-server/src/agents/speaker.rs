//! Whom a request on the agents' socket speaks for, and how it is answered.

use crate::{App, answer};
use axum::{
    extract::FromRequestParts,
    http::{StatusCode, request::Parts},
    response::{IntoResponse, Response},
};
use towpath_control::{Grant, presented};
use towpath_delivery::{DeliveryError, ErrorKind};
use towpath_types::{NodeId, ProjectName};

/// The node of an attempt of a job that a request speaks for.
pub(super) struct Speaker(pub NodeId);

impl FromRequestParts<App> for Speaker {
    type Rejection = Response;
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Response> {
        match presented(&parts.headers).and_then(|token| app.identity.grant(&token)) {
            Some(Grant::Job(node)) => Ok(Self(node)),
            _ => Err((StatusCode::UNAUTHORIZED, "this is not the token of a job").into_response()),
        }
    }
}

/// The project to whose repository a push came.
pub(super) struct Pushed(pub ProjectName);

impl FromRequestParts<App> for Pushed {
    type Rejection = Response;
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Response> {
        let refused = || (StatusCode::UNAUTHORIZED, "this is not the token of a hook").into_response();
        match presented(&parts.headers).and_then(|token| app.identity.grant(&token)) {
            Some(Grant::Hook { project }) => project.parse().map(Self).map_err(|_| refused()),
            _ => Err(refused()),
        }
    }
}

/// Tells the agent itself. A job that is over is `410`: the agent stops. When something below us fails, it is 5xx: the agent
/// asks again.
pub(super) fn to_agent(error: DeliveryError) -> Response {
    answer::log(&error);
    let status = match error.kind() {
        ErrorKind::NotFound => StatusCode::GONE,
        _ => answer::status(&error),
    };
    (status, error.to_string()).into_response()
}

/// Tells the step: a sentence for its log.
pub(super) fn to_step(error: DeliveryError) -> Response {
    answer::log(&error);
    let status = match error.kind() {
        ErrorKind::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
        _ => answer::status(&error),
    };
    (status, error.to_string()).into_response()
}
