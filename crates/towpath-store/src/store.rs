//! The database, and everything beside it in the data directory.

use crate::{
    Artifact, Batch, Blobs, Cache, Document, JobRow, Logs, PipelineRow, ReleaseRow, Row, StoreError, StoredBlob,
    TestRow, WorkflowRow, WorkspaceLayerRow, batch::Append,
};
use nix::fcntl::{Flock, FlockArg};
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{
    Row as _, SqliteConnection, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous},
};
use std::{
    io::{Read, Seek, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::sync::{Mutex, broadcast};
use towpath_types::{JobId, PipelineId, ReleaseId, WorkflowId};

/// One data directory. Clones share it.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    folder: PathBuf,
    database: PathBuf,
    instance: String,
    readers: SqlitePool,
    /// SQLite has one writer at a time; waiting here is fairer and cheaper than its busy loop.
    writer: Mutex<SqlitePool>,
    blobs: Blobs,
    logs: Logs,
    changed: broadcast::Sender<()>,
    _lock: Flock<std::fs::File>,
}

impl Store {
    /// Opens the data directory, which is made when it is not there, for this process alone.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another server has it open; otherwise when something in it cannot be used.
    pub async fn open(folder: &Path) -> Result<Self, StoreError> {
        for part in ["", "logs", "blobs", "temporary"] {
            let path = folder.join(part);
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .map_err(StoreError::io("make the folder", path))?;
        }
        let lock = lock(folder)?;
        empty(&folder.join("temporary"))?;
        let instance = instance(&folder.join("instance"))?;
        let database = folder.join("towpath.db");
        let failed = |source| StoreError::Database {
            path: database.clone(),
            source,
        };
        let options = SqliteConnectOptions::new()
            .filename(&database)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // A commit is on the disk when it is answered: an event is acted on only after that.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(10));
        let pool = |connections| SqlitePoolOptions::new().max_connections(connections).min_connections(1);
        let writer = pool(1).connect_with(options.clone()).await.map_err(failed)?;
        sqlx::migrate!("migrations/sqlite")
            .run(&writer)
            .await
            .map_err(|error| failed(error.into()))?;
        let readers = pool(4).connect_with(options.read_only(true)).await.map_err(failed)?;
        let shared = Shared {
            folder: folder.to_path_buf(),
            instance,
            readers,
            writer: Mutex::new(writer),
            blobs: Blobs::new(folder.join("blobs"), folder.join("temporary")),
            logs: Logs::new(folder.join("logs")),
            changed: broadcast::channel(16).0,
            database,
            _lock: lock,
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// The directory's own random name, the same for ever.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.shared.instance
    }

    /// The blobs.
    #[must_use]
    pub fn blobs(&self) -> &Blobs {
        &self.shared.blobs
    }

    /// The logs.
    #[must_use]
    pub fn logs(&self) -> &Logs {
        &self.shared.logs
    }

    /// Is told after each commit. A receiver that lags has missed nothing but the number of commits.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<()> {
        self.shared.changed.subscribe()
    }

    fn failed(&self, source: sqlx::Error) -> StoreError {
        // SQLite's codes 13 (full) and 10 (an error of the disk) with "disk full" behind it.
        let full = matches!(&source, sqlx::Error::Database(error) if error.code().as_deref() == Some("13"));
        if full {
            StoreError::Full(self.shared.folder.clone())
        } else {
            StoreError::Database {
                path: self.shared.database.clone(),
                source,
            }
        }
    }

    /// Commits a batch: all of it, or nothing.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when a stream is not where the batch expects it; otherwise when the database fails.
    pub async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let store = self.clone();
        // A task of its own is never dropped half-way, so no transaction is left open on the connection.
        tokio::spawn(async move { store.commit_whole(batch).await })
            .await
            .map_err(|_| StoreError::Stopping)?
    }

    async fn commit_whole(&self, batch: Batch) -> Result<(), StoreError> {
        let writer = self.shared.writer.lock().await;
        let mut connection = writer.acquire().await.map_err(|error| self.failed(error))?;
        // By hand, and not by the library's transactions: SQLite ends one by itself when the disk is full, and the library
        // then believes that it is still open.
        self.execute(&mut connection, sqlx::query("BEGIN IMMEDIATE")).await?;
        let written = match self.write(&mut connection, batch).await {
            Ok(()) => self.execute(&mut connection, sqlx::query("COMMIT")).await,
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            // Fails when SQLite has rolled back already, which is what is wanted.
            let _ = self.execute(&mut connection, sqlx::query("ROLLBACK")).await;
            return Err(error);
        }
        drop(connection);
        drop(writer);
        // Nobody listening is fine.
        let _ = self.shared.changed.send(());
        Ok(())
    }

    async fn write(&self, connection: &mut SqliteConnection, batch: Batch) -> Result<(), StoreError> {
        for append in batch.appends {
            self.append(connection, append).await?;
        }
        for row in batch.rows {
            match row {
                Row::Pipeline(row) => self.put_pipeline(connection, row).await?,
                Row::Workflow(row) => self.put_workflow(connection, &row).await?,
                Row::Job(row) => self.put_job(connection, row).await?,
                Row::Release(row) => self.put_release(connection, row).await?,
                Row::Document(document) => self.put_document(connection, &document).await?,
            }
        }
        for job in batch.numbered {
            let sql = "UPDATE jobs SET number = (SELECT coalesce(max(number), 0) + 1 FROM jobs AS others
                       WHERE others.project = jobs.project) WHERE id = ? AND number IS NULL";
            self.execute(connection, sqlx::query(sql).bind(job.to_string())).await?;
        }
        Ok(())
    }

    async fn execute<'q>(
        &self,
        connection: &mut SqliteConnection,
        query: sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>,
    ) -> Result<u64, StoreError> {
        Ok(query
            .execute(connection)
            .await
            .map_err(|error| self.failed(error))?
            .rows_affected())
    }

    async fn append(&self, connection: &mut SqliteConnection, append: Append) -> Result<(), StoreError> {
        let sql = "SELECT coalesce(max(version) + 1, 0) FROM events WHERE stream = ?";
        let version: i64 = sqlx::query_scalar(sql)
            .bind(&append.stream)
            .fetch_one(&mut *connection)
            .await
            .map_err(|error| self.failed(error))?;
        let actual = version.unsigned_abs();
        if let Some(expected) = append.expected.filter(|expected| *expected != actual) {
            return Err(StoreError::Conflict {
                stream: append.stream,
                expected,
                actual,
            });
        }
        for (version, event) in (version..).zip(append.events) {
            let query = sqlx::query("INSERT INTO events (stream, version, event) VALUES (?, ?, ?)")
                .bind(append.stream.clone())
                .bind(version)
                .bind(event.to_string());
            self.execute(connection, query).await?;
        }
        Ok(())
    }

    async fn next_number(
        &self,
        connection: &mut SqliteConnection,
        sql: &'static str,
        of: &str,
    ) -> Result<i64, StoreError> {
        sqlx::query_scalar(sql)
            .bind(of)
            .fetch_one(connection)
            .await
            .map_err(|error| self.failed(error))
    }

    async fn put_pipeline(&self, connection: &mut SqliteConnection, mut row: PipelineRow) -> Result<(), StoreError> {
        if row.number == 0 {
            let sql = "SELECT coalesce(max(number), 0) + 1 FROM pipelines WHERE project = ?";
            row.number = self.next_number(connection, sql, &row.project).await?;
        }
        let sql = "INSERT INTO pipelines (id, project, number, row) VALUES (?, ?, ?, ?)
                   ON CONFLICT (id) DO UPDATE SET row = excluded.row";
        let query = sqlx::query(sql)
            .bind(row.id.to_string())
            .bind(row.project.clone())
            .bind(row.number)
            .bind(json(&row, "pipeline")?);
        self.execute(connection, query).await.map(drop)
    }

    async fn put_workflow(&self, connection: &mut SqliteConnection, row: &WorkflowRow) -> Result<(), StoreError> {
        let sql = "INSERT INTO workflows (id, pipeline, position, ended, row) VALUES (?, ?, ?, ?, ?)
                   ON CONFLICT (id) DO UPDATE SET ended = excluded.ended, row = excluded.row";
        let query = sqlx::query(sql)
            .bind(row.id.to_string())
            .bind(row.pipeline.to_string())
            .bind(row.position)
            .bind(i64::from(row.stopped_at.is_some()))
            .bind(json(row, "workflow")?);
        self.execute(connection, query).await.map(drop)
    }

    async fn put_job(&self, connection: &mut SqliteConnection, row: JobRow) -> Result<(), StoreError> {
        let sql = "INSERT INTO jobs (id, workflow, project, position, number, row) VALUES (?, ?, ?, ?, ?, ?)
                   ON CONFLICT (id) DO UPDATE SET row = excluded.row";
        let query = sqlx::query(sql)
            .bind(row.id.to_string())
            .bind(row.workflow.to_string())
            .bind(row.project.clone())
            .bind(row.position)
            .bind(row.number)
            .bind(json(&row, "job")?);
        self.execute(connection, query).await.map(drop)
    }

    async fn put_release(&self, connection: &mut SqliteConnection, mut row: ReleaseRow) -> Result<(), StoreError> {
        if row.number == 0 {
            let sql = "SELECT coalesce(max(number), 0) + 1 FROM releases WHERE environment = ?";
            row.number = self.next_number(connection, sql, &row.environment).await?;
        }
        let sql = "INSERT INTO releases (id, environment, number, running, row) VALUES (?, ?, ?, ?, ?)
                   ON CONFLICT (id) DO UPDATE SET number = excluded.number, running = excluded.running, row = excluded.row";
        let query = sqlx::query(sql)
            .bind(row.id.to_string())
            .bind(row.environment.clone())
            .bind(row.number)
            .bind(i64::from(row.state == "running"))
            .bind(json(&row, "release")?);
        self.execute(connection, query).await.map(drop)
    }

    async fn put_document(&self, connection: &mut SqliteConnection, document: &Document) -> Result<(), StoreError> {
        let (collection, key) = (document.collection, document.key.clone());
        let query = match &document.json {
            Some(value) => sqlx::query(
                "INSERT INTO documents (collection, key, json) VALUES (?, ?, ?)
                 ON CONFLICT (collection, key) DO UPDATE SET json = excluded.json",
            )
            .bind(collection)
            .bind(key)
            .bind(value.to_string()),
            None => sqlx::query("DELETE FROM documents WHERE collection = ? AND key = ?")
                .bind(collection)
                .bind(key),
        };
        self.execute(connection, query).await.map(drop)
    }

    async fn rows(
        &self,
        query: sqlx::query::Query<'_, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>,
    ) -> Result<Vec<SqliteRow>, StoreError> {
        query
            .fetch_all(&self.shared.readers)
            .await
            .map_err(|error| self.failed(error))
    }

    async fn write_one(
        &self,
        query: sqlx::query::Query<'_, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>,
    ) -> Result<u64, StoreError> {
        let writer = self.shared.writer.lock().await;
        let result = query.execute(&*writer).await.map_err(|error| self.failed(error))?;
        drop(writer);
        let _ = self.shared.changed.send(());
        Ok(result.rows_affected())
    }

    fn text(&self, row: &SqliteRow, column: &str) -> Result<String, StoreError> {
        row.try_get(column).map_err(|error| self.failed(error))
    }

    fn number(&self, row: &SqliteRow, column: &str) -> Result<u64, StoreError> {
        let number: i64 = row.try_get(column).map_err(|error| self.failed(error))?;
        Ok(number.unsigned_abs())
    }

    fn parsed<T: DeserializeOwned>(&self, row: &SqliteRow, what: &str) -> Result<T, StoreError> {
        let text = self.text(row, "row")?;
        serde_json::from_str(&text).map_err(|source| StoreError::Unreadable {
            what: what.to_string(),
            source,
        })
    }

    fn id<T: std::str::FromStr>(&self, row: &SqliteRow, column: &str) -> Result<T, StoreError>
    where
        T::Err: std::error::Error + Send + Sync + 'static,
    {
        self.text(row, column)?
            .parse()
            .map_err(|error: T::Err| self.failed(sqlx::Error::Decode(Box::new(error))))
    }

    /// The events of a stream, oldest first; empty when there is no such stream.
    ///
    /// # Errors
    /// When the database fails, or an event is not what `T` reads.
    pub async fn events<T: DeserializeOwned>(&self, stream: &str) -> Result<Vec<T>, StoreError> {
        let sql = "SELECT event FROM events WHERE stream = ? ORDER BY version";
        let rows = self.rows(sqlx::query(sql).bind(stream.to_string())).await?;
        let read = |row: &SqliteRow| {
            let text = self.text(row, "event")?;
            serde_json::from_str(&text).map_err(|source| StoreError::Unreadable {
                what: format!("an event of {stream}"),
                source,
            })
        };
        rows.iter().map(read).collect()
    }

    /// A document.
    ///
    /// # Errors
    /// When the database fails, or the document is not what `T` reads.
    pub async fn document<T: DeserializeOwned>(&self, collection: &str, key: &str) -> Result<Option<T>, StoreError> {
        let sql = "SELECT json FROM documents WHERE collection = ? AND key = ?";
        let rows = self
            .rows(sqlx::query(sql).bind(collection.to_string()).bind(key.to_string()))
            .await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let unreadable = |source| StoreError::Unreadable {
            what: format!("{collection}/{key}"),
            source,
        };
        serde_json::from_str(&self.text(row, "json")?)
            .map(Some)
            .map_err(unreadable)
    }

    /// Every document of a collection whose key begins with `prefix`, by key.
    ///
    /// # Errors
    /// When the database fails, or a document is not what `T` reads.
    pub async fn documents<T: DeserializeOwned>(
        &self,
        collection: &str,
        prefix: &str,
    ) -> Result<Vec<(String, T)>, StoreError> {
        let sql = "SELECT key, json FROM documents WHERE collection = ? AND substr(key, 1, length(?)) = ? ORDER BY key";
        let query = sqlx::query(sql)
            .bind(collection.to_string())
            .bind(prefix.to_string())
            .bind(prefix.to_string());
        let rows = self.rows(query).await?;
        let read = |row: &SqliteRow| {
            let key = self.text(row, "key")?;
            let unreadable = |source| StoreError::Unreadable {
                what: format!("{collection}/{key}"),
                source,
            };
            let value = serde_json::from_str(&self.text(row, "json")?).map_err(unreadable)?;
            Ok((key, value))
        };
        rows.iter().map(read).collect()
    }

    /// The pipelines of a project (of all without one) numbered below `before`, newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn pipelines(
        &self,
        project: Option<&str>,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<PipelineRow>, StoreError> {
        // Ids made later sort later, so they order the pipelines of all projects by time.
        let sql = "SELECT row FROM pipelines WHERE (?1 IS NULL OR project = ?1) AND (?2 IS NULL OR number < ?2)
                   ORDER BY id DESC LIMIT ?3";
        let query = sqlx::query(sql)
            .bind(project.map(str::to_string))
            .bind(before)
            .bind(i64::from(limit));
        self.rows(query)
            .await?
            .iter()
            .map(|row| self.parsed(row, "a pipeline"))
            .collect()
    }

    /// A pipeline.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn pipeline(&self, id: PipelineId) -> Result<Option<PipelineRow>, StoreError> {
        let rows = self
            .rows(sqlx::query("SELECT row FROM pipelines WHERE id = ?").bind(id.to_string()))
            .await?;
        rows.first().map(|row| self.parsed(row, "a pipeline")).transpose()
    }

    /// A project's pipeline by its number.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn pipeline_by_number(&self, project: &str, number: i64) -> Result<Option<PipelineRow>, StoreError> {
        let query = sqlx::query("SELECT row FROM pipelines WHERE project = ? AND number = ?")
            .bind(project.to_string())
            .bind(number);
        self.rows(query)
            .await?
            .first()
            .map(|row| self.parsed(row, "a pipeline"))
            .transpose()
    }

    /// A workflow.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn workflow(&self, id: WorkflowId) -> Result<Option<WorkflowRow>, StoreError> {
        let rows = self
            .rows(sqlx::query("SELECT row FROM workflows WHERE id = ?").bind(id.to_string()))
            .await?;
        rows.first().map(|row| self.parsed(row, "a workflow")).transpose()
    }

    /// The workflows of a pipeline in their order.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn workflows(&self, pipeline: PipelineId) -> Result<Vec<WorkflowRow>, StoreError> {
        let query = sqlx::query("SELECT row FROM workflows WHERE pipeline = ? ORDER BY position, id")
            .bind(pipeline.to_string());
        self.rows(query)
            .await?
            .iter()
            .map(|row| self.parsed(row, "a workflow"))
            .collect()
    }

    /// Every workflow that has not ended, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn unfinished_workflows(&self) -> Result<Vec<WorkflowRow>, StoreError> {
        let query = sqlx::query("SELECT row FROM workflows WHERE ended = 0 ORDER BY id");
        self.rows(query)
            .await?
            .iter()
            .map(|row| self.parsed(row, "a workflow"))
            .collect()
    }

    fn job_row(&self, row: &SqliteRow) -> Result<JobRow, StoreError> {
        let mut job: JobRow = self.parsed(row, "a job")?;
        job.number = row.try_get("number").map_err(|error| self.failed(error))?;
        Ok(job)
    }

    /// The jobs of a workflow in their order.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn jobs(&self, workflow: WorkflowId) -> Result<Vec<JobRow>, StoreError> {
        let query =
            sqlx::query("SELECT number, row FROM jobs WHERE workflow = ? ORDER BY position").bind(workflow.to_string());
        self.rows(query).await?.iter().map(|row| self.job_row(row)).collect()
    }

    /// A job.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn job(&self, id: JobId) -> Result<Option<JobRow>, StoreError> {
        let rows = self
            .rows(sqlx::query("SELECT number, row FROM jobs WHERE id = ?").bind(id.to_string()))
            .await?;
        rows.first().map(|row| self.job_row(row)).transpose()
    }

    /// A project's job by its number.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn job_by_number(&self, project: &str, number: i64) -> Result<Option<JobRow>, StoreError> {
        let query = sqlx::query("SELECT number, row FROM jobs WHERE project = ? AND number = ?")
            .bind(project.to_string())
            .bind(number);
        self.rows(query).await?.first().map(|row| self.job_row(row)).transpose()
    }

    /// A release.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn release(&self, id: ReleaseId) -> Result<Option<ReleaseRow>, StoreError> {
        let rows = self
            .rows(sqlx::query("SELECT row FROM releases WHERE id = ?").bind(id.to_string()))
            .await?;
        rows.first().map(|row| self.parsed(row, "a release")).transpose()
    }

    /// The releases of an environment, newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn releases(&self, environment: &str, limit: u32) -> Result<Vec<ReleaseRow>, StoreError> {
        let sql = "SELECT row FROM releases WHERE environment = ? ORDER BY number DESC LIMIT ?";
        let query = sqlx::query(sql).bind(environment.to_string()).bind(i64::from(limit));
        self.rows(query)
            .await?
            .iter()
            .map(|row| self.parsed(row, "a release"))
            .collect()
    }

    /// The newest release of an environment, or the newest that is in `state` (`running`, `succeeded`, `failed`, `errored`).
    ///
    /// # Errors
    /// When the database fails.
    pub async fn last_release(&self, environment: &str, state: Option<&str>) -> Result<Option<ReleaseRow>, StoreError> {
        // A row is long, and is read only where the column beside it does not tell already.
        let sql = "SELECT row FROM releases WHERE environment = ?1 AND CASE WHEN ?2 IS NULL THEN 1
                   WHEN running <> (?2 = 'running') THEN 0 ELSE json_extract(row, '$.state') = ?2 END
                   ORDER BY number DESC LIMIT 1";
        let query = sqlx::query(sql)
            .bind(environment.to_string())
            .bind(state.map(str::to_string));
        let rows = self.rows(query).await?;
        rows.first().map(|row| self.parsed(row, "a release")).transpose()
    }

    /// Every release under way.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn running_releases(&self) -> Result<Vec<ReleaseRow>, StoreError> {
        let query = sqlx::query("SELECT row FROM releases WHERE running = 1 ORDER BY id");
        self.rows(query)
            .await?
            .iter()
            .map(|row| self.parsed(row, "a release"))
            .collect()
    }

    /// Keeps a cache under `key`; `false` when the key was taken, and nothing changed.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn save_cache(&self, project: &str, key: &str, blob: &StoredBlob) -> Result<bool, StoreError> {
        let sql = "INSERT INTO caches (project, key, digest, bytes) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING";
        let query = sqlx::query(sql)
            .bind(project.to_string())
            .bind(key.to_string())
            .bind(blob.digest.to_string())
            .bind(blob.bytes.cast_signed());
        Ok(self.write_one(query).await? > 0)
    }

    /// Whether there is a cache of exactly this key.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn has_cache(&self, project: &str, key: &str) -> Result<bool, StoreError> {
        let query = sqlx::query("SELECT 1 FROM caches WHERE project = ? AND key = ?")
            .bind(project.to_string())
            .bind(key.to_string());
        Ok(!self.rows(query).await?.is_empty())
    }

    /// The newest cache whose key begins with `prefix`: newer wins even over an exact match.
    ///
    /// Source: <https://circleci.com/docs/reference/configuration-reference/#restorecache>
    ///
    /// # Errors
    /// When the database fails.
    pub async fn find_cache(&self, project: &str, prefix: &str) -> Result<Option<Cache>, StoreError> {
        let sql = "SELECT key, digest, bytes FROM caches WHERE project = ? AND substr(key, 1, length(?)) = ?
                   ORDER BY position DESC LIMIT 1";
        let query = sqlx::query(sql)
            .bind(project.to_string())
            .bind(prefix.to_string())
            .bind(prefix.to_string());
        let rows = self.rows(query).await?;
        let read = |row: &SqliteRow| {
            Ok(Cache {
                key: self.text(row, "key")?,
                digest: self.id(row, "digest")?,
                bytes: self.number(row, "bytes")?,
            })
        };
        rows.first().map(read).transpose()
    }

    /// Keeps a layer of a workspace, in place of the one that the same step kept before.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn put_workspace_layer(
        &self,
        workflow: WorkflowId,
        job: JobId,
        node: u32,
        step: u32,
        blob: &StoredBlob,
    ) -> Result<(), StoreError> {
        let sql = "INSERT INTO workspace_layers (workflow, job, node, step, digest, bytes) VALUES (?, ?, ?, ?, ?, ?)
                   ON CONFLICT DO UPDATE SET digest = excluded.digest, bytes = excluded.bytes";
        let query = sqlx::query(sql)
            .bind(workflow.to_string())
            .bind(job.to_string())
            .bind(i64::from(node))
            .bind(i64::from(step))
            .bind(blob.digest.to_string())
            .bind(blob.bytes.cast_signed());
        self.write_one(query).await.map(drop)
    }

    /// The layers of a workflow's workspace, by job, node and step.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn workspace_layers(&self, workflow: WorkflowId) -> Result<Vec<WorkspaceLayerRow>, StoreError> {
        let sql = "SELECT job, node, step, digest FROM workspace_layers WHERE workflow = ? ORDER BY job, node, step";
        let rows = self.rows(sqlx::query(sql).bind(workflow.to_string())).await?;
        let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let read = |row: &SqliteRow| {
            Ok(WorkspaceLayerRow {
                job: self.id(row, "job")?,
                node: small(self.number(row, "node")?),
                step: small(self.number(row, "step")?),
                digest: self.id(row, "digest")?,
            })
        };
        rows.iter().map(read).collect()
    }

    /// Keeps an artifact, in place of the one of the same path.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn put_artifact(&self, job: JobId, node: u32, path: &str, blob: &StoredBlob) -> Result<(), StoreError> {
        let sql = "INSERT INTO artifacts (job, node, path, digest, bytes) VALUES (?, ?, ?, ?, ?)
                   ON CONFLICT DO UPDATE SET digest = excluded.digest, bytes = excluded.bytes";
        let query = sqlx::query(sql)
            .bind(job.to_string())
            .bind(i64::from(node))
            .bind(path.to_string())
            .bind(blob.digest.to_string())
            .bind(blob.bytes.cast_signed());
        self.write_one(query).await.map(drop)
    }

    /// The artifacts of a job, by node and path.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn artifacts(&self, job: JobId) -> Result<Vec<Artifact>, StoreError> {
        let sql = "SELECT node, path, digest, bytes FROM artifacts WHERE job = ? ORDER BY node, path";
        let rows = self.rows(sqlx::query(sql).bind(job.to_string())).await?;
        let read = |row: &SqliteRow| {
            Ok(Artifact {
                node: u32::try_from(self.number(row, "node")?).unwrap_or(u32::MAX),
                path: self.text(row, "path")?,
                digest: self.id(row, "digest")?,
                bytes: self.number(row, "bytes")?,
            })
        };
        rows.iter().map(read).collect()
    }

    /// Keeps the tests of one file of results, in place of those that it had before.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn put_tests(
        &self,
        project: &str,
        job: JobId,
        node: u32,
        path: &str,
        tests: &[TestRow],
    ) -> Result<(), StoreError> {
        let sql = "INSERT INTO tests (job, node, path, project, tests) VALUES (?, ?, ?, ?, ?)
                   ON CONFLICT (job, node, path) DO UPDATE SET tests = excluded.tests";
        let query = sqlx::query(sql)
            .bind(job.to_string())
            .bind(i64::from(node))
            .bind(path.to_string())
            .bind(project.to_string())
            .bind(json(&tests, "tests")?);
        self.write_one(query).await.map(drop)
    }

    /// The tests of a job.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn tests(&self, job: JobId) -> Result<Vec<TestRow>, StoreError> {
        let sql = "SELECT tests AS row FROM tests WHERE job = ? ORDER BY node, path";
        self.all_tests(sqlx::query(sql).bind(job.to_string())).await
    }

    /// The tests of the project's newest files of results: what their times are predicted from.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn recent_tests(&self, project: &str, files: u32) -> Result<Vec<TestRow>, StoreError> {
        let sql = "SELECT tests AS row FROM tests WHERE project = ? ORDER BY position DESC LIMIT ?";
        self.all_tests(sqlx::query(sql).bind(project.to_string()).bind(i64::from(files)))
            .await
    }

    async fn all_tests(
        &self,
        query: sqlx::query::Query<'_, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>,
    ) -> Result<Vec<TestRow>, StoreError> {
        let mut all = Vec::new();
        for row in self.rows(query).await? {
            all.extend(self.parsed::<Vec<TestRow>>(&row, "tests")?);
        }
        Ok(all)
    }
}

fn json(value: &impl Serialize, what: &str) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|source| StoreError::Unreadable {
        what: what.to_string(),
        source,
    })
}

fn lock(folder: &Path) -> Result<Flock<std::fs::File>, StoreError> {
    let path = folder.join("lock");
    let failed = || StoreError::io("write", &path);
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(failed())?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            lock.set_len(0).and_then(|()| lock.rewind()).map_err(failed())?;
            lock.write_all(std::process::id().to_string().as_bytes())
                .map_err(failed())?;
            Ok(lock)
        }
        Err((mut file, _)) => {
            let mut text = String::new();
            let pid = file
                .read_to_string(&mut text)
                .ok()
                .and_then(|_| text.trim().parse().ok());
            Err(StoreError::InUse {
                path: folder.to_path_buf(),
                pid,
            })
        }
    }
}

fn empty(folder: &Path) -> Result<(), StoreError> {
    let failed = || StoreError::io("empty", folder);
    for entry in std::fs::read_dir(folder).map_err(failed())? {
        let path = entry.map_err(failed())?.path();
        std::fs::remove_file(&path).map_err(StoreError::io("remove", path))?;
    }
    Ok(())
}

fn instance(path: &Path) -> Result<String, StoreError> {
    match std::fs::read_to_string(path) {
        Ok(text) if !text.trim().is_empty() => Ok(text.trim().to_string()),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io("read", path)(error)),
        _ => {
            let name = uuid::Uuid::new_v4().simple().to_string()[..12].to_string();
            std::fs::write(path, &name).map_err(StoreError::io("write", path))?;
            Ok(name)
        }
    }
}
