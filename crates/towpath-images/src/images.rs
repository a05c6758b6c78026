//! Resolves tags.

use crate::TagName;
use futures::future::BoxFuture;
use towpath_types::{Digest, ImageReference};

/// Why a tag cannot be resolved right now.
#[derive(Debug, thiserror::Error)]
#[error("failed to {attempt}")]
pub struct ImagesError {
    pub(crate) attempt: String,
    pub(crate) source: Box<dyn std::error::Error + Send + Sync>,
}

/// The registries of a project's images, including Towpath's own.
///
/// # Contract
/// - `repository` names a registry and a repository. Its tag and digest do not matter.
/// - A missing repository, tag or manifest is an answer (`None`, `false`, no tags). An error means that nobody knows: the
///   registry cannot be reached, refuses, or gives an invalid answer.
/// - All methods may be called concurrently, from many tasks. They change nothing.
/// - An answer about a tag is true only for the moment: the next push may move the tag. A digest never changes its meaning, but
///   its manifest may be deleted.
/// - A call may take a minute, because it retries a registry that does not answer. Do not call it while rendering a page.
pub trait Images: Send + Sync + 'static {
    /// The digest that `tag` points to.
    fn resolve<'a>(
        &'a self,
        repository: &'a ImageReference,
        tag: &'a TagName,
    ) -> BoxFuture<'a, Result<Option<Digest>, ImagesError>>;

    /// Whether the repository has the manifest `digest`.
    fn exists<'a>(
        &'a self,
        repository: &'a ImageReference,
        digest: &'a Digest,
    ) -> BoxFuture<'a, Result<bool, ImagesError>>;

    /// The repository's tags, sorted.
    fn tags<'a>(&'a self, repository: &'a ImageReference) -> BoxFuture<'a, Result<Vec<TagName>, ImagesError>>;
}
