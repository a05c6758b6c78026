//! Environments as pages show them.

use jiff::Timestamp;
use serde_json::Value;
use towpath_types::{EnvironmentId, ReleaseId};

/// Whether a poller could see an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sighting {
    /// Nobody has looked yet.
    Never,
    /// The last look succeeded.
    Seen {
        /// The time of the last look.
        at: Timestamp,
    },
    /// The last look failed. The row shows what was seen before.
    Unknown {
        /// The time of the first failed look.
        since: Timestamp,
        /// The reason, a sentence.
        because: String,
    },
}

/// One environment: where it is, and what a poller last saw there.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct EnvironmentRow {
    pub id: EnvironmentId,
    /// The kube context whose folder has its manifests; empty if there are several.
    pub kube_context: String,
    pub namespace: String,
    /// The kube contexts that have an environment of this name, if there are several.
    pub ambiguous: Vec<String>,
    /// Whether the default branch's manifests have it; an environment with a deployment outlives its manifests.
    pub listed: bool,
    pub sighting: Sighting,
    /// The release that runs there.
    pub release: Option<ReleaseId>,
    /// What a poller saw: workloads, addresses, lock, deployment in progress. The poller's wire form; `Null` before the
    /// first look.
    pub seen: Value,
    /// What differs from the release: the poller's wire form; `Null` before the first look.
    pub drift: Value,
    pub drift_at: Option<Timestamp>,
    pub version: u64,
}
