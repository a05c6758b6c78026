//! The implementations, each with an empty store.

use sqlx::Row as _;
use std::{path::Path, sync::OnceLock};
use towpath_store::{Database, SqlStore};
use towpath_testkit::{Absent, Postgres, skipped};

pub async fn file() -> (tempfile::TempDir, SqlStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = SqlStore::open(Database::SqliteFile(folder.path().into()))
        .await
        .unwrap();
    (folder, store)
}

pub async fn memory() -> SqlStore {
    SqlStore::open(Database::SqliteMemory).await.unwrap()
}

pub async fn postgres(test: &str) -> Option<SqlStore> {
    let url = postgres_url(test)?;
    Some(SqlStore::open(Database::Postgres(url)).await.unwrap())
}

/// The address of an empty database in the cluster that all tests share; `None` if there is no PostgreSQL.
pub fn postgres_url(test: &str) -> Option<String> {
    static CLUSTER: OnceLock<Result<Postgres, Absent>> = OnceLock::new();
    match CLUSTER.get_or_init(|| Postgres::start().unwrap()) {
        Ok(cluster) => Some(cluster.database().unwrap()),
        Err(absent) => {
            skipped(test, absent);
            None
        }
    }
}

/// Tables that grow with the number of pipelines: no statement may scan one.
const LARGE: [&str; 16] = [
    "artifacts",
    "caches",
    "events",
    "gates",
    "image_pushes",
    "jobs",
    "nodes",
    "pipelines",
    "releases",
    "runs",
    "steps",
    "test_files",
    "tests",
    "triggers",
    "work",
    "workflows",
];

/// Checks SQLite's query plans: each statement uses an index and sorts no whole table.
pub async fn check_plans(folder: &Path, statements: &[String]) {
    let url = format!("sqlite://{}", folder.join("towpath.db").display());
    let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
    for statement in statements {
        let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
        for row in sqlx::query(explain).fetch_all(&pool).await.unwrap() {
            let detail: String = row.get("detail");
            let whole = LARGE.iter().any(|table| detail == format!("SCAN {table}"));
            assert!(!whole, "`{statement}` reads a whole table: {detail}");
        }
    }
}
