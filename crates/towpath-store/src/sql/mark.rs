//! How far a database has come, kept outside of it: a database that is behind has lost what was committed.
//!
//! The measure is the sum of the numbers that the database has given (to pipelines, jobs, releases, and in SQLite to leases). It
//! only grows, and it costs nothing to keep. The file `database.mark` in the data directory says how high it is at least. A
//! commit that gives a number is answered after the file says so. Other commits are noted soon after, and wait for nothing.

use super::{
    database::{Backend, Transaction},
    operation::Done,
    query::{Query, Row},
};
use crate::StoreError;
use nix::fcntl::{Flock, FlockArg};
use std::{
    fs::File,
    io::{self, Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::sync::Notify;

const TABLE: &str = "counters";

/// The shortest time between two notes that no commit waits for.
const NOTED_EVERY: Duration = Duration::from_secs(5);

/// The mark of a folder that has none.
const UNMARKED: i64 = -1;

/// The sum of all numbers that were given.
fn sum() -> Query {
    Query::new("SELECT CAST(COALESCE(SUM(value), 0) AS BIGINT) AS value FROM counters")
}

fn read_sum(rows: &[Row]) -> Result<i64, StoreError> {
    match rows.first() {
        Some(row) => row.get("value"),
        None => Err(StoreError::Unreadable {
            what: "the sum of the counters".into(),
            why: "it gave no number".into(),
        }),
    }
}

/// Reads how far a database has come.
pub(crate) async fn height(to: &mut Transaction<'_>) -> Result<i64, StoreError> {
    read_sum(&to.rows(TABLE, sum()).await?)
}

/// The same, outside of a transaction.
pub(crate) async fn height_of(backend: &Backend) -> Result<i64, StoreError> {
    read_sum(&backend.rows(TABLE, sum()).await?)
}

/// The file in a data directory.
fn file(folder: &Path) -> PathBuf {
    folder.join("database.mark")
}

/// How far a database had come at least. Read this before the database's height: other servers raise both meanwhile.
pub(crate) fn marked(folder: &Path) -> Result<i64, StoreError> {
    raise(&file(folder), UNMARKED)
}

/// Checks that a database of `height` is not behind what was `marked` in `folder`, and raises the mark.
///
/// # Errors
/// [`StoreError::Behind`] when it is behind.
pub(crate) fn check(folder: &Path, database: &str, marked: i64, height: i64) -> Result<(), StoreError> {
    if height < marked {
        return Err(StoreError::Behind {
            path: folder.to_path_buf(),
            database: database.to_string(),
            height,
            marked,
        });
    }
    raise(&file(folder), height).map(drop)
}

/// Raises the mark to `height`, unless it is higher, and returns what it is then. Servers that share the folder take turns.
fn raise(path: &Path, height: i64) -> Result<i64, StoreError> {
    let failed = || StoreError::io("write", path);
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(failed())?;
    let mut file = lock(file).map_err(failed())?;
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(failed())?;
    let known: i64 = match text.trim() {
        // A kill right after the file was made.
        "" => UNMARKED,
        number => number.parse().map_err(|_| StoreError::Unreadable {
            what: format!("the mark `{}`", path.display()),
            why: "it is not a number; delete it if the database is whole".into(),
        })?,
    };
    if known >= height {
        return Ok(known);
    }
    // Always of one length and within one block, so that no kill leaves half of it.
    file.rewind().map_err(failed())?;
    file.write_all(format!("{height:020}\n").as_bytes()).map_err(failed())?;
    match text.is_empty() {
        true => file.sync_all(),
        false => file.sync_data(),
    }
    .map_err(failed())?;
    Ok(height)
}

fn lock(file: File) -> io::Result<Flock<File>> {
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error.into())
}

/// Keeps the mark of a store. Clones share it; without a data directory it does nothing.
#[derive(Clone, Default)]
pub(crate) struct Marks(Arc<Kept>);

#[derive(Default)]
struct Kept {
    path: OnceLock<PathBuf>,
    changed: Notify,
}

impl Marks {
    /// Keeps the mark in `folder` from now on.
    pub(crate) fn keep_in(&self, folder: &Path) {
        let _ = self.0.path.set(file(folder));
    }

    /// How far the database has come with `done`, if the mark has to say so before anybody is answered.
    pub(crate) async fn given_by<'d>(
        &self,
        to: &mut Transaction<'_>,
        done: impl Iterator<Item = &'d Done>,
    ) -> Result<Option<i64>, StoreError> {
        if self.0.path.get().is_none() {
            return Ok(None);
        }
        let gave_number = |done: &Done| match done {
            Done::Committed(committed) => {
                !(committed.pipelines.is_empty() && committed.jobs.is_empty() && committed.releases.is_empty())
            }
            Done::Claimed(_) | Done::Renewed(_) | Done::Nothing => false,
        };
        let mut done = done;
        if !done.any(gave_number) {
            self.0.changed.notify_one();
            return Ok(None);
        }
        height(to).await.map(Some)
    }

    /// Raises the mark. The commit has happened, so a failure is only reported: the next mark makes up for it.
    pub(crate) async fn raise(&self, height: i64) {
        let Some(path) = self.0.path.get().cloned() else { return };
        match tokio::task::spawn_blocking(move || raise(&path, height)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                let error = towpath_types::with_causes(&error);
                tracing::warn!(error, "failed to note how far the database has come");
            }
            Err(error) => tracing::warn!(%error, "failed to note how far the database has come"),
        }
    }

    /// Notes, now and then, what no commit waits for.
    pub(crate) async fn follow(self, backend: Backend) {
        loop {
            self.0.changed.notified().await;
            // A database that is away is asked again after its next change.
            if let Ok(height) = height_of(&backend).await {
                self.raise(height).await;
            }
            tokio::time::sleep(NOTED_EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_mark_only_rises() {
        let folder = tempfile::tempdir().unwrap();
        let at = |height| check(folder.path(), "`towpath.db`", marked(folder.path())?, height);
        for height in [0, 7, 7, 1_000] {
            at(height).unwrap();
        }
        let error = at(999).unwrap_err();
        assert!(
            matches!(
                error,
                StoreError::Behind {
                    height: 999,
                    marked: 1_000,
                    ..
                }
            ),
            "{error:?}"
        );
        assert_eq!(raise(&file(folder.path()), 5).unwrap(), 1_000);
        std::fs::write(file(folder.path()), "zz").unwrap();
        let error = at(1_001).unwrap_err().to_string();
        assert!(
            error.contains("database.mark") && error.contains("delete it"),
            "{error}"
        );
        // A kill after the file was made and before it was written.
        std::fs::write(file(folder.path()), "").unwrap();
        at(0).unwrap();
    }
}
