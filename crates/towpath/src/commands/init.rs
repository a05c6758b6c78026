//! `towpath init`: examines the repository, writes the project file, and connects the repository.

use crate::{
    cli::At,
    client::{Client, data_dir},
    repository::Repository,
};
use anyhow::{Context, Result, bail};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};
use towpath_delivery::{
    Build, ManifestFile, PROJECT_FILE, ProjectFile, Tree, check_project_name, image_in_manifests, workload_images,
};
use towpath_deploy::render::{Diagnostic, Layout, RenderedBy};

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
    let found = Found::look(&repository)?;
    found.tell(&repository.root);
    write_down(&repository, &found, &name)?;
    connect(&repository, at, &name).await
}

/// The facts about a repository.
struct Found {
    files: Vec<ManifestFile>,
    layout: Layout,
    /// The errors of its layout.
    wrong: Vec<String>,
    /// The kube contexts that have environments, with those environments.
    kube_contexts: Vec<(String, Vec<String>)>,
    dockerfiles: Vec<String>,
}

impl Found {
    fn look(repository: &Repository) -> Result<Self> {
        let files = repository.manifests()?;
        let (layout, wrong) = layout_of(&files);
        let unread = files.iter().filter_map(ManifestFile::wrong);
        let wrong = wrong
            .iter()
            .map(|diagnostic| diagnostic.render(false))
            .chain(unread)
            .collect();
        Ok(Self {
            kube_contexts: kube_contexts(&files, &layout),
            dockerfiles: repository.dockerfiles(),
            files,
            layout,
            wrong,
        })
    }

    fn tell(&self, root: &Path) {
        let config = ".circleci/config.yml";
        match root.join(config).exists() {
            true => outln!("  found   {config}: run as it is"),
            false => outln!("  missing {config}: a push will only be stored, nothing runs"),
        }
        match self.dockerfiles.as_slice() {
            [] => outln!("  missing Dockerfile: `towpath build` has nothing to build"),
            [first, more @ ..] => {
                outln!("  found   {first}: `towpath build` builds it");
                if !more.is_empty() {
                    outln!("          there are others: {}", more.join(", "));
                }
            }
        }
        for (context, environments) in &self.kube_contexts {
            outln!("  found   .k8s/{context}: environments {}", environments.join(", "));
            for environment in environments {
                if let Some(rendered) = self.layout.rendered(context, environment) {
                    let from = match &rendered.by {
                        RenderedBy::Helm { chart, .. } if *chart != rendered.folder => format!(" from {chart}"),
                        _ => String::new(),
                    };
                    outln!("          environment {environment}: rendered by {}{from}", rendered.by);
                }
            }
        }
        for wrong in &self.wrong {
            outln!("{wrong}");
        }
    }

    /// The kube context to write down, and a message about it. Several kube contexts without a common environment name need
    /// none, because each name leads to one of them.
    fn kube_context(&self) -> (Option<&str>, Option<String>) {
        let contexts = &self.kube_contexts;
        let mut names: Vec<&String> = contexts.iter().flat_map(|(_, names)| names).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        // Of several kube contexts with the same number of environments, take the first.
        let most = contexts.iter().rev().max_by_key(|(_, names)| names.len());
        match (contexts.as_slice(), most) {
            ([(only, _)], _) => (Some(only), None),
            (_, Some((most, _))) if names.len() < count => {
                let said =
                    format!("more than one kube context has an environment of the same name; it names `.k8s/{most}`");
                (Some(most), Some(said))
            }
            _ => (None, None),
        }
    }
}

fn layout_of(files: &[ManifestFile]) -> (Layout, Vec<Diagnostic>) {
    Layout::read(files.iter().map(|file| (file.path.as_str(), file.text_or_nothing())))
}

/// The names of the environments that a repository's manifests have.
pub fn environments(repository: &Repository) -> Result<Vec<String>> {
    let files = repository.manifests()?;
    let (layout, _) = layout_of(&files);
    let contexts = kube_contexts(&files, &layout).into_iter();
    let mut names: Vec<String> = contexts.flat_map(|(_, names)| names).collect();
    names.sort();
    names.dedup();
    Ok(names)
}

/// Each folder of `.k8s` that has environments, with those environments: folders with manifests, and rendered ones.
fn kube_contexts(files: &[ManifestFile], layout: &Layout) -> Vec<(String, Vec<String>)> {
    let plain = files.iter().filter(|file| layout.reads_as_it_is(&file.path));
    let (tree, _) = Tree::read(plain.map(|file| (file.path.as_str(), file.text_or_nothing())));
    let plain = tree.kube_contexts.iter().flat_map(|(context, found)| {
        let names = found.environments.keys();
        names.map(move |name| (context.clone(), name.clone()))
    });
    let rendered = layout.environments();
    let rendered = rendered.map(|found| (found.kube_context.clone(), found.environment.clone()));
    let mut contexts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (context, name) in plain.chain(rendered) {
        contexts.entry(context).or_default().insert(name);
    }
    contexts
        .into_iter()
        .map(|(context, names)| (context, names.into_iter().collect()))
        .collect()
}

fn write_down(repository: &Repository, found: &Found, name: &str) -> Result<()> {
    let path = repository.root.join(PROJECT_FILE);
    if path.exists() {
        outln!("  kept    {PROJECT_FILE}");
        return Ok(());
    }
    let (image, containers, image_said) = image_of(&found.files, name);
    let (kube_context, context_said) = found.kube_context();
    let prepare = repository
        .root
        .join("ci/build-binary")
        .exists()
        .then(|| "ci/build-binary".to_string());
    // A Dockerfile at the root is the default.
    let dockerfile = found.dockerfiles.first().filter(|path| path.contains('/')).cloned();
    let file = ProjectFile {
        project: Some(name.to_string()),
        image: Some(image),
        containers,
        manifests: kube_context.map(|context| format!(".k8s/{context}")),
        build: (prepare.is_some() || dockerfile.is_some()).then_some(Build { prepare, dockerfile }),
        ..ProjectFile::default()
    };
    std::fs::write(&path, file.render()).with_context(|| format!("failed to write `{}`", path.display()))?;
    outln!("  wrote   {PROJECT_FILE}: look at it, and commit it");
    for said in [image_said, context_said].into_iter().flatten() {
        outln!("          {said}");
    }
    Ok(())
}

/// The image that the manifests' workloads run, the containers that run it under another name, and a message about it.
fn image_of(files: &[ManifestFile], name: &str) -> (String, Vec<String>, Option<String>) {
    let runs = workload_images(files);
    // An image with the project's name, in any registry: images are identified by their repositories.
    let is_own =
        |image: &String| image == name || image.split_once('/').is_some_and(|(_, repository)| repository == name);
    if runs.keys().any(is_own) {
        return (name.to_string(), Vec::new(), None);
    }
    if let Some(image) = image_in_manifests(name, files) {
        let said = format!("the manifests run `{image}`: that is where pipelines are to push");
        return (image, Vec::new(), Some(said));
    }
    let last = |image: &str| image.rsplit('/').next().unwrap_or(image).to_string();
    let found = runs.iter().find(|(image, _)| last(image) == name);
    let found = found.or_else(|| runs.iter().next().filter(|_| runs.len() == 1));
    match found {
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
    }
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
    // The helper answers for this address only, so the token is in no file of the repository and in no argument.
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

    fn repository(files: &[(&str, &str)]) -> (tempfile::TempDir, Repository) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let repository = Repository::at(dir.path()).unwrap();
        (dir, repository)
    }

    fn check(files: &[(&str, &str)], expect: &[(&str, &[&str])]) {
        let (_dir, repository) = repository(files);
        let found = Found::look(&repository).unwrap();
        assert_eq!(found.wrong, Vec::<String>::new());
        let found: Vec<(&str, Vec<&str>)> = found
            .kube_contexts
            .iter()
            .map(|(context, names)| (context.as_str(), names.iter().map(String::as_str).collect()))
            .collect();
        let expect: Vec<(&str, Vec<&str>)> = expect
            .iter()
            .map(|(context, names)| (*context, names.to_vec()))
            .collect();
        assert_eq!(found, expect);
    }

    /// The project file that `init` writes for these files.
    fn written(files: &[(&str, &str)]) -> String {
        let (dir, repository) = repository(files);
        write_down(&repository, &Found::look(&repository).unwrap(), "claims").unwrap();
        let text = std::fs::read_to_string(dir.path().join(PROJECT_FILE)).unwrap();
        text.lines().skip(1).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn folders_of_manifests_are_environments() {
        let files = [
            (".k8s/live/dev/web.yaml", ""),
            (".k8s/live/prod/web.yaml", ""),
            (".k8s/live/jobs/migrate.yaml", ""),
            (".k8s/live/scripts/deploy.sh", ""),
            (".k8s/bin/lib/common.sh", ""),
            (".k8s/bin/deploy", ""),
            (".k8s/test/dev/web.yaml", ""),
        ];
        check(&files, &[("live", &["dev", "prod"]), ("test", &["dev"])]);
    }

    #[test]
    fn what_is_written_down_is_what_the_repository_has() {
        const WEB: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {template: {spec: {containers: [{name: web, image: 'r.example.org/team/cccd:1'}]}}}\n";
        let files = [
            (".k8s/bin/deploy", ""),
            (".k8s/live/dev/web.yaml", WEB),
            ("docker/Dockerfile", ""),
            ("docker/test/Dockerfile", ""),
            (".gitignore", "vendor/\n"),
            ("vendor/Dockerfile", ""),
        ];
        assert_eq!(
            written(&files),
            "project = \"claims\"\nimage = \"r.example.org/team/cccd\"\nmanifests = \".k8s/live\"\n\n[build]\ndockerfile = \"docker/Dockerfile\""
        );
        // Kube contexts without a common environment name need no folder.
        let files = [
            (".k8s/live/dev/a.yaml", ""),
            (".k8s/old/qa/a.yaml", ""),
            ("Dockerfile", ""),
            ("x/Dockerfile", ""),
        ];
        assert_eq!(written(&files), "project = \"claims\"\nimage = \"claims\"");
        let files = [
            (".k8s/a/dev/a.yaml", ""),
            (".k8s/b/dev/a.yaml", ""),
            (".k8s/b/qa/a.yaml", ""),
        ];
        assert!(written(&files).ends_with("manifests = \".k8s/b\""));
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
