//! Predicts the result of applying a ConfigMap, to save a dry run for each of many.
//!
//! The result is certain only if no admission controller and no quota looks at ConfigMaps, and nobody but Towpath has written
//! to the existing one. Otherwise, or if the account may not see whether that is so, the server has to be asked.

use crate::target::Environment;
use futures::future::{try_join, try_join_all};
use regex::Regex;
use serde_json::Value;
use std::{collections::BTreeSet, sync::LazyLock};
use towpath_kube::{ApiError, Client, Discovery, Resource, Select, managed_fields};
use towpath_manifest::{Kind, Object};

/// From this number of ConfigMaps, looking for admission controllers and quotas takes less time than a dry run of each.
pub(super) const WORTHWHILE: usize = 50;
/// The maximum size in bytes of a predictable object: far below every limit of the server.
const MAX_BYTES: usize = 64 << 10;
/// The API group of webhooks and policies.
///
/// Source: <https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/>
const ADMISSION: &str = "admissionregistration.k8s.io";

/// Whether no webhook, policy or quota looks at the ConfigMaps of an environment. Assumes that there is one if the account may
/// not see that.
pub(super) async fn is_reliable(
    client: &Client,
    discovery: &Discovery,
    environment: &Environment,
) -> Result<bool, ApiError> {
    let quotas = Resource::of(&Kind::RESOURCE_QUOTA).collection(&environment.namespace);
    let found = try_join(
        client.list(&quotas, &Select::All),
        has_admission_controllers(client, discovery),
    )
    .await;
    match found {
        Ok(((quotas, _), has_controllers)) => Ok(!has_controllers && !quotas.iter().any(counts_config_maps)),
        Err(error) if error.is_forbidden() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether a quota counts ConfigMaps.
///
/// Source: <https://kubernetes.io/docs/concepts/policy/resource-quotas/#quota-on-object-count>
fn counts_config_maps(quota: &Value) -> bool {
    let hard = quota.pointer("/spec/hard").and_then(Value::as_object);
    hard.into_iter()
        .flat_map(|hard| hard.keys())
        .any(|resource| resource.contains("configmaps"))
}

/// Whether a webhook or policy may look at ConfigMaps.
async fn has_admission_controllers(client: &Client, discovery: &Discovery) -> Result<bool, ApiError> {
    let Some(group) = client.find(&format!("/apis/{ADMISSION}")).await? else {
        return Ok(true);
    };
    let versions = group.get("versions").and_then(Value::as_array);
    let versions = versions
        .into_iter()
        .flatten()
        .filter_map(|version| version.get("groupVersion")?.as_str());
    let served = try_join_all(versions.map(|version| discovery.version(client, version))).await?;
    let mut seen = BTreeSet::new();
    let mut asked = Vec::new();
    for resource in served.iter().flatten().flat_map(|resources| resources.iter()) {
        match resource.plural.as_str() {
            // A policy without a binding does nothing.
            "validatingadmissionpolicies" | "mutatingadmissionpolicies" => {}
            "validatingwebhookconfigurations"
            | "mutatingwebhookconfigurations"
            | "validatingadmissionpolicybindings"
            | "mutatingadmissionpolicybindings" => {
                // All versions serve the same objects.
                if seen.insert(resource.plural.as_str()) {
                    asked.push(resource.collection(""));
                }
            }
            // A kind that is newer than this code.
            _ => return Ok(true),
        }
    }
    let lists = try_join_all(asked.iter().map(|path| client.list(path, &Select::All))).await?;
    Ok(lists.iter().flat_map(|(items, _)| items).any(is_about_config_maps))
}

/// Whether a webhook configuration or a policy binding may look at ConfigMaps that are applied.
fn is_about_config_maps(item: &Value) -> bool {
    let Some(webhooks) = item.get("webhooks") else {
        // A binding names a policy, and only the policy tells which objects it looks at. A webhook configuration without
        // webhooks does nothing.
        return item.get("spec").is_some();
    };
    let rules = webhooks.as_array().into_iter().flatten().filter_map(|webhook| {
        let rules = webhook.get("rules")?.as_array()?;
        Some(rules)
    });
    rules.flatten().any(|rule| {
        let has = |field: &str, wanted: &[&str]| {
            let list = rule.get(field).and_then(Value::as_array);
            list.into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .any(|one| wanted.contains(&one))
        };
        has("apiGroups", &["", "*"])
            && has("resources", &["configmaps", "configmaps/*", "*", "*/*"])
            && has("operations", &["CREATE", "UPDATE", "*"])
    })
}

/// Names and values that every API server accepts.
///
/// Source: <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set>
static NAME: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new("^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$").ok());
static QUALIFIED: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new("^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$").ok()
});
static LABEL: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new("^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$").ok());
static KEY: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new("^[-A-Za-z0-9_][-A-Za-z0-9_.]{0,252}$").ok());

fn matches(pattern: &Option<Regex>, text: &str) -> bool {
    text.len() <= 253 && pattern.as_ref().is_some_and(|pattern| pattern.is_match(text))
}

/// Whether applying `object` would make it equal to its manifest: a ConfigMap of strings that only Towpath has written to.
///
/// Source: <https://kubernetes.io/docs/reference/using-api/server-side-apply/#merge-strategy>
pub(super) fn becomes_its_manifest(object: &Object, live: Option<&Value>) -> bool {
    (object.api_version.as_str(), object.kind.as_str()) == ("v1", "ConfigMap")
        && matches(&NAME, &object.name)
        && is_plain(&object.value)
        && live.is_none_or(is_ours_alone)
}

/// Whether a ConfigMap has only fields that every server accepts and does not change.
fn is_plain(value: &Value) -> bool {
    // Servers drop empty mappings.
    let strings = |value: &Value, of: &dyn Fn(&str, &str) -> bool| {
        value.as_object().filter(|map| !map.is_empty()).is_some_and(|map| {
            map.iter()
                .all(|(key, value)| value.as_str().is_some_and(|text| of(key, text)))
        })
    };
    let metadata = |value: &Value| {
        value.as_object().is_some_and(|map| {
            map.iter().all(|(field, value)| match field.as_str() {
                "name" | "namespace" => value.is_string(),
                "labels" => strings(value, &|key, text| matches(&QUALIFIED, key) && matches(&LABEL, text)),
                "annotations" => strings(value, &|key, _| matches(&QUALIFIED, key)),
                _ => false,
            })
        })
    };
    let is_plain = value.as_object().is_some_and(|map| {
        map.iter().all(|(field, value)| match field.as_str() {
            "apiVersion" | "kind" => value.is_string(),
            "metadata" => metadata(value),
            "data" => strings(value, &|key, _| matches(&KEY, key)),
            _ => false,
        })
    });
    is_plain && value.to_string().len() <= MAX_BYTES
}

/// Whether Towpath owns everything in a ConfigMap, and nobody else does. Then a field that is not applied again is removed.
fn is_ours_alone(live: &Value) -> bool {
    let mut entries = managed_fields::entries(live);
    let (Some(ours), None) = (entries.next().filter(managed_fields::Entry::is_ours), entries.next()) else {
        return false;
    };
    let is_owned = |pointer: &str, path: &[&str]| {
        let owned = path.iter().try_fold(ours.fields, |fields, part| fields.get(part));
        let held = live.pointer(pointer).and_then(Value::as_object);
        held.into_iter()
            .flat_map(|held| held.keys())
            .all(|key| owned.is_some_and(|owned| owned.get(format!("f:{key}")).is_some()))
    };
    let metadata = live.get("metadata").and_then(Value::as_object);
    let special = ["deletionTimestamp", "finalizers", "ownerReferences", "generateName"];
    live.get("immutable").is_none()
        && metadata.is_some_and(|metadata| special.iter().all(|field| !metadata.contains_key(*field)))
        && is_owned("/data", &["f:data"])
        && is_owned("/binaryData", &["f:binaryData"])
        && is_owned("/metadata/labels", &["f:metadata", "f:labels"])
        && is_owned("/metadata/annotations", &["f:metadata", "f:annotations"])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    type Change = fn(&mut Value);

    fn config_map(change: impl Fn(&mut Value)) -> Object {
        let mut value = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "app-config", "namespace": "dev", "labels": {"app.kubernetes.io/name": "claims"}},
            "data": {"LEVEL": "info"},
        });
        change(&mut value);
        Object::from_value(value, "test").unwrap()
    }

    #[test]
    fn only_plain_config_maps_are_predictable() {
        assert!(becomes_its_manifest(&config_map(|_| {}), None));
        let changes: [(&str, Change); 14] = [
            ("nothing", |value| value["data"] = json!({})),
            ("kind", |value| value["kind"] = json!("Secret")),
            ("name", |value| value["metadata"]["name"] = json!("App_Config")),
            ("number", |value| value["data"]["LEVEL"] = json!(3)),
            ("key", |value| value["data"]["a key"] = json!("x")),
            ("dots", |value| value["data"]["..x"] = json!("x")),
            ("field", |value| value["dta"] = json!({})),
            ("binary", |value| value["binaryData"] = json!({"a": "eA=="})),
            ("immutable", |value| value["immutable"] = json!(true)),
            ("label", |value| value["metadata"]["labels"]["a"] = json!("two words")),
            ("label's key", |value| value["metadata"]["labels"]["a/b/c"] = json!("")),
            ("annotation", |value| {
                value["metadata"]["annotations"] = json!({"a b": "c"})
            }),
            ("finalizers", |value| value["metadata"]["finalizers"] = json!(["a/b"])),
            ("size", |value| value["data"]["LEVEL"] = json!("x".repeat(MAX_BYTES))),
        ];
        for (what, change) in changes {
            assert!(!becomes_its_manifest(&config_map(change), None), "{what}");
        }
    }

    #[test]
    fn a_config_map_that_others_wrote_to_is_not_predictable() {
        let live = |change: &dyn Fn(&mut Value)| {
            let mut live = json!({
                "apiVersion": "v1", "kind": "ConfigMap", "data": {"LEVEL": "info"},
                "metadata": {"name": "app-config", "labels": {"a": "b"}, "managedFields": [{
                    "manager": "towpath", "operation": "Apply", "fieldsV1": {
                        "f:data": {"f:LEVEL": {}}, "f:metadata": {"f:labels": {"f:a": {}}}}}]},
            });
            change(&mut live);
            live
        };
        let is_predictable =
            |change: &dyn Fn(&mut Value)| becomes_its_manifest(&config_map(|_| {}), Some(&live(change)));
        assert!(is_predictable(&|_| {}));
        let changes: [(&str, Change); 7] = [
            ("an entry of another manager", |live| {
                let entries = live["metadata"]["managedFields"].as_array_mut().unwrap();
                entries.push(json!({"manager": "kubectl-edit", "operation": "Update", "fieldsV1": {"f:data": {}}}));
            }),
            ("a key without owner", |live| live["data"]["OTHER"] = json!("x")),
            ("a label without owner", |live| {
                live["metadata"]["labels"]["b"] = json!("x")
            }),
            ("binary data without owner", |live| {
                live["binaryData"] = json!({"b": "eA=="})
            }),
            ("immutable", |live| live["immutable"] = json!(true)),
            ("deleted", |live| {
                live["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z")
            }),
            ("no entries", |live| live["metadata"]["managedFields"] = json!([])),
        ];
        for (what, change) in changes {
            assert!(!is_predictable(&change), "{what}");
        }
    }

    #[test]
    fn webhooks_policies_and_quotas_for_config_maps_are_recognised() {
        let webhook = |groups: Value, resources: Value, operations: Value| json!({"webhooks": [{"rules": [{"apiGroups": groups, "resources": resources, "operations": operations}]}]});
        assert!(is_about_config_maps(&webhook(
            json!([""]),
            json!(["configmaps"]),
            json!(["UPDATE"])
        )));
        assert!(is_about_config_maps(&webhook(
            json!(["*"]),
            json!(["*/*"]),
            json!(["*"])
        )));
        assert!(!is_about_config_maps(&webhook(
            json!([""]),
            json!(["pods"]),
            json!(["*"])
        )));
        assert!(!is_about_config_maps(&webhook(
            json!(["apps"]),
            json!(["*"]),
            json!(["*"])
        )));
        assert!(!is_about_config_maps(&webhook(
            json!([""]),
            json!(["configmaps"]),
            json!(["DELETE"])
        )));
        assert!(is_about_config_maps(&json!({"spec": {"policyName": "any"}})));
        assert!(counts_config_maps(
            &json!({"spec": {"hard": {"count/configmaps": "10"}}})
        ));
        assert!(counts_config_maps(&json!({"spec": {"hard": {"configmaps": "10"}}})));
        assert!(!counts_config_maps(&json!({"spec": {"hard": {"pods": "10"}}})));
    }
}
