//! The one organisation of a Towpath, and the slugs of its projects.

use towpath_delivery::DeliveryError;
use towpath_types::ProjectName;

/// The organisation's id.
pub(super) const ID: &str = "00000000-0000-0000-0000-000000000002";
/// The organisation's name.
pub(super) const NAME: &str = "local";
/// The organisation's slug.
pub(super) const SLUG: &str = "towpath/local";

/// The slug of a project: `towpath/local/claims`.
pub(super) fn project_slug(project: &str) -> String {
    format!("{SLUG}/{project}")
}

/// The project that a slug names. Slugs of other organisations name nothing here.
pub(super) fn project_of(vcs: &str, org: &str, project: &str) -> Result<ProjectName, DeliveryError> {
    let unknown = || DeliveryError::not_found("Project not found");
    if format!("{vcs}/{org}") != SLUG {
        return Err(unknown());
    }
    project.parse().map_err(|_| unknown())
}
