//! A collection of objects that is kept up to date by watching it.

use crate::{
    client::{Client, Select, WatchEvent},
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

/// What becomes of an object that is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// It is forgotten.
    Forgotten,
    /// Its last state is kept.
    Kept,
}

#[derive(Default)]
struct Cache {
    /// By name.
    objects: BTreeMap<String, Value>,
    /// The last states of those that were deleted, by uid; `None` if they are forgotten.
    gone: Option<BTreeMap<String, Value>>,
    /// Whether the collection has been listed at least once.
    listed: bool,
    /// Why it may not be listed at all.
    denied: Option<String>,
}

impl Cache {
    fn new(gone: Gone) -> Self {
        Self {
            gone: (gone == Gone::Kept).then(BTreeMap::new),
            ..Self::default()
        }
    }

    fn set(&mut self, object: Value) {
        let uid = uid_of(&object);
        if let Some(before) = self.objects.insert(name_of(&object), object)
            && uid_of(&before) != uid
        {
            // The name was deleted and used again.
            self.lay_aside(before);
        }
    }

    /// `last` is the object's last state.
    fn delete(&mut self, last: Value) {
        let name = name_of(&last);
        if self
            .objects
            .get(&name)
            .is_some_and(|known| uid_of(known) == uid_of(&last))
        {
            self.objects.remove(&name);
        }
        self.lay_aside(last);
    }

    fn replace(&mut self, objects: Vec<Value>) {
        let before = std::mem::take(&mut self.objects);
        self.objects = objects.into_iter().map(|object| (name_of(&object), object)).collect();
        for (name, object) in before {
            if self.objects.get(&name).map(uid_of) != Some(uid_of(&object)) {
                self.lay_aside(object);
            }
        }
        self.listed = true;
    }

    fn lay_aside(&mut self, object: Value) {
        if let Some(gone) = &mut self.gone {
            gone.insert(uid_of(&object), object);
        }
    }
}

/// Watches a collection until it is dropped.
///
/// Errors other than a missing permission are retried for as long as it lives: the caller has a deadline of its own.
pub struct Informer {
    cache: Arc<Mutex<Cache>>,
    task: AbortHandle,
}

impl Informer {
    /// Starts to watch what is selected of the collection at `path`. Notifies `changed` of every change.
    #[must_use]
    pub fn start(client: Arc<Client>, path: String, select: Select, gone: Gone, changed: Arc<Notify>) -> Self {
        let cache = Arc::new(Mutex::new(Cache::new(gone)));
        let task = tokio::spawn(run(client, path, select, Arc::clone(&cache), changed));
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

    /// The last states of the objects that were deleted. Empty if they are forgotten.
    #[must_use]
    pub fn gone(&self) -> Vec<Value> {
        let cache = lock(&self.cache);
        cache.gone.iter().flat_map(|gone| gone.values().cloned()).collect()
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

fn uid_of(object: &Value) -> String {
    text_at(object, "/metadata/uid")
}

async fn run(client: Arc<Client>, path: String, select: Select, cache: Arc<Mutex<Cache>>, changed: Arc<Notify>) {
    let mut may_watch = true;
    loop {
        let version = match client.list(&path, &select).await {
            Ok((objects, version)) => {
                lock(&cache).replace(objects);
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
            may_watch = follow(&client, &path, &select, version, &cache, &changed).await;
        }
        sleep(PAUSE).await;
    }
}

/// Follows the changes after `version` for as long as none is missed. A watch whose connection ends goes on after its last
/// change: a new list would not have what was deleted since. Returns whether the account may watch.
async fn follow(
    client: &Client,
    path: &str,
    select: &Select,
    mut version: String,
    cache: &Mutex<Cache>,
    changed: &Notify,
) -> bool {
    loop {
        let mut events = match client.watch(path, select, &version).await {
            Ok(events) => events,
            Err(error) => return !error.is_forbidden(),
        };
        while let Some(event) = events.next().await {
            let now = match event {
                WatchEvent::Set(object) => {
                    let now = text_at(&object, "/metadata/resourceVersion");
                    lock(cache).set(object);
                    now
                }
                WatchEvent::Deleted(object) => {
                    let now = text_at(&object, "/metadata/resourceVersion");
                    lock(cache).delete(object);
                    now
                }
                WatchEvent::Passed(now) => now,
                WatchEvent::Expired => return true,
            };
            if !now.is_empty() {
                version = now;
            }
            changed.notify_one();
        }
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, uid: &str, phase: &str) -> Value {
        json!({"metadata": {"name": name, "uid": uid}, "status": {"phase": phase}})
    }

    fn gone(cache: &Cache) -> Vec<String> {
        let gone = cache.gone.iter().flat_map(|gone| gone.values());
        gone.map(|object| format!("{} {}", uid_of(object), text_at(object, "/status/phase")))
            .collect()
    }

    #[test]
    fn the_last_state_of_what_was_deleted_is_kept() {
        let mut cache = Cache::new(Gone::Kept);
        cache.replace(vec![
            pod("a", "1", "Running"),
            pod("b", "2", "Running"),
            pod("c", "3", "Running"),
        ]);
        // The event has a newer state than any before.
        cache.delete(pod("a", "1", "Failed"));
        // A new one with the name of one that was deleted.
        cache.set(pod("b", "4", "Pending"));
        cache.delete(pod("b", "2", "Succeeded"));
        // Deleted while nobody watched.
        cache.replace(vec![pod("b", "4", "Running")]);
        assert_eq!(gone(&cache), ["1 Failed", "2 Succeeded", "3 Running"]);
        assert_eq!(cache.objects.values().collect::<Vec<_>>(), [&pod("b", "4", "Running")]);

        let mut cache = Cache::new(Gone::Forgotten);
        cache.replace(vec![pod("a", "1", "Running")]);
        cache.delete(pod("a", "1", "Failed"));
        assert_eq!((gone(&cache).len(), cache.objects.len()), (0, 0));
    }
}
