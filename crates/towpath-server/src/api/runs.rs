//! One-off jobs and cron jobs.

use super::{
    environments::Where,
    laptop::{self, Laptop},
    releases::Start,
};
use crate::{
    App,
    answer::{Answer, environment as environment_id, id, object},
    auth::Caller,
};
use axum::{
    Extension, Json, Router,
    extract::{Path, Query, State},
    routing::{get, post},
};
use serde_json::{Value, json};
use towpath_control::{ProgressView, RunView};
use towpath_delivery::{CronJobStatus, plan_digest};
use towpath_types::RunId;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/api/towpath/environments/{project}/{environment}/runs", get(runs))
        .route("/api/towpath/environments/{project}/{environment}/jobs", post(run_job))
        .route(
            "/api/towpath/environments/{project}/{environment}/cronjobs",
            get(cron_jobs).post(apply_cron_job),
        )
        .route(
            "/api/towpath/environments/{project}/{environment}/cronjobs/{name}/run",
            post(run_cron_job),
        )
        .route("/api/towpath/environments/{project}/{environment}/tests", post(tests))
        .route(
            "/api/towpath/environments/{project}/{environment}/tests/{name}/run",
            post(run_test),
        )
        .route("/api/towpath/runs/{id}/progress", get(progress))
        .layer(laptop::limit())
}

async fn runs(State(app): State<App>, Path((project, name)): Where) -> Answer<Vec<RunView>> {
    Ok(Json(app.queries.runs(&environment_id(&project, &name)?).await?))
}

async fn run_job(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path((project, name)): Where,
    Laptop(request): Laptop,
) -> Answer<Value> {
    let id = environment_id(&project, &name)?;
    let run = app.delivery.runs.start_job(&id, request, &caller.actor()).await?;
    Ok(Json(json!({ "id": run.id, "object": run.object })))
}

/// An environment's cron jobs and their runs, as last observed.
async fn cron_jobs(State(app): State<App>, Path((project, name)): Where) -> Answer<Vec<CronJobStatus>> {
    let view = app.queries.environment(&environment_id(&project, &name)?).await?;
    Ok(Json(view.cron_jobs))
}

async fn apply_cron_job(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path((project, name)): Where,
    Laptop(request): Laptop,
) -> Answer<Vec<String>> {
    let id = environment_id(&project, &name)?;
    let lines = app.delivery.runs.apply_cron_job(&id, request, &caller.actor()).await?;
    Ok(Json(lines))
}

#[derive(serde::Deserialize)]
struct Agreed {
    /// The whole digest of the plan that the caller was shown.
    plan: Option<String>,
}

async fn run_cron_job(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path((project, name, cron_job)): Path<(String, String, String)>,
    body: Option<Json<Value>>,
) -> Answer<Value> {
    let id = environment_id(&project, &name)?;
    let agreed: Option<Agreed> = body.map(|Json(body)| object(body)).transpose()?;
    let plan = agreed.and_then(|agreed| agreed.plan);
    let shown = plan.as_deref().map(plan_digest).transpose()?;
    let runs = &app.delivery.runs;
    let run = runs
        .start_cron_job(&id, &cron_job, shown.as_ref(), &caller.actor())
        .await?;
    Ok(Json(json!({ "id": run.id, "object": run.object })))
}

/// The tests of what an environment runs, which is looked up now.
async fn tests(State(app): State<App>, Path((project, name)): Where) -> Answer<Vec<String>> {
    Ok(Json(app.delivery.runs.tests(&environment_id(&project, &name)?).await?))
}

async fn run_test(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path((project, name, test)): Path<(String, String, String)>,
    body: Option<Json<Agreed>>,
) -> Answer<Value> {
    let id = environment_id(&project, &name)?;
    let plan = body.and_then(|Json(Agreed { plan })| plan);
    let shown = plan.as_deref().map(plan_digest).transpose()?;
    let runs = &app.delivery.runs;
    let run = runs.start_test(&id, &test, shown.as_ref(), &caller.actor()).await?;
    Ok(Json(json!({ "id": run.id, "object": run.object })))
}

async fn progress(
    State(app): State<App>,
    Path(run): Path<String>,
    Query(Start { from }): Query<Start>,
) -> Answer<ProgressView> {
    let run: RunId = id(&run, "run")?;
    Ok(Json(app.progress.of_run(run, from).await?))
}
