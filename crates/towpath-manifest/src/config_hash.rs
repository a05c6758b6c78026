//! Pods restart exactly when something that they read changed.
//!
//! Kubernetes starts new pods only when the pod template changed; a changed ConfigMap or Secret alone does nothing to
//! variables that were read at the start. So the template carries a hash of what the pods read.

use crate::Object;
use crate::object::pod_template_pointer;
use crate::reads::{Read, SourceKind, reads};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use towpath_types::{Digest, Digester};

/// The annotation in a pod template that holds the hash.
pub const CONFIG_HASH: &str = "towpath.dev/config-hash";

/// Stand-ins for the values of ConfigMaps and Secrets: equal when the values are, and telling nothing of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fingerprints {
    /// Per Secret, per key. Keyed fingerprints (the vault makes them): a plain hash of a short password is as good as
    /// the password.
    pub secrets: BTreeMap<String, BTreeMap<String, String>>,
    /// Per ConfigMap, per key. What [`Fingerprints::with_config_maps`] adds is a SHA-256.
    pub config_maps: BTreeMap<String, BTreeMap<String, String>>,
}

impl Fingerprints {
    /// Adds the ConfigMaps among `objects`, which win over what was there.
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

/// The hash of what `object`'s pods read: 16 hex digits, or `None` when they read no ConfigMap and no Secret.
///
/// Only the keys that are read count; a source or key that is not there counts as absent, so that its arrival is a
/// change too.
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
            // JSON, so that no name can pretend to be two.
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
    Some(digester.finish().hex()[..16].to_string())
}

/// Writes [`config_hash`] as the annotation [`CONFIG_HASH`] into the pod template of each Deployment, StatefulSet and
/// DaemonSet. Jobs and CronJobs read what they need when they start and get none.
pub fn with_config_hash(objects: &mut [Object], fingerprints: &Fingerprints) {
    for object in objects {
        if !matches!(object.kind.as_str(), "Deployment" | "StatefulSet" | "DaemonSet") {
            continue;
        }
        let Some(hash) = config_hash(object, fingerprints) else {
            continue;
        };
        let template = pod_template_pointer(&object.kind).and_then(|at| object.value.pointer_mut(at));
        let metadata = template
            .and_then(Value::as_object_mut)
            .and_then(|template| mapping(template, "metadata"));
        if let Some(annotations) = metadata.and_then(|metadata| mapping(metadata, "annotations")) {
            annotations.insert(CONFIG_HASH.to_string(), Value::from(hash));
        }
    }
}

/// The mapping at `key`, made when it is not there or is something else (`annotations:` with nothing behind it).
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
    fn only_what_is_read_counts() {
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
    fn a_config_map_of_the_tree_counts_by_content() {
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
    fn the_annotation_lands_in_the_pod_template() {
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
        assert_eq!(hash(&objects[0]), Some(16));
        assert_eq!(hash(&objects[1]), None);
    }
}
