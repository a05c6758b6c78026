//! What CircleCI's own clients call: API v2, the orbs of API v3, the older command line's GraphQL, and the endpoints that
//! compile a configuration.
//!
//! Field names are CircleCI's, and so are the words for statuses, which [`words`] translates.

mod compile;
mod graphql;
mod orbs;
mod organisation;
mod v2;
pub mod words;

use crate::App;
use axum::Router;

/// Everything, for the owner.
pub(crate) fn routes() -> Router<App> {
    v2::routes()
        .merge(orbs::routes())
        .merge(compile::routes())
        .merge(graphql::routes())
}
