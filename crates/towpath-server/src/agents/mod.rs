//! The agents' socket: [`towpath_protocol`], git's hooks, and a step's `towpath deploy`.

mod deploy;
mod fetch;
mod files;
mod hooks;
mod protocol;
mod speaker;

use crate::App;
use axum::{Router, extract::DefaultBodyLimit};
use towpath_protocol::LARGEST_BODY_BYTES;

pub(crate) fn routes() -> Router<App> {
    protocol::routes()
        .merge(files::routes())
        .merge(deploy::routes())
        .merge(fetch::routes())
        .merge(hooks::routes())
        .layer(DefaultBodyLimit::max(LARGEST_BODY_BYTES))
}
