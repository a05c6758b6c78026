//! Findings about objects.

use crate::target::{Finding, Severity};
use towpath_manifest::Object;

/// A note about a whole object.
pub(super) fn note(object: &Object, message: &str) -> Finding {
    Finding {
        severity: Severity::Note,
        object: object.id(),
        field: String::new(),
        place: object.place.clone(),
        message: message.to_string(),
    }
}

/// A refusal of the field at a JSON pointer.
pub(super) fn refused_at(object: &Object, pointer: &str, message: String) -> Finding {
    Finding {
        severity: Severity::Refused,
        object: object.id(),
        field: pointer.trim_start_matches('/').replace('/', "."),
        place: object.place_of(pointer),
        message,
    }
}
