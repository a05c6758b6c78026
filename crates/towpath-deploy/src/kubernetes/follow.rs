//! A collection of objects, kept up to date while somebody waits for it.

use super::api::{Api, WatchEvent};
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

/// How long to rest before a broken watch is taken up again, and between two looks where watching is not allowed.
const REST: Duration = Duration::from_secs(1);

/// How often it is looked whether a collection was read.
const LOOK: Duration = Duration::from_millis(20);

/// What is known of a collection.
#[derive(Default)]
struct Seen {
    objects: BTreeMap<String, Value>,
    /// Whether the collection was read at least once.
    read: bool,
    /// Why it never will be.
    denied: Option<String>,
}

/// Follows a collection until it is dropped.
pub(super) struct Follower {
    seen: Arc<Mutex<Seen>>,
    task: AbortHandle,
}

impl Follower {
    /// Follows the collection at `path`; `changed` is told whenever something in it is new.
    pub(super) fn start(api: Arc<Api>, path: String, selector: Option<String>, changed: Arc<Notify>) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let task = tokio::spawn(follow(api, path, selector, Arc::clone(&seen), changed));
        Self {
            seen,
            task: task.abort_handle(),
        }
    }

    /// Whether the collection was read, so that what is not there is known not to be there.
    pub(super) fn is_read(&self) -> bool {
        lock(&self.seen).read
    }

    /// Why it cannot be read at all.
    pub(super) fn denied(&self) -> Option<String> {
        lock(&self.seen).denied.clone()
    }

    pub(super) fn get(&self, name: &str) -> Option<Value> {
        self.with(name, |object| object.cloned())
    }

    /// What `look` makes of an object; nothing else is seen meanwhile, so it is to be quick.
    pub(super) fn with<T>(&self, name: &str, look: impl FnOnce(Option<&Value>) -> T) -> T {
        look(lock(&self.seen).objects.get(name))
    }

    /// What `look` makes of the objects of which it makes something; nothing else is seen meanwhile, so it is to be quick.
    pub(super) fn filter_map<T>(&self, look: impl Fn(&Value) -> Option<T>) -> Vec<T> {
        lock(&self.seen).objects.values().filter_map(look).collect()
    }

    /// The objects for which `wanted` answers true.
    pub(super) fn filter(&self, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        self.filter_map(|object| wanted(object).then(|| object.clone()))
    }

    /// Waits until the collection was read, or is known not to be readable, or `bound` has passed.
    pub(super) async fn settled(&self, bound: Duration) {
        let deadline = Instant::now() + bound;
        while !self.is_read() && self.denied().is_none() && Instant::now() < deadline {
            sleep(LOOK).await;
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn name_of(object: &Value) -> String {
    let name = object.pointer("/metadata/name").and_then(Value::as_str);
    name.unwrap_or_default().to_string()
}

async fn follow(api: Arc<Api>, path: String, selector: Option<String>, seen: Arc<Mutex<Seen>>, changed: Arc<Notify>) {
    let mut may_watch = true;
    loop {
        let version = match api.list(&path, selector.as_deref()).await {
            Ok((objects, version)) => {
                let mut seen = lock(&seen);
                seen.objects = objects.into_iter().map(|object| (name_of(&object), object)).collect();
                seen.read = true;
                drop(seen);
                changed.notify_one();
                version
            }
            Err(error) if error.is_forbidden() => {
                lock(&seen).denied = Some(error.to_string());
                changed.notify_one();
                return;
            }
            // Whoever waits has a deadline; until then the server may come back.
            Err(error) => {
                tracing::debug!(path, error = %error, "a collection cannot be read now");
                tokio::time::sleep(REST).await;
                continue;
            }
        };
        if may_watch {
            match api.watch(&path, selector.as_deref(), &version).await {
                Ok(mut events) => {
                    while let Some(event) = events.next().await {
                        match event {
                            WatchEvent::Set(object) => {
                                lock(&seen).objects.insert(name_of(&object), object);
                            }
                            WatchEvent::Gone(object) => {
                                lock(&seen).objects.remove(&name_of(&object));
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
        tokio::time::sleep(REST).await;
    }
}
