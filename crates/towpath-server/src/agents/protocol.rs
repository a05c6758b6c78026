//! A job, its log, its reports, its orders, and the commit that it checks out.

use super::speaker::{Reporter, Speaker, to_agent, to_step};
use crate::App;
use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use towpath_control::LogAnswer;
use towpath_protocol::{Acknowledged, SequencedReport, route};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route(route::JOB, get(job))
        .route(route::LOGS, post(log))
        .route(route::REPORTS, post(report))
        .route(route::ORDERS, get(orders))
        .route(route::SOURCE, get(source))
}

async fn job(State(app): State<App>, Speaker(node): Speaker) -> Result<Response, Response> {
    Ok(match app.agents.job(node).await.map_err(to_agent)? {
        Some(spec) => Json(spec).into_response(),
        None => StatusCode::ACCEPTED.into_response(),
    })
}

#[derive(serde::Deserialize)]
struct Piece {
    offset: u64,
    #[serde(default)]
    last: bool,
}

async fn log(
    State(app): State<App>,
    Speaker(node): Speaker,
    Path(step): Path<u32>,
    Query(Piece { offset, last }): Query<Piece>,
    bytes: Bytes,
) -> Result<Response, Response> {
    let kept = app.agents.log(node, step, offset, &bytes, last).await;
    Ok(match kept.map_err(to_step)? {
        LogAnswer::Acknowledged(acknowledged) => Json(Acknowledged { acknowledged }).into_response(),
        LogAnswer::Gap(acknowledged) => (StatusCode::CONFLICT, Json(Acknowledged { acknowledged })).into_response(),
    })
}

async fn report(State(app): State<App>, Reporter(node): Reporter, body: Bytes) -> Result<StatusCode, Response> {
    let report: SequencedReport = serde_json::from_slice(&body)
        .map_err(|error| (StatusCode::UNPROCESSABLE_ENTITY, error.to_string()).into_response())?;
    app.agents.report(node, report).await.map_err(to_agent)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn orders(State(app): State<App>, Speaker(node): Speaker) -> Result<Response, Response> {
    Ok(Json(app.agents.orders(node).await.map_err(to_agent)?).into_response())
}

async fn source(State(app): State<App>, Speaker(node): Speaker) -> Result<Response, Response> {
    Ok(Body::from_stream(app.agents.source(node).await.map_err(to_step)?).into_response())
}
