//! Locks, by which a person keeps others from deploying to an environment.

use super::environments::Where;
use crate::{
    App,
    answer::{Answer, Failure, Object, environment as environment_id},
    auth::Caller,
};
use axum::{
    Extension, Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    routing::post,
};
use jiff::SignedDuration;
use towpath_delivery::Hold;
use towpath_types::EnvironmentId;

pub(super) fn routes() -> Router<App> {
    Router::new().route(
        "/api/towpath/environments/{project}/{environment}/lock",
        post(lock).delete(unlock),
    )
}

#[derive(serde::Deserialize)]
struct NewLock {
    reason: String,
    seconds: i64,
}

async fn lock(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path((project, name)): Where,
    Object(NewLock { reason, seconds }): Object<NewLock>,
) -> Answer<Hold> {
    let id = environment_id(&project, &name)?;
    let lasts = SignedDuration::from_secs(seconds);
    let hold = app.delivery.locks.lock(&id, &reason, lasts, &caller.actor()).await?;
    show(&app, &id).await;
    Ok(Json(hold))
}

/// Refreshes what pages show about the lock. If this fails, the next poll refreshes it.
async fn show(app: &App, id: &EnvironmentId) {
    if let Err(error) = app.delivery.observer.observe(id).await {
        tracing::warn!(environment = %id, error = error.chain(), "failed to look at an environment");
    }
}

#[derive(serde::Deserialize)]
struct Unlock {
    /// Whether to end somebody else's lock, too.
    #[serde(default)]
    force: bool,
}

async fn unlock(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path((project, name)): Where,
    Query(Unlock { force }): Query<Unlock>,
) -> Result<StatusCode, Failure> {
    let id = environment_id(&project, &name)?;
    app.delivery.locks.unlock(&id, force, &caller.actor()).await?;
    show(&app, &id).await;
    Ok(StatusCode::NO_CONTENT)
}
