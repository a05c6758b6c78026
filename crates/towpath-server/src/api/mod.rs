//! Towpath's own API, a file for each noun: what the command line and other programs call.
//!
//! Statuses are our own words, as the enums of `towpath-types` write themselves. `GET` answers from rows; whoever wants the
//! world to be looked at now says so with `POST`.

mod board;
mod contexts;
mod environments;
mod gates;
mod jobs;
mod laptop;
mod locks;
mod projects;
mod releases;
mod runs;
mod secrets;
mod values;
mod work;

use crate::App;
use axum::Router;

pub(crate) fn routes() -> Router<App> {
    board::routes()
        .merge(projects::routes())
        .merge(gates::routes())
        .merge(jobs::routes())
        .merge(environments::routes())
        .merge(releases::routes())
        .merge(runs::routes())
        .merge(locks::routes())
        .merge(secrets::routes())
        .merge(contexts::routes())
        .merge(work::routes())
}
