//! What only the forge on git does: hooks, whole clones, and no replaced objects.
#![allow(clippy::unwrap_used)]

use futures::TryStreamExt;
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};
use towpath_forge::{Forge, ForgeError, GitForge};
use towpath_types::{CommitId, ProjectName};

/// A forge with one project, and a clone to push from.
struct World {
    folder: tempfile::TempDir,
    forge: GitForge,
    project: ProjectName,
}

impl World {
    /// The hooks run a program that writes down how it was called, and fails while there is a file `refuse`.
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let towpath = folder.path().join("it's towpath");
        let script = "#!/bin/sh\ncd \"$(dirname \"$0\")\"\n{ echo \"$@\"; cat; } >>\"calls\"\n\
             [ ! -e refuse ] || { echo 'not today'; exit 1; }\n";
        fs::write(&towpath, script).unwrap();
        fs::set_permissions(&towpath, fs::Permissions::from_mode(0o755)).unwrap();
        let forge = GitForge::open(&folder.path().join("git"), &towpath).await.unwrap();
        let project: ProjectName = "claims".parse().unwrap();
        forge.create(&project, "main").await.unwrap();
        let world = Self { folder, forge, project };
        fs::create_dir(world.work()).unwrap();
        world.git(&world.work(), &["init", "-q", "-b", "main"]);
        world
    }

    fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    fn try_git(&self, dir: &Path, arguments: &[&str]) -> Output {
        Command::new("git")
            .current_dir(dir)
            .args(["-c", "user.name=Ada", "-c", "user.email=ada@example.org"])
            .args(arguments)
            .env("HOME", self.folder.path())
            .output()
            .unwrap()
    }

    fn git(&self, dir: &Path, arguments: &[&str]) -> String {
        let output = self.try_git(dir, arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "git {arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap().trim().to_string()
    }

    fn commit(&self, path: &str, text: &str) -> CommitId {
        fs::write(self.work().join(path), text).unwrap();
        self.git(&self.work(), &["add", "."]);
        self.git(&self.work(), &["commit", "-q", "-m", &format!("Change {path}")]);
        self.git(&self.work(), &["rev-parse", "HEAD"]).parse().unwrap()
    }

    /// Pushes with the forge's hooks, as `exchange` runs git.
    fn push(&self, what: &[&str]) -> Output {
        let hooks = self.folder.path().join("git/hooks");
        let receive = format!(
            "--receive-pack=git -c core.hooksPath='{}' receive-pack",
            hooks.display()
        );
        let repository = self.forge.path(&self.project);
        let repository = repository.to_string_lossy();
        let arguments = [&["push", "-q", &receive, &repository], what].concat();
        self.try_git(&self.work(), &arguments)
    }

    fn calls(&self) -> String {
        let calls = self.folder.path().join("calls");
        let text = fs::read_to_string(&calls).unwrap_or_default();
        let _ = fs::remove_file(calls);
        text
    }
}

#[tokio::test]
async fn hooks_ask_before_a_push_and_tell_after_it() {
    let world = World::new().await;
    let first = world.commit("a", "1");
    let zero = "0".repeat(40);
    assert!(world.push(&["main"]).status.success());
    let line = format!("{zero} {first} refs/heads/main");
    assert_eq!(
        world.calls(),
        format!("hook pre-receive\n{line}\nhook post-receive\n{line}\n")
    );

    let second = world.commit("a", "2");
    fs::write(world.folder.path().join("refuse"), "").unwrap();
    let refused = world.push(&["main", "main:refs/heads/other"]);
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("remote: not today"), "{said}");
    let calls = world.calls();
    assert!(
        calls.starts_with("hook pre-receive\n") && !calls.contains("post-receive"),
        "{calls}"
    );
    assert!(calls.contains(&format!("{first} {second} refs/heads/main")), "{calls}");
    let refs = world.forge.refs(&world.project).await.unwrap();
    assert_eq!(refs, [("refs/heads/main".to_string(), first)], "nothing moved");
    assert!(
        world.forge.commit(&world.project, &second).await.is_err(),
        "git dropped the objects of a refused push"
    );
}

#[tokio::test]
async fn only_the_beginning_of_a_huge_message_is_read() {
    let world = World::new().await;
    world.commit("a", "1");
    let message = world.folder.path().join("message");
    fs::write(&message, format!("{}\n\n{}", "s".repeat(1 << 20), "b".repeat(1 << 20))).unwrap();
    let message = message.to_string_lossy();
    world.git(&world.work(), &["commit", "-q", "--amend", "-F", &message]);
    let id: CommitId = world.git(&world.work(), &["rev-parse", "HEAD"]).parse().unwrap();
    assert!(world.push(&["main"]).status.success());
    let commit = world.forge.commit(&world.project, &id).await.unwrap();
    assert_eq!(commit.subject, format!("{}…", "s".repeat(1_000)));
    assert_eq!(commit.body.len(), "b".repeat(100_000).len() + "…".len());
}

#[tokio::test]
async fn a_tag_of_a_file_or_a_folder_is_a_ref_and_no_commit() {
    let world = World::new().await;
    world.commit("a", "1");
    world.git(&world.work(), &["tag", "file", "HEAD:a"]);
    world.git(&world.work(), &["tag", "-a", "-m", "a folder", "folder", "HEAD^{tree}"]);
    assert!(world.push(&["main", "file", "folder"]).status.success());
    let refs = world.forge.refs(&world.project).await.unwrap();
    assert_eq!(refs.len(), 3);
    for (name, object) in refs.iter().filter(|(name, _)| name.starts_with("refs/tags/")) {
        let error = world.forge.commit(&world.project, object).await.unwrap_err();
        assert!(matches!(error, ForgeError::NotFound { .. }), "{name}: {error}");
        let error = world.forge.find(&world.project, name).await.unwrap_err();
        assert!(matches!(error, ForgeError::NotFound { .. }), "{name}: {error}");
    }
}

#[tokio::test]
async fn hooks_are_replaced_at_every_start() {
    let world = World::new().await;
    let hooks = world.folder.path().join("git/hooks");
    GitForge::open(&world.folder.path().join("git"), Path::new("/opt/towpath"))
        .await
        .unwrap();
    let mut names: Vec<_> = fs::read_dir(&hooks)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["post-receive", "pre-receive"]);
    let script = fs::read_to_string(hooks.join("pre-receive")).unwrap();
    assert_eq!(script, "#!/bin/sh\nexec '/opt/towpath' hook pre-receive\n");
}

#[tokio::test]
async fn a_source_archive_is_a_working_clone() {
    let world = World::new().await;
    fs::create_dir_all(world.work().join(".k8s/live/dev")).unwrap();
    world.commit(".k8s/live/dev/app.yaml", "kind: ConfigMap\n");
    let id = world.commit("README", "claims\n");
    assert!(world.push(&["main"]).status.success());
    let origin = "http://127.0.0.1:7070/git/claims.git";
    let source = world.forge.source(&world.project, &id, Some("main"), origin).await;
    let pieces: Vec<_> = source.unwrap().try_collect().await.unwrap();
    let out = world.folder.path().join("out");
    tar::Archive::new(pieces.concat().as_slice()).unpack(&out).unwrap();
    assert_eq!(
        world.git(&out, &["status", "--porcelain", "--branch"]),
        "## main...origin/main"
    );
    assert_eq!(world.git(&out, &["rev-parse", "HEAD"]), id.as_str());
    assert_eq!(world.git(&out, &["rev-list", "--count", "HEAD"]), "2");
    assert_eq!(world.git(&out, &["remote", "get-url", "origin"]), origin);
    assert_eq!(fs::read_to_string(out.join("README")).unwrap(), "claims\n");
    let checkouts = world.folder.path().join("git/checkouts");
    assert_eq!(
        fs::read_dir(checkouts).unwrap().count(),
        0,
        "the checkout's folder is gone"
    );
}

#[tokio::test]
async fn a_replaced_commit_is_still_what_its_id_says() {
    let world = World::new().await;
    let good = world.commit("a", "good");
    let bad = world.commit("a", "bad");
    assert!(world.push(&["main"]).status.success());
    let repository = world.forge.path(&world.project);
    world.git(&repository, &["replace", good.as_str(), bad.as_str()]);
    let read = world.git(&repository, &["show", &format!("{good}:a")]);
    assert_eq!(read, "bad", "git itself honours the replacement");
    let read = world.forge.file(&world.project, &good, "a").await.unwrap();
    assert_eq!(read, b"good");
    let source = world.forge.source(&world.project, &good, None, "origin").await;
    let pieces: Vec<_> = source.unwrap().try_collect().await.unwrap();
    let out = world.folder.path().join("out");
    tar::Archive::new(pieces.concat().as_slice()).unpack(&out).unwrap();
    assert_eq!(fs::read_to_string(out.join("a")).unwrap(), "good");
}

#[tokio::test]
async fn the_default_branch_is_not_deleted_by_a_push() {
    let world = World::new().await;
    let id = world.commit("a", "1");
    assert!(world.push(&["main", "main:refs/heads/other"]).status.success());
    let refused = world.push(&[":main"]);
    assert!(!refused.status.success(), "the branch that the rules are read from");
    assert!(world.push(&[":other"]).status.success());
    let refs = world.forge.refs(&world.project).await.unwrap();
    assert_eq!(refs, [("refs/heads/main".to_string(), id)]);
}
