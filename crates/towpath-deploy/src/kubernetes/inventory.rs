//! The inventory of an environment: the objects that were applied and not pruned since.

use crate::target::Environment;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use towpath_kube::{ApiError, Client, Discovery, Lookup, managed_fields, text_at};
use towpath_manifest::{Object, ObjectId};
use towpath_types::Digest;

/// An object that was applied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct InventoryEntry {
    pub id: ObjectId,
    /// `apps/v1`.
    pub api_version: String,
    /// The uid of the object, to recognise one that somebody created anew.
    #[serde(default)]
    pub uid: String,
    /// The digest of the manifest that was applied; empty while it is being changed.
    #[serde(default)]
    pub manifest: String,
    /// The digest of the fields that Towpath owned afterwards, and of the order of their list items.
    #[serde(default)]
    pub owned: String,
    /// Whether Towpath created it. Only such an object is pruned.
    #[serde(default)]
    pub made: bool,
}

impl InventoryEntry {
    /// The entry for an object that was just applied. `applied` is the object in the cluster.
    pub(super) fn of(object: &Object, applied: &Value, made: bool) -> Self {
        Self {
            id: object.id(),
            api_version: object.api_version.clone(),
            uid: text_at(applied, "/metadata/uid"),
            manifest: digest(&object.value),
            owned: managed_fields::owned_in_order(applied)
                .as_ref()
                .map(digest)
                .unwrap_or_default(),
            made,
        }
    }

    /// Whether `live` is exactly as the last deployment of `object` left it, and nobody has taken over a field since.
    pub(super) fn is_as_applied(&self, object: &Object, live: &Value) -> bool {
        self.api_version == object.api_version
            && self.uid == text_at(live, "/metadata/uid")
            && !self.uid.is_empty()
            && self.manifest == digest(&object.value)
            && managed_fields::owned_in_order(live).is_some_and(|owned| digest(&owned) == self.owned)
            && !managed_fields::is_to_be_taken_over(live)
    }
}

/// The digest of a manifest, or of the fields that Towpath owns.
pub(super) fn digest(value: &Value) -> String {
    Digest::of(value.to_string().as_bytes()).to_string()
}

/// The object of an entry as it is now; `None` if it does not exist.
pub(super) async fn find_live(
    client: &Client,
    discovery: &Discovery,
    environment: &Environment,
    entry: &InventoryEntry,
) -> Result<Option<Value>, ApiError> {
    let lookup = discovery.find(client, &entry.api_version, &entry.id.kind).await?;
    let Lookup::Served(resource) = lookup else {
        return Ok(None);
    };
    client
        .find(&resource.object(&environment.namespace, &entry.id.name))
        .await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn an_object_is_as_applied_until_somebody_touches_it() {
        let manifest = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "1"}});
        let object = Object::from_value(manifest, "test").unwrap();
        let live = |uid: &str, manager: &str| {
            json!({"metadata": {"uid": uid, "managedFields": [
                {"manager": "towpath", "operation": "Apply", "fieldsV1": {"f:data": {"f:k": {}}}},
                {"manager": manager, "operation": "Update", "fieldsV1": {"f:data": {}}}]}})
        };
        let entry = InventoryEntry::of(&object, &live("1", "other"), true);
        assert!(entry.is_as_applied(&object, &live("1", "other")));
        assert!(!entry.is_as_applied(&object, &live("2", "other")));
        assert!(!entry.is_as_applied(&object, &live("1", "kubectl-client-side-apply")));
        let ordered = |names: [&str; 2]| {
            let mut live = live("1", "other");
            live["metadata"]["managedFields"][0]["fieldsV1"] =
                json!({"f:env": {"k:{\"name\":\"A\"}": {".": {}}, "k:{\"name\":\"B\"}": {".": {}}}});
            live["env"] = json!([{"name": names[0]}, {"name": "of others"}, {"name": names[1]}]);
            live
        };
        let entry_of_two = InventoryEntry::of(&object, &ordered(["A", "B"]), true);
        assert!(entry_of_two.is_as_applied(&object, &ordered(["A", "B"])));
        assert!(!entry_of_two.is_as_applied(&object, &ordered(["B", "A"])));
        let mut changed = object.clone();
        changed.value["data"]["k"] = json!("2");
        assert!(!entry.is_as_applied(&changed, &live("1", "other")));
    }
}
