//! Reads, cancels and approves workflows.

use super::{
    answer::{accepted, list},
    pipelines::workflow_json,
};
use crate::{
    App,
    answer::{Answer, Failure, id, object},
    auth::Caller,
    circleci::{organisation::project_slug, words},
};
use axum::{
    Extension, Json, Router,
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
    routing::{get, post},
};
use serde_json::{Map, Value, json};
use towpath_control::JobView;
use towpath_delivery::{DeliveryError, ErrorKind, plan_digest};
use towpath_types::{JobId, JobKind, WorkflowId};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/api/v2/workflow/{id}", get(workflow))
        .route("/api/v2/workflow/{id}/job", get(jobs))
        .route("/api/v2/workflow/{id}/cancel", post(cancel))
        .route("/api/v2/workflow/{id}/approve/{request}", post(approve))
}

fn job_json(job: &JobView, project: &str, ids: &Map<String, Value>) -> Value {
    let dependencies: Vec<Value> = job.requires.iter().filter_map(|name| ids.get(name).cloned()).collect();
    let mut json = json!({
        "id": job.id,
        "name": job.name,
        "type": words::job_kind(job.kind),
        "status": words::job(job.status),
        "project_slug": project_slug(project),
        "dependencies": dependencies,
        "started_at": job.started_at,
        "stopped_at": job.stopped_at,
    });
    if let Some(number) = job.number {
        json["job_number"] = json!(number);
    }
    if job.kind == JobKind::Approval {
        json["approval_request_id"] = json!(job.id);
        json["approved_by"] = json!(job.approved_by);
    }
    json
}

fn workflow_id(text: &str) -> Result<WorkflowId, DeliveryError> {
    id(text, "workflow")
}

async fn workflow(State(app): State<App>, Path(text): Path<String>) -> Answer<Value> {
    let view = app.queries.workflow(workflow_id(&text)?).await?;
    Ok(Json(workflow_json(&view)))
}

async fn jobs(State(app): State<App>, Path(text): Path<String>) -> Answer<Value> {
    let view = app.queries.workflow(workflow_id(&text)?).await?;
    let ids = view.jobs.iter().map(|job| (job.name.clone(), json!(job.id))).collect();
    let items = view.jobs.iter().map(|job| job_json(job, &view.project, &ids));
    Ok(list(items.collect(), None))
}

async fn cancel(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path(text): Path<String>,
) -> Result<(StatusCode, Json<Value>), Failure> {
    app.conductor.cancel(workflow_id(&text)?, &caller.name).await?;
    Ok((StatusCode::ACCEPTED, accepted()))
}

/// The part of an approval that CircleCI's API does not have.
#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Approval {
    /// The whole digest of the plan that the approver was shown.
    plan: Option<String>,
}

impl Approval {
    /// CircleCI's clients send no body, or `null`.
    fn of(body: &Bytes) -> Result<Self, DeliveryError> {
        let unread = |error: &dyn std::fmt::Display| {
            DeliveryError::invalid(format!("the body is not `{{\"plan\": DIGEST}}`: {error}"))
        };
        if body.is_empty() {
            return Ok(Self::default());
        }
        match serde_json::from_slice::<Value>(body).map_err(|error| unread(&error))? {
            Value::Null => Ok(Self::default()),
            value => object(value).map_err(|error| unread(&error)),
        }
    }
}

/// CircleCI's clients name no plan, so they can open only gates that lead to no environment.
async fn approve(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path((workflow, request)): Path<(String, String)>,
    body: Bytes,
) -> Result<(StatusCode, Json<Value>), Failure> {
    let (workflow, job) = (workflow_id(&workflow)?, id::<JobId>(&request, "approval")?);
    if app.queries.gate(job).await?.workflow != workflow {
        return Err(Failure(DeliveryError::not_found("the workflow has no such approval")));
    }
    let shown = Approval::of(&body)?.plan.as_deref().map(plan_digest).transpose()?;
    let approved = app.approvals.approve(job, shown.as_ref(), &caller.actor()).await;
    if let Err(error) = approved {
        let is_unnamed = shown.is_none() && error.kind() == ErrorKind::Conflict;
        return Err(Failure(match is_unnamed {
            true => DeliveryError::conflict(format!("{error}\n{}/gates/{job} shows it", app.addresses.base_url)),
            false => error,
        }));
    }
    Ok((StatusCode::ACCEPTED, accepted()))
}
