//! A commit as a working tree with its `.git`, in one archive: what an agent unpacks where no git is installed.

use crate::{Forge, ForgeError, ProjectName};
use bytes::Bytes;
use futures::Stream;
use std::{
    ffi::OsStr,
    io::{self, Write},
    path::Path,
};
use tokio_stream::wrappers::ReceiverStream;
use towpath_types::CommitId;

impl Forge {
    /// A tar stream of `commit` checked out on `branch` (detached without one), with the whole history in `.git` and
    /// `origin` pointing at `origin`.
    ///
    /// # Errors
    /// When the commit is not there, or git or the disk fails before the first byte; later failures end the stream with an
    /// error, which breaks the archive visibly.
    pub async fn source(
        &self,
        project: &ProjectName,
        commit: &CommitId,
        branch: Option<&str>,
        origin: &str,
    ) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + use<>, ForgeError> {
        if !self.exists(project).await {
            return Err(ForgeError::UnknownProject(project.clone()));
        }
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
        let clone: [&OsStr; 6] = [
            "clone".as_ref(),
            "--quiet".as_ref(),
            "--no-checkout".as_ref(),
            "--".as_ref(),
            repository.as_os_str(),
            tree.as_os_str(),
        ];
        self.git_in(folder.path(), &clone).await?;
        // A branch whose name git would read as an option is checked out by its commit alone.
        let checkout: Vec<&OsStr> = match branch.filter(|name| !name.starts_with('-')) {
            Some(branch) => vec![
                "checkout".as_ref(),
                "--quiet".as_ref(),
                "-B".as_ref(),
                branch.as_ref(),
                commit.as_str().as_ref(),
            ],
            None => vec![
                "checkout".as_ref(),
                "--quiet".as_ref(),
                "--detach".as_ref(),
                commit.as_str().as_ref(),
            ],
        };
        self.git_in(&tree, &checkout).await?;
        self.git_in(
            &tree,
            &[
                "remote".as_ref(),
                "set-url".as_ref(),
                "origin".as_ref(),
                origin.as_ref(),
            ],
        )
        .await?;
        let (sender, receiver) = tokio::sync::mpsc::channel(8);
        tokio::task::spawn_blocking(move || {
            let mut writer = io::BufWriter::with_capacity(128 << 10, ChannelWriter(sender));
            if let Err(error) = archive(folder.path().join("tree").as_path(), &mut writer).and_then(|()| writer.flush())
            {
                // Only the receiver's going away makes this send fail, and then nobody is left to tell.
                let _ = writer.get_ref().0.blocking_send(Err(error));
            }
            drop(folder);
        });
        Ok(ReceiverStream::new(receiver))
    }
}

struct ChannelWriter(tokio::sync::mpsc::Sender<io::Result<Bytes>>);

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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::RefUpdate;
    use futures::TryStreamExt;
    use std::process::Command;

    fn git(dir: &Path, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .current_dir(dir)
            .args([
                "-c",
                "user.name=Ada",
                "-c",
                "user.email=ada@example.org",
                "-c",
                "init.defaultBranch=main",
            ])
            .args(arguments)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "git {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap().trim().to_string()
    }

    async fn pushed() -> (tempfile::TempDir, Forge, ProjectName, CommitId) {
        let dir = tempfile::tempdir().unwrap();
        let forge = Forge::open(&dir.path().join("git"), Path::new("/bin/true"))
            .await
            .unwrap();
        let project: ProjectName = "claims".parse().unwrap();
        forge.create(&project, "main").await.unwrap();
        let work = dir.path().join("work");
        std::fs::create_dir_all(work.join(".k8s/live/dev")).unwrap();
        git(&work, &["init", "-q"]);
        std::fs::write(work.join(".k8s/live/dev/app.yaml"), "kind: ConfigMap\n").unwrap();
        std::fs::write(work.join("README"), "claims\n").unwrap();
        git(&work, &["add", "."]);
        git(&work, &["commit", "-q", "-m", "Add claims\n\nAll of it."]);
        git(&work, &["push", "-q", &forge.path(&project).to_string_lossy(), "main"]);
        let id = git(&work, &["rev-parse", "HEAD"]).parse().unwrap();
        (dir, forge, project, id)
    }

    #[tokio::test]
    async fn a_repository_is_read_without_a_work_tree() {
        let (_dir, forge, project, id) = pushed().await;
        assert_eq!(forge.projects().await.unwrap(), std::slice::from_ref(&project));
        assert_eq!(
            forge.refs(&project).await.unwrap(),
            [("refs/heads/main".to_string(), id.clone())]
        );
        assert_eq!(forge.find(&project, id.short()).await.unwrap(), id);
        assert!(matches!(
            forge.find(&project, "--all").await,
            Err(ForgeError::NotFound { .. })
        ));
        let commit = forge.commit(&project, &id).await.unwrap();
        assert_eq!(
            (commit.subject.as_str(), commit.body.as_str(), commit.author.as_str()),
            ("Add claims", "All of it.", "Ada")
        );
        let files = forge.files(&project, &id, ".k8s").await.unwrap();
        assert_eq!(files.len(), 1);
        assert_eq!(
            (files[0].path.as_str(), files[0].bytes.as_slice()),
            (".k8s/live/dev/app.yaml", b"kind: ConfigMap\n".as_slice())
        );
        assert!(forge.files(&project, &id, "nosuch").await.unwrap().is_empty());
        let missing = forge
            .file(&project, &id, ".circleci/config.yml")
            .await
            .unwrap_err()
            .to_string();
        assert_eq!(
            missing,
            format!(
                "there is no file `.circleci/config.yml` at {} in project `claims`",
                id.short()
            )
        );
    }

    #[tokio::test]
    async fn a_source_archive_is_a_working_clone() {
        let (dir, forge, project, id) = pushed().await;
        let origin = "http://127.0.0.1:7070/git/claims.git";
        let stream = forge.source(&project, &id, Some("main"), origin).await.unwrap();
        let bytes: Vec<u8> = stream
            .try_fold(Vec::new(), |mut all, piece| async move {
                all.extend(piece);
                Ok(all)
            })
            .await
            .unwrap();
        let out = dir.path().join("out");
        tar::Archive::new(bytes.as_slice()).unpack(&out).unwrap();
        assert_eq!(
            git(&out, &["status", "--porcelain", "--branch"]),
            "## main...origin/main"
        );
        assert_eq!(git(&out, &["rev-parse", "HEAD"]), id.as_str());
        assert_eq!(git(&out, &["remote", "get-url", "origin"]), origin);
        assert_eq!(std::fs::read_to_string(out.join("README")).unwrap(), "claims\n");
        assert_eq!(
            std::fs::read_dir(forge.checkouts()).unwrap().count(),
            0,
            "the checkout's folder is gone"
        );
    }

    #[test]
    fn a_hook_line_says_what_moved() {
        let (zero, one) = ("0".repeat(40), "1".repeat(40));
        let made = RefUpdate::parse(&format!("{zero} {one} refs/heads/main")).unwrap();
        assert_eq!((&made.old, made.branch()), (&None, Some("main")));
        let gone = RefUpdate::parse(&format!("{one} {zero} refs/tags/v1")).unwrap();
        assert_eq!((&gone.new, gone.tag()), (&None, Some("v1")));
        assert_eq!(RefUpdate::parse("x y z"), None);
        assert_eq!(RefUpdate::parse(&format!("{zero} {one} HEAD")), None);
    }
}
