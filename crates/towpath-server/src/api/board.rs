//! Everything at a glance.

use crate::{App, answer::Answer};
use axum::{Json, Router, extract::State, routing::get};
use towpath_control::Board;

pub(super) fn routes() -> Router<App> {
    Router::new().route("/api/towpath/board", get(board))
}

async fn board(State(app): State<App>) -> Answer<Board> {
    Ok(Json(app.queries.board().await?))
}
