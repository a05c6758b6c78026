//! Contexts. Values come in and never go out.

use super::values::value;
use crate::{
    App,
    answer::{Answer, Failure},
    auth::Caller,
};
use axum::{
    Extension, Json, Router,
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
    routing::{get, put},
};
use towpath_control::KeyView;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/api/towpath/contexts", get(list))
        .route("/api/towpath/contexts/{context}/{key}", put(set).delete(unset))
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
    body: Bytes,
) -> Result<StatusCode, Failure> {
    app.contexts.set(&context, &key, &value(&body)?, &caller.name)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn unset(State(app): State<App>, Path((context, key)): Variable) -> Result<StatusCode, Failure> {
    app.contexts.unset(&context, &key)?;
    Ok(StatusCode::NO_CONTENT)
}
