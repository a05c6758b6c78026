//! A collection of objects that is kept up to date by watching it.

use crate::{
    client::{Client, WatchEvent},
    fields::text_at,
};
use futures::StreamExt;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::Notify,
    task::AbortHandle,
    time::{Instant, sleep},
};

/// The pause before a broken watch is started again, and between two lists where watching is not allowed.
const PAUSE: Duration = Duration::from_secs(1);

/// How often [`Informer::settled`] checks.
const CHECK: Duration = Duration::from_millis(20);

#[derive(Default)]
struct Cache {
    objects: BTreeMap<String, Value>,
    /// Whether the collection has been listed at least once.
    listed: bool,
    /// Why it may not be listed at all.
    denied: Option<String>,
}

/// Watches a collection until it is dropped.
///
/// Errors other than a missing permission are retried for as long as it lives: the caller has a deadline of its own.
pub struct Informer {
    cache: Arc<Mutex<Cache>>,
    task: AbortHandle,
}

impl Informer {
    /// Starts to watch the collection at `path`, restricted to a label `selector`. Notifies `changed` of every change.
    #[must_use]
    pub fn start(client: Arc<Client>, path: String, selector: Option<String>, changed: Arc<Notify>) -> Self {
        let cache = Arc::new(Mutex::new(Cache::default()));
        let task = tokio::spawn(run(client, path, selector, Arc::clone(&cache), changed));
        Self {
            cache,
            task: task.abort_handle(),
        }
    }

    /// Whether the collection has been listed. Until then, a missing object may exist.
    #[must_use]
    pub fn is_listed(&self) -> bool {
        lock(&self.cache).listed
    }

    /// Why the account may not list the collection.
    #[must_use]
    pub fn denied(&self) -> Option<String> {
        lock(&self.cache).denied.clone()
    }

    /// The object with this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Value> {
        self.with(name, |object| object.cloned())
    }

    /// Reads an object without copying it. Holds a lock, so `read` has to be quick.
    pub fn with<T>(&self, name: &str, read: impl FnOnce(Option<&Value>) -> T) -> T {
        read(lock(&self.cache).objects.get(name))
    }

    /// Reads all objects without copying them. Holds a lock, so `read` has to be quick.
    pub fn filter_map<T>(&self, read: impl Fn(&Value) -> Option<T>) -> Vec<T> {
        lock(&self.cache).objects.values().filter_map(read).collect()
    }

    /// Copies of the objects for which `wanted` returns true.
    pub fn filter(&self, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        self.filter_map(|object| wanted(object).then(|| object.clone()))
    }

    /// Waits until the collection has been listed, or is known to be forbidden, or `bound` has passed.
    pub async fn settled(&self, bound: Duration) {
        let deadline = Instant::now() + bound;
        while !self.is_listed() && self.denied().is_none() && Instant::now() < deadline {
            sleep(CHECK).await;
        }
    }
}

impl Drop for Informer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(cache: &Mutex<Cache>) -> MutexGuard<'_, Cache> {
    cache.lock().unwrap_or_else(PoisonError::into_inner)
}

fn name_of(object: &Value) -> String {
    text_at(object, "/metadata/name")
}

async fn run(
    client: Arc<Client>,
    path: String,
    selector: Option<String>,
    cache: Arc<Mutex<Cache>>,
    changed: Arc<Notify>,
) {
    let mut may_watch = true;
    loop {
        let version = match client.list(&path, selector.as_deref()).await {
            Ok((objects, version)) => {
                let mut cache = lock(&cache);
                cache.objects = objects.into_iter().map(|object| (name_of(&object), object)).collect();
                cache.listed = true;
                drop(cache);
                changed.notify_one();
                version
            }
            Err(error) if error.is_forbidden() => {
                lock(&cache).denied = Some(error.to_string());
                changed.notify_one();
                return;
            }
            Err(error) => {
                tracing::debug!(path, error = %error, "cannot list a collection, will retry");
                sleep(PAUSE).await;
                continue;
            }
        };
        if may_watch {
            match client.watch(&path, selector.as_deref(), &version).await {
                Ok(mut events) => {
                    while let Some(event) = events.next().await {
                        match event {
                            WatchEvent::Set(object) => {
                                lock(&cache).objects.insert(name_of(&object), object);
                            }
                            WatchEvent::Deleted(object) => {
                                lock(&cache).objects.remove(&name_of(&object));
                            }
                            WatchEvent::Expired => break,
                        }
                        changed.notify_one();
                    }
                }
                Err(error) if error.is_forbidden() => may_watch = false,
                Err(_) => {}
            }
        }
        sleep(PAUSE).await;
    }
}
