//! The working tree in which a command runs.

use anyhow::{Context, Result, bail};
use std::{
    path::{Path, PathBuf},
    process::Command,
};
use towpath_delivery::{
    LaptopRequest, MANIFESTS_FOLDER, ManifestFile, PROJECT_FILE, ProjectFile, manifest_files, select_manifests,
};
use towpath_forge::WorkingTree;
use towpath_types::CommitId;

/// The name of a Dockerfile.
const DOCKERFILE: &str = "Dockerfile";

/// How deep in folders a Dockerfile may be to be found.
const MOST_FOLDERS_TO_A_DOCKERFILE: usize = 3;

/// A repository's working tree.
#[derive(Debug)]
pub struct Repository {
    /// The root folder of the working tree.
    pub root: PathBuf,
    /// The content of `towpath.toml`; empty without one.
    pub file: ProjectFile,
    file_text: Option<String>,
}

impl Repository {
    /// Finds the repository that contains the current folder.
    ///
    /// # Errors
    /// When there is none, or its `towpath.toml` cannot be read.
    pub fn find() -> Result<Self> {
        let here = std::env::current_dir().context("failed to find the current folder")?;
        let root = here
            .ancestors()
            .find(|dir| dir.join(".git").exists() || dir.join(PROJECT_FILE).exists());
        let Some(root) = root else {
            bail!(
                "`{}` is not in a git repository: change into the one to work with",
                here.display()
            );
        };
        Self::at(root)
    }

    /// Opens the repository whose root is `root`.
    ///
    /// # Errors
    /// When its `towpath.toml` cannot be read.
    pub fn at(root: &Path) -> Result<Self> {
        let file_text = WorkingTree::open(root)?.text(PROJECT_FILE)?;
        let file = file_text.as_deref().map(ProjectFile::parse).transpose()?;
        Ok(Self {
            root: root.to_path_buf(),
            file: file.unwrap_or_default(),
            file_text,
        })
    }

    /// The project's name, from the file or the folder's name.
    pub fn project(&self) -> String {
        let folder = || {
            let name = self.root.file_name().map(|name| name.to_string_lossy().into_owned());
            project_of_folder(&name.unwrap_or_default())
        };
        self.file.project.clone().unwrap_or_else(folder)
    }

    /// Runs git here and returns what it prints, without its last line end.
    pub fn git(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new("git")
            .current_dir(&self.root)
            // A commit is what its id says, even if a fetched `refs/replace/*` says otherwise.
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .args(arguments)
            .output()
            .context("failed to run git: is it installed?")?;
        if !output.status.success() {
            bail!(
                "`git {}` failed: {}",
                arguments.join(" "),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_string())
    }

    /// The commit that is checked out, if there is one.
    pub fn commit(&self) -> Option<CommitId> {
        self.git(&["rev-parse", "--verify", "--quiet", "HEAD"])
            .ok()?
            .parse()
            .ok()
    }

    /// The branch that is checked out; `None` when detached.
    pub fn branch(&self) -> Option<String> {
        self.git(&["symbolic-ref", "--quiet", "--short", "HEAD"]).ok()
    }

    /// Every manifest below `.k8s/`, for the server. With Kustomize or Helm, every file that rendering may need.
    pub fn request(&self) -> Result<LaptopRequest> {
        Ok(LaptopRequest {
            files: self.manifests()?,
            project_file: self.file_text.clone(),
            commit: self.commit(),
            ..LaptopRequest::default()
        })
    }

    /// The paths of the Dockerfiles: the root's first, then the nearest to it. Leaves out files that git ignores.
    pub fn dockerfiles(&self) -> Vec<String> {
        let walk = ignore::WalkBuilder::new(&self.root)
            .max_depth(Some(MOST_FOLDERS_TO_A_DOCKERFILE + 1))
            .require_git(false)
            .build();
        let is_one = |entry: &ignore::DirEntry| entry.file_name() == DOCKERFILE && entry.path().is_file();
        let files = walk.flatten().filter(is_one);
        let path = |entry: ignore::DirEntry| Some(entry.path().strip_prefix(&self.root).ok()?.to_str()?.to_string());
        let mut found: Vec<String> = files.filter_map(path).collect();
        found.sort_by_key(|path| (path.matches('/').count(), path.clone()));
        found
    }

    /// The files of a [`Self::request`], by path. Includes what cannot be read: the code that makes the plan decides which
    /// environment needs it.
    pub fn manifests(&self) -> Result<Vec<ManifestFile>> {
        let files = WorkingTree::open(&self.root)?.files(MANIFESTS_FOLDER, &select_manifests)?;
        Ok(manifest_files(files))
    }
}

/// A folder's name as a project can have it: `My App` is `my-app`.
fn project_of_folder(folder: &str) -> String {
    let plain = |c: char| match c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') {
        true => c.to_ascii_lowercase(),
        false => '-',
    };
    let name: String = folder.chars().map(plain).collect();
    let name = name.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    let name: String = name.chars().take(63).collect();
    name.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).to_string()
}
