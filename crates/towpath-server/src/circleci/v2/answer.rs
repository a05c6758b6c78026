//! The forms that the answers of API v2 share.

use axum::{Json, extract::Path};
use serde_json::{Value, json};
use towpath_delivery::DeliveryError;

/// `{vcs}/{org}/{project}` of a path.
pub(super) type Slug = Path<(String, String, String)>;
/// The same, with a number behind it.
pub(super) type Numbered = Path<(String, String, String, String)>;

/// A page of a list. `next` is the token of the page behind it.
pub(super) fn list(items: Vec<Value>, next: Option<String>) -> Json<Value> {
    Json(json!({ "items": items, "next_page_token": next }))
}

/// What CircleCI says when it does what it was asked a little later.
pub(super) fn accepted() -> Json<Value> {
    Json(json!({ "message": "Accepted." }))
}

/// A number in a path.
pub(super) fn number(text: &str) -> Result<i64, DeliveryError> {
    text.parse()
        .map_err(|_| DeliveryError::not_found(format!("there is nothing with the number `{}`", text.escape_debug())))
}
