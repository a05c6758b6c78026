//! A value that is a request's whole body.

use axum::body::Bytes;
use towpath_types::SecretBytes;

pub(super) fn value(body: &Bytes) -> SecretBytes {
    SecretBytes::new(body.to_vec())
}
