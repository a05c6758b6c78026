//! Who may do what: the registry asks, its owner answers.

use super::RepositoryName;
use ::http::HeaderMap;
use futures::future::BoxFuture;

/// What a client wants to do with a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Read blobs, manifests, tags and referrers.
    Pull,
    /// Upload blobs and manifests, and move tags.
    Push,
    /// Remove blobs, manifests and tags.
    Delete,
}

/// One permission that a request needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// `None` for the registry itself, which `docker login` requests.
    pub repository: Option<RepositoryName>,
    /// [`Action::Pull`] if there is no repository.
    pub action: Action,
}

/// The answer to an [`Access`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The request goes on.
    Allowed,
    /// The request goes on, and [`PushedManifest::by`](super::PushedManifest::by) carries this name.
    AllowedAs(String),
    /// The request has no credentials, or wrong ones: the registry answers 401 and asks for Basic credentials.
    Unauthenticated,
    /// The caller is known and may not do this: 403.
    Forbidden,
    /// The caller cannot be authenticated now: 503, and the client retries.
    Unavailable,
}

/// Decides who may do what.
///
/// The registry asks at least once for every request, from many tasks at once, before it reads or writes anything. An
/// implementation has to be fast, and may trust nothing but `headers`.
pub trait Authorize: Send + Sync + 'static {
    /// Decides about `access` for a request with `headers`.
    fn authorize<'a>(&'a self, headers: &'a HeaderMap, access: &'a Access) -> BoxFuture<'a, Verdict>;
}
