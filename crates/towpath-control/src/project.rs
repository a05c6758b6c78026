//! `towpath.toml`: what `towpath init` found in a repository, written down. Optional, and short.

use serde::Deserialize;
use std::fmt::Write as _;

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
    /// How `towpath build` makes the image.
    pub build: Option<Build>,
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
        toml::from_str(text).map_err(|error: toml::de::Error| {
            let before = &text[..error.span().map_or(0, |span| span.start.min(text.len()))];
            ProjectFileError {
                line: before.matches('\n').count() + 1,
                column: before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1,
                message: error.message().to_string(),
            }
        })
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
        ] {
            if let Some(value) = value {
                let _ = writeln!(text, "{key} = {}", toml::Value::String(value.clone()));
            }
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
            image: Some("registry.example.org/team/\"odd\"".into()),
            manifests: Some(".k8s/live".into()),
            build: Some(Build {
                prepare: Some("ci/build-binary".into()),
                dockerfile: None,
            }),
        };
        assert_eq!(ProjectFile::parse(&file.render()).unwrap(), file);
        assert_eq!(ProjectFile::parse("").unwrap(), ProjectFile::default());
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
