//! A server, and people who push to it.

use std::{path::Path, process::Output, time::Duration};
use tokio::process::Command;
use towpath_testkit::{Repository, ServerOptions, Towpath};

pub const PROJECT: &str = "app";

/// Starts a server with its data in `data` and its log in `folder`, on `port` or on any free port.
pub async fn server(folder: &Path, data: &Path, port: u16) -> Towpath {
    let options = ServerOptions {
        binary: env!("CARGO_BIN_EXE_towpath").into(),
        data_dir: data.to_path_buf(),
        listen: format!("127.0.0.1:{port}"),
        host_environment: Vec::new(),
        variables: Vec::new(),
        log: folder.join("server.log"),
        kubeconfig: None,
    };
    Towpath::start(options).await.unwrap()
}

/// A repository with this configuration, known to the server.
pub async fn repository(folder: &Path, server: &Towpath, config: &str) -> Repository {
    let files = [(".circleci/config.yml", config)];
    let repository = Repository::of_files(folder, PROJECT, &files).await.unwrap();
    server.run(repository.directory(), &["init"], b"").await.unwrap();
    repository
}

/// Runs git for a person who waits, but not for ever. `None` if it took too long.
pub async fn git(directory: &Path, data: &Path, arguments: &[&str], patience: Duration) -> Option<Output> {
    let mut command = Command::new("git");
    command
        .current_dir(directory)
        .args(arguments)
        .env("TOWPATH_DATA_DIR", data)
        .env("GIT_TERMINAL_PROMPT", "0")
        .kill_on_drop(true);
    tokio::time::timeout(patience, command.output()).await.ok()?.ok()
}

/// Creates a commit of the same files, which no ref points to yet.
pub async fn commit(directory: &Path, data: &Path, message: &str) -> String {
    let arguments = ["commit-tree", "HEAD^{tree}", "-p", "HEAD", "-m", message];
    let made = git(directory, data, &arguments, Duration::from_secs(30)).await.unwrap();
    String::from_utf8(made.stdout).unwrap().trim().to_string()
}
