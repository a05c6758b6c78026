//! `towpath init`: look, write down what was found, connect.

use crate::{
    cli::At,
    client::{Client, data_dir},
    repository::Repository,
};
use anyhow::{Context, Result, bail};
use std::path::Path;
use towpath_delivery::{Build, PROJECT_FILE, ProjectFile, check_project_name, workload_images};
use towpath_deploy::render::{Layout, RenderedBy};

/// The name of the git remote that `init` adds.
const REMOTE: &str = "towpath";

/// `towpath init`.
pub async fn init(at: &At) -> Result<()> {
    let repository = Repository::find()?;
    let name = at.project.clone().unwrap_or_else(|| repository.project());
    if let Err(error) = check_project_name(&name) {
        bail!("{error}: name it with `--project`");
    }
    if let Some(written) = repository.file.project.as_ref().filter(|written| **written != name) {
        bail!("`{PROJECT_FILE}` says `project = \"{written}\"`: change that, or leave `--project {name}` out");
    }
    outln!("Looked at `{}`:", repository.root.display());
    let files = repository.manifests()?;
    let (layout, wrong) = Layout::read(files.iter().map(|file| (file.path.as_str(), file.text_or_nothing())));
    look(&repository.root, &layout);
    for diagnostic in wrong {
        outln!("{}", diagnostic.render(false));
    }
    write_down(&repository, &layout, &name)?;
    connect(&repository, at, &name).await
}

fn look(root: &Path, layout: &Layout) {
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
    for (context, environments) in kube_contexts(root, layout) {
        outln!("  found   .k8s/{context}: environments {}", environments.join(", "));
        for environment in environments {
            if let Some(rendered) = layout.rendered(&context, &environment) {
                let from = match &rendered.by {
                    RenderedBy::Helm { chart, .. } if *chart != rendered.folder => format!(" from {chart}"),
                    _ => String::new(),
                };
                outln!("          environment {environment}: rendered by {}{from}", rendered.by);
            }
        }
    }
}

/// The names of the environments that a repository's manifests have.
pub fn environments(repository: &Repository) -> Result<Vec<String>> {
    let files = repository.manifests()?;
    let (layout, _) = Layout::read(files.iter().map(|file| (file.path.as_str(), file.text_or_nothing())));
    let mut names: Vec<String> = kube_contexts(&repository.root, &layout)
        .into_iter()
        .flat_map(|(_, names)| names)
        .collect();
    names.sort();
    names.dedup();
    Ok(names)
}

/// Each folder of `.k8s` with the folders in it that are environments.
fn kube_contexts(root: &Path, layout: &Layout) -> Vec<(String, Vec<String>)> {
    let is_shared = |folder: &str| layout.shared().any(|(shared, _)| shared == folder);
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
        .filter(|context| !is_shared(&format!(".k8s/{context}")))
        .filter_map(|context| {
            let mut environments = folders(&k8s.join(&context));
            environments.retain(|name| !matches!(name.as_str(), "jobs" | "cron_jobs" | "scripts"));
            let of_all = environments.len();
            environments.retain(|name| !is_shared(&format!(".k8s/{context}/{name}")));
            // Where there is nothing but what others are made from, there is no kube context.
            let only_shared = environments.is_empty() && of_all > 0;
            (!only_shared).then_some((context, environments))
        })
        .collect()
}

fn write_down(repository: &Repository, layout: &Layout, name: &str) -> Result<()> {
    let path = repository.root.join(PROJECT_FILE);
    if path.exists() {
        outln!("  kept    {PROJECT_FILE}");
        return Ok(());
    }
    let contexts = kube_contexts(&repository.root, layout);
    let (image, containers, said) = image_of(repository, name)?;
    let file = ProjectFile {
        project: Some(name.to_string()),
        image: Some(image),
        containers,
        manifests: contexts.first().map(|(context, _)| format!(".k8s/{context}")),
        build: repository.root.join("ci/build-binary").exists().then(|| Build {
            prepare: Some("ci/build-binary".into()),
            dockerfile: None,
        }),
        ..ProjectFile::default()
    };
    std::fs::write(&path, file.render()).with_context(|| format!("failed to write `{}`", path.display()))?;
    outln!("  wrote   {PROJECT_FILE}: look at it, and commit it");
    if let Some(said) = said {
        outln!("          {said}");
    }
    if contexts.len() > 1 {
        outln!("          there is more than one kube context; it names the first");
    }
    Ok(())
}

/// The image that the manifests' workloads run, the containers that run it by another name, and what is to be said of it.
fn image_of(repository: &Repository, name: &str) -> Result<(String, Vec<String>, Option<String>)> {
    let runs = workload_images(&repository.manifests()?);
    // One of the project's name, wherever it is: images are known by their repositories.
    let is_own =
        |image: &String| image == name || image.split_once('/').is_some_and(|(_, repository)| repository == name);
    if runs.keys().any(is_own) {
        return Ok((name.to_string(), Vec::new(), None));
    }
    let last = |image: &str| image.rsplit('/').next().unwrap_or(image).to_string();
    let found = runs.iter().find(|(image, _)| last(image) == name);
    let found = found.or_else(|| runs.iter().next().filter(|_| runs.len() == 1));
    Ok(match found {
        // In a registry of the team's own.
        Some((image, _)) if image.contains('/') && image.contains(['.', ':']) => {
            let said = format!("the manifests run `{image}`: that is where pipelines are to push");
            (image.clone(), Vec::new(), Some(said))
        }
        Some((image, containers)) => {
            let said =
                format!("the manifests run `{image}`; `containers` says that what is built here takes its place");
            (name.to_string(), containers.iter().cloned().collect(), Some(said))
        }
        None if runs.is_empty() => (name.to_string(), Vec::new(), None),
        None => {
            let images: Vec<String> = runs.keys().map(|image| format!("`{image}`")).collect();
            let said = format!(
                "the manifests run {}: `image` is to be the one that is built here",
                images.join(", ")
            );
            (name.to_string(), Vec::new(), Some(said))
        }
    })
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(files: &[(&str, &str)], expect: &[(&str, &[&str])]) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let (layout, diagnostics) = Layout::read(files.iter().copied());
        assert!(diagnostics.is_empty(), "{diagnostics:?}");
        let found = kube_contexts(dir.path(), &layout);
        let found: Vec<(&str, Vec<&str>)> = found
            .iter()
            .map(|(context, names)| (context.as_str(), names.iter().map(String::as_str).collect()))
            .collect();
        let expect: Vec<(&str, Vec<&str>)> = expect
            .iter()
            .map(|(context, names)| (*context, names.to_vec()))
            .collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn folders_of_manifests_are_environments() {
        let files = [
            (".k8s/live/dev/web.yaml", ""),
            (".k8s/live/prod/web.yaml", ""),
            (".k8s/live/jobs/migrate.yaml", ""),
            (".k8s/test/dev/web.yaml", ""),
        ];
        check(&files, &[("live", &["dev", "prod"]), ("test", &["dev"])]);
    }

    #[test]
    fn what_environments_are_made_from_is_none() {
        let files = [
            (".k8s/base/kustomization.yaml", "resources: []\n"),
            (".k8s/base/more/web.yaml", ""),
            (".k8s/live/common/kustomization.yaml", "resources: [../../base]\n"),
            (".k8s/live/dev/kustomization.yaml", "resources: [../common]\n"),
        ];
        check(&files, &[("live", &["dev"])]);
        let files = [
            (".k8s/charts/shop/Chart.yaml", "name: shop\n"),
            (".k8s/live/dev/values.yaml", "a: 1\n"),
        ];
        check(&files, &[("live", &["dev"])]);
    }
}
