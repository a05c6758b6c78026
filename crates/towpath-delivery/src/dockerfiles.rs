//! Which image of the manifests each Dockerfile of a repository builds.

use crate::image::workload_images;
use std::{collections::BTreeSet, fmt};
use towpath_deploy::render::is_yaml;
use towpath_manifest::ManifestFile;
use towpath_types::ImageReference;

/// A Dockerfile, and the image that it builds.
#[allow(missing_docs)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltImage {
    pub dockerfile: String,
    pub image: Option<(String, BuiltBecause)>,
}

/// Why a Dockerfile builds an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuiltBecause {
    /// A file of the pipeline builds it; the file and the line.
    Pipeline(String, usize),
    /// The image is called like the Dockerfile or its folder.
    Name,
    /// There is only one Dockerfile, and only one image that is not from a public registry.
    Only,
}

impl fmt::Display for BuiltBecause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pipeline(file, line) => write!(f, "built at {file}:{line}"),
            Self::Name => f.write_str("it has the same name"),
            Self::Only => f.write_str("there is no other"),
        }
    }
}

/// The names of folders that say nothing about the image that is built in them.
const GENERIC: [&str; 7] = ["build", "ci", "container", "deploy", "docker", "image", "images"];

/// Whether a file may say how the pipeline builds images.
#[must_use]
pub fn is_of_a_pipeline(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let is_yaml = is_yaml(path);
    let is_workflow = [".circleci/", ".github/workflows/"]
        .iter()
        .any(|folder| path.starts_with(folder));
    (is_workflow && is_yaml)
        || matches!(
            path,
            ".gitlab-ci.yml" | "Jenkinsfile" | "Makefile" | "azure-pipelines.yml" | "bitbucket-pipelines.yml"
        )
        || (!path.contains('/') && is_yaml && (name.starts_with("docker-compose") || name.starts_with("compose")))
}

/// The repositories of the images that manifests and values name, without tag and digest.
fn images_named(files: &[ManifestFile]) -> BTreeSet<String> {
    let mut images: BTreeSet<String> = workload_images(files).into_keys().collect();
    let lines = files
        .iter()
        .filter(|file| is_yaml(&file.path))
        .flat_map(|file| file.text_or_nothing().lines());
    for line in lines {
        let line = line.trim_start().trim_start_matches("- ");
        let value = ["repository:", "newName:", "image:"]
            .iter()
            .find_map(|key| line.strip_prefix(key));
        let Some(value) = value.map(|value| value.split(" #").next().unwrap_or(value)) else {
            continue;
        };
        let value = value.trim().trim_matches(['"', '\'']);
        if let Ok(image) = value.parse::<ImageReference>() {
            images.insert(image.name());
        }
    }
    images
}

/// A `docker build` in a file of the pipeline.
#[derive(Debug, PartialEq, Eq)]
struct DockerBuild {
    dockerfile: String,
    /// The last part of the image's name.
    image: String,
    line: usize,
}

/// The `docker build`s and Compose services in a text.
fn builds(text: &str) -> Vec<DockerBuild> {
    let mut found = Vec::new();
    let mut line_of_command = 1;
    let mut command = String::new();
    for (at, line) in text.lines().enumerate() {
        if command.is_empty() {
            line_of_command = at + 1;
        }
        match line.trim_end().strip_suffix('\\') {
            Some(part) => {
                command.push_str(part);
                command.push(' ');
            }
            None => {
                command.push_str(line);
                found.extend(docker_build(&command, line_of_command));
                command.clear();
            }
        }
    }
    found
}

fn docker_build(command: &str, line: usize) -> Option<DockerBuild> {
    let starts = [
        "docker build ",
        "docker buildx build ",
        "podman build ",
        "buildah build ",
    ];
    let rest = starts
        .iter()
        .find_map(|start| command.split_once(start).map(|(_, rest)| rest))?;
    let words = rest.split_whitespace().map(|word| word.trim_matches(['"', '\'']));
    let mut words = words.take_while(|word| !matches!(*word, "&&" | "||" | ";" | "|"));
    let (mut dockerfile, mut image, mut context) = (None, None, None);
    while let Some(word) = words.next() {
        let (option, value) = match word.split_once('=') {
            Some((option, value)) if option.starts_with('-') => (option, Some(value)),
            _ => (word, None),
        };
        match option {
            "-t" | "--tag" => image = image.or(value.or_else(|| words.next())),
            "-f" | "--file" => dockerfile = value.or_else(|| words.next()),
            "--build-arg" | "--target" | "--platform" | "--label" | "--cache-from" | "--cache-to" | "--network"
            | "--secret" | "--ssh" | "--progress" | "--output" | "-o" | "--iidfile" | "--builder"
                if value.is_none() =>
            {
                words.next();
            }
            option if option.starts_with('-') => {}
            word => context = context.or(Some(word)),
        }
    }
    let clean = |path: &str| {
        let parts = path.split('/').filter(|part| !matches!(*part, "" | "."));
        parts.collect::<Vec<_>>().join("/")
    };
    let dockerfile = match (dockerfile, context) {
        (Some(named), _) => clean(named),
        (None, Some(context)) => clean(&format!("{context}/Dockerfile")),
        (None, None) => return None,
    };
    let name = image?.rsplit('/').next()?;
    let name = name.split([':', '@']).next()?;
    (!name.is_empty() && !name.contains('$')).then(|| DockerBuild {
        dockerfile,
        image: name.to_string(),
        line,
    })
}

fn last_part(image: &str) -> &str {
    image.rsplit('/').next().unwrap_or(image)
}

/// The name that a Dockerfile gives to its image: `worker` for `Dockerfile.worker` and `worker/Dockerfile`, and the project for
/// one at the root.
fn name_of<'a>(dockerfile: &'a str, project: &'a str) -> &'a str {
    let (folder, file) = dockerfile.rsplit_once('/').unwrap_or(("", dockerfile));
    let own = file
        .strip_prefix("Dockerfile.")
        .or_else(|| file.strip_suffix(".Dockerfile"));
    if let Some(own) = own.filter(|own| !own.is_empty()) {
        return own;
    }
    let around = folder
        .rsplit('/')
        .find(|part| !part.is_empty() && !GENERIC.contains(part));
    around.unwrap_or(project)
}

/// Finds which image each Dockerfile builds: as the files of the pipeline (paths and texts) say, or by its name. Only an image
/// that manifests or values name counts.
#[must_use]
pub fn built_images(
    project: &str,
    dockerfiles: &[String],
    manifests: &[ManifestFile],
    pipeline: &[(String, String)],
) -> Vec<BuiltImage> {
    let images = images_named(manifests);
    let builds: Vec<(&str, DockerBuild)> = pipeline
        .iter()
        .flat_map(|(path, text)| builds(text).into_iter().map(|build| (path.as_str(), build)))
        .collect();
    let own: Vec<&String> = images.iter().filter(|image| image.contains('/')).collect();
    let image_of = |dockerfile: &String| {
        let said = builds.iter().filter(|(_, build)| build.dockerfile == *dockerfile);
        for (path, build) in said {
            if let Some(image) = images.iter().find(|image| last_part(image) == build.image) {
                return Some((image.clone(), BuiltBecause::Pipeline((*path).to_string(), build.line)));
            }
        }
        let name = name_of(dockerfile, project);
        let is_called = |image: &&String| last_part(image) == name;
        let ends_so = |image: &&String| {
            let rest = last_part(image).strip_suffix(name);
            rest.is_some_and(|rest| rest.ends_with(['-', '_', '.']))
        };
        let called = images.iter().find(is_called).or_else(|| images.iter().find(ends_so));
        match (called, own.as_slice(), dockerfiles) {
            (Some(called), ..) => Some((called.clone(), BuiltBecause::Name)),
            (None, [only], [_]) => Some(((*only).clone(), BuiltBecause::Only)),
            _ => None,
        }
    };
    let built = dockerfiles.iter().map(|dockerfile| BuiltImage {
        dockerfile: dockerfile.clone(),
        image: image_of(dockerfile),
    });
    built.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(image: &str) -> ManifestFile {
        let text = format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: a}}\nspec: {{template: {{spec: {{containers: [{{name: a, image: '{image}'}}]}}}}}}\n"
        );
        ManifestFile::text(format!("k8s/{}.yaml", image.replace('/', "-")), text)
    }

    fn check(project: &str, dockerfiles: &[&str], files: &[ManifestFile], pipeline: &[(&str, &str)], expect: &[&str]) {
        let dockerfiles: Vec<String> = dockerfiles.iter().map(ToString::to_string).collect();
        let pipeline: Vec<(String, String)> = pipeline
            .iter()
            .map(|(path, text)| ((*path).to_string(), (*text).to_string()))
            .collect();
        let found = built_images(project, &dockerfiles, files, &pipeline);
        let said: Vec<String> = found
            .iter()
            .map(|built| match &built.image {
                Some((image, because)) => format!("{}: {image}, {because}", built.dockerfile),
                None => format!("{}: none", built.dockerfile),
            })
            .collect();
        assert_eq!(said, expect);
    }

    #[test]
    fn a_dockerfile_builds_the_image_that_is_called_like_it() {
        let files = [
            manifest("r.example.org/team/shop-vote:1"),
            manifest("r.example.org/team/worker"),
            manifest("r.example.org/team/shop"),
            manifest("redis:7"),
        ];
        check(
            "shop",
            &[
                "Dockerfile",
                "vote/Dockerfile",
                "docker/Dockerfile.worker",
                "result/Dockerfile",
            ],
            &files,
            &[],
            &[
                "Dockerfile: r.example.org/team/shop, it has the same name",
                "vote/Dockerfile: r.example.org/team/shop-vote, it has the same name",
                "docker/Dockerfile.worker: r.example.org/team/worker, it has the same name",
                "result/Dockerfile: none",
            ],
        );
    }

    #[test]
    fn the_pipeline_knows_better_than_the_name() {
        let files = [manifest("r.example.org/team/front"), manifest("r.example.org/team/api")];
        let text = "jobs:\n  - run: |\n      docker build --build-arg A=1 \\\n        -t \"$REGISTRY/front:$SHA\" \\\n        -f ./api/Dockerfile .\n  - run: docker buildx build --push --tag=x/api:1 ./web/ && echo\n";
        check(
            "shop",
            &["api/Dockerfile", "web/Dockerfile"],
            &files,
            &[(".circleci/config.yml", text)],
            &[
                "api/Dockerfile: r.example.org/team/front, built at .circleci/config.yml:3",
                "web/Dockerfile: r.example.org/team/api, built at .circleci/config.yml:6",
            ],
        );
    }

    #[test]
    fn values_of_a_chart_name_images_too() {
        let values = "image:\n  repository: \"r.example.org/team/cccd\" # ours\n  tag: x\n";
        let files = [ManifestFile::text("helm/values.yaml", values)];
        check(
            "other",
            &["docker/Dockerfile"],
            &files,
            &[("Makefile", "build:\n\tdocker build -t $(IMAGE) .\n")],
            &["docker/Dockerfile: r.example.org/team/cccd, there is no other"],
        );
        check(
            "other",
            &["a/Dockerfile", "b/Dockerfile"],
            &files,
            &[],
            &["a/Dockerfile: none", "b/Dockerfile: none"],
        );
    }
}
