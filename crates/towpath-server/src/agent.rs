//! The agents' socket: `towpath_protocol`, git's hook, and a step's `towpath deploy`.

use crate::{App, answer, answer::Failure};
use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, FromRequestParts, Path, Query, State},
    http::{HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use futures::TryStreamExt;
use std::{io, time::Duration};
use tokio_util::io::{ReaderStream, StreamReader};
use towpath_control::{ControlError, ErrorKind, Grant, LogAnswer, presented};
use towpath_forge::{ProjectName, RefUpdate};
use towpath_protocol::{Acknowledged, CACHE_KEY_HEADER, SequencedReport, route};
use towpath_types::JobId;

/// The largest piece of a log, a report, or a file of test results.
const LARGEST_BODY: usize = 64 << 20;

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route(route::JOB, get(job))
        .route(route::LOGS, post(log))
        .route(route::REPORTS, post(report))
        .route(route::ORDERS, get(orders))
        .route(route::SOURCE, get(source))
        .route(route::CACHES, get(cache).head(cache_exists).put(save_cache))
        .route(route::WORKSPACE, get(workspace))
        .route(route::WORKSPACE_LAYER, get(workspace_layer).put(persist))
        .route(route::ARTIFACTS, put(artifact))
        .route(route::TEST_RESULTS, put(test_results))
        .route(route::TEST_TIMINGS, get(test_timings))
        .route("/agent/v1/deploy", post(deploy))
        .route("/agent/v1/progress/{id}", get(progress))
        .route("/hook/post-receive", post(pushed))
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
}

/// The job and node that a request speaks for.
struct Speaker {
    job: JobId,
    node: u32,
}

impl FromRequestParts<App> for Speaker {
    type Rejection = Response;
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Response> {
        match presented(&parts.headers).and_then(|token| app.tokens().check(&token)) {
            Some(Grant::Job { job, node }) => Ok(Self { job, node }),
            _ => Err((StatusCode::UNAUTHORIZED, "this is not the token of a job").into_response()),
        }
    }
}

/// What an agent is told: a job that is over is `410`, and it stops; anything below us that fails is `503`, and it asks
/// again.
fn told(error: ControlError) -> Response {
    answer::log(&error);
    let status = match error.kind() {
        ErrorKind::NotFound => StatusCode::GONE,
        _ => answer::status(&error),
    };
    (status, error.to_string()).into_response()
}

/// What a step is told: a sentence for its log.
fn refused(error: ControlError) -> Response {
    answer::log(&error);
    let status = match error.kind() {
        ErrorKind::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
        _ => answer::status(&error),
    };
    (status, error.to_string()).into_response()
}

async fn job(State(app): State<App>, speaker: Speaker) -> Result<Response, Response> {
    Ok(match app.agent_job(speaker.job, speaker.node).await.map_err(told)? {
        Some(spec) => Json(spec).into_response(),
        None => StatusCode::ACCEPTED.into_response(),
    })
}

#[derive(serde::Deserialize)]
struct Offset {
    offset: u64,
}

async fn log(
    State(app): State<App>,
    speaker: Speaker,
    Path(step): Path<u32>,
    Query(Offset { offset }): Query<Offset>,
    bytes: Bytes,
) -> Result<Response, Response> {
    Ok(
        match app
            .agent_log(speaker.job, speaker.node, step, offset, &bytes)
            .await
            .map_err(told)?
        {
            LogAnswer::Acknowledged(acknowledged) => Json(Acknowledged { acknowledged }).into_response(),
            LogAnswer::Gap(acknowledged) => (StatusCode::CONFLICT, Json(Acknowledged { acknowledged })).into_response(),
        },
    )
}

async fn report(State(app): State<App>, speaker: Speaker, body: Bytes) -> Result<StatusCode, Response> {
    let report: SequencedReport = serde_json::from_slice(&body)
        .map_err(|error| (StatusCode::UNPROCESSABLE_ENTITY, error.to_string()).into_response())?;
    app.agent_report(speaker.job, speaker.node, report)
        .await
        .map_err(told)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn orders(State(app): State<App>, speaker: Speaker) -> Result<Response, Response> {
    Ok(Json(app.agent_orders(speaker.job).await.map_err(told)?).into_response())
}

async fn source(State(app): State<App>, speaker: Speaker) -> Result<Response, Response> {
    Ok(Body::from_stream(app.agent_source(speaker.job).await.map_err(refused)?).into_response())
}

#[derive(serde::Deserialize)]
struct Key {
    key: String,
}

#[derive(serde::Deserialize)]
struct Prefix {
    prefix: String,
}

#[derive(serde::Deserialize)]
struct FilePath {
    path: String,
}

async fn cache_exists(
    State(app): State<App>,
    speaker: Speaker,
    Query(Key { key }): Query<Key>,
) -> Result<StatusCode, Response> {
    let exists = app.agent_cache_exists(speaker.job, &key).await.map_err(told)?;
    Ok(if exists { StatusCode::OK } else { StatusCode::NOT_FOUND })
}

async fn cache(
    State(app): State<App>,
    speaker: Speaker,
    Query(Prefix { prefix }): Query<Prefix>,
) -> Result<Response, Response> {
    let Some((key, archive)) = app.agent_cache(speaker.job, &prefix).await.map_err(refused)? else {
        return Ok(StatusCode::NOT_FOUND.into_response());
    };
    let key = HeaderValue::from_str(&percent_encoded(&key)).unwrap_or(HeaderValue::from_static(""));
    Ok((
        [(CACHE_KEY_HEADER, key)],
        Body::from_stream(ReaderStream::with_capacity(archive, 128 << 10)),
    )
        .into_response())
}

fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|b| {
            if b.is_ascii_alphanumeric() || b"-_.~".contains(&b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}

fn reader(body: Body) -> impl tokio::io::AsyncRead + Send + Unpin {
    StreamReader::new(Box::pin(body.into_data_stream().map_err(io::Error::other)))
}

async fn save_cache(
    State(app): State<App>,
    speaker: Speaker,
    Query(Key { key }): Query<Key>,
    body: Body,
) -> Result<StatusCode, Response> {
    let saved = app
        .agent_save_cache(speaker.job, &key, reader(body))
        .await
        .map_err(refused)?;
    Ok(if saved { StatusCode::CREATED } else { StatusCode::OK })
}

async fn workspace(State(app): State<App>, speaker: Speaker) -> Result<Response, Response> {
    Ok(Json(app.agent_workspace(speaker.job).await.map_err(refused)?).into_response())
}

async fn workspace_layer(
    State(app): State<App>,
    speaker: Speaker,
    Path(id): Path<String>,
) -> Result<Response, Response> {
    match app.agent_workspace_layer(speaker.job, &id).await {
        Ok(layer) => Ok(Body::from_stream(ReaderStream::with_capacity(layer, 128 << 10)).into_response()),
        Err(error) => Err(refused(error)),
    }
}

async fn persist(
    State(app): State<App>,
    speaker: Speaker,
    Path(step): Path<u32>,
    body: Body,
) -> Result<StatusCode, Response> {
    app.agent_persist(speaker.job, speaker.node, step, reader(body))
        .await
        .map_err(refused)?;
    Ok(StatusCode::CREATED)
}

async fn artifact(
    State(app): State<App>,
    speaker: Speaker,
    Query(FilePath { path }): Query<FilePath>,
    body: Body,
) -> Result<StatusCode, Response> {
    app.agent_artifact(speaker.job, speaker.node, &path, reader(body))
        .await
        .map_err(refused)?;
    Ok(StatusCode::CREATED)
}

async fn test_results(
    State(app): State<App>,
    speaker: Speaker,
    Query(FilePath { path }): Query<FilePath>,
    xml: Bytes,
) -> Result<StatusCode, Response> {
    app.agent_test_results(speaker.job, speaker.node, &path, &xml)
        .await
        .map_err(refused)?;
    Ok(StatusCode::CREATED)
}

async fn test_timings(State(app): State<App>, speaker: Speaker) -> Result<Response, Response> {
    Ok(match app.agent_test_timings(speaker.job).await.map_err(refused)? {
        Some(timings) => Json(timings).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    })
}

#[derive(serde::Deserialize)]
struct Deploy {
    environment: String,
}

async fn deploy(
    State(app): State<App>,
    speaker: Speaker,
    Json(Deploy { environment }): Json<Deploy>,
) -> Result<Response, Failure> {
    let id = app.agent_deploy(speaker.job, &environment).await?;
    Ok(Json(serde_json::json!({ "id": id })).into_response())
}

#[derive(serde::Deserialize)]
struct Start {
    from: Option<usize>,
}

async fn progress(
    State(app): State<App>,
    _: Speaker,
    Path(id): Path<String>,
    Query(Start { from }): Query<Start>,
) -> Result<Response, Failure> {
    Ok(Json(app.progress(&id, from.unwrap_or(0)).await?).into_response())
}

/// How long the pusher waits for the pipeline's address.
const HOOK_PATIENCE: Duration = Duration::from_secs(60);

async fn pushed(State(app): State<App>, headers: header::HeaderMap, lines: String) -> Result<String, Response> {
    let grant = presented(&headers).and_then(|token| app.tokens().check(&token));
    let Some(Grant::Hook { project }) = grant else {
        return Err((StatusCode::UNAUTHORIZED, "this is not the token of a hook").into_response());
    };
    let name: ProjectName = project.parse().map_err(|_| StatusCode::NOT_FOUND.into_response())?;
    let updates: Vec<RefUpdate> = lines.lines().filter_map(RefUpdate::parse).collect();
    // The hook's first line says who pushed; git's own lines follow.
    let by = lines
        .lines()
        .find_map(|line| line.strip_prefix("by "))
        .unwrap_or("git push")
        .to_string();
    let work = tokio::time::timeout(HOOK_PATIENCE, app.pushed(&name, updates, &by));
    match work.await {
        Ok(Ok(lines)) => Ok(lines.iter().map(|line| format!("{line}\n")).collect()),
        Ok(Err(error)) => Err(Failure(error).into_response()),
        Err(_) => Ok("Towpath took the push; its pipeline is still being made.\n".into()),
    }
}
