//! What can go wrong in the registry's folder.

use super::RepositoryName;
use std::path::PathBuf;
use towpath_types::Digest;

/// What went wrong in the registry's folder.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// An operation on the disk failed.
    #[error("failed to {action} `{}` in the registry's folder", path.display())]
    Storage {
        /// A verb: `write`, `read`, `remove`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A file of the registry does not hold what it should.
    #[error("`{}` in the registry's folder is damaged: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with its content.
        why: String,
    },
    /// A tag cannot point to a manifest that the repository does not have.
    #[error("repository `{repository}` has no manifest {digest}")]
    ManifestUnknown {
        /// The repository of the tag.
        repository: RepositoryName,
        /// The digest that the tag was to point to.
        digest: Digest,
    },
    /// The runtime is shutting down.
    #[error("the registry stopped in the middle of its work because the process is stopping")]
    Stopping,
}

impl RegistryError {
    /// Whether the disk is full, or our quota of it.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        use std::io::ErrorKind;
        matches!(self, Self::Storage { source, .. }
            if matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded))
    }
}
