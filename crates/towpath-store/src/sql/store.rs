//! Opening a store, committing to it, and hearing of its changes.

use super::{
    database::{Backend, Database, Readers, STATEMENTS, Transaction},
    failure::failed,
    folder,
    handle::{AbortOnDrop, Shared, SqlStore},
    mark::{self, Marks},
    migrate::{self, Identity},
    operation::{Done, Operation},
    postgres,
    publish::Publisher,
    writer,
};
use crate::{Change, Changes, Commit, Committed, Store, StoreError, Topic};
use async_trait::async_trait;
use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use std::{path::Path, time::Duration};
use tokio::sync::{broadcast, mpsc};

/// How many changes a listener may lag behind before it is told that anything may have changed.
const CHANGES: usize = 1_024;

/// What a data directory's database is called in messages.
const DATABASE: &str = "`towpath.db`";

/// How many connections read an embedded database at once.
const READERS: u32 = 4;

impl SqlStore {
    /// Opens a store, and makes it if it is not there: a data directory, or the tables of an empty database.
    ///
    /// A data directory is for this process alone until the last clone is dropped. Call it within a tokio runtime; the
    /// store ends with that runtime.
    ///
    /// # Errors
    /// - [`StoreError::InUse`] when another process has the data directory.
    /// - [`StoreError::DatabaseLost`] when a data directory has everything but its database.
    /// - [`StoreError::Behind`] when the database has lost what was committed last.
    /// - [`StoreError::TooNew`] when a newer Towpath made the database.
    /// - [`StoreError::Unavailable`] when PostgreSQL does not answer within some seconds.
    /// - [`StoreError::Address`] when its address cannot be read.
    pub async fn open(database: Database) -> Result<Self, StoreError> {
        match database {
            Database::SqliteFile(folder) => open_file(&folder).await,
            Database::SqliteMemory => open_memory().await,
            Database::Postgres(url) => postgres::open(&url).await,
        }
    }
}

fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .min_connections(1)
        // A database in memory dies with its connection, and connections to a file need no renewal.
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
}

async fn open_file(folder: &Path) -> Result<SqlStore, StoreError> {
    folder::make(folder)?;
    let lock = folder::lock(folder)?;
    let path = folder::database(folder);
    if std::fs::metadata(&path).map_or(0, |metadata| metadata.len()) == 0 {
        folder::check_nothing_is_lost(folder, DATABASE)?;
    }
    let name = path.display().to_string();
    let options = SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // A commit must be on the disk before its answer, because its events are then acted on.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(10))
        .statement_cache_capacity(STATEMENTS);
    let writer = pool(1).connect_with(options.clone()).await;
    let writer = writer.map_err(|error| failed(&name, error))?;
    if folder::looks_cut_off(&path)? {
        check_whole(&writer, &name).await?;
    }
    if is_empty(&writer, &name).await? {
        folder::check_nothing_is_lost(folder, DATABASE)?;
    }
    let identity = prepare(&writer, &name).await?;
    folder::keep_name(folder, &identity.name)?;
    let marked = mark::marked(folder)?;
    mark::check(folder, DATABASE, marked, height(&writer, &name).await?)?;
    let readers = pool(READERS).connect_with(options.read_only(true)).await;
    let readers = readers.map_err(|error| failed(&name, error))?;
    let store = start(name, writer, readers, identity, Some(lock));
    store.shared.marks.keep_in(folder);
    Ok(store)
}

async fn open_memory() -> Result<SqlStore, StoreError> {
    let name = "memory".to_string();
    let options: SqliteConnectOptions = "sqlite::memory:".parse().map_err(|error| failed(&name, error))?;
    let only = pool(1)
        .connect_with(options.statement_cache_capacity(STATEMENTS))
        .await
        .map_err(|error| failed(&name, error))?;
    let identity = prepare(&only, &name).await?;
    Ok(start(name, only.clone(), only, identity, None))
}

/// Returns an error for a truncated database.
async fn check_whole(pool: &SqlitePool, name: &str) -> Result<(), StoreError> {
    let said: String = sqlx::query_scalar("PRAGMA quick_check(1)")
        .fetch_one(pool)
        .await
        .map_err(|error| failed(name, error))?;
    match said.as_str() {
        "ok" => Ok(()),
        said => Err(StoreError::Damaged {
            database: name.to_string(),
            source: said.into(),
        }),
    }
}

async fn is_empty(pool: &SqlitePool, name: &str) -> Result<bool, StoreError> {
    let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_master")
        .fetch_one(pool)
        .await
        .map_err(|error| failed(name, error))?;
    Ok(tables == 0)
}

async fn prepare(pool: &SqlitePool, name: &str) -> Result<Identity, StoreError> {
    let mut connection = pool.acquire().await.map_err(|error| failed(name, error))?;
    migrate::sqlite(&mut connection, name).await?;
    migrate::identify(&mut Transaction::sqlite(&mut connection, name)).await
}

async fn height(pool: &SqlitePool, name: &str) -> Result<i64, StoreError> {
    let mut connection = pool.acquire().await.map_err(|error| failed(name, error))?;
    mark::height(&mut Transaction::sqlite(&mut connection, name)).await
}

fn start(
    name: String,
    writer: SqlitePool,
    readers: SqlitePool,
    identity: Identity,
    lock: Option<nix::fcntl::Flock<std::fs::File>>,
) -> SqlStore {
    let (requests, received) = mpsc::unbounded_channel();
    let publisher = Publisher {
        origin: String::new(),
        here: broadcast::channel(CHANGES).0,
        others: None,
    };
    let marks = Marks::default();
    tokio::spawn(writer::write_to_sqlite(
        name.clone(),
        writer,
        received,
        publisher.clone(),
        marks.clone(),
    ));
    let backend = Backend {
        name,
        readers: Readers::Sqlite(readers),
    };
    let marking = tokio::spawn(marks.clone().follow(backend.clone()));
    SqlStore::new(Shared {
        backend,
        requests,
        publisher,
        instance: identity.name,
        is_new: identity.is_new,
        marks,
        _tasks: vec![AbortOnDrop(marking.abort_handle())],
        _lock: lock,
    })
}

#[async_trait]
impl Store for SqlStore {
    async fn commit(&self, commit: Commit) -> Result<Committed, StoreError> {
        match self.change("commit", Operation::Commit(commit)).await? {
            Done::Committed(committed) => Ok(committed),
            _ => Ok(Committed::default()),
        }
    }

    fn changes(&self) -> Changes {
        Changes(self.shared.publisher.here.subscribe())
    }

    fn announce(&self, topics: &[Topic]) {
        self.shared.publisher.tell(Change::Topics(topics.into()));
    }

    fn instance(&self) -> &str {
        &self.shared.instance
    }

    fn is_new(&self) -> bool {
        self.shared.is_new
    }
}
