//! Why the storage failed.

use crate::WorkKey;
use std::{io, path::PathBuf, time::Duration};

/// Why the storage failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A write did not find what it expected; nothing was stored. Load again, and decide again.
    #[error("{what} was changed by somebody else in the meantime")]
    Conflict {
        /// The row or stream.
        what: String,
    },
    /// The lease was lost; nothing was stored. Another server has the work now, or the work is no longer needed.
    #[error("the lease of {0} was lost")]
    Fenced(WorkKey),
    /// The bytes begin past the end of the log.
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
    /// A data directory has everything but its database. Starting with an empty one would lose what the rest belongs
    /// to.
    #[error(
        "`{}` has {found}, but its database {database} is missing or empty: put the database back from a backup, or begin anew with an empty data directory. Nothing was changed",
        path.display()
    )]
    DatabaseLost {
        /// The directory.
        path: PathBuf,
        /// `` `towpath.db` ``, or the database elsewhere that holds the rows.
        database: String,
        /// What is there: `` `instance` and `logs` ``.
        found: String,
    },
    /// The database is older than what was stored in it: somebody removed its journal, or put an older backup back.
    #[error(
        "`{}` is ahead of its database {database}: that has lost what was stored last (it has given {height} numbers to pipelines, jobs, releases and leases, and had given at least {marked}). If its journal (`towpath.db-wal`) was removed, put that back; if an older backup of the database was put back, put back everything else from the same one. To go on with what the database has, delete `database.mark` there: every branch that has moved since then is run again. Nothing was started",
        path.display()
    )]
    Behind {
        /// The data directory.
        path: PathBuf,
        /// `` `towpath.db` ``, or the database elsewhere that holds the rows.
        database: String,
        /// How far the database has come: the sum of the numbers that it has given.
        height: i64,
        /// How far it had come.
        marked: i64,
    },
    /// The database file is damaged.
    #[error(
        "the database `{database}` is damaged: stop Towpath, and put the whole data directory back from a backup; `sqlite3 {database} .recover` prints what can still be read"
    )]
    Damaged {
        /// The database's file.
        database: String,
        /// The evidence.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The database does not belong to this data directory.
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
        /// The file or the folder.
        path: PathBuf,
        /// Why it did not work.
        source: io::Error,
    },
    /// The object store refused, or did not answer.
    #[error("failed to {attempt} `{key}` in the object store")]
    Object {
        /// What was attempted.
        attempt: &'static str,
        /// The object.
        key: String,
        /// Why it did not work.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The database did not answer or could not be reached. A retry may help.
    #[error("the database `{database}` does not answer")]
    Unavailable {
        /// Its file, or its address without a password.
        database: String,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The database refused. A retry does not help.
    #[error("the database `{database}` refused")]
    Database {
        /// Its file, or its address without a password.
        database: String,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The stored value is damaged, or a newer version wrote it.
    #[error("{what} in the database cannot be read: {why}")]
    Unreadable {
        /// The row and the column.
        what: String,
        /// The problem.
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
            | Self::Behind { .. }
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
