//! The routers, and the sockets that they listen on.

use crate::{
    App, PAGES, agents, api, auth, circleci,
    connections::{self, Limits},
    events, git, pages,
    to_its_end::to_its_end,
};
use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    http::{StatusCode, Uri, Version, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
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

/// Why the server could not start to serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The server could not create the agents' socket.
    #[error("failed to make the agents' socket `{}`", path.display())]
    Socket {
        /// The path of the socket.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
}

/// How long a request may take that needs no sign-in, its body included.
const OPEN_REQUEST: Duration = Duration::from_secs(10);
/// The largest body of such a request.
const LARGEST_OPEN_BODY: usize = 16 << 10;

/// All routes of the public address.
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
        // These are not detached from their client: git ends with its client.
        .merge(git::routes())
        .layer(middleware::from_fn_with_state(app.clone(), auth::while_allowed))
        .layer(middleware::from_fn_with_state(app.clone(), auth::require_owner));
    // The registry authenticates its own requests, with its own answers.
    let registry = towpath_images::router(app.registry.clone())
        .layer(middleware::from_fn_with_state(app.clone(), auth::while_allowed));
    owned
        .merge(
            pages::open_routes()
                .layer(middleware::from_fn(to_its_end))
                .layer(DefaultBodyLimit::max(LARGEST_OPEN_BODY))
                .layer(middleware::from_fn(in_time)),
        )
        .with_state(app)
        .merge(registry)
        .layer(middleware::from_fn(one_host))
}

/// Refuses a request that does not say exactly once for which host it is. What stands before this server could otherwise read
/// another host than this server does.
///
/// Source: <https://www.rfc-editor.org/rfc/rfc9112#section-3.2-6>
async fn one_host(request: Request, next: Next) -> Response {
    let hosts = request.headers().get_all(header::HOST).iter().count();
    let must_have = request.version() >= Version::HTTP_11;
    if hosts > 1 || (hosts == 0 && must_have) {
        let close = [(header::CONNECTION, "close")];
        let text = format!("a request has one Host header, and this one has {hosts}");
        return (StatusCode::BAD_REQUEST, close, text).into_response();
    }
    next.run(request).await
}

/// Ends the request of somebody who has not signed in and takes too long over it: everybody shares the connections.
async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(OPEN_REQUEST, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let close = [(header::CONNECTION, "close")];
            (
                StatusCode::REQUEST_TIMEOUT,
                close,
                "the request took too long to arrive",
            )
                .into_response()
        }
    }
}

/// All routes of the agents' socket.
pub fn agent_router(app: App) -> Router {
    agents::routes()
        .layer(middleware::from_fn(to_its_end))
        .layer(middleware::from_fn_with_state(app.clone(), auth::while_allowed))
        .with_state(app)
}

/// Serves both routers until `shutdown`.
///
/// # Errors
/// When the agents' socket cannot be created.
pub async fn serve(app: App, listener: TcpListener, shutdown: CancellationToken) -> Result<(), ServeError> {
    let socket = agent_listener(&app.agent_socket)?;
    let agents = connections::serve(socket, agent_router(app.clone()), Limits::default(), shutdown.clone());
    let agents = tokio::spawn(agents);
    let service = MapRequestLayer::new(collapse_slashes).layer(router(app));
    connections::serve(listener, service, Limits::default(), shutdown).await;
    agents.abort();
    Ok(())
}

/// Removes double slashes: a client whose server address ends with a slash asks for `//api/v3/…`.
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
    // Job containers run as any user. The token of the job protects each request.
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).map_err(failed)?;
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).map_err(failed)?;
    Ok(listener)
}
