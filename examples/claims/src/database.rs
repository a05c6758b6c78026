//! The database: one SQLite file that web pods, workers and jobs open at the same time.

use crate::claim::{Claim, NewClaim, Status, decide};
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};
use std::{path::Path, time::Duration};

/// How long a writer waits for another one.
const BUSY: Duration = Duration::from_secs(10);

/// Each one brings the schema from the version of its index to the next. Never edit a released one. Every version of the
/// program has to work with the next version's schema, because both run during a rollout.
const MIGRATIONS: [&str; 2] = [
    "CREATE TABLE claims (
        id INTEGER PRIMARY KEY,
        claimant TEXT NOT NULL,
        purpose TEXT NOT NULL,
        pence INTEGER NOT NULL CHECK (pence > 0),
        status TEXT NOT NULL DEFAULT 'submitted',
        submitted_at INTEGER NOT NULL DEFAULT (unixepoch())
    ) STRICT;",
    "ALTER TABLE claims ADD COLUMN decided_at INTEGER;
     CREATE INDEX claims_by_status ON claims (status, id);",
];

#[derive(Debug)]
pub enum DatabaseError {
    Folder(std::io::Error),
    Sqlite(&'static str, rusqlite::Error),
    /// The schema has an earlier version, and cannot be used yet.
    NotMigrated {
        version: usize,
    },
}

impl std::fmt::Display for DatabaseError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Folder(error) => write!(out, "failed to create the database's folder: {error}"),
            Self::Sqlite(attempted, error) => write!(out, "failed to {attempted}: {error}"),
            Self::NotMigrated { version } => write!(
                out,
                "the database's schema has version {version}, this program needs {}: run `claims migrate`",
                MIGRATIONS.len()
            ),
        }
    }
}

impl std::error::Error for DatabaseError {}

fn failed(attempted: &'static str) -> impl Fn(rusqlite::Error) -> DatabaseError {
    move |error| DatabaseError::Sqlite(attempted, error)
}

/// One connection to the database.
pub struct Database(Connection);

impl Database {
    /// Opens the file, and creates it if it is missing. Several processes may open it at once.
    pub fn open(path: &Path) -> Result<Self, DatabaseError> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(DatabaseError::Folder)?;
        }
        let connection = Connection::open(path).map_err(failed("open the database"))?;
        connection.busy_timeout(BUSY).map_err(failed("set a time to wait"))?;
        // Allow readers beside a writer. The setting is stored in the file, so only the first process has to change it.
        let mode: String = connection
            .query_row("PRAGMA journal_mode", [], |row| row.get(0))
            .map_err(failed("open the database"))?;
        if mode != "wal" {
            switch_to_wal(&connection).map_err(failed("switch on the write-ahead log"))?;
        }
        Ok(Self(connection))
    }

    /// Brings the schema up to date and answers the versions before and after. Several processes may do this at once: each one
    /// reads the version again when it has the lock.
    pub fn migrate(&mut self) -> Result<(usize, usize), DatabaseError> {
        let transaction = self
            .0
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed("lock the database"))?;
        let before = version(&transaction)?;
        for migration in MIGRATIONS.iter().skip(before) {
            transaction
                .execute_batch(migration)
                .map_err(failed("migrate the database"))?;
        }
        let after = before.max(MIGRATIONS.len());
        transaction
            .pragma_update(None, "user_version", after as i64)
            .map_err(failed("write the schema's version"))?;
        transaction.commit().map_err(failed("migrate the database"))?;
        Ok((before, after))
    }

    /// Checks that this program can use the database. A newer schema is fine: a newer version is being rolled out.
    pub fn check(&self) -> Result<(), DatabaseError> {
        let version = version(&self.0)?;
        if version < MIGRATIONS.len() {
            Err(DatabaseError::NotMigrated { version })
        } else {
            Ok(())
        }
    }

    pub fn submit(&self, claim: &NewClaim) -> Result<i64, DatabaseError> {
        self.0
            .query_row(
                "INSERT INTO claims (claimant, purpose, pence) VALUES (?1, ?2, ?3) RETURNING id",
                params![claim.claimant, claim.purpose, claim.pence as i64],
                |row| row.get(0),
            )
            .map_err(failed("store a claim"))
    }

    /// The newest claims, except archived ones.
    pub fn newest(&self, limit: u32) -> Result<Vec<Claim>, DatabaseError> {
        let sql = "SELECT id, purpose, pence, status FROM claims WHERE status <> 'archived' ORDER BY id DESC LIMIT ?1";
        let mut statement = self.0.prepare_cached(sql).map_err(failed("list the claims"))?;
        let rows = statement.query_map([limit], claim).map_err(failed("list the claims"))?;
        rows.collect::<Result<_, _>>().map_err(failed("list the claims"))
    }

    /// One claim with its claimant.
    pub fn find(&self, id: i64) -> Result<Option<(Claim, String)>, DatabaseError> {
        let sql = "SELECT id, purpose, pence, status, claimant FROM claims WHERE id = ?1";
        let found = self.0.query_row(sql, [id], |row| Ok((claim(row)?, row.get(4)?)));
        found.optional().map_err(failed("find a claim"))
    }

    /// Decides the oldest submitted claim; `None` if there is none. Two workers never decide the same claim.
    pub fn decide_next(&mut self, auto_approve_pence: u64) -> Result<Option<Claim>, DatabaseError> {
        // Look without a lock first, so that an idle worker does not block others.
        let waiting = "SELECT id, purpose, pence, status FROM claims WHERE status = 'submitted' ORDER BY id LIMIT 1";
        let next = |connection: &Connection| connection.query_row(waiting, [], claim).optional();
        if next(&self.0).map_err(failed("look for a claim"))?.is_none() {
            return Ok(None);
        }
        let transaction = self
            .0
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed("lock the database"))?;
        let Some(mut claim) = next(&transaction).map_err(failed("look for a claim"))? else {
            return Ok(None);
        };
        claim.status = decide(claim.pence, auto_approve_pence);
        transaction
            .execute(
                "UPDATE claims SET status = ?1, decided_at = unixepoch() WHERE id = ?2 AND status = 'submitted'",
                params![claim.status.name(), claim.id],
            )
            .map_err(failed("decide a claim"))?;
        transaction.commit().map_err(failed("decide a claim"))?;
        Ok(Some(claim))
    }

    /// Archives claims that were decided at least `days` days ago, and answers how many.
    pub fn archive(&self, days: u32) -> Result<usize, DatabaseError> {
        let sql = "UPDATE claims SET status = 'archived'
                   WHERE status IN ('approved', 'referred') AND decided_at <= unixepoch() - ?1 * 86400";
        self.0.execute(sql, [days]).map_err(failed("archive claims"))
    }

    pub fn count(&self) -> Result<u64, DatabaseError> {
        let count = self
            .0
            .query_row("SELECT count(*) FROM claims", [], |row| row.get::<_, i64>(0));
        count.map(i64::unsigned_abs).map_err(failed("count the claims"))
    }

    pub fn vacuum(&self) -> Result<(), DatabaseError> {
        self.0
            .execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE);")
            .map_err(failed("vacuum the database"))
    }
}

/// Switches to the write-ahead log. SQLite does not wait while another process is switching, so this retries.
fn switch_to_wal(connection: &Connection) -> Result<(), rusqlite::Error> {
    let began = std::time::Instant::now();
    loop {
        match connection.query_row("PRAGMA journal_mode = wal", [], |row| row.get::<_, String>(0)) {
            Ok(_) => return Ok(()),
            Err(error) if error.sqlite_error_code() != Some(rusqlite::ErrorCode::DatabaseBusy) => return Err(error),
            Err(error) if began.elapsed() > BUSY => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

fn version(connection: &Connection) -> Result<usize, DatabaseError> {
    let version = connection.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0));
    version
        .map(|version| usize::try_from(version).unwrap_or(0))
        .map_err(failed("read the schema's version"))
}

fn claim(row: &Row<'_>) -> rusqlite::Result<Claim> {
    let status: String = row.get("status")?;
    Ok(Claim {
        id: row.get("id")?,
        purpose: row.get("purpose")?,
        pence: row.get::<_, i64>("pence")?.unsigned_abs(),
        // A newer version may have more statuses. During its rollout, this one still has to show the list.
        status: Status::named(&status).unwrap_or(Status::Referred),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn database() -> (tempfile::TempDir, Database) {
        let folder = tempfile::tempdir().unwrap();
        let mut database = Database::open(&folder.path().join("data/claims.db")).unwrap();
        database.migrate().unwrap();
        (folder, database)
    }

    fn train(pence: u64) -> NewClaim {
        NewClaim {
            claimant: "Ada".into(),
            purpose: "Train to Leeds".into(),
            pence,
        }
    }

    #[test]
    fn migrating_twice_changes_nothing_and_a_newer_schema_is_left_alone() {
        let (_folder, mut database) = database();
        assert_eq!(database.migrate().unwrap(), (2, 2));
        database.0.pragma_update(None, "user_version", 3).unwrap();
        assert_eq!(database.migrate().unwrap(), (3, 3));
        database.check().unwrap();
    }

    #[test]
    fn an_empty_database_is_not_ready_and_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("claims.db")).unwrap();
        assert_eq!(
            database.check().unwrap_err().to_string(),
            "the database's schema has version 0, this program needs 2: run `claims migrate`"
        );
    }

    #[test]
    fn several_may_open_and_migrate_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("claims.db");
        let versions: Vec<_> = std::thread::scope(|scope| {
            let migrate = || Database::open(&path).unwrap().migrate().unwrap();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(migrate)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(
            versions.iter().filter(|(before, _)| *before == 0).count(),
            1,
            "{versions:?}"
        );
        assert!(versions.iter().all(|(_, after)| *after == 2), "{versions:?}");
    }

    #[test]
    fn what_is_submitted_is_found_and_listed_newest_first() {
        let (_folder, database) = database();
        let ids = [
            database.submit(&train(4250)).unwrap(),
            database.submit(&train(9900)).unwrap(),
        ];
        let listed: Vec<_> = database.newest(10).unwrap().iter().map(|claim| claim.id).collect();
        assert_eq!(listed, [ids[1], ids[0]]);
        let (claim, claimant) = database.find(ids[0]).unwrap().unwrap();
        assert_eq!(
            (claim.pence, claim.status, claimant.as_str()),
            (4250, Status::Submitted, "Ada")
        );
        assert_eq!(database.find(99).unwrap(), None);
        assert_eq!(database.newest(1).unwrap().len(), 1);
    }

    #[test]
    fn each_claim_is_decided_once_however_many_workers_there_are() {
        let (folder, database) = database();
        for pence in 1..=40 {
            database.submit(&train(pence * 500)).unwrap();
        }
        let path = folder.path().join("data/claims.db");
        let mut decided: Vec<_> = std::thread::scope(|scope| {
            let work = || {
                let mut database = Database::open(&path).unwrap();
                std::iter::from_fn(|| database.decide_next(10_000).unwrap()).collect::<Vec<_>>()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        decided.sort_by_key(|claim| claim.id);
        assert_eq!(decided.len(), 40);
        assert!(
            decided.windows(2).all(|pair| pair[0].id < pair[1].id),
            "one was decided twice"
        );
        assert_eq!(
            decided.iter().filter(|claim| claim.status == Status::Approved).count(),
            20
        );
    }

    #[test]
    fn only_what_was_decided_long_ago_is_archived() {
        let (_folder, mut database) = database();
        for _ in 0..3 {
            database.submit(&train(100)).unwrap();
        }
        database.decide_next(10_000).unwrap();
        database.decide_next(10_000).unwrap();
        database
            .0
            .execute(
                "UPDATE claims SET decided_at = unixepoch() - 91 * 86400 WHERE id = 1",
                [],
            )
            .unwrap();
        assert_eq!(database.archive(90).unwrap(), 1);
        assert_eq!(database.archive(90).unwrap(), 0);
        assert_eq!(
            database
                .newest(10)
                .unwrap()
                .iter()
                .map(|claim| claim.id)
                .collect::<Vec<_>>(),
            [3, 2]
        );
        assert_eq!(database.count().unwrap(), 3);
        database.vacuum().unwrap();
    }
}
