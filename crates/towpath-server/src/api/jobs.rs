//! Jobs and their logs.

use crate::{
    App,
    answer::{Failure, id, project},
};
use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};
use towpath_control::JobDetail;
use towpath_delivery::DeliveryError;
use towpath_types::JobId;

/// The most bytes of a log in one answer.
const PIECE_BYTES: u64 = 1 << 20;

pub(super) fn routes() -> Router<App> {
    Router::new().route("/api/towpath/jobs/{first}/{second}", get(job_or_log))
}

#[derive(serde::Deserialize)]
struct LogPart {
    #[serde(default)]
    node: u32,
    #[serde(default)]
    step: u32,
    /// The first byte of the log to return.
    #[serde(default)]
    from: u64,
}

/// `jobs/<project>/<number>`, and `jobs/<job id>/log`.
async fn job_or_log(
    State(app): State<App>,
    Path((first, second)): Path<(String, String)>,
    Query(LogPart { node, step, from }): Query<LogPart>,
) -> Result<Response, Failure> {
    if second == "log" {
        let job: JobId = id(&first, "job")?;
        let bytes = app.queries.step_log(job, node, step, from, PIECE_BYTES).await?;
        return Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], bytes).into_response());
    }
    let number: i64 = second
        .parse()
        .map_err(|_| DeliveryError::invalid(format!("`{}` is not a job's number", second.escape_debug())))?;
    let detail: JobDetail = app.queries.job(&project(&first)?, number).await?;
    Ok(Json(detail).into_response())
}
