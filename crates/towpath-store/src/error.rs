//! Why the storage could not do what it was asked.

use crate::WorkKey;
use std::{io, path::PathBuf, time::Duration};

/// Why the storage could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A write found something else than it expected; nothing was stored. Load again, and decide again.
    #[error("{what} was changed by somebody else in the meantime")]
    Conflict {
        /// The row or stream.
        what: String,
    },
    /// The lease of a piece of work was lost; nothing was stored. Another server has the work now, or nobody needs it.
    #[error("the lease of {0} was lost")]
    Fenced(WorkKey),
    /// Bytes of a log that begin beyond its end.
    #[error("the log ends at byte {length}, so what comes before these bytes is missing")]
    LogGap {
        /// How long the log is.
        length: u64,
    },
    /// No such blob.
    #[error("there is no blob {0}")]
    NoBlob(towpath_types::Digest),
    /// Another server uses the data directory.
    #[error("`{}` is in use by another Towpath{}: stop that one, or use another data directory", path.display(), .pid.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The other server's process, when it is known.
        pid: Option<i32>,
    },
    /// A data directory has everything but its database. Beginning anew would lose what the rest belongs to.
    #[error(
        "`{}` has {found}, but its database {database} is missing or empty: put the database back from a backup, or begin anew with an empty data directory. Nothing was changed",
        path.display()
    )]
    DatabaseLost {
        /// The directory.
        path: PathBuf,
        /// `` `towpath.db` ``, or where else the rows are.
        database: String,
        /// What is there: `` `instance` and `logs` ``.
        found: String,
    },
    /// What is on the disk is no whole database.
    #[error(
        "the database `{database}` is damaged: stop Towpath, and put the whole data directory back from a backup; `sqlite3 {database} .recover` prints what can still be read"
    )]
    Damaged {
        /// Its file.
        database: String,
        /// How that showed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The database in a data directory belongs to another one.
    #[error(
        "`{}` is the data directory of the Towpath `{folder}`, but its database is that of `{database}`: put back the database that belongs to it",
        path.display()
    )]
    OtherInstance {
        /// The directory.
        path: PathBuf,
        /// The name in its file `instance`.
        folder: String,
        /// The name in its database.
        database: String,
    },
    /// The disk has no room left.
    #[error("the disk of `{0}` is full: make room; everything that was stored before is still there")]
    Full(String),
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
    /// The object store refused, or did not answer.
    #[error("failed to {attempt} `{key}` in the object store")]
    Object {
        /// What was attempted.
        attempt: &'static str,
        /// On which object.
        key: String,
        /// Why it did not work.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The database did not answer or could not be reached. Trying again may help.
    #[error("the database `{database}` does not answer")]
    Unavailable {
        /// Its file, or its address without a password.
        database: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The database refused. Trying again does not help.
    #[error("the database `{database}` refused")]
    Database {
        /// Its file, or its address without a password.
        database: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What is stored is not what was written: damaged, or by a newer version.
    #[error("{what} in the database cannot be read: {why}")]
    Unreadable {
        /// Which row and column.
        what: String,
        /// Why.
        why: String,
    },
    /// A newer version of Towpath made the database.
    #[error(
        "the database `{database}` was made by a newer Towpath (schema {found}, this one knows {known}): use that one"
    )]
    TooNew {
        /// Its file, or its address without a password.
        database: String,
        /// Its schema.
        found: i64,
        /// The newest that this version knows.
        known: i64,
    },
    /// The address of a database or an object store cannot be read.
    #[error("{0}")]
    Address(String),
    /// The process is stopping.
    #[error("the storage's work was interrupted because the process is stopping")]
    Stopping,
}

impl StoreError {
    /// Whether the same call may succeed later: the database or the object store is away, or the disk is full.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Unavailable { .. } | Self::Object { .. } | Self::Full(_) | Self::Io { .. } => true,
            Self::Conflict { .. }
            | Self::Fenced(_)
            | Self::LogGap { .. }
            | Self::NoBlob(_)
            | Self::InUse { .. }
            | Self::DatabaseLost { .. }
            | Self::Damaged { .. }
            | Self::OtherInstance { .. }
            | Self::Database { .. }
            | Self::Unreadable { .. }
            | Self::TooNew { .. }
            | Self::Address(_)
            | Self::Stopping => false,
        }
    }

    pub(crate) fn silent(database: &str, bound: Duration) -> Self {
        Self::Unavailable {
            database: database.to_string(),
            source: format!("no answer within {} s", bound.as_secs()).into(),
        }
    }

    pub(crate) fn io(attempt: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full(path.display().to_string()),
            _ => Self::Io { attempt, path, source },
        }
    }
}
