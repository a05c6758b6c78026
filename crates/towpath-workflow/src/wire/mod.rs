//! Events as they are stored.
//!
//! `{"version": 1, "event": {"type": "job_claimed", …}}`: the form has its own version and types, so that the domain's
//! types can change independently of what was stored years ago.
//!
//! - **Invariant:** Towpath can always read every version ever written. Adding an optional field is allowed; anything
//!   else needs a new version, with its module beside the old one.
//! - **Invariant:** an unknown field or version is an error: a newer Towpath wrote it, and acting on half of an event
//!   is worse than not acting.

mod outcome_v1;
mod release_v1;
mod workflow_v1;

use crate::{DefinitionError, release, workflow};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// The version to write.
const VERSION: u32 = 1;

/// Why a stored event cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// It does not have the form of an event.
    #[error("a stored event does not have the form of one")]
    Form(#[source] serde_json::Error),
    /// A newer Towpath wrote it.
    #[error("a stored event has version {0}: a newer Towpath wrote it, and this one reads up to version {VERSION}")]
    Version(u32),
    /// Its jobs are not a valid workflow.
    #[error("a stored workflow cannot be one")]
    Definition(#[source] DefinitionError),
}

/// The part that every version has.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<E> {
    #[serde(rename = "version")]
    _version: u32,
    event: E,
}

/// Writes an event of a workflow.
#[must_use]
pub fn write_workflow_event(event: &workflow::Event) -> Value {
    json!({ "version": VERSION, "event": workflow_v1::Event::from(event) })
}

/// Reads an event of a workflow.
///
/// # Errors
/// [`WireError`] when Towpath did not write it, or a newer Towpath did.
pub fn read_workflow_event(stored: Value) -> Result<workflow::Event, WireError> {
    read::<workflow_v1::Event>(stored)?
        .try_into()
        .map_err(WireError::Definition)
}

/// Writes an event of a release.
#[must_use]
pub fn write_release_event(event: &release::Event) -> Value {
    json!({ "version": VERSION, "event": release_v1::Event::from(event) })
}

/// Reads an event of a release.
///
/// # Errors
/// [`WireError`] when Towpath did not write it, or a newer Towpath did.
pub fn read_release_event(stored: Value) -> Result<release::Event, WireError> {
    read::<release_v1::Event>(stored).map(Into::into)
}

fn read<V1: DeserializeOwned>(stored: Value) -> Result<V1, WireError> {
    let Versioned { version } = Versioned::deserialize(&stored).map_err(WireError::Form)?;
    match version {
        1 => {
            let envelope: Envelope<V1> = serde_json::from_value(stored).map_err(WireError::Form)?;
            Ok(envelope.event)
        }
        other => Err(WireError::Version(other)),
    }
}
