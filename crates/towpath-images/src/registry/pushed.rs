//! What the registry tells its owner about pushes.

use super::{RepositoryName, TagName};
use std::sync::Arc;
use towpath_types::Digest;

/// A manifest that a client pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushedManifest {
    /// The repository that has it now.
    pub repository: RepositoryName,
    /// `None` when the client pushed it by digest.
    pub tag: Option<TagName>,
    /// The manifest's own digest.
    pub digest: Digest,
    /// The name in [`Verdict::AllowedAs`](super::Verdict::AllowedAs).
    pub by: Option<String>,
}

/// Called for every manifest that is pushed through the API, after it is on the disk and before the client gets its answer,
/// on a thread that may block. A push that is repeated is reported again.
pub type PushObserver = Arc<dyn Fn(&PushedManifest) + Send + Sync>;
