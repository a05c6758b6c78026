//! An environment's identity.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// One environment of one project: `claims/dev`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EnvironmentId {
    project: String,
    environment: String,
}

/// Why a text cannot name a project or an environment that is deployed to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` cannot name a project or an environment: 1 to 40 lower-case letters, digits, `-` and `_`, the first and last a letter or digit"
)]
pub struct EnvironmentIdError(String);

impl EnvironmentId {
    /// The environment `environment` of `project`.
    ///
    /// # Errors
    /// When a name does not fit into the names of folders, containers and networks.
    pub fn new(project: &str, environment: &str) -> Result<Self, EnvironmentIdError> {
        for name in [project, environment] {
            let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
            let good = (1..=40).contains(&name.len())
                && name.bytes().all(|b| alnum(b) || matches!(b, b'-' | b'_'))
                && name.bytes().next().is_some_and(alnum)
                && name.bytes().last().is_some_and(alnum);
            if !good {
                return Err(EnvironmentIdError(name.chars().take(80).collect()));
            }
        }
        Ok(Self {
            project: project.to_string(),
            environment: environment.to_string(),
        })
    }

    /// The project's name.
    #[must_use]
    pub fn project(&self) -> &str {
        &self.project
    }

    /// The environment's name within its project.
    #[must_use]
    pub fn environment(&self) -> &str {
        &self.environment
    }

    /// `claims.dev`: one word for the names of folders, networks, labels and rows. A name holds no dot, so it is unique.
    #[must_use]
    pub fn slug(&self) -> String {
        format!("{}.{}", self.project, self.environment)
    }
}

impl fmt::Display for EnvironmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.project, self.environment)
    }
}

/// Reads a [slug](EnvironmentId::slug).
impl FromStr for EnvironmentId {
    type Err = EnvironmentIdError;
    fn from_str(slug: &str) -> Result<Self, EnvironmentIdError> {
        let (project, environment) = slug
            .split_once('.')
            .ok_or_else(|| EnvironmentIdError(slug.chars().take(80).collect()))?;
        Self::new(project, environment)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_slug_is_read_back() {
        let id = EnvironmentId::new("claims", "api-sandbox").unwrap();
        assert_eq!(id.slug(), "claims.api-sandbox");
        assert_eq!(id.slug().parse::<EnvironmentId>(), Ok(id));
    }

    #[test]
    fn names_fit_into_folders_containers_and_networks() {
        let long = "a".repeat(41);
        for bad in ["", "A", "a.b", "a/b", "-a", "a-", "a b", long.as_str()] {
            assert!(EnvironmentId::new(bad, "dev").is_err(), "{bad}");
            assert!(EnvironmentId::new("claims", bad).is_err(), "{bad}");
        }
    }
}
