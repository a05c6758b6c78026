//! The proxy over real sockets: what it promises while what is behind it comes and goes.

#![allow(clippy::unwrap_used, missing_docs)]

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinHandle,
};
use towpath_deploy::proxy::{
    Backend, Listener, Mode, PathType, ProxyOptions, ProxyState, ROUTES_FILE, Routes, Rule, STATE_FILE, run,
};
use towpath_testkit::{Probe, until};

const BOUND: Duration = Duration::from_secs(20);

/// An HTTP server that answers `name`: at `/slow` once it is let, at `/count` with the size of what it was sent.
struct Application {
    address: SocketAddr,
    let_go: Arc<Notify>,
    asked: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Application {
    async fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (let_go, asked) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (go, told) = (let_go.clone(), asked.clone());
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (go, told) = (go.clone(), told.clone());
                let answer = move |request: Request<Incoming>| {
                    let (go, told) = (go.clone(), told.clone());
                    async move {
                        let text = match request.uri().path() {
                            "/slow" => {
                                told.notify_one();
                                go.notified().await;
                                name.to_string()
                            }
                            "/count" => request
                                .into_body()
                                .collect()
                                .await
                                .unwrap()
                                .to_bytes()
                                .len()
                                .to_string(),
                            _ => name.to_string(),
                        };
                        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(text))))
                    }
                };
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service_fn(answer)),
                );
            }
        });
        Self {
            address,
            let_go,
            asked,
            task,
        }
    }
}

struct Proxy {
    folder: tempfile::TempDir,
    port: u16,
    task: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn backend(address: SocketAddr, draining: bool) -> Backend {
    Backend { address, draining }
}

impl Proxy {
    async fn start(backends: Vec<Backend>) -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let folder = tempfile::tempdir().unwrap();
        let options = ProxyOptions {
            routes_dir: folder.path().to_path_buf(),
        };
        let task = tokio::spawn(async move { run(options).await.unwrap() });
        let proxy = Self { folder, port, task };
        proxy.route(1, backends).await;
        proxy
    }

    fn state(&self) -> ProxyState {
        let text = std::fs::read(self.folder.path().join(STATE_FILE)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Replaces the routes and waits until they are in force.
    async fn route(&self, generation: u64, backends: Vec<Backend>) {
        let routes = Routes {
            generation,
            listeners: vec![Listener {
                port: self.port,
                mode: Mode::Http,
                rules: vec![Rule {
                    host: None,
                    path: "/".into(),
                    path_type: PathType::Prefix,
                    pool: "app".into(),
                }],
                loopback_host: None,
            }],
            pools: BTreeMap::from([("app".to_string(), backends)]),
        };
        self.write(&serde_json::to_string(&routes).unwrap());
        until("the routes to be in force", BOUND, async || {
            let state = self.state();
            Ok(if state.generation >= generation {
                Probe::Found(())
            } else {
                Probe::NotYet(format!("{state:?}"))
            })
        })
        .await
        .unwrap();
    }

    fn write(&self, text: &str) {
        let path = self.folder.path().join(ROUTES_FILE);
        let new = path.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, path).unwrap();
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).await.unwrap()
    }

    /// Sends one request of one connection; `(status, body)`.
    async fn send(&self, head: &str, body: &[u8]) -> (u16, String) {
        let mut stream = self.connect().await;
        let head = format!(
            "{head} HTTP/1.1\r\nHost: app\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let text = String::from_utf8(answer).unwrap();
        let status = text.split(' ').nth(1).unwrap().parse().unwrap();
        (status, text.split_once("\r\n\r\n").unwrap().1.to_string())
    }
}

/// Accepts connections, reads a little, and hangs up: an application that dies with a request in its hands.
async fn hangs_up() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 16]).await;
        }
    });
    address
}

async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_leaves_ends_its_requests_and_gets_no_new_one() {
    let (one, two) = (Application::start("one").await, Application::start("two").await);
    let proxy = Arc::new(Proxy::start(vec![backend(one.address, false)]).await);
    let slow = tokio::spawn({
        let proxy = proxy.clone();
        async move { proxy.send("GET /slow", b"").await }
    });
    one.asked.notified().await;
    proxy
        .route(2, vec![backend(one.address, true), backend(two.address, false)])
        .await;
    assert!(!proxy.state().drained(2, &one.address), "{:?}", proxy.state());
    for _ in 0..20 {
        assert_eq!(proxy.send("GET /", b"").await, (200, "two".into()));
    }
    one.let_go.notify_one();
    assert_eq!(slow.await.unwrap(), (200, "one".into()));
    until("the backend that left to be drained", BOUND, async || {
        let state = proxy.state();
        Ok(match state.drained(2, &one.address) {
            true => Probe::Found(()),
            false => Probe::NotYet(format!("{state:?}")),
        })
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_backend_costs_no_request_that_may_be_sent_again() {
    let alive = Application::start("alive").await;
    let proxy = Proxy::start(vec![
        backend(nobody().await, false),
        backend(hangs_up().await, false),
        backend(alive.address, false),
    ])
    .await;
    for number in 0..30 {
        assert_eq!(
            proxy.send("GET /", b"").await,
            (200, "alive".into()),
            "request {number}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_may_not_be_sent_twice_is_not() {
    let proxy = Proxy::start(vec![backend(hangs_up().await, false)]).await;
    let (status, text) = proxy.send("POST /order", b"one").await;
    assert_eq!(status, 502, "{text}");
    assert!(!text.trim().is_empty(), "the answer says what happened");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_waits_a_while_for_the_first_backend_and_not_for_ever() {
    let proxy = Arc::new(Proxy::start(Vec::new()).await);
    let began = Instant::now();
    let (status, text) = proxy.send("GET /", b"").await;
    assert_eq!(status, 503, "{text}");
    assert!(
        began.elapsed() >= Duration::from_secs(4) && !text.trim().is_empty(),
        "{text}"
    );

    let waiting = tokio::spawn({
        let proxy = proxy.clone();
        async move { proxy.send("GET /", b"").await }
    });
    let late = Application::start("late").await;
    proxy.route(2, vec![backend(late.address, false)]).await;
    assert_eq!(waiting.await.unwrap(), (200, "late".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_routes_leave_those_before_them_in_force() {
    let one = Application::start("one").await;
    let proxy = Proxy::start(vec![backend(one.address, false)]).await;
    proxy.write("{ this is not JSON");
    let two = Application::start("two").await;
    assert_eq!(proxy.send("GET /", b"").await, (200, "one".into()));
    one.task.abort();
    proxy.route(3, vec![backend(two.address, false)]).await;
    assert_eq!(proxy.send("GET /", b"").await, (200, "two".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_pass_through_whole_and_connections_are_kept() {
    let one = Application::start("one").await;
    let proxy = Proxy::start(vec![backend(one.address, false)]).await;
    let body = vec![b'x'; 3 << 20];
    assert_eq!(proxy.send("POST /count", &body).await, (200, body.len().to_string()));

    let mut stream = proxy.connect().await;
    for _ in 0..3 {
        stream
            .write_all(b"POST /count HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3\r\nyou\r\n0\r\n\r\n")
            .await
            .unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n8") {
            let mut buffer = [0; 512];
            let read = stream.read(&mut buffer).await.unwrap();
            assert!(read > 0, "{}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&buffer[..read]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgraded_connection_is_spliced() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
        stream.write_all(answer).await?;
        let mut buffer = [0; 5];
        stream.read_exact(&mut buffer).await?;
        stream.write_all(&buffer).await?;
        Ok::<_, io::Error>(())
    });
    let proxy = Proxy::start(vec![backend(address, false)]).await;
    let mut stream = proxy.connect().await;
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: app\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
        .await
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    stream.write_all(b"hello").await.unwrap();
    let mut echo = [0; 5];
    stream.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"hello");
}
