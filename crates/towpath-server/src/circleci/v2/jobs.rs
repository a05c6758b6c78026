//! Jobs and their artifacts.

use super::answer::{Numbered, list, number};
use crate::{
    App, address,
    answer::Answer,
    circleci::{
        organisation::{self, project_of, project_slug},
        words,
    },
};
use axum::{
    Json, Router,
    extract::{Path, State},
    routing::get,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use towpath_control::ArtifactView;
use towpath_store::TestRow;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/api/v2/project/{vcs}/{org}/{project}/job/{number}", get(job))
        .route(
            "/api/v2/project/{vcs}/{org}/{project}/{number}/artifacts",
            get(artifacts),
        )
        .route("/api/v2/project/{vcs}/{org}/{project}/{number}/tests", get(tests))
}

async fn job(State(app): State<App>, Path((vcs, org, name, text)): Numbered) -> Answer<Value> {
    let project = project_of(&vcs, &org, &name)?;
    let number = number(&text)?;
    let detail = app.queries.job(&project, number).await?;
    let base_url = &app.addresses.base_url;
    let status = words::job(detail.job.status);
    let nodes: BTreeSet<u32> = detail.steps.iter().map(|step| step.node).collect();
    let runs: Vec<Value> = nodes
        .iter()
        .map(|node| json!({ "index": node, "status": status }))
        .collect();
    let duration = match (detail.job.started_at, detail.job.stopped_at) {
        (Some(from), Some(to)) => Some(to.duration_since(from).as_millis()),
        _ => None,
    };
    let messages: Vec<Value> = detail
        .job
        .message
        .iter()
        .map(|message| json!({ "type": "error", "message": message }))
        .collect();
    Ok(Json(json!({
        "name": detail.job.name,
        "number": detail.job.number,
        "status": status,
        "web_url": format!("{base_url}/projects/{project}/jobs/{number}"),
        "started_at": detail.job.started_at,
        "stopped_at": detail.job.stopped_at,
        "created_at": detail.workflow.created_at,
        "duration": duration,
        "parallelism": runs.len().max(1),
        "parallel_runs": runs,
        "project": {
            "id": project,
            "slug": project_slug(project.as_str()),
            "name": project,
            "external_url": base_url,
        },
        "pipeline": { "id": detail.workflow.pipeline },
        "latest_workflow": { "id": detail.workflow.id, "name": detail.workflow.name },
        "messages": messages,
        "contexts": [],
        "organization": { "name": organisation::NAME },
    })))
}

async fn tests(State(app): State<App>, Path((vcs, org, name, text)): Numbered) -> Answer<Value> {
    let project = project_of(&vcs, &org, &name)?;
    let tests = app.queries.tests(&project, number(&text)?).await?;
    let item = |test: &TestRow| {
        json!({
            "message": test.message,
            "source": "",
            "run_time": test.seconds,
            "file": test.file,
            "result": words::test(test.result),
            "name": test.name,
            "classname": test.classname.as_deref().unwrap_or_default(),
        })
    };
    Ok(list(tests.iter().map(item).collect(), None))
}

async fn artifacts(State(app): State<App>, Path((vcs, org, name, text)): Numbered) -> Answer<Value> {
    let project = project_of(&vcs, &org, &name)?;
    let detail = app.queries.job(&project, number(&text)?).await?;
    let item = |artifact: &ArtifactView| {
        let address = address::artifact(detail.job.id, artifact.node, &artifact.path);
        let url = format!("{}{address}", app.addresses.base_url);
        json!({ "path": artifact.path, "node_index": artifact.node, "url": url })
    };
    Ok(list(detail.artifacts.iter().map(item).collect(), None))
}
