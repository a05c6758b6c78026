//! `git fetch` in a job's step. The step's git speaks through the agent's socket, and it may only read.

use super::speaker::Step;
use crate::App;
use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use futures::TryStreamExt;
use std::io;
use tokio_util::io::StreamReader;
use towpath_forge::ForgeError;
use towpath_protocol::route;
use towpath_types::ProjectName;

pub(super) fn routes() -> Router<App> {
    Router::new().route(route::GIT, post(fetch))
}

/// A job may read every repository of its server, because submodules live in other repositories.
async fn fetch(
    State(app): State<App>,
    Step(_): Step,
    Path(project): Path<ProjectName>,
    body: Body,
) -> Result<Response, Response> {
    let said = StreamReader::new(body.into_data_stream().map_err(io::Error::other));
    let answer = app.git.fetched(&project, Box::new(said)).await.map_err(refused)?;
    Ok(Body::from_stream(answer).into_response())
}

fn refused(error: ForgeError) -> Response {
    let status = match error {
        ForgeError::UnknownProject(_)
        | ForgeError::NotFound { .. }
        | ForgeError::TooLarge { .. }
        | ForgeError::Unread { .. } => StatusCode::UNPROCESSABLE_ENTITY,
        ForgeError::Git { .. } | ForgeError::Io { .. } => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, error.to_string()).into_response()
}
