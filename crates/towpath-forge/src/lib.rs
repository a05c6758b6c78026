//! Where commits come from: Towpath's own git remote.
//!
//! Bare repositories in a folder, served over git's smart HTTP protocol by the `git` program itself, and read by it. What a
//! push means is not known here: the `post-receive` hook hands the moved refs to whoever set the hook's environment.
//!
//! **Invariant:** nothing that came from a client reaches `git`'s command line but validated project names, commit ids
//! and paths behind a `--`.

mod project;
mod read;
mod remote;
mod source;

pub use project::{ProjectName, ProjectNameError};
pub use read::{Commit, RefUpdate, TreeFile};
pub use remote::{Forge, ForgeError, Service};
