//! Finds the project and the environment that a command refers to.

use crate::cli::At;
use anyhow::Result;
use towpath_types::EnvironmentId;

/// The project that `at` selects: the named one, or the repository's.
pub(super) fn project(at: &At) -> Result<String> {
    match &at.project {
        Some(project) => Ok(project.clone()),
        None => crate::repository::Repository::find().map(|repository| repository.project()),
    }
}

/// The environment `environment` of the project that `at` selects.
pub(super) fn at_environment(at: &At, environment: &str) -> Result<EnvironmentId> {
    Ok(EnvironmentId::new(&project(at)?, environment)?)
}
