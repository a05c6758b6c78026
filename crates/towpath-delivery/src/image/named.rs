//! Which images the manifests name, and which of them is the project's. Pure.

use crate::project_file::ProjectFile;
use std::collections::{BTreeMap, BTreeSet};
use towpath_deploy::render::is_yaml;
use towpath_manifest::{ManifestFile, Object, Tree};
use towpath_types::ImageReference;

/// Every object in manifests, and in templates that environments are rendered from.
fn all_objects(files: &[ManifestFile]) -> Vec<Object> {
    // Treat each file as an environment of its own, wherever it is: only its objects matter.
    let yaml = files.iter().filter(|file| is_yaml(&file.path)).enumerate();
    let texts: Vec<(String, &str)> = yaml
        .map(|(at, file)| (format!(".k8s/all/{at}/file.yaml"), file.text_or_nothing()))
        .collect();
    let (tree, _) = Tree::read(texts.iter().map(|(path, text)| (path.as_str(), *text)));
    let contexts = tree.kube_contexts.into_values();
    let environments = contexts.flat_map(|context| context.environments.into_values());
    environments
        .flat_map(|environment| environment.objects.into_iter().chain(environment.jobs))
        .collect()
}

/// The containers in all manifests, each with its image.
pub(crate) fn all_containers(files: &[ManifestFile]) -> BTreeSet<(String, String)> {
    let objects = all_objects(files);
    let all = objects.iter().flat_map(towpath_manifest::containers);
    all.map(|container| (container.name, container.image)).collect()
}

/// The images that the workloads in manifests run, without tag and digest, each with the names of its containers.
/// Includes templates that environments are rendered from.
#[must_use]
pub fn workload_images(files: &[ManifestFile]) -> BTreeMap<String, BTreeSet<String>> {
    let objects = all_objects(files);
    let workloads = objects
        .iter()
        .filter(|object| matches!(object.kind.as_str(), "Deployment" | "StatefulSet" | "DaemonSet"));
    let mut images: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for container in workloads.flat_map(towpath_manifest::containers) {
        if let Ok(image) = container.image.parse::<ImageReference>() {
            images.entry(image.name()).or_default().insert(container.name);
        }
    }
    images
}

/// Registries that mostly host other people's images.
pub(crate) const PUBLIC_REGISTRIES: [&str; 8] = [
    "docker.io",
    "gcr.io",
    "ghcr.io",
    "k8s.gcr.io",
    "mcr.microsoft.com",
    "public.ecr.aws",
    "quay.io",
    "registry.k8s.io",
];

/// Whether a repository in Towpath's own registry is the project's: its name, or one below it.
pub(crate) fn is_of_project(repository: &str, project: &str) -> bool {
    let rest = repository.strip_prefix(project);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The project's image as its manifests name it, in an external registry: the only one with the project's name, or else
/// the only one outside of the public registries.
#[must_use]
pub fn image_in_manifests(project: &str, files: &[ManifestFile]) -> Option<String> {
    let images = external_images(project, files)?;
    let is_public = |image: &&ImageReference| {
        let registry = image.registry.as_deref().unwrap_or_default();
        PUBLIC_REGISTRIES.contains(&registry)
    };
    with_projects_name(project, &images).or_else(|| only(images.iter().filter(|image| !is_public(image))))
}

/// The images of workloads in external registries. `None` if the project's are in Towpath's own: they have the
/// project's name and no registry.
fn external_images(project: &str, files: &[ManifestFile]) -> Option<Vec<ImageReference>> {
    let runs = workload_images(files);
    let images = runs.keys().filter_map(|name| name.parse::<ImageReference>().ok());
    let (elsewhere, here): (Vec<_>, Vec<_>) = images.partition(|image| image.registry.is_some());
    let is_own = here.iter().any(|image| is_of_project(&image.repository, project));
    (!is_own).then_some(elsewhere)
}

fn with_projects_name(project: &str, images: &[ImageReference]) -> Option<String> {
    let last = |image: &&ImageReference| image.repository.rsplit('/').next() == Some(project);
    only(images.iter().filter(last))
}

fn only<'a>(mut images: impl Iterator<Item = &'a ImageReference>) -> Option<String> {
    let first = images.next()?;
    images.next().is_none().then(|| first.name())
}

/// Fills in the image from the manifests if the project file does not name one. Beside `[images]`, only its own name
/// makes an image the project's.
#[must_use]
pub fn with_found_image(mut file: ProjectFile, project: &str, files: &[ManifestFile]) -> ProjectFile {
    file.image = file.image.or_else(|| match file.images.is_empty() {
        true => image_in_manifests(project, files),
        false => with_projects_name(project, &external_images(project, files)?),
    });
    file
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn file(path: &str, text: &str) -> ManifestFile {
        ManifestFile::text(path, text)
    }

    fn deployment(image: &str) -> String {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\nspec:\n  template:\n    spec:\n      containers:\n        - name: app\n          image: {image}\n"
        )
    }

    #[test]
    fn the_images_of_workloads_come_with_their_containers() {
        let files = [file(".k8s/live/dev/web.yaml", &deployment("web"))];
        let images = workload_images(&files);
        assert_eq!(images["web"], BTreeSet::from(["app".to_string()]));
    }

    #[test]
    fn the_projects_image_is_where_the_manifests_say() {
        let found = |images: &[&str]| {
            let files: Vec<ManifestFile> = images
                .iter()
                .enumerate()
                // A Kustomize base counts, though it is not an environment.
                .map(|(at, image)| file(&format!(".k8s/base/{at}.yaml"), &deployment(image)))
                .collect();
            image_in_manifests("claims", &files)
        };
        let team = "1234.dkr.ecr.eu-west-2.amazonaws.com/team/cccd";
        let is = |name: &str| Some(name.to_string());
        assert_eq!(found(&["claims:latest", &format!("{team}:x")]), None);
        assert_eq!(
            found(&[&format!("{team}:x"), "redis:7", &format!("{team}:y")]),
            is(team)
        );
        assert_eq!(found(&[team, "quay.io/oauth2-proxy/oauth2-proxy:v7"]), is(team));
        assert_eq!(found(&["ghcr.io/team/claims:1", team]), is("ghcr.io/team/claims"));
        assert_eq!(found(&["quay.io/oauth2-proxy/oauth2-proxy:v7", "app"]), None);
        assert_eq!(found(&["r.example.org/one", "r.example.org/two"]), None);
        let own = ProjectFile::parse("image = \"mine\"").unwrap();
        let files = [file(".k8s/live/dev/web.yaml", &deployment(team))];
        assert_eq!(with_found_image(own, "claims", &files).image, is("mine"));
        assert_eq!(
            with_found_image(ProjectFile::default(), "claims", &files).image,
            is(team)
        );
    }
}
