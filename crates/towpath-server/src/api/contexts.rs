//! Contexts. Values come in but never go out.

use super::values::value;
use crate::{
    App,
    answer::{Answer, Failure},
    auth::Caller,
};
use axum::{
    Extension, Json, Router,
    body::Bytes,
    extract::{Path, Query, State},
    http::StatusCode,
    routing::{get, put},
};
use towpath_control::KeyView;
use towpath_delivery::DeliveryError;
use towpath_store::ContextRule;
use towpath_types::ProjectName;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/api/towpath/contexts", get(list))
        .route("/api/towpath/contexts/{context}/{key}", put(set).delete(unset))
        .route("/api/towpath/context-rules", get(rules).put(restrict))
}

async fn rules(State(app): State<App>) -> Answer<Vec<ContextRule>> {
    Ok(Json(app.contexts.rules().await?))
}

async fn restrict(State(app): State<App>, body: Bytes) -> Result<StatusCode, Failure> {
    let rule = serde_json::from_slice(&body)
        .map_err(|error| DeliveryError::invalid(format!("the rule cannot be read: {error}")))?;
    app.contexts.restrict(rule).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The project that a variable is set for. A new context belongs to this project; without one, jobs of any project may use it.
#[derive(serde::Deserialize)]
struct Of {
    project: Option<String>,
}

/// A variable of a context.
type Variable = Path<(String, String)>;

async fn list(State(app): State<App>) -> Answer<Vec<KeyView>> {
    Ok(Json(app.contexts.list()?))
}

async fn set(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path((context, key)): Variable,
    Query(Of { project }): Query<Of>,
    body: Bytes,
) -> Result<StatusCode, Failure> {
    // The folder in which somebody types a command may have any name.
    if let Some(Ok(project)) = project.map(|name| name.parse::<ProjectName>()) {
        app.contexts.give_new(&context, &project).await?;
    }
    app.contexts.set(&context, &key, &value(&body), &caller.name)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn unset(State(app): State<App>, Path((context, key)): Variable) -> Result<StatusCode, Failure> {
    app.contexts.unset(&context, &key)?;
    Ok(StatusCode::NO_CONTENT)
}
