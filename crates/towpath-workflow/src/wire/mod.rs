//! Events as they are stored.
//!
//! `{"version": 1, "event": {"type": "job_claimed", …}}`: the form has a version of its own and types of its own, so that
//! the domain's types can change without a look at what was stored years ago.
//!
//! - **Invariant:** what was written in a version is read for ever. A field that is added is optional; anything else is a
//!   new version, with its module beside the old one.
//! - **Invariant:** nothing is read and then ignored. A field or a version that is not known is an error: a newer Towpath
//!   wrote it, and acting on half of an event is worse than not acting.

mod outcome_v1;
mod release_v1;
mod workflow_v1;

use crate::{DefinitionError, release, workflow};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// The version that is written.
const VERSION: u32 = 1;

/// Why a stored event cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// It is not an event in its form.
    #[error("a stored event does not have the form of one")]
    Form(#[source] serde_json::Error),
    /// A newer Towpath wrote it.
    #[error("a stored event has version {0}: a newer Towpath wrote it, and this one reads up to version {VERSION}")]
    Version(u32),
    /// Its jobs make no workflow.
    #[error("a stored workflow cannot be one")]
    Definition(#[source] DefinitionError),
}

/// What every version has.
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
/// [`WireError`], when it was not written by us, or by a newer version of us.
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
/// [`WireError`], when it was not written by us, or by a newer version of us.
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
