//! The pages, one file each. They work without scripts; the script only refreshes them.
//!
//! **Invariant:** a page shows rows as they were last read or made, and asks nobody else.

mod assets;
mod board;
mod diff;
mod environment;
mod files;
mod gate;
mod job;
mod layout;
mod login;
mod pipeline;
mod plan;
mod problem;
mod status;
mod text;

use crate::App;
use axum::{
    Router,
    http::{HeaderValue, header},
    middleware,
    response::Response,
};

/// Pages behind the sign-in.
pub(crate) fn routes() -> Router<App> {
    board::routes()
        .merge(pipeline::routes())
        .merge(job::routes())
        .merge(environment::routes())
        .merge(gate::routes())
        .merge(files::routes())
        .merge(login::owned_routes())
        .layer(middleware::map_response(secure))
}

/// The routes that need no sign-in.
pub(crate) fn open_routes() -> Router<App> {
    login::routes()
        .merge(assets::routes())
        .layer(middleware::map_response(secure))
}

async fn secure(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let policy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self'; \
                  frame-ancestors 'none'; base-uri 'none'";
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}
