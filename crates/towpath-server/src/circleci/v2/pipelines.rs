//! Lists, reads and triggers pipelines.

use super::answer::{Numbered, Slug, list, number};
use crate::{
    App,
    answer::{Answer, Failure, id},
    auth::Caller,
    circleci::{
        organisation::{project_of, project_slug},
        words,
    },
};
use axum::{
    Extension, Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    routing::get,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::time::Duration;
use towpath_control::{PipelineView, WorkflowView};
use towpath_delivery::DeliveryError;
use towpath_types::PipelineId;

/// How many pipelines one page has.
const PAGE: u32 = 50;
/// How long a trigger request waits until its pipeline exists.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route(
            "/api/v2/project/{vcs}/{org}/{project}/pipeline",
            get(pipelines).post(trigger),
        )
        .route(
            "/api/v2/project/{vcs}/{org}/{project}/pipeline/{number}",
            get(pipeline_by_number),
        )
        .route("/api/v2/pipeline/{id}", get(pipeline))
        .route("/api/v2/pipeline/{id}/workflow", get(workflows))
        .route("/api/v2/pipeline/{id}/config", get(config))
}

fn pipeline_json(view: &PipelineView) -> Value {
    let errors: Vec<Value> = view
        .errors
        .iter()
        .map(|error| json!({ "type": "config", "message": error.render(false) }))
        .collect();
    let mut vcs = json!({
        "provider_name": "towpath",
        "revision": view.commit,
        "commit": { "subject": view.subject, "body": "" },
    });
    for (name, value) in [("branch", &view.branch), ("tag", &view.tag)] {
        if let Some(value) = value {
            vcs[name] = json!(value);
        }
    }
    json!({
        "id": view.id,
        "number": view.number,
        "project_slug": project_slug(&view.project),
        "state": words::pipeline(view.status),
        "errors": errors,
        "created_at": view.created_at,
        "updated_at": view.created_at,
        "trigger": {
            "type": "webhook",
            "received_at": view.created_at,
            "actor": { "login": view.author, "avatar_url": null },
        },
        "trigger_parameters": {},
        "vcs": vcs,
    })
}

/// A workflow, as API v2 shows it.
pub(super) fn workflow_json(view: &WorkflowView) -> Value {
    json!({
        "id": view.id,
        "name": view.name,
        "status": words::workflow(view.status),
        "pipeline_id": view.pipeline,
        "pipeline_number": view.pipeline_number,
        "project_slug": project_slug(&view.project),
        "started_by": view.pipeline,
        "created_at": view.created_at,
        "stopped_at": view.stopped_at,
    })
}

#[derive(Deserialize)]
struct Page {
    #[serde(rename = "page-token")]
    token: Option<String>,
    branch: Option<String>,
}

async fn pipelines(State(app): State<App>, Path((vcs, org, name)): Slug, Query(page): Query<Page>) -> Answer<Value> {
    let project = project_of(&vcs, &org, &name)?;
    let before = match page.token.as_deref() {
        Some(text) => Some(
            text.parse()
                .map_err(|_| DeliveryError::invalid("this page-token is not one of ours"))?,
        ),
        None => None,
    };
    let views = app.queries.pipelines(&project, before, PAGE).await?;
    let next = views
        .last()
        .filter(|_| views.len() == PAGE as usize)
        .map(|view| view.number.to_string());
    let wanted = |view: &&PipelineView| page.branch.is_none() || view.branch == page.branch;
    Ok(list(views.iter().filter(wanted).map(pipeline_json).collect(), next))
}

#[derive(Deserialize)]
struct Trigger {
    branch: Option<String>,
    tag: Option<String>,
    #[serde(default)]
    parameters: Map<String, Value>,
}

async fn trigger(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path((vcs, org, name)): Slug,
    Json(Trigger {
        branch,
        tag,
        parameters,
    }): Json<Trigger>,
) -> Result<(StatusCode, Json<Value>), Failure> {
    if branch.is_some() && tag.is_some() {
        return Err(Failure(DeliveryError::invalid("give a branch or a tag, not both")));
    }
    let project = project_of(&vcs, &org, &name)?;
    let trigger = app
        .triggers
        .request(&project, branch.as_deref(), tag.as_deref(), parameters, &caller.actor())
        .await?;
    let (id, number, created_at) = (trigger.pipeline, trigger.number, trigger.created_at);
    // A client that learns the pipeline's id may ask for its workflows at once.
    app.triggers.settled(vec![trigger], PATIENCE).await?;
    let state = match app.queries.pipeline(id).await {
        Ok(view) => words::pipeline(view.status),
        Err(_) => words::PIPELINE_IN_THE_MAKING,
    };
    let body = json!({ "id": id, "number": number, "state": state, "created_at": created_at });
    Ok((StatusCode::CREATED, Json(body)))
}

async fn pipeline_by_number(State(app): State<App>, Path((vcs, org, name, text)): Numbered) -> Answer<Value> {
    let project = project_of(&vcs, &org, &name)?;
    let view = app.queries.pipeline_by_number(&project, number(&text)?).await?;
    Ok(Json(pipeline_json(&view)))
}

fn pipeline_id(text: &str) -> Result<PipelineId, DeliveryError> {
    id(text, "pipeline")
}

async fn pipeline(State(app): State<App>, Path(text): Path<String>) -> Answer<Value> {
    let view = app.queries.pipeline(pipeline_id(&text)?).await?;
    Ok(Json(pipeline_json(&view)))
}

async fn workflows(State(app): State<App>, Path(text): Path<String>) -> Answer<Value> {
    let view = app.queries.pipeline(pipeline_id(&text)?).await?;
    Ok(list(view.workflows.iter().map(workflow_json).collect(), None))
}

async fn config(State(app): State<App>, Path(text): Path<String>) -> Answer<Value> {
    let (source, compiled) = app.queries.pipeline_config(pipeline_id(&text)?).await?;
    Ok(Json(json!({ "source": source, "compiled": compiled })))
}
