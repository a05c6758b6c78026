//! What a place that knows orbs answers.

use crate::{OrbReference, OrbVersion};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

/// Where an orb was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// In the repository.
    Vendored,
    /// In Towpath's own registry.
    Towpath,
    /// In CircleCI's public registry.
    Circleci,
    /// At the URL that names it.
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
        /// What was looked for.
        reference: String,
        /// Where.
        places: String,
    },
    /// A place could not be asked; the text says which and why.
    #[error("{0}")]
    Unavailable(String),
    /// The reference is none, or the lock file is broken by what was found.
    #[error("{0}")]
    Refused(String),
}

/// A place that knows orbs. May be called from many tasks at once; an answer is not cached.
pub trait Lookup: Send + Sync {
    /// The version that `reference` selects; `None` when this place does not know it. The error says why this place cannot be
    /// asked now, for a person.
    fn find<'a>(&'a self, reference: &'a OrbReference) -> BoxFuture<'a, Result<Option<Found>, String>>;
}
