//! The lock file: what the references of a configuration resolved to.

use crate::{OrbReference, is_url, lookup::Origin};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use towpath_types::Digest;

/// Where the lock file is in a repository.
pub const LOCK_FILE: &str = ".circleci/orbs.lock";

const HEAD: &str =
    "# What the orbs of this repository's configuration resolve to. `towpath orb lock` writes it; commit it.\n";

/// One resolved reference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Locked {
    /// The reference as the configuration, or an orb, writes it.
    pub reference: String,
    /// The reference with its exact version.
    pub resolved: String,
    /// Where it was found.
    pub from: Origin,
    /// The digest of the source's bytes.
    pub digest: Digest,
}

/// Why a lock file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("`{LOCK_FILE}` cannot be read: write it anew with `towpath orb lock`")]
pub struct LockError(#[source] Box<dyn std::error::Error + Send + Sync>);

/// A lock file's content, by reference.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lock(BTreeMap<String, Locked>);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    orb: Vec<Locked>,
}

impl Lock {
    /// Reads a lock file's text.
    ///
    /// # Errors
    /// When the text is not a lock file.
    pub fn parse(text: &str) -> Result<Self, LockError> {
        let file: File = toml::from_str(text).map_err(|error| LockError(error.into()))?;
        for locked in &file.orb {
            let references = [&locked.reference, &locked.resolved];
            for reference in references.into_iter().filter(|reference| !is_url(reference)) {
                reference
                    .parse::<OrbReference>()
                    .map_err(|error| LockError(error.into()))?;
            }
        }
        Ok(file.orb.into_iter().collect())
    }

    /// What a reference resolves to.
    #[must_use]
    pub fn get(&self, reference: &str) -> Option<&Locked> {
        self.0.get(reference)
    }

    /// How many references are locked.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is locked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Locked> for Lock {
    fn from_iter<T: IntoIterator<Item = Locked>>(all: T) -> Self {
        Self(
            all.into_iter()
                .map(|locked| (locked.reference.clone(), locked))
                .collect(),
        )
    }
}

impl std::fmt::Display for Lock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(HEAD)?;
        let file = File {
            orb: self.0.values().cloned().collect(),
        };
        f.write_str(&toml::to_string(&file).map_err(|_| std::fmt::Error)?)
    }
}
