//! A working tree is read like the commit that it becomes.
#![allow(clippy::unwrap_used)]

use std::{fs, os::unix::fs::symlink, path::Path, process::Command};
use towpath_forge::{EVERYTHING, Forge, GitForge, TreeFile, Unread, WorkingTree, WorkingTreeError};
use towpath_types::ProjectName;

fn git(folder: &Path, arguments: &[&str]) {
    let done = Command::new("git")
        .current_dir(folder)
        .args([
            "-c",
            "user.name=Ada",
            "-c",
            "user.email=ada@example.org",
            "-c",
            "protocol.file.allow=always",
        ])
        .args(arguments)
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

fn lay(root: &Path, path: &str, content: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn repository() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    git(dir.path(), &["init", "--quiet", "--initial-branch=main"]);
    dir
}

fn commit(root: &Path) {
    git(root, &["add", "--all"]);
    git(root, &["commit", "--quiet", "--message", "All"]);
}

/// What a forge answers after a push of the working tree.
async fn pushed(root: &Path, folder: &str) -> Vec<TreeFile> {
    let data = tempfile::tempdir().unwrap();
    let forge = GitForge::open(data.path(), Path::new("/bin/true")).await.unwrap();
    let project: ProjectName = "claims".parse().unwrap();
    forge.create(&project, "main").await.unwrap();
    let bare = forge.path(&project);
    git(
        &bare,
        &["fetch", "--quiet", root.to_str().unwrap(), "+HEAD:refs/heads/main"],
    );
    let head = forge.find(&project, "main").await.unwrap();
    forge.files(&project, &head, folder, EVERYTHING).await.unwrap()
}

fn read(root: &Path, folder: &str) -> Vec<TreeFile> {
    WorkingTree::open(root).unwrap().files(folder, EVERYTHING).unwrap()
}

#[tokio::test]
async fn a_working_tree_answers_like_its_commit() {
    let outside = tempfile::tempdir().unwrap();
    lay(outside.path(), "there.yaml", "there");
    let (module, dir) = (repository(), repository());
    lay(module.path(), "web.yaml", "web");
    commit(module.path());
    let root = dir.path();
    lay(root, "deploy/dev/a.yaml", "a");
    lay(root, "deploy/dev/b.txt", "b");
    lay(root, "common/c.yaml", "c");
    symlink("deploy", root.join("k8s")).unwrap();
    symlink("../../common", root.join("deploy/dev/common")).unwrap();
    symlink("../../common/c.yaml", root.join("deploy/dev/c.yaml")).unwrap();
    symlink("dev", root.join("deploy/qa")).unwrap();
    symlink("../nowhere", root.join("deploy/gone.yaml")).unwrap();
    symlink(outside.path().join("there.yaml"), root.join("deploy/out.yaml")).unwrap();
    symlink("../..", root.join("deploy/dev/everything")).unwrap();
    git(
        root,
        &[
            "submodule",
            "--quiet",
            "add",
            module.path().to_str().unwrap(),
            "deploy/dev/module",
        ],
    );
    commit(root);

    let here = read(root, "k8s");
    let paths: Vec<&str> = here.iter().map(|file| file.path.as_str()).collect();
    assert!(paths.contains(&"k8s/qa/common/c.yaml"), "{paths:?}");
    let unread = |path: &str| {
        here.iter()
            .find(|file| file.path == path)
            .unwrap()
            .content
            .clone()
            .unwrap_err()
    };
    assert_eq!(unread("k8s/dev/module"), Unread::Submodule);
    assert!(matches!(unread("k8s/out.yaml"), Unread::LeadsOut(_)));
    assert_eq!(unread("k8s/gone.yaml"), Unread::LeadsNowhere("../nowhere".into()));
    assert_eq!(unread("k8s/dev/everything"), Unread::LeadsBack("../..".into()));
    assert_eq!(pushed(root, "k8s").await, here);

    // A clone without its submodules says the same.
    let clone = tempfile::tempdir().unwrap();
    git(clone.path(), &["clone", "--quiet", root.to_str().unwrap(), "."]);
    assert_eq!(read(clone.path(), "k8s"), here);
}

#[test]
fn a_file_is_there_or_not_or_says_why_it_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    lay(root, "ci/circle.yml", "version: 2.1\n");
    fs::create_dir(root.join(".circleci")).unwrap();
    symlink("../ci/circle.yml", root.join(".circleci/config.yml")).unwrap();
    symlink("gone", root.join(".circleci/gone.yml")).unwrap();
    fs::write(root.join("latin.yml"), b"a: \xe9\n").unwrap();
    let tree = WorkingTree::open(root).unwrap();
    assert_eq!(
        tree.text(".circleci/config.yml").unwrap().as_deref(),
        Some("version: 2.1\n")
    );
    assert_eq!(tree.text("nosuch/config.yml").unwrap(), None);
    for (path, says) in [
        (
            ".circleci/gone.yml",
            "`.circleci/gone.yml` is a link to `gone`, and there is nothing",
        ),
        ("ci", "`ci` is a folder"),
        ("latin.yml", "`latin.yml` is not UTF-8: line 1, column 4"),
    ] {
        let error = tree.text(path).unwrap_err();
        assert!(!matches!(error, WorkingTreeError::Io { .. }));
        assert!(error.to_string().starts_with(says), "{error}");
    }
}
