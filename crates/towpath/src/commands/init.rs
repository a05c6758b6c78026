//! `towpath init`: examines the repository, writes the project file, and connects the repository.

use crate::{
    cli::At,
    client::{Client, data_dir},
    repository::Repository,
};
use anyhow::{Context, Result, bail};
use std::{collections::BTreeMap, path::Path};
use towpath_delivery::{
    Build, BuiltImage, EnvironmentLayout, ImageTable, Layout, ManifestFile, PROJECT_FILE, ProjectFile, built_images,
    check_project_name, image_in_manifests, workload_images,
};
use towpath_deploy::render::RenderedBy;
use towpath_types::ImageReference;

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
    let found = Found::look(&repository, &name)?;
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
    /// The folders that have environments, the most plausible first.
    places: Vec<FoundPlace>,
    dockerfiles: Vec<BuiltImage>,
}

/// A folder that has environments.
struct FoundPlace {
    /// What `manifests` in `towpath.toml` names to choose it.
    root: String,
    environments: Vec<EnvironmentLayout>,
    /// Whether its environments are in force as long as nobody chooses another folder.
    is_in_force: bool,
}

impl FoundPlace {
    fn names(&self) -> Vec<&str> {
        self.environments.iter().map(|found| found.name.as_str()).collect()
    }

    /// The line of `towpath.toml` that makes its only environment, which nothing in the repository names; `None` for others.
    fn unnamed(&self) -> Option<String> {
        let [only] = self.environments.as_slice() else {
            return None;
        };
        let key = match only.rendered().map(|rendered| &rendered.by) {
            None => "path",
            Some(RenderedBy::Kustomize) => "kustomize",
            Some(RenderedBy::Helm { values, .. }) if values.is_empty() => "chart",
            Some(RenderedBy::Helm { .. }) => return None,
        };
        let is_all = only.source.value.folder() == self.root;
        is_all.then(|| format!("{key} = {}", quoted(&self.root)))
    }
}

impl Found {
    fn look(repository: &Repository, name: &str) -> Result<Self> {
        let (layout, files, wrong) = repository.layout()?;
        let unread = files.iter().filter_map(ManifestFile::wrong);
        let wrong = wrong
            .iter()
            .map(|diagnostic| diagnostic.render(false))
            .chain(unread)
            .collect();
        Ok(Self {
            places: places(&layout),
            dockerfiles: built_images(name, &repository.dockerfiles(), &files, &repository.pipeline_files()),
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
        if self.dockerfiles.is_empty() {
            outln!("  missing Dockerfile: `towpath build` has nothing to build");
        }
        for (at, built) in self.dockerfiles.iter().enumerate() {
            let by_towpath = match self.images().is_empty() {
                // The tables that `init` writes name them all.
                false if built.image.is_some() => ": `towpath build` builds it",
                true if at == 0 => ": `towpath build` builds it",
                _ => "",
            };
            outln!("  found   {}{by_towpath}", built.dockerfile);
            match &built.image {
                Some((image, because)) => outln!("          its image is `{image}` ({because})"),
                None => outln!("          found no image in the manifests that it builds"),
            }
        }
        for place in self.places.iter().filter(|place| place.is_in_force) {
            outln!("  found   {}: environments {}", place.root, place.names().join(", "));
            for found in &place.environments {
                outln!(
                    "          {}: {}  ({})",
                    found.name,
                    found.source.value,
                    found.source.origin
                );
            }
        }
        for place in self.places.iter().filter(|place| !place.is_in_force) {
            outln!(
                "  also    {}: it could be the environment {}",
                place.root,
                place.names().join(", ")
            );
            for found in &place.environments {
                outln!("          {}: {}", found.name, found.source.value);
            }
        }
        if self.places.is_empty() {
            outln!("  missing environments: nothing here looks like manifests, overlays or a chart");
            outln!("          {LOOKED_FOR}");
        }
        for wrong in &self.wrong {
            outln!("{wrong}");
        }
    }

    /// The project's images, if Dockerfiles build several that the manifests run; empty for a project with one image.
    fn images(&self) -> BTreeMap<String, ImageTable> {
        let mut tables = BTreeMap::new();
        for built in &self.dockerfiles {
            let Some((image, _)) = &built.image else { continue };
            // The names come from references that were read.
            let Ok(reference) = image.parse::<ImageReference>() else {
                continue;
            };
            let table = ImageTable {
                dockerfile: Some(built.dockerfile.clone()),
                // An image without a registry is in Towpath's own, below the project's name.
                repository: reference.registry.is_some().then(|| image.clone()),
                ..ImageTable::default()
            };
            let last = reference.repository.rsplit('/').next().unwrap_or_default();
            tables.entry(last.to_string()).or_insert(table);
        }
        if tables.len() > 1 { tables } else { BTreeMap::new() }
    }

    /// Lines for the end of `towpath.toml`, if the most plausible environment has no name in the repository: its table. The
    /// alternatives are comments in it.
    fn table(&self) -> Option<String> {
        let [most, more @ ..] = self.places.as_slice() else {
            return None;
        };
        let line = most.unnamed()?;
        let mut text =
            format!("\n# Rename `default` to what it is: dev, production, …\n[environments.default]\n{line}\n");
        for other in more.iter().filter_map(FoundPlace::unnamed) {
            text.push_str(&format!("# or: {other}\n"));
        }
        Some(text)
    }

    /// Comments for `towpath.toml` with the folders that could be chosen instead.
    fn alternatives(&self, chosen: &str) -> String {
        let others = self.places.iter().filter(|place| place.root != chosen);
        let line = |place: &FoundPlace| {
            let names = place.names().join(", ");
            format!(
                "# or: manifests = {}   ({})\n",
                quoted(&place.root),
                names.escape_debug()
            )
        };
        others.map(line).collect()
    }

    /// The folder to write down, and a message about it. Several folders without a common environment name need none, because
    /// each name leads to one of them.
    fn manifests(&self) -> (Option<&str>, Option<String>) {
        match self.places.as_slice() {
            [] => (None, None),
            [only] => (Some(&only.root), None),
            [most, ..] if self.layout.rivals().next().is_some() => {
                let said = format!(
                    "more than one folder has an environment of the same name; it names `{}`",
                    most.root
                );
                (Some(&most.root), Some(said))
            }
            [most, other, ..] if most.is_in_force && !other.is_in_force => (Some(&most.root), None),
            _ => (None, None),
        }
    }
}

/// A text as TOML has it.
fn quoted(text: &str) -> String {
    let escaped = text.chars().map(|c| match c {
        '\\' | '"' => format!("\\{c}"),
        c if c.is_control() => format!("\\u{:04X}", u32::from(c)),
        c => c.to_string(),
    });
    format!("\"{}\"", escaped.collect::<String>())
}

/// What `init` looks for, for whoever it finds nothing for.
const LOOKED_FOR: &str = "it looks for .k8s/<kube context>/<environment>/, for Kustomize overlays, for charts with \
                          values-<environment>.yaml, and for folders of manifests such as k8s/ or deploy/; towpath.toml can name others";

/// The folders that have environments: those in force first, then those with the most environments.
fn places(layout: &Layout) -> Vec<FoundPlace> {
    let rivals = layout.rivals().flat_map(|(_, several)| several);
    let in_force = layout.environments().chain(rivals).map(|found| (found, true));
    let all = in_force.chain(layout.others().iter().map(|found| (found, false)));
    let mut places: BTreeMap<&str, FoundPlace> = BTreeMap::new();
    for (found, is_in_force) in all {
        let place = places.entry(&found.root).or_insert_with(|| FoundPlace {
            root: found.root.clone(),
            environments: Vec::new(),
            is_in_force,
        });
        place.environments.push(found.clone());
    }
    let mut places: Vec<FoundPlace> = places.into_values().collect();
    for place in &mut places {
        place.environments.sort_by(|one, other| one.name.cmp(&other.name));
    }
    // Of two with the same number of environments, what says more about how it is meant to be deployed.
    let shape = |place: &FoundPlace| match place.environments.first().and_then(EnvironmentLayout::rendered) {
        Some(rendered) if rendered.by == RenderedBy::Kustomize => 0,
        Some(_) => 1,
        None => 2,
    };
    places.sort_by_key(|place| {
        let count = place.environments.len();
        (!place.is_in_force, std::cmp::Reverse(count), shape(place))
    });
    places
}

fn write_down(repository: &Repository, found: &Found, name: &str) -> Result<()> {
    let path = repository.root.join(PROJECT_FILE);
    if path.exists() {
        outln!("  kept    {PROJECT_FILE}");
        return Ok(());
    }
    let images = found.images();
    let (image, containers, image_said) = match images.is_empty() {
        true => image_of(&found.files, name),
        false => (None, Vec::new(), None),
    };
    let (manifests, manifests_said) = found.manifests();
    let prepare = repository
        .root
        .join("ci/build-binary")
        .exists()
        .then(|| "ci/build-binary".to_string());
    let dockerfile = found.dockerfiles.first().map(|built| built.dockerfile.clone());
    // A Dockerfile at the root is the default. Several images have theirs in their own tables.
    let dockerfile = dockerfile.filter(|path| path != "Dockerfile" && images.is_empty());
    let table = found.table();
    let manifests = manifests.filter(|_| table.is_none());
    let file = ProjectFile {
        project: Some(name.to_string()),
        image,
        images,
        containers,
        manifests: manifests.map(str::to_string),
        build: (prepare.is_some() || dockerfile.is_some()).then_some(Build { prepare, dockerfile }),
        ..ProjectFile::default()
    };
    let mut text = file.render();
    if let Some(chosen) = manifests {
        let line = format!("manifests = {}\n", quoted(chosen));
        text = text.replace(&line, &format!("{line}{}", found.alternatives(chosen)));
    }
    text.push_str(&table.unwrap_or_default());
    std::fs::write(&path, text).with_context(|| format!("failed to write `{}`", path.display()))?;
    outln!("  wrote   {PROJECT_FILE}: look at it, and commit it");
    for said in [image_said, manifests_said].into_iter().flatten() {
        outln!("          {said}");
    }
    Ok(())
}

/// The image that the manifests' workloads run, the containers that run it under another name, and a message about it.
fn image_of(files: &[ManifestFile], name: &str) -> (Option<String>, Vec<String>, Option<String>) {
    let runs = workload_images(files);
    // An image with the project's name, in any registry: images are identified by their repositories.
    let is_own =
        |image: &String| image == name || image.split_once('/').is_some_and(|(_, repository)| repository == name);
    if runs.keys().any(is_own) {
        return (Some(name.to_string()), Vec::new(), None);
    }
    if let Some(image) = image_in_manifests(name, files) {
        let said = format!("the manifests run `{image}`: that is where pipelines are to push");
        return (Some(image), Vec::new(), Some(said));
    }
    let last = |image: &str| image.rsplit('/').next().unwrap_or(image).to_string();
    let found = runs.iter().find(|(image, _)| last(image) == name);
    let found = found.or_else(|| runs.iter().next().filter(|_| runs.len() == 1));
    match found {
        Some((image, containers)) => {
            let said =
                format!("the manifests run `{image}`; `containers` says that what is built here takes its place");
            (Some(name.to_string()), containers.iter().cloned().collect(), Some(said))
        }
        None if runs.is_empty() => (Some(name.to_string()), Vec::new(), None),
        None => {
            let images: Vec<String> = runs.keys().map(|image| format!("`{image}`")).collect();
            let said = format!(
                "the manifests run {}: `image` is to be the one that is built here",
                images.join(", ")
            );
            (Some(name.to_string()), Vec::new(), Some(said))
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
        let found = Found::look(&repository, "claims").unwrap();
        assert_eq!(found.wrong, Vec::<String>::new());
        let mut found: Vec<(&str, Vec<&str>)> = found
            .places
            .iter()
            .map(|place| (place.root.as_str(), place.names()))
            .collect();
        found.sort_unstable();
        let expect: Vec<(&str, Vec<&str>)> = expect
            .iter()
            .map(|(context, names)| (*context, names.to_vec()))
            .collect();
        assert_eq!(found, expect);
    }

    /// The project file that `init` writes for these files.
    fn written(files: &[(&str, &str)]) -> String {
        let (dir, repository) = repository(files);
        write_down(&repository, &Found::look(&repository, "claims").unwrap(), "claims").unwrap();
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
        check(&files, &[(".k8s/live", &["dev", "prod"]), (".k8s/test", &["dev"])]);
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
        let text = written(&files);
        assert!(
            text.ends_with("manifests = \".k8s/b\"\n# or: manifests = \".k8s/a\"   (dev)"),
            "{text}"
        );
    }

    const OBJECT: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";
    const CHART: &str = "apiVersion: v2\nname: shop\nversion: 0.1.0\n";

    #[test]
    fn each_of_several_images_gets_a_table() {
        let web = |name: &str, image: &str| {
            format!(
                "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec: {{template: {{spec: {{containers: [{{name: {name}, image: '{image}'}}]}}}}}}\n"
            )
        };
        let (vote, result) = (web("vote", "r.example.org/team/vote:1"), web("result", "result"));
        let files = [
            ("k8s/dev/vote.yaml", vote.as_str()),
            ("k8s/dev/result.yaml", result.as_str()),
            ("vote/Dockerfile", ""),
            ("result/Dockerfile", ""),
            ("tools/Dockerfile", ""),
        ];
        let text = written(&files);
        let file = ProjectFile::parse(&text).unwrap();
        assert_eq!((file.image, file.build), (None, None));
        let tables: Vec<_> = file
            .images
            .iter()
            .map(|(name, table)| (name.as_str(), table.dockerfile.as_deref(), table.repository.as_deref()))
            .collect();
        assert_eq!(
            tables,
            [
                ("result", Some("result/Dockerfile"), None),
                ("vote", Some("vote/Dockerfile"), Some("r.example.org/team/vote")),
            ],
            "{text}"
        );
    }

    #[test]
    fn a_choice_is_one_line_to_change() {
        let files = [
            ("helm_deploy/shop/Chart.yaml", CHART),
            ("helm_deploy/shop/values-dev.yaml", "a: 1\n"),
            ("helm_deploy/shop/values-production.yaml", "a: 1\n"),
            ("deploy/overlays/dev/kustomization.yaml", "resources: [../../bases]\n"),
            ("deploy/bases/kustomization.yaml", "resources: []\n"),
            ("k8s/web.yaml", OBJECT),
        ];
        check(
            &files,
            &[
                ("deploy/overlays", &["dev"]),
                ("helm_deploy/shop", &["dev", "production"]),
                ("k8s", &["default"]),
            ],
        );
        let text = written(&files);
        assert_eq!(
            text,
            "project = \"claims\"\nimage = \"claims\"\nmanifests = \"helm_deploy/shop\"\n\
             # or: manifests = \"deploy/overlays\"   (dev)\n# or: manifests = \"k8s\"   (default)"
        );
        for (folder, names) in [
            ("helm_deploy/shop", vec!["dev", "production"]),
            ("deploy/overlays", vec!["dev"]),
            ("k8s", vec!["default"]),
        ] {
            let (dir, _) = repository(&files);
            std::fs::write(dir.path().join(PROJECT_FILE), format!("manifests = \"{folder}\"\n")).unwrap();
            let (layout, ..) = Repository::at(dir.path()).unwrap().layout().unwrap();
            let found: Vec<&str> = layout.environments().map(|found| found.name.as_str()).collect();
            assert_eq!(found, names, "{folder}");
        }
    }

    #[test]
    fn a_name_with_a_line_break_cannot_write_lines() {
        let files = [
            ("k8s/dev/web.yaml", OBJECT),
            ("k8s/qa/web.yaml", OBJECT),
            ("deploy\nprotected_branches = ['x']\n#/dev/web.yaml", OBJECT),
        ];
        let text = written(&files);
        assert!(
            ProjectFile::parse(&text).unwrap().protected_branches.is_empty(),
            "{text}"
        );
        assert!(text.contains("# or: manifests = \"deploy\\u000Aprotected"), "{text}");
    }

    #[test]
    fn an_environment_that_nothing_names_gets_a_table() {
        let files = [
            ("k8s-specifications/web.yaml", OBJECT),
            ("kustomize/kustomization.yaml", "resources: []\n"),
            ("helm-chart/Chart.yaml", CHART),
            ("vote/Dockerfile", ""),
        ];
        let text = written(&files);
        let lines: Vec<&str> = text.lines().collect();
        let at = lines.iter().position(|line| *line == "[environments.default]").unwrap();
        assert_eq!(
            lines[at + 1..],
            [
                "kustomize = \"kustomize\"",
                "# or: chart = \"helm-chart\"",
                "# or: path = \"k8s-specifications\""
            ]
        );
        let (dir, _) = repository(&files);
        let renamed = text.replace("environments.default", "environments.dev");
        std::fs::write(dir.path().join(PROJECT_FILE), renamed).unwrap();
        let (layout, _, wrong) = Repository::at(dir.path()).unwrap().layout().unwrap();
        let found: Vec<String> = layout
            .environments()
            .map(|found| format!("{}: {}", found.name, found.source.value))
            .collect();
        assert_eq!(
            (found, wrong),
            (vec!["dev: kustomize kustomize".to_string()], Vec::new())
        );
    }

    #[test]
    fn what_git_ignores_is_not_looked_at() {
        let files = [
            (".gitignore", "build/\n*.local.yaml\n"),
            ("build/k8s/dev/web.yaml", OBJECT),
            ("k8s/qa/web.yaml", OBJECT),
            ("k8s/qa/own.local.yaml", OBJECT),
            ("k8s/qa/Dockerfile", ""),
        ];
        check(&files, &[("k8s", &["qa"])]);
        let (_dir, repository) = repository(&files);
        let read: Vec<String> = repository
            .manifests()
            .unwrap()
            .into_iter()
            .map(|file| file.path)
            .collect();
        assert_eq!(read, ["k8s/qa/web.yaml"]);
    }

    #[test]
    fn a_link_to_a_folder_of_manifests_counts_as_in_a_commit() {
        let (dir, _) = repository(&[("ops/things/dev/web.yaml", OBJECT)]);
        std::os::unix::fs::symlink("ops/things", dir.path().join("k8s")).unwrap();
        let repository = Repository::at(dir.path()).unwrap();
        let found = Found::look(&repository, "claims").unwrap();
        assert_eq!(found.places[0].root, "k8s");
        assert_eq!(repository.manifests().unwrap()[0].path, "k8s/dev/web.yaml");
    }

    #[test]
    fn what_cannot_be_read_is_told_as_of_a_commit() {
        let chart = [
            ("ops/chart/Chart.yaml", CHART),
            ("ops/values-qa.yaml", "a: 1\n"),
            ("ops/values-dev.yaml", "a: 1\n"),
        ];
        let overlays = [("ops/overlays/qa/kustomization.yaml", "resources: []\n")];
        let folders = [("deploy/qa/web.yaml", OBJECT)];
        let wrong = |repository: &Repository| -> Vec<String> {
            let files = repository.manifests().unwrap();
            files.iter().filter_map(ManifestFile::wrong).collect()
        };
        for (files, path) in [
            (&chart[..], "ops/values.yaml"),
            (&chart, "ops/values-dev.yaml"),
            (&overlays, "ops/overlays/dev/kustomization.yaml"),
            (&overlays, "ops/overlays/dev"),
            (&folders, "deploy/dev/web.yaml"),
            (&folders, "deploy/dev"),
            (&[], "k8s"),
        ] {
            let (dir, repository) = repository(files);
            let at = dir.path().join(path);
            std::fs::create_dir_all(at.parent().unwrap()).unwrap();
            let _ = std::fs::remove_file(&at);
            std::os::unix::fs::symlink("nowhere", &at).unwrap();
            let [only] = <[String; 1]>::try_from(wrong(&repository)).unwrap();
            let expect = format!("error[manifest::unread]: `{path}` is a link to `nowhere`, and there is nothing");
            assert!(only.starts_with(&expect), "{path}: {only}");
        }
        for (files, path) in [
            (&overlays[..], "ops/overlays/dev"),
            (&folders, "deploy/dev"),
            (&[], "k8s"),
        ] {
            for is_fetched in [true, false] {
                let (dir, _) = repository(files);
                std::fs::create_dir_all(dir.path().join(path)).unwrap();
                let (note, text) = match is_fetched {
                    true => (format!("{path}/.git"), "gitdir: elsewhere\n".to_string()),
                    false => (
                        ".gitmodules".to_string(),
                        format!("[submodule \"a\"]\n\tpath = {path}\n"),
                    ),
                };
                std::fs::write(dir.path().join(note), text).unwrap();
                let [only] = <[String; 1]>::try_from(wrong(&Repository::at(dir.path()).unwrap())).unwrap();
                let expect = format!("error[manifest::unread]: `{path}` is a git submodule");
                assert!(only.starts_with(&expect), "{path}: {only}");
            }
        }
        // What git ignores is no part of a commit, and what cannot hold manifests does not matter.
        let (dir, repository) = repository(&[(".gitignore", "deploy/dev\n"), ("deploy/qa/web.yaml", OBJECT)]);
        std::os::unix::fs::symlink("nowhere", dir.path().join("deploy/dev")).unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("latest")).unwrap();
        assert_eq!(wrong(&repository), Vec::<String>::new());
    }

    #[test]
    fn what_environments_are_made_from_is_none() {
        let files = [
            (".k8s/base/kustomization.yaml", "resources: []\n"),
            (".k8s/base/more/web.yaml", ""),
            (".k8s/live/common/kustomization.yaml", "resources: [../../base]\n"),
            (".k8s/live/dev/kustomization.yaml", "resources: [../common]\n"),
        ];
        check(&files, &[(".k8s/live", &["dev"])]);
        let files = [
            (".k8s/charts/shop/Chart.yaml", "name: shop\n"),
            (".k8s/live/dev/values.yaml", "a: 1\n"),
        ];
        check(&files, &[(".k8s/live", &["dev"])]);
    }
}
