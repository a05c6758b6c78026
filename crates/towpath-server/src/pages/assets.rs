//! The stylesheet and the script.

use crate::App;
use axum::{Router, http::header, response::IntoResponse, routing::get};

pub(super) fn routes() -> Router<App> {
    let style = || asset("text/css; charset=utf-8", include_str!("../../assets/towpath.css"));
    let script = || {
        asset(
            "text/javascript; charset=utf-8",
            include_str!("../../assets/towpath.js"),
        )
    };
    Router::new()
        .route("/assets/towpath.css", get(style))
        .route("/assets/towpath.js", get(script))
}

async fn asset(kind: &'static str, text: &'static str) -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")],
        text,
    )
}
