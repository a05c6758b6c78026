//! Projects and their pipelines.

use crate::{
    App,
    answer::{Answer, Object, project},
    auth::Caller,
};
use axum::{
    Extension, Json, Router,
    extract::{Path, Query, State},
    routing::get,
};
use serde_json::{Value, json};
use towpath_control::{PipelineView, ProjectView};
use towpath_delivery::DeliveryError;

/// How many pipelines one answer lists by default.
const PIPELINES: u32 = 20;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/api/towpath/projects", get(projects).post(create))
        .route("/api/towpath/projects/{project}/pipelines", get(pipelines))
        .route(
            "/api/towpath/projects/{project}/default-branch",
            get(default_branch).post(set_default_branch),
        )
}

async fn projects(State(app): State<App>) -> Answer<Vec<ProjectView>> {
    Ok(Json(app.queries.projects().await?))
}

#[derive(serde::Deserialize)]
struct NewProject {
    name: String,
}

async fn create(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Object(new): Object<NewProject>,
) -> Answer<Value> {
    let name = project(&new.name)?;
    app.create_project(&name, &caller.name).await?;
    Ok(Json(json!({ "name": name })))
}

#[derive(serde::Serialize, serde::Deserialize)]
struct DefaultBranch {
    branch: String,
}

async fn default_branch(State(app): State<App>, Path(name): Path<String>) -> Answer<DefaultBranch> {
    let name = project(&name)?;
    let row = app.store.project(&name).await.map_err(DeliveryError::from)?;
    let row = row.ok_or_else(|| DeliveryError::not_found(format!("there is no project `{name}`")))?;
    let branch = row.default_branch;
    Ok(Json(DefaultBranch { branch }))
}

async fn set_default_branch(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Object(DefaultBranch { branch }): Object<DefaultBranch>,
) -> Answer<DefaultBranch> {
    let name = project(&name)?;
    app.triggers.set_default_branch(&name, &branch, &caller.name).await?;
    Ok(Json(DefaultBranch { branch }))
}

#[derive(serde::Deserialize)]
struct Page {
    /// Only pipelines with lower numbers.
    before: Option<i64>,
    limit: Option<u32>,
}

async fn pipelines(
    State(app): State<App>,
    Path(name): Path<String>,
    Query(Page { before, limit }): Query<Page>,
) -> Answer<Vec<PipelineView>> {
    let limit = limit.unwrap_or(PIPELINES);
    Ok(Json(app.queries.pipelines(&project(&name)?, before, limit).await?))
}
