//! What a tag means.

use crate::TagName;
use futures::future::BoxFuture;
use towpath_types::{Digest, ImageReference};

/// Why nobody knows what a tag means right now.
#[derive(Debug, thiserror::Error)]
#[error("failed to {attempt}")]
pub struct ImagesError {
    pub(crate) attempt: String,
    pub(crate) source: Box<dyn std::error::Error + Send + Sync>,
}

/// The registries of a project's images, Towpath's own among them.
///
/// # Contract
/// - `repository` names a registry and a repository. Its tag and digest do not matter.
/// - A missing repository, tag or manifest is an answer (`None`, `false`, no tags). An error means that nobody knows: the
///   registry cannot be reached, refuses, or answers nonsense.
/// - All methods may be called at once, from many tasks. They change nothing.
/// - An answer about a tag holds for the moment: the next push may move it. A digest means the same for ever, but its
///   manifest may be deleted.
/// - A call may take as long as a registry needs that is asked again and again, which can be a minute. None is fit for
///   rendering a page.
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
