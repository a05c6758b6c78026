//! What a value belongs to: a Secret or a context.

use crate::NameError;
use crate::names::{free, secret, secret_key, to_file_name, variable};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;

/// A set of values by key, stored in one file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// A Kubernetes Secret of an environment, with the Secret's keys.
    #[allow(missing_docs)]
    Secret {
        project: String,
        environment: String,
        /// `metadata.name`.
        secret: String,
    },
    /// A CircleCI context, whose keys are environment variables.
    #[allow(missing_docs)]
    Context { name: String },
}

impl Scope {
    /// A [`Scope::Secret`].
    #[must_use]
    pub fn secret(project: &str, environment: &str, secret: &str) -> Self {
        Self::Secret {
            project: project.to_string(),
            environment: environment.to_string(),
            secret: secret.to_string(),
        }
    }

    /// A [`Scope::Context`].
    #[must_use]
    pub fn context(name: &str) -> Self {
        Self::Context { name: name.to_string() }
    }

    /// Checks the scope's own names.
    pub(crate) fn check(&self) -> Result<(), NameError> {
        match self {
            Self::Secret {
                project,
                environment,
                secret: name,
            } => {
                free(project, "a project")?;
                free(environment, "an environment")?;
                secret(name)
            }
            Self::Context { name } => free(name, "a context"),
        }
    }

    /// Checks the name of one of the scope's keys.
    pub(crate) fn check_key(&self, key: &str) -> Result<(), NameError> {
        match self {
            Self::Secret { .. } => secret_key(key),
            Self::Context { .. } => variable(key),
        }
    }

    /// The path of the scope's file, relative to the sealed store's folder.
    pub(crate) fn path(&self) -> Result<PathBuf, NameError> {
        let parts = match self {
            Self::Secret {
                project,
                environment,
                secret,
            } => vec![
                "environments".to_string(),
                to_file_name(project),
                to_file_name(environment),
                to_file_name(secret),
            ],
            Self::Context { name } => vec!["contexts".to_string(), to_file_name(name)],
        };
        // The limit of file systems. Only names full of blanks and non-ASCII letters get there.
        if let Some(long) = parts.iter().find(|part| part.len() > 255) {
            return Err(NameError {
                name: long.chars().take(80).collect(),
                what: "the name of the sealed store's file",
                rule: "at most 255 bytes, where each blank, and each byte of a non-ASCII letter, counts three times",
            });
        }
        Ok(parts.iter().collect())
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret {
                project,
                environment,
                secret,
            } => write!(f, "the Secret `{secret}` of `{environment}` in `{project}`"),
            Self::Context { name } => write!(f, "the context `{name}`"),
        }
    }
}
