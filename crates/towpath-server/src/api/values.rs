//! A value that is a request's whole body.

use axum::body::Bytes;
use towpath_delivery::DeliveryError;
use towpath_types::SecretString;

pub(super) fn value(bytes: &Bytes) -> Result<SecretString, DeliveryError> {
    let text = std::str::from_utf8(bytes).map_err(|_| DeliveryError::invalid("the value is not text (UTF-8)"))?;
    Ok(SecretString::new(text.to_string()))
}
