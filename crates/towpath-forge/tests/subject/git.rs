//! Git repositories in a folder of their own.

use super::{Change, Subject};
use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
};
use towpath_forge::{Forge, GitForge};
use towpath_types::{CommitId, ProjectName};

pub struct Git {
    forge: GitForge,
    seconds: AtomicU64,
    _folder: tempfile::TempDir,
}

impl Git {
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let forge = GitForge::open(&folder.path().join("git"), Path::new("/bin/true"))
            .await
            .unwrap();
        Self {
            forge,
            seconds: AtomicU64::new(1_700_000_000),
            _folder: folder,
        }
    }

    fn git(&self, project: &ProjectName, arguments: &[&str], input: &[u8]) -> String {
        let path = self.forge.path(project);
        if !path.exists() {
            let made = Command::new("git")
                .args(["init", "--quiet", "--bare", "--initial-branch=main"])
                .arg(&path)
                .status();
            assert!(made.unwrap().success());
        }
        let mut child = Command::new("git")
            .current_dir(path)
            .args(["-c", "user.name=Ada Lovelace", "-c", "user.email=ada@example.org"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "git {arguments:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_string()
    }
}

/// A path as `git fast-import` reads one that may hold a line break.
fn quoted(path: &str) -> String {
    let escaped = path.chars().map(|c| match c {
        '"' | '\\' => format!("\\{c}"),
        c if c.is_ascii_control() => format!("\\{:03o}", u32::from(c)),
        c => c.to_string(),
    });
    format!("\"{}\"", escaped.collect::<String>())
}

impl Subject for Git {
    fn forge(&self) -> &dyn Forge {
        &self.forge
    }

    fn commit(&self, project: &ProjectName, branch: &str, message: &str, changes: &[Change<'_>]) -> CommitId {
        let name = format!("refs/heads/{branch}");
        let parent = self.git(project, &["for-each-ref", "--format=%(objectname)", &name], b"");
        let seconds = self.seconds.fetch_add(1, Ordering::Relaxed);
        let mut stream = format!(
            "commit {name}\ncommitter Ada Lovelace <ada@example.org> {seconds} +0000\ndata {}\n{message}\n",
            message.len()
        )
        .into_bytes();
        if !parent.is_empty() {
            stream.extend(format!("from {parent}\n").bytes());
        }
        for change in changes {
            let (path, mode, content) = match change {
                Change::File(path, content) => (path, "100644", *content),
                Change::Link(path, target) => (path, "120000", target.as_bytes()),
                Change::Submodule(path) => {
                    let commit = "0123456789012345678901234567890123456789";
                    stream.extend(format!("M 160000 {commit} {}\n", quoted(path)).bytes());
                    continue;
                }
                Change::Removed(path) => {
                    stream.extend(format!("D {}\n", quoted(path)).bytes());
                    continue;
                }
            };
            let path = quoted(path);
            stream.extend(format!("M {mode} inline {path}\ndata {}\n", content.len()).bytes());
            stream.extend_from_slice(content);
            stream.push(b'\n');
        }
        self.git(project, &["fast-import", "--quiet"], &stream);
        self.git(project, &["rev-parse", &name], b"").parse().unwrap()
    }

    fn set_ref(&self, project: &ProjectName, name: &str, commit: Option<&CommitId>) {
        match commit {
            Some(commit) => self.git(project, &["update-ref", name, commit.as_str()], b""),
            None => self.git(project, &["update-ref", "-d", name], b""),
        };
    }

    fn annotated_tag(&self, project: &ProjectName, name: &str, commit: &CommitId) {
        self.git(project, &["tag", "-a", "-m", "a tag", name, commit.as_str()], b"");
    }
}
