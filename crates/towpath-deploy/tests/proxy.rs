//! The proxy as a process of its own, over real sockets, in front of well-behaved and misbehaving applications.
#![allow(clippy::unwrap_used, clippy::panic)]

use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{Request, Response, StatusCode, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    path::Path,
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    sync::Semaphore,
    task::JoinHandle,
};
use towpath_deploy::proxy::{Backend, Listener, Mode, PathType, ProxyState, ROUTES_FILE, Routes, Rule, STATE_FILE};
use towpath_testkit::{Probe, Traffic, until};

const BOUND: Duration = Duration::from_secs(30);

/// A running proxy and its directory.
struct Proxy {
    folder: tempfile::TempDir,
    child: Child,
    port: u16,
    routes: Routes,
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

fn listener(port: u16, mode: Mode) -> Listener {
    Listener {
        port,
        mode,
        rules: vec![Rule {
            host: None,
            path: "/".into(),
            path_type: PathType::Prefix,
            pool: "web".into(),
        }],
        loopback_host: None,
    }
}

impl Proxy {
    async fn start(mode: Mode, backends: &[SocketAddr]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let child = Command::new(env!("CARGO_BIN_EXE_towpath-deploy-testapp"))
            .args(["proxy", "--routes"])
            .arg(folder.path())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let routes = Routes {
            generation: 0,
            listeners: vec![listener(port, mode)],
            pools: BTreeMap::new(),
        };
        let mut proxy = Self {
            folder,
            child,
            port,
            routes,
        };
        proxy.send_to(backends, &[]).await;
        until("the proxy to listen", BOUND, async || {
            Ok(match TcpStream::connect(proxy.address()).await {
                Ok(_) => Probe::Found(()),
                Err(error) => Probe::NotYet(error.to_string()),
            })
        })
        .await
        .unwrap();
        proxy
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    fn url(&self) -> String {
        format!("http://{}/", self.address())
    }

    /// Replaces the backends, and waits until the proxy reports them.
    async fn send_to(&mut self, ready: &[SocketAddr], draining: &[SocketAddr]) {
        let backend = |draining| {
            move |address: &SocketAddr| Backend {
                address: *address,
                draining,
            }
        };
        let all = ready
            .iter()
            .map(backend(false))
            .chain(draining.iter().map(backend(true)));
        self.routes.pools = BTreeMap::from([("web".to_string(), all.collect())]);
        self.tell().await;
    }

    async fn tell(&mut self) {
        self.routes.generation += 1;
        write(self.folder.path(), &serde_json::to_vec(&self.routes).unwrap());
        let wanted = self.routes.generation;
        self.state_until("the routes to be in force", |state| state.generation == wanted)
            .await;
    }

    fn state(&self) -> ProxyState {
        let text = std::fs::read(self.folder.path().join(STATE_FILE)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    async fn state_until(&self, what: &str, wanted: impl Fn(&ProxyState) -> bool) {
        until(what, BOUND, async || {
            let state = self.state();
            Ok(if wanted(&state) {
                Probe::Found(())
            } else {
                Probe::NotYet(format!("{state:?}"))
            })
        })
        .await
        .unwrap();
    }

    async fn drained(&self, backend: SocketAddr) {
        let generation = self.routes.generation;
        self.state_until("a backend to be drained", |state| state.drained(generation, &backend))
            .await;
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address()).await.unwrap()
    }

    /// Sends `request` on a connection of its own, and reads until the connection is closed.
    async fn exchange(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let reading = stream.read_to_end(&mut answer);
        tokio::time::timeout(BOUND, reading)
            .await
            .expect("the answer to end")
            .unwrap();
        String::from_utf8(answer).unwrap()
    }

    async fn get(&self, path: &str) -> String {
        self.exchange(&format!(
            "GET {path} HTTP/1.1\r\nHost: claims.example.org\r\nConnection: close\r\n\r\n"
        ))
        .await
    }
}

/// Replaces the routes as a supervisor does.
fn write(folder: &Path, text: &[u8]) {
    let new = folder.join("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, folder.join(ROUTES_FILE)).unwrap();
}

/// An application.
struct App {
    address: SocketAddr,
    hits: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for App {
    /// Ends the application at once, with every connection.
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl App {
    /// An application that runs `serve` for each connection.
    async fn raw<F: Future<Output = ()> + Send + 'static>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let hits = Arc::new(AtomicUsize::new(0));
        let counted = hits.clone();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = socket.accept().await.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                connections.spawn(serve(stream));
            }
        });
        Self { address, hits, task }
    }

    /// An application that answers with `name`. It answers `/slow` when `gate` has a permit, `/echo` with the request's body,
    /// and `/head` with the request's head. Its hits are requests.
    async fn named(name: &'static str, gate: Arc<Semaphore>) -> Self {
        let hits = Arc::new(AtomicUsize::new(0));
        let counted = hits.clone();
        let mut app = Self::raw(move |stream| {
            let (gate, counted) = (gate.clone(), counted.clone());
            let service = service_fn(move |request| {
                counted.fetch_add(1, Ordering::SeqCst);
                let gate = gate.clone();
                async move { Ok::<_, Infallible>(answer(name, &gate, request).await) }
            });
            async move {
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            }
        })
        .await;
        app.hits = hits;
        app
    }

    fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }
}

async fn answer(name: &str, gate: &Semaphore, request: Request<Incoming>) -> Response<BoxBody<Bytes, hyper::Error>> {
    let whole = |text: Vec<u8>| Full::from(text).map_err(|never| match never {}).boxed();
    let body = match request.uri().path() {
        "/slow" => {
            gate.acquire().await.unwrap().forget();
            whole(name.into())
        }
        // Echo the body as it arrives, without a length.
        "/echo" => request.into_body().boxed(),
        "/head" => whole(format!("{:#?}", request.headers()).into_bytes()),
        _ => whole(name.into()),
    };
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert("connection", hyper::header::HeaderValue::from_static("x-private"));
    response
        .headers_mut()
        .insert("x-private", hyper::header::HeaderValue::from_static("1"));
    *response.status_mut() = StatusCode::OK;
    response
}

fn no_gate() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(0))
}

/// Reads a request's head.
async fn head(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => text.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(text).unwrap()
}

fn body_of(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

// Changing routes.

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_lost_while_backends_come_and_go() {
    let mut old = App::named("v0", no_gate()).await;
    let mut proxy = Proxy::start(Mode::Http, &[old.address]).await;
    let traffic = Traffic::start(&proxy.url(), Duration::from_millis(1), str::to_string).unwrap();
    let before = traffic.so_far().sent;
    for name in [
        "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12",
    ] {
        let new = App::named(name, no_gate()).await;
        proxy.send_to(&[old.address, new.address], &[]).await;
        proxy.send_to(&[new.address], &[old.address]).await;
        proxy.drained(old.address).await;
        let last = old.hits();
        // All its connections are gone, including idle ones.
        drop(std::mem::replace(&mut old, new));
        until("requests to reach the new one", BOUND, async || {
            let hits = old.hits();
            Ok(if hits > 20 {
                Probe::Found(())
            } else {
                Probe::NotYet(format!("{hits} of them, {last} before"))
            })
        })
        .await
        .unwrap();
    }
    let report = traffic.stop().await;
    assert!(report.failures.is_empty(), "{}", report.summary());
    assert!(report.sent > before + 240, "{}", report.summary());
    assert_eq!(report.answers.len(), 13, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_way_on_a_draining_backend_is_counted_and_ends_there() {
    let gate = no_gate();
    let (old, new) = (
        App::named("old", gate.clone()).await,
        App::named("new", no_gate()).await,
    );
    let mut proxy = Proxy::start(Mode::Http, &[old.address]).await;
    let address = proxy.address();
    let slow: Vec<_> = (0..3)
        .map(|_| {
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let request = "GET /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
                stream.write_all(request.as_bytes()).await.unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await.unwrap();
                answer
            })
        })
        .collect();
    proxy
        .state_until("three requests to be under way", |state| {
            state.requests.get(&old.address) == Some(&3)
        })
        .await;
    proxy.send_to(&[new.address], &[old.address]).await;
    assert!(!proxy.state().drained(proxy.routes.generation, &old.address));
    let hits = old.hits();
    assert!(body_of(&proxy.get("/").await).contains("new"));
    assert_eq!(old.hits(), hits, "a draining backend got a request");
    gate.add_permits(2);
    proxy
        .state_until("one to be left", |state| state.requests.get(&old.address) == Some(&1))
        .await;
    // A backend that left the routes is still counted.
    proxy.send_to(&[new.address], &[]).await;
    assert_eq!(proxy.state().requests.get(&old.address), Some(&1));
    gate.add_permits(1);
    proxy.drained(old.address).await;
    for answer in slow {
        assert!(body_of(&answer.await.unwrap()).contains("old"));
    }
    // A client that disconnects before its answer frees the place.
    proxy.send_to(&[old.address], &[]).await;
    let mut stream = proxy.connect().await;
    stream
        .write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    proxy
        .state_until("it to be under way", |state| {
            state.requests.get(&old.address) == Some(&1)
        })
        .await;
    drop(stream);
    proxy
        .state_until("it to be given up", |state| state.requests.is_empty())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_routes_leave_the_last_good_ones_in_force() {
    let (one, two) = (App::named("one", no_gate()).await, App::named("two", no_gate()).await);
    let mut proxy = Proxy::start(Mode::Http, &[one.address]).await;
    let good = serde_json::to_vec(&proxy.routes).unwrap();
    let traffic = Traffic::start(&proxy.url(), Duration::from_millis(1), str::to_string).unwrap();
    for bad in [
        &b"{"[..],
        b"",
        b"null",
        &good[..good.len() / 2],
        b"{\"generation\": 99}",
    ] {
        write(proxy.folder.path(), bad);
        let sent = traffic.so_far().sent;
        until("requests after the bad routes", BOUND, async || {
            let now = traffic.so_far().sent;
            Ok(if now > sent + 100 {
                Probe::Found(())
            } else {
                Probe::NotYet(format!("{now}"))
            })
        })
        .await
        .unwrap();
        assert_eq!(proxy.state().generation, proxy.routes.generation);
    }
    std::fs::remove_file(proxy.folder.path().join(ROUTES_FILE)).unwrap();
    assert!(body_of(&proxy.get("/").await).contains("one"));
    proxy.send_to(&[two.address], &[]).await;
    assert!(body_of(&proxy.get("/").await).contains("two"));
    let report = traffic.stop().await;
    assert!(report.failures.is_empty(), "{}", report.summary());
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_are_opened_and_closed_and_hosts_and_paths_lead_where_they_should() {
    let (web, api) = (App::named("web", no_gate()).await, App::named("api", no_gate()).await);
    let mut proxy = Proxy::start(Mode::Http, &[web.address]).await;
    let other = free_port();
    let mut second = listener(other, Mode::Http);
    second.rules = vec![Rule {
        host: Some("api.example.org".into()),
        path: "/v1".into(),
        path_type: PathType::Prefix,
        pool: "api".into(),
    }];
    proxy.routes.listeners.push(second);
    let backend = Backend {
        address: api.address,
        draining: false,
    };
    proxy.routes.pools.insert("api".into(), vec![backend]);
    proxy.tell().await;
    let ask = async |host: &str, path: &str| -> Result<String, std::io::Error> {
        let mut stream = TcpStream::connect(("127.0.0.1", other)).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    };
    until("the second port to be open", BOUND, async || {
        Ok(match ask("api.example.org", "/v1/x").await {
            Ok(answer) if body_of(&answer).contains("api") => Probe::Found(()),
            other => Probe::NotYet(format!("{other:?}")),
        })
    })
    .await
    .unwrap();
    let lost = ask("api.example.org", "/v2").await.unwrap();
    assert!(
        lost.starts_with("HTTP/1.1 404 ") && lost.contains("towpath: no route for this host and path"),
        "{lost}"
    );
    proxy.routes.listeners.pop();
    proxy.tell().await;
    until("the second port to be closed", BOUND, async || {
        Ok(match TcpStream::connect(("127.0.0.1", other)).await {
            Err(_) => Probe::Found(()),
            Ok(_) => Probe::NotYet("it is open".into()),
        })
    })
    .await
    .unwrap();
    assert!(body_of(&proxy.get("/").await).contains("web"));
}

// Protocols.

#[tokio::test(flavor = "multi_thread")]
async fn bodies_connections_and_headers_are_passed_on() {
    let app = App::named("app", no_gate()).await;
    let proxy = Proxy::start(Mode::Http, &[app.address]).await;
    // Several requests on one connection: with a length, chunked, and without a body.
    let mut stream = proxy.connect().await;
    stream
        .write_all(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello")
        .await
        .unwrap();
    let answer = read_until(&mut stream, "hello").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(
        !answer.contains("x-private"),
        "what is meant for one hop was passed on: {answer}"
    );
    stream
        .write_all(b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        .await
        .unwrap();
    // The first chunk comes back before the second is sent: the proxy does not wait for the end of a body.
    let answer = read_until(&mut stream, "abc\r\n").await;
    assert!(answer.to_lowercase().contains("transfer-encoding: chunked"), "{answer}");
    stream.write_all(b"4\r\ndefg\r\n0\r\n\r\n").await.unwrap();
    let answer = read_until(&mut stream, "0\r\n\r\n").await;
    assert!(answer.contains("defg"), "{answer}");
    stream.write_all(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let answer = read_until(&mut stream, "\r\n\r\n").await;
    assert!(answer.to_lowercase().contains("content-length: 3"), "{answer}");
    stream
        .write_all(b"GET /head HTTP/1.1\r\nHost: Claims.example.org\r\nX-Forwarded-For: 10.1.2.3\r\nKeep-Alive: 5\r\nX-Hop: 1\r\nConnection: x-hop, close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    for expected in [
        "\"host\": \"Claims.example.org\"",
        "\"10.1.2.3, 127.0.0.1\"",
        "\"x-forwarded-proto\": \"http\"",
    ] {
        assert!(answer.contains(expected), "no {expected} in {answer}");
    }
    for hop in ["x-hop", "keep-alive"] {
        assert!(!body_of(&answer).contains(hop), "{hop} was passed on: {answer}");
    }

    // Megabytes in both directions at once.
    let size = 8 << 20;
    let stream = proxy.connect().await;
    let (mut reader, mut writer) = stream.into_split();
    let sending = tokio::spawn(async move {
        let head = format!("POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n");
        writer.write_all(head.as_bytes()).await.unwrap();
        for block in 0..size / 4096 {
            writer
                .write_all(&[u8::try_from(block % 251).unwrap(); 4096])
                .await
                .unwrap();
        }
        writer
    });
    let mut answer = Vec::new();
    tokio::time::timeout(BOUND, reader.read_to_end(&mut answer))
        .await
        .unwrap()
        .unwrap();
    drop(sending.await.unwrap());
    let start = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    let body = &answer[start..];
    assert_eq!(body.len(), size);
    assert!(
        body.chunks(4096)
            .enumerate()
            .all(|(block, bytes)| bytes.iter().all(|byte| usize::from(*byte) == block % 251))
    );
}

/// Reads until the input contains `end`.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&text).contains(end) {
            text.push(stream.read_u8().await.unwrap());
        }
    };
    if tokio::time::timeout(BOUND, reading).await.is_err() {
        panic!("{end:?} did not come; {:?} did", String::from_utf8_lossy(&text));
    }
    String::from_utf8(text).unwrap()
}

/// An application that upgrades, greets, and echoes its input.
async fn upgrading() -> App {
    App::raw(|mut stream| async move {
        let head = head(&mut stream).await;
        assert!(head.to_lowercase().contains("upgrade: websocket"), "{head}");
        let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nwelcome";
        stream.write_all(answer.as_bytes()).await.unwrap();
        let (mut reader, mut writer) = stream.into_split();
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgraded_connection_lives_as_long_as_its_application() {
    let (old, new) = (upgrading().await, App::named("new", no_gate()).await);
    let mut proxy = Proxy::start(Mode::Http, &[old.address]).await;
    let mut stream = proxy.connect().await;
    stream
        .write_all(b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n")
        .await
        .unwrap();
    let answer = read_until(&mut stream, "welcome").await;
    assert!(
        answer.starts_with("HTTP/1.1 101 ") && answer.to_lowercase().contains("upgrade: websocket"),
        "{answer}"
    );
    let old_address = old.address;
    proxy
        .state_until("it to be a stream", |state| state.streams.get(&old_address) == Some(&1))
        .await;
    // An upgraded connection is no longer a request: draining does not wait for its end.
    proxy.send_to(&[new.address], &[old.address]).await;
    proxy.drained(old.address).await;
    stream.write_all(b"ping").await.unwrap();
    read_until(&mut stream, "ping").await;
    assert!(body_of(&proxy.get("/").await).contains("new"));
    drop(old);
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(BOUND, stream.read_to_end(&mut rest)).await;
    assert!(ended.is_ok() && rest.is_empty(), "{rest:?}");
    drop(stream);
    proxy
        .state_until("it to be over", |state| state.streams.is_empty())
        .await;
    // A client whose upgrade is refused gets the refusal.
    let plain = proxy
        .exchange("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\r\n")
        .await;
    assert!(plain.starts_with("HTTP/1.1 200 ") && plain.ends_with("new"), "{plain}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_no_http_are_spliced() {
    // The server speaks first, as databases do.
    let greeting = App::raw(|mut stream| async move {
        stream.write_all(b"+hello\n").await.unwrap();
        let (mut reader, mut writer) = stream.into_split();
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
    })
    .await;
    for mode in [Mode::Tcp, Mode::Detect] {
        let proxy = Proxy::start(mode, &[greeting.address]).await;
        let mut stream = proxy.connect().await;
        read_until(&mut stream, "+hello\n").await;
        stream.write_all(b"\0\x01GET").await.unwrap();
        read_until(&mut stream, "GET").await;
        let address = greeting.address;
        proxy
            .state_until("it to be counted", |state| state.streams.get(&address) == Some(&1))
            .await;
        // The proxy passes on the end of one direction, and the other continues.
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        tokio::time::timeout(BOUND, stream.read_to_end(&mut rest))
            .await
            .unwrap()
            .unwrap();
        proxy
            .state_until("it to be over", |state| state.streams.is_empty())
            .await;
    }
    // On a port without a declared protocol, the proxy detects HTTP and proxies it request by request.
    let web = App::named("web", no_gate()).await;
    let proxy = Proxy::start(Mode::Detect, &[web.address]).await;
    assert!(proxy.get("/head").await.contains("x-forwarded-for"));
    // A single first byte must not lead to a wrong decision.
    let mut stream = proxy.connect().await;
    for byte in b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" {
        stream.write_all(&[*byte]).await.unwrap();
        stream.flush().await.unwrap();
    }
    assert!(read_until(&mut stream, "web").await.starts_with("HTTP/1.1 200 "));
}

// Dying applications.

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_safe_is_sent_to_another_backend() {
    // The application reads the whole request, and then closes the connection.
    let dying = App::raw(|mut stream| async move {
        let head = head(&mut stream).await;
        if head.contains("ontent-length: 4") {
            let _ = stream.read_exact(&mut [0; 4]).await;
        }
    })
    .await;
    let well = App::named("well", no_gate()).await;
    let mut proxy = Proxy::start(Mode::Http, &[dying.address]).await;
    // Another backend becomes ready during the first attempt: a retry would find it.
    proxy.send_to(&[dying.address, well.address], &[]).await;
    let mut died = 0;
    let mut lost = 0;
    for _ in 0..24 {
        let before = dying.hits();
        let answer = proxy.get("/").await;
        assert!(
            answer.starts_with("HTTP/1.1 200 ") && body_of(&answer).contains("well"),
            "{answer}"
        );
        died += dying.hits() - before;
    }
    assert!(died > 0, "no request ever came to the one that dies");
    // The proxy does not repeat a request that may have had an effect: all backends together see each POST once.
    for body in ["", "data"] {
        for _ in 0..24 {
            let before = (dying.hits(), well.hits());
            let length = body.len();
            let answer = proxy
                .exchange(&format!(
                    "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
                ))
                .await;
            let seen = (dying.hits() - before.0) + (well.hits() - before.1);
            assert_eq!(seen, 1, "{answer}");
            if dying.hits() > before.0 {
                lost += 1;
                assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
                assert!(
                    answer.contains("towpath: the application closed the connection before it answered"),
                    "{answer}"
                );
            } else {
                assert!(body_of(&answer).contains("well"), "{answer}");
            }
        }
    }
    assert!(lost > 0, "no POST ever came to the one that dies");
    // An unreachable backend received nothing, so a POST may go to another.
    let nobody = SocketAddr::from(([127, 0, 0, 1], free_port()));
    proxy.send_to(&[nobody, well.address], &[]).await;
    for _ in 0..24 {
        let answer = proxy
            .exchange("POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 4\r\n\r\ndata")
            .await;
        assert!(
            answer.starts_with("HTTP/1.1 200 ") && answer.contains("data"),
            "{answer}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_does_not_look_whole() {
    let half = App::raw(|mut stream| async move {
        let chunked = head(&mut stream).await.contains("/chunked");
        let begin = if chunked {
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"
        } else {
            "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf"
        };
        stream.write_all(begin.as_bytes()).await.unwrap();
    })
    .await;
    let proxy = Proxy::start(Mode::Http, &[half.address]).await;
    for path in ["/chunked", "/length"] {
        let mut stream = proxy.connect().await;
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // The connection is reset or ends, but without the last chunk or the promised length.
        let _ = tokio::time::timeout(BOUND, stream.read_to_end(&mut answer))
            .await
            .unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 200 ") && !answer.ends_with("0\r\n\r\n"),
            "{answer}"
        );
        assert!(body_of(&answer).len() < "4\r\nhalf\r\n0\r\n\r\n".len(), "{answer}");
    }
    // The answer had begun, so the proxy does not repeat the request.
    assert_eq!(half.hits(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_nobody_ready_a_request_waits_and_then_says_so() {
    let app = App::named("app", no_gate()).await;
    let mut proxy = Proxy::start(Mode::Http, &[]).await;
    let began = Instant::now();
    let answer = proxy.get("/").await;
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.contains("text/plain"),
        "{answer}"
    );
    assert!(
        body_of(&answer).contains("towpath: no instance of the application is ready\n"),
        "{answer}"
    );
    assert!(began.elapsed() >= Duration::from_secs(4), "{:?}", began.elapsed());
    // A backend that becomes ready meanwhile answers.
    let address = proxy.address();
    let waiting = tokio::spawn(async move {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 4\r\n\r\ndata")
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    });
    proxy.send_to(&[], &[app.address]).await;
    assert!(
        !waiting.is_finished() && app.hits() == 0,
        "a draining backend got a request"
    );
    proxy.send_to(&[app.address], &[]).await;
    let answer = waiting.await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("data"),
        "{answer}"
    );
    // If no backend is reachable, the answer names the reason.
    let nobody = SocketAddr::from(([127, 0, 0, 1], free_port()));
    proxy.send_to(&[nobody], &[]).await;
    let answer = proxy.get("/").await;
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.contains("Connection refused"),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn at_sigterm_what_is_under_way_is_ended_and_nothing_new_is_taken() {
    let gate = no_gate();
    let app = App::named("app", gate.clone()).await;
    let mut proxy = Proxy::start(Mode::Http, &[app.address]).await;
    let (mut idle, mut busy) = (proxy.connect().await, proxy.connect().await);
    idle.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    read_until(&mut idle, "app").await;
    busy.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    proxy
        .state_until("one to be under way", |state| {
            state.requests.get(&app.address) == Some(&1)
        })
        .await;
    let id = proxy.child.id().unwrap().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &id])
            .status()
            .await
            .unwrap()
            .success()
    );
    // An idle connection ends at once.
    let mut rest = Vec::new();
    tokio::time::timeout(BOUND, idle.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap();
    until("new connections to be refused", BOUND, async || {
        Ok(match TcpStream::connect(proxy.address()).await {
            Err(_) => Probe::Found(()),
            Ok(_) => Probe::NotYet("it still listens".into()),
        })
    })
    .await
    .unwrap();
    gate.add_permits(1);
    let mut answer = String::new();
    tokio::time::timeout(BOUND, busy.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("app"),
        "{answer}"
    );
    let ended = tokio::time::timeout(BOUND, proxy.child.wait())
        .await
        .expect("the proxy to end")
        .unwrap();
    assert!(ended.success(), "{ended}");
}

/// Whatever a client sends, the proxy survives and answers the next client.
#[tokio::test(flavor = "multi_thread")]
async fn nonsense_does_no_harm() {
    let app = App::named("app", no_gate()).await;
    let proxy = Proxy::start(Mode::Http, &[app.address]).await;
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(1 << 20));
    let seen = Mutex::new(Vec::new());
    for nonsense in [
        "\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: \u{7f}\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET http://elsewhere.example.org/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        &long,
    ] {
        let mut stream = proxy.connect().await;
        let _ = stream.write_all(nonsense.as_bytes()).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(BOUND, stream.read_to_end(&mut answer))
            .await
            .expect("an end");
        seen.lock().unwrap().push(
            String::from_utf8_lossy(&answer)
                .lines()
                .next()
                .unwrap_or_default()
                .to_string(),
        );
        let next = proxy.get("/").await;
        assert!(
            body_of(&next).contains("app"),
            "after {:?}: {next}",
            nonsense.chars().take(60).collect::<String>()
        );
    }
    proxy
        .state_until("nothing to be left over", |state| state.requests.is_empty())
        .await;
    let seen = seen.into_inner().unwrap();
    let refused = seen.iter().filter(|line| line.starts_with("HTTP/1.1 4")).count();
    assert!(refused >= 5, "{seen:?}");
}
