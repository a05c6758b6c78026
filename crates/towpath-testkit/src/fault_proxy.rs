//! Faults between a client and an API server: a proxy that lets requests through, or not, as it is told.

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

/// A request that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Its number, from 0.
    pub number: usize,
    /// `GET`.
    pub method: String,
    /// Its path and query.
    pub path: String,
    /// What its body is; empty without one.
    pub content_type: String,
    /// Its body.
    pub body: Bytes,
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It goes through.
    Pass,
    /// It is answered with this status and body, and goes nowhere.
    Answer(u16, String),
    /// The connection breaks before it went anywhere.
    Reset,
    /// It goes through, and the connection breaks before the answer.
    LoseAnswer,
    /// It goes through after a while.
    Delay(Duration),
    /// It goes through, and the answer breaks off after so many bytes.
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

/// The proxy. Dropped, it stops, with every connection.
pub struct FaultProxy {
    address: String,
    shared: Arc<Shared>,
    task: AbortHandle,
}

type Body = UnsyncBoxBody<Bytes, io::Error>;

impl FaultProxy {
    /// A proxy before `upstream` (`https://127.0.0.1:16443`), whose certificate is vouched for by `certificate_authority`
    /// (PEM). It lets everything through until [`FaultProxy::script`] says otherwise.
    ///
    /// # Errors
    /// When it cannot listen or the certificate cannot be used.
    pub async fn start(upstream: &str, certificate_authority: &str) -> Result<Self> {
        // Somebody else may have chosen first, and chosen the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let authority = reqwest::Certificate::from_pem(certificate_authority.as_bytes()).context("no certificate")?;
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

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Decides from now on by `script`; the requests' numbers begin at 0 again.
    pub fn script(&self, script: impl Fn(&Asked) -> Verdict + Send + Sync + 'static) {
        *lock(&self.shared.script) = Arc::new(script);
        self.shared.count.store(0, Ordering::SeqCst);
        lock(&self.shared.asked).clear();
    }

    /// The requests that came since [`FaultProxy::script`].
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
    // Dropped with this task, and with it every connection.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            return;
        };
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&shared), request));
            let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            // An error here is a fault that was asked for, or a client that left.
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
    let broken = || io::Error::new(io::ErrorKind::ConnectionReset, "a fault that was asked for");
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
            // The server has done it for certain once its whole answer is there.
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

/// `pieces` to their `most`th byte, and then an error.
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
