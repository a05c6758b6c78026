//! The two databases behind one small interface: statements with values, rows, and transactions by hand.

use super::{
    connections::Connections,
    failure::failed,
    faults::Faults,
    query::{Columns, Query, Row},
    value::Value,
};
use crate::StoreError;
use sqlx::{AssertSqlSafe, Encode, PgConnection, SqliteConnection, SqlitePool, Type, postgres::Postgres};
use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

/// How long one PostgreSQL operation may take before the database counts as away.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// How many prepared statements a connection keeps.
pub(crate) const STATEMENTS: usize = 256;

/// Which database.
#[derive(Clone, PartialEq, Eq)]
pub enum Database {
    /// SQLite in a data directory, for one server at a time.
    SqliteFile(PathBuf),
    /// SQLite in memory, gone with the last clone of its store.
    SqliteMemory,
    /// PostgreSQL, by its address: `postgres://user:password@host:5432/database`. Several servers may share it.
    Postgres(String),
}

/// A PostgreSQL address contains a password, so it is not shown.
impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SqliteFile(folder) => f.debug_tuple("SqliteFile").field(folder).finish(),
            Self::SqliteMemory => f.write_str("SqliteMemory"),
            Self::Postgres(_) => f.write_str("Postgres(***)"),
        }
    }
}

/// An open database.
#[derive(Clone)]
pub(crate) struct Backend {
    /// The name for messages: its file, or its address without user and password.
    pub(crate) name: String,
    pub(crate) readers: Readers,
}

#[derive(Clone)]
pub(crate) enum Readers {
    /// The writer has its own connection, except in memory, where there is only one.
    Sqlite(SqlitePool),
    Postgres(Arc<Connections>),
}

impl Backend {
    /// Reads rows outside of a transaction.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when PostgreSQL does not answer within [`PATIENCE`].
    pub(crate) async fn rows(&self, table: &'static str, query: Query) -> Result<Vec<Row>, StoreError> {
        match &self.readers {
            Readers::Sqlite(readers) => {
                let rows = sqlite(query).fetch_all(readers).await;
                sqlite_rows(table, rows.map_err(|error| failed(&self.name, error))?)
            }
            Readers::Postgres(connections) => {
                let read = self.read(connections, table, query);
                match tokio::time::timeout(PATIENCE, read).await {
                    Ok(rows) => rows,
                    Err(_) => {
                        connections.close_idle();
                        Err(StoreError::silent(&self.name, PATIENCE))
                    }
                }
            }
        }
    }

    async fn read(&self, connections: &Connections, table: &'static str, query: Query) -> Result<Vec<Row>, StoreError> {
        loop {
            let mut borrowed = connections.borrow().await?;
            let rows = postgres(query.clone()).fetch_all(&mut borrowed.connection).await;
            match rows.map_err(|error| failed(&self.name, error)) {
                Ok(rows) => {
                    borrowed.give_back();
                    return postgres_rows(table, rows);
                }
                // The connection has died since it was last used.
                Err(StoreError::Unavailable { .. }) if !borrowed.is_new => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// The SQL dialect, for statements that differ between the databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Sqlite,
    Postgres,
}

impl Dialect {
    /// A suffix for `SELECT` that locks the rows until the transaction ends. SQLite has one writer, so it needs no
    /// lock.
    pub(crate) fn for_update(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres => " FOR UPDATE",
        }
    }

    /// The same, skipping rows that others have locked.
    pub(crate) fn for_update_skip_locked(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres => " FOR UPDATE SKIP LOCKED",
        }
    }
}

/// A connection in a transaction that its owner begins and ends explicitly. The library's own transactions would
/// believe that one is open after SQLite has ended it on a full disk.
pub(crate) struct Transaction<'c> {
    connection: Connection<'c>,
    database: &'c str,
    faults: Option<&'c Faults>,
}

enum Connection<'c> {
    Sqlite(&'c mut SqliteConnection),
    Postgres(&'c mut PgConnection),
}

impl<'c> Transaction<'c> {
    pub(crate) fn sqlite(connection: &'c mut SqliteConnection, database: &'c str) -> Self {
        Self {
            connection: Connection::Sqlite(connection),
            database,
            faults: None,
        }
    }

    pub(crate) fn postgres(connection: &'c mut PgConnection, database: &'c str) -> Self {
        Self {
            connection: Connection::Postgres(connection),
            database,
            faults: None,
        }
    }

    /// Records the statements from now on.
    pub(crate) fn observe(&mut self, faults: Option<&'c Faults>) {
        self.faults = faults;
    }

    pub(crate) fn dialect(&self) -> Dialect {
        match self.connection {
            Connection::Sqlite(_) => Dialect::Sqlite,
            Connection::Postgres(_) => Dialect::Postgres,
        }
    }

    /// Runs a statement, and answers with how many rows it changed.
    pub(crate) async fn execute(&mut self, query: Query) -> Result<u64, StoreError> {
        self.record(&query);
        let changed = match &mut self.connection {
            Connection::Sqlite(connection) => {
                let done = sqlite(query).execute(&mut **connection).await;
                done.map(|done| done.rows_affected())
            }
            Connection::Postgres(connection) => {
                let done = postgres(query).execute(&mut **connection).await;
                done.map(|done| done.rows_affected())
            }
        };
        changed.map_err(|error| failed(self.database, error))
    }

    /// Runs a statement that gives rows.
    pub(crate) async fn rows(&mut self, table: &'static str, query: Query) -> Result<Vec<Row>, StoreError> {
        self.record(&query);
        match &mut self.connection {
            Connection::Sqlite(connection) => {
                let rows = sqlite(query).fetch_all(&mut **connection).await;
                sqlite_rows(table, rows.map_err(|error| failed(self.database, error))?)
            }
            Connection::Postgres(connection) => {
                let rows = postgres(query).fetch_all(&mut **connection).await;
                postgres_rows(table, rows.map_err(|error| failed(self.database, error))?)
            }
        }
    }

    /// `BEGIN`, `COMMIT` and the like.
    pub(crate) async fn run(&mut self, sql: &'static str) -> Result<(), StoreError> {
        let done = match &mut self.connection {
            Connection::Sqlite(connection) => sqlx::query(sql).execute(&mut **connection).await.map(drop),
            Connection::Postgres(connection) => sqlx::query(sql).execute(&mut **connection).await.map(drop),
        };
        done.map_err(|error| failed(self.database, error))
    }

    fn record(&self, query: &Query) {
        if let Some(faults) = self.faults {
            faults.record(&query.sql);
        }
    }
}

fn sqlite(query: Query) -> sqlx::query::Query<'static, sqlx::Sqlite, sqlx::sqlite::SqliteArguments> {
    // All SQL consists of this crate's own text; external values are bound.
    bind(sqlx::query(AssertSqlSafe(query.sql)), query.values)
}

fn postgres(query: Query) -> sqlx::query::Query<'static, Postgres, sqlx::postgres::PgArguments> {
    bind(sqlx::query(AssertSqlSafe(query.sql)), query.values)
}

fn bind<D: sqlx::Database>(
    query: sqlx::query::Query<'static, D, D::Arguments>,
    values: Vec<Value>,
) -> sqlx::query::Query<'static, D, D::Arguments>
where
    Option<String>: Encode<'static, D> + Type<D>,
    Option<i64>: Encode<'static, D> + Type<D>,
    Option<f64>: Encode<'static, D> + Type<D>,
{
    values.into_iter().fold(query, |query, value| match value {
        Value::Text(text) => query.bind(text),
        Value::Int(number) => query.bind(number),
        Value::Real(number) => query.bind(number),
    })
}

fn sqlite_rows(table: &'static str, rows: Vec<sqlx::sqlite::SqliteRow>) -> Result<Vec<Row>, StoreError> {
    let row = |row| Row {
        table,
        columns: Columns::Sqlite(row),
    };
    Ok(rows.into_iter().map(row).collect())
}

fn postgres_rows(table: &'static str, rows: Vec<sqlx::postgres::PgRow>) -> Result<Vec<Row>, StoreError> {
    let row = |row| Row {
        table,
        columns: Columns::Postgres(row),
    };
    Ok(rows.into_iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_not_printed() {
        let database = Database::Postgres("postgres://towpath:hunter2@db/towpath".into());
        assert_eq!(format!("{database:?}"), "Postgres(***)");
    }
}
