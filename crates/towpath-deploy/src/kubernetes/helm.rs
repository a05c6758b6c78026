//! What Helm has left in an environment: the records of its releases, and its notes on objects. Towpath shows the records, and
//! neither reads nor changes them.

use crate::target::{Environment, HelmRelease};
use futures::future::try_join_all;
use serde_json::Value;
use std::collections::BTreeMap;
use towpath_kube::{ApiError, Client, Discovery, Lookup, Resource, Select, text_at};
use towpath_manifest::{Kind, Object};

/// The label of Helm's own Secrets.
///
/// Source: <https://github.com/helm/helm/blob/main/pkg/storage/driver/secrets.go>
const RECORDS: &str = "owner=helm";

/// The releases that Helm has recorded, by name. `None` if the account may not list Secrets.
pub(super) async fn releases(client: &Client, environment: &Environment) -> Result<Option<Vec<HelmRelease>>, ApiError> {
    let secrets = Resource::of(&Kind::SECRET).collection(&environment.namespace);
    let found = match client.list_metadata(&secrets, &Select::Labels(RECORDS.into())).await {
        Ok(found) => found,
        Err(error) if error.is_forbidden() => return Ok(None),
        Err(error) if error.is_missing() => return Ok(Some(Vec::new())),
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
    Ok(Some(releases.into_values().collect()))
}

/// Whether one of `objects` exists and is part of a release of Helm in the environment's namespace.
pub(super) async fn has_deployed(
    client: &Client,
    discovery: &Discovery,
    environment: &Environment,
    objects: &[Object],
) -> Result<bool, ApiError> {
    let looked = objects.iter().map(|object| async move {
        let lookup = discovery.find(client, &object.api_version, &object.kind).await?;
        let Lookup::Served(resource) = lookup else {
            return Ok(false);
        };
        let path = resource.object(&environment.namespace, &object.name);
        match client.find(&path).await {
            Ok(live) => Ok(live.is_some_and(|live| is_of_release(&live, &environment.namespace))),
            // The preflight refuses the deployment, and names the permission.
            Err(error) if error.is_forbidden() => Ok(false),
            Err(error) => Err(error),
        }
    });
    let found: Vec<bool> = try_join_all(looked).await?;
    Ok(found.contains(&true))
}

/// Whether Helm's notes on an object name a release in `namespace`. An object of the whole cluster may belong to a release in
/// another one.
fn is_of_release(live: &Value, namespace: &str) -> bool {
    let note = |name: &str| text_at(live, &format!("/metadata/annotations/meta.helm.sh~1{name}"));
    !note("release-name").is_empty() && note("release-namespace") == namespace
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_object_is_of_a_release_in_its_namespace() {
        let check = |annotations: Value, expected: bool| {
            let live = json!({"metadata": {"annotations": annotations}});
            assert_eq!(is_of_release(&live, "shop-dev"), expected, "{live}");
        };
        check(json!({}), false);
        check(
            json!({"meta.helm.sh/release-name": "shop", "meta.helm.sh/release-namespace": "shop-dev"}),
            true,
        );
        check(
            json!({"meta.helm.sh/release-name": "shop", "meta.helm.sh/release-namespace": "shop-live"}),
            false,
        );
        check(json!({"meta.helm.sh/release-namespace": "shop-dev"}), false);
    }
}
