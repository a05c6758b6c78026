//! Passes git's requests to git.
//!
//! Source: <https://git-scm.com/docs/http-protocol>

use crate::{App, answer, auth::Caller};
use axum::{
    Extension, Router,
    body::Body,
    extract::{Path, Query, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures::{StreamExt, TryStreamExt};
use std::io::{self, Read};
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;
use towpath_control::{Grant, Push};
use towpath_delivery::DeliveryError;
use towpath_forge::{ForgeError, Service};
use towpath_types::ProjectName;

/// The largest compressed request, which also limits what it may unpack to. Git compresses only lists of what a client has,
/// never a pack. This is a list of half a million commits.
const LARGEST_COMPRESSED: usize = 8 << 20;
const LARGEST_UNPACKED: usize = 32 << 20;

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/git/{repository}/info/refs", get(advertise))
        .route("/git/{repository}/{service}", post(exchange))
}

#[derive(serde::Deserialize)]
struct Asked {
    service: Option<String>,
}

fn project(repository: &str) -> Option<ProjectName> {
    repository.strip_suffix(".git").unwrap_or(repository).parse().ok()
}

fn no_project() -> Response {
    refused(
        StatusCode::NOT_FOUND,
        "no project can have this name: `towpath init` says which",
    )
}

/// Git shows a plain text to the person who ran it.
fn refused(status: StatusCode, text: &str) -> Response {
    (
        status,
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
        format!("{text}\n"),
    )
        .into_response()
}

fn forge_failure(error: ForgeError) -> Response {
    match error {
        ForgeError::UnknownProject(_) | ForgeError::NotFound { .. } => {
            refused(StatusCode::NOT_FOUND, &error.to_string())
        }
        other => {
            answer::log(&DeliveryError::internal("git failed").caused_by(other));
            refused(
                StatusCode::INTERNAL_SERVER_ERROR,
                "git failed on the server; its log says why",
            )
        }
    }
}

fn protocol(headers: &HeaderMap) -> Option<&str> {
    headers.get("git-protocol").and_then(|value| value.to_str().ok())
}

fn uncached(content_type: String) -> [(header::HeaderName, HeaderValue); 2] {
    let content_type =
        HeaderValue::from_str(&content_type).unwrap_or(HeaderValue::from_static("application/octet-stream"));
    [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ]
}

async fn advertise(
    State(app): State<App>,
    Path(repository): Path<String>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Result<Response, Response> {
    let project = project(&repository).ok_or_else(no_project)?;
    let service = asked.service.as_deref().and_then(Service::from_name);
    let service =
        service.ok_or_else(|| refused(StatusCode::FORBIDDEN, "this server speaks git's smart protocol only"))?;
    let text = app
        .git
        .advertise(&project, service, protocol(&headers))
        .await
        .map_err(forge_failure)?;
    Ok((
        uncached(format!("application/x-{}-advertisement", service.name())),
        text,
    )
        .into_response())
}

async fn exchange(
    State(app): State<App>,
    Path((repository, service)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Response> {
    let project = project(&repository).ok_or_else(no_project)?;
    let service =
        Service::from_name(&service).ok_or_else(|| refused(StatusCode::NOT_FOUND, "git has no such service"))?;
    let headers = request.headers().clone();
    let body = body(&headers, request.into_body()).await?;
    // The hooks' token is valid while git runs: the answer holds it.
    let push = app.pushes.begin();
    let environment = match service {
        Service::ReceivePack => hook_environment(&app, &project, &push, caller.name),
        Service::UploadPack => Vec::new(),
    };
    let answer = app
        .git
        .exchange(&project, service, protocol(&headers), &environment, body)
        .await
        .map_err(forge_failure)?;
    Ok((
        uncached(format!("application/x-{}-result", service.name())),
        Body::from_stream(answer.inspect(move |_| {
            let _ = &push;
        })),
    )
        .into_response())
}

/// What git's hooks need to report a push.
fn hook_environment(app: &App, project: &ProjectName, push: &Push, by: String) -> Vec<(&'static str, String)> {
    let token = app.identity.issue(&Grant::Hook {
        project: project.to_string(),
        push: push.id(),
    });
    vec![
        ("TOWPATH_HOOK_SOCKET", app.agent_socket.to_string_lossy().into_owned()),
        ("TOWPATH_HOOK_TOKEN", token.expose().to_string()),
        ("TOWPATH_PUSHED_BY", by),
    ]
}

async fn body(headers: &HeaderMap, body: Body) -> Result<Box<dyn AsyncRead + Unpin + Send>, Response> {
    let encoding = headers
        .get(header::CONTENT_ENCODING)
        .and_then(|value| value.to_str().ok());
    if !matches!(encoding, Some("gzip" | "x-gzip")) {
        let stream = body.into_data_stream().map_err(io::Error::other);
        return Ok(Box::new(StreamReader::new(Box::pin(stream))));
    }
    let unreadable = |_| refused(StatusCode::BAD_REQUEST, "the request's body broke off, or is too large");
    let bytes = axum::body::to_bytes(body, LARGEST_COMPRESSED)
        .await
        .map_err(unreadable)?;
    let plain = tokio::task::spawn_blocking(move || unpacked(&bytes).map_err(Box::new))
        .await
        .map_err(|_| refused(StatusCode::INTERNAL_SERVER_ERROR, "unpacking the request ended early"))?
        .map_err(|refusal| *refusal)?;
    Ok(Box::new(io::Cursor::new(plain)))
}

#[allow(clippy::result_large_err)]
fn unpacked(bytes: &[u8]) -> Result<Vec<u8>, Response> {
    let mut plain = Vec::new();
    let mut decoder = flate2::read::GzDecoder::new(bytes).take(LARGEST_UNPACKED as u64 + 1);
    decoder
        .read_to_end(&mut plain)
        .map_err(|_| refused(StatusCode::BAD_REQUEST, "the request's body is not gzip"))?;
    if plain.len() > LARGEST_UNPACKED {
        let text = format!("the request's body unpacks to more than {} MiB", LARGEST_UNPACKED >> 20);
        return Err(refused(StatusCode::PAYLOAD_TOO_LARGE, &text));
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;

    #[test]
    fn a_body_that_unpacks_to_too_much_is_refused_and_not_cut_off() {
        let pack = |bytes: usize| {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            for _ in 0..bytes >> 20 {
                encoder.write_all(&vec![0; 1 << 20]).unwrap();
            }
            encoder.finish().unwrap()
        };
        assert_eq!(unpacked(&pack(LARGEST_UNPACKED)).unwrap().len(), LARGEST_UNPACKED);
        let bomb = unpacked(&pack(LARGEST_UNPACKED + (1 << 20))).unwrap_err();
        assert_eq!(bomb.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(unpacked(b"no gzip").unwrap_err().status(), StatusCode::BAD_REQUEST);
    }
}
