//! What can go wrong with a forge.

use crate::tree::Unread;
use std::io;
use towpath_types::{CommitId, ProjectName};

/// What went wrong with a repository.
#[derive(Debug, thiserror::Error)]
pub enum ForgeError {
    /// `git` is not installed, or an operation on the disk failed.
    #[error("failed to {attempt}")]
    Io {
        /// The operation and its object: ``list `/data/git` ``.
        attempt: String,
        /// The operating system's reason.
        source: io::Error,
    },
    /// `git` ran and failed.
    #[error("`git {command}` failed: {stderr}")]
    Git {
        /// The subcommand: `log`.
        command: String,
        /// What git printed to standard error.
        stderr: String,
    },
    /// The project has no repository here.
    #[error("there is no project `{0}`: create it with `towpath init` in its repository")]
    UnknownProject(ProjectName),
    /// Something is larger than the limit.
    #[error("{what} is larger than the {limit} that Towpath reads")]
    TooLarge {
        /// The object: ``file `.circleci/config.yml` at 0123456``.
        what: String,
        /// The limit: `4194304 bytes`.
        limit: String,
    },
    /// The project has no such commit, branch, tag or file.
    #[error("there is no {what} in project `{project}`")]
    NotFound {
        /// The project that was searched.
        project: ProjectName,
        /// What was searched for: ``commit, branch or tag `v1` ``.
        what: String,
    },
    /// The commit has an entry of this name that is not a readable file.
    #[error("`{path}` at {} {why}", .commit.short())]
    Unread {
        /// The commit.
        commit: CommitId,
        /// The path from the root.
        path: String,
        /// The reason, as the rest of a sentence.
        why: Unread,
    },
}

impl ForgeError {
    pub(crate) fn io(attempt: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let attempt = attempt.into();
        move |source| Self::Io { attempt, source }
    }

    pub(crate) fn too_large(what: impl Into<String>, limit: u64) -> Self {
        Self::TooLarge {
            what: what.into(),
            limit: format!("{limit} bytes"),
        }
    }

    pub(crate) fn not_found(project: &ProjectName, what: impl Into<String>) -> Self {
        Self::NotFound {
            project: project.clone(),
            what: what.into(),
        }
    }
}
