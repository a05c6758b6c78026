//! Faults between a client and an API server: a proxy that passes requests on, or not, as a script decides.

use anyhow::{Context, Result};
use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Request, Response,
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{net::TcpListener, task::AbortHandle};

/// A request to the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Asked {
    /// Counts from 0.
    pub number: usize,
    /// `GET`.
    pub method: String,
    /// With the query.
    pub path: String,
    /// The type of the body; empty without one.
    pub content_type: String,
    pub body: Bytes,
}

/// What the proxy does with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Passes it on.
    Pass,
    /// Answers it with this status and body, and does not pass it on.
    Answer(u16, String),
    /// Breaks the connection, and does not pass it on.
    Reset,
    /// Passes it on and breaks the connection before the answer.
    LoseAnswer,
    /// Passes it on after this time.
    Delay(Duration),
    /// Passes it on and breaks the answer off after this many bytes.
    Cut(usize),
}

type Script = dyn Fn(&Asked) -> Verdict + Send + Sync;

struct Shared {
    upstream: String,
    client: reqwest::Client,
    script: Mutex<Arc<Script>>,
    count: AtomicUsize,
    asked: Mutex<Vec<Asked>>,
}

/// The proxy. Dropping it stops it and breaks every connection.
pub struct FaultProxy {
    address: String,
    shared: Arc<Shared>,
    task: AbortHandle,
}

type Body = UnsyncBoxBody<Bytes, io::Error>;

impl FaultProxy {
    /// Starts a proxy for `upstream` (`https://127.0.0.1:16443`), whose certificate `certificate_authority` (PEM) has signed. It
    /// passes everything on until [`FaultProxy::script`] changes that.
    ///
    /// # Errors
    /// When it cannot listen, or the certificate cannot be used.
    pub async fn start(upstream: &str, certificate_authority: &str) -> Result<Self> {
        // This fails if the process has a provider already, which is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let authority = reqwest::Certificate::from_pem(certificate_authority.as_bytes())
            .context("failed to read the authority's certificate")?;
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([authority])
            .build()
            .context("failed to make an HTTP client")?;
        let shared = Arc::new(Shared {
            upstream: upstream.to_string(),
            client,
            script: Mutex::new(Arc::new(|_: &Asked| Verdict::Pass)),
            count: AtomicUsize::new(0),
            asked: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.context("failed to listen")?;
        let address = format!("http://{}", listener.local_addr().context("no address")?);
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self {
            address,
            shared,
            task: task.abort_handle(),
        })
    }

    /// The proxy's own address.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Uses `script` from now on, and numbers requests from 0 again.
    pub fn script(&self, script: impl Fn(&Asked) -> Verdict + Send + Sync + 'static) {
        *lock(&self.shared.script) = Arc::new(script);
        self.shared.count.store(0, Ordering::SeqCst);
        lock(&self.shared.asked).clear();
    }

    /// The requests since the last [`FaultProxy::script`].
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.shared.asked).clone()
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Dropping the set with this task breaks every connection.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            return;
        };
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&shared), request));
            let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            // An error here is a fault of the script, or a client that went away.
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

/// An error ends the connection without an answer.
async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> io::Result<Response<Body>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let content_type = parts.headers.get("content-type").and_then(|value| value.to_str().ok());
    let request = Request::from_parts(parts.clone(), body.clone());
    let asked = Asked {
        number: shared.count.fetch_add(1, Ordering::SeqCst),
        method: request.method().to_string(),
        path: request
            .uri()
            .path_and_query()
            .map(ToString::to_string)
            .unwrap_or_default(),
        content_type: content_type.unwrap_or_default().to_string(),
        body,
    };
    lock(&shared.asked).push(asked.clone());
    let script = Arc::clone(&lock(&shared.script));
    let broken = || io::Error::new(io::ErrorKind::ConnectionReset, "a fault of the script");
    match script(&asked) {
        Verdict::Pass => pass(&shared, request, None).await,
        Verdict::Answer(status, body) => {
            let body = Full::new(Bytes::from(body)).map_err(|never| match never {});
            Response::builder()
                .status(status)
                .header("content-type", "application/json")
                .body(body.boxed_unsync())
                .map_err(io::Error::other)
        }
        Verdict::Reset => Err(broken()),
        Verdict::LoseAnswer => {
            let answer = pass(&shared, request, None).await?;
            // After its whole answer the server has certainly carried the request out.
            let _ = answer.into_body().collect().await;
            Err(broken())
        }
        Verdict::Delay(pause) => {
            tokio::time::sleep(pause).await;
            pass(&shared, request, None).await
        }
        Verdict::Cut(bytes) => pass(&shared, request, Some(bytes)).await,
    }
}

async fn pass(shared: &Shared, request: Request<Bytes>, cut: Option<usize>) -> io::Result<Response<Body>> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let mut headers = parts.headers;
    for name in ["host", "content-length", "transfer-encoding", "connection"] {
        headers.remove(name);
    }
    let answer = shared
        .client
        .request(parts.method, format!("{}{path}", shared.upstream))
        .headers(headers)
        .body(body)
        .send()
        .await
        .map_err(io::Error::other)?;
    let mut response = Response::builder().status(answer.status());
    for (name, value) in answer.headers() {
        if !matches!(name.as_str(), "content-length" | "transfer-encoding" | "connection") {
            response = response.header(name, value);
        }
    }
    let pieces: BoxStream<'static, io::Result<Bytes>> = answer
        .bytes_stream()
        .map(|piece| piece.map_err(io::Error::other))
        .boxed();
    let pieces = match cut {
        None => pieces,
        Some(most) => cut_off(pieces, most),
    };
    let body = StreamBody::new(pieces.map(|piece| piece.map(Frame::data)));
    response.body(body.boxed_unsync()).map_err(io::Error::other)
}

/// The first `most` bytes of `pieces`, and then an error.
fn cut_off(pieces: BoxStream<'static, io::Result<Bytes>>, most: usize) -> BoxStream<'static, io::Result<Bytes>> {
    let cut = pieces.scan(most, |left, piece| {
        let piece = match piece {
            Ok(_) if *left == 0 => Err(io::Error::new(io::ErrorKind::ConnectionReset, "cut off")),
            Ok(mut piece) => {
                piece.truncate(*left);
                *left -= piece.len();
                Ok(piece)
            }
            Err(error) => Err(error),
        };
        futures::future::ready(Some(piece))
    });
    cut.boxed()
}
