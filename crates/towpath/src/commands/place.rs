//! Which project and environment a command means.

use crate::cli::At;
use anyhow::Result;
use towpath_types::EnvironmentId;

/// The project that `at` means: named, or the repository's.
pub(super) fn project(at: &At) -> Result<String> {
    match &at.project {
        Some(project) => Ok(project.clone()),
        None => crate::repository::Repository::find().map(|repository| repository.project()),
    }
}

/// The environment `environment` of the project that `at` means.
pub(super) fn at_environment(at: &At, environment: &str) -> Result<EnvironmentId> {
    Ok(EnvironmentId::new(&project(at)?, environment)?)
}
