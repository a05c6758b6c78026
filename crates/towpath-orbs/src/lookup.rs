//! The contract of a place that orbs come from.

use crate::{OrbReference, OrbVersion};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

/// Where an orb was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// In the repository's own folder.
    Vendored,
    /// In Towpath's own registry.
    Towpath,
    /// In CircleCI's public registry.
    Circleci,
    /// At the URL that the reference is.
    Url,
}

/// An orb's source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The exact version.
    pub version: OrbVersion,
    /// The packed source.
    pub text: String,
}

/// Why an orb was not found.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// No place has it.
    #[error("no orb `{reference}` in {places}")]
    Unknown {
        /// The reference that was looked up.
        reference: String,
        /// The places that were asked.
        places: String,
    },
    /// A place could not be asked. The text says which place and why.
    #[error("{0}")]
    Unavailable(String),
    /// The text is not a reference, or the orb that was found contradicts the lock file.
    #[error("{0}")]
    Refused(String),
}

/// A place that knows orbs. May be called from many tasks at once; an answer is not cached.
pub trait Lookup: Send + Sync {
    /// The version that `reference` selects; `None` when this place does not know it. The error says why this place cannot be
    /// asked now, for a person.
    fn find<'a>(&'a self, reference: &'a OrbReference) -> BoxFuture<'a, Result<Option<Found>, String>>;
}
