//! SQLite in a data directory: locked, complete, and intact after a kill.

use crate::{
    backends,
    rows::{any_job, commit, one_job},
};
use jiff::Timestamp;
use serde_json::json;
use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};
use towpath_store::{
    Database, Expect, JobRow, JobStore, SqlStore, Store, StoreError, Work, WorkKey, WorkKind, WorkStore, WorkflowStore,
    Write, belong_together,
};
use towpath_testkit::{Absent, Probe, skipped, until};
use towpath_types::JobId;

const BOUND: Duration = Duration::from_secs(30);
const CHILD: &str = "TOWPATH_STORE_TEST_CHILD";

async fn open(folder: &Path) -> Result<SqlStore, StoreError> {
    SqlStore::open(Database::SqliteFile(folder.into())).await
}

async fn raw(folder: &Path, sql: &'static str) {
    let url = format!("sqlite://{}", folder.join("towpath.db").display());
    let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
    sqlx::query(sql).execute(&pool).await.unwrap();
    pool.close().await;
}

fn append(stream: &str, expected: u64, text: &str) -> Write {
    Write::Events {
        stream: stream.into(),
        expected,
        events: vec![json!(text)],
    }
}

#[tokio::test]
async fn a_second_server_is_told_who_has_the_directory() {
    let (folder, store) = backends::file().await;
    let error = open(folder.path()).await.unwrap_err().to_string();
    assert!(error.contains(&format!("(process {})", std::process::id())), "{error}");
    let (name, written) = (store.instance().to_string(), folder.path().join("instance"));
    assert_eq!(std::fs::read_to_string(&written).unwrap(), name);
    drop(store);
    // The last clone releases the lock.
    let again = open(folder.path()).await.unwrap();
    assert_eq!((again.instance(), again.is_new()), (name.as_str(), false));
    drop(again);
    std::fs::remove_file(&written).unwrap();
    let again = open(folder.path()).await.unwrap();
    assert_eq!(again.instance(), name);
    assert_eq!(std::fs::read_to_string(&written).unwrap(), name);
}

#[tokio::test]
async fn a_directory_without_its_database_is_refused() {
    let (folder, store) = backends::file().await;
    drop(store);
    let database = folder.path().join("towpath.db");
    for file in ["towpath.db", "towpath.db-wal", "towpath.db-shm"] {
        let _ = std::fs::remove_file(folder.path().join(file));
    }
    let refused = async |found: &str| {
        let error = open(folder.path()).await.unwrap_err();
        assert!(matches!(error, StoreError::DatabaseLost { .. }), "{error:?}");
        let message = error.to_string();
        assert!(
            message.contains(&format!("has {found}, but its database `towpath.db` is missing")),
            "{message}"
        );
        assert!(
            message.contains("from a backup, or begin anew with an empty data directory"),
            "{message}"
        );
        assert!(!error.is_temporary());
    };
    refused("`instance`").await;
    assert!(!database.exists(), "it was begun anew all the same");
    std::fs::create_dir_all(folder.path().join("logs/jobs")).unwrap();
    std::fs::create_dir_all(folder.path().join("blobs/ab")).unwrap();
    refused("`instance` and `logs` and `blobs`").await;
    std::fs::create_dir_all(folder.path().join("git/claims.git")).unwrap();
    std::fs::create_dir_all(folder.path().join("git/hooks")).unwrap();
    refused("`instance` and `git` and `logs` and `blobs`").await;
    std::fs::rename(folder.path().join("instance"), folder.path().join("kept")).unwrap();
    refused("`git` and `logs` and `blobs`").await;
    std::fs::rename(folder.path().join("kept"), folder.path().join("instance")).unwrap();
    std::fs::remove_dir_all(folder.path().join("git/claims.git")).unwrap();
    std::fs::write(&database, "").unwrap();
    refused("`instance` and `logs` and `blobs`").await;
    // A database without tables counts as missing.
    std::fs::remove_file(&database).unwrap();
    let url = format!("sqlite://{}?mode=rwc", database.display());
    let empty = sqlx::SqlitePool::connect(&url).await.unwrap();
    sqlx::query("PRAGMA user_version = 1").execute(&empty).await.unwrap();
    empty.close().await;
    assert!(std::fs::metadata(&database).unwrap().len() > 0);
    refused("`instance` and `logs` and `blobs`").await;
    std::fs::remove_file(&database).unwrap();
    for part in ["logs", "blobs"] {
        std::fs::remove_dir_all(folder.path().join(part)).unwrap();
        std::fs::create_dir(folder.path().join(part)).unwrap();
    }
    std::fs::remove_file(folder.path().join("instance")).unwrap();
    // Empty folders hold nothing to lose.
    assert!(open(folder.path()).await.unwrap().is_new());
}

#[tokio::test]
async fn a_database_that_was_cut_off_or_overwritten_is_refused_with_how_to_restore_it() {
    let (folder, store) = backends::file().await;
    let (_, writes) = one_job("claims");
    commit(&store, writes).await.unwrap();
    for sequence in 0..50 {
        commit(&store, [append("s", sequence, &"x".repeat(10_000))])
            .await
            .unwrap();
    }
    drop(store);
    // Move the journal's content into the database file.
    raw(folder.path(), "PRAGMA wal_checkpoint(TRUNCATE)").await;
    let database = folder.path().join("towpath.db");
    let whole = std::fs::read(&database).unwrap();
    assert!(whole.len() > 500_000);
    let page = 4_096;
    let cut = |length: usize| whole[..length].to_vec();
    for bytes in [
        cut(whole.len() / 2),
        cut(whole.len() - page),
        cut(page),
        cut(50),
        vec![b'?'; page],
    ] {
        let shown = bytes.len();
        std::fs::write(&database, bytes).unwrap();
        let error = open(folder.path()).await.unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{shown}: {error:?}");
        let text = error.to_string();
        assert!(text.contains("is damaged") && text.contains("from a backup"), "{text}");
        assert!(!error.is_temporary());
    }
    std::fs::write(&database, &whole).unwrap();
    let store = open(folder.path()).await.unwrap();
    assert_eq!(store.events("s", 0).await.unwrap().len(), 50);
}

/// Copies these files of a data directory, as a kill leaves them.
fn copy(from: &Path, to: &Path, files: &[&str]) {
    for file in files {
        std::fs::copy(from.join(file), to.join(file)).unwrap();
    }
}

#[tokio::test]
async fn a_database_that_lost_its_journal_or_is_an_older_one_is_refused() {
    const ROWS: [&str; 2] = ["towpath.db", "towpath.db-wal"];
    const BESIDE: [&str; 2] = ["instance", "database.mark"];
    let (folder, store) = backends::file().await;
    let (first, writes) = one_job("claims");
    commit(&store, writes).await.unwrap();
    let older = tempfile::tempdir().unwrap();
    copy(folder.path(), older.path(), &ROWS);
    commit(&store, [Write::NumberJob(first.id)]).await.unwrap();
    let with = |rows: &Path, files: &[&str]| {
        let copied = tempfile::tempdir().unwrap();
        copy(folder.path(), copied.path(), &BESIDE);
        copy(rows, copied.path(), files);
        copied
    };
    let refused = async |copied: &Path| {
        let error = open(copied).await.unwrap_err();
        assert!(matches!(error, StoreError::Behind { .. }), "{error:?}");
        let text = error.to_string();
        for part in ["`towpath.db`", "`towpath.db-wal`", "backup", "delete `database.mark`"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!error.is_temporary());
    };
    let number = async |copied: &Path| {
        let store = open(copied).await.unwrap();
        store.job(first.id).await.unwrap().unwrap().number
    };
    let whole = with(folder.path(), &ROWS);
    assert_eq!(number(whole.path()).await, Some(1));
    let restored = with(older.path(), &ROWS);
    refused(restored.path()).await;
    // Whoever means the older one says so.
    std::fs::remove_file(restored.path().join("database.mark")).unwrap();
    assert_eq!(number(restored.path()).await, None);
    // The journal that is removed holds only a part of the rows: the rest is in the database's file.
    raw(folder.path(), "PRAGMA wal_checkpoint(PASSIVE)").await;
    let (_, writes) = one_job("payments");
    commit(&store, writes).await.unwrap();
    refused(with(folder.path(), &["towpath.db"]).path()).await;
    open(with(folder.path(), &ROWS).path()).await.unwrap();
}

#[tokio::test]
async fn what_gives_no_number_of_its_own_is_noted_soon() {
    let (folder, store) = backends::file().await;
    let mark = || std::fs::read_to_string(folder.path().join("database.mark")).unwrap();
    let before = mark();
    let work = Work::new(WorkKey::new(WorkKind::Job, JobId::from_u128(1)), Timestamp::UNIX_EPOCH);
    commit(&store, [Write::Work(work.clone())]).await.unwrap();
    // A claim gives a fence.
    let claimed = store
        .claim(
            std::slice::from_ref(&work.key),
            "one",
            Timestamp::UNIX_EPOCH,
            Duration::from_secs(60),
        )
        .await
        .unwrap();
    assert_eq!(claimed.len(), 1);
    let rises = async || {
        Ok(match mark() > before {
            true => Probe::Found(()),
            false => Probe::NotYet(before.clone()),
        })
    };
    until("the mark rises", BOUND, rises).await.unwrap();
}

#[tokio::test]
async fn a_directory_belongs_to_one_database_wherever_that_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    belong_together(&path, "one", "db:5432/towpath").unwrap();
    belong_together(&path, "one", "db:5432/towpath").unwrap();
    // That database was emptied and created again.
    let error = belong_together(&path, "two", "db:5432/towpath").unwrap_err();
    assert!(matches!(error, StoreError::OtherInstance { .. }), "{error:?}");
    std::fs::create_dir_all(path.join("git/claims.git")).unwrap();
    std::fs::remove_file(path.join("instance")).unwrap();
    let error = belong_together(&path, "two", "db:5432/towpath")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("has `git`, but its database `db:5432/towpath` is missing"),
        "{error}"
    );
}

#[tokio::test]
async fn the_database_of_another_directory_is_refused() {
    let (folder, store) = backends::file().await;
    drop(store);
    std::fs::write(folder.path().join("instance"), "another").unwrap();
    let error = open(folder.path()).await.unwrap_err();
    assert!(matches!(error, StoreError::OtherInstance { .. }), "{error:?}");
    assert!(error.to_string().contains("of the Towpath `another`"), "{error}");
}

#[tokio::test]
async fn the_database_of_a_newer_version_is_refused() {
    let (folder, store) = backends::file().await;
    drop(store);
    let newer = "INSERT INTO _sqlx_migrations VALUES (9999, 'newer', CURRENT_TIMESTAMP, TRUE, x'00', 0)";
    raw(folder.path(), newer).await;
    let error = open(folder.path()).await.unwrap_err();
    let StoreError::TooNew { found, known, .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!((found, known), (9999, 1));
    assert!(
        error
            .to_string()
            .contains("made by a newer Towpath (schema 9999, this one knows 1)"),
        "{error}"
    );
}

#[tokio::test]
async fn a_column_that_cannot_be_read_is_named() {
    let (folder, store) = backends::file().await;
    let (job, writes) = one_job("claims");
    commit(&store, writes).await.unwrap();
    for (sql, what) in [
        ("UPDATE jobs SET status = 'paused'", "the column `status` of `jobs`"),
        (
            "UPDATE jobs SET status = 'queued', requires = '['",
            "the column `requires` of `jobs`",
        ),
        (
            "UPDATE jobs SET requires = '[]', attempt = -1",
            "the column `attempt` of `jobs`",
        ),
    ] {
        raw(folder.path(), sql).await;
        let error = store.job(job.id).await.unwrap_err();
        assert!(matches!(error, StoreError::Unreadable { .. }), "{error:?}");
        assert!(error.to_string().contains(what), "{error}");
        assert!(!error.is_temporary());
    }
    raw(folder.path(), "UPDATE jobs SET attempt = 1").await;
    assert!(store.job(job.id).await.unwrap().is_some());
}

#[tokio::test]
#[should_panic(expected = "reads a whole table: SCAN jobs")]
async fn a_statement_that_reads_a_whole_table_is_noticed() {
    let (folder, _store) = backends::file().await;
    backends::check_plans(folder.path(), &["SELECT id FROM jobs WHERE name = $1".to_string()]).await;
}

/// Not a test of its own: the next test starts and kills it.
#[tokio::test]
async fn child_that_commits_until_it_is_killed() {
    let Ok(folder) = std::env::var(CHILD) else { return };
    let store = open(folder.as_ref()).await.unwrap();
    let mut sequence = store.events("s", 0).await.unwrap().len() as u64;
    loop {
        let job = JobRow {
            // Earlier children have used the other ids.
            id: uuid::Uuid::new_v4().into(),
            ..any_job("claims")
        };
        let writes = [append("s", sequence, "x"), Write::Job(job, Expect::Absent)];
        commit(&store, writes).await.unwrap();
        println!("committed {sequence}");
        sequence += 1;
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = None;
    for round in 0..4u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "on_sqlite::child_that_commits_until_it_is_killed",
                "--nocapture",
            ])
            .env(CHILD, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let committed = lines
            .map_while(Result::ok)
            .filter_map(|line| line.split("committed ").nth(1)?.trim().parse::<u64>().ok());
        for sequence in committed {
            acknowledged = Some(sequence);
            if sequence >= (round + 1) * 13 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        let store = open(folder.path()).await.unwrap();
        let events = store.events("s", 0).await.unwrap();
        assert!(
            events.iter().zip(0..).all(|(event, at)| event.sequence == at),
            "round {round}"
        );
        let last = events.last().map(|event| event.sequence);
        assert!(last >= acknowledged, "round {round}: {last:?} < {acknowledged:?}");
        let url = format!("sqlite://{}", folder.path().join("towpath.db").display());
        let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
        let jobs: i64 = sqlx::query_scalar("SELECT count(*) FROM jobs")
            .fetch_one(&pool)
            .await
            .unwrap();
        assert_eq!(jobs, i64::try_from(events.len()).unwrap(), "an event without its row");
        pool.close().await;
    }
    assert!(acknowledged.is_some(), "the child committed nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_said_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=16m", "tmpfs"])
        .arg(folder.path())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        let absent = Absent("a small disk cannot be mounted here (not root?)".into());
        return skipped("a_full_disk_is_said_and_loses_nothing", &absent);
    }
    let store = open(folder.path()).await.unwrap();
    let ballast = folder.path().join("ballast");
    std::fs::write(&ballast, vec![0; 8 << 20]).unwrap();
    // Mix small and large commits, so that they share transactions: a large one that does not fit must not fail a small
    // one that does.
    let writers = (0..4).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            let stream = format!("stream/{writer}");
            let text = "y".repeat(if writer == 0 { 300 << 10 } else { 100 });
            for sequence in 0..2_000 {
                match commit(&store, [append(&stream, sequence, &text)]).await {
                    Ok(_) => {}
                    Err(error) => return (sequence, Some(error)),
                }
            }
            (2_000, None)
        })
    });
    let results = futures::future::join_all(writers).await;
    let mut kept = Vec::new();
    for (writer, result) in results.into_iter().enumerate() {
        let (count, error) = result.unwrap();
        if let Some(error) = &error {
            assert!(matches!(error, StoreError::Full(_)), "{error:?}");
            assert!(error.is_temporary());
            assert!(error.to_string().contains("is full: make room"), "{error}");
        }
        assert!(error.is_some() || writer > 0, "the disk was not filled");
        kept.push(count);
    }
    for (writer, count) in kept.iter().enumerate() {
        let found = store.events(&format!("stream/{writer}"), 0).await.unwrap().len() as u64;
        assert_eq!(found, *count, "writer {writer}");
    }
    std::fs::remove_file(&ballast).unwrap();
    for (writer, count) in kept.iter().enumerate() {
        commit(&store, [append(&format!("stream/{writer}"), *count, "again")])
            .await
            .unwrap();
    }
    drop(store);
    let unmounted = Command::new("umount").arg("-l").arg(folder.path()).status();
    assert!(unmounted.unwrap().success());
}
