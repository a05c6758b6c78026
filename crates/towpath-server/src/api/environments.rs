//! Environments: what runs there, what has drifted.

use crate::{
    App,
    answer::{Answer, environment as environment_id},
};
use axum::{
    Json, Router,
    extract::{Path, State},
    routing::{get, post},
};
use towpath_delivery::{DriftView, EnvironmentView};
use towpath_types::EnvironmentId;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/api/towpath/environments/{project}/{environment}", get(environment))
        .route("/api/towpath/environments/{project}/{environment}/look", post(look))
        .route(
            "/api/towpath/environments/{project}/{environment}/drift",
            get(drift).post(look_for_drift),
        )
}

/// The project and environment in a path.
pub(super) type Where = Path<(String, String)>;

async fn environment(State(app): State<App>, Path((project, name)): Where) -> Answer<EnvironmentView> {
    view(&app, &environment_id(&project, &name)?).await
}

async fn view(app: &App, id: &EnvironmentId) -> Answer<EnvironmentView> {
    Ok(Json(app.queries.environment(id).await?))
}

/// Observes an environment now. If it does not answer, its state is unknown, with the reason.
async fn look(State(app): State<App>, Path((project, name)): Where) -> Answer<EnvironmentView> {
    let id = environment_id(&project, &name)?;
    app.delivery.observer.observe(&id).await?;
    view(&app, &id).await
}

/// The drift at the last look; `null` if nobody has looked since the last release.
async fn drift(State(app): State<App>, Path((project, name)): Where) -> Answer<Option<DriftView>> {
    let view = app.queries.environment(&environment_id(&project, &name)?).await?;
    Ok(Json(view.drift))
}

/// Looks for drift now.
async fn look_for_drift(State(app): State<App>, Path((project, name)): Where) -> Answer<DriftView> {
    let id = environment_id(&project, &name)?;
    Ok(Json(app.delivery.observer.look_for_drift(&id).await?))
}
