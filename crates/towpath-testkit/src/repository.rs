//! Git repositories: the example application's, and others.

use anyhow::{Context, Result, bail};
use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};
use tokio::process::Command;

/// The example's project. Its repository is in a folder of this name, because that names the project.
pub const PROJECT: &str = "claims";

/// A git repository. It stays until its folder is removed.
#[derive(Debug, Clone)]
pub struct Repository {
    directory: PathBuf,
}

/// `examples/<project>` of this workspace.
pub fn example_directory(project: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../examples")
        .join(project)
}

impl Repository {
    /// Copies the example to `<parent>/claims`, as one commit on `main`.
    ///
    /// # Errors
    /// When it cannot be copied, or git fails.
    pub async fn of_example(parent: &Path) -> Result<Self> {
        Self::of_project(parent, PROJECT, "Claims: the page, the API and the worker").await
    }

    /// Copies the example `project` to `<parent>/<project>`, as one commit on `main`.
    ///
    /// # Errors
    /// When it cannot be copied, or git fails.
    pub async fn of_project(parent: &Path, project: &str, message: &str) -> Result<Self> {
        let directory = parent.join(project);
        copy(&example_directory(project), &directory)?;
        let repository = Self { directory };
        repository.begin(message).await?;
        Ok(repository)
    }

    /// Writes `files` (paths and texts) to `<parent>/<name>`, as one commit on `main`.
    ///
    /// # Errors
    /// When they cannot be written, or git fails.
    pub async fn of_files(parent: &Path, name: &str, files: &[(&str, &str)]) -> Result<Self> {
        let directory = parent.join(name);
        fs::create_dir_all(&directory).with_context(|| format!("failed to create `{}`", directory.display()))?;
        let repository = Self { directory };
        for (path, text) in files {
            repository.write(path, text)?;
        }
        repository.begin("The beginning").await?;
        Ok(repository)
    }

    async fn begin(&self, message: &str) -> Result<()> {
        self.git(&["init", "--quiet", "--initial-branch=main"]).await?;
        self.git(&["config", "user.name", "Ada Example"]).await?;
        self.git(&["config", "user.email", "ada@example.org"]).await?;
        self.commit(message).await.map(drop)
    }

    /// Writes or replaces a file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.directory.join(file);
        let failed = || format!("failed to write `{}`", path.display());
        fs::create_dir_all(path.parent().unwrap_or(&self.directory)).with_context(failed)?;
        fs::write(&path, text).with_context(failed)
    }

    /// The working tree.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Runs git and answers its output, with standard error last, where git puts the answer to a push.
    ///
    /// # Errors
    /// When git fails. The message contains its output.
    pub async fn git<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<String> {
        let output = Command::new("git")
            .args(arguments)
            .current_dir(&self.directory)
            // Ignore the user's settings, such as signing, hooks and credential helpers.
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .output()
            .await
            .context("failed to run git")?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        if !output.status.success() {
            let shown: Vec<_> = arguments
                .iter()
                .map(|argument| argument.as_ref().to_string_lossy())
                .collect();
            bail!("`git {}` ended with {}:\n{said}", shown.join(" "), output.status);
        }
        Ok(said)
    }

    /// Commits everything and answers the commit's id.
    ///
    /// # Errors
    /// When git fails, or there is nothing to commit.
    pub async fn commit(&self, message: &str) -> Result<String> {
        self.git(&["add", "--all"]).await?;
        self.git(&["commit", "--quiet", "--message", message]).await?;
        self.head().await
    }

    /// The id of the commit that is checked out.
    ///
    /// # Errors
    /// When git fails.
    pub async fn head(&self) -> Result<String> {
        Ok(self.git(&["rev-parse", "HEAD"]).await?.trim().to_string())
    }

    /// Pushes `branch` to the remote `towpath` and answers git's output, with the remote's messages.
    ///
    /// # Errors
    /// When the push is refused.
    pub async fn push(&self, branch: &str) -> Result<String> {
        self.git(&["push", "towpath", branch]).await
    }

    /// Replaces the only occurrence of `from` in `file`.
    ///
    /// # Errors
    /// When it does not occur exactly once.
    pub fn replace(&self, file: &str, from: &str, to: &str) -> Result<()> {
        let path = self.directory.join(file);
        let text = fs::read_to_string(&path).with_context(|| format!("failed to read `{file}`"))?;
        match text.matches(from).count() {
            1 => fs::write(&path, text.replace(from, to)).with_context(|| format!("failed to write `{file}`")),
            count => bail!("`{from}` occurs {count} times in `{file}`, not once"),
        }
    }
}

/// Copies a folder without build results.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let failed = || format!("failed to copy `{}` to `{}`", from.display(), to.display());
    fs::create_dir_all(to).with_context(failed)?;
    for entry in fs::read_dir(from).with_context(failed)? {
        let entry = entry.with_context(failed)?;
        let (name, kind) = (entry.file_name(), entry.file_type().with_context(failed)?);
        if kind.is_dir() && !["target", "dist", "test-results"].iter().any(|built| name == *built) {
            copy(&entry.path(), &to.join(name))?;
        } else if kind.is_file() {
            fs::copy(entry.path(), to.join(name)).with_context(failed)?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_example_is_one_commit_without_what_was_built() {
        let folder = tempfile::tempdir().unwrap();
        let repository = Repository::of_example(folder.path()).await.unwrap();
        let files = repository.git(&["ls-files"]).await.unwrap();
        for file in [
            ".circleci/config.yml",
            ".k8s/live/dev/deployment.yaml",
            "ci/build-binary",
            "Cargo.lock",
        ] {
            assert!(files.lines().any(|line| line == file), "{file} is missing in:\n{files}");
        }
        assert!(
            !files
                .lines()
                .any(|line| line.starts_with("target/") || line.starts_with("dist/")),
            "{files}"
        );
        assert_eq!(repository.git(&["status", "--porcelain"]).await.unwrap(), "");
        let executable = repository.git(&["ls-files", "--stage", "ci/tags"]).await.unwrap();
        assert!(executable.starts_with("100755"), "{executable}");

        let first = repository.head().await.unwrap();
        let config = ".k8s/live/dev/app-config.yaml";
        repository
            .replace(config, "the development copy", "one line changed")
            .unwrap();
        assert_ne!(repository.commit("Change one line").await.unwrap(), first);
        let error = repository.replace(config, "no such text", "x").unwrap_err().to_string();
        assert_eq!(error, format!("`no such text` occurs 0 times in `{config}`, not once"));
    }
}
