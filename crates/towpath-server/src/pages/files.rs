//! Logs and artifacts, as they are stored.

use super::problem::Problem;
use crate::App;
use axum::{
    Router,
    body::Body,
    extract::{Path, Query, State},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio_util::io::ReaderStream;
use towpath_types::JobId;

/// The most bytes of a log in one answer.
const PIECE_BYTES: u64 = 1 << 20;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/logs/{job}/{node}/{step}", get(log))
        .route("/artifacts/{job}/{node}/{*path}", get(artifact))
}

#[derive(serde::Deserialize)]
struct Start {
    /// The first byte of the log to return.
    #[serde(default)]
    from: u64,
}

/// A piece of a log, as plain text.
async fn log(
    State(app): State<App>,
    Path((job, node, step)): Path<(JobId, u32, u32)>,
    Query(Start { from }): Query<Start>,
) -> Result<Response, Problem> {
    let bytes = app.queries.step_log(job, node, step, from, PIECE_BYTES).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], bytes).into_response())
}

async fn artifact(
    State(app): State<App>,
    Path((job, node, path)): Path<(JobId, u32, String)>,
) -> Result<Response, Problem> {
    let file = app.queries.artifact(job, node, &path).await?;
    // A job's files are not our pages: make the browser download them, so that it never runs them with our cookies.
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        ),
        (header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment")),
    ];
    Ok((headers, Body::from_stream(ReaderStream::new(file))).into_response())
}
