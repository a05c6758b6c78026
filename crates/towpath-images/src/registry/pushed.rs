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
///
/// When it fails, the client hears so and pushes again: what it was told is done has been taken note of.
pub type PushObserver = Arc<dyn Fn(&PushedManifest) -> Result<(), NotNoted> + Send + Sync>;

/// A push that could not be taken note of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct NotNoted {
    /// Why, for whoever pushes.
    pub message: String,
    /// Whether a disk is full.
    pub is_disk_full: bool,
}
