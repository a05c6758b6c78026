//! What can go wrong with the sealed store, and the remedies.

use crate::{NameError, Scope};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why the sealed store failed. Contains names and paths, never a value.
#[derive(Debug, thiserror::Error)]
pub enum SealedStoreError {
    /// The key file is missing, but there are files that only its key opens.
    #[error(
        "the key file of the sealed store `{}` is missing, and `{}` was sealed with its key: restore the key file from a backup, or \
         move the folder away to start without the values",
        key_file.display(), sealed.display()
    )]
    KeyLost {
        /// The missing file.
        key_file: PathBuf,
        /// One of the files that were sealed with it.
        sealed: PathBuf,
    },
    /// Users other than its owner may read or write the key file.
    #[error(
        "the key file of the sealed store `{}` is open to others (mode {mode:04o}): run `chmod 600` on it, and if somebody may have \
         read it, set every secret again",
        key_file.display()
    )]
    KeyExposed {
        /// The exposed file.
        key_file: PathBuf,
        /// The permission bits.
        mode: u32,
    },
    /// The key file does not contain a key.
    #[error(
        "the key file of the sealed store `{}` does not contain a key (one line of 64 hex digits): restore it from a backup",
        key_file.display()
    )]
    KeyDamaged {
        /// The damaged file.
        key_file: PathBuf,
    },
    /// A file was sealed with another key.
    #[error(
        "`{}` was sealed with another key than the one in `{}`: restore the right key file, or delete the file and set \
         the values of {scope} again",
        file.display(), key_file.display()
    )]
    OtherKey {
        /// The sealed file.
        file: PathBuf,
        /// The present key file.
        key_file: PathBuf,
        /// The scope of the values in the file.
        scope: Scope,
    },
    /// A file is not as the sealed store wrote it.
    #[error(
        "`{}` is damaged ({what}): restore it from a backup, or delete it and set the values of {scope} again; nothing \
         else is affected",
        file.display()
    )]
    Damaged {
        /// The sealed file.
        file: PathBuf,
        /// The scope of the values in the file.
        scope: Scope,
        /// What is wrong with the file.
        what: String,
    },
    /// One value does not open: its text, key, author or time was edited, or it was moved here.
    #[error(
        "the value of `{key}` in `{}` does not open: the file was edited, or parts of it come from another file; restore it \
         from a backup, or set `{key}` of {scope} again",
        file.display()
    )]
    DoesNotOpen {
        /// The sealed file.
        file: PathBuf,
        /// The scope of the values in the file.
        scope: Scope,
        /// The key of the value.
        key: String,
    },
    /// Kubernetes, CircleCI or the sealed store does not accept a name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A value could not be used where it would be read.
    #[error("the value of `{key}` in {scope} {what}")]
    Value {
        /// The scope of the refused value.
        scope: Scope,
        /// The key of the refused value.
        key: String,
        /// What is wrong with the value, such as a limit. Never the value itself.
        what: String,
    },
    /// Another process held the lock for too long.
    #[error(
        "waited {} seconds for `{}`, which another process has locked: end that process (`fuser` shows it) and try again",
        waited.as_secs(), lock_file.display()
    )]
    Locked {
        /// The locked file.
        lock_file: PathBuf,
        /// The patience that ran out.
        waited: Duration,
    },
    /// The system's source of randomness failed.
    #[error("failed to get random bytes from the system")]
    Randomness,
    /// An operation of the file system failed.
    #[error("failed to {doing} `{}`", path.display())]
    Io {
        /// A verb: `write`, `rename`.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
}
