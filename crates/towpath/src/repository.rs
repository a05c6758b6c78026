//! The working tree that a command is run in.

use anyhow::{Context, Result, bail};
use std::{
    path::{Path, PathBuf},
    process::Command,
};
use towpath_delivery::{LaptopRequest, ManifestFile, PROJECT_FILE, ProjectFile};
use towpath_deploy::render::{is_yaml, needs_every_file};
use towpath_types::CommitId;

/// A repository's working tree.
#[derive(Debug)]
pub struct Repository {
    /// Its root.
    pub root: PathBuf,
    /// What `towpath.toml` says; empty without one.
    pub file: ProjectFile,
    file_text: Option<String>,
}

impl Repository {
    /// The repository around the current folder.
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
        let path = root.join(PROJECT_FILE);
        let file_text = match std::fs::read_to_string(&path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| format!("failed to read `{}`", path.display())),
        };
        let file = file_text
            .as_deref()
            .map(ProjectFile::parse)
            .transpose()?
            .unwrap_or_default();
        Ok(Self {
            root: root.to_path_buf(),
            file,
            file_text,
        })
    }

    /// The project's name: what the file says, or the folder's.
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

    /// Every manifest below `.k8s/`, for the server; with Kustomize or Helm, every text that they could be rendered from.
    pub fn request(&self) -> Result<LaptopRequest> {
        Ok(LaptopRequest {
            files: self.manifests()?,
            project_file: self.file_text.clone(),
            commit: self.commit(),
            ..LaptopRequest::default()
        })
    }

    /// The files of a [`Self::request`], by path.
    pub fn manifests(&self) -> Result<Vec<ManifestFile>> {
        let mut found = Vec::new();
        find_files(&self.root, &self.root.join(".k8s"), &mut found)?;
        found.sort();
        let every = needs_every_file(found.iter().map(|(path, _)| path.as_str()));
        let mut files = Vec::new();
        for (path, file) in found {
            let is_yaml = is_yaml(&path);
            if !is_yaml && !every {
                continue;
            }
            let bytes = std::fs::read(&file).with_context(|| format!("failed to read `{}`", file.display()))?;
            match String::from_utf8(bytes) {
                Ok(text) => files.push(ManifestFile { path, text }),
                Err(error) if is_yaml => {
                    return Err(error).with_context(|| format!("failed to read `{}`", file.display()));
                }
                // An archive or a picture: whoever renders says so if it needs one.
                Err(_) => {}
            }
        }
        Ok(files)
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

/// Adds every file below `dir`, and what links to files lead to: its path from `root`, and where it is.
fn find_files(root: &Path, dir: &Path, files: &mut Vec<(String, PathBuf)>) -> Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| format!("failed to read `{}`", dir.display()))?,
    };
    for entry in entries {
        let entry = entry.with_context(|| format!("failed to read `{}`", dir.display()))?;
        let path = entry.path();
        let kind = entry
            .file_type()
            .with_context(|| format!("failed to look at `{}`", path.display()))?;
        let leads_to_file = || kind.is_symlink() && path.metadata().is_ok_and(|behind| behind.is_file());
        if kind.is_dir() {
            find_files(root, &path, files)?;
        } else if kind.is_file() || leads_to_file() {
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            files.push((name, path));
        }
    }
    Ok(())
}
