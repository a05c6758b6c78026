//! Opens PostgreSQL, and runs the tasks that listen to it.

use super::{
    connections::{CONNECT, Connections, connect},
    database::{Backend, PATIENCE, Readers, STATEMENTS, Transaction},
    failure::failed,
    handle::{AbortOnDrop, Shared, SqlStore},
    mark::Marks,
    migrate::{self, Identity},
    publish::{self, CHANNEL, Publisher},
    writer,
};
use crate::{Change, StoreError};
use sqlx::{
    Connection, Executor, PgConnection,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::{broadcast, mpsc};

/// The number of a server's connections, besides one that listens and one that notifies.
const CONNECTIONS: usize = 10;

/// How long updating the schema may take, including other servers' turns.
const MIGRATE: Duration = Duration::from_secs(120);

/// After this long without a notification, the listener checks its connection.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// How long the listener waits between two attempts to connect.
const RECONNECT: Duration = Duration::from_millis(500);

/// How many changes a listener may lag behind before it is told that anything may have changed.
const CHANGES: usize = 4_096;

pub(crate) async fn open(url: &str) -> Result<SqlStore, StoreError> {
    let options: PgConnectOptions = url.parse().map_err(|error: sqlx::Error| {
        StoreError::Address(format!(
            "the address of the database cannot be read ({error}): it looks like \
             `postgres://USER:PASSWORD@HOST:5432/DATABASE`"
        ))
    })?;
    let options = options.application_name("towpath").statement_cache_capacity(STATEMENTS);
    let name = name(&options);
    let identity = prepare(&options, &name).await?;
    // The server's limit is a little shorter than its client's, so that neither side leaves anything behind.
    let bound = (PATIENCE - Duration::from_secs(1)).as_millis().to_string();
    let bounded = options.clone().options([
        ("statement_timeout", bound.as_str()),
        ("lock_timeout", bound.as_str()),
        ("idle_in_transaction_session_timeout", bound.as_str()),
    ]);
    let connections = Arc::new(Connections::new(name.clone(), bounded, CONNECTIONS));
    let (others, told) = mpsc::unbounded_channel();
    let publisher = Publisher {
        origin: uuid::Uuid::new_v4().simple().to_string()[..12].to_string(),
        here: broadcast::channel(CHANGES).0,
        others: Some(others),
    };
    tokio::spawn(notify(options.clone(), told, publisher.origin.clone()));
    let listener = start_listening(&options).await.map_err(|error| failed(&name, error))?;
    let listening = tokio::spawn(listen(options, listener, publisher.clone()));
    let (requests, received) = mpsc::unbounded_channel();
    let marks = Marks::default();
    tokio::spawn(writer::write_to_postgres(
        name.clone(),
        connections.clone(),
        received,
        publisher.clone(),
        marks.clone(),
    ));
    let backend = Backend {
        name,
        readers: Readers::Postgres(connections),
    };
    let marking = tokio::spawn(marks.clone().follow(backend.clone()));
    Ok(SqlStore::new(Shared {
        backend,
        requests,
        publisher,
        instance: identity.name,
        is_new: identity.is_new,
        marks,
        _tasks: vec![
            AbortOnDrop(listening.abort_handle()),
            AbortOnDrop(marking.abort_handle()),
        ],
        _lock: None,
    }))
}

/// `postgres://host:5432/database`: the address without its user and password.
fn name(options: &PgConnectOptions) -> String {
    let host = match options.get_socket() {
        Some(socket) => socket.display().to_string(),
        None => options.get_host().to_string(),
    };
    let database = options.get_database().unwrap_or(options.get_username());
    format!("postgres://{host}:{}/{database}", options.get_port())
}

async fn prepare(options: &PgConnectOptions, name: &str) -> Result<Identity, StoreError> {
    let mut connection = connect(options, name).await?;
    let prepared = async {
        migrate::postgres(&mut connection, name).await?;
        migrate::identify(&mut Transaction::postgres(&mut connection, name)).await
    };
    let prepared = tokio::time::timeout(MIGRATE, prepared).await;
    prepared.map_err(|_| StoreError::silent(name, MIGRATE))?
}

/// Passes other servers' changes to listeners; after a lost connection, reports that anything may have changed.
async fn listen(options: PgConnectOptions, mut listener: PgListener, publisher: Publisher) {
    loop {
        hear(&mut listener, &publisher).await;
        drop(listener);
        listener = loop {
            if let Ok(listener) = start_listening(&options).await {
                break listener;
            }
            tokio::time::sleep(RECONNECT).await;
        };
        let _ = publisher.here.send(Change::Everything);
    }
}

/// Receives notifications until the connection is lost.
async fn hear(listener: &mut PgListener, publisher: &Publisher) {
    loop {
        match tokio::time::timeout(HEARTBEAT, listener.try_recv()).await {
            Ok(Ok(Some(notification))) => publisher.heard(notification.payload()),
            Ok(Ok(None) | Err(_)) => return,
            Err(_) => {
                let alive = tokio::time::timeout(CONNECT, listener.execute("SELECT 1")).await;
                if !matches!(alive, Ok(Ok(_))) {
                    return;
                }
            }
        }
    }
}

/// Sends this server's changes to the others, as many at once as are waiting. After an outage, reports that everything
/// may have changed.
async fn notify(options: PgConnectOptions, mut told: mpsc::UnboundedReceiver<Change>, origin: String) {
    // Losing a notification is harmless, so do not wait for the disk.
    let options = options.options([("synchronous_commit", "off")]);
    let mut connection: Option<PgConnection> = None;
    let mut missed = false;
    loop {
        let first = match missed {
            false => told.recv().await,
            true => match tokio::time::timeout(RECONNECT, told.recv()).await {
                Ok(first) => first,
                Err(_) => Some(Change::Everything),
            },
        };
        let Some(first) = first else { return };
        let mut changes = vec![first];
        while let Ok(more) = told.try_recv() {
            changes.push(more);
        }
        if missed {
            changes.push(Change::Everything);
        }
        let sent = async {
            let mut to = match connection.take() {
                Some(connection) => connection,
                None => PgConnection::connect_with(&options).await?,
            };
            for payload in publish::payloads(&origin, &changes) {
                let notify = sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(payload);
                notify.execute(&mut to).await?;
            }
            Ok::<_, sqlx::Error>(to)
        };
        connection = tokio::time::timeout(CONNECT, sent).await.ok().and_then(Result::ok);
        missed = connection.is_none();
    }
}

/// A connection of its own that listens from now on.
async fn start_listening(options: &PgConnectOptions) -> Result<PgListener, sqlx::Error> {
    // The library's listener takes its connection from a pool.
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(CONNECT)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_lazy_with(options.clone());
    let mut listener = PgListener::connect_with(&pool).await?;
    // Notice a lost connection here, so that listeners learn that they may have missed changes.
    listener.eager_reconnect(false);
    listener.listen(CHANNEL).await?;
    Ok(listener)
}
