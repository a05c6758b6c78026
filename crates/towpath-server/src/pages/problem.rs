//! An error as a page.

use super::layout::{Watches, page};
use crate::{PAGES, answer};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use towpath_delivery::{DeliveryError, ErrorKind};

/// What handlers of pages return.
pub(super) type Shown = Result<Markup, Problem>;

/// An error on its way to a browser.
pub(super) struct Problem(DeliveryError);

impl From<DeliveryError> for Problem {
    fn from(error: DeliveryError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        answer::log(&self.0);
        let title = match self.0.kind() {
            ErrorKind::NotFound => "Not here",
            ErrorKind::Conflict => "Not now",
            ErrorKind::Invalid | ErrorKind::Forbidden | ErrorKind::Unavailable | ErrorKind::Internal => {
                "That did not work"
            }
        };
        let body = html! {
            h1 { (title) }
            pre.message { (self.0.to_string()) }
            p { a href=(PAGES) { "Back to the board" } }
        };
        (answer::status(&self.0), page(title, &Watches::Nothing, body)).into_response()
    }
}
