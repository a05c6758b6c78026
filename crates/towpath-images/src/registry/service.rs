//! The registry of one folder, as the rest of the process uses it.

use super::{
    Authorize, Collected, PushObserver, RegistryError, RepositoryName, TagName, store::Store, upload::Uploads,
};
use std::{path::PathBuf, sync::Arc, time::Duration};
use towpath_types::Digest;

/// The registry of one folder. Clones share it.
#[derive(Clone)]
pub struct Registry(Arc<Shared>);

struct Shared {
    store: Arc<Store>,
    uploads: Uploads,
    authorize: Arc<dyn Authorize>,
    observer: PushObserver,
}

impl Registry {
    /// Opens the registry in `dir`, creates the folder if it is missing, and removes what an earlier process left half
    /// written. Unfinished uploads stay, so that clients can resume them.
    ///
    /// Blocks on the disk for a short time: call it when a server starts.
    ///
    /// # Errors
    /// `Storage` when the folder cannot be written.
    pub fn open(
        dir: impl Into<PathBuf>,
        authorize: Arc<dyn Authorize>,
        observer: PushObserver,
    ) -> Result<Self, RegistryError> {
        Ok(Self(Arc::new(Shared {
            store: Arc::new(Store::open(dir.into())?),
            uploads: Uploads::default(),
            authorize,
            observer,
        })))
    }

    pub(super) fn store(&self) -> &Arc<Store> {
        &self.0.store
    }

    pub(super) fn uploads(&self) -> &Uploads {
        &self.0.uploads
    }

    pub(super) fn authorize(&self) -> &dyn Authorize {
        &*self.0.authorize
    }

    pub(super) fn observer(&self) -> &PushObserver {
        &self.0.observer
    }

    /// The digest that `tag` of `repository` points to now; `None` when there is no such repository or tag.
    ///
    /// # Errors
    /// `Storage` or `Damaged`.
    pub async fn resolve(&self, repository: &RepositoryName, tag: &TagName) -> Result<Option<Digest>, RegistryError> {
        let (repository, tag) = (repository.clone(), tag.clone());
        self.with_store(move |store| store.resolve(&repository, &tag)).await
    }

    /// The tags of `repository` in alphabetical order, ignoring case. Empty when there is no such repository.
    ///
    /// # Errors
    /// `Storage`.
    pub async fn tags(&self, repository: &RepositoryName) -> Result<Vec<TagName>, RegistryError> {
        let repository = repository.clone();
        self.with_store(move |store| Ok(store.tags(&repository)?.unwrap_or_default()))
            .await
    }

    /// Points `tag` of `repository` to `digest`, wherever it pointed before. No layer moves.
    ///
    /// # Errors
    /// [`RegistryError::ManifestUnknown`] when the repository has no such manifest; `Storage`.
    pub async fn tag(&self, repository: &RepositoryName, digest: &Digest, tag: &TagName) -> Result<(), RegistryError> {
        let (repository, digest, tag) = (repository.clone(), digest.clone(), tag.clone());
        self.with_store(move |store| store.tag(&repository, &digest, &tag))
            .await
    }

    /// Whether `repository` has the manifest `digest`.
    ///
    /// # Errors
    /// `Storage`.
    pub async fn manifest_exists(&self, repository: &RepositoryName, digest: &Digest) -> Result<bool, RegistryError> {
        let (repository, digest) = (repository.clone(), digest.clone());
        self.with_store(move |store| Ok(store.manifest(&repository, &digest)?.is_some()))
            .await
    }

    /// Removes blobs that no manifest needs and that no client uploaded, asked for or referred to within `grace`, and uploads
    /// that no client continued within it.
    ///
    /// `grace` is how long a client may take between an upload (or the answer that it can skip one) and the manifest that
    /// refers to it. An hour is plenty. Uploads always get at least five minutes. Requests that publish something wait while
    /// this runs; pulls do not.
    ///
    /// # Errors
    /// `Storage` or `Damaged`. What was removed by then stays removed, and the next run goes on. A manifest that cannot be
    /// read stops the run before anything is removed, because nobody knows what it needs.
    pub async fn collect(&self, grace: Duration) -> Result<Collected, RegistryError> {
        let collected = self.with_store(move |store| store.collect(grace)).await?;
        self.0.uploads.forget_missing();
        Ok(collected)
    }

    /// Runs `work` on a thread that may block on the disk.
    pub(super) async fn with_store<T: Send + 'static, E: From<RegistryError> + Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let store = self.0.store.clone();
        tokio::task::spawn_blocking(move || work(&store))
            .await
            .map_err(|_| E::from(RegistryError::Stopping))?
    }
}
