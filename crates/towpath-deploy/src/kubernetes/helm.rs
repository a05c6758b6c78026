//! What Helm has left in an environment: the records of its releases. Towpath shows them, and neither reads nor changes them.

use crate::target::{Environment, HelmRelease};
use std::collections::BTreeMap;
use towpath_kube::{ApiError, Client, Resource, Select, text_at};
use towpath_manifest::Kind;

/// The label of Helm's own Secrets.
///
/// Source: <https://github.com/helm/helm/blob/main/pkg/storage/driver/secrets.go>
const RECORDS: &str = "owner=helm";

/// The releases that Helm has recorded, by name. Empty if the account may not list Secrets.
pub(super) async fn releases(client: &Client, environment: &Environment) -> Result<Vec<HelmRelease>, ApiError> {
    let secrets = Resource::of(&Kind::SECRET).collection(&environment.namespace);
    let found = match client.list_metadata(&secrets, &Select::Labels(RECORDS.into())).await {
        Ok(found) => found,
        Err(error) if error.is_forbidden() || error.is_missing() => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut releases: BTreeMap<String, HelmRelease> = BTreeMap::new();
    for secret in found {
        let label = |name: &str| text_at(&secret, &format!("/metadata/labels/{name}"));
        let (name, revision) = (label("name"), label("version").parse().unwrap_or(0));
        let release = releases.entry(name.clone()).or_insert_with(|| HelmRelease {
            name,
            revision: -1,
            status: String::new(),
            revisions: 0,
        });
        release.revisions += 1;
        if revision > release.revision {
            release.revision = revision;
            release.status = label("status");
        }
    }
    Ok(releases.into_values().collect())
}
