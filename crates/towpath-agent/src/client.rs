//! Requests to the server over its unix socket.
//!
//! Each request has a connection of its own. On a unix socket that costs next to nothing, and no connection outlives a restart
//! of the server.

use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use http_body_util::{BodyExt, Full, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Frame, Incoming},
    header,
};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::{fmt::Write, future::Future, io, path::PathBuf, sync::Arc, time::Duration};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;
use towpath_protocol::LONG_POLL;
use towpath_types::SecretString;

/// The body of a request.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// How long the server may take to answer before it counts as away.
const ANSWER: Duration = Duration::from_secs(60);
/// Like [`ANSWER`], for a long poll.
const POLL_ANSWER: Duration = Duration::from_secs(LONG_POLL.as_secs() + 10);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// The most bytes of a JSON answer.
const JSON_BYTES: usize = 64 << 20;
/// The most bytes of a refusal's text.
const REFUSAL_BYTES: usize = 4 << 10;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The server is away or in trouble. The same request may succeed later.
    #[error("the server does not answer: {0}")]
    Away(String),
    /// The job is over, or the server does not accept the token.
    #[error("the server no longer knows this job")]
    Gone,
    /// The server refuses the request, and would refuse it again.
    #[error("the server refused the request ({status}): {message}")]
    Refused { status: StatusCode, message: String },
}

/// The server, as one job sees it. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    socket: PathBuf,
    token: SecretString,
    gone: CancellationToken,
}

impl Client {
    pub(crate) fn new(socket: PathBuf, token: SecretString) -> Self {
        Self(Arc::new(Inner {
            socket,
            token,
            gone: CancellationToken::new(),
        }))
    }

    /// Cancelled once the server has said that the job is over.
    pub(crate) fn gone(&self) -> &CancellationToken {
        &self.0.gone
    }

    /// Sends one request. Returns answers of 2xx, 404 and 409; anything else is an error.
    async fn ask_once(
        &self,
        method: Method,
        path: &str,
        body: Body,
        limit: Option<Duration>,
    ) -> Result<Response<Incoming>, ClientError> {
        let away = |what: &str, error: &dyn std::error::Error| ClientError::Away(format!("{what}: {error}"));
        let exchange = async {
            let stream = UnixStream::connect(&self.0.socket)
                .await
                .map_err(|e| away("failed to connect to its socket", &e))?;
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|e| away("failed to open a connection", &e))?;
            tokio::spawn(connection);
            let request = Request::builder()
                .method(method)
                .uri(path)
                .header(header::HOST, "agent")
                .header(header::AUTHORIZATION, format!("Bearer {}", self.0.token.expose()))
                .body(body)
                .map_err(|e| ClientError::Refused {
                    status: StatusCode::BAD_REQUEST,
                    message: e.to_string(),
                })?;
            sender
                .send_request(request)
                .await
                .map_err(|e| away("the connection broke", &e))
        };
        let response = match limit {
            Some(limit) => tokio::time::timeout(limit, exchange)
                .await
                .map_err(|_| ClientError::Away(format!("no answer in {} s", limit.as_secs())))??,
            None => exchange.await?,
        };
        match response.status() {
            status if status.is_success() || status == StatusCode::NOT_FOUND || status == StatusCode::CONFLICT => {
                Ok(response)
            }
            StatusCode::GONE | StatusCode::UNAUTHORIZED => {
                self.0.gone.cancel();
                Err(ClientError::Gone)
            }
            status if status.is_server_error() && status != StatusCode::INSUFFICIENT_STORAGE => {
                Err(ClientError::Away(format!("it answered {status}")))
            }
            status => {
                let message = Limited::new(response.into_body(), REFUSAL_BYTES).collect().await;
                let message = message.map(http_body_util::Collected::to_bytes).unwrap_or_default();
                Err(ClientError::Refused {
                    status,
                    message: String::from_utf8_lossy(&message).trim().to_string(),
                })
            }
        }
    }

    /// Repeats `attempt` while the server is away. `attempt` has to be safe to repeat.
    pub(crate) async fn persist<T, F>(&self, mut attempt: impl FnMut() -> F) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let mut pause = FIRST_PAUSE;
        loop {
            match attempt().await {
                Err(ClientError::Away(_)) => {
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = self.0.gone.cancelled() => return Err(ClientError::Gone),
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                answer => return answer,
            }
        }
    }

    /// Gets a JSON answer; `None` for 202, 204 and 404.
    pub(crate) async fn get_json<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, ClientError> {
        self.persist(|| self.get_json_once(path)).await
    }

    async fn get_json_once<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, ClientError> {
        let response = self.ask_once(Method::GET, path, empty(), Some(POLL_ANSWER)).await?;
        match response.status() {
            StatusCode::OK => json(response).await.map(Some),
            _ => Ok(None),
        }
    }

    /// Posts `body` once. Returns the status and the JSON answer, if there is one.
    pub(crate) async fn post_once<T: DeserializeOwned>(
        &self,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Option<T>), ClientError> {
        let body = Full::new(body).map_err(|never| match never {}).boxed_unsync();
        let response = self.ask_once(Method::POST, path, body, Some(ANSWER)).await?;
        let status = response.status();
        match status {
            StatusCode::OK | StatusCode::CONFLICT => Ok((status, Some(json(response).await?))),
            _ => Ok((status, None)),
        }
    }

    /// Whether the server has something at `path`.
    pub(crate) async fn head(&self, path: &str) -> Result<bool, ClientError> {
        self.persist(|| async {
            let response = self.ask_once(Method::HEAD, path, empty(), Some(ANSWER)).await?;
            Ok(response.status().is_success())
        })
        .await
    }

    /// Gets the head of a long answer; `None` for 404. Has no time limit, because the server may need a while to prepare it.
    pub(crate) async fn get_stream_once(&self, path: &str) -> Result<Option<Response<Incoming>>, ClientError> {
        let response = self.ask_once(Method::GET, path, empty(), None).await?;
        Ok((response.status() == StatusCode::OK).then_some(response))
    }

    /// Posts `body` once, and gets the head of an answer that may come while the body is still sent.
    pub(crate) async fn post_stream_once(&self, path: &str, body: Body) -> Result<Response<Incoming>, ClientError> {
        self.ask_once(Method::POST, path, body, None).await
    }

    /// Puts `body` once. Returns the lines that the server answers.
    pub(crate) async fn put_and_hear_once(&self, path: &str, body: Body) -> Result<Vec<String>, ClientError> {
        let response = self.ask_once(Method::PUT, path, body, None).await?;
        let said = Limited::new(response.into_body(), REFUSAL_BYTES).collect().await;
        let said = said.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        Ok(said
            .lines()
            .map(str::to_string)
            .filter(|line| !line.is_empty())
            .collect())
    }

    /// Puts `body` once.
    pub(crate) async fn put_once(&self, path: &str, body: Body) -> Result<StatusCode, ClientError> {
        Ok(self.ask_once(Method::PUT, path, body, None).await?.status())
    }
}

async fn json<T: DeserializeOwned>(response: Response<Incoming>) -> Result<T, ClientError> {
    let bytes = Limited::new(response.into_body(), JSON_BYTES)
        .collect()
        .await
        .map_err(|error| ClientError::Away(format!("the answer broke off: {error}")))?
        .to_bytes();
    serde_json::from_slice(&bytes).map_err(|error| ClientError::Refused {
        status: StatusCode::OK,
        message: format!("this agent cannot read the answer: {error}"),
    })
}

pub(crate) fn empty() -> Body {
    Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync()
}

/// A body made of pieces. An error in the stream aborts the request, so that the server does not mistake half a body for the
/// whole one.
pub(crate) fn streamed(pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Body {
    StreamBody::new(pieces.map_ok(Frame::data)).boxed_unsync()
}

/// Encodes `text` as the value of a query parameter.
pub(crate) fn query_value(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// Decodes percent-encoding. Malformed escapes stay as they are.
pub(crate) fn percent_decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match digits.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(byte) if *first == b'%' => {
                out.push(byte);
                rest = &after[2..];
            }
            _ => {
                out.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_value_comes_back_as_it_was() {
        for text in ["", "a b&c=d?e#f%", "v1-ünï/~x", "100%"] {
            let encoded = query_value(text);
            assert!(
                encoded.is_ascii() && !encoded.contains([' ', '&', '#', '?']),
                "{encoded}"
            );
            assert_eq!(percent_decoded(&encoded), text);
        }
        assert_eq!(percent_decoded("100%, %zz"), "100%, %zz");
    }
}
