//! Tells the registry's owner about pushes.

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

/// Called for every manifest that is pushed through the API, after it is on the disk and before the client gets its answer. It
/// runs on a thread that may block. A repeated push is reported again.
///
/// If it fails, the client gets an error and pushes again. So the observer knows of every push that a client believes is done.
pub type PushObserver = Arc<dyn Fn(&PushedManifest) -> Result<(), NotNoted> + Send + Sync>;

/// The observer could not record a push.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct NotNoted {
    /// The reason, for the person who pushes.
    pub message: String,
    /// Whether a disk is full.
    pub is_disk_full: bool,
}
