//! The tasks that write. A caller waits for its answer; if it goes away, its operation still completes.

use super::{
    connections::Connections,
    database::{PATIENCE, Transaction},
    failure::may_be_retried,
    mark::Marks,
    operation::{Done, Request},
    perform::perform,
    publish::Publisher,
    topics,
};
use crate::StoreError;
use sqlx::{SqliteConnection, SqlitePool};
use std::{sync::Arc, time::Duration};
use tokio::sync::{Semaphore, mpsc};

/// How many operations share one transaction of SQLite, and with it one wait for the disk.
const GROUP: usize = 64;

/// How many of PostgreSQL's connections writers may hold: the rest is for readers.
const WRITERS: usize = 8;

/// How often to try a transaction that PostgreSQL ends because of others.
const TRIES: u32 = 10;

/// Writes to SQLite, one transaction after the other, until the store is closed.
pub(crate) async fn write_to_sqlite(
    database: String,
    pool: SqlitePool,
    mut requests: mpsc::UnboundedReceiver<Request>,
    publisher: Publisher,
    marks: Marks,
) {
    while let Some(first) = requests.recv().await {
        let mut group = vec![first];
        while group.len() < GROUP
            && let Ok(next) = requests.try_recv()
        {
            group.push(next);
        }
        let results = match pool.acquire().await {
            Ok(mut connection) => write_group(&mut connection, &database, &group, &marks).await,
            Err(error) => {
                let error = Arc::new(error);
                group.iter().map(|_| Err(unavailable(&database, &error))).collect()
            }
        };
        for (request, result) in group.into_iter().zip(results) {
            if result.is_ok() {
                publisher.tell(topics::of(&request.operation));
            }
            // The caller may have gone away.
            let _ = request.answer.send(result);
        }
    }
}

fn unavailable(database: &str, error: &Arc<sqlx::Error>) -> StoreError {
    StoreError::Unavailable {
        database: database.to_string(),
        source: Box::new(error.clone()),
    }
}

/// Writes a group in one transaction. If the database fails, writes them one by one, so that each gets its own error.
async fn write_group(
    connection: &mut SqliteConnection,
    database: &str,
    group: &[Request],
    marks: &Marks,
) -> Vec<Result<Done, StoreError>> {
    if group.len() > 1
        && let Ok(results) = write_together(connection, database, group, marks).await
    {
        return results;
    }
    let mut results = Vec::with_capacity(group.len());
    for request in group {
        let result = write_together(connection, database, std::slice::from_ref(request), marks).await;
        results.push(result.and_then(|mut results| results.pop().unwrap_or(Err(StoreError::Stopping))));
    }
    results
}

/// Writes a group in one transaction. An operation whose expectation fails does not affect the others.
async fn write_together(
    connection: &mut SqliteConnection,
    database: &str,
    group: &[Request],
    marks: &Marks,
) -> Result<Vec<Result<Done, StoreError>>, StoreError> {
    let mut to = Transaction::sqlite(connection, database);
    to.run("BEGIN IMMEDIATE").await?;
    let written = async {
        let results = write_each(&mut to, group).await?;
        let height = marks.given_by(&mut to, results.iter().flatten()).await?;
        to.run("COMMIT").await?;
        if let Some(height) = height {
            marks.raise(height).await;
        }
        Ok(results)
    }
    .await;
    if written.is_err() {
        // Fails if SQLite has already rolled back, which is fine.
        let _ = to.run("ROLLBACK").await;
    }
    written
}

async fn write_each<'r>(
    to: &mut Transaction<'r>,
    group: &'r [Request],
) -> Result<Vec<Result<Done, StoreError>>, StoreError> {
    let mut results = Vec::with_capacity(group.len());
    for request in group {
        to.observe(request.faults.as_ref());
        to.run("SAVEPOINT operation").await?;
        let result = perform(to, &request.operation).await;
        match &result {
            Ok(_) => {}
            Err(StoreError::Conflict { .. } | StoreError::Fenced(_)) => to.run("ROLLBACK TO operation").await?,
            Err(_) => return result.map(|_| Vec::new()),
        }
        to.run("RELEASE operation").await?;
        results.push(result);
    }
    Ok(results)
}

/// Writes to PostgreSQL, several transactions at once, until the store is closed.
pub(crate) async fn write_to_postgres(
    database: String,
    connections: Arc<Connections>,
    mut requests: mpsc::UnboundedReceiver<Request>,
    publisher: Publisher,
    marks: Marks,
) {
    let permits = Arc::new(Semaphore::new(WRITERS));
    while let Some(request) = requests.recv().await {
        let (database, connections) = (database.clone(), connections.clone());
        let (permits, publisher, marks) = (permits.clone(), publisher.clone(), marks.clone());
        tokio::spawn(async move {
            let written = async {
                let _permit = permits.acquire().await.map_err(|_| StoreError::Stopping)?;
                write_until_it_passes(&database, &connections, &request, &marks).await
            };
            let result = match tokio::time::timeout(PATIENCE, written).await {
                Ok(result) => result,
                Err(_) => {
                    connections.close_idle();
                    Err(StoreError::silent(&database, PATIENCE))
                }
            };
            if result.is_ok() {
                publisher.tell(topics::of(&request.operation));
            }
            // The caller may have gone away.
            let _ = request.answer.send(result);
        });
    }
}

async fn write_until_it_passes(
    database: &str,
    connections: &Connections,
    request: &Request,
    marks: &Marks,
) -> Result<Done, StoreError> {
    let mut tries = 1;
    loop {
        match write_once(database, connections, request, marks).await {
            Err(error) if tries < TRIES && may_be_retried(&error) => {
                tokio::time::sleep(Duration::from_millis(5) * tries).await;
                tries += 1;
            }
            result => return result,
        }
    }
}

async fn write_once(
    database: &str,
    connections: &Connections,
    request: &Request,
    marks: &Marks,
) -> Result<Done, StoreError> {
    let mut borrowed = loop {
        let mut borrowed = connections.borrow().await?;
        let mut to = Transaction::postgres(&mut borrowed.connection, database);
        match to.run("BEGIN ISOLATION LEVEL READ COMMITTED").await {
            Ok(()) => break borrowed,
            // The connection has died since it was last used, and nothing was written yet.
            Err(StoreError::Unavailable { .. }) if !borrowed.is_new => {}
            Err(error) => return Err(error),
        }
    };
    let mut to = Transaction::postgres(&mut borrowed.connection, database);
    to.observe(request.faults.as_ref());
    let written = async {
        let done = perform(&mut to, &request.operation).await?;
        let height = marks.given_by(&mut to, std::iter::once(&done)).await?;
        to.run("COMMIT").await?;
        Ok((done, height))
    }
    .await;
    // Close a connection whose transaction may still be open.
    if written.is_ok() || to.run("ROLLBACK").await.is_ok() {
        borrowed.give_back();
    }
    let (done, height) = written?;
    if let Some(height) = height {
        marks.raise(height).await;
    }
    Ok(done)
}
