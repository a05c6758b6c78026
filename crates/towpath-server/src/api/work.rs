//! Work that failed repeatedly and waits for a person.

use crate::{App, answer::Answer};
use axum::{Json, Router, extract::State, routing::get};
use towpath_control::SetAsideView;

pub(super) fn routes() -> Router<App> {
    Router::new().route("/api/towpath/work", get(set_aside))
}

async fn set_aside(State(app): State<App>) -> Answer<Vec<SetAsideView>> {
    Ok(Json(app.queries.set_aside().await?))
}
