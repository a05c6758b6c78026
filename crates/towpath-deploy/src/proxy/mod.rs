//! The reverse proxy in front of a Service or an Ingress: a process of its own, in a container of its own.
//!
//! Its whole configuration is [`Routes`], a file that the supervisor replaces. Its whole report is [`ProxyState`], a file that
//! the proxy replaces. The two share only the directory with these files, so either can die and come back.
//!
//! **Invariants.** A backend that is draining or gone from the routes gets no new request and finishes those that it has. Once
//! `state.json` names a generation, the proxy sends nothing more to backends that left in it. A request fails only if its
//! backend died after it began to answer, if its backend died with a request that may not be sent twice, or if no backend was
//! ready for five seconds.
//!
//! It does not terminate TLS, and it knows nothing of pods, probes or releases.

mod backends;
mod cookies;
mod http;
mod port;
mod routes;
mod tcp;

pub(crate) use routes::replace_file;
pub use routes::{Backend, Listener, Mode, PathType, ProxyState, ROUTES_FILE, Routes, Rule, STATE_FILE};

use backends::Backends;
use port::Port;
use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How often to check the routes file.
const POLL: Duration = Duration::from_millis(50);
/// How often to write the counts while nobody waits for them.
const REPORT: Duration = Duration::from_secs(1);
/// How long requests may continue after SIGTERM.
const LAST_REQUESTS: Duration = Duration::from_secs(25);
/// On a port without a declared protocol, a client that stays silent for this long is assumed to wait for the server to speak
/// first.
const SILENCE: Duration = Duration::from_secs(1);

/// The options of a proxy.
#[derive(Debug, Clone)]
pub struct ProxyOptions {
    /// The directory with `routes.json`, in which the proxy writes `state.json`.
    pub routes_dir: PathBuf,
}

/// Why a proxy cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The routes file exists but cannot be read or parsed.
    #[error("failed to read the routes in `{}`", path.display())]
    Routes {
        /// The path of the routes file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The handler for SIGTERM could not be installed.
    #[error("failed to listen for signals")]
    Signals(#[source] io::Error),
}

/// Serves the routes in `options.routes_dir` until SIGTERM or SIGINT. Then lets open requests finish, for 25 seconds at most.
///
/// Waits for a missing routes file. If the file becomes invalid later, the previous routes stay in force.
///
/// # Errors
/// When signal handlers cannot be installed. A port that cannot be opened is logged and retried.
pub async fn run(options: ProxyOptions) -> Result<(), ProxyError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(ProxyError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ProxyError::Signals)?;
    let stop = CancellationToken::new();
    let serving = tokio::spawn(serve(options, stop.clone()));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    stop.cancel();
    let _ = serving.await;
    Ok(())
}

/// Distinguishes two versions of a file without reading it.
type Identity = (u64, u64, SystemTime);

fn identity(path: &Path) -> Option<Identity> {
    let found = std::fs::metadata(path).ok()?;
    Some((found.ino(), found.len(), found.modified().ok()?))
}

fn load(path: &Path) -> Result<Routes, ProxyError> {
    let failed = |source| ProxyError::Routes {
        path: path.to_path_buf(),
        source,
    };
    let text = std::fs::read(path).map_err(failed)?;
    serde_json::from_slice(&text).map_err(|error| failed(error.into()))
}

async fn serve(options: ProxyOptions, stop: CancellationToken) {
    let backends = Arc::new(Backends::new());
    let connections = TaskTracker::new();
    let client = http::client();
    let mut open: HashMap<u16, (JoinHandle<()>, CancellationToken, Mode)> = HashMap::new();
    let path = options.routes_dir.join(ROUTES_FILE);
    let mut seen = None;
    let mut told: Option<ProxyState> = None;
    let mut told_at = Instant::now();
    let mut tick = tokio::time::interval(POLL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = tick.tick() => {}
        }
        let now = identity(&path);
        if now.is_some() && now != seen {
            seen = now;
            match load(&path) {
                Ok(routes) => backends.replace(routes),
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "the routes before stay in force"
                    );
                }
            }
        }
        let wanted = backends.listeners();
        open.retain(|port, (task, cancel, mode)| {
            let keep = wanted.iter().any(|l| l.port == *port && l.mode == *mode) && !task.is_finished();
            if !keep {
                cancel.cancel();
                task.abort();
            }
            keep
        });
        for listener in wanted {
            if open.contains_key(&listener.port) {
                continue;
            }
            match bind(listener.port) {
                Ok(socket) => {
                    let cancel = stop.child_token();
                    let door = Door {
                        port: Port {
                            number: listener.port,
                            backends: Arc::clone(&backends),
                            connections: connections.clone(),
                            stop: cancel.clone(),
                        },
                        mode: listener.mode,
                        client: client.clone(),
                    };
                    open.insert(
                        listener.port,
                        (tokio::spawn(door.accept(socket)), cancel, listener.mode),
                    );
                }
                Err(error) => tracing::warn!(port = listener.port, %error, "cannot listen yet"),
            }
        }
        // Write the state if the generation has changed, and while somebody may wait for a drain.
        let state = backends.state();
        let urgent = told.as_ref().is_none_or(|told| told.generation != state.generation)
            || backends.something_drains()
            || told_at.elapsed() >= REPORT;
        if urgent && told.as_ref() != Some(&state) {
            match replace_file(&options.routes_dir, STATE_FILE, &state) {
                Ok(()) => {
                    told = Some(state);
                    told_at = Instant::now();
                }
                Err(error) => tracing::warn!(%error, "cannot write the proxy's state"),
            }
        }
    }
    connections.close();
    if tokio::time::timeout(LAST_REQUESTS, connections.wait()).await.is_err() {
        tracing::warn!("connections were still open when the proxy ended");
    }
}

fn bind(port: u16) -> io::Result<TcpListener> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?;
    socket.listen(4096)
}

/// A port, and how to detect the protocol of its connections.
#[derive(Clone)]
struct Door {
    port: Port,
    mode: Mode,
    client: http::Client,
}

impl Door {
    async fn accept(self, socket: TcpListener) {
        loop {
            let accepted = tokio::select! {
                () = self.port.stop.cancelled() => return,
                accepted = socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let door = self.clone();
                    self.port.connections.spawn(door.connection(stream, peer));
                }
                Err(error) => {
                    // Most likely out of file descriptors: accepting again at once would spin.
                    tracing::warn!(port = self.port.number, %error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn connection(self, stream: TcpStream, peer: SocketAddr) {
        let _ = stream.set_nodelay(true);
        let is_http = match self.mode {
            Mode::Http => true,
            Mode::Tcp => false,
            Mode::Detect => tokio::select! {
                () = self.port.stop.cancelled() => return,
                begins = begins_like_http(&stream) => begins,
            },
        };
        if is_http {
            http::connection(self.port, self.client, stream, peer).await;
        } else {
            tcp::connection(self.port, stream).await;
        }
    }
}

/// A request line begins with a method in capitals. `PRI` is HTTP/2's preface, which is better spliced. A silent client waits
/// for the server to speak first, as a database's client does.
async fn begins_like_http(stream: &TcpStream) -> bool {
    let mut first = [0; 4];
    match tokio::time::timeout(SILENCE, stream.peek(&mut first)).await {
        Ok(Ok(count)) => {
            count > 0 && first[..count].iter().all(|b| b.is_ascii_uppercase() || *b == b' ') && &first != b"PRI "
        }
        Ok(Err(_)) | Err(_) => false,
    }
}
