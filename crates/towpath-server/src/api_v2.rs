//! The part of CircleCI's API v2 that existing clients use for pipelines, workflows and jobs.
//!
//! Source: <https://circleci.com/docs/api/v2/>. Field names and status words are CircleCI's.

use crate::{
    App,
    answer::{Answer, Failure},
    auth::Caller,
};
use axum::{
    Extension, Json, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::{get, post},
};
use serde_json::{Map, Value, json};
use towpath_control::{ControlError, JobView, PipelineView, WorkflowView};
use towpath_forge::ProjectName;
use towpath_types::{JobId, PipelineId, WorkflowId};

/// How many items one page has.
const PAGE: u32 = 50;

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/api/v2/me", get(me))
        .route("/api/v2/me/collaborations", get(collaborations))
        .route("/api/v2/project/{vcs}/{org}/{project}", get(project))
        .route(
            "/api/v2/project/{vcs}/{org}/{project}/pipeline",
            get(pipelines).post(trigger),
        )
        .route(
            "/api/v2/project/{vcs}/{org}/{project}/pipeline/{number}",
            get(pipeline_by_number),
        )
        .route("/api/v2/project/{vcs}/{org}/{project}/job/{number}", get(job))
        .route(
            "/api/v2/project/{vcs}/{org}/{project}/{number}/artifacts",
            get(artifacts),
        )
        .route("/api/v2/pipeline/{id}", get(pipeline))
        .route("/api/v2/pipeline/{id}/workflow", get(workflows))
        .route("/api/v2/pipeline/{id}/config", get(config))
        .route("/api/v2/workflow/{id}", get(workflow))
        .route("/api/v2/workflow/{id}/job", get(jobs))
        .route("/api/v2/workflow/{id}/cancel", post(cancel))
        .route("/api/v2/workflow/{id}/approve/{request}", post(approve))
}

fn list(items: Vec<Value>, next: Option<String>) -> Json<Value> {
    Json(json!({ "items": items, "next_page_token": next }))
}

/// The project of a slug `towpath/local/<project>`; other slugs name nothing here.
fn slug(vcs: &str, org: &str, project: &str) -> Result<ProjectName, ControlError> {
    let unknown = || ControlError::not_found("Project not found");
    if (vcs, org) != ("towpath", "local") {
        return Err(unknown());
    }
    project.parse().map_err(|_| unknown())
}

fn id<T: std::str::FromStr>(text: &str) -> Result<T, ControlError> {
    text.parse()
        .map_err(|_| ControlError::not_found("there is nothing of that id"))
}

fn pipeline_json(view: &PipelineView) -> Value {
    let errors: Vec<Value> = view
        .errors
        .iter()
        .map(|message| json!({ "type": "config", "message": message }))
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
        "project_slug": format!("towpath/local/{}", view.project),
        "state": view.state,
        "errors": errors,
        "created_at": view.created_at,
        "updated_at": view.created_at,
        "trigger": { "type": "webhook", "received_at": view.created_at, "actor": { "login": view.author, "avatar_url": null } },
        "trigger_parameters": {},
        "vcs": vcs,
    })
}

fn workflow_json(view: &WorkflowView) -> Value {
    json!({
        "id": view.id,
        "name": view.name,
        "status": view.status,
        "pipeline_id": view.pipeline,
        "pipeline_number": view.pipeline_number,
        "project_slug": format!("towpath/local/{}", view.project),
        "started_by": view.pipeline,
        "created_at": view.created_at,
        "stopped_at": view.stopped_at,
    })
}

fn job_json(job: &JobView, project: &str, ids: &Map<String, Value>) -> Value {
    let dependencies: Vec<Value> = job.requires.iter().filter_map(|name| ids.get(name).cloned()).collect();
    let mut json = json!({
        "id": job.id,
        "name": job.name,
        "type": job.kind,
        "status": job.status,
        "project_slug": format!("towpath/local/{project}"),
        "dependencies": dependencies,
        "started_at": job.started_at,
        "stopped_at": job.stopped_at,
    });
    if let Some(number) = job.number {
        json["job_number"] = json!(number);
    }
    if job.kind == "approval" {
        json["approval_request_id"] = json!(job.id);
        json["approved_by"] = json!(job.approved_by);
    }
    json
}

async fn me(Extension(Caller(name)): Extension<Caller>) -> Json<Value> {
    Json(json!({ "id": "00000000-0000-0000-0000-000000000001", "login": name, "name": name }))
}

type Slug = Path<(String, String, String)>;
type Numbered = Path<(String, String, String, String)>;

/// The one organisation. Clients differ in how they spell the kind of its version control, so it is there twice.
async fn collaborations() -> Json<Value> {
    Json(json!([{
        "id": crate::orbs::ORGANISATION,
        "vcs-type": "towpath",
        "vcs_type": "towpath",
        "name": "local",
        "avatar_url": "",
        "slug": "towpath/local",
    }]))
}

async fn project(State(app): State<App>, Path((vcs, org, name)): Slug) -> Answer<Value> {
    let project = slug(&vcs, &org, &name)?;
    if !app.forge().exists(&project).await {
        return Err(Failure(ControlError::not_found("Project not found")));
    }
    Ok(Json(json!({
        "slug": format!("towpath/local/{project}"),
        "name": project.as_str(),
        "organization_name": "local",
        "organization_slug": "towpath/local",
        "vcs_info": { "provider": "towpath", "vcs_url": format!("{}/git/{project}.git", app.base_url()), "default_branch": "main" },
    })))
}

#[derive(serde::Deserialize)]
struct PageToken {
    #[serde(rename = "page-token")]
    page_token: Option<String>,
    branch: Option<String>,
}

async fn pipelines(
    State(app): State<App>,
    Path((vcs, org, name)): Slug,
    axum::extract::Query(page): axum::extract::Query<PageToken>,
) -> Answer<Value> {
    let project = slug(&vcs, &org, &name)?;
    let before = match page.page_token.as_deref() {
        Some(text) => Some(
            text.parse()
                .map_err(|_| ControlError::invalid("this page-token is not one of ours"))?,
        ),
        None => None,
    };
    let views = app.pipelines(project.as_str(), before, PAGE).await?;
    let next = views
        .last()
        .filter(|_| views.len() == PAGE as usize)
        .map(|view| view.number.to_string());
    let wanted = |view: &&PipelineView| page.branch.is_none() || view.branch == page.branch;
    Ok(list(views.iter().filter(wanted).map(pipeline_json).collect(), next))
}

#[derive(serde::Deserialize)]
struct Trigger {
    branch: Option<String>,
    tag: Option<String>,
    #[serde(default)]
    parameters: Map<String, Value>,
}

async fn trigger(
    State(app): State<App>,
    Extension(Caller(by)): Extension<Caller>,
    Path((vcs, org, name)): Slug,
    Json(trigger): Json<Trigger>,
) -> Result<(StatusCode, Json<Value>), Failure> {
    if trigger.branch.is_some() && trigger.tag.is_some() {
        return Err(Failure(ControlError::invalid("give a branch or a tag, not both")));
    }
    let project = slug(&vcs, &org, &name)?;
    let view = app
        .trigger(&project, trigger.branch, trigger.tag, trigger.parameters, &by)
        .await?;
    let body = json!({ "id": view.id, "number": view.number, "state": view.state, "created_at": view.created_at });
    Ok((StatusCode::CREATED, Json(body)))
}

fn number(text: &str) -> Result<i64, ControlError> {
    text.parse()
        .map_err(|_| ControlError::not_found("there is nothing of that number"))
}

async fn pipeline_by_number(State(app): State<App>, Path((vcs, org, name, text)): Numbered) -> Answer<Value> {
    let project = slug(&vcs, &org, &name)?;
    Ok(Json(pipeline_json(
        &app.pipeline_by_number(project.as_str(), number(&text)?).await?,
    )))
}

async fn pipeline(State(app): State<App>, Path(text): Path<String>) -> Answer<Value> {
    Ok(Json(pipeline_json(&app.pipeline(id::<PipelineId>(&text)?).await?)))
}

async fn workflows(State(app): State<App>, Path(text): Path<String>) -> Answer<Value> {
    let view = app.pipeline(id::<PipelineId>(&text)?).await?;
    Ok(list(view.workflows.iter().map(workflow_json).collect(), None))
}

async fn config(State(app): State<App>, Path(text): Path<String>) -> Answer<Value> {
    let (source, compiled) = app.pipeline_config(id::<PipelineId>(&text)?).await?;
    Ok(Json(json!({ "source": source, "compiled": compiled })))
}

async fn workflow(State(app): State<App>, Path(text): Path<String>) -> Answer<Value> {
    Ok(Json(workflow_json(&app.workflow(id::<WorkflowId>(&text)?).await?)))
}

async fn jobs(State(app): State<App>, Path(text): Path<String>) -> Answer<Value> {
    let view = app.workflow(id::<WorkflowId>(&text)?).await?;
    let ids = view.jobs.iter().map(|job| (job.name.clone(), json!(job.id))).collect();
    Ok(list(
        view.jobs.iter().map(|job| job_json(job, &view.project, &ids)).collect(),
        None,
    ))
}

async fn cancel(
    State(app): State<App>,
    Extension(Caller(by)): Extension<Caller>,
    Path(text): Path<String>,
) -> Result<(StatusCode, Json<Value>), Failure> {
    app.cancel(id::<WorkflowId>(&text)?, &by).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "message": "Accepted." }))))
}

async fn approve(
    State(app): State<App>,
    Extension(Caller(by)): Extension<Caller>,
    Path((workflow, request)): Path<(String, String)>,
) -> Result<(StatusCode, Json<Value>), Failure> {
    let (workflow, job) = (id::<WorkflowId>(&workflow)?, id::<JobId>(&request)?);
    if app.gate(job).await?.workflow != workflow {
        return Err(Failure(ControlError::not_found("the workflow has no such approval")));
    }
    app.approve(job, &by, None).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "message": "Accepted." }))))
}

async fn job(State(app): State<App>, Path((vcs, org, name, text)): Numbered) -> Answer<Value> {
    let project = slug(&vcs, &org, &name)?;
    let detail = app.job(project.as_str(), number(&text)?).await?;
    let url = format!("{}/projects/{project}/jobs/{}", app.base_url(), text);
    let nodes: std::collections::BTreeSet<u32> = detail.steps.iter().map(|step| step.node).collect();
    let runs: Vec<Value> = nodes
        .iter()
        .map(|node| json!({ "index": node, "status": detail.job.status }))
        .collect();
    let duration = match (detail.job.started_at, detail.job.stopped_at) {
        (Some(from), Some(to)) => Some(to.duration_since(from).as_millis()),
        _ => None,
    };
    Ok(Json(json!({
        "name": detail.job.name,
        "number": detail.job.number,
        "status": detail.job.status,
        "web_url": url,
        "started_at": detail.job.started_at,
        "stopped_at": detail.job.stopped_at,
        "created_at": detail.workflow.created_at,
        "duration": duration,
        "parallelism": runs.len().max(1),
        "parallel_runs": runs,
        "project": { "id": project.as_str(), "slug": format!("towpath/local/{project}"), "name": project.as_str(), "external_url": app.base_url() },
        "pipeline": { "id": detail.workflow.pipeline },
        "latest_workflow": { "id": detail.workflow.id, "name": detail.workflow.name },
        "messages": detail.job.message.iter().map(|message| json!({ "type": "error", "message": message })).collect::<Vec<_>>(),
        "contexts": [],
        "organization": { "name": "local" },
    })))
}

async fn artifacts(State(app): State<App>, Path((vcs, org, name, text)): Numbered) -> Answer<Value> {
    let project = slug(&vcs, &org, &name)?;
    let detail = app.job(project.as_str(), number(&text)?).await?;
    let item = |artifact: &towpath_control::ArtifactView| {
        let url = format!(
            "{}/artifacts/{}/{}/{}",
            app.base_url(),
            detail.job.id,
            artifact.node,
            artifact.path
        );
        json!({ "path": artifact.path, "node_index": artifact.node, "url": url })
    };
    Ok(list(detail.artifacts.iter().map(item).collect(), None))
}
