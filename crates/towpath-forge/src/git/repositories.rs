//! The folder of repositories.

use super::{
    hooks,
    program::{self, Failure},
};
use crate::ForgeError;
use std::{
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
};
use tokio::process::Command;
use towpath_types::ProjectName;

/// A folder of bare repositories, `<project>.git` each. Clones share it.
#[derive(Debug, Clone)]
pub struct GitForge {
    root: PathBuf,
}

impl GitForge {
    /// Uses `root`, which is created if it is missing, and installs hooks that run `towpath hook <name>`.
    ///
    /// # Errors
    /// When the folder cannot be created or written.
    pub async fn open(root: &Path, towpath: &Path) -> Result<Self, ForgeError> {
        let forge = Self {
            root: root.to_path_buf(),
        };
        hooks::install(&forge.hooks(), towpath).await?;
        // A killed server may have left a checkout half made.
        let checkouts = forge.checkouts();
        let failed = || ForgeError::io(format!("empty `{}`", checkouts.display()));
        match tokio::fs::remove_dir_all(&checkouts).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed()(error)),
            _ => tokio::fs::create_dir_all(&checkouts).await.map_err(failed())?,
        }
        Ok(forge)
    }

    /// The repository's folder.
    #[must_use]
    pub fn path(&self, project: &ProjectName) -> PathBuf {
        self.root.join(format!("{project}.git"))
    }

    pub(super) fn hooks(&self) -> PathBuf {
        self.root.join("hooks")
    }

    /// Where a checkout is while it is being streamed.
    pub(super) fn checkouts(&self) -> PathBuf {
        self.root.join("checkouts")
    }

    pub(super) fn command(&self, dir: &Path) -> Command {
        program::command(&self.root, dir)
    }

    pub(super) async fn has(&self, project: &ProjectName) -> Result<bool, ForgeError> {
        let head = self.path(project).join("HEAD");
        tokio::fs::try_exists(&head)
            .await
            .map_err(ForgeError::io(format!("look for `{}`", head.display())))
    }

    pub(super) async fn must_have(&self, project: &ProjectName) -> Result<(), ForgeError> {
        if self.has(project).await? {
            Ok(())
        } else {
            Err(ForgeError::UnknownProject(project.clone()))
        }
    }

    /// Runs git in the project's repository.
    pub(super) async fn git(
        &self,
        project: &ProjectName,
        arguments: &[&str],
        input: Vec<u8>,
    ) -> Result<Result<Vec<u8>, Failure>, ForgeError> {
        let most = program::MOST_OUTPUT;
        match self.git_at_most(project, arguments, input, most).await? {
            Some(ended) => Ok(ended),
            None => Err(ForgeError::too_large(
                format!("the answer of `git {}`", arguments.join(" ")),
                most,
            )),
        }
    }

    /// Like [`Self::git`]; `None` if git printed more than `most` bytes.
    pub(super) async fn git_at_most(
        &self,
        project: &ProjectName,
        arguments: &[&str],
        input: Vec<u8>,
        most: u64,
    ) -> Result<Option<Result<Vec<u8>, Failure>>, ForgeError> {
        self.must_have(project).await?;
        let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
        program::run_at_most(self.command(&self.path(project)), &arguments, input, most).await
    }

    pub(super) async fn list(&self) -> Result<Vec<ProjectName>, ForgeError> {
        let failed = || ForgeError::io(format!("list `{}`", self.root.display()));
        let mut entries = tokio::fs::read_dir(&self.root).await.map_err(failed())?;
        let mut names = Vec::new();
        while let Some(entry) = entries.next_entry().await.map_err(failed())? {
            let name = entry.file_name();
            let name = name
                .to_str()
                .and_then(|n| n.strip_suffix(".git"))
                .and_then(|n| n.parse().ok());
            names.extend(name);
        }
        names.sort();
        Ok(names)
    }

    pub(super) async fn init(&self, project: &ProjectName, branch: &str) -> Result<(), ForgeError> {
        if self.has(project).await? {
            return Ok(());
        }
        let branch = format!("--initial-branch={branch}");
        let path = self.path(project);
        let arguments = [
            OsStr::new("init"),
            OsStr::new("--quiet"),
            OsStr::new("--bare"),
            OsStr::new(&branch),
            path.as_os_str(),
        ];
        program::run(self.command(&self.root), &arguments, Vec::new()).await??;
        Ok(())
    }
}
