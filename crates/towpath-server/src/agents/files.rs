//! What steps keep and pass on: caches, the workspace, artifacts, test results.

use super::speaker::{Speaker, Step, to_agent, to_step};
use crate::App;
use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path, Query, State},
    http::{HeaderValue, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, put},
};
use futures::TryStreamExt;
use std::io;
use tokio_util::io::{ReaderStream, StreamReader};
use towpath_protocol::{CACHE_KEY_HEADER, route};
use towpath_store::BlobReader;
use towpath_types::percent_encoded;

/// How many bytes of an archive to read at once.
const PIECE_BYTES: usize = 128 << 10;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route(route::CACHES, get(cache).head(cache_exists).put(save_cache))
        .route(route::WORKSPACE, get(workspace))
        .route(route::WORKSPACE_LAYER, get(workspace_layer).put(persist))
        .route(route::ARTIFACTS, put(artifact))
        .route(route::TEST_RESULTS, put(test_results))
        .route(route::TEST_TIMINGS, get(test_timings))
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

fn archive(reader: BlobReader) -> Body {
    Body::from_stream(ReaderStream::with_capacity(reader, PIECE_BYTES))
}

fn reader(body: Body) -> BlobReader {
    Box::pin(StreamReader::new(body.into_data_stream().map_err(io::Error::other)))
}

async fn cache_exists(
    State(app): State<App>,
    Speaker(node): Speaker,
    Query(Key { key }): Query<Key>,
) -> Result<StatusCode, Response> {
    let exists = app.agents.cache_exists(node, &key).await.map_err(to_agent)?;
    Ok(if exists { StatusCode::OK } else { StatusCode::NOT_FOUND })
}

async fn cache(
    State(app): State<App>,
    Speaker(node): Speaker,
    Query(Prefix { prefix }): Query<Prefix>,
) -> Result<Response, Response> {
    let Some((key, found)) = app.agents.cache(node, &prefix).await.map_err(to_step)? else {
        return Ok(StatusCode::NOT_FOUND.into_response());
    };
    let key = HeaderValue::from_str(&percent_encoded(&key)).unwrap_or(HeaderValue::from_static(""));
    Ok(([(CACHE_KEY_HEADER, key)], archive(found)).into_response())
}

async fn save_cache(
    State(app): State<App>,
    Speaker(node): Speaker,
    Query(Key { key }): Query<Key>,
    body: Body,
) -> Result<StatusCode, Response> {
    let saved = app.agents.save_cache(node, &key, reader(body)).await.map_err(to_step)?;
    Ok(if saved { StatusCode::CREATED } else { StatusCode::OK })
}

async fn workspace(State(app): State<App>, Speaker(node): Speaker) -> Result<Response, Response> {
    Ok(Json(app.agents.workspace(node).await.map_err(to_step)?).into_response())
}

async fn workspace_layer(
    State(app): State<App>,
    Speaker(node): Speaker,
    Path(id): Path<String>,
) -> Result<Response, Response> {
    let layer = app.agents.workspace_layer(node, &id).await.map_err(to_step)?;
    Ok(archive(layer).into_response())
}

async fn persist(
    State(app): State<App>,
    Speaker(node): Speaker,
    Path(step): Path<u32>,
    body: Body,
) -> Result<StatusCode, Response> {
    app.agents.persist(node, step, reader(body)).await.map_err(to_step)?;
    Ok(StatusCode::CREATED)
}

async fn artifact(
    State(app): State<App>,
    Speaker(node): Speaker,
    Query(FilePath { path }): Query<FilePath>,
    body: Body,
) -> Result<StatusCode, Response> {
    app.agents.artifact(node, &path, reader(body)).await.map_err(to_step)?;
    Ok(StatusCode::CREATED)
}

async fn test_results(
    State(app): State<App>,
    Speaker(node): Speaker,
    Query(FilePath { path }): Query<FilePath>,
    xml: Bytes,
) -> Result<Response, Response> {
    let notes = app.agents.test_results(node, &path, &xml).await.map_err(to_step)?;
    Ok((StatusCode::CREATED, notes.join("\n")).into_response())
}

async fn test_timings(State(app): State<App>, Step(node): Step) -> Result<Response, Response> {
    Ok(match app.agents.test_timings(node).await.map_err(to_step)? {
        Some(timings) => Json(timings).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    })
}
