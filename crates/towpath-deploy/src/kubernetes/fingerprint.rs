//! Keyed fingerprints of values, and what the pods of an environment read.

use super::error::ClusterError;
use crate::target::Environment;
use futures::future::{join_all, try_join_all};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use towpath_kube::{Client, Resource};
use towpath_manifest::{CONFIG_HASH, Fingerprints, Kind, Object, ObjectId, Read, SourceKind, names_read, reads};

/// An HMAC-SHA-256 in hex digits: equal for equal values in one environment, and revealing nothing about them.
pub(super) fn fingerprint(key: &[u8], value: &[u8]) -> String {
    // An HMAC accepts keys of every length.
    let Ok(mut hmac) = Hmac::<sha2::Sha256>::new_from_slice(key) else {
        return String::new();
    };
    hmac.update(value);
    let digest = hmac.finalize().into_bytes();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The fingerprints of everything that the pods of `objects` read: all Secrets, and the ConfigMaps that are not among
/// `objects`.
pub(super) async fn of_sources(
    client: &Client,
    environment: &Environment,
    objects: &[Object],
    key: &[u8],
) -> Result<Fingerprints, ClusterError> {
    let mut fingerprints = Fingerprints {
        secrets: of_manifests(objects, key),
        ..Fingerprints::default()
    };
    for (name, live) in find_sources(client, environment, objects, SourceKind::Secret).await? {
        if live.is_some() {
            fingerprints.secrets.insert(name, of_data(live.as_ref(), key));
        }
    }
    for (name, live) in find_sources(client, environment, objects, SourceKind::ConfigMap).await? {
        if live.is_some() {
            fingerprints.config_maps.insert(name, of_data(live.as_ref(), key));
        }
    }
    fingerprints.unhashed = unhashed(client, environment, objects).await?;
    Ok(fingerprints)
}

/// The workloads that run without a hash of what they read, and for which the deployment changes nothing of that.
async fn unhashed(
    client: &Client,
    environment: &Environment,
    objects: &[Object],
) -> Result<BTreeSet<ObjectId>, ClusterError> {
    let find = |kind: &str, name: &str| {
        let path = Resource::of(Kind::of(kind)).object(&environment.namespace, name);
        async move {
            match client.find(&path).await {
                Err(error) if error.is_forbidden() => Ok(None),
                found => found,
            }
        }
    };
    let reading = objects.iter().filter(|object| {
        let is_config = |read: &Read| read.kind != SourceKind::PersistentVolumeClaim;
        Kind::of(&object.kind).rolls_out && reads(object).iter().any(is_config)
    });
    let live =
        reading.map(|object| async move { Ok::<_, ClusterError>((object, find(&object.kind, &object.name).await?)) });
    let mut found = BTreeSet::new();
    for (object, live) in try_join_all(live).await? {
        let annotations = "/spec/template/metadata/annotations";
        let has_hash = |live: &Value| {
            live.pointer(annotations)
                .is_some_and(|all| all.get(CONFIG_HASH).is_some())
        };
        if live.is_none_or(|live| has_hash(&live)) {
            continue;
        }
        let mut is_same = true;
        let sources = reads(object)
            .into_iter()
            .filter(|read| read.kind != SourceKind::PersistentVolumeClaim);
        for Read { kind, name, .. } in sources {
            let kind_name = kind.to_string();
            let wanted = objects
                .iter()
                .find(|source| source.kind == kind_name && source.name == name);
            is_same &= match wanted {
                Some(wanted) => find(&kind_name, &name).await?.is_some_and(|live| {
                    ["data", "binaryData"]
                        .iter()
                        .all(|field| same(&wanted.value, &live, field))
                }),
                // A deployment writes no others.
                None => true,
            };
        }
        if is_same {
            found.insert(object.id());
        }
    }
    Ok(found)
}

/// Whether two ConfigMaps or Secrets have the same values in a field.
fn same(one: &Value, other: &Value, field: &str) -> bool {
    let of = |object: &Value| {
        object
            .get(field)
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default()
    };
    of(one) == of(other)
}

/// The fingerprints of the Secrets that are among `objects`, whatever the cluster has now.
fn of_manifests(objects: &[Object], key: &[u8]) -> BTreeMap<String, BTreeMap<String, String>> {
    let read = names_read(objects, SourceKind::Secret);
    let secrets = objects
        .iter()
        .filter(|object| object.kind == "Secret" && read.contains(&object.name));
    secrets
        .map(|secret| (secret.name.clone(), of_map(secret.value.get("data"), key)))
        .collect()
}

/// The sources of one kind that the pods of `objects` read and that are not among them, as they are in the cluster.
async fn find_sources(
    client: &Client,
    environment: &Environment,
    objects: &[Object],
    kind: SourceKind,
) -> Result<Vec<(String, Option<Value>)>, ClusterError> {
    let kind_name = kind.to_string();
    let resource = Resource::of(Kind::of(&kind_name));
    let in_manifests = |name: &String| {
        let is_it = |object: &Object| object.kind == kind_name && object.name == *name;
        objects.iter().any(is_it)
    };
    let names = names_read(objects, kind).into_iter();
    let found = names.filter(|name| !in_manifests(name)).map(|name| {
        let path = resource.object(&environment.namespace, &name);
        async move { (name, client.find(&path).await) }
    });
    let mut sources = Vec::new();
    for (name, found) in join_all(found).await {
        match found {
            Ok(live) => sources.push((name, live)),
            // Changes of it go unnoticed. Preflight has a finding about that.
            Err(error) if error.is_forbidden() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(sources)
}

fn of_data(source: Option<&Value>, key: &[u8]) -> BTreeMap<String, String> {
    let mut keys = BTreeMap::new();
    for field in ["data", "binaryData"] {
        keys.extend(of_map(source.and_then(|source| source.get(field)), key));
    }
    keys
}

fn of_map(map: Option<&Value>, key: &[u8]) -> BTreeMap<String, String> {
    let map = map.and_then(Value::as_object);
    map.into_iter()
        .flatten()
        .map(|(field, value)| {
            let bytes = value.as_str().unwrap_or_default().as_bytes();
            (field.clone(), fingerprint(key, bytes))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_depend_on_the_key_and_the_value() {
        assert_eq!(fingerprint(b"key", b"value").len(), 64);
        assert_eq!(fingerprint(b"key", b"value"), fingerprint(b"key", b"value"));
        assert_ne!(fingerprint(b"key", b"value"), fingerprint(b"key", b"other"));
        assert_ne!(fingerprint(b"key", b"value"), fingerprint(b"other", b"value"));
    }
}
