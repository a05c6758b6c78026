//! What applying a ConfigMap makes, known without asking for each: a tree may have hundreds of them.
//!
//! That is certain only where nothing but the API server itself looks at ConfigMaps, and nobody but we has written into the
//! one that is there. Where it is not, or where an account may not see whether it is, the server is asked.

use super::{
    api::{Api, ApiError},
    fields,
    kinds::{Kind, Kinds},
};
use crate::target::Environment;
use futures::future::try_join_all;
use regex::Regex;
use serde_json::Value;
use std::{collections::BTreeSet, sync::LazyLock};
use towpath_manifest::Object;

/// From how many ConfigMaps on it is less work to see who looks at them than to ask about each.
pub(super) const FORESEE_FROM: usize = 50;
/// The most that an object that is foreseen has, in bytes: far from every limit of the server.
const MOST_BYTES: usize = 64 << 10;
/// The group of what has a say in what others write.
///
/// Source: <https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/>
const ADMISSION: &str = "admissionregistration.k8s.io";

/// Whether nothing but the API server itself looks at the ConfigMaps of an environment: no webhook, no policy, no quota.
/// What an account may not see is taken to be there.
pub(super) async fn nobody_else_looks(api: &Api, kinds: &Kinds, environment: &Environment) -> Result<bool, ApiError> {
    let looks = async {
        let quotas = Kind::known("v1", "ResourceQuota", "resourcequotas").collection(&environment.namespace);
        let (quotas, admission) =
            futures::future::try_join(api.list(&quotas, None), admission_looks(api, kinds)).await?;
        Ok::<_, ApiError>(admission || quotas.0.iter().any(counts))
    };
    match looks.await {
        Ok(looks) => Ok(!looks),
        Err(error) if error.is_forbidden() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether a quota counts ConfigMaps.
///
/// Source: <https://kubernetes.io/docs/concepts/policy/resource-quotas/#quota-on-object-count>
fn counts(quota: &Value) -> bool {
    let hard = quota.pointer("/spec/hard").and_then(Value::as_object);
    hard.into_iter()
        .flat_map(|hard| hard.keys())
        .any(|resource| resource.contains("configmaps"))
}

async fn admission_looks(api: &Api, kinds: &Kinds) -> Result<bool, ApiError> {
    let Some(group) = api.find(&format!("/apis/{ADMISSION}")).await? else {
        return Ok(true);
    };
    let versions = group.get("versions").and_then(Value::as_array);
    let versions = versions
        .into_iter()
        .flatten()
        .filter_map(|version| version.get("groupVersion")?.as_str());
    let served = try_join_all(versions.map(|version| kinds.of(api, version))).await?;
    let mut seen = BTreeSet::new();
    let mut asked = Vec::new();
    for kind in served.iter().flatten().flat_map(|kinds| kinds.iter()) {
        match kind.plural.as_str() {
            // One that is not bound to anything does nothing.
            "validatingadmissionpolicies" | "mutatingadmissionpolicies" => {}
            "validatingwebhookconfigurations"
            | "mutatingwebhookconfigurations"
            | "validatingadmissionpolicybindings"
            | "mutatingadmissionpolicybindings" => {
                // Each version has the same objects.
                if seen.insert(kind.plural.as_str()) {
                    asked.push(kind.collection(""));
                }
            }
            // What came to Kubernetes after this was written.
            _ => return Ok(true),
        }
    }
    let lists = try_join_all(asked.iter().map(|path| api.list(path, None))).await?;
    Ok(lists.iter().flat_map(|(items, _)| items).any(is_about_config_maps))
}

/// Whether a webhook configuration or a policy's binding may be about ConfigMaps that are applied.
fn is_about_config_maps(item: &Value) -> bool {
    let Some(webhooks) = item.get("webhooks") else {
        // A binding says which policy, and only that which objects; a configuration without webhooks does nothing.
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

/// Names and values that every server takes.
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

fn is(pattern: &Option<Regex>, text: &str) -> bool {
    text.len() <= 253 && pattern.as_ref().is_some_and(|pattern| pattern.is_match(text))
}

/// Whether applying `object` to what is there makes it just what its manifest says: a ConfigMap of texts, which nobody else
/// writes into.
///
/// Source: <https://kubernetes.io/docs/reference/using-api/server-side-apply/#merge-strategy>
pub(super) fn makes_itself(object: &Object, live: Option<&Value>) -> bool {
    (object.api_version.as_str(), object.kind.as_str()) == ("v1", "ConfigMap")
        && is(&NAME, &object.name)
        && is_plain(&object.value)
        && live.is_none_or(is_all_ours)
}

/// Whether a ConfigMap has nothing that a server could refuse or understand otherwise.
fn is_plain(value: &Value) -> bool {
    // Of an empty mapping a server keeps nothing.
    let texts = |value: &Value, of: &dyn Fn(&str, &str) -> bool| {
        value.as_object().filter(|map| !map.is_empty()).is_some_and(|map| {
            map.iter()
                .all(|(key, value)| value.as_str().is_some_and(|text| of(key, text)))
        })
    };
    let metadata = |value: &Value| {
        value.as_object().is_some_and(|map| {
            map.iter().all(|(field, value)| match field.as_str() {
                "name" | "namespace" => value.is_string(),
                "labels" => texts(value, &|key, text| is(&QUALIFIED, key) && is(&LABEL, text)),
                "annotations" => texts(value, &|key, _| is(&QUALIFIED, key)),
                _ => false,
            })
        })
    };
    let is_plain = value.as_object().is_some_and(|map| {
        map.iter().all(|(field, value)| match field.as_str() {
            "apiVersion" | "kind" => value.is_string(),
            "metadata" => metadata(value),
            "data" => texts(value, &|key, _| is(&KEY, key)),
            _ => false,
        })
    });
    is_plain && value.to_string().len() <= MOST_BYTES
}

/// Whether all that a ConfigMap holds is ours and nobody else's, so that what is not applied again goes.
fn is_all_ours(live: &Value) -> bool {
    let mut entries = fields::entries(live);
    let (Some(ours), None) = (entries.next().filter(fields::Entry::is_ours), entries.next()) else {
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
    let stays = ["deletionTimestamp", "finalizers", "ownerReferences", "generateName"];
    live.get("immutable").is_none()
        && metadata.is_some_and(|metadata| stays.iter().all(|field| !metadata.contains_key(*field)))
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
    fn only_plain_config_maps_are_foreseen() {
        assert!(makes_itself(&config_map(|_| {}), None));
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
            ("size", |value| value["data"]["LEVEL"] = json!("x".repeat(MOST_BYTES))),
        ];
        for (what, change) in changes {
            assert!(!makes_itself(&config_map(change), None), "{what}");
        }
    }

    #[test]
    fn what_others_wrote_into_is_not_foreseen() {
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
        let foreseen = |change: &dyn Fn(&mut Value)| makes_itself(&config_map(|_| {}), Some(&live(change)));
        assert!(foreseen(&|_| {}));
        let changes: [(&str, Change); 7] = [
            ("another's entry", |live| {
                let entries = live["metadata"]["managedFields"].as_array_mut().unwrap();
                entries.push(json!({"manager": "kubectl-edit", "operation": "Update", "fieldsV1": {"f:data": {}}}));
            }),
            ("nobody's key", |live| live["data"]["OTHER"] = json!("x")),
            ("nobody's label", |live| live["metadata"]["labels"]["b"] = json!("x")),
            ("nobody's bytes", |live| live["binaryData"] = json!({"b": "eA=="})),
            ("immutable", |live| live["immutable"] = json!(true)),
            ("deleted", |live| {
                live["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z")
            }),
            ("no entries", |live| live["metadata"]["managedFields"] = json!([])),
        ];
        for (what, change) in changes {
            assert!(!foreseen(&change), "{what}");
        }
    }

    #[test]
    fn who_looks_at_config_maps() {
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
        assert!(counts(&json!({"spec": {"hard": {"count/configmaps": "10"}}})));
        assert!(counts(&json!({"spec": {"hard": {"configmaps": "10"}}})));
        assert!(!counts(&json!({"spec": {"hard": {"pods": "10"}}})));
    }
}
