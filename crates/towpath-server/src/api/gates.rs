//! Gates that wait, one gate, and approving it.

use crate::{
    App,
    answer::{Answer, Object, id, project},
    auth::Caller,
};
use axum::{
    Extension, Json, Router,
    extract::{Path, Query, State},
    routing::{get, post},
};
use serde_json::{Value, json};
use towpath_control::GateView;
use towpath_delivery::{DeliveryError, plan_digest};
use towpath_types::JobId;

/// How many gates one answer lists by default.
const GATES: u32 = 200;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/api/towpath/gates", get(gates))
        .route("/api/towpath/gates/{job}", get(gate))
        .route("/api/towpath/gates/{job}/refresh", post(refresh))
        .route("/api/towpath/gates/{job}/approve", post(approve))
}

#[derive(serde::Deserialize)]
struct Page {
    project: Option<String>,
    #[serde(default)]
    offset: u32,
    limit: Option<u32>,
}

/// Gates that wait, the oldest first.
async fn gates(State(app): State<App>, Query(page): Query<Page>) -> Answer<Vec<GateView>> {
    let project = page.project.as_deref().map(project).transpose()?;
    let limit = page.limit.unwrap_or(GATES);
    Ok(Json(app.queries.gates(project.as_ref(), page.offset, limit).await?))
}

fn gate_id(text: &str) -> Result<JobId, DeliveryError> {
    id(text, "gate")
}

async fn gate(State(app): State<App>, Path(job): Path<String>) -> Answer<GateView> {
    Ok(Json(app.queries.gate(gate_id(&job)?).await?))
}

/// Makes a new plan for a waiting gate, and returns the gate with it.
async fn refresh(State(app): State<App>, Path(job): Path<String>) -> Answer<GateView> {
    let job = gate_id(&job)?;
    app.delivery.gates.refresh(job).await?;
    Ok(Json(app.queries.gate(job).await?))
}

#[derive(serde::Deserialize)]
struct Approval {
    /// The whole digest of the plan that the approver was shown.
    plan: Option<String>,
}

async fn approve(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path(job): Path<String>,
    Object(Approval { plan }): Object<Approval>,
) -> Answer<Value> {
    let job = gate_id(&job)?;
    let shown = plan.as_deref().map(plan_digest).transpose()?;
    app.approvals.approve(job, shown.as_ref(), &caller.actor()).await?;
    Ok(Json(json!({ "message": "approved" })))
}
