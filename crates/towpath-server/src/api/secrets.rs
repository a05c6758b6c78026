//! Secrets of environments, where pods read them. Values come in but never go out.

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
use towpath_delivery::LiveSecret;

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

async fn list(State(app): State<App>, Path((project, name)): Where) -> Answer<Vec<LiveSecret>> {
    let id = environment_id(&project, &name)?;
    Ok(Json(app.delivery.secrets.list(&id).await?))
}

async fn set(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path((project, name, secret, key)): Key,
    body: Bytes,
) -> Result<StatusCode, Failure> {
    let id = environment_id(&project, &name)?;
    let secrets = &app.delivery.secrets;
    secrets.set(&id, &secret, &key, value(&body), &caller.name).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn unset(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path((project, name, secret, key)): Key,
) -> Result<StatusCode, Failure> {
    let id = environment_id(&project, &name)?;
    app.delivery.secrets.unset(&id, &secret, &key, &caller.name).await?;
    Ok(StatusCode::NO_CONTENT)
}
