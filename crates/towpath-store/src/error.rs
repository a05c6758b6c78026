//! Why the storage could not do what it was asked.

use std::{io, path::PathBuf};

/// Why the storage could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else appended to the stream first.
    #[error("stream `{stream}` is at version {actual}, not {expected}")]
    Conflict {
        /// The stream.
        stream: String,
        /// Where the caller believed it to be.
        expected: u64,
        /// Where it is.
        actual: u64,
    },
    /// Bytes of a log that begin beyond its end.
    #[error("the log ends at byte {length}: what lies between is missing")]
    LogGap {
        /// How long the log is.
        length: u64,
    },
    /// No such blob.
    #[error("there is no blob {0}")]
    NoBlob(towpath_types::Digest),
    /// Another server uses the directory.
    #[error("`{}` is in use by another Towpath{}: stop that one, or use another data directory", path.display(), .pid.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The other server's process, when it is known.
        pid: Option<i32>,
    },
    /// The disk has no room left.
    #[error("the disk of `{}` is full: make room; nothing that was stored before is lost", .0.display())]
    Full(PathBuf),
    /// A file or a folder could not be used.
    #[error("failed to {attempt} `{}`", path.display())]
    Io {
        /// What was attempted.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it did not work.
        source: io::Error,
    },
    /// The database refused.
    #[error("the database `{}` failed", path.display())]
    Database {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: sqlx::Error,
    },
    /// What is stored is not what was written: a newer version's, or damaged.
    #[error("what is stored as {what} cannot be read")]
    Unreadable {
        /// Which row or document.
        what: String,
        /// Why.
        source: serde_json::Error,
    },
    /// The process is stopping.
    #[error("the storage's work was interrupted because the process is stopping")]
    Stopping,
}

impl StoreError {
    pub(crate) fn io(attempt: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full(path),
            _ => Self::Io { attempt, path, source },
        }
    }
}
