//! The built-in registry: the OCI distribution API over a folder.
//!
//! ```text
//! registry/
//!   lock                                  held while a process serves the folder
//!   temporary/                            files on their way to their place; emptied when the registry opens
//!   blobs/sha256/ab/abcd…                 the bytes of blobs and manifests, once each
//!   repositories/team/app/
//!     _layers/<hex>                       empty: this blob belongs to the repository. Its time says when that was last told to anyone
//!     _manifests/<hex>                    the manifest's media type
//!     _tags/<tag>                         the digest that the tag points to
//!     _referrers/<subject's hex>/<hex>    a descriptor of a manifest that refers to a subject
//!     _uploads/<uuid>                     the bytes of an upload so far
//! ```
//!
//! **Invariants.**
//! - A blob is visible in a repository when its link is there, and the link is made after the bytes were compared with
//!   their digest and are on the disk. So whoever may read one repository reads nothing of another by knowing a digest.
//! - Everything that becomes visible is written aside, synced and renamed. A crash or a full disk leaves what was there.
//! - Making things visible holds the gate shared; removing (deletes and [`Registry::collect`]) holds it alone. So a
//!   manifest cannot be accepted for a blob that is being removed.
//! - Manifests are never collected: a release names a digest, and keeps working when no tag names it any more.
//!
//! Only SHA-256 digests are known, and the image formats of OCI and Docker (schema 2).
//!
//! Source: <https://github.com/opencontainers/distribution-spec/blob/main/spec.md>

mod answer;
mod collect;
mod http;
mod manifest;
mod names;
mod range;
mod store;
mod upload;

pub use collect::Collected;
pub use http::router;
pub use names::{NameError, RepositoryName, TagName};

use ::http::HeaderMap;
use futures::future::BoxFuture;
use std::{path::PathBuf, sync::Arc, time::Duration};
use store::Store;
use towpath_types::Digest;
use upload::Uploads;

/// What somebody wants to do with a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Read blobs, manifests, tags and referrers.
    Pull,
    /// Upload blobs and manifests, and move tags.
    Push,
    /// Remove blobs, manifests and tags.
    Delete,
}

/// One thing to be allowed or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// The repository, or `None` for the registry itself: what `docker login` asks.
    pub repository: Option<RepositoryName>,
    /// What is to be done.
    pub action: Action,
}

/// The answer to an [`Access`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Allowed,
    /// Go on; what is pushed is told of as pushed by this one.
    AllowedAs(String),
    /// The request says not, or not credibly, who asks: it is answered with 401 and asked for Basic credentials.
    Unauthenticated,
    /// We know who asks, and the answer is no: 403.
    Forbidden,
}

/// Decides who may do what. Called once or more for every request, at the same time from many tasks, and before anything is
/// read or written; so it must be quick, and must not trust anything but `headers`.
pub trait Authorize: Send + Sync + 'static {
    /// Decides about `access` for a request with `headers`.
    fn authorize<'a>(&'a self, headers: &'a HeaderMap, access: &'a Access) -> BoxFuture<'a, Verdict>;
}

/// A manifest that somebody pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushedManifest {
    /// Where to.
    pub repository: RepositoryName,
    /// The tag, unless it was pushed by digest.
    pub tag: Option<TagName>,
    /// What was pushed.
    pub digest: Digest,
    /// Whom [`Verdict::AllowedAs`] named.
    pub by: Option<String>,
}

/// Is told of every manifest pushed through the API, after it is on the disk and before the client is answered, on a
/// thread that may block. A push that is repeated is told again.
pub type PushObserver = Arc<dyn Fn(&PushedManifest) + Send + Sync>;

/// What went wrong in the registry's folder.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The disk refused.
    #[error("failed to {action} `{}` in the registry's folder", path.display())]
    Storage {
        /// What was attempted: `write`, `read`, `remove`.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Another process has the folder open.
    #[error("the registry's folder `{}` is in use by another process: stop that one, or use another data directory", .0.display())]
    InUse(PathBuf),
    /// A file of the registry does not hold what it should.
    #[error("`{}` in the registry's folder is damaged: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A tag was to point to a manifest that is not there.
    #[error("repository `{repository}` has no manifest {digest}")]
    ManifestUnknown {
        /// The repository.
        repository: RepositoryName,
        /// What it does not have.
        digest: Digest,
    },
    /// The runtime is shutting down.
    #[error("the registry's work was interrupted because the process is stopping")]
    Stopping,
}

impl RegistryError {
    /// Whether the disk, or the share of it that we may use, is full.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        use std::io::ErrorKind;
        matches!(self, Self::Storage { source, .. }
            if matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded))
    }
}

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
    /// Opens the registry in `dir`, which is made when it is not there, and clears what an earlier process left half-done.
    /// Uploads that were under way stay, to be resumed.
    ///
    /// Blocks on the disk, shortly: it is for the start of a server.
    ///
    /// # Errors
    /// [`RegistryError::InUse`] when another process serves the folder; `Storage` when it cannot be written.
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

    /// The digest that `tag` of `repository` points to now.
    ///
    /// # Errors
    /// `Storage` or `Damaged`; that there is no such repository or tag is `None`.
    pub async fn resolve(&self, repository: &RepositoryName, tag: &TagName) -> Result<Option<Digest>, RegistryError> {
        let (repository, tag) = (repository.clone(), tag.clone());
        self.with_store(move |store| store.resolve(&repository, &tag)).await
    }

    /// The tags of `repository`, in the order of the alphabet whatever their case. Empty when there is no such repository.
    ///
    /// # Errors
    /// `Storage`.
    pub async fn tags(&self, repository: &RepositoryName) -> Result<Vec<TagName>, RegistryError> {
        let repository = repository.clone();
        self.with_store(move |store| Ok(store.tags(&repository)?.unwrap_or_default()))
            .await
    }

    /// Makes `tag` of `repository` point to `digest`, wherever it pointed before. No layer moves.
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

    /// Removes what no manifest needs: blobs that for at least `grace` nobody uploaded, asked for or referred to,
    /// and uploads that for as long nobody continued.
    ///
    /// `grace` is the time that a client may take between an upload (or hearing that it can be skipped) and the manifest
    /// that refers to it: an hour is plenty. Uploads have five minutes at least. Requests that make something visible wait while it runs; pulls do not.
    ///
    /// # Errors
    /// `Storage` or `Damaged`. What was removed until then stays removed, and the next run goes on. A manifest that
    /// cannot be read stops the run before anything is removed, because nobody knows what it needs.
    pub async fn collect(&self, grace: Duration) -> Result<Collected, RegistryError> {
        let collected = self.with_store(move |store| store.collect(grace)).await?;
        self.0.uploads.forget_missing();
        Ok(collected)
    }

    /// Runs `work` where blocking on the disk is allowed.
    async fn with_store<T: Send + 'static, E: From<RegistryError> + Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let store = self.0.store.clone();
        tokio::task::spawn_blocking(move || work(&store))
            .await
            .map_err(|_| E::from(RegistryError::Stopping))?
    }
}
