//! Projects and their pipelines.

use crate::{
    App,
    answer::{Answer, project},
    auth::Caller,
};
use axum::{
    Extension, Json, Router,
    extract::{Path, Query, State},
    routing::get,
};
use serde_json::{Value, json};
use towpath_control::{PipelineView, ProjectView};

/// How many pipelines one answer lists by default.
const PIPELINES: u32 = 20;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/api/towpath/projects", get(projects).post(create))
        .route("/api/towpath/projects/{project}/pipelines", get(pipelines))
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
    Json(new): Json<NewProject>,
) -> Answer<Value> {
    let name = project(&new.name)?;
    app.create_project(&name, &caller.name).await?;
    Ok(Json(json!({ "name": name })))
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
