//! Whom a request on the agents' socket speaks for, and how it is answered.

use crate::{App, answer};
use axum::{
    extract::FromRequestParts,
    http::{StatusCode, request::Parts},
    response::{IntoResponse, Response},
};
use towpath_control::{Grant, Standing, presented};
use towpath_delivery::{DeliveryError, ErrorKind};
use towpath_types::{NodeId, ProjectName};

/// The node for which an agent speaks, while the node runs.
pub(super) struct Speaker(pub NodeId);

/// The node whose agent reports. Its last report may come again once it was taken.
pub(super) struct Reporter(pub NodeId);

/// The node of which a step asks for something, while its job goes on.
pub(super) struct Step(pub NodeId);

/// Whose token a request bears, if it is a node's.
enum Bearer {
    Agent(NodeId),
    Step(NodeId),
}

impl Bearer {
    async fn of(parts: &Parts, app: &App) -> Result<(Self, Standing), Response> {
        let granted = presented(&parts.headers).and_then(|token| app.identity.grant(&token));
        let (bearer, node) = match granted {
            Some(Grant::Agent(node)) => (Self::Agent(node), node),
            Some(Grant::Step(node)) => (Self::Step(node), node),
            _ => return Err((StatusCode::UNAUTHORIZED, "this is not the token of a job").into_response()),
        };
        let standing = app.agents.standing(node).await.map_err(to_agent)?;
        Ok((bearer, standing))
    }
}

fn over(node: NodeId) -> Response {
    let text = format!("attempt {} of job {} is over", node.attempt, node.job);
    (StatusCode::GONE, text).into_response()
}

fn not_for(whose: &str) -> Response {
    (StatusCode::FORBIDDEN, format!("a {whose} token does not allow this")).into_response()
}

impl FromRequestParts<App> for Speaker {
    type Rejection = Response;
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Response> {
        match Bearer::of(parts, app).await? {
            (Bearer::Agent(node), Standing::GoesOn | Standing::Stops) => Ok(Self(node)),
            (Bearer::Agent(node), Standing::Reported | Standing::Over) => Err(over(node)),
            (Bearer::Step(_), _) => Err(not_for("step's")),
        }
    }
}

impl FromRequestParts<App> for Reporter {
    type Rejection = Response;
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Response> {
        match Bearer::of(parts, app).await? {
            (Bearer::Agent(node), Standing::GoesOn | Standing::Stops | Standing::Reported) => Ok(Self(node)),
            (Bearer::Agent(node), Standing::Over) => Err(over(node)),
            (Bearer::Step(_), _) => Err(not_for("step's")),
        }
    }
}

impl FromRequestParts<App> for Step {
    type Rejection = Response;
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Response> {
        match Bearer::of(parts, app).await? {
            (Bearer::Step(node), Standing::GoesOn) => Ok(Self(node)),
            (Bearer::Step(node), Standing::Stops | Standing::Reported | Standing::Over) => Err(over(node)),
            (Bearer::Agent(_), _) => Err(not_for("agent's")),
        }
    }
}

/// The project to whose repository a push comes, while git takes it.
pub(super) struct Pushed(pub ProjectName);

impl FromRequestParts<App> for Pushed {
    type Rejection = Response;
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Response> {
        let refused = || {
            (
                StatusCode::UNAUTHORIZED,
                "this is not the token of a push that git takes",
            )
                .into_response()
        };
        match presented(&parts.headers).and_then(|token| app.identity.grant(&token)) {
            Some(Grant::Hook { project, push }) if app.pushes.is_under_way(push) => {
                project.parse().map(Self).map_err(|_| refused())
            }
            _ => Err(refused()),
        }
    }
}

/// Tells the agent itself. A job that is over is `410`: the agent stops. When something below us fails, it is 5xx: the agent
/// asks again, and again while a disk is full: what it reports must not get lost.
pub(super) fn to_agent(error: DeliveryError) -> Response {
    answer::log(&error);
    let status = match error.kind() {
        ErrorKind::NotFound => StatusCode::GONE,
        _ if error.is_of_full_disk() => StatusCode::SERVICE_UNAVAILABLE,
        _ => answer::status(&error),
    };
    (status, error.to_string()).into_response()
}

/// Tells the step: a sentence for its log. A full disk is `507`: it fails the step that meets it, with that reason.
pub(super) fn to_step(error: DeliveryError) -> Response {
    answer::log(&error);
    let status = match error.kind() {
        ErrorKind::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
        _ => answer::status(&error),
    };
    let text = match error.is_of_full_disk() {
        // Which disk it is.
        true => error.chain(),
        false => error.to_string(),
    };
    (status, text).into_response()
}
