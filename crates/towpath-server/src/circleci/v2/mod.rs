//! The part of CircleCI's API v2 that existing clients use for pipelines, workflows and jobs.
//!
//! Source: <https://circleci.com/docs/api/v2/>

mod answer;
mod jobs;
mod pipelines;
mod projects;
mod workflows;

use crate::App;
use axum::Router;

pub(super) fn routes() -> Router<App> {
    projects::routes()
        .merge(pipelines::routes())
        .merge(workflows::routes())
        .merge(jobs::routes())
}
