//! `towpath init`: look, write down what was found, connect.

use crate::{
    cli::At,
    client::{Client, data_dir},
    repository::Repository,
};
use anyhow::{Context, Result};
use std::path::Path;
use towpath_control::{Build, PROJECT_FILE, ProjectFile};

/// The name of the git remote that `init` adds.
const REMOTE: &str = "towpath";

/// `towpath init`.
pub async fn init(at: &At) -> Result<()> {
    let repository = Repository::find()?;
    let name = at.project.clone().unwrap_or_else(|| repository.project());
    outln!("Looked at `{}`:", repository.root.display());
    look(&repository.root);
    write_down(&repository, &name)?;
    connect(&repository, at, &name).await
}

fn look(root: &Path) {
    let there = |path: &str, found: &str, missing: &str| {
        let (mark, text) = if root.join(path).exists() {
            ("found  ", found)
        } else {
            ("missing", missing)
        };
        outln!("  {mark} {path}: {text}");
    };
    there(
        ".circleci/config.yml",
        "run as it is",
        "a push will only be stored, nothing runs",
    );
    there(
        "Dockerfile",
        "`towpath build` builds it",
        "`towpath build` has nothing to build",
    );
    for (context, environments) in kube_contexts(root) {
        outln!("  found   .k8s/{context}: environments {}", environments.join(", "));
    }
}

/// Each folder of `.k8s` with the folders in it that are environments.
fn kube_contexts(root: &Path) -> Vec<(String, Vec<String>)> {
    let folders = |dir: &Path| -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(dir) else {
            return Vec::new();
        };
        let mut names: Vec<_> = entries
            .flatten()
            .filter(|entry| entry.path().is_dir())
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    };
    let k8s = root.join(".k8s");
    folders(&k8s)
        .into_iter()
        .map(|context| {
            let mut environments = folders(&k8s.join(&context));
            environments.retain(|name| !matches!(name.as_str(), "jobs" | "cron_jobs" | "scripts"));
            (context, environments)
        })
        .collect()
}

fn write_down(repository: &Repository, name: &str) -> Result<()> {
    let path = repository.root.join(PROJECT_FILE);
    if path.exists() {
        outln!("  kept    {PROJECT_FILE}");
        return Ok(());
    }
    let contexts = kube_contexts(&repository.root);
    let file = ProjectFile {
        project: Some(name.to_string()),
        image: Some(name.to_string()),
        manifests: contexts.first().map(|(context, _)| format!(".k8s/{context}")),
        build: repository.root.join("ci/build-binary").exists().then(|| Build {
            prepare: Some("ci/build-binary".into()),
            dockerfile: None,
        }),
    };
    std::fs::write(&path, file.render()).with_context(|| format!("failed to write `{}`", path.display()))?;
    outln!("  wrote   {PROJECT_FILE}: look at it, and commit it");
    if contexts.len() > 1 {
        outln!("          there is more than one kube context; it names the first");
    }
    Ok(())
}

async fn connect(repository: &Repository, at: &At, name: &str) -> Result<()> {
    let client = Client::new(at)?;
    client
        .post::<serde_json::Value>("/api/towpath/projects", &serde_json::json!({ "name": name }))
        .await?;
    let url = format!("{}/git/{name}.git", client.base());
    if repository.git(&["remote", "get-url", REMOTE]).is_ok() {
        repository.git(&["remote", "set-url", REMOTE, &url])?;
    } else {
        repository.git(&["remote", "add", REMOTE, &url])?;
    }
    // The helper answers for this address alone, so the token is in no file of the repository and in no argument.
    let quote = |path: &Path| format!("'{}'", path.to_string_lossy().replace('\'', r"'\''"));
    let binary = std::env::current_exe().context("failed to find this program's file")?;
    let dir = std::path::absolute(data_dir(at.data_dir.as_deref())?).context("failed to find the data directory")?;
    let helper = format!("!{} credential --data-dir {}", quote(&binary), quote(&dir));
    repository.git(&["config", &format!("credential.{}.helper", client.base()), &helper])?;
    outln!("  added   git remote `{REMOTE}`: {url}");
    outln!("\nNext:\n  git push {REMOTE} HEAD      starts a pipeline; its address is in the answer");
    outln!("  {}       shows it", client.base());
    Ok(())
}
