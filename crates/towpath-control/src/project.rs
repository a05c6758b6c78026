//! `towpath.toml`: what `towpath init` found in a repository, written down. Optional, and short.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt::Write as _};
use towpath_deploy::Schedule;
use towpath_types::ImageReference;

/// The file's name, at the repository's root.
pub const PROJECT_FILE: &str = "towpath.toml";

/// The repository's answers to what Towpath would otherwise infer; every line is optional.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProjectFile {
    /// The project's name. Without it: the name of the repository's folder.
    pub project: Option<String>,
    /// The image's repository: `claims` in Towpath's own registry, or `registry.example.org/team/claims` in another.
    /// Without it: the project's name.
    pub image: Option<String>,
    /// The folder of one kube context's manifests. Without it: the only folder in `.k8s/`.
    pub manifests: Option<String>,
    /// The namespace of an environment whose manifests name none: `cccd-{environment}`. Without it: the project's and the
    /// environment's names.
    pub namespace: Option<String>,
    /// Containers that run the image whatever their manifests say, by name. Without it: those whose image has its repository.
    #[serde(default)]
    pub containers: Vec<String>,
    /// What becomes of a deployment that fails, by environment. Without it: the release before is put back.
    #[serde(default)]
    pub on_failure: BTreeMap<String, OnFailure>,
    /// How long a deployment is waited for.
    #[serde(default)]
    pub wait: Wait,
    /// When nothing is deployed.
    #[serde(default)]
    pub freeze: Vec<Freeze>,
    /// How `towpath build` makes the image.
    pub build: Option<Build>,
}

/// What becomes of a deployment that fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// The release before it is put back.
    #[default]
    Rollback,
    /// All stays as it is, for somebody to look at.
    Stop,
}

/// How long a deployment is waited for. Each Deployment has its own `progressDeadlineSeconds` besides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wait {
    /// How long all of it may take: `45m`. Without it: 30 minutes.
    pub release: Option<SignedDuration>,
    /// How long a pod may wait for a node to take it: `5m`, where a cluster grows by itself. Without it: 90 seconds.
    pub unschedulable: Option<SignedDuration>,
}

/// The longest that a deployment is waited for.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_hours(24);

impl Wait {
    /// The name of a length that is none, or too long for anybody to wait.
    fn wrong(&self) -> Option<&'static str> {
        let lengths = [("release", self.release), ("unschedulable", self.unschedulable)];
        let fits = |length: SignedDuration| length.is_positive() && length <= LONGEST_WAIT;
        let wrong = lengths
            .into_iter()
            .find(|(_, length)| length.is_some_and(|length| !fits(length)));
        wrong.map(|(name, _)| name)
    }
}

/// A time in which nothing is deployed: once, `from` and `until`, or again and again, `starts` and `lasts`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Freeze {
    /// The environments that it is for. Without it: `production`.
    #[serde(default)]
    pub environments: Vec<String>,
    /// Why, for whoever waits.
    #[serde(default)]
    pub reason: String,
    /// Its beginning: `2026-12-20T00:00:00Z`.
    pub from: Option<Timestamp>,
    /// Its end.
    pub until: Option<Timestamp>,
    /// When it begins again: a schedule of cron, `0 16 * * FRI`.
    pub starts: Option<String>,
    /// How long it lasts each time: `64h`.
    pub lasts: Option<String>,
    /// The time zone of `starts`: `Europe/London`. Without it: UTC.
    pub time_zone: Option<String>,
}

impl Freeze {
    /// When the freeze that `environment` is in at `now` ends; `None` when it is in none.
    #[must_use]
    pub fn ends(&self, environment: &str, now: Timestamp) -> Option<Timestamp> {
        let is_meant = match self.environments.as_slice() {
            [] => environment == "production",
            named => named.iter().any(|name| name == environment),
        };
        if !is_meant {
            return None;
        }
        if let (Some(from), Some(until)) = (self.from, self.until) {
            return (from <= now && now < until).then_some(until);
        }
        let (schedule, lasts) = self.again().ok()??;
        let until = schedule.latest(now)?.checked_add(lasts).ok()?;
        (now < until).then_some(until)
    }

    /// The schedule and the length of one that comes again; an error, a sentence, when it cannot be read.
    fn again(&self) -> Result<Option<(Schedule, SignedDuration)>, String> {
        match (self.from, self.until, &self.starts, &self.lasts) {
            (Some(from), Some(until), None, None) if from < until => Ok(None),
            (None, None, Some(starts), Some(lasts)) => {
                let schedule = Schedule::new(starts, Some(self.time_zone.as_deref().unwrap_or("UTC")));
                let schedule = schedule.map_err(|error| error.to_string())?;
                let lasts: SignedDuration = lasts
                    .parse()
                    .map_err(|_| format!("`{}` is no length of time such as `64h`", lasts.escape_debug()))?;
                Ok(Some((schedule, lasts)))
            }
            _ => Err("a freeze has either `from` and a later `until`, or `starts` and `lasts`".into()),
        }
    }
}

/// How `towpath build` makes the image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Build {
    /// A command run at the repository's root before the image is built, by `sh -c`.
    pub prepare: Option<String>,
    /// The Dockerfile. Without it: `Dockerfile`.
    pub dockerfile: Option<String>,
}

/// Why a project file could not be read.
#[derive(Debug, thiserror::Error)]
#[error("`{PROJECT_FILE}` line {line}, column {column}: {message}")]
pub struct ProjectFileError {
    line: usize,
    column: usize,
    message: String,
}

impl ProjectFile {
    /// Reads the file's text.
    ///
    /// # Errors
    /// With the place and the reason, for what is not TOML and for keys that are not known.
    pub fn parse(text: &str) -> Result<Self, ProjectFileError> {
        let at = |start: usize, message: String| {
            let before = &text[..start.min(text.len())];
            ProjectFileError {
                line: before.matches('\n').count() + 1,
                column: before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1,
                message,
            }
        };
        let file: Self = toml::from_str(text).map_err(|error: toml::de::Error| {
            at(error.span().map_or(0, |span| span.start), error.message().to_string())
        })?;
        let start_of = |key: &str| {
            let line = text
                .match_indices(key)
                .find(|(start, _)| text[..*start].rsplit('\n').next().is_some_and(str::is_empty));
            line.map_or(0, |(start, _)| start)
        };
        if let Some(image) = &file.image
            && let Err(error) = image.parse::<ImageReference>()
        {
            return Err(at(
                start_of("image"),
                format!("`{}` cannot name an image: {error}", image.escape_debug()),
            ));
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
            let message = format!("`{name}` of `wait` is to be longer than nothing, and a day at most");
            return Err(at(start_of("wait").max(start_of("[wait]")), message));
        }
        for (index, freeze) in file.freeze.iter().enumerate() {
            if let Err(message) = freeze.again() {
                let tables = text.match_indices("[[freeze]]");
                let start = tables.map(|(start, _)| start).nth(index).unwrap_or_default();
                return Err(at(start, message));
            }
        }
        Ok(file)
    }

    /// What becomes of a deployment to `environment` that fails.
    #[must_use]
    pub fn on_failure(&self, environment: &str) -> OnFailure {
        self.on_failure.get(environment).copied().unwrap_or_default()
    }

    /// The text to write down; reading it gives the same again.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text =
            String::from("# What `towpath init` found here. Delete a line to have it found anew each time.\n");
        for (key, value) in [
            ("project", &self.project),
            ("image", &self.image),
            ("manifests", &self.manifests),
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
        text
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let file = ProjectFile {
            project: Some("claims".into()),
            image: Some("registry.example.org/team/claims".into()),
            containers: vec!["app".into(), "odd \"name\"".into()],
            manifests: Some(".k8s/live".into()),
            namespace: Some("claims-{environment}".into()),
            build: Some(Build {
                prepare: Some("ci/build-binary".into()),
                dockerfile: None,
            }),
            ..ProjectFile::default()
        };
        assert_eq!(ProjectFile::parse(&file.render()).unwrap(), file);
        assert_eq!(ProjectFile::parse("").unwrap(), ProjectFile::default());
    }

    #[test]
    fn how_long_is_waited_is_a_length_of_time() {
        let file = ProjectFile::parse("[wait]\nrelease = \"45m\"\nunschedulable = \"5m 30s\"\n").unwrap();
        assert_eq!(file.wait.release, Some(SignedDuration::from_mins(45)));
        assert_eq!(file.wait.unschedulable, Some(SignedDuration::from_secs(330)));
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
            assert!(error.starts_with("`towpath.toml` line"), "{error}");
        }
    }

    #[test]
    fn a_freeze_holds_from_its_beginning_to_its_end() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let file = ProjectFile::parse(
            "[[freeze]]\nfrom = \"2026-12-20T00:00:00Z\"\nuntil = \"2027-01-04T08:00:00Z\"\n\
             [[freeze]]\nenvironments = [\"dev\"]\nstarts = \"0 16 * * FRI\"\nlasts = \"64h\"\ntime_zone = \"Europe/London\"\n",
        )
        .unwrap();
        let [once, weekly] = file.freeze.as_slice() else {
            panic!()
        };
        assert_eq!(once.ends("production", at("2026-12-19T23:59:59Z")), None);
        assert_eq!(
            once.ends("production", at("2026-12-20T00:00:00Z")),
            Some(at("2027-01-04T08:00:00Z"))
        );
        assert_eq!(once.ends("production", at("2027-01-04T08:00:00Z")), None);
        assert_eq!(once.ends("staging", at("2026-12-25T00:00:00Z")), None);
        // A Friday in British summer time.
        assert_eq!(weekly.ends("dev", at("2026-07-03T14:59:00Z")), None);
        assert_eq!(
            weekly.ends("dev", at("2026-07-03T15:00:00Z")),
            Some(at("2026-07-06T07:00:00Z"))
        );
        assert_eq!(weekly.ends("dev", at("2026-07-06T07:00:00Z")), None);
    }

    #[test]
    fn a_freeze_that_cannot_be_meant_is_an_error_with_its_place() {
        for (text, says) in [
            (
                "[[freeze]]\nfrom = \"2026-12-20T00:00:00Z\"\n",
                "line 1, column 1: a freeze has either",
            ),
            (
                "project = \"a\"\n[[freeze]]\nstarts = \"often\"\nlasts = \"1h\"\n",
                "line 2, column 1: `often` is no schedule",
            ),
            (
                "[[freeze]]\nstarts = \"0 0 * * *\"\nlasts = \"a while\"\n",
                "`a while` is no length of time",
            ),
        ] {
            let error = ProjectFile::parse(text).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn what_can_be_no_image_and_no_namespace_is_an_error_with_its_place() {
        for (text, says) in [
            (
                "project = \"a\"\nimage = \"Bad Image\"\n",
                "line 2, column 1: `Bad Image` cannot name an image",
            ),
            (
                "namespace = \"a-{env}\"\n",
                "line 1, column 1: `a-{env}` has something in braces",
            ),
        ] {
            let error = ProjectFile::parse(text).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn an_unknown_key_is_an_error_with_its_place() {
        let error = ProjectFile::parse("project = \"a\"\nimages = \"b\"\n")
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("`towpath.toml` line 2, column 1: unknown field `images`"),
            "{error}"
        );
        let error = ProjectFile::parse("project = ").unwrap_err().to_string();
        assert!(error.starts_with("`towpath.toml` line 1, column 11"), "{error}");
    }
}
