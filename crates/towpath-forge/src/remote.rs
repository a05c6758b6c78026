//! The repositories' folder, and git's smart HTTP protocol over it.

use crate::ProjectName;
use bytes::Bytes;
use futures::Stream;
use std::{
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    process::Stdio,
};
use tokio::{
    io::{AsyncRead, AsyncWriteExt},
    process::{Child, Command},
};
use tokio_util::io::ReaderStream;

/// What can go wrong between Towpath and `git`.
#[derive(Debug, thiserror::Error)]
pub enum ForgeError {
    /// `git` is not installed, or a file could not be used.
    #[error("failed to {attempt}")]
    Io {
        /// What was attempted, on what.
        attempt: String,
        /// Why it did not work.
        source: io::Error,
    },
    /// `git` ran and refused.
    #[error("`git {command}` failed: {stderr}")]
    Git {
        /// The subcommand.
        command: String,
        /// What it said.
        stderr: String,
    },
    /// No such project.
    #[error("there is no project `{0}`: create it with `towpath init` in its repository")]
    UnknownProject(ProjectName),
    /// The commit, or the file in it, is not there.
    #[error("there is no {what} in project `{project}`")]
    NotFound {
        /// The project looked in.
        project: ProjectName,
        /// What was looked for.
        what: String,
    },
}

impl ForgeError {
    pub(crate) fn io(attempt: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let attempt = attempt.into();
        move |source| Self::Io { attempt, source }
    }
}

/// Which half of git's protocol a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// `git fetch`, `git clone`.
    UploadPack,
    /// `git push`.
    ReceivePack,
}

impl Service {
    /// `git-upload-pack` or `git-receive-pack`, as in the URL and the media types.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::UploadPack => "git-upload-pack",
            Self::ReceivePack => "git-receive-pack",
        }
    }

    /// The service of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::UploadPack, Self::ReceivePack]
            .into_iter()
            .find(|service| service.name() == name)
    }

    fn subcommand(self) -> &'static str {
        &self.name()["git-".len()..]
    }
}

/// A folder of bare repositories.
#[derive(Debug, Clone)]
pub struct Forge {
    root: PathBuf,
}

impl Forge {
    /// Uses `root`, and writes the `post-receive` hook that calls `towpath hook post-receive`.
    ///
    /// # Errors
    /// When the folder cannot be made or written.
    pub async fn open(root: &Path, towpath: &Path) -> Result<Self, ForgeError> {
        let hooks = root.join("hooks");
        let hook = hooks.join("post-receive");
        let failed = |what: &Path| ForgeError::io(format!("prepare `{}` for git repositories", what.display()));
        tokio::fs::create_dir_all(&hooks).await.map_err(failed(&hooks))?;
        let script = format!(
            "#!/bin/sh\nexec {} hook post-receive\n",
            shell_quote(&towpath.to_string_lossy())
        );
        tokio::fs::write(&hook, script).await.map_err(failed(&hook))?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        tokio::fs::set_permissions(&hook, mode).await.map_err(failed(&hook))?;
        let forge = Self {
            root: root.to_path_buf(),
        };
        // What a killed server left half-made is nobody's.
        let checkouts = forge.checkouts();
        match tokio::fs::remove_dir_all(&checkouts).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&checkouts)(error)),
            _ => tokio::fs::create_dir_all(&checkouts)
                .await
                .map_err(failed(&checkouts))?,
        }
        Ok(forge)
    }

    /// Where checkouts are made before they are streamed.
    pub(crate) fn checkouts(&self) -> PathBuf {
        self.root.join("checkouts")
    }

    /// The projects that have a repository here, by name.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub async fn projects(&self) -> Result<Vec<ProjectName>, ForgeError> {
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

    /// Whether `project` has a repository here.
    pub async fn exists(&self, project: &ProjectName) -> bool {
        tokio::fs::try_exists(self.path(project).join("HEAD"))
            .await
            .unwrap_or(false)
    }

    /// Makes an empty repository for `project` whose default branch is `branch`; one that is there stays as it is.
    ///
    /// # Errors
    /// When git is missing or the folder cannot be written.
    pub async fn create(&self, project: &ProjectName, branch: &str) -> Result<(), ForgeError> {
        if self.exists(project).await {
            return Ok(());
        }
        let branch = format!("--initial-branch={branch}");
        let path = self.path(project);
        self.git_in(
            &self.root,
            &[
                OsStr::new("init"),
                OsStr::new("--quiet"),
                OsStr::new("--bare"),
                OsStr::new(&branch),
                path.as_os_str(),
            ],
        )
        .await?;
        Ok(())
    }

    /// The repository's folder.
    #[must_use]
    pub fn path(&self, project: &ProjectName) -> PathBuf {
        self.root.join(format!("{project}.git"))
    }

    /// A `git` that reads no configuration but the repository's.
    pub(crate) fn command(&self, dir: &Path) -> Command {
        let mut command = Command::new("git");
        command
            .current_dir(dir)
            .env("HOME", &self.root)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("LC_ALL", "C")
            .env_remove("GIT_DIR")
            .env_remove("GIT_WORK_TREE")
            .env_remove("GIT_INDEX_FILE")
            .arg("-c")
            .arg("safe.directory=*")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    pub(crate) async fn git_in(&self, dir: &Path, arguments: &[&OsStr]) -> Result<Vec<u8>, ForgeError> {
        let name = arguments
            .first()
            .map(|a| a.to_string_lossy().into_owned())
            .unwrap_or_default();
        let output = self
            .command(dir)
            .args(arguments)
            .output()
            .await
            .map_err(ForgeError::io(format!("run `git {name}` (is git installed?)")))?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_string();
        Err(ForgeError::Git { command: name, stderr })
    }

    pub(crate) async fn git(&self, project: &ProjectName, arguments: &[&str]) -> Result<Vec<u8>, ForgeError> {
        if !self.exists(project).await {
            return Err(ForgeError::UnknownProject(project.clone()));
        }
        let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
        self.git_in(&self.path(project), &arguments).await
    }

    /// The answer to `GET info/refs?service=…`.
    ///
    /// Source: <https://git-scm.com/docs/http-protocol#_discovering_references>
    ///
    /// # Errors
    /// When the project is unknown or git fails.
    pub async fn advertise(
        &self,
        project: &ProjectName,
        service: Service,
        protocol: Option<&str>,
    ) -> Result<Vec<u8>, ForgeError> {
        if !self.exists(project).await {
            return Err(ForgeError::UnknownProject(project.clone()));
        }
        let mut command = self.command(&self.path(project));
        set_protocol(&mut command, protocol);
        let output = command
            .args([service.subcommand(), "--stateless-rpc", "--advertise-refs", "."])
            .output()
            .await
            .map_err(ForgeError::io("run git (is it installed?)"))?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr).trim().to_string();
            return Err(ForgeError::Git {
                command: service.subcommand().into(),
                stderr,
            });
        }
        let line = format!("# service={}\n", service.name());
        let mut answer = format!("{:04x}{line}0000", line.len() + 4).into_bytes();
        answer.extend(output.stdout);
        Ok(answer)
    }

    /// Feeds a client's request to git and streams git's answer. `environment` reaches the `post-receive` hook.
    ///
    /// # Errors
    /// When the project is unknown or git cannot be started; what git itself refuses is in its answer.
    pub async fn exchange(
        &self,
        project: &ProjectName,
        service: Service,
        protocol: Option<&str>,
        environment: &[(&str, String)],
        mut request: Box<dyn AsyncRead + Unpin + Send>,
    ) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + use<>, ForgeError> {
        if !self.exists(project).await {
            return Err(ForgeError::UnknownProject(project.clone()));
        }
        let mut command = self.command(&self.path(project));
        set_protocol(&mut command, protocol);
        for (name, value) in environment {
            command.env(name, value);
        }
        let hooks = format!("core.hooksPath={}", self.root.join("hooks").display());
        let mut child = command
            .args([
                "-c",
                &hooks,
                "-c",
                "receive.advertisePushOptions=false",
                service.subcommand(),
                "--stateless-rpc",
                ".",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(ForgeError::io("run git (is it installed?)"))?;
        let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(ForgeError::Git {
                command: service.subcommand().into(),
                stderr: "its pipes are missing".into(),
            });
        };
        tokio::spawn(async move {
            // A client that goes away ends the copy; git then sees the end of its input and stops by itself.
            let _ = tokio::io::copy(&mut request, &mut stdin).await;
            let _ = stdin.shutdown().await;
        });
        Ok(ReaderStream::new(Holding { stdout, _child: child }))
    }
}

/// git's output, which keeps git itself alive for as long as it is read.
struct Holding {
    stdout: tokio::process::ChildStdout,
    _child: Child,
}

impl AsyncRead for Holding {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.stdout).poll_read(context, buffer)
    }
}

fn set_protocol(command: &mut Command, protocol: Option<&str>) {
    // The header is the client's: only the form that git itself sends is passed on.
    if let Some(version) =
        protocol.filter(|p| p.len() < 40 && p.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'=' || b == b':'))
    {
        command.env("GIT_PROTOCOL", version);
    }
}

fn shell_quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
