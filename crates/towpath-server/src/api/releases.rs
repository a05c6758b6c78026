//! Releases: planning, starting, rolling back and following them.

use super::{
    environments::Where,
    laptop::{self, Laptop},
};
use crate::{
    App,
    answer::{Answer, Object, environment as environment_id, id},
    auth::Caller,
};
use axum::{
    Extension, Json, Router,
    extract::{Path, Query, State},
    routing::{get, post},
};
use towpath_control::ProgressView;
use towpath_delivery::{AdoptionView, PlanView, ReleaseView, plan_digest};
use towpath_types::ReleaseId;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/api/towpath/environments/{project}/{environment}/plan", post(plan))
        .route("/api/towpath/environments/{project}/{environment}/adopt", post(adopt))
        .route("/api/towpath/environments/{project}/{environment}/deploy", post(deploy))
        .route(
            "/api/towpath/environments/{project}/{environment}/rollback",
            post(rollback),
        )
        .route(
            "/api/towpath/environments/{project}/{environment}/history",
            get(history),
        )
        .route("/api/towpath/releases/{id}/progress", get(progress))
        .layer(laptop::limit())
}

async fn plan(State(app): State<App>, Path((project, name)): Where, Laptop(request): Laptop) -> Answer<PlanView> {
    let id = environment_id(&project, &name)?;
    let plan = app.delivery.planner.plan_of_request(&id, request).await?;
    Ok(Json(PlanView::from(plan)))
}

/// What a deployment would take over. Changes nothing.
async fn adopt(State(app): State<App>, Path((project, name)): Where, Laptop(request): Laptop) -> Answer<AdoptionView> {
    let id = environment_id(&project, &name)?;
    Ok(Json(app.delivery.planner.adoption(&id, request).await?))
}

async fn deploy(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path((project, name)): Where,
    Laptop(request): Laptop,
) -> Answer<ReleaseView> {
    let id = environment_id(&project, &name)?;
    let release = app.delivery.releases.deploy(&id, request, &caller.actor()).await?;
    Ok(Json(ReleaseView::from(&release)))
}

#[derive(serde::Deserialize)]
struct Back {
    /// The number of the release to go back to; without it, the one before the current.
    to: Option<i64>,
    /// The whole digest of the plan that the caller was shown.
    plan: Option<String>,
}

async fn rollback(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path((project, name)): Where,
    Object(Back { to, plan }): Object<Back>,
) -> Answer<ReleaseView> {
    let id = environment_id(&project, &name)?;
    let shown = plan.as_deref().map(plan_digest).transpose()?;
    let releases = &app.delivery.releases;
    let release = releases.rollback(&id, to, shown.as_ref(), &caller.actor()).await?;
    Ok(Json(ReleaseView::from(&release)))
}

async fn history(State(app): State<App>, Path((project, name)): Where) -> Answer<Vec<ReleaseView>> {
    Ok(Json(app.queries.history(&environment_id(&project, &name)?).await?))
}

/// The place in a release's lines where a reader left off.
#[derive(serde::Deserialize)]
pub(super) struct Start {
    #[serde(default)]
    pub from: u64,
}

async fn progress(
    State(app): State<App>,
    Path(release): Path<String>,
    Query(Start { from }): Query<Start>,
) -> Answer<ProgressView> {
    let release: ReleaseId = id(&release, "release")?;
    Ok(Json(app.progress.of_release(release, from).await?))
}
