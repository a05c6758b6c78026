//! Towpath's orb registry, and a cache of sources from other registries.

use jiff::Timestamp;
use uuid::Uuid;

/// A namespace of orbs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct OrbNamespace {
    pub id: Uuid,
    pub name: String,
}

/// An orb.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct OrbRow {
    pub id: Uuid,
    pub namespace: String,
    /// Its name within the namespace.
    pub name: String,
    pub is_private: bool,
    pub is_listed: bool,
    pub created_at: Timestamp,
}

/// A version of an orb. A release is inserted once and never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct OrbVersionRow {
    pub id: Uuid,
    pub namespace: String,
    pub name: String,
    /// `1.2.3` or `dev:first`.
    pub version: String,
    /// The source as it was published.
    pub source: String,
    /// The source with its own imports pinned to exact versions.
    pub frozen: String,
    pub created_at: Timestamp,
}

/// The source of a release from another registry.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct FetchedOrb {
    /// `namespace/orb@1.2.3`.
    pub reference: String,
    pub source: String,
}
