//! Chooses the backend of the next request, and counts the requests of each.

use super::routes::{Listener, ProxyState, Routes};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{sync::watch, time::Instant};

/// How long to leave out an unreachable backend if there is no other. It may be about to leave the routes.
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug)]
struct Load {
    address: SocketAddr,
    requests: AtomicUsize,
    streams: AtomicUsize,
}

#[derive(Debug, Default)]
struct Table {
    routes: Routes,
    loads: BTreeMap<SocketAddr, Arc<Load>>,
}

/// The current routes. All parts of one proxy share them.
///
/// Choosing a backend and counting the request on it are one step under the lock that a new table takes for writing. So once a
/// generation is in force, no request can still be on its way to a backend that left in it.
#[derive(Debug)]
pub(super) struct Backends {
    table: RwLock<Table>,
    changed: watch::Sender<u64>,
}

/// What a lease counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Request,
    Stream,
}

/// A place on a backend. It counts until it is dropped.
#[derive(Debug)]
pub(super) struct Lease {
    load: Arc<Load>,
    counted: Use,
}

impl Lease {
    pub(super) fn address(&self) -> SocketAddr {
        self.load.address
    }

    /// Counts the request as a long-lived connection from now on.
    pub(super) fn into_stream(self) -> Self {
        self.load.streams.fetch_add(1, Ordering::AcqRel);
        Self {
            load: Arc::clone(&self.load),
            counted: Use::Stream,
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let counter = match self.counted {
            Use::Request => &self.load.requests,
            Use::Stream => &self.load.streams,
        };
        counter.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Backends {
    pub(super) fn new() -> Self {
        Self {
            table: RwLock::new(Table::default()),
            changed: watch::channel(0).0,
        }
    }

    /// Puts `routes` into force.
    pub(super) fn replace(&self, routes: Routes) {
        let generation = routes.generation;
        {
            let mut table = self.write();
            let mut loads = std::mem::take(&mut table.loads);
            loads.retain(|_, load| {
                load.requests.load(Ordering::Acquire) + load.streams.load(Ordering::Acquire) > 0
                    || Arc::strong_count(load) > 1
            });
            for backend in routes.pools.values().flatten() {
                loads.entry(backend.address).or_insert_with(|| {
                    Arc::new(Load {
                        address: backend.address,
                        requests: AtomicUsize::new(0),
                        streams: AtomicUsize::new(0),
                    })
                });
            }
            *table = Table { routes, loads };
        }
        self.changed.send_replace(generation);
    }

    pub(super) fn listeners(&self) -> Vec<Listener> {
        self.read().routes.listeners.clone()
    }

    /// The pool for a request to `port`.
    pub(super) fn pool_for(&self, port: u16, host: Option<&str>, path: &str) -> Option<String> {
        let table = self.read();
        let listener = table.routes.listeners.iter().find(|listener| listener.port == port)?;
        listener.pool_for(host, path).map(str::to_string)
    }

    /// The pool for a connection to `port`.
    pub(super) fn pool_of_port(&self, port: u16) -> Option<String> {
        let table = self.read();
        let listener = table.routes.listeners.iter().find(|listener| listener.port == port)?;
        listener.rules.first().map(|rule| rule.pool.clone())
    }

    fn try_lease(&self, pool: &str, counted: Use, avoid: &BTreeSet<SocketAddr>) -> Option<Lease> {
        let table = self.read();
        let load = table
            .routes
            .pools
            .get(pool)?
            .iter()
            .filter(|backend| !backend.draining && !avoid.contains(&backend.address))
            .filter_map(|backend| table.loads.get(&backend.address))
            .min_by_key(|load| {
                let busy = load.requests.load(Ordering::Acquire) + load.streams.load(Ordering::Acquire);
                // Equally busy backends take turns.
                (busy, rand::random::<u16>())
            })?;
        let counter = match counted {
            Use::Request => &load.requests,
            Use::Stream => &load.streams,
        };
        counter.fetch_add(1, Ordering::AcqRel);
        Some(Lease {
            load: Arc::clone(load),
            counted,
        })
    }

    /// The least busy ready backend outside of `avoid`. Waits for one until `deadline`. If only those in `avoid` are left,
    /// tries them again after a pause.
    pub(super) async fn lease(
        &self,
        pool: &str,
        counted: Use,
        avoid: &mut BTreeSet<SocketAddr>,
        deadline: Instant,
    ) -> Option<Lease> {
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            if let Some(lease) = self.try_lease(pool, counted, avoid) {
                return Some(lease);
            }
            if Instant::now() >= deadline {
                return None;
            }
            let until = if avoid.is_empty() {
                deadline
            } else {
                deadline.min(Instant::now() + PAUSE)
            };
            let _ = tokio::time::timeout_at(until, changed.changed()).await;
            avoid.clear();
        }
    }

    /// The report to the supervisor.
    pub(super) fn state(&self) -> ProxyState {
        // Lock for writing, so that no request is between its choice and its count.
        let table = self.write();
        let count = |of: fn(&Load) -> &AtomicUsize| {
            table
                .loads
                .values()
                .map(|load| (load.address, of(load).load(Ordering::Acquire)))
                .filter(|(_, count)| *count > 0)
                .collect()
        };
        ProxyState {
            generation: table.routes.generation,
            requests: count(|load| &load.requests),
            streams: count(|load| &load.streams),
        }
    }

    /// Whether somebody may be waiting for a backend to drain.
    pub(super) fn something_drains(&self) -> bool {
        self.read()
            .routes
            .pools
            .values()
            .flatten()
            .any(|backend| backend.draining)
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
