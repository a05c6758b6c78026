//! What each workload reads from ConfigMaps, Secrets and claims, and which of it is missing.

use crate::images::containers;
use crate::kinds::Kind;
use crate::object::pointer_token;
use crate::{Object, ObjectId};
use base64::Engine as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use towpath_types::NoVariable;
use towpath_yaml::Place;

/// The kind of object that a workload reads from.
#[allow(missing_docs)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SourceKind {
    ConfigMap,
    Secret,
    PersistentVolumeClaim,
}

impl fmt::Display for SourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
            Self::PersistentVolumeClaim => "PersistentVolumeClaim",
        })
    }
}

/// How a workload reads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Via {
    /// `envFrom`: every key becomes a variable.
    EnvFrom,
    /// `env.valueFrom`: one key becomes the variable of this name.
    Variable(String),
    /// A volume with this name.
    Volume(String),
}

/// One thing that a workload reads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Read {
    /// The workload.
    pub object: ObjectId,
    /// The container; `None` for a volume, which belongs to the whole pod.
    pub container: Option<String>,
    /// The kind of the object that it reads from.
    pub kind: SourceKind,
    /// The name of that object.
    pub name: String,
    /// The key; `None` for all keys.
    pub key: Option<String>,
    /// How it reads.
    pub via: Via,
    /// Whether the pod also starts without it.
    pub optional: bool,
    /// The place of the reference in the manifest.
    pub place: Place,
}

/// What `object`'s pods read from ConfigMaps, Secrets and PersistentVolumeClaims, in the manifest's order.
///
/// Source: <https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/> (`envFrom`, `env.valueFrom`,
/// `volumes`, with projected volumes)
#[must_use]
pub fn reads(object: &Object) -> Vec<Read> {
    let Some(template) = Kind::of(&object.kind).pod_template else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for container in containers(object) {
        let mut reader = Reader {
            object,
            container: Some(container.name),
            found: &mut found,
        };
        let env_from = format!("{}/envFrom", container.pointer);
        for (at, entry) in items(object, &env_from) {
            reader.reference(entry, &at, "configMapRef", SourceKind::ConfigMap, "name", &Via::EnvFrom);
            reader.reference(entry, &at, "secretRef", SourceKind::Secret, "name", &Via::EnvFrom);
        }
        let env = format!("{}/env", container.pointer);
        for (at, entry) in items(object, &env) {
            let Some(from) = entry.get("valueFrom") else { continue };
            let variable = Via::Variable(text(entry, "name"));
            let at = format!("{at}/valueFrom");
            reader.key(from, &at, "configMapKeyRef", SourceKind::ConfigMap, &variable);
            reader.key(from, &at, "secretKeyRef", SourceKind::Secret, &variable);
        }
    }
    let mut reader = Reader {
        object,
        container: None,
        found: &mut found,
    };
    let volumes = format!("{template}/spec/volumes");
    for (at, volume) in items(object, &volumes) {
        let via = Via::Volume(text(volume, "name"));
        reader.files(volume, &at, "configMap", SourceKind::ConfigMap, "name", &via);
        reader.files(volume, &at, "secret", SourceKind::Secret, "secretName", &via);
        let claim = SourceKind::PersistentVolumeClaim;
        reader.reference(volume, &at, "persistentVolumeClaim", claim, "claimName", &via);
        let projected = format!("{at}/projected/sources");
        for (at, source) in items(object, &projected) {
            reader.files(source, &at, "configMap", SourceKind::ConfigMap, "name", &via);
            reader.files(source, &at, "secret", SourceKind::Secret, "name", &via);
        }
    }
    found
}

/// The names of the objects of one kind that the pods of `objects` read, without duplicates.
#[must_use]
pub fn names_read(objects: &[Object], kind: SourceKind) -> BTreeSet<String> {
    let read = objects.iter().flat_map(reads).filter(|read| read.kind == kind);
    read.map(|read| read.name).collect()
}

struct Reader<'a> {
    object: &'a Object,
    container: Option<String>,
    found: &'a mut Vec<Read>,
}

impl Reader<'_> {
    /// Records that all of the object named by `entry.field` is read.
    fn reference(&mut self, entry: &Value, at: &str, field: &str, kind: SourceKind, name: &str, via: &Via) {
        if let Some(reference) = entry.get(field) {
            self.push(
                reference,
                &format!("{at}/{field}"),
                kind,
                name,
                None,
                via,
                is_optional(reference),
            );
        }
    }

    /// Records that one key of the object named by `from.field` is read.
    fn key(&mut self, from: &Value, at: &str, field: &str, kind: SourceKind, via: &Via) {
        if let Some(reference) = from.get(field) {
            let key = Some(text(reference, "key"));
            self.push(
                reference,
                &format!("{at}/{field}"),
                kind,
                "name",
                key,
                via,
                is_optional(reference),
            );
        }
    }

    /// Records the files of a volume: those in `items`, or all of them.
    fn files(&mut self, volume: &Value, at: &str, field: &str, kind: SourceKind, name: &str, via: &Via) {
        let Some(source) = volume.get(field) else { return };
        let at = format!("{at}/{field}");
        let optional = is_optional(source);
        match source.get("items").and_then(Value::as_array) {
            Some(items) if !items.is_empty() => {
                for item in items {
                    self.push(source, &at, kind, name, Some(text(item, "key")), via, optional);
                }
            }
            _ => self.push(source, &at, kind, name, None, via, optional),
        }
    }

    #[allow(clippy::too_many_arguments)] // one for each field of `Read` that differs
    fn push(
        &mut self,
        reference: &Value,
        at: &str,
        kind: SourceKind,
        name_field: &str,
        key: Option<String>,
        via: &Via,
        optional: bool,
    ) {
        let place = match &key {
            Some(_) if reference.get("key").is_some() => self.object.place_of(&format!("{at}/key")),
            _ => self.object.place_of(&format!("{at}/{}", pointer_token(name_field))),
        };
        self.found.push(Read {
            object: self.object.id(),
            container: self.container.clone(),
            kind,
            name: text(reference, name_field),
            key,
            via: via.clone(),
            optional,
            place,
        });
    }
}

fn items<'a>(object: &'a Object, pointer: &str) -> Vec<(String, &'a Value)> {
    let list = object.value.pointer(pointer).and_then(Value::as_array);
    let list = list.map(Vec::as_slice).unwrap_or_default();
    list.iter()
        .enumerate()
        .map(|(index, item)| (format!("{pointer}/{index}"), item))
        .collect()
}

fn text(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or_default().to_string()
}

fn is_optional(reference: &Value) -> bool {
    reference.get("optional").and_then(Value::as_bool).unwrap_or(false)
}

/// What an environment has in addition to the manifests: names and keys, never values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Existing {
    /// The keys of each Secret.
    pub secrets: BTreeMap<String, BTreeSet<String>>,
    /// The keys of each Secret whose values no environment variable can have.
    pub unfit: BTreeMap<String, BTreeMap<String, NoVariable>>,
    /// The keys of each ConfigMap.
    pub config_maps: BTreeMap<String, BTreeSet<String>>,
    /// The names of the PersistentVolumeClaims.
    pub claims: BTreeSet<String>,
}

impl Existing {
    /// Adds a key of a Secret, or replaces its value.
    pub fn add_key(&mut self, secret: &str, key: &str, value: &[u8]) {
        self.secrets
            .entry(secret.to_string())
            .or_default()
            .insert(key.to_string());
        let unfit = self.unfit.entry(secret.to_string()).or_default();
        match NoVariable::check(value) {
            Ok(_) => unfit.remove(key),
            Err(why) => unfit.insert(key.to_string(), why),
        };
        if unfit.is_empty() {
            self.unfit.remove(secret);
        }
    }

    /// Adds the keys and values of a Secret as the API has it, in base64.
    pub fn add_secret(&mut self, name: &str, secret: &Value) {
        self.secrets.entry(name.to_string()).or_default();
        let encoding = base64::engine::general_purpose::STANDARD;
        let data = secret.get("data").and_then(Value::as_object);
        for (key, value) in data.into_iter().flatten() {
            // Whatever is not base64 is refused where the manifest is read.
            let value = encoding.decode(value.as_str().unwrap_or_default());
            self.add_key(name, key, &value.unwrap_or_default());
        }
        let texts = secret.get("stringData").and_then(Value::as_object);
        for (key, value) in texts.into_iter().flatten() {
            self.add_key(name, key, value.as_str().unwrap_or_default().as_bytes());
        }
    }

    /// The keys of a source; `None` if it does not exist.
    pub(crate) fn keys(&self, kind: SourceKind, name: &str) -> Option<&BTreeSet<String>> {
        match kind {
            SourceKind::ConfigMap => self.config_maps.get(name),
            SourceKind::Secret => self.secrets.get(name),
            SourceKind::PersistentVolumeClaim => None,
        }
    }

    /// Adds what `objects` will bring once they are applied.
    #[must_use]
    pub fn with(mut self, objects: &[Object]) -> Self {
        for object in objects {
            match object.kind.as_str() {
                "ConfigMap" => {
                    let keys = keys_of(object, &["data", "binaryData"]);
                    self.config_maps.insert(object.name.clone(), keys);
                }
                // The manifest of a Secret is merged into the existing one: keys that it does not have stay.
                "Secret" => self.add_secret(&object.name, &object.value),
                "PersistentVolumeClaim" => {
                    self.claims.insert(object.name.clone());
                }
                _ => {}
            }
        }
        self
    }
}

fn keys_of(object: &Object, fields: &[&str]) -> BTreeSet<String> {
    let maps = fields
        .iter()
        .filter_map(|field| object.value.get(field).and_then(Value::as_object));
    maps.flat_map(|map| map.keys().cloned()).collect()
}

/// Something that a workload needs and that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The reference to it.
    pub read: Read,
    /// The keys that the source does have; `None` when the source itself is missing.
    pub keys: Option<BTreeSet<String>>,
}

impl fmt::Display for Finding {
    /// ``Secret `app-secrets` has no key `TOKEN` (it has `URL`), which `Deployment/app` (container `web`) needs for the
    /// variable `TOKEN`: a.yaml:3:4``
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let read = &self.read;
        match (&self.keys, &read.key) {
            (Some(keys), Some(key)) => {
                let list: Vec<String> = keys.iter().map(|key| format!("`{key}`")).collect();
                let has = if list.is_empty() {
                    "no keys".to_string()
                } else {
                    list.join(", ")
                };
                write!(f, "{} `{}` has no key `{key}` (it has {has})", read.kind, read.name)?;
            }
            (_, Some(key)) => write!(f, "there is no {} `{}` (with the key `{key}`)", read.kind, read.name)?,
            (_, None) => write!(f, "there is no {} `{}`", read.kind, read.name)?,
        }
        write!(f, ", which `{}`", read.object)?;
        if let Some(container) = &read.container {
            write!(f, " (container `{container}`)")?;
        }
        match &read.via {
            Via::EnvFrom => write!(f, " reads with envFrom")?,
            Via::Variable(variable) => write!(f, " needs for the variable `{variable}`")?,
            Via::Volume(volume) => write!(f, " needs for the volume `{volume}`")?,
        }
        write!(f, ": {}", read.place)
    }
}

/// What `objects` need that neither they nor `existing` have. Optional references are never missing.
#[must_use]
pub fn missing(objects: &[Object], existing: &Existing) -> Vec<Finding> {
    let existing = existing.clone().with(objects);
    let mut findings = Vec::new();
    for read in objects.iter().flat_map(reads).filter(|read| !read.optional) {
        let keys = match read.kind {
            SourceKind::ConfigMap => existing.config_maps.get(&read.name).cloned(),
            SourceKind::Secret => existing.secrets.get(&read.name).cloned(),
            SourceKind::PersistentVolumeClaim => existing.claims.contains(&read.name).then(BTreeSet::new),
        };
        let there = match (&keys, &read.key) {
            (None, _) => false,
            (Some(keys), Some(key)) => keys.contains(key),
            (Some(_), None) => true,
        };
        if !there {
            findings.push(Finding { read, keys });
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn deployment() -> Object {
        let value = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "app"},
            "spec": {"template": {"spec": {
                "initContainers": [{"name": "migrate", "envFrom": [{"secretRef": {"name": "db"}}]}],
                "containers": [{
                    "name": "web",
                    "envFrom": [{"configMapRef": {"name": "app-config"}}, {"secretRef": {"name": "extra", "optional": true}}],
                    "env": [
                        {"name": "PLAIN", "value": "x"},
                        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "app-secrets", "key": "token"}}},
                        {"name": "HOST", "valueFrom": {"configMapKeyRef": {"name": "app-config", "key": "host"}}},
                        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                    ],
                }],
                "volumes": [
                    {"name": "files", "persistentVolumeClaim": {"claimName": "files"}},
                    {"name": "tls", "secret": {"secretName": "tls", "items": [{"key": "crt", "path": "a"}, {"key": "key", "path": "b"}]}},
                    {"name": "all", "projected": {"sources": [{"configMap": {"name": "motd"}}, {"secret": {"name": "extra"}}]}},
                    {"name": "tmp", "emptyDir": {}},
                ],
            }}},
        });
        Object::from_value(value, "a.yaml").unwrap()
    }

    #[test]
    fn every_reference_is_found() {
        let got: Vec<String> = reads(&deployment())
            .iter()
            .map(|read| {
                let key = read.key.as_deref().unwrap_or("*");
                let optional = if read.optional { "?" } else { "" };
                let container = read.container.as_deref().unwrap_or("-");
                format!("{container}: {} {}/{key}{optional}", read.kind, read.name)
            })
            .collect();
        assert_eq!(
            got,
            [
                "migrate: Secret db/*",
                "web: ConfigMap app-config/*",
                "web: Secret extra/*?",
                "web: Secret app-secrets/token",
                "web: ConfigMap app-config/host",
                "-: PersistentVolumeClaim files/*",
                "-: Secret tls/crt",
                "-: Secret tls/key",
                "-: ConfigMap motd/*",
                "-: Secret extra/*",
            ]
        );
    }

    #[test]
    fn names_are_listed_once_and_by_kind() {
        let objects = [deployment(), deployment()];
        let names = |kind| names_read(&objects, kind).into_iter().collect::<Vec<_>>();
        assert_eq!(names(SourceKind::Secret), ["app-secrets", "db", "extra", "tls"]);
        assert_eq!(names(SourceKind::ConfigMap), ["app-config", "motd"]);
        assert_eq!(names(SourceKind::PersistentVolumeClaim), ["files"]);
    }

    fn keys(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_missing_source_is_named_with_the_workload_that_needs_it() {
        let map =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "app-config"}, "data": {"port": "1"}});
        let objects = [deployment(), Object::from_value(map, "c.yaml").unwrap()];
        let existing = Existing {
            secrets: BTreeMap::from([
                ("db".to_string(), keys(&["url"])),
                ("app-secrets".to_string(), keys(&["other"])),
                ("tls".to_string(), keys(&["crt"])),
                ("extra".to_string(), keys(&[])),
            ]),
            ..Existing::default()
        };
        let got: Vec<String> = missing(&objects, &existing).iter().map(ToString::to_string).collect();
        assert_eq!(
            got,
            [
                "Secret `app-secrets` has no key `token` (it has `other`), which `Deployment/app` (container `web`) needs for the variable `TOKEN`: a.yaml:1:1",
                "ConfigMap `app-config` has no key `host` (it has `port`), which `Deployment/app` (container `web`) needs for the variable `HOST`: a.yaml:1:1",
                "there is no PersistentVolumeClaim `files`, which `Deployment/app` needs for the volume `files`: a.yaml:1:1",
                "Secret `tls` has no key `key` (it has `crt`), which `Deployment/app` needs for the volume `tls`: a.yaml:1:1",
                "there is no ConfigMap `motd`, which `Deployment/app` needs for the volume `all`: a.yaml:1:1",
            ]
        );
    }
}
