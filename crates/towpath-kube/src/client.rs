//! Requests to an API server: with retries while they can help, and with errors that a person can act on.

use crate::{
    credentials::why_unavailable, error::ApiError, fields::text_at, json::to_yaml_safe_json,
    managed_fields::FIELD_MANAGER, resource::Resource,
};
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::Value;
use std::{
    fmt::Write as _,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};
use tokio_util::{
    codec::{FramedRead, LinesCodec},
    io::StreamReader,
};
use towpath_types::{percent_encoded, with_causes};

/// The form of answers.
const JSON: &str = "application/json";
/// The form of answers without the content of objects.
///
/// Source: <https://kubernetes.io/docs/reference/using-api/api-concepts/#metadata-only-fetches>
const METADATA: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
/// The maximum number of concurrent requests. API servers share their capacity between clients, so more is not faster.
const AT_ONCE: usize = 16;
/// The pause before the first retry. It doubles with each retry, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long to retry while the server has never answered.
const FIRST_CONTACT: Duration = Duration::from_secs(10);
/// How long to retry before the first warning.
const QUIET: Duration = Duration::from_secs(3);
/// The shortest time between two warnings about retries.
const BETWEEN_WARNINGS: Duration = Duration::from_secs(15);
/// The number of objects in one page of a list.
const PAGE: usize = 500;

/// How long requests may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// One attempt, from sending the request to the last byte of the answer.
    pub request: Duration,
    /// All attempts of one request together.
    pub retries: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            request: Duration::from_secs(30),
            retries: Duration::from_secs(45),
        }
    }
}

/// The answer to a request.
pub struct Answer {
    /// The body.
    pub value: Value,
    /// The texts of the `Warning` headers.
    pub warnings: Vec<String>,
}

/// Which objects of a collection to list or to watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Select {
    /// All of them.
    All,
    /// Those that match a label selector.
    Labels(String),
    /// The one with this name.
    Name(String),
}

impl Select {
    /// The parameter of a query, with the `&` before it.
    fn parameter(&self) -> String {
        match self {
            Self::All => String::new(),
            Self::Labels(selector) => format!("&labelSelector={}", percent_encoded(selector)),
            Self::Name(name) => format!("&fieldSelector={}", percent_encoded(&format!("metadata.name={name}"))),
        }
    }
}

/// A change in a watched collection.
pub enum WatchEvent {
    /// The object was created or changed. This is its new state.
    Set(Value),
    /// The object was deleted. This was its last state.
    Deleted(Value),
    /// Nothing that is selected has changed up to this version.
    Passed(String),
    /// The watch missed changes: list the collection again.
    Expired,
}

/// Whether applying an object changes anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The server returns the object as it would be, and changes nothing.
    DryRun,
    /// The server applies the object.
    Apply,
}

/// The client of one cluster. May be used by any number of tasks at once.
pub struct Client {
    http: kube::Client,
    kube_context: String,
    server: String,
    patience: Patience,
    permits: Semaphore,
    sent: AtomicU64,
    /// Whether the server has ever answered.
    answered: AtomicBool,
    /// When the last warning about retries was logged.
    warned: Mutex<Option<Instant>>,
}

impl Client {
    pub(crate) fn new(http: kube::Client, kube_context: String, server: String, patience: Patience) -> Self {
        Self {
            http,
            kube_context,
            server,
            patience,
            permits: Semaphore::new(AT_ONCE),
            sent: AtomicU64::new(0),
            answered: AtomicBool::new(false),
            warned: Mutex::new(None),
        }
    }

    /// The number of requests sent so far, retries included.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// The kube context whose cluster this is.
    #[must_use]
    pub fn kube_context(&self) -> &str {
        &self.kube_context
    }

    /// Sends a GET request.
    ///
    /// # Errors
    /// Also if there is nothing at `path`: see [`Client::find`].
    pub async fn get(&self, path: &str) -> Result<Value, ApiError> {
        self.send(Method::GET, path, None).await.map(|answer| answer.value)
    }

    /// The object at `path`; `None` if it does not exist.
    ///
    /// # Errors
    /// If the server gives no other answer.
    pub async fn find(&self, path: &str) -> Result<Option<Value>, ApiError> {
        match self.get(path).await {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All objects of a collection that are selected, and the resource version to start a watch from.
    ///
    /// # Errors
    /// If the server does not return the whole list.
    pub async fn list(&self, path: &str, select: &Select) -> Result<(Vec<Value>, String), ApiError> {
        self.list_as(JSON, path, select).await
    }

    /// The metadata of all objects of a collection that are selected, without their content: the values of Secrets stay where
    /// they are.
    ///
    /// # Errors
    /// If the server does not return the whole list.
    pub async fn list_metadata(&self, path: &str, select: &Select) -> Result<Vec<Value>, ApiError> {
        self.list_as(METADATA, path, select).await.map(|(objects, _)| objects)
    }

    async fn list_as(
        &self,
        accept: &'static str,
        path: &str,
        select: &Select,
    ) -> Result<(Vec<Value>, String), ApiError> {
        let (mut objects, mut continue_token) = (Vec::new(), String::new());
        let selector = select.parameter();
        loop {
            let mut page = format!("{path}?limit={PAGE}{selector}");
            if !continue_token.is_empty() {
                let _ = write!(page, "&continue={}", percent_encoded(&continue_token));
            }
            let answer = self.send_as(accept, Method::GET, &page, None).await;
            let mut value = match answer.map(|answer| answer.value) {
                // The next page expired: start again.
                Err(ApiError::Answered { code: 410, .. }) if !continue_token.is_empty() => {
                    (objects, continue_token) = (Vec::new(), String::new());
                    continue;
                }
                other => other?,
            };
            if let Some(Value::Array(items)) = value.get_mut("items").map(Value::take) {
                objects.extend(items);
            }
            let metadata = |field: &str| {
                let text = value.pointer(&format!("/metadata/{field}"));
                text.and_then(Value::as_str).unwrap_or_default().to_string()
            };
            continue_token = metadata("continue");
            if continue_token.is_empty() {
                return Ok((objects, metadata("resourceVersion")));
            }
        }
    }

    /// Streams the changes of a collection after `version`. The stream ends with its connection.
    ///
    /// # Errors
    /// If the server does not start the watch.
    pub async fn watch(
        &self,
        path: &str,
        select: &Select,
        version: &str,
    ) -> Result<impl Stream<Item = WatchEvent> + use<>, ApiError> {
        let path = format!(
            "{path}?watch=1&allowWatchBookmarks=true&timeoutSeconds=290&resourceVersion={}{}",
            percent_encoded(version),
            select.parameter()
        );
        let body = self.stream(&path).await?;
        let lines = FramedRead::new(StreamReader::new(body), LinesCodec::new());
        let events = lines.map(|line| {
            let mut event: Value = line
                .ok()
                .and_then(|line| serde_json::from_str(&line).ok())
                .unwrap_or_default();
            let object = event.get_mut("object").map(Value::take).unwrap_or_default();
            match event.get("type").and_then(Value::as_str) {
                Some("ADDED" | "MODIFIED") => WatchEvent::Set(object),
                Some("DELETED") => WatchEvent::Deleted(object),
                Some("BOOKMARK") => WatchEvent::Passed(text_at(&object, "/metadata/resourceVersion")),
                // An `ERROR` (410: the version is too old), a truncated line, or an unknown event.
                _ => WatchEvent::Expired,
            }
        });
        Ok(events.boxed())
    }

    /// Sends a GET request and streams the body of the answer.
    ///
    /// # Errors
    /// If the server does not start to answer. Later errors are in the stream.
    pub async fn stream(
        &self,
        path: &str,
    ) -> Result<impl Stream<Item = std::io::Result<Bytes>> + Send + Unpin + use<>, ApiError> {
        let began = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.stream_once(path).await {
                Ok(response) => {
                    let stream = response.into_body().into_data_stream();
                    return Ok(stream.map_err(std::io::Error::other).boxed());
                }
                Err(error) => error,
            };
            self.pause(path, error, began, &mut pause).await?;
        }
    }

    async fn stream_once(&self, path: &str) -> Result<http::Response<Body>, ApiError> {
        let request = Request::get(path)
            .body(Body::empty())
            .map_err(|error| self.malformed(error))?;
        self.sent.fetch_add(1, Ordering::Relaxed);
        let answer = timeout(self.patience.request, self.http.send(request)).await;
        let response = answer
            .map_err(|_| self.timed_out())?
            .map_err(|error| self.unreachable(&error))?;
        self.answered.store(true, Ordering::Relaxed);
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.error_of(response).await)
    }

    /// Applies `object` server-side as [`FIELD_MANAGER`]. `object` is everything that Towpath says about it. On conflicting
    /// fields, it overrules the other managers.
    ///
    /// # Errors
    /// If the server refuses the object or does not answer.
    ///
    /// Source: <https://kubernetes.io/docs/reference/using-api/server-side-apply/#conflicts>
    pub async fn apply(
        &self,
        resource: &Resource,
        namespace: &str,
        object: &Value,
        mode: Mode,
    ) -> Result<Answer, ApiError> {
        let name = object
            .pointer("/metadata/name")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let mut path = format!(
            "{}?fieldManager={FIELD_MANAGER}&force=true&fieldValidation=Strict",
            resource.object(namespace, name)
        );
        if mode == Mode::DryRun {
            path.push_str("&dryRun=All");
        }
        let began = Instant::now();
        loop {
            let body = Some(("application/apply-patch+yaml", object));
            match self.send(Method::PATCH, &path, body).await {
                // With `force`, fields never conflict: somebody else wrote at the same moment.
                Err(error) if error.is_conflict() && began.elapsed() < self.patience.retries => {
                    tokio::time::sleep(FIRST_PAUSE).await;
                }
                other => return other,
            }
        }
    }

    /// Creates `object` in the collection at `path`.
    ///
    /// # Errors
    /// A conflict if it exists. That may be because an earlier attempt arrived and its answer was lost.
    pub async fn create(&self, path: &str, object: &Value) -> Result<Value, ApiError> {
        let answer = self.send(Method::POST, path, Some(("application/json", object))).await;
        answer.map(|answer| answer.value)
    }

    /// Changes fields with a JSON merge patch (RFC 7386).
    ///
    /// # Errors
    /// A conflict if the patch has a `resourceVersion` and the object has another.
    pub async fn merge(&self, path: &str, patch: &Value) -> Result<Value, ApiError> {
        let body = Some(("application/merge-patch+json", patch));
        self.send(Method::PATCH, path, body).await.map(|answer| answer.value)
    }

    /// Changes fields with a JSON patch (RFC 6902).
    ///
    /// # Errors
    /// If the server refuses the patch or does not answer.
    pub async fn patch(&self, path: &str, patch: &Value) -> Result<Value, ApiError> {
        let body = Some(("application/json-patch+json", patch));
        self.send(Method::PATCH, path, body).await.map(|answer| answer.value)
    }

    /// Deletes the object at `path`, and in the background everything that it owns. It is no error if the object does not exist.
    ///
    /// # Errors
    /// A conflict if `uid` is given and the object has another: somebody has created it anew.
    pub async fn delete(&self, path: &str, uid: Option<&str>) -> Result<(), ApiError> {
        let mut options = serde_json::json!({
            "apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background",
        });
        if let Some(uid) = uid {
            options["preconditions"] = serde_json::json!({"uid": uid});
        }
        match self
            .send(Method::DELETE, path, Some(("application/json", &options)))
            .await
        {
            Ok(_) => Ok(()),
            Err(error) if error.is_missing() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Sends a request that is safe to send twice, with retries.
    async fn send(&self, method: Method, path: &str, body: Option<(&str, &Value)>) -> Result<Answer, ApiError> {
        self.send_as(JSON, method, path, body).await
    }

    async fn send_as(
        &self,
        accept: &'static str,
        method: Method,
        path: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<Answer, ApiError> {
        let began = Instant::now();
        let mut pause = FIRST_PAUSE;
        let body = body.map(|(content_type, value)| (content_type, to_yaml_safe_json(value)));
        loop {
            match self.send_once(accept, &method, path, body.as_ref()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => self.pause(path, error, began, &mut pause).await?,
            }
        }
    }

    /// Waits before the next attempt. Returns `error` if there should be none.
    async fn pause(&self, path: &str, error: ApiError, began: Instant, pause: &mut Duration) -> Result<(), ApiError> {
        if !error.is_transient() {
            return Err(error);
        }
        let wait = match &error {
            ApiError::Answered {
                retry_after: Some(wait),
                ..
            } => *wait,
            _ => pause.mul_f64(rand::random_range(0.5..1.0)),
        };
        // A server that has never answered is probably not there at all.
        let patience = match self.answered.load(Ordering::Relaxed) {
            true => self.patience.retries,
            false => self.patience.retries.min(FIRST_CONTACT),
        };
        if began.elapsed() + wait > patience {
            return Err(error);
        }
        self.warn_of_retries(path, &error, began, patience);
        tokio::time::sleep(wait).await;
        *pause = (*pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }

    /// Logs why requests are being retried, so that people know what they wait for. One warning covers all requests of a
    /// while.
    fn warn_of_retries(&self, path: &str, error: &ApiError, began: Instant, patience: Duration) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = warned.is_none_or(|warned| warned.elapsed() >= BETWEEN_WARNINGS);
        if began.elapsed() < QUIET || !is_due {
            return;
        }
        *warned = Some(Instant::now());
        drop(warned);
        // An error about a Secret may quote its values: webhooks do.
        let why = match path.contains("/secrets") {
            true => error
                .code()
                .map_or("it does not answer".into(), |code| format!("it answers {code}")),
            false => error.to_string(),
        };
        let left = patience.saturating_sub(began.elapsed()).as_secs();
        tracing::warn!(
            "retrying the cluster of the kube context `{}` for up to {left} s: {why}",
            self.kube_context
        );
    }

    async fn send_once(
        &self,
        accept: &'static str,
        method: &Method,
        path: &str,
        body: Option<&(&str, String)>,
    ) -> Result<Answer, ApiError> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::ACCEPT, accept);
        let bytes = body.map(|(content_type, text)| {
            request = std::mem::take(&mut request).header(header::CONTENT_TYPE, *content_type);
            text.clone().into_bytes()
        });
        let request = request
            .body(Body::from(bytes.unwrap_or_default()))
            .map_err(|error| self.malformed(error))?;
        // Nobody closes the semaphore.
        let _permit = self.permits.acquire().await.map_err(|error| self.malformed(error))?;
        self.sent.fetch_add(1, Ordering::Relaxed);
        let answer = async {
            let response = self
                .http
                .send(request)
                .await
                .map_err(|error| self.unreachable(&error))?;
            self.answered.store(true, Ordering::Relaxed);
            if !response.status().is_success() {
                return Err(self.error_of(response).await);
            }
            let warnings = response.headers().get_all(header::WARNING).iter();
            let warnings = warnings
                .filter_map(|warning| warning_text(warning.to_str().ok()?))
                .collect();
            let body = response.into_body().collect().await;
            let body = body.map_err(|error| ApiError::Unreachable {
                server: self.server.clone(),
                why: with_causes(&error),
            })?;
            let value = serde_json::from_slice(&body.to_bytes()).map_err(|error| match error.is_eof() {
                // The connection ended normally, but too early.
                true => ApiError::Unreachable {
                    server: self.server.clone(),
                    why: "its answer was cut off".into(),
                },
                false => self.malformed(error),
            })?;
            Ok(Answer { value, warnings })
        };
        timeout(self.patience.request, answer)
            .await
            .map_err(|_| self.timed_out())?
    }

    /// The error in an answer without success.
    async fn error_of(&self, response: http::Response<Body>) -> ApiError {
        let code = response.status();
        let retry_after = response
            .headers()
            .get(header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map(Duration::from_secs);
        let body = response.into_body().collect().await;
        let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let status: Value = serde_json::from_slice(&body).unwrap_or_default();
        let text = |pointer: &str| {
            status
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_string()
        };
        let message = match (code, text("/message")) {
            (StatusCode::UNAUTHORIZED, _) => format!(
                "the API server at {} does not accept the credentials of the kube context `{}`: sign in again. A token may have expired",
                self.server, self.kube_context
            ),
            (_, message) if !message.is_empty() => message,
            _ => {
                let body = String::from_utf8_lossy(&body);
                let line = body.lines().next().unwrap_or_default();
                let line: String = line.chars().take(200).collect();
                format!("the API server at {} answered {code}: {line}", self.server)
            }
        };
        let causes = status.pointer("/details/causes").and_then(Value::as_array);
        let causes = causes.into_iter().flatten().map(|cause| {
            let text = |field: &str| cause.get(field).and_then(Value::as_str).unwrap_or_default().to_string();
            (text("field"), text("message"))
        });
        ApiError::Answered {
            code: code.as_u16(),
            reason: text("/reason"),
            message,
            causes: causes.collect(),
            retry_after,
        }
    }

    fn unreachable(&self, error: &kube::Error) -> ApiError {
        match error {
            kube::Error::Auth(error) => ApiError::Credentials {
                kube_context: self.kube_context.clone(),
                why: why_unavailable(error),
            },
            other => ApiError::Unreachable {
                server: self.server.clone(),
                why: first_cause(other),
            },
        }
    }

    fn timed_out(&self) -> ApiError {
        ApiError::TimedOut {
            server: self.server.clone(),
            after: self.patience.request,
        }
    }

    fn malformed(&self, error: impl std::fmt::Display) -> ApiError {
        ApiError::Malformed {
            server: self.server.clone(),
            why: error.to_string(),
        }
    }
}

/// The cause at the bottom: `Connection refused` in `client error (Connect): tcp connect error: Connection refused`.
fn first_cause(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(error) = last.source() {
        last = error;
    }
    last.to_string()
}

/// The text of `299 - "spec.x is deprecated"`.
fn warning_text(header: &str) -> Option<String> {
    let text = header.split_once('"')?.1.rsplit_once('"')?.0;
    Some(text.replace("\\\"", "\""))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_text_of_a_warning_header_is_unquoted() {
        assert_eq!(warning_text(r#"299 - "say \"no\"""#).unwrap(), r#"say "no""#);
        assert_eq!(warning_text("299 - odd"), None);
    }
}
