//! Authenticates requests on the agents' socket, and answers their errors.

use crate::{App, answer};
use axum::{
    extract::FromRequestParts,
    http::{StatusCode, request::Parts},
    response::{IntoResponse, Response},
};
use towpath_control::{Grant, Standing, presented};
use towpath_delivery::{DeliveryError, ErrorKind};
use towpath_types::{NodeId, ProjectName};

/// The running node whose agent sent the request.
pub(super) struct Speaker(pub NodeId);

/// The node whose agent reports. The agent may repeat its last report after the server took it.
pub(super) struct Reporter(pub NodeId);

/// The node whose step asks for something, while its job runs.
pub(super) struct Step(pub NodeId);

/// The node or push that a request's token belongs to.
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

/// The project that receives a push, while git processes it.
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

/// Answers the agent itself. `410` means that the job is over, and the agent stops. A 5xx means that something below the server
/// failed. The agent then repeats the request, even for a full disk, because its reports must not get lost.
pub(super) fn to_agent(error: DeliveryError) -> Response {
    answer::log(&error);
    let status = match error.kind() {
        ErrorKind::NotFound => StatusCode::GONE,
        _ if error.is_of_full_disk() => StatusCode::SERVICE_UNAVAILABLE,
        _ => answer::status(&error),
    };
    (status, error.to_string()).into_response()
}

/// Answers a step with a sentence for its log. A full disk is `507`, which fails the step with that reason.
pub(super) fn to_step(error: DeliveryError) -> Response {
    answer::log(&error);
    let status = match error.kind() {
        ErrorKind::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
        _ => answer::status(&error),
    };
    let text = match error.is_of_full_disk() {
        // The causes say which disk is full.
        true => error.chain(),
        false => error.to_string(),
    };
    (status, text).into_response()
}
