//! Which objects that left the manifests are removed, and why the others stay.

use super::{error::ClusterError, inventory::InventoryEntry, labels};
use crate::target::Environment;
use futures::future::try_join_all;
use serde_json::Value;
use towpath_kube::{Client, Discovery, Lookup, Resource, managed_fields, text_at};
use towpath_manifest::{Kind, ObjectId};

/// Why no object of a kind is ever pruned. Needs no look at the object, so the account need not be allowed to read it.
pub(super) fn why_kind_stays(resource: &Resource) -> Option<&'static str> {
    if Kind::of(&resource.kind).holds_data {
        return Some("left the manifests and stays: deleting it would delete data. Delete it by hand");
    }
    (!resource.namespaced)
        .then_some("left the manifests and stays: other environments in the cluster may need it. Delete it by hand")
}

/// Why an object is not pruned; `None` if it is. Towpath prunes only the very object that it created, if the object's labels
/// still say that it belongs to the environment.
pub(super) fn why_object_stays(
    environment: &Environment,
    entry: &InventoryEntry,
    live: &Value,
) -> Option<&'static str> {
    if !entry.made {
        return Some("left the manifests and stays: Towpath did not create it. Delete it by hand");
    }
    let is_same = entry.uid.is_empty() || entry.uid == text_at(live, "/metadata/uid");
    let is_ours = labels::is_owned_by(live, environment) && managed_fields::ours(live).is_some();
    (!is_same || !is_ours).then_some("left the manifests and stays: somebody else has created it anew")
}

/// What a deployment does with an object that left the manifests.
pub(super) enum Fate {
    /// It removes the object, which looks like this now.
    Removed(Value),
    /// It keeps the object, for this reason.
    Stays(&'static str),
}

/// Looks up what happens to each of the objects `prune`. Leaves out objects that do not exist.
pub(super) async fn look_up(
    client: &Client,
    discovery: &Discovery,
    environment: &Environment,
    inventory: &[InventoryEntry],
    prune: &[ObjectId],
) -> Result<Vec<(ObjectId, Fate)>, ClusterError> {
    let entries = prune
        .iter()
        .filter_map(|id| inventory.iter().find(|entry| entry.id == *id));
    let fates = entries.map(|entry| async move {
        let lookup = discovery.find(client, &entry.api_version, &entry.id.kind).await?;
        let Lookup::Served(resource) = lookup else {
            return Ok(None);
        };
        if let Some(why) = why_kind_stays(&resource) {
            return Ok(Some((entry.id.clone(), Fate::Stays(why))));
        }
        let path = resource.object(&environment.namespace, &entry.id.name);
        let Some(live) = client.find(&path).await? else {
            return Ok(None);
        };
        let fate = match why_object_stays(environment, entry, &live) {
            Some(why) => Fate::Stays(why),
            None => Fate::Removed(live),
        };
        Ok::<_, ClusterError>(Some((entry.id.clone(), fate)))
    });
    Ok(try_join_all(fates).await?.into_iter().flatten().collect())
}
