//! What Towpath needs of its git remote.

use crate::{Commit, ForgeError, TreeFile, tree::Select};
use bytes::Bytes;
use futures::{future::BoxFuture, stream::BoxStream};
use std::io;
use towpath_types::{CommitId, ProjectName};

/// A tar archive as it is made.
pub type SourceStream = BoxStream<'static, io::Result<Bytes>>;

/// The repositories of Towpath's projects.
///
/// # Contract
/// - All methods may be called at once, from many tasks, while pushes arrive. One answer is consistent in itself; two answers
///   may see different refs.
/// - A commit that was found stays readable, even after its branch is deleted, until the repository itself goes away.
/// - Methods that take a project fail with [`ForgeError::UnknownProject`] if it has no repository ([`Forge::exists`] and
///   [`Forge::create`] excepted), and with [`ForgeError::NotFound`] if the repository lacks the commit, ref or file. Every
///   other error means that the forge does not work at the moment.
/// - No answer takes much more memory than [`LARGEST_TREE_BYTES`](crate::LARGEST_TREE_BYTES), whatever somebody pushed. What
///   git itself says is bounded, too: more is [`ForgeError::TooLarge`].
/// - Only `refs/heads/*` and `refs/tags/*` exist. `refs/replace/*` never changes what a commit is.
/// - A call may take as long as a process start; none is fit for rendering a page.
/// - Reading changes nothing. [`Forge::create`] and [`Forge::set_default_branch`] are safe to repeat.
pub trait Forge: Send + Sync + 'static {
    /// The projects that have a repository, sorted by name.
    fn projects(&self) -> BoxFuture<'_, Result<Vec<ProjectName>, ForgeError>>;

    /// Whether `project` has a repository.
    fn exists<'a>(&'a self, project: &'a ProjectName) -> BoxFuture<'a, Result<bool, ForgeError>>;

    /// Makes an empty repository whose default branch is `branch`. A repository that exists stays as it is.
    fn create<'a>(&'a self, project: &'a ProjectName, branch: &'a str) -> BoxFuture<'a, Result<(), ForgeError>>;

    /// The default branch's name: `main`. The branch need not exist yet.
    fn default_branch<'a>(&'a self, project: &'a ProjectName) -> BoxFuture<'a, Result<String, ForgeError>>;

    /// Makes `branch` the default branch. It need not exist yet.
    fn set_default_branch<'a>(
        &'a self,
        project: &'a ProjectName,
        branch: &'a str,
    ) -> BoxFuture<'a, Result<(), ForgeError>>;

    /// Every branch and tag by its whole name (`refs/heads/main`), sorted, with the object that it points to. For an annotated
    /// tag, that is the tag object. It need not be a commit: git also tags files and folders.
    fn refs<'a>(&'a self, project: &'a ProjectName) -> BoxFuture<'a, Result<Vec<(String, CommitId)>, ForgeError>>;

    /// The commit that `word` means: a tag, a branch, a commit's id, or the first four or more digits of an id. A tag wins over
    /// a branch of the same name. Digits that fit several commits are [`ForgeError::NotFound`].
    ///
    /// A word that begins with `refs/` is only the whole name of a branch or a tag. A caller that has to avoid the ambiguity
    /// asks for `refs/heads/main`.
    fn find<'a>(&'a self, project: &'a ProjectName, word: &'a str) -> BoxFuture<'a, Result<CommitId, ForgeError>>;

    /// The commit with its message. `id` may also be a tag object's id, which stands for the commit that it names. If it names
    /// none, the answer is [`ForgeError::NotFound`].
    fn commit<'a>(&'a self, project: &'a ProjectName, id: &'a CommitId) -> BoxFuture<'a, Result<Commit, ForgeError>>;

    /// The history of `to` without that of `from`: newest first, at most `limit` commits.
    fn log<'a>(
        &'a self,
        project: &'a ProjectName,
        from: Option<&'a CommitId>,
        to: &'a CommitId,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Commit>, ForgeError>>;

    /// The file that a checkout of `commit` has at `path`. Follows symbolic links within the commit. The error is
    /// [`ForgeError::Unread`] if the entry is not a readable file: a folder, a link that leads nowhere or out of the
    /// repository, or a file of more than [`LARGEST_FILE_BYTES`](crate::LARGEST_FILE_BYTES).
    fn file<'a>(
        &'a self,
        project: &'a ProjectName,
        commit: &'a CommitId,
        path: &'a str,
    ) -> BoxFuture<'a, Result<Vec<u8>, ForgeError>>;

    /// Every file below `folder` that `select` keeps, sorted by path; empty if there is no such folder.
    ///
    /// A link counts as the file or the folder of the same commit that it leads to. The answer includes what cannot be read
    /// (other links, submodules, files that are too large), with the reason.
    fn files<'a>(
        &'a self,
        project: &'a ProjectName,
        commit: &'a CommitId,
        folder: &'a str,
        select: Select<'a>,
    ) -> BoxFuture<'a, Result<Vec<TreeFile>, ForgeError>>;

    /// A tar archive of `commit`, checked out on `branch` or detached. A job without git unpacks it.
    ///
    /// [`GitForge`](crate::GitForge) adds `.git` with the whole history and the remote `origin`. A failure before the first
    /// byte is the method's error. A later failure ends the stream with an error, which leaves the archive visibly broken.
    fn source<'a>(
        &'a self,
        project: &'a ProjectName,
        commit: &'a CommitId,
        branch: Option<&'a str>,
        origin: &'a str,
    ) -> BoxFuture<'a, Result<SourceStream, ForgeError>>;
}
