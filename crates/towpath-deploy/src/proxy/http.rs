//! Proxies HTTP/1.1, request by request.

use super::{
    backends::{Lease, Use},
    port::{Port, WAIT_FOR_BACKEND},
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Uri, Version,
    body::{Body, Frame, Incoming, SizeHint},
    header::{self, HeaderName, HeaderValue},
    service::service_fn,
};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use std::{
    collections::BTreeSet,
    convert::Infallible,
    error::Error,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{net::TcpStream, time::Instant};

/// Drop idle connections to backends earlier than common servers do (Node.js: 5 s), so that a request seldom meets a closing
/// connection.
const IDLE: Duration = Duration::from_secs(4);
const CONNECT: Duration = Duration::from_secs(2);
/// How long a client may take to send a request's head.
const HEAD: Duration = Duration::from_secs(60);
/// How often to send one request at most.
const ATTEMPTS: u32 = 8;

pub(super) type Client = legacy::Client<HttpConnector, Replay>;
type Answer = Response<BoxBody<Bytes, hyper::Error>>;

pub(super) fn client() -> Client {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT));
    legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .build(connector)
}

/// Serves one connection of a client.
pub(super) async fn connection(port: Port, client: Client, stream: TcpStream, peer: SocketAddr) {
    let stop = port.stop.clone();
    let service = service_fn(move |request| {
        let (port, client) = (port.clone(), client.clone());
        async move { Ok::<_, Infallible>(answer(&port, &client, peer, request).await) }
    });
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut serving = std::pin::pin!(serving);
    let mut stopping = false;
    loop {
        tokio::select! {
            ended = serving.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a client's connection ended");
                }
                return;
            }
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                serving.as_mut().graceful_shutdown();
            }
        }
    }
}

async fn answer(port: &Port, client: &Client, peer: SocketAddr, mut request: Request<Incoming>) -> Answer {
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .or_else(|| request.uri().host())
        .map(str::to_string);
    let path = request.uri().path().to_string();
    let upgrade = upgrade_of(request.headers());
    let client_side = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
    let (mut head, body) = request.into_parts();
    forwarded(&mut head.headers, peer, host.as_deref());
    strip_hop_by_hop(&mut head.headers);
    super::cookies::strip_session(&mut head.headers);
    if let Some(protocol) = &upgrade {
        head.headers
            .insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(header::UPGRADE, protocol.clone());
    }
    let body = Replay::new(body);
    let idempotent = matches!(
        head.method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE | Method::TRACE
    );

    let deadline = Instant::now() + WAIT_FOR_BACKEND;
    let mut avoid = BTreeSet::new();
    let mut last_failure = None;
    for _ in 0..ATTEMPTS {
        // Look the pool up each time: the routes may have changed while this request waited.
        let Some(pool) = port.backends.pool_for(port.number, host.as_deref(), &path) else {
            return say(StatusCode::NOT_FOUND, "no route for this host and path".into());
        };
        let Some(lease) = port.backends.lease(&pool, Use::Request, &mut avoid, deadline).await else {
            break;
        };
        let address = lease.address();
        let uri = match on_backend(&head.uri, address) {
            Ok(uri) => uri,
            Err(error) => {
                return say(
                    StatusCode::BAD_REQUEST,
                    format!("this path cannot be forwarded: {error}"),
                );
            }
        };
        let mut attempt = Request::new(body.clone());
        *attempt.method_mut() = head.method.clone();
        *attempt.uri_mut() = uri;
        *attempt.version_mut() = Version::HTTP_11;
        *attempt.headers_mut() = head.headers.clone();
        match client.request(attempt).await {
            Ok(response) => return pass_on(port, lease, response, client_side),
            Err(error) => {
                let again = may_retry(&error, idempotent, &body);
                tracing::debug!(%address, error = &error as &dyn Error, again, "a backend did not answer");
                if !again {
                    return say(
                        StatusCode::BAD_GATEWAY,
                        format!(
                            "the application closed the connection before it answered ({})",
                            root(&error)
                        ),
                    );
                }
                last_failure = Some(root(&error));
                avoid.insert(address);
            }
        }
    }
    say(
        StatusCode::SERVICE_UNAVAILABLE,
        match last_failure {
            Some(failure) => format!("no instance of the application answers ({failure})"),
            None => "no instance of the application is ready".into(),
        },
    )
}

/// Whether to send a request that failed with `error` to another backend. It requires that no part of an answer has arrived,
/// that the body is still complete, and that either no backend can have acted on the request or acting twice is harmless.
fn may_retry(error: &legacy::Error, idempotent: bool, body: &Replay) -> bool {
    if body.touched() {
        return false;
    }
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    let (mut unsent, mut closed) = (error.is_connect(), false);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<hyper::Error>() {
            unsent |= error.is_canceled();
            closed |= error.is_incomplete_message() || error.is_closed();
        }
        closed |= error.downcast_ref::<std::io::Error>().is_some();
        cause = error.source();
    }
    unsent || (closed && (idempotent || !body.was_empty))
}

fn pass_on(
    port: &Port,
    lease: Lease,
    mut response: Response<Incoming>,
    client_side: Option<hyper::upgrade::OnUpgrade>,
) -> Answer {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS
        && let Some(client_side) = client_side
    {
        let server_side = hyper::upgrade::on(&mut response);
        let lease = lease.into_stream();
        let stop = port.stop.clone();
        port.connections.spawn(async move {
            match tokio::try_join!(client_side, server_side) {
                Ok((client, server)) => {
                    let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                        () = stop.cancelled() => {}
                    }
                }
                Err(error) => tracing::debug!(%error, "an upgraded connection did not come about"),
            }
            drop(lease);
        });
        return response.map(BodyExt::boxed);
    }
    strip_hop_by_hop(response.headers_mut());
    response.map(|body| Leased { body, _lease: lease }.boxed())
}

fn on_backend(uri: &Uri, address: SocketAddr) -> Result<Uri, hyper::http::Error> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Uri::builder()
        .scheme("http")
        .authority(address.to_string())
        .path_and_query(path)
        .build()
}

/// The innermost cause. For a connection, it is the informative one: `Connection refused`.
fn root(error: &(dyn Error + 'static)) -> String {
    let mut error = error;
    while let Some(cause) = error.source() {
        error = cause;
    }
    error.to_string()
}

fn say(status: StatusCode, sentence: String) -> Answer {
    let text = Full::from(format!("towpath: {sentence}\n"));
    let mut response = Response::new(text.map_err(|never| match never {}).boxed());
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

fn upgrade_of(headers: &HeaderMap) -> Option<HeaderValue> {
    let wants = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
    headers.get(header::UPGRADE).filter(|_| wants).cloned()
}

/// Source: <https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1>. `TE: trailers` and `Trailer` concern the end of the message,
/// which the proxy passes on.
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|token| token.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in [
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "proxy-authorization",
        "transfer-encoding",
        "upgrade",
    ] {
        headers.remove(name);
    }
    // The proxy answers this itself: hyper sends `100 Continue` when the body is read.
    headers.remove(header::EXPECT);
}

fn forwarded(headers: &mut HeaderMap, peer: SocketAddr, host: Option<&str>) {
    let address = peer.ip().to_string();
    let before: Vec<&str> = headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    let chain = before
        .into_iter()
        .chain([address.as_str()])
        .collect::<Vec<_>>()
        .join(", ");
    if let Ok(chain) = HeaderValue::from_str(&chain) {
        headers.insert("x-forwarded-for", chain);
    }
    if !headers.contains_key("x-forwarded-proto") {
        headers.insert("x-forwarded-proto", HeaderValue::from_static("http"));
    }
    if !headers.contains_key("x-forwarded-host")
        && let Some(host) = host.and_then(|host| HeaderValue::from_str(host).ok())
    {
        headers.insert("x-forwarded-host", host);
    }
}

/// A request's body that can be sent again until a part of it was read.
#[derive(Clone)]
pub(super) struct Replay {
    inner: Arc<Mutex<Whole>>,
    was_empty: bool,
}

struct Whole {
    body: Incoming,
    touched: bool,
}

impl Replay {
    fn new(body: Incoming) -> Self {
        Self {
            was_empty: body.is_end_stream(),
            inner: Arc::new(Mutex::new(Whole { body, touched: false })),
        }
    }

    fn whole(&self) -> std::sync::MutexGuard<'_, Whole> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn touched(&self) -> bool {
        self.whole().touched
    }
}

impl Body for Replay {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut whole = self.whole();
        let polled = Pin::new(&mut whole.body).poll_frame(context);
        whole.touched |= matches!(polled, Poll::Ready(Some(_)));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.whole().body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.whole().body.size_hint()
    }
}

/// An answer's body. The request counts as in progress until the body ends.
struct Leased {
    body: Incoming,
    _lease: Lease,
}

impl Body for Leased {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
