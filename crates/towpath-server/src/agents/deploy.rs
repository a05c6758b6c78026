//! A step's `towpath deploy`, and the lines of the release that it began.

use super::speaker::Step;
use crate::{
    App,
    answer::{Answer, Object, id},
};
use axum::{
    Json, Router,
    extract::{Path, Query, State},
    routing::{get, post},
};
use serde_json::{Value, json};
use towpath_control::ProgressView;
use towpath_delivery::DeliveryError;
use towpath_types::ReleaseId;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/agent/v1/deploy", post(deploy))
        .route("/agent/v1/releases/{id}/progress", get(progress))
}

#[derive(serde::Deserialize)]
struct Deploy {
    environment: String,
}

async fn deploy(
    State(app): State<App>,
    Step(node): Step,
    Object(Deploy { environment }): Object<Deploy>,
) -> Answer<Value> {
    let release = app.delivery.releases.deploy_for_job(node.job, &environment).await?;
    // The environment already runs what this request asks for, so there is no release to follow.
    let is_repeat = release.status.is_over() && release.job != Some(node.job);
    let number = release.number;
    let repeated =
        is_repeat.then(|| format!("nothing to change: release {number} of {environment} is exactly this, and it runs"));
    Ok(Json(json!({ "id": release.id, "repeated": repeated })))
}

#[derive(serde::Deserialize)]
struct Start {
    #[serde(default)]
    from: u64,
}

async fn progress(
    State(app): State<App>,
    Step(node): Step,
    Path(release): Path<String>,
    Query(Start { from }): Query<Start>,
) -> Answer<ProgressView> {
    let release: ReleaseId = id(&release, "release")?;
    // A job may follow only its own releases.
    let row = app.store.release(release).await.map_err(DeliveryError::from)?;
    let is_its_own = row.is_some_and(|row| row.job == Some(node.job));
    if !is_its_own {
        return Err(DeliveryError::not_found(format!("there is no release {release}")).into());
    }
    Ok(Json(app.progress.of_release(release, from).await?))
}
