//! What can go wrong with the vault, and what to do about it.

use crate::{NameError, Scope};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why the vault could not do what was asked. Holds names and paths, never a value.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The key file is gone while there are files that only it opens.
    #[error(
        "the vault's key file `{}` is gone, and `{}` was sealed with it: put the key file back from a backup \
         (to begin again without the values, move the folder away)",
        key_file.display(), sealed.display()
    )]
    KeyLost {
        /// The key file.
        key_file: PathBuf,
        /// One of the files that it opens.
        sealed: PathBuf,
    },
    /// Others than its owner may read or write the key file.
    #[error(
        "the vault's key file `{}` is open to others (mode {mode:04o}): run `chmod 600` on it, and if somebody may have \
         read it, set every secret anew",
        key_file.display()
    )]
    KeyExposed {
        /// The key file.
        key_file: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The key file does not hold a key.
    #[error(
        "the vault's key file `{}` does not hold a key (one line of 64 hex digits): put it back from a backup",
        key_file.display()
    )]
    KeyDamaged {
        /// The key file.
        key_file: PathBuf,
    },
    /// A file was sealed with another key.
    #[error(
        "`{}` was sealed with another key than the one in `{}`: put the right key file back, or delete the file and set \
         the values of {scope} anew",
        file.display(), key_file.display()
    )]
    OtherKey {
        /// The file.
        file: PathBuf,
        /// The key file.
        key_file: PathBuf,
        /// Whose values it holds.
        scope: Scope,
    },
    /// A file cannot be read as what the vault wrote.
    #[error(
        "`{}` is damaged ({what}): put it back from a backup, or delete it and set the values of {scope} anew; nothing \
         else is affected",
        file.display()
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Whose values it holds.
        scope: Scope,
        /// What is wrong with it.
        what: String,
    },
    /// One value does not open: it, its key, its author or its time was edited, or it was moved here.
    #[error(
        "the value of `{key}` in `{}` does not open, so the file was edited or its parts come from elsewhere: put it \
         back from a backup, or set `{key}` of {scope} anew",
        file.display()
    )]
    DoesNotOpen {
        /// The file.
        file: PathBuf,
        /// Whose values it holds.
        scope: Scope,
        /// The key.
        key: String,
    },
    /// A name that Kubernetes, CircleCI or the vault does not take.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A value that its reader could not take.
    #[error("the value of `{key}` in {scope} {what}")]
    Value {
        /// Where it was to go.
        scope: Scope,
        /// The key.
        key: String,
        /// What is wrong with it: a limit, not the value.
        what: String,
    },
    /// Another process has held the lock for too long.
    #[error(
        "waited {} seconds for `{}`, which another process holds locked: end that process (`fuser` names it) and try again",
        waited.as_secs(), lock_file.display()
    )]
    Locked {
        /// The lock file.
        lock_file: PathBuf,
        /// How long.
        waited: Duration,
    },
    /// The system's source of randomness failed.
    #[error("failed to get random bytes from the system")]
    Randomness,
    /// The file system refused.
    #[error("failed to {doing} `{}`", path.display())]
    Io {
        /// What was attempted: `write`, `rename`.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}
