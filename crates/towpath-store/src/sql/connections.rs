//! PostgreSQL's connections.
//!
//! Not the library's pool: when a connection is returned, that pool pings it without a time limit. On a dead network,
//! every connection would wait for the answer until the kernel gives up, for a quarter of an hour. Here nothing pings:
//! whoever meets a dead connection replaces it.

use super::failure::failed;
use crate::StoreError;
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::{Semaphore, SemaphorePermit};

/// How long connecting may take.
pub(crate) const CONNECT: Duration = Duration::from_secs(3);

/// Connections to one database.
pub(crate) struct Connections {
    /// The database's name for messages.
    database: String,
    options: PgConnectOptions,
    permits: Semaphore,
    idle: Mutex<Vec<PgConnection>>,
}

impl Connections {
    pub(crate) fn new(database: String, options: PgConnectOptions, most: usize) -> Self {
        Self {
            database,
            options,
            permits: Semaphore::new(most),
            idle: Mutex::default(),
        }
    }

    /// Borrows a connection, an idle one if possible. Waits for its turn without a time limit.
    pub(crate) async fn borrow(&self) -> Result<Borrowed<'_>, StoreError> {
        let permit = self.permits.acquire().await.map_err(|_| StoreError::Stopping)?;
        let idle = self.idle().pop();
        let is_new = idle.is_none();
        let connection = match idle {
            Some(connection) => connection,
            None => connect(&self.options, &self.database).await?,
        };
        Ok(Borrowed {
            connection,
            is_new,
            owner: self,
            _permit: permit,
        })
    }

    /// Closes the idle connections, because one like them did not answer.
    pub(crate) fn close_idle(&self) {
        let closed = std::mem::take(&mut *self.idle());
        drop(closed);
    }

    fn idle(&self) -> MutexGuard<'_, Vec<PgConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that is closed unless it is returned: one that was dropped in the middle of a statement or a
/// transaction must not be reused.
pub(crate) struct Borrowed<'c> {
    pub(crate) connection: PgConnection,
    /// Whether it was never used before. If a new connection fails, the database is away.
    pub(crate) is_new: bool,
    owner: &'c Connections,
    _permit: SemaphorePermit<'c>,
}

impl Borrowed<'_> {
    pub(crate) fn give_back(self) {
        self.owner.idle().push(self.connection);
    }
}

/// Makes a connection.
///
/// # Errors
/// [`StoreError::Unavailable`] when that takes longer than [`CONNECT`].
pub(crate) async fn connect(options: &PgConnectOptions, database: &str) -> Result<PgConnection, StoreError> {
    match tokio::time::timeout(CONNECT, PgConnection::connect_with(options)).await {
        Ok(connected) => connected.map_err(|error| failed(database, error)),
        Err(_) => Err(StoreError::silent(database, CONNECT)),
    }
}
