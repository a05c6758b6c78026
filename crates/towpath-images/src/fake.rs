//! Registries in memory, for tests of code that resolves tags.
//!
//! They count their calls, so that a test can show that a page made none. Each can be made unreachable.

use crate::{Images, ImagesError, TagName};
use futures::future::{BoxFuture, ready};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};
use towpath_types::{Digest, ImageReference};

/// Registries in memory.
#[derive(Debug, Default)]
pub struct FakeImages {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Keyed by `registry/repository`.
    repositories: BTreeMap<String, Repository>,
    calls: BTreeMap<&'static str, usize>,
    /// Registries that cannot be reached, and why. `None` is the registry of images without one.
    unreachable: BTreeMap<Option<String>, String>,
    pushes: usize,
}

#[derive(Debug, Default)]
struct Repository {
    manifests: BTreeSet<Digest>,
    tags: BTreeMap<TagName, Digest>,
}

impl FakeImages {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pushes a new image under `tag`. Returns its digest.
    pub fn push(&self, repository: &ImageReference, tag: &TagName) -> Digest {
        let mut state = self.state();
        state.pushes += 1;
        let digest = Digest::of(format!("{} {}", repository.name(), state.pushes).as_bytes());
        let repository = state.repositories.entry(repository.name()).or_default();
        repository.manifests.insert(digest.clone());
        repository.tags.insert(tag.clone(), digest.clone());
        digest
    }

    /// Points `tag` to `digest`, and adds the digest to the repository.
    pub fn point(&self, repository: &ImageReference, tag: &TagName, digest: &Digest) {
        let mut state = self.state();
        let repository = state.repositories.entry(repository.name()).or_default();
        repository.manifests.insert(digest.clone());
        repository.tags.insert(tag.clone(), digest.clone());
    }

    /// Deletes a manifest and the tags that point to it.
    pub fn delete(&self, repository: &ImageReference, digest: &Digest) {
        if let Some(repository) = self.state().repositories.get_mut(&repository.name()) {
            repository.manifests.remove(digest);
            repository.tags.retain(|_, pointed| pointed != digest);
        }
    }

    /// Makes a registry fail with this message, until it is given `None`.
    pub fn fail(&self, registry: Option<&str>, message: Option<&str>) {
        let registry = registry.map(str::to_string);
        let mut state = self.state();
        match message {
            Some(message) => state.unreachable.insert(registry, message.to_string()),
            None => state.unreachable.remove(&registry),
        };
    }

    /// How often a method of [`Images`] was called, by its name.
    #[must_use]
    pub fn calls(&self, method: &str) -> usize {
        self.state().calls.get(method).copied().unwrap_or_default()
    }

    /// How often any method was called.
    #[must_use]
    pub fn all_calls(&self) -> usize {
        self.state().calls.values().sum()
    }

    /// Counts a call and answers it.
    fn answer<T: Send + 'static>(
        &self,
        method: &'static str,
        repository: &ImageReference,
        answer: impl FnOnce(Option<&Repository>) -> T,
    ) -> BoxFuture<'static, Result<T, ImagesError>> {
        let mut state = self.state();
        *state.calls.entry(method).or_default() += 1;
        let answer = match state.unreachable.get(&repository.registry) {
            Some(message) => Err(ImagesError {
                attempt: format!("ask the registry of `{}`", repository.name()),
                source: message.clone().into(),
            }),
            None => Ok(answer(state.repositories.get(&repository.name()))),
        };
        Box::pin(ready(answer))
    }
}

impl Images for FakeImages {
    fn resolve<'a>(
        &'a self,
        repository: &'a ImageReference,
        tag: &'a TagName,
    ) -> BoxFuture<'a, Result<Option<Digest>, ImagesError>> {
        self.answer("resolve", repository, |found| found?.tags.get(tag).cloned())
    }

    fn exists<'a>(
        &'a self,
        repository: &'a ImageReference,
        digest: &'a Digest,
    ) -> BoxFuture<'a, Result<bool, ImagesError>> {
        self.answer("exists", repository, |found| {
            found.is_some_and(|repository| repository.manifests.contains(digest))
        })
    }

    fn tags<'a>(&'a self, repository: &'a ImageReference) -> BoxFuture<'a, Result<Vec<TagName>, ImagesError>> {
        self.answer("tags", repository, |found| {
            found
                .map(|repository| repository.tags.keys().cloned().collect())
                .unwrap_or_default()
        })
    }
}
