//! Where commits come from: Towpath's own git remote.
//!
//! [`Forge`] is the interface for the rest of Towpath. [`GitForge`] keeps bare repositories in a folder, serves them with the
//! `git` program over smart HTTP, and reads them with it. [`fake::FakeForge`] keeps commits in memory. One contract suite runs
//! on both.
//!
//! Only `tree.rs` decides which files a commit has, for every forge and for a [`WorkingTree`]. So the plan of a laptop's files
//! equals the plan of the commit that they become.
//!
//! This crate does not know what a push means. Git's hooks hand the refs to whoever set the hooks' environment: `pre-receive`
//! before git accepts a push, `post-receive` after the refs have moved.
//!
//! **Invariant:** of what clients send, only validated project names, commit ids, and paths and words behind `--` or
//! `--end-of-options` reach `git`'s command line.

mod commit;
mod error;
pub mod fake;
mod forge;
mod git;
mod ref_update;
mod text;
mod tree;
mod working_tree;

pub use commit::Commit;
pub use error::ForgeError;
pub use forge::{Forge, SourceStream};
pub use git::{GitForge, Service};
pub use ref_update::RefUpdate;
pub use text::{NotText, text};
pub use tree::{EVERYTHING, LARGEST_FILE_BYTES, LARGEST_TREE_BYTES, RealFile, Select, TreeEntry, TreeFile, Unread};
pub use working_tree::{WorkingTree, WorkingTreeError};
