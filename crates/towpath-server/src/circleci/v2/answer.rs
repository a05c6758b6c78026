//! The forms that the answers of API v2 share.

use axum::{Json, extract::Path};
use serde_json::{Value, json};
use towpath_delivery::DeliveryError;

/// `{vcs}/{org}/{project}` of a path.
pub(super) type Slug = Path<(String, String, String)>;
/// A [`Slug`] followed by a number.
pub(super) type Numbered = Path<(String, String, String, String)>;

/// A page of a list. `next` is the token of the following page.
pub(super) fn list(items: Vec<Value>, next: Option<String>) -> Json<Value> {
    Json(json!({ "items": items, "next_page_token": next }))
}

/// CircleCI's answer to a request that it carries out a little later.
pub(super) fn accepted() -> Json<Value> {
    Json(json!({ "message": "Accepted." }))
}

/// A number in a path.
pub(super) fn number(text: &str) -> Result<i64, DeliveryError> {
    text.parse()
        .map_err(|_| DeliveryError::not_found(format!("there is nothing with the number `{}`", text.escape_debug())))
}
