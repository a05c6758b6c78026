//! The routers, and the sockets that they answer on.

use crate::{App, PAGES, agents, api, auth, circleci, events, git, pages, to_its_end::to_its_end};
use axum::{Router, ServiceExt, extract::Request, http::Uri, middleware};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use std::{
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;
use tower::{Layer, util::MapRequestLayer};

/// How long open requests may take to end once the server stops.
const GRACE: Duration = Duration::from_secs(3);

/// Why the server could not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The agents' socket could not be made.
    #[error("failed to make the agents' socket `{}`", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Connections are no longer accepted.
    #[error("failed to accept connections")]
    Accept(#[source] io::Error),
}

/// Everything behind the public address.
pub fn router(app: App) -> Router {
    let shown = pages::routes()
        .layer(middleware::from_fn(to_its_end))
        .merge(events::routes());
    let owned = Router::new()
        .merge(api::routes())
        .merge(circleci::routes())
        .layer(middleware::from_fn(to_its_end))
        .merge(shown.clone())
        .nest(PAGES, shown)
        // Git ends with its client.
        .merge(git::routes())
        .layer(middleware::from_fn_with_state(app.clone(), auth::require_owner));
    let asked = circleci::open_routes()
        .layer(middleware::from_fn(to_its_end))
        .layer(middleware::from_fn_with_state(app.clone(), auth::identify));
    // The registry asks for credentials by itself, in its own words.
    let registry = towpath_images::router(app.registry.clone());
    owned
        .merge(asked)
        .merge(pages::open_routes())
        .with_state(app)
        .merge(registry)
}

/// Everything behind the agents' socket.
pub fn agent_router(app: App) -> Router {
    agents::routes().layer(middleware::from_fn(to_its_end)).with_state(app)
}

/// Serves both until `shutdown`.
///
/// # Errors
/// When a socket cannot be made or accepted from.
pub async fn serve(app: App, listener: TcpListener, shutdown: CancellationToken) -> Result<(), ServeError> {
    let socket = agent_listener(&app.agent_socket)?;
    let agents = tokio::spawn(accept_agents(socket, agent_router(app.clone()), shutdown.clone()));
    let stop = shutdown.clone();
    let service = MapRequestLayer::new(collapse_slashes).layer(router(app));
    let server = axum::serve(listener, ServiceExt::<Request>::into_make_service(service))
        .with_graceful_shutdown(async move { stop.cancelled().await });
    let outcome = tokio::select! {
        result = server.into_future() => result.map_err(ServeError::Accept),
        // Long polls and event streams end with their clients: do not wait for them for ever.
        () = async { shutdown.cancelled().await; tokio::time::sleep(GRACE).await } => Ok(()),
    };
    agents.abort();
    outcome
}

/// A client that is given an address with a slash at its end asks for `//api/v3/…`.
fn collapse_slashes(mut request: Request) -> Request {
    if request.uri().path().starts_with("//") {
        let rest = request.uri().path_and_query().map_or("/", |all| all.as_str());
        if let Ok(uri) = format!("/{}", rest.trim_start_matches('/')).parse::<Uri>() {
            *request.uri_mut() = uri;
        }
    }
    request
}

fn agent_listener(path: &Path) -> Result<UnixListener, ServeError> {
    let failed = |source| ServeError::Socket {
        path: path.to_path_buf(),
        source,
    };
    let folder = path.parent().unwrap_or(path);
    std::fs::create_dir_all(folder).map_err(failed)?;
    // Job containers run as any user. Each request shows its job's token.
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).map_err(failed)?;
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).map_err(failed)?;
    Ok(listener)
}

async fn accept_agents(listener: UnixListener, router: Router, shutdown: CancellationToken) {
    loop {
        let stream = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, for example: try again.
                    tracing::error!(%error, "failed to accept an agent's connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            // An agent may go away at any time.
            let _ = auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}
