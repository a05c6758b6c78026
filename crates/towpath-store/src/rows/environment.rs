//! Environments as pages show them.

use jiff::Timestamp;
use serde_json::Value;
use towpath_types::{EnvironmentId, ReleaseId};

/// Whether an environment could be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sighting {
    /// Nobody has looked yet.
    Never,
    /// It was looked at.
    Seen {
        /// When last.
        at: Timestamp,
    },
    /// It cannot be looked at. What the row says is what was seen before.
    Unknown {
        /// Since when.
        since: Timestamp,
        /// Why, a sentence.
        because: String,
    },
}

/// One environment: where it is, and what a poller saw there last.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct EnvironmentRow {
    pub id: EnvironmentId,
    /// The kube context whose folder has its manifests. Empty while more than one has it.
    pub kube_context: String,
    pub namespace: String,
    /// More than one kube context has an environment of this name: these.
    pub ambiguous: Vec<String>,
    /// Whether the default branch's manifests have it; an environment that is deployed to outlives its manifests.
    pub listed: bool,
    pub sighting: Sighting,
    /// The release that runs there.
    pub release: Option<ReleaseId>,
    /// What was seen: workloads, addresses, lock, deployment under way. The poller's wire form; `Null` before the first look.
    pub seen: Value,
    /// What differs from the release: the poller's wire form; `Null` before the first look.
    pub drift: Value,
    pub drift_at: Option<Timestamp>,
    pub version: u64,
}
