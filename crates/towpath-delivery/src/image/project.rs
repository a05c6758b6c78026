//! The images of a project, and which containers run them. Pure.

use super::choice::image_repository;
use crate::{
    error::DeliveryError,
    image::named::{PUBLIC_REGISTRIES, all_containers, is_of_project, with_found_image},
    image_table::ImageTable,
    project_file::{PROJECT_FILE, ProjectFile},
};
use std::collections::{BTreeMap, BTreeSet};
use towpath_manifest::{Container, Fit, ImageRule, ManifestFile, Object, containers};
use towpath_types::ImageReference;

/// A container in manifests: its name and its image.
pub(crate) type Run = (String, String);

/// The containers of objects.
pub(crate) fn runs_of<'a>(objects: impl IntoIterator<Item = &'a Object>) -> BTreeSet<Run> {
    let all = objects.into_iter().flat_map(containers);
    all.map(|container| (container.name, container.image)).collect()
}

/// One image of a project.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ProjectImage {
    /// Without tag and digest.
    repository: ImageReference,
    rule: ImageRule,
    /// The weakest fit that counts.
    least: Fit,
    /// Whether `towpath.toml` has a table for it.
    is_declared: bool,
}

impl ProjectImage {
    fn fit(&self, container: &str, image: &str) -> Option<Fit> {
        self.rule.fit(container, image).filter(|fit| *fit >= self.least)
    }
}

/// The images that some objects need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Needed {
    /// Their repositories by name. A project's only image is always needed.
    pub images: BTreeMap<String, ImageReference>,
    /// Whether an object runs any.
    pub is_run: bool,
}

/// The images of a project by name. A project's only image has the project's name, unless `towpath.toml` names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProjectImages {
    images: BTreeMap<String, ProjectImage>,
}

impl ProjectImages {
    /// The images that `towpath.toml` names, and those of the containers `runs` whose repository is below the
    /// project's. The project's image itself counts when there is no other, and when something runs it.
    ///
    /// # Errors
    /// `Invalid` when an image would be in Towpath's own registry under the name of another project.
    pub(crate) fn find(
        project: &str,
        file: &ProjectFile,
        own_registry: &str,
        runs: &BTreeSet<Run>,
    ) -> Result<Self, DeliveryError> {
        let base = base(project, file, own_registry, runs);
        let mut images = BTreeMap::new();
        for (name, table) in &file.images {
            let repository = declared_repository(name, table, &base, own_registry, runs);
            if repository.registry.as_deref() == Some(own_registry) && !is_of_project(&repository.repository, project) {
                return Err(DeliveryError::invalid(format!(
                    "`[images.{name}]` in `{PROJECT_FILE}`: the repository `{}` is in Towpath's own registry, where this \
                     project's are `{project}` and those below `{project}/`: name a registry in front of it, or call it \
                     `{project}/{name}`",
                    repository.repository
                )));
            }
            let rule = ImageRule {
                repository: repository.repository.clone(),
                containers: table.containers.clone(),
            };
            // Where manifests write a repository out, `redis` alone is somebody else's.
            let is_written_out = |(container, image): &Run| rule.fit(container, image) == Some(Fit::Repository);
            let least = match runs.iter().any(is_written_out) {
                true => Fit::Repository,
                false => Fit::BareName,
            };
            let image = ProjectImage {
                repository,
                rule,
                least,
                is_declared: true,
            };
            images.insert(name.clone(), image);
        }
        let own = ProjectImage {
            rule: ImageRule {
                repository: base.repository.clone(),
                containers: file.containers.clone(),
            },
            repository: base.clone(),
            least: Fit::BareName,
            is_declared: false,
        };
        for (container, image) in runs {
            let fits = |known: &ProjectImage| known.fit(container, image).is_some();
            if images.values().any(fits) || fits(&own) {
                continue;
            }
            let Some((name, repository)) = below(&base, image, own_registry) else {
                continue;
            };
            let is_taken = images.contains_key(&name) || name == project;
            let name = if is_taken { repository.repository.clone() } else { name };
            let image = ProjectImage {
                rule: ImageRule::repository(&repository.repository),
                repository,
                least: Fit::Repository,
                is_declared: false,
            };
            images.insert(name, image);
        }
        let is_declared = images.contains_key(project) || images.values().any(|image| image.repository == base);
        let runs_own = |(container, image): &Run| {
            let best = images.values().filter_map(|other| other.fit(container, image)).max();
            own.fit(container, image).is_some_and(|fit| Some(fit) > best)
        };
        if images.is_empty() || (!is_declared && runs.iter().any(runs_own)) {
            images.insert(project.to_string(), own);
        }
        Ok(Self { images })
    }

    /// The image that a container runs; `None` if it is not one of the project's.
    ///
    /// # Errors
    /// The names of the images if the container may run several.
    pub(crate) fn owner(&self, container: &Container) -> Result<Option<&str>, Vec<&str>> {
        let fits = self.images.iter().filter_map(|(name, image)| {
            let fit = image.fit(&container.name, &container.image)?;
            Some((fit, name.as_str(), image))
        });
        let fits: Vec<_> = fits.collect();
        let best = fits.iter().map(|(fit, ..)| *fit).max();
        let mut best: Vec<_> = fits.into_iter().filter(|(fit, ..)| Some(*fit) == best).collect();
        if best.len() > 1
            && let Ok(image) = container.image.parse::<ImageReference>()
            && best.iter().any(|(.., known)| known.repository.name() == image.name())
        {
            best.retain(|(.., known)| known.repository.name() == image.name());
        }
        match best.as_slice() {
            [] => Ok(None),
            [(_, name, _)] => Ok(Some(name)),
            several => Err(several.iter().map(|(_, name, _)| *name).collect()),
        }
    }

    /// The images that `objects` need.
    pub(crate) fn needed<'a>(&self, objects: impl IntoIterator<Item = &'a Object>) -> Needed {
        let all = objects.into_iter().flat_map(containers);
        let run: BTreeSet<&str> = all
            .filter_map(|container| self.owner(&container).ok().flatten())
            .collect();
        let is_needed = |name: &str| self.images.len() == 1 || run.contains(name);
        let needed = self.images.iter().filter(|(name, _)| is_needed(name));
        Needed {
            images: needed
                .map(|(name, image)| (name.clone(), image.repository.clone()))
                .collect(),
            is_run: !run.is_empty(),
        }
    }

    /// Every image with its repository.
    pub(crate) fn repositories(&self) -> BTreeMap<String, ImageReference> {
        let all = self.images.iter();
        all.map(|(name, image)| (name.clone(), image.repository.clone()))
            .collect()
    }

    /// The images in `towpath.toml` that are not among `needed`; sentences.
    pub(crate) fn unused(&self, needed: &BTreeMap<String, ImageReference>, environment: &str) -> Vec<String> {
        let unused = self
            .images
            .iter()
            .filter(|(name, image)| image.is_declared && !needed.contains_key(*name));
        unused
            .map(|(name, image)| {
                format!(
                    "nothing in `{environment}` runs `{}`, the image `{name}` of `{PROJECT_FILE}`, so the release names none",
                    image.repository.name()
                )
            })
            .collect()
    }

    /// The containers that may run several images; sentences.
    pub(crate) fn ambiguous(&self, objects: &[Object]) -> Vec<String> {
        let mut found = Vec::new();
        for object in objects {
            for container in containers(object) {
                if let Err(names) = self.owner(&container) {
                    let names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
                    found.push(format!(
                        "{}: {}: the container `{}` may run any of the images {}: write out the image's repository",
                        object.place_of(&format!("{}/image", container.pointer)),
                        object.id(),
                        container.name,
                        names.join(", ")
                    ));
                }
            }
        }
        found
    }

    /// The images in `objects` that are not the project's, as their manifests have them.
    pub(crate) fn third_party(&self, objects: &[Object]) -> BTreeSet<String> {
        let all = objects.iter().flat_map(containers);
        let others = all.filter(|container| matches!(self.owner(container), Ok(None)));
        others
            .map(|container| container.image)
            .filter(|image| !image.is_empty())
            .collect()
    }
}

fn parsed(runs: &BTreeSet<Run>) -> impl Iterator<Item = ImageReference> {
    runs.iter().filter_map(|(_, image)| image.parse().ok())
}

/// The repository of the project's image, which those of its other images are below.
fn base(project: &str, file: &ProjectFile, own_registry: &str, runs: &BTreeSet<Run>) -> ImageReference {
    let own = image_repository(project, file, own_registry);
    let is_own = |image: ImageReference| image.registry.is_none() && is_of_project(&image.repository, project);
    if file.image.is_some() || parsed(runs).any(is_own) {
        return own;
    }
    // A folder with the project's name in one registry. In public registries it may be anybody's.
    let folder = |image: ImageReference| {
        let registry = image
            .registry
            .filter(|registry| registry != own_registry && !PUBLIC_REGISTRIES.contains(&registry.as_str()))?;
        let parts: Vec<&str> = image.repository.split('/').collect();
        let (_, folders) = parts.split_last()?;
        let at = folders.iter().position(|folder| *folder == project)?;
        Some((registry, folders.get(..=at)?.join("/")))
    };
    let folders: BTreeSet<(String, String)> = parsed(runs).filter_map(folder).collect();
    match Vec::from_iter(folders).as_slice() {
        [(registry, repository)] => ImageReference {
            registry: Some(registry.clone()),
            repository: repository.clone(),
            ..own
        },
        _ => own,
    }
}

fn declared_repository(
    name: &str,
    table: &ImageTable,
    base: &ImageReference,
    own_registry: &str,
    runs: &BTreeSet<Run>,
) -> ImageReference {
    let said = table
        .repository
        .as_deref()
        .and_then(|text| text.parse::<ImageReference>().ok());
    if let Some(mut said) = said {
        said.registry.get_or_insert_with(|| own_registry.to_string());
        return said;
    }
    let last = format!("/{name}");
    let elsewhere = parsed(runs)
        .filter(|image| image.registry.is_some() && (image.repository == name || image.repository.ends_with(&last)));
    let elsewhere: BTreeSet<String> = elsewhere.map(|image| image.name()).collect();
    let only = match Vec::from_iter(elsewhere).as_slice() {
        [only] => only.parse().ok(),
        _ => None,
    };
    only.unwrap_or_else(|| ImageReference {
        repository: format!("{}/{name}", base.repository),
        ..base.clone()
    })
}

/// The name and the repository of an image below `base`. One without a registry is in the registry of `base`.
fn below(base: &ImageReference, image: &str, own_registry: &str) -> Option<(String, ImageReference)> {
    let image = image.parse::<ImageReference>().ok()?;
    let is_there = match image.registry.as_deref() {
        None => true,
        Some(registry) => registry == own_registry || Some(registry) == base.registry.as_deref(),
    };
    let name = image
        .repository
        .strip_prefix(&base.repository)?
        .strip_prefix('/')?
        .to_string();
    let repository = ImageReference {
        repository: image.repository,
        ..base.clone()
    };
    is_there.then_some((name, repository))
}

/// The repositories of a project's images by name, from its project file and all of its manifests.
///
/// # Errors
/// `Invalid` when an image would be in Towpath's own registry under the name of another project.
pub fn project_images(
    project: &str,
    file: &ProjectFile,
    files: &[ManifestFile],
    own_registry: &str,
) -> Result<BTreeMap<String, ImageReference>, DeliveryError> {
    let file = with_found_image(file.clone(), project, files);
    let found = ProjectImages::find(project, &file, own_registry, &all_containers(files))?;
    Ok(found.repositories())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const OWN: &str = "127.0.0.1:7070";

    fn found(toml: &str, images: &[&str]) -> ProjectImages {
        let runs = images.iter().enumerate();
        let runs = runs
            .map(|(at, image)| (format!("c{at}"), (*image).to_string()))
            .collect();
        ProjectImages::find("shop", &ProjectFile::parse(toml).unwrap(), OWN, &runs).unwrap()
    }

    fn check(toml: &str, images: &[&str], expect: &[(&str, &str)]) {
        let found = found(toml, images).repositories();
        let found: Vec<(&str, String)> = found
            .iter()
            .map(|(name, image)| (name.as_str(), image.name()))
            .collect();
        let expect: Vec<(&str, String)> = expect
            .iter()
            .map(|(name, image)| (*name, (*image).to_string()))
            .collect();
        assert_eq!(found, expect, "{toml} {images:?}");
    }

    #[test]
    fn a_project_has_one_image_unless_something_says_otherwise() {
        let only = [("shop", "127.0.0.1:7070/shop")];
        check("", &[], &only);
        check("", &["shop:latest", "redis:7"], &only);
        check("", &["redis:7", "quay.io/shop/proxy"], &only);
        check("image = \"r.io/team/shop\"", &["app"], &[("shop", "r.io/team/shop")]);
    }

    #[test]
    fn images_below_the_projects_repository_are_the_projects() {
        check(
            "",
            &["shop/vote:1", "127.0.0.1:7070/shop/back/end", "redis"],
            &[
                ("back/end", "127.0.0.1:7070/shop/back/end"),
                ("vote", "127.0.0.1:7070/shop/vote"),
            ],
        );
        check(
            "",
            &["shop/vote", "shop"],
            &[("shop", "127.0.0.1:7070/shop"), ("vote", "127.0.0.1:7070/shop/vote")],
        );
        // Registries of others may have a folder of the same name.
        check(
            "",
            &["shop/vote", "docker.io/shop/x"],
            &[("vote", "127.0.0.1:7070/shop/vote")],
        );
        check(
            "image = \"r.io/team/shop\"",
            &["r.io/team/shop/vote", "team/shop/result", "r.io/team/other"],
            &[("result", "r.io/team/shop/result"), ("vote", "r.io/team/shop/vote")],
        );
        check(
            "",
            &[
                "r.io/team/shop/vote:latest",
                "r.io/team/shop/result",
                "r.io/mirror/redis",
            ],
            &[("result", "r.io/team/shop/result"), ("vote", "r.io/team/shop/vote")],
        );
        // It is not clear which of the two the project's is.
        check(
            "",
            &["r.io/shop/vote", "s.io/shop/vote"],
            &[("shop", "127.0.0.1:7070/shop")],
        );
        check(
            "[images.vote]\nrepository = \"r.io/vote\"\n",
            &["shop/vote", "r.io/vote"],
            &[("shop/vote", "127.0.0.1:7070/shop/vote"), ("vote", "r.io/vote")],
        );
        check(
            "image = \"r.io/team/shop\"",
            &["r.io/team/shop/shop"],
            &[("team/shop/shop", "r.io/team/shop/shop")],
        );
    }

    #[test]
    fn declared_images_have_a_repository_without_saying_it() {
        let toml = "[images.vote]\n[images.result]\n";
        check(
            toml,
            &[],
            &[
                ("result", "127.0.0.1:7070/shop/result"),
                ("vote", "127.0.0.1:7070/shop/vote"),
            ],
        );
        check(
            toml,
            &["ghcr.io/team/vote:1", "result", "shop"],
            &[
                ("result", "127.0.0.1:7070/shop/result"),
                ("shop", "127.0.0.1:7070/shop"),
                ("vote", "ghcr.io/team/vote"),
            ],
        );
        check(
            "image = \"r.io/team/shop\"\n[images.vote]\n",
            &[],
            &[("vote", "r.io/team/shop/vote")],
        );
        check("[images.shop]\n", &["shop"], &[("shop", "127.0.0.1:7070/shop/shop")]);
        let file = ProjectFile::parse("[images.vote]\nrepository = \"vote\"\n").unwrap();
        let error = ProjectImages::find("shop", &file, OWN, &BTreeSet::new())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("the repository `vote` is in Towpath's own registry") && error.contains("`shop/vote`"),
            "{error}"
        );
    }

    fn owner(images: &ProjectImages, name: &str, image: &str) -> String {
        let container = Container {
            name: name.into(),
            image: image.into(),
            pointer: String::new(),
            init: false,
        };
        match images.owner(&container) {
            Ok(owner) => owner.unwrap_or("nobody").to_string(),
            Err(several) => several.join(" or "),
        }
    }

    #[test]
    fn each_container_has_one_owner() {
        let images = found(
            "[images.vote]\n[images.result]\ncontainers = [\"odd\"]\n",
            &["vote", "r.io/x/y"],
        );
        for (name, image, expect) in [
            ("c", "vote:1", "vote"),
            ("c", "other.io/shop/vote", "vote"),
            ("c", "other.io/team/vote", "nobody"),
            ("odd", "vote", "result"),
            ("c", "redis", "nobody"),
            ("c", "", "nobody"),
        ] {
            assert_eq!(owner(&images, name, image), expect, "{name} {image}");
        }
    }

    #[test]
    fn somebody_elses_image_of_the_same_name_stays_theirs() {
        let images = found(
            "[images.redis]\ndockerfile = \"redis/Dockerfile\"\n",
            &["shop/redis", "redis:7"],
        );
        assert_eq!(owner(&images, "c", "shop/redis:1"), "redis");
        assert_eq!(owner(&images, "c", "redis:7"), "nobody");
    }

    #[test]
    fn what_may_be_several_images_is_not_guessed() {
        let toml = "[images.a]\nrepository = \"r.io/x/web\"\n[images.b]\nrepository = \"s.io/y/web\"\n";
        let images = found(toml, &["web"]);
        assert_eq!(owner(&images, "c", "web"), "a or b");
        let toml = "[images.a]\nrepository = \"r.io/x/web\"\n[images.b]\nrepository = \"s.io/x/web\"\n";
        let images = found(toml, &["s.io/x/web"]);
        assert_eq!(owner(&images, "c", "s.io/x/web:1"), "b");
        assert_eq!(owner(&images, "c", "x/web"), "a or b");
    }
}
