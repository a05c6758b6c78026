//! Git's smart HTTP protocol over the repositories, served by `git` itself.

use super::{GitForge, program::not_started};
use crate::ForgeError;
use bytes::Bytes;
use futures::Stream;
use std::{
    io,
    pin::Pin,
    process::Stdio,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWriteExt, ReadBuf},
    process::{Child, ChildStdout, Command},
};
use tokio_util::io::ReaderStream;
use towpath_types::ProjectName;

/// Which half of git's protocol a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// `git fetch` and `git clone`.
    UploadPack,
    /// `git push`.
    ReceivePack,
}

impl Service {
    /// The service as URLs and media types name it: `git-upload-pack` or `git-receive-pack`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::UploadPack => "git-upload-pack",
            Self::ReceivePack => "git-receive-pack",
        }
    }

    /// The inverse of [`Service::name`].
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

impl GitForge {
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
        self.must_have(project).await?;
        let mut command = self.command(&self.path(project));
        set_protocol(&mut command, protocol);
        let output = command
            .args([service.subcommand(), "--stateless-rpc", "--advertise-refs", "."])
            .output()
            .await
            .map_err(not_started)?;
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

    /// Passes a client's request to git and streams git's answer. The hooks run with `environment` added to theirs.
    ///
    /// # Errors
    /// When the project is unknown or git cannot be started. A refusal by git is part of its answer.
    pub async fn exchange(
        &self,
        project: &ProjectName,
        service: Service,
        protocol: Option<&str>,
        environment: &[(&str, String)],
        request: Box<dyn AsyncRead + Unpin + Send>,
    ) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + use<>, ForgeError> {
        self.must_have(project).await?;
        let mut command = self.command(&self.path(project));
        set_protocol(&mut command, protocol);
        for (name, value) in environment {
            command.env(name, value);
        }
        self.converse(command, service, &["--stateless-rpc"], request)
    }

    /// Runs a whole fetch conversation: `request` carries the client's input, and the answer carries git's output.
    ///
    /// # Errors
    /// When the project is unknown or git cannot be started.
    pub async fn fetched(
        &self,
        project: &ProjectName,
        request: Box<dyn AsyncRead + Unpin + Send>,
    ) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + use<>, ForgeError> {
        self.must_have(project).await?;
        let command = self.command(&self.path(project));
        self.converse(command, Service::UploadPack, &[], request)
    }

    fn converse(
        &self,
        mut command: Command,
        service: Service,
        options: &[&str],
        mut request: Box<dyn AsyncRead + Unpin + Send>,
    ) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + use<>, ForgeError> {
        let hooks = format!("core.hooksPath={}", self.hooks().display());
        let mut child = command
            .args([
                "-c",
                &hooks,
                "-c",
                "receive.advertisePushOptions=false",
                service.subcommand(),
            ])
            .args(options)
            .arg(".")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(not_started)?;
        let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(ForgeError::Git {
                command: service.subcommand().into(),
                stderr: "its pipes are missing".into(),
            });
        };
        tokio::spawn(async move {
            // If the client goes away, git sees the end of its input and stops.
            let _ = tokio::io::copy(&mut request, &mut stdin).await;
            let _ = stdin.shutdown().await;
        });
        Ok(ReaderStream::new(Output { stdout, _child: child }))
    }
}

/// Git's output. Git lives as long as this does.
struct Output {
    stdout: ChildStdout,
    _child: Child,
}

impl AsyncRead for Output {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdout).poll_read(context, buffer)
    }
}

fn set_protocol(command: &mut Command, protocol: Option<&str>) {
    // The header comes from the client: pass on only what git itself would send.
    if let Some(version) =
        protocol.filter(|p| p.len() < 40 && p.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'=' || b == b':'))
    {
        command.env("GIT_PROTOCOL", version);
    }
}
