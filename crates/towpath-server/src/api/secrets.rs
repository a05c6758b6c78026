//! Secrets of environments on the local target. Values come in but never go out.

use super::{environments::Where, values::value};
use crate::{
    App,
    answer::{Answer, Failure, environment as environment_id},
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
        .route("/api/towpath/environments/{project}/{environment}/secrets", get(list))
        .route(
            "/api/towpath/environments/{project}/{environment}/secrets/{secret}/{key}",
            put(set).delete(unset),
        )
}

/// The key of a Secret in an environment.
type Key = Path<(String, String, String, String)>;

async fn list(State(app): State<App>, Path((project, name)): Where) -> Answer<Vec<KeyView>> {
    Ok(Json(app.secrets.list(&environment_id(&project, &name)?)?))
}

async fn set(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path((project, name, secret, key)): Key,
    body: Bytes,
) -> Result<StatusCode, Failure> {
    let id = environment_id(&project, &name)?;
    app.secrets.set(&id, &secret, &key, &value(&body), &caller.name)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn unset(State(app): State<App>, Path((project, name, secret, key)): Key) -> Result<StatusCode, Failure> {
    app.secrets.unset(&environment_id(&project, &name)?, &secret, &key)?;
    Ok(StatusCode::NO_CONTENT)
}
