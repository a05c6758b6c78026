//! How the contract's tests change repositories: what a push would do, on the fake and on git.
#![allow(clippy::unwrap_used)]

mod fake;
mod git;

pub use fake::Fake;
pub use git::Git;

use towpath_forge::Forge;
use towpath_types::{CommitId, ProjectName};

/// One change of a commit's files.
pub enum Change<'a> {
    File(&'a str, &'a [u8]),
    Link(&'a str, &'a str),
    Submodule(&'a str),
    Removed(&'a str),
}

/// A forge with a way to change its repositories.
pub trait Subject {
    fn forge(&self) -> &dyn Forge;

    /// Commits on top of `branch`, as Ada Lovelace, and makes the project if it is missing. Each commit is one second older
    /// than the next.
    fn commit(&self, project: &ProjectName, branch: &str, message: &str, changes: &[Change<'_>]) -> CommitId;

    fn set_ref(&self, project: &ProjectName, name: &str, commit: Option<&CommitId>);

    fn annotated_tag(&self, project: &ProjectName, name: &str, commit: &CommitId);
}
