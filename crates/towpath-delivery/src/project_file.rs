//! `towpath.toml`: the findings of `towpath init` in a repository. Optional and short.

use crate::{
    environment_tables::{EnvironmentTable, Text, settings},
    freeze::Freeze,
    image_table::{self, ImageTable},
    project_schema::{Step, unknown_key},
};
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt::Write as _, time::Duration};
use toml::de::DeTable;
use towpath_manifest::{LayoutSettings, SourceFile};
use towpath_types::ImageReference;

/// The file's name, at the repository's root.
pub const PROJECT_FILE: &str = "towpath.toml";

/// What a repository declares instead of leaving it to Towpath to detect. Every line is optional.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProjectFile {
    /// The project's name. The default is the name of the repository's folder.
    pub project: Option<String>,
    /// The image's repository: `claims` in Towpath's own registry, or `registry.example.org/team/claims` in another.
    /// The default is the one in an external registry that the manifests name, or else the project's name.
    pub image: Option<String>,
    /// The project's images by name, if it has several.
    #[serde(default)]
    pub images: BTreeMap<String, ImageTable>,
    /// The folder to look for environments in: `.k8s/live`, `deploy/overlays`, or the folder of a chart. By default `.k8s/`
    /// counts, and without it whatever looks like environments.
    pub manifests: Option<String>,
    /// The kube context of environments for which nothing else names one.
    pub kube_context: Option<String>,
    /// The namespace of an environment: `cccd-{environment}`. The default is the namespace in its manifests, or else
    /// `<project>-<environment>`.
    pub namespace: Option<String>,
    /// The names of containers that run the image, whatever their manifests say. The default is the containers whose
    /// image has its repository.
    #[serde(default)]
    pub containers: Vec<String>,
    /// What happens when a deployment fails, by environment. The default restores the previous release.
    #[serde(default)]
    pub on_failure: BTreeMap<String, OnFailure>,
    /// How long a deployment may take.
    #[serde(default)]
    pub wait: Wait,
    /// When not to deploy.
    #[serde(default)]
    pub freeze: Vec<Freeze>,
    /// The branches whose commits a pipeline may deploy to a protected environment, besides the default branch. Towpath
    /// reads this from the default branch only.
    #[serde(default)]
    pub protected_branches: Vec<String>,
    /// What it says about single environments, by name. Towpath reads whether one is protected from the default branch only.
    #[serde(default)]
    pub environments: BTreeMap<String, EnvironmentTable>,
    /// What it says about the layout of the repository, with the place of each value.
    #[serde(skip)]
    pub layout: LayoutSettings,
    /// How `towpath build` makes the image.
    pub build: Option<Build>,
}

/// What happens when a deployment fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// The previous release is restored.
    #[default]
    Rollback,
    /// Everything stays as it is, so that somebody can look at it.
    Stop,
}

/// How long a deployment may take. Each Deployment has its own `progressDeadlineSeconds` as well.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wait {
    /// The limit for the whole deployment: `45m`. The default is 30 minutes.
    pub release: Option<SignedDuration>,
    /// How long a pod may wait for a node: `5m`, for a cluster that adds nodes by itself. The default is 90 seconds.
    pub unschedulable: Option<SignedDuration>,
}

/// The longest limit for a deployment.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_hours(24);

/// The default limit for a deployment.
const USUAL_WAIT: Duration = Duration::from_secs(30 * 60);

impl Wait {
    /// The limit for the whole deployment.
    #[must_use]
    pub fn for_release(&self) -> Duration {
        let said = self.release.and_then(|said| said.try_into().ok());
        said.unwrap_or(USUAL_WAIT)
    }

    /// How long a pod may wait for a node; `None` for the target's default.
    #[must_use]
    pub fn for_node(&self) -> Option<Duration> {
        self.unschedulable.and_then(|said| said.try_into().ok())
    }

    /// The name of a duration that is out of range, if there is one.
    fn wrong(&self) -> Option<&'static str> {
        let lengths = [("release", self.release), ("unschedulable", self.unschedulable)];
        let fits = |length: SignedDuration| length.is_positive() && length <= LONGEST_WAIT;
        let wrong = lengths
            .into_iter()
            .find(|(_, length)| length.is_some_and(|length| !fits(length)));
        wrong.map(|(name, _)| name)
    }
}

/// How `towpath build` makes the image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Build {
    /// A command that `sh -c` runs at the repository's root before the image is built.
    pub prepare: Option<String>,
    /// The Dockerfile's path. The default is `Dockerfile`.
    pub dockerfile: Option<String>,
}

/// Why a project file cannot be read, with the place.
#[derive(Debug, thiserror::Error)]
#[error("{PROJECT_FILE}:{line}:{column}: {message}")]
pub struct ProjectFileError {
    line: usize,
    column: usize,
    message: String,
}

impl ProjectFile {
    /// Reads the file's text.
    ///
    /// # Errors
    /// When it is not TOML, has an unknown key, or has a value that makes no sense; with the place and the reason.
    pub fn parse(text: &str) -> Result<Self, ProjectFileError> {
        let at = |start: usize, message: String| {
            let before = &text[..start.min(text.len())];
            ProjectFileError {
                line: before.matches('\n').count() + 1,
                column: before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1,
                message,
            }
        };
        let wrong = |error: toml::de::Error| at(error.span().map_or(0, |span| span.start), error.message().to_string());
        let parsed = DeTable::parse(text).map_err(wrong)?;
        if let Some(unknown) = unknown_key(parsed.get_ref()) {
            return Err(at(unknown.start, unknown.message));
        }
        let mut file: Self = toml::from_str(text).map_err(wrong)?;
        let places = Text {
            source: SourceFile::new(PROJECT_FILE, text),
            table: parsed.get_ref(),
        };
        let start_of = |key: &str| places.key(&[Step::Key(key)]);
        file.layout = settings(
            &file.environments,
            file.manifests.as_ref(),
            file.kube_context.as_ref(),
            file.namespace.as_ref(),
            &places,
        )
        .map_err(|(start, message)| at(start, message))?;
        if let Some(image) = &file.image
            && let Err(error) = image.parse::<ImageReference>()
        {
            return Err(at(
                start_of("image"),
                format!("`{}` cannot name an image: {error}", image.escape_debug()),
            ));
        }
        if let Some((start, message)) = image_table::wrong(&file.images, &places) {
            return Err(at(start, message));
        }
        if let Some(pattern) = &file.namespace {
            let plain = pattern.replace("{environment}", "").replace("{kube_context}", "");
            if plain.contains(['{', '}']) {
                let message = format!(
                    "`{}` has something in braces that is neither `{{environment}}` nor `{{kube_context}}`",
                    pattern.escape_debug()
                );
                return Err(at(start_of("namespace"), message));
            }
        }
        if let Some(name) = file.wait.wrong() {
            let message = format!("`wait.{name}` has to be longer than nothing, and at most a day");
            return Err(at(start_of("wait"), message));
        }
        for (index, freeze) in file.freeze.iter().enumerate() {
            if let Err(message) = freeze.repeats() {
                let tables = text.match_indices("[[freeze]]");
                let start = tables.map(|(start, _)| start).nth(index).unwrap_or_default();
                return Err(at(start, message));
            }
        }
        Ok(file)
    }

    /// Whether nothing begins in `environment` before somebody has seen its plan and agreed.
    #[must_use]
    pub fn is_protected(&self, environment: &str) -> bool {
        self.layout.is_protected(environment)
    }

    /// What happens when a deployment to `environment` fails.
    #[must_use]
    pub fn on_failure(&self, environment: &str) -> OnFailure {
        self.on_failure.get(environment).copied().unwrap_or_default()
    }

    /// Writes the file; parsing the result gives the same value.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text =
            String::from("# What `towpath init` found here. Delete a line to have it found anew each time.\n");
        for (key, value) in [
            ("project", &self.project),
            ("image", &self.image),
            ("manifests", &self.manifests),
            ("kube_context", &self.kube_context),
            ("namespace", &self.namespace),
        ] {
            if let Some(value) = value {
                let _ = writeln!(text, "{key} = {}", toml::Value::String(value.clone()));
            }
        }
        if !self.containers.is_empty() {
            let names = self.containers.iter().cloned().map(toml::Value::String).collect();
            let _ = writeln!(text, "containers = {}", toml::Value::Array(names));
        }
        if let Some(build) = &self.build {
            text.push_str("\n[build]\n");
            for (key, value) in [("prepare", &build.prepare), ("dockerfile", &build.dockerfile)] {
                if let Some(value) = value {
                    let _ = writeln!(text, "{key} = {}", toml::Value::String(value.clone()));
                }
            }
        }
        image_table::render(&self.images, &mut text);
        text
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_rendered_parses_to_the_same() {
        let file = ProjectFile {
            project: Some("claims".into()),
            image: Some("registry.example.org/team/claims".into()),
            containers: vec!["app".into(), "odd \"name\"".into()],
            manifests: Some(".k8s/live".into()),
            kube_context: Some("live".into()),
            namespace: Some("claims-{environment}".into()),
            build: Some(Build {
                prepare: Some("ci/build-binary".into()),
                dockerfile: None,
            }),
            ..ProjectFile::default()
        };
        let read = ProjectFile::parse(&file.render()).unwrap();
        assert_eq!(read.layout.folder(), Some(".k8s/live"));
        let layout = LayoutSettings::default();
        assert_eq!(ProjectFile { layout, ..read }, file);
        assert_eq!(ProjectFile::parse("").unwrap(), ProjectFile::default());
    }

    #[test]
    fn waiting_times_are_lengths_of_time() {
        let file = ProjectFile::parse("[wait]\nrelease = \"45m\"\nunschedulable = \"5m 30s\"\n").unwrap();
        assert_eq!(file.wait.release, Some(SignedDuration::from_mins(45)));
        assert_eq!(file.wait.for_node(), Some(Duration::from_secs(330)));
        assert_eq!(Wait::default().for_release(), Duration::from_secs(1800));
        for bad in [
            "release = \"0s\"",
            "release = \"soon\"",
            "release = \"2562047788015215h\"",
            "unschedulable = 5",
            "other = \"1m\"",
        ] {
            let error = ProjectFile::parse(&format!("\n[wait]\n{bad}\n"))
                .unwrap_err()
                .to_string();
            assert!(error.starts_with("towpath.toml:"), "{error}");
        }
    }

    #[test]
    fn a_freeze_that_makes_no_sense_is_an_error_with_its_place() {
        for (text, says) in [
            (
                "[[freeze]]\nfrom = \"2026-12-20T00:00:00Z\"\n",
                "towpath.toml:1:1: a freeze has either",
            ),
            (
                "project = \"a\"\n[[freeze]]\nstarts = \"often\"\nlasts = \"1h\"\n",
                "towpath.toml:2:1: `often` is not a cron expression",
            ),
            (
                "[[freeze]]\nstarts = \"0 0 * * *\"\nlasts = \"a while\"\n",
                "`a while` is not a length of time",
            ),
        ] {
            let error = ProjectFile::parse(text).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn production_is_protected_unless_the_file_says_otherwise() {
        let protected = |text: &str| {
            let file = ProjectFile::parse(text).unwrap();
            ["dev", "production"].map(|name| file.is_protected(name))
        };
        assert_eq!(protected(""), [false, true]);
        assert_eq!(protected("[environments.production]\n"), [false, true]);
        assert_eq!(
            protected("[environments.production]\nprotected = false\n"),
            [false, false]
        );
        assert_eq!(protected("environments.dev.protected = true\n"), [true, true]);
        let error = ProjectFile::parse("[environments.dev]\nprotect = true\n")
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("towpath.toml:2:1: unknown key `protect`"), "{error}");
    }

    #[test]
    fn a_wrong_image_or_namespace_is_an_error_with_its_place() {
        for (text, says) in [
            (
                "project = \"a\"\nimage = \"Bad Image\"\n",
                "towpath.toml:2:1: `Bad Image` cannot name an image",
            ),
            (
                "namespace = \"a-{env}\"\n",
                "towpath.toml:1:1: `a-{env}` has something in braces",
            ),
        ] {
            let error = ProjectFile::parse(text).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn an_unknown_key_is_an_error_with_its_place() {
        let error = ProjectFile::parse("project = \"a\"\nimagine = \"b\"\n")
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("towpath.toml:2:1: unknown key `imagine`"), "{error}");
        let error = ProjectFile::parse("project = ").unwrap_err().to_string();
        assert!(error.starts_with("towpath.toml:1:11: "), "{error}");
    }
}
