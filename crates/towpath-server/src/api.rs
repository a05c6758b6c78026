//! Towpath's own API: what the command line and the pages' scripts call.

use crate::{
    App,
    answer::{Answer, Failure},
    auth::Caller,
};
use axum::{
    Extension, Json, Router,
    body::Bytes,
    extract::{Path, Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use serde_json::{Value, json};
use towpath_control::{
    Board, ControlError, CronJobStatus, DriftView, EnvironmentView, GateView, Hold, JobDetail, KeyView, LaptopRequest,
    PipelineView, PlanView, Progress, ReleaseView,
};
use towpath_forge::ProjectName;
use towpath_types::{JobId, SecretString};

/// How much of a log one answer has at most.
const LOG_PIECE: u64 = 1 << 20;

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/api/towpath/board", get(board))
        .route("/api/towpath/projects", post(create_project))
        .route("/api/towpath/projects/{project}/pipelines", get(pipelines))
        .route("/api/towpath/gates", get(gates))
        .route("/api/towpath/gates/{job}", get(gate))
        .route("/api/towpath/gates/{job}/approve", post(approve))
        .route("/api/towpath/jobs/{first}/{second}", get(job_or_log))
        .route("/api/towpath/environments/{project}/{environment}", get(environment))
        .route(
            "/api/towpath/environments/{project}/{environment}/history",
            get(history),
        )
        .route("/api/towpath/environments/{project}/{environment}/plan", post(plan))
        .route("/api/towpath/environments/{project}/{environment}/deploy", post(deploy))
        .route(
            "/api/towpath/environments/{project}/{environment}/rollback",
            post(rollback),
        )
        .route("/api/towpath/environments/{project}/{environment}/jobs", post(run_job))
        .route(
            "/api/towpath/environments/{project}/{environment}/cronjobs",
            get(cron_jobs).post(cron_job),
        )
        .route(
            "/api/towpath/environments/{project}/{environment}/cronjobs/{name}/run",
            post(run_cron_job),
        )
        .route("/api/towpath/environments/{project}/{environment}/drift", get(drift))
        .route(
            "/api/towpath/environments/{project}/{environment}/lock",
            post(lock).delete(unlock),
        )
        .route(
            "/api/towpath/environments/{project}/{environment}/secrets",
            get(secrets),
        )
        .route(
            "/api/towpath/environments/{project}/{environment}/secrets/{secret}/{key}",
            put(set_secret).delete(unset_secret),
        )
        .route("/api/towpath/contexts", get(contexts))
        .route(
            "/api/towpath/contexts/{context}/{key}",
            put(set_context).delete(unset_context),
        )
        .route("/api/towpath/progress/{id}", get(progress))
}

async fn board(State(app): State<App>) -> Answer<Board> {
    Ok(Json(app.board().await?))
}

#[derive(serde::Deserialize)]
struct NewProject {
    name: String,
}

async fn create_project(
    State(app): State<App>,
    Extension(Caller(by)): Extension<Caller>,
    Json(new): Json<NewProject>,
) -> Answer<Value> {
    let name: ProjectName = new
        .name
        .parse()
        .map_err(|error: towpath_forge::ProjectNameError| ControlError::invalid(error.to_string()))?;
    app.create_project(&name, &by).await?;
    Ok(Json(json!({ "name": name.as_str() })))
}

async fn pipelines(State(app): State<App>, Path(project): Path<String>) -> Answer<Vec<PipelineView>> {
    Ok(Json(app.pipelines(&project, None, 20).await?))
}

async fn gates(State(app): State<App>) -> Answer<Vec<GateView>> {
    Ok(Json(app.gates().await?))
}

async fn gate(State(app): State<App>, Path(job): Path<JobId>) -> Answer<GateView> {
    Ok(Json(app.gate(job).await?))
}

#[derive(serde::Deserialize)]
struct Approval {
    plan: Option<String>,
}

async fn approve(
    State(app): State<App>,
    Extension(Caller(by)): Extension<Caller>,
    Path(job): Path<JobId>,
    Json(approval): Json<Approval>,
) -> Answer<Value> {
    app.approve(job, &by, approval.plan.as_deref()).await?;
    Ok(Json(json!({ "message": "approved" })))
}

#[derive(serde::Deserialize)]
struct LogPart {
    node: Option<u32>,
    step: Option<u32>,
    from: Option<u64>,
}

/// `jobs/<project>/<number>`, and `jobs/<job id>/log`.
async fn job_or_log(
    State(app): State<App>,
    Path((first, second)): Path<(String, String)>,
    Query(part): Query<LogPart>,
) -> Result<Response, Failure> {
    if second == "log" {
        let job: JobId = first
            .parse()
            .map_err(|error: towpath_types::IdError| ControlError::invalid(error.to_string()))?;
        let bytes = app
            .step_log(
                job,
                part.node.unwrap_or(0),
                part.step.unwrap_or(0),
                part.from.unwrap_or(0),
                LOG_PIECE,
            )
            .await?;
        return Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], bytes).into_response());
    }
    let number: i64 = second
        .parse()
        .map_err(|_| ControlError::invalid(format!("`{}` is not a job's number", second.escape_debug())))?;
    let detail: JobDetail = app.job(&first, number).await?;
    Ok(Json(detail).into_response())
}

type Where = Path<(String, String)>;

async fn environment(State(app): State<App>, Path((project, environment)): Where) -> Answer<EnvironmentView> {
    Ok(Json(app.environment(&project, &environment).await?))
}

async fn history(State(app): State<App>, Path((project, environment)): Where) -> Answer<Vec<ReleaseView>> {
    Ok(Json(app.history(&project, &environment).await?))
}

async fn plan(
    State(app): State<App>,
    Path((project, environment)): Where,
    Json(request): Json<LaptopRequest>,
) -> Answer<PlanView> {
    Ok(Json(app.plan(&project, &environment, request).await?))
}

async fn deploy(
    State(app): State<App>,
    Extension(Caller(by)): Extension<Caller>,
    Path((project, environment)): Where,
    Json(request): Json<LaptopRequest>,
) -> Answer<Value> {
    let id = app.deploy(&project, &environment, request, &by).await?;
    Ok(Json(json!({ "id": id })))
}

#[derive(serde::Deserialize)]
struct Back {
    to: Option<i64>,
}

async fn rollback(
    State(app): State<App>,
    Extension(Caller(by)): Extension<Caller>,
    Path((project, environment)): Where,
    Json(back): Json<Back>,
) -> Answer<Value> {
    let id = app.rollback(&project, &environment, back.to, &by).await?;
    Ok(Json(json!({ "id": id })))
}

async fn run_job(
    State(app): State<App>,
    Extension(Caller(by)): Extension<Caller>,
    Path((project, environment)): Where,
    Json(request): Json<LaptopRequest>,
) -> Answer<Value> {
    let id = app.run_job(&project, &environment, request, &by).await?;
    Ok(Json(json!({ "id": id })))
}

async fn cron_job(
    State(app): State<App>,
    Extension(Caller(by)): Extension<Caller>,
    Path((project, environment)): Where,
    Json(request): Json<LaptopRequest>,
) -> Answer<Vec<String>> {
    Ok(Json(app.apply_cron_job(&project, &environment, request, &by).await?))
}

async fn cron_jobs(State(app): State<App>, Path((project, environment)): Where) -> Answer<Vec<CronJobStatus>> {
    Ok(Json(app.cron_jobs(&project, &environment).await?))
}

async fn run_cron_job(
    State(app): State<App>,
    Extension(Caller(by)): Extension<Caller>,
    Path((project, environment, name)): Path<(String, String, String)>,
) -> Answer<Value> {
    let id = app.run_cron_job(&project, &environment, &name, &by).await?;
    Ok(Json(json!({ "id": id })))
}

async fn drift(State(app): State<App>, Path((project, environment)): Where) -> Answer<DriftView> {
    Ok(Json(app.drift(&project, &environment).await?))
}

#[derive(serde::Deserialize)]
struct NewLock {
    reason: String,
    seconds: i64,
}

async fn lock(
    State(app): State<App>,
    Extension(Caller(by)): Extension<Caller>,
    Path((project, environment)): Where,
    Json(new): Json<NewLock>,
) -> Answer<Hold> {
    let lasts = jiff::SignedDuration::from_secs(new.seconds);
    Ok(Json(app.lock(&project, &environment, &new.reason, lasts, &by).await?))
}

#[derive(serde::Deserialize)]
struct Unlock {
    force: Option<bool>,
}

async fn unlock(
    State(app): State<App>,
    Extension(Caller(by)): Extension<Caller>,
    Path((project, environment)): Where,
    Query(unlock): Query<Unlock>,
) -> Result<StatusCode, Failure> {
    let force = unlock.force.unwrap_or_default();
    app.unlock(&project, &environment, force, &by).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn secrets(State(app): State<App>, Path((project, environment)): Where) -> Answer<Vec<KeyView>> {
    Ok(Json(app.list_secrets(&project, &environment).await?))
}

fn value(bytes: &Bytes) -> Result<SecretString, ControlError> {
    let text = std::str::from_utf8(bytes).map_err(|_| ControlError::invalid("the value is not text (UTF-8)"))?;
    Ok(SecretString::new(text.to_string()))
}

type Key = Path<(String, String, String, String)>;

async fn set_secret(
    State(app): State<App>,
    Extension(Caller(by)): Extension<Caller>,
    Path((project, environment, secret, key)): Key,
    body: Bytes,
) -> Result<StatusCode, Failure> {
    app.set_secret(&project, &environment, &secret, &key, &value(&body)?, &by)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn unset_secret(
    State(app): State<App>,
    Path((project, environment, secret, key)): Key,
) -> Result<StatusCode, Failure> {
    app.unset_secret(&project, &environment, &secret, &key).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn contexts(State(app): State<App>) -> Answer<Vec<KeyView>> {
    Ok(Json(app.list_contexts().await?))
}

async fn set_context(
    State(app): State<App>,
    Extension(Caller(by)): Extension<Caller>,
    Path((context, key)): Where,
    body: Bytes,
) -> Result<StatusCode, Failure> {
    app.set_context(&context, &key, &value(&body)?, &by).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn unset_context(State(app): State<App>, Path((context, key)): Where) -> Result<StatusCode, Failure> {
    app.unset_context(&context, &key).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(serde::Deserialize)]
struct Start {
    from: Option<usize>,
}

async fn progress(
    State(app): State<App>,
    Path(id): Path<String>,
    Query(Start { from }): Query<Start>,
) -> Answer<Progress> {
    Ok(Json(app.progress(&id, from.unwrap_or(0)).await?))
}
