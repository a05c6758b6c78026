//! The body of a request that contains a working tree's manifests.

use crate::answer::Failure;
use axum::{
    Json,
    extract::{DefaultBodyLimit, FromRequest, Request, rejection::JsonRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use towpath_delivery::{DeliveryError, LaptopRequest};
use towpath_forge::LARGEST_TREE_BYTES;

/// The largest body. It fits the largest tree that Towpath reads: JSON writes a line break and a quote as two bytes each.
pub(super) const LARGEST_BODY_BYTES: usize = 2 * LARGEST_TREE_BYTES as usize + (1 << 20);

/// The body limit for routes that take a [`Laptop`].
pub(super) fn limit() -> DefaultBodyLimit {
    DefaultBodyLimit::max(LARGEST_BODY_BYTES)
}

/// What a laptop asks for.
pub(super) struct Laptop(pub LaptopRequest);

impl<S: Send + Sync> FromRequest<S> for Laptop {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        match Json::from_request(request, state).await {
            Ok(Json(request)) => Ok(Self(request)),
            Err(JsonRejection::BytesRejection(rejection)) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                let message = format!(
                    "the files that environments are made from are a request of more than {} MiB, and the server takes no larger one: which are the largest?",
                    LARGEST_BODY_BYTES >> 20
                );
                Err(Failure(DeliveryError::invalid(message)).into_response())
            }
            Err(rejection) => Err(rejection.into_response()),
        }
    }
}
