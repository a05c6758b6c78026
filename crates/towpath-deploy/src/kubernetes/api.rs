//! Requests to an API server: retried while that can help, and errors that a person can act on.

use super::{identity::said_of_credentials, kinds::Kind};
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use kube::{Client, client::Body};
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
use towpath_types::with_causes;

/// How many requests are under way at once. API servers share their capacity between clients, so more is not faster.
const AT_ONCE: usize = 16;
/// The first pause before a request is sent again; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a server that has not answered yet is tried.
const FIRST_CONTACT: Duration = Duration::from_secs(10);
/// For how long a request is sent again without a word, and how long one word holds.
const SILENT: Duration = Duration::from_secs(3);
const SAID_AGAIN: Duration = Duration::from_secs(15);
/// How many objects a list answers in one piece.
const PAGE: usize = 500;
/// The field manager that everything is applied as.
pub(super) const FIELD_MANAGER: &str = "towpath";

/// How long a request may take, and how long it is tried.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// One request, from sending to the last byte of the answer.
    pub request: Duration,
    /// All tries of one request together.
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

/// Why a request came to nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum ApiError {
    /// The server answered with an error.
    #[error("{message}")]
    Answered {
        code: u16,
        reason: String,
        message: String,
        /// The fields that it is about, with a sentence each.
        causes: Vec<(String, String)>,
        retry_after: Option<Duration>,
    },
    /// No answer came.
    #[error("the API server at {server} cannot be reached: {why}")]
    Unreachable { server: String, why: String },
    /// The answer took too long.
    #[error("the API server at {server} did not answer within {} s", .after.as_secs())]
    TimedOut { server: String, after: Duration },
    /// Something else answered.
    #[error("what answers at {server} is no API server: {why}")]
    Malformed { server: String, why: String },
    /// The kubeconfig's credentials could not be had.
    #[error("there are no credentials for the kube context `{kube_context}`: {why}")]
    Credentials { kube_context: String, why: String },
}

impl ApiError {
    pub(super) fn code(&self) -> Option<u16> {
        match self {
            Self::Answered { code, .. } => Some(*code),
            _ => None,
        }
    }

    pub(super) fn is_missing(&self) -> bool {
        self.code() == Some(404)
    }

    pub(super) fn is_forbidden(&self) -> bool {
        self.code() == Some(403)
    }

    /// Whether somebody else wrote first, or made the object first.
    pub(super) fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }

    /// Whether the same request may be answered otherwise a little later.
    fn passes(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } => true,
            // Servers call it their own fault when an object does not fit its schema.
            Self::Answered { code: 500, message, .. } => !message.contains("typed patch object"),
            Self::Answered { code, .. } => matches!(code, 429 | 502..=504),
            Self::Malformed { .. } | Self::Credentials { .. } => false,
        }
    }
}

/// What a server answered.
pub(super) struct Answer {
    pub value: Value,
    /// Its `Warning` headers.
    pub warnings: Vec<String>,
}

/// A change in a watched list.
pub(super) enum WatchEvent {
    /// An object is there as given.
    Set(Value),
    /// An object is gone.
    Gone(Value),
    /// The list is to be read again.
    Expired,
}

/// How an object is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Answers what would be, and changes nothing.
    DryRun,
    /// Does it.
    Real,
}

/// One cluster.
pub(super) struct Api {
    client: Client,
    kube_context: String,
    server: String,
    patience: Patience,
    permits: Semaphore,
    sent: AtomicU64,
    /// Whether it has ever answered.
    answered: AtomicBool,
    /// When it was last said that it is tried again and again.
    said: Mutex<Option<Instant>>,
}

impl Api {
    pub(super) fn new(client: Client, kube_context: String, server: String, patience: Patience) -> Self {
        Self {
            client,
            kube_context,
            server,
            patience,
            permits: Semaphore::new(AT_ONCE),
            sent: AtomicU64::new(0),
            answered: AtomicBool::new(false),
            said: Mutex::new(None),
        }
    }

    /// How many requests were sent, each try counted.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(super) fn kube_context(&self) -> &str {
        &self.kube_context
    }

    pub(super) async fn get(&self, path: &str) -> Result<Value, ApiError> {
        self.send(Method::GET, path, None).await.map(|answer| answer.value)
    }

    /// The object at `path`, or `None` when there is none.
    pub(super) async fn find(&self, path: &str) -> Result<Option<Value>, ApiError> {
        match self.get(path).await {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every object of a collection, and the resource version to watch from.
    pub(super) async fn list(&self, path: &str, selector: Option<&str>) -> Result<(Vec<Value>, String), ApiError> {
        let (mut objects, mut go_on) = (Vec::new(), String::new());
        let selector = selector.map(|text| format!("&labelSelector={}", escape(text)));
        let selector = selector.unwrap_or_default();
        loop {
            let mut page = format!("{path}?limit={PAGE}{selector}");
            if !go_on.is_empty() {
                let _ = write!(page, "&continue={}", escape(&go_on));
            }
            let mut value = match self.get(&page).await {
                // The list changed too much between two pages.
                Err(ApiError::Answered { code: 410, .. }) if !go_on.is_empty() => {
                    (objects, go_on) = (Vec::new(), String::new());
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
            go_on = metadata("continue");
            if go_on.is_empty() {
                return Ok((objects, metadata("resourceVersion")));
            }
        }
    }

    /// What changes in a collection from `version` on. Ends when the connection does.
    pub(super) async fn watch(
        &self,
        path: &str,
        selector: Option<&str>,
        version: &str,
    ) -> Result<impl Stream<Item = WatchEvent> + use<>, ApiError> {
        let selector = selector.map(|text| format!("&labelSelector={}", escape(text)));
        let path = format!(
            "{path}?watch=1&allowWatchBookmarks=true&timeoutSeconds=290&resourceVersion={}{}",
            escape(version),
            selector.unwrap_or_default()
        );
        let body = self.open(&path).await?;
        let lines = FramedRead::new(StreamReader::new(body), LinesCodec::new());
        let events = lines.map(|line| {
            let mut event: Value = line
                .ok()
                .and_then(|line| serde_json::from_str(&line).ok())
                .unwrap_or_default();
            let object = event.get_mut("object").map(Value::take).unwrap_or_default();
            match event.get("type").and_then(Value::as_str) {
                Some("ADDED" | "MODIFIED") => Some(WatchEvent::Set(object)),
                Some("DELETED") => Some(WatchEvent::Gone(object)),
                Some("BOOKMARK") => None,
                // An `ERROR` (410: the version is too old), half a line, or what no server sends.
                _ => Some(WatchEvent::Expired),
            }
        });
        Ok(events.filter_map(|event| async { event }).boxed())
    }

    /// The bytes of an answer as they come.
    pub(super) async fn open(
        &self,
        path: &str,
    ) -> Result<impl Stream<Item = std::io::Result<Bytes>> + Send + Unpin + use<>, ApiError> {
        let began = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.open_once(path).await {
                Ok(response) => {
                    let stream = response.into_body().into_data_stream();
                    return Ok(stream.map_err(std::io::Error::other).boxed());
                }
                Err(error) => error,
            };
            self.rest(path, error, began, &mut pause).await?;
        }
    }

    async fn open_once(&self, path: &str) -> Result<http::Response<Body>, ApiError> {
        let request = Request::get(path)
            .body(Body::empty())
            .map_err(|error| self.malformed(error))?;
        self.sent.fetch_add(1, Ordering::Relaxed);
        let answer = timeout(self.patience.request, self.client.send(request)).await;
        let response = answer
            .map_err(|_| self.timed_out())?
            .map_err(|error| self.unreachable(&error))?;
        self.answered.store(true, Ordering::Relaxed);
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.refusal(response).await)
    }

    /// Applies `object`, the whole of what we say about it, as [`FIELD_MANAGER`]. What others said about the same fields
    /// gives way: a deployment decides.
    ///
    /// Source: <https://kubernetes.io/docs/reference/using-api/server-side-apply/#conflicts>
    pub(super) async fn apply(
        &self,
        kind: &Kind,
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
            kind.object(namespace, name)
        );
        if mode == Mode::DryRun {
            path.push_str("&dryRun=All");
        }
        let began = Instant::now();
        loop {
            let body = Some(("application/apply-patch+yaml", object));
            match self.send(Method::PATCH, &path, body).await {
                // With `force` there are no conflicts of fields: two wrote at the same moment.
                Err(error) if error.is_conflict() && began.elapsed() < self.patience.retries => {
                    tokio::time::sleep(FIRST_PAUSE).await;
                }
                other => return other,
            }
        }
    }

    pub(super) async fn create(&self, path: &str, object: &Value) -> Result<Value, ApiError> {
        let answer = self.send(Method::POST, path, Some(("application/json", object))).await;
        answer.map(|answer| answer.value)
    }

    /// Replaces fields by a JSON merge patch (RFC 7386).
    pub(super) async fn merge(&self, path: &str, patch: &Value) -> Result<Value, ApiError> {
        let body = Some(("application/merge-patch+json", patch));
        self.send(Method::PATCH, path, body).await.map(|answer| answer.value)
    }

    /// Replaces fields by a JSON patch (RFC 6902).
    pub(super) async fn patch(&self, path: &str, patch: &Value) -> Result<Value, ApiError> {
        let body = Some(("application/json-patch+json", patch));
        self.send(Method::PATCH, path, body).await.map(|answer| answer.value)
    }

    /// Deletes the object at `path`, if it is still the one of `uid`; what belongs to it goes in the background.
    pub(super) async fn delete(&self, path: &str, uid: Option<&str>) -> Result<(), ApiError> {
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

    /// Sends a request that is safe to send twice, again and again while that can help.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<Answer, ApiError> {
        let began = Instant::now();
        let mut pause = FIRST_PAUSE;
        let body = body.map(|(content_type, value)| (content_type, written(value)));
        loop {
            match self.send_once(&method, path, body.as_ref()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => self.rest(path, error, began, &mut pause).await?,
            }
        }
    }

    /// Waits before the next try; answers `error` when there is to be none.
    async fn rest(&self, path: &str, error: ApiError, began: Instant, pause: &mut Duration) -> Result<(), ApiError> {
        if !error.passes() {
            return Err(error);
        }
        let wait = match &error {
            ApiError::Answered {
                retry_after: Some(wait),
                ..
            } => *wait,
            _ => pause.mul_f64(rand::random_range(0.5..1.0)),
        };
        // One that never answered is rather not there than away for a moment.
        let patience = match self.answered.load(Ordering::Relaxed) {
            true => self.patience.retries,
            false => self.patience.retries.min(FIRST_CONTACT),
        };
        if began.elapsed() + wait > patience {
            return Err(error);
        }
        self.say_again(path, &error, began, patience);
        tokio::time::sleep(wait).await;
        *pause = (*pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }

    /// Says that a request is sent again, once that has lasted: whoever waits sees why, in a line and not in one for each
    /// request.
    fn say_again(&self, path: &str, error: &ApiError, began: Instant, patience: Duration) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = said.is_none_or(|said| said.elapsed() >= SAID_AGAIN);
        if began.elapsed() < SILENT || !is_new {
            return;
        }
        *said = Some(Instant::now());
        drop(said);
        // What a webhook says of a Secret may quote it.
        let why = match path.contains("/secrets") {
            true => error
                .code()
                .map_or("no answer".into(), |code| format!("an answer {code}")),
            false => error.to_string(),
        };
        let left = patience.saturating_sub(began.elapsed()).as_secs();
        tracing::warn!(
            "the cluster of the kube context `{}` is tried again for up to {left} s: {why}",
            self.kube_context
        );
    }

    async fn send_once(&self, method: &Method, path: &str, body: Option<&(&str, String)>) -> Result<Answer, ApiError> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::ACCEPT, "application/json");
        let bytes = body.map(|(content_type, text)| {
            request = std::mem::take(&mut request).header(header::CONTENT_TYPE, *content_type);
            text.clone().into_bytes()
        });
        let request = request
            .body(Body::from(bytes.unwrap_or_default()))
            .map_err(|error| self.malformed(error))?;
        // A closed semaphore is not possible: nobody closes it.
        let _permit = self.permits.acquire().await.map_err(|error| self.malformed(error))?;
        self.sent.fetch_add(1, Ordering::Relaxed);
        let answer = async {
            let response = self
                .client
                .send(request)
                .await
                .map_err(|error| self.unreachable(&error))?;
            self.answered.store(true, Ordering::Relaxed);
            if !response.status().is_success() {
                return Err(self.refusal(response).await);
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
                // Half an answer that looks like a whole one.
                true => ApiError::Unreachable {
                    server: self.server.clone(),
                    why: "its answer broke off".into(),
                },
                false => self.malformed(error),
            })?;
            Ok(Answer { value, warnings })
        };
        timeout(self.patience.request, answer)
            .await
            .map_err(|_| self.timed_out())?
    }

    /// What an answer that is no success says.
    async fn refusal(&self, response: http::Response<Body>) -> ApiError {
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
                "the API server at {} does not accept the credentials of the kube context `{}`: a token that has expired, say. \
                 Sign in again",
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
                why: said_of_credentials(error),
            },
            other => ApiError::Unreachable {
                server: self.server.clone(),
                why: innermost(other),
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

/// The first cause: of `ServiceError: client error (Connect): tcp connect error: Connection refused` the last part.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(error) = last.source() {
        last = error;
    }
    last.to_string()
}

/// JSON that is YAML, too: servers read what is applied as YAML, which knows no control characters but in escapes, and takes
/// some line ends for others.
///
/// Source: <https://yaml.org/spec/1.1/#c-printable> and <https://yaml.org/spec/1.1/#b-generic>
fn written(value: &Value) -> String {
    let json = value.to_string();
    let is_other = |char: char| {
        matches!(
            char,
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'
        )
    };
    if !json.contains(is_other) {
        return json;
    }
    let mut written = String::with_capacity(json.len() + 16);
    for char in json.chars() {
        match is_other(char) {
            true => {
                let _ = write!(written, "\\u{:04x}", u32::from(char));
            }
            false => written.push(char),
        }
    }
    written
}

/// The text of `299 - "spec.x is deprecated"`.
fn warning_text(header: &str) -> Option<String> {
    let text = header.split_once('"')?.1.rsplit_once('"')?.0;
    Some(text.replace("\\\"", "\""))
}

/// Percent-encodes one segment of a path, or one value of a query (RFC 3986, section 2.3).
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_sent_is_json_and_yaml() {
        let value = serde_json::json!({"a": "\u{7f} \u{85} \u{9f} \u{2028} \u{2029} \u{feff} \u{ffff} \n ü 😀"});
        let text = written(&value);
        assert_eq!(
            text,
            r#"{"a":"\u007f \u0085 \u009f \u2028 \u2029 \ufeff \uffff \n ü 😀"}"#
        );
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }

    #[test]
    fn warnings_and_paths() {
        assert_eq!(warning_text(r#"299 - "say \"no\"""#).unwrap(), r#"say "no""#);
        assert_eq!(warning_text("299 - odd"), None);
        assert_eq!(escape("a b/c=d,ü"), "a%20b%2Fc%3Dd%2C%C3%BC");
    }
}
