//! Towpath's own API, one file for each noun. The command line and other programs call it.
//!
//! Statuses are our own words, as the enums of `towpath-types` write themselves. `GET` answers from rows; a caller that wants a
//! fresh look at the world uses `POST`.

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
