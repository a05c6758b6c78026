//! A commit as a working tree with its `.git`, in one archive: an agent unpacks it where git is not installed.

use super::{GitForge, program};
use crate::{ForgeError, SourceStream};
use bytes::Bytes;
use std::{
    ffi::OsStr,
    io::{self, Write},
    path::Path,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use towpath_types::{CommitId, ProjectName};

impl GitForge {
    pub(super) async fn stream_source(
        &self,
        project: &ProjectName,
        commit: &CommitId,
        branch: Option<&str>,
        origin: &str,
    ) -> Result<SourceStream, ForgeError> {
        self.must_have(project).await?;
        let checkouts = self.checkouts();
        let folder = tempfile::Builder::new()
            .prefix("source-")
            .tempdir_in(&checkouts)
            .map_err(ForgeError::io(format!(
                "make a folder for a checkout in `{}`",
                checkouts.display()
            )))?;
        let repository = self.path(project);
        let tree = folder.path().join("tree");
        let clone = [
            OsStr::new("clone"),
            OsStr::new("--quiet"),
            OsStr::new("--no-checkout"),
            OsStr::new("--"),
            repository.as_os_str(),
            tree.as_os_str(),
        ];
        program::run(self.command(folder.path()), &clone, Vec::new()).await??;
        let checkout = ["checkout", "--quiet", "--detach", commit.as_str()].map(OsStr::new);
        program::run(self.command(&tree), &checkout, Vec::new())
            .await?
            .map_err(|failure| match failure.is_missing_object() {
                true => ForgeError::not_found(project, format!("commit {commit}")),
                false => failure.into(),
            })?;
        if let Some(branch) = branch {
            // `git checkout -B` does not take every name that a branch may have: `HEAD`, `-x`.
            let name = format!("refs/heads/{branch}");
            for arguments in [["update-ref", &name, commit.as_str()], ["symbolic-ref", "HEAD", &name]] {
                program::run(self.command(&tree), &arguments.map(OsStr::new), Vec::new()).await??;
            }
        }
        let remote = ["remote", "set-url", "origin", origin].map(OsStr::new);
        program::run(self.command(&tree), &remote, Vec::new()).await??;
        let (sender, receiver) = mpsc::channel(8);
        tokio::task::spawn_blocking(move || {
            let mut writer = io::BufWriter::with_capacity(128 << 10, ChannelWriter(sender));
            if let Err(error) = archive(folder.path().join("tree").as_path(), &mut writer).and_then(|()| writer.flush())
            {
                // This fails only when the reader is gone, and then there is nobody to tell.
                let _ = writer.get_ref().0.blocking_send(Err(error));
            }
            drop(folder);
        });
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }
}

struct ChannelWriter(mpsc::Sender<io::Result<Bytes>>);

impl Write for ChannelWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the reader of the checkout went away");
        self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes))).map_err(gone)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn archive(tree: &Path, writer: impl Write) -> io::Result<()> {
    let mut builder = tar::Builder::new(writer);
    builder.follow_symlinks(false);
    builder.append_dir_all("", tree)?;
    builder.into_inner().map(drop)
}
