//! A hash in the pod template, so that pods restart exactly when something that they read has changed.
//!
//! Kubernetes starts new pods only when the pod template changes. A pod does not notice a changed ConfigMap or Secret behind
//! its variables. Therefore the template carries a hash of everything that the pods read.

use crate::kinds::Kind;
use crate::reads::{Read, SourceKind, reads};
use crate::{Object, ObjectId};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use towpath_types::{Digest, Digester};

/// The annotation in a pod template that holds the hash.
pub const CONFIG_HASH: &str = "towpath.dev/config-hash";

/// Fingerprints of the values of ConfigMaps and Secrets: equal for equal values, and revealing nothing about them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fingerprints {
    /// By Secret and key. These have to be keyed hashes: from a plain hash, a short password can be guessed.
    pub secrets: BTreeMap<String, BTreeMap<String, String>>,
    /// By ConfigMap and key. [`Fingerprints::with_config_maps`] adds SHA-256 hashes.
    pub config_maps: BTreeMap<String, BTreeMap<String, String>>,
    /// Workloads that run without a hash, because somebody else has deployed them, and that read what they read now. They get
    /// none: it would restart their pods for nothing.
    pub unhashed: BTreeSet<ObjectId>,
}

impl Fingerprints {
    /// Adds the ConfigMaps among `objects`, in place of any of the same name.
    #[must_use]
    pub fn with_config_maps(mut self, objects: &[Object]) -> Self {
        for object in objects.iter().filter(|object| object.kind == "ConfigMap") {
            let mut keys = BTreeMap::new();
            for field in ["data", "binaryData"] {
                let Some(map) = object.value.get(field).and_then(Value::as_object) else {
                    continue;
                };
                for (key, value) in map {
                    let digest = Digest::of(format!("{field} {value}").as_bytes());
                    keys.insert(key.clone(), digest.to_string());
                }
            }
            self.config_maps.insert(object.name.clone(), keys);
        }
        self
    }

    fn of(&self, kind: SourceKind, name: &str) -> Option<&BTreeMap<String, String>> {
        match kind {
            SourceKind::ConfigMap => self.config_maps.get(name),
            SourceKind::Secret => self.secrets.get(name),
            SourceKind::PersistentVolumeClaim => None,
        }
    }
}

/// The hash of what the pods of `object` read, a whole SHA-256 in hex digits, or `None` if they read no ConfigMap and no
/// Secret.
///
/// Only keys that are read count. A missing source or key counts as absent, so that adding it changes the hash.
#[must_use]
pub fn config_hash(object: &Object, fingerprints: &Fingerprints) -> Option<String> {
    let (mut lines, mut reads_any) = (BTreeSet::new(), false);
    for Read { kind, name, key, .. } in reads(object) {
        if kind == SourceKind::PersistentVolumeClaim {
            continue;
        }
        reads_any = true;
        let source = fingerprints.of(kind, &name);
        let mut line = |key: &str, fingerprint: Option<&String>| {
            // JSON keeps the fields apart whatever characters the names have.
            lines.insert(
                Value::from(vec![
                    Value::from(kind.to_string()),
                    Value::from(name.as_str()),
                    Value::from(key),
                    fingerprint.map_or(Value::Null, |text| Value::from(text.as_str())),
                ])
                .to_string(),
            );
        };
        match (source, key) {
            (Some(source), Some(key)) => line(&key, source.get(&key)),
            (Some(source), None) => source
                .iter()
                .for_each(|(key, fingerprint)| line(key, Some(fingerprint))),
            (None, key) => line(key.as_deref().unwrap_or_default(), None),
        }
    }
    if !reads_any {
        return None;
    }
    let mut digester = Digester::default();
    for line in lines {
        digester.update(line.as_bytes());
        digester.update(b"\n");
    }
    Some(digester.finish().hex().to_string())
}

/// Writes [`config_hash`] as the annotation [`CONFIG_HASH`] into the pod template of everything that rolls out (Deployments,
/// StatefulSets, DaemonSets). Jobs and CronJobs read their configuration when they start, so they get none.
pub fn with_config_hash(objects: &mut [Object], fingerprints: &Fingerprints) {
    for object in objects {
        let kind = Kind::of(&object.kind);
        if !kind.rolls_out || fingerprints.unhashed.contains(&object.id()) {
            continue;
        }
        let Some(hash) = config_hash(object, fingerprints) else {
            continue;
        };
        let template = kind.pod_template.and_then(|at| object.value.pointer_mut(at));
        let metadata = template
            .and_then(Value::as_object_mut)
            .and_then(|template| mapping(template, "metadata"));
        if let Some(annotations) = metadata.and_then(|metadata| mapping(metadata, "annotations")) {
            annotations.insert(CONFIG_HASH.to_string(), Value::from(hash));
        }
    }
}

/// The mapping at `key`. Creates it if it is missing or something else (`annotations:` with no value).
fn mapping<'a>(parent: &'a mut Map<String, Value>, key: &str) -> Option<&'a mut Map<String, Value>> {
    let entry = parent.entry(key.to_string()).or_insert(Value::Null);
    if !entry.is_object() {
        *entry = Value::Object(Map::new());
    }
    entry.as_object_mut()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn deployment(container: Value) -> Object {
        let value = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "app"},
            "spec": {"template": {"metadata": {"annotations": null}, "spec": {"containers": [container]}}}});
        Object::from_value(value, "a.yaml").unwrap()
    }

    fn secrets(value: &[(&str, &str)]) -> Fingerprints {
        let keys = value
            .iter()
            .map(|(key, print)| (key.to_string(), print.to_string()))
            .collect();
        Fingerprints {
            secrets: BTreeMap::from([("s".to_string(), keys)]),
            ..Fingerprints::default()
        }
    }

    #[test]
    fn only_keys_that_are_read_count() {
        let one = deployment(
            json!({"name": "c", "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "a"}}}]}),
        );
        let all = deployment(json!({"name": "c", "envFrom": [{"secretRef": {"name": "s"}}]}));
        let none = deployment(json!({"name": "c"}));
        let before = secrets(&[("a", "1"), ("b", "1")]);
        let other_changed = secrets(&[("a", "1"), ("b", "2")]);
        let changed = secrets(&[("a", "2"), ("b", "1")]);
        let gone = Fingerprints::default();
        assert_eq!(config_hash(&one, &before), config_hash(&one, &other_changed));
        assert_ne!(config_hash(&one, &before), config_hash(&one, &changed));
        assert_ne!(config_hash(&one, &before), config_hash(&one, &gone));
        assert_ne!(config_hash(&all, &before), config_hash(&all, &other_changed));
        assert_ne!(config_hash(&all, &secrets(&[])), config_hash(&all, &gone));
        assert_eq!(config_hash(&none, &before), None);
    }

    #[test]
    fn a_config_map_in_the_tree_counts_by_its_content() {
        let map = |port: &str| {
            let value =
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"PORT": port}});
            Fingerprints::default().with_config_maps(&[Object::from_value(value, "c.yaml").unwrap()])
        };
        let reader = deployment(json!({"name": "c", "envFrom": [{"configMapRef": {"name": "m"}}]}));
        assert_eq!(config_hash(&reader, &map("1")), config_hash(&reader, &map("1")));
        assert_ne!(config_hash(&reader, &map("1")), config_hash(&reader, &map("2")));
    }

    #[test]
    fn the_annotation_is_written_into_the_pod_template() {
        let mut objects = [
            deployment(json!({"name": "c", "envFrom": [{"secretRef": {"name": "s"}}]})),
            deployment(json!({"name": "c"})),
        ];
        with_config_hash(&mut objects, &secrets(&[("a", "1")]));
        let hash = |object: &Object| {
            object.value["spec"]["template"]["metadata"]["annotations"][CONFIG_HASH]
                .as_str()
                .map(str::len)
        };
        assert_eq!(hash(&objects[0]), Some(64));
        assert_eq!(hash(&objects[1]), None);
    }
}
