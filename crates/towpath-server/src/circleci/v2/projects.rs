//! The current user, and projects.

use super::answer::Slug;
use crate::{
    App,
    answer::Answer,
    auth::Caller,
    circleci::organisation::{self, project_of, project_slug},
};
use axum::{
    Extension, Json, Router,
    extract::{Path, State},
    routing::get,
};
use serde_json::{Value, json};
use towpath_delivery::DeliveryError;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/api/v2/me", get(me))
        .route("/api/v2/me/collaborations", get(collaborations))
        .route("/api/v2/project/{vcs}/{org}/{project}", get(project))
}

async fn me(Extension(caller): Extension<Caller>) -> Json<Value> {
    let name = caller.name;
    Json(json!({ "id": "00000000-0000-0000-0000-000000000001", "login": name, "name": name }))
}

/// The one organisation. Clients differ in how they spell the key for version control, so the answer has both spellings.
async fn collaborations() -> Json<Value> {
    Json(json!([{
        "id": organisation::ID,
        "vcs-type": "towpath",
        "vcs_type": "towpath",
        "name": organisation::NAME,
        "avatar_url": "",
        "slug": organisation::SLUG,
    }]))
}

async fn project(State(app): State<App>, Path((vcs, org, name)): Slug) -> Answer<Value> {
    let name = project_of(&vcs, &org, &name)?;
    let known = app.store.project(&name).await.map_err(DeliveryError::from)?;
    let known = known.ok_or_else(|| DeliveryError::not_found("Project not found"))?;
    let base_url = &app.addresses.base_url;
    Ok(Json(json!({
        "slug": project_slug(name.as_str()),
        "name": name,
        "organization_name": organisation::NAME,
        "organization_slug": organisation::SLUG,
        "vcs_info": {
            "provider": "towpath",
            "vcs_url": format!("{base_url}/git/{name}.git"),
            "default_branch": known.default_branch,
        },
    })))
}
