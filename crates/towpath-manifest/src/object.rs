//! One Kubernetes object and the places of its fields.

use base64::Engine as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use towpath_yaml::Place;

/// What an object is called within one environment: its API group, kind and name.
///
/// The group's version is no part of it: `apps/v1` and `apps/v1beta1` speak of one Deployment. Nor is the namespace,
/// for an environment has one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectId {
    /// `apps`; empty for Kubernetes' core group.
    pub group: String,
    /// `Deployment`.
    pub kind: String,
    /// `metadata.name`.
    pub name: String,
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// A Kubernetes object, as written.
///
/// The four names are copies of what `value` says; whoever changes `value` keeps them.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Object {
    /// `apps/v1`.
    pub api_version: String,
    /// `Deployment`.
    pub kind: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`, when the manifest names one.
    pub namespace: Option<String>,
    /// The whole object.
    pub value: Value,
    /// Where the object begins.
    pub place: Place,
    /// Line and column of each field, by JSON pointer.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) places: BTreeMap<String, (u32, u32)>,
}

impl fmt::Debug for Object {
    /// A Secret's manifest holds values, so the whole object never shows.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Object({}/{} at {})", self.kind, self.name, self.place)
    }
}

/// Why a value is no Kubernetes object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAnObject {
    /// It is a list, a string, a number or nothing.
    #[error("a Kubernetes object is a mapping with `apiVersion`, `kind` and `metadata.name`; this is {0}")]
    NotAMapping(&'static str),
    /// A field that every object has is missing, empty, or not a string.
    #[error("a Kubernetes object needs `{0}`, a string that is not empty")]
    Lacks(&'static str),
}

impl NotAnObject {
    /// The JSON pointer of the nearest thing that exists, for the place of a complaint.
    #[must_use]
    pub fn pointer(&self) -> &'static str {
        match self {
            Self::NotAMapping(_) => "",
            Self::Lacks("apiVersion") => "/apiVersion",
            Self::Lacks("kind") => "/kind",
            Self::Lacks("metadata.namespace") => "/metadata/namespace",
            Self::Lacks(_) => "/metadata/name",
        }
    }
}

impl Object {
    /// Reads an object from a value that has no source: from a stored release, or made by a program.
    ///
    /// # Errors
    /// [`NotAnObject`] when it has no `apiVersion`, `kind` or `metadata.name`.
    pub fn from_value(value: Value, origin: &str) -> Result<Self, NotAnObject> {
        let place = Place {
            file: origin.into(),
            line: 1,
            column: 1,
        };
        Self::placed(value, place, BTreeMap::new())
    }

    pub(crate) fn placed(
        value: Value,
        place: Place,
        places: BTreeMap<String, (u32, u32)>,
    ) -> Result<Self, NotAnObject> {
        if !value.is_object() {
            return Err(NotAnObject::NotAMapping(type_in_words(&value)));
        }
        let text = |pointer: &str| {
            value
                .pointer(pointer)
                .and_then(Value::as_str)
                .filter(|text| !text.is_empty())
                .map(str::to_string)
        };
        let namespace = match value.pointer("/metadata/namespace") {
            None | Some(Value::Null) => None,
            Some(_) => Some(text("/metadata/namespace").ok_or(NotAnObject::Lacks("metadata.namespace"))?),
        };
        Ok(Self {
            api_version: text("/apiVersion").ok_or(NotAnObject::Lacks("apiVersion"))?,
            kind: text("/kind").ok_or(NotAnObject::Lacks("kind"))?,
            name: text("/metadata/name").ok_or(NotAnObject::Lacks("metadata.name"))?,
            namespace,
            value,
            place,
            places,
        })
    }

    /// What the object is called within its environment.
    #[must_use]
    pub fn id(&self) -> ObjectId {
        let group = self.api_version.split_once('/').map_or("", |(group, _)| group);
        ObjectId {
            group: group.to_string(),
            kind: self.kind.clone(),
            name: self.name.clone(),
        }
    }

    /// Where the field at `pointer` (RFC 6901: `/spec/template/spec/containers/0/image`) is written.
    ///
    /// A field that is not written (a default, or something Towpath put there) is placed at its nearest ancestor.
    #[must_use]
    pub fn place_of(&self, pointer: &str) -> Place {
        let mut pointer = pointer;
        loop {
            if let Some((line, column)) = self.places.get(pointer) {
                return Place {
                    file: self.place.file.clone(),
                    line: *line,
                    column: *column,
                };
            }
            match pointer.rfind('/') {
                Some(end) => pointer = &pointer[..end],
                None => return self.place.clone(),
            }
        }
    }

    /// The same object in `namespace`. Kinds that have no namespace stay as they are.
    #[must_use]
    pub fn in_namespace(mut self, namespace: &str) -> Self {
        if is_namespaced(&self.kind)
            && let Some(metadata) = self.value.pointer_mut("/metadata").and_then(Value::as_object_mut)
        {
            metadata.insert("namespace".to_string(), Value::from(namespace));
            self.namespace = Some(namespace.to_string());
        }
        self
    }
}

impl Object {
    /// A Secret with its `stringData` in `data`, as the API server would merge them. `stringData` is never read back, so
    /// what leaves it would stay for ever, and a change of it by somebody else would not be seen. What is no text stays
    /// where it is, for the server to refuse.
    ///
    /// Source: <https://kubernetes.io/docs/reference/kubernetes-api/config-and-storage-resources/secret-v1/>
    #[must_use]
    pub fn with_encoded_data(mut self) -> Self {
        if self.kind != "Secret" {
            return self;
        }
        let Some(Value::Object(texts)) = self.value.get_mut("stringData").map(Value::take) else {
            return self;
        };
        let mut left = serde_json::Map::new();
        let encoding = base64::engine::general_purpose::STANDARD;
        for (key, value) in texts {
            let data = match (&value, self.value.get("data")) {
                (Value::String(text), None | Some(Value::Null | Value::Object(_))) => encoding.encode(text),
                _ => {
                    left.insert(key, value);
                    continue;
                }
            };
            let token = pointer_token(&key);
            if let Some(place) = self.places.get(&format!("/stringData/{token}")).copied() {
                self.places.insert(format!("/data/{token}"), place);
            }
            self.value["data"][key] = Value::from(data);
        }
        match (left.is_empty(), self.value.as_object_mut()) {
            (true, Some(map)) => drop(map.shift_remove("stringData")),
            (_, Some(map)) => drop(map.insert("stringData".to_string(), Value::Object(left))),
            (_, None) => {}
        }
        self
    }
}

/// Whether objects of this kind live in a namespace, for Kubernetes' own kinds; unknown kinds do.
///
/// Source: `kubectl api-resources --namespaced=false`
#[must_use]
pub fn is_namespaced(kind: &str) -> bool {
    !matches!(
        kind,
        "Namespace"
            | "Node"
            | "PersistentVolume"
            | "StorageClass"
            | "ClusterRole"
            | "ClusterRoleBinding"
            | "CustomResourceDefinition"
            | "IngressClass"
            | "PriorityClass"
            | "RuntimeClass"
            | "CSIDriver"
            | "CSINode"
            | "VolumeAttachment"
            | "APIService"
            | "MutatingWebhookConfiguration"
            | "ValidatingWebhookConfiguration"
            | "ValidatingAdmissionPolicy"
            | "ValidatingAdmissionPolicyBinding"
    )
}

/// The JSON pointer of the pod template (or, for a Pod, of the pod itself) in an object of `kind`; `None` when objects
/// of this kind start no pods.
#[must_use]
pub fn pod_template_pointer(kind: &str) -> Option<&'static str> {
    match kind {
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "Job" => Some("/spec/template"),
        "CronJob" => Some("/spec/jobTemplate/spec/template"),
        "Pod" => Some(""),
        _ => None,
    }
}

pub(crate) fn type_in_words(value: &Value) -> &'static str {
    match value {
        Value::Null => "empty",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

/// Escapes one key for a JSON pointer (RFC 6901, section 3).
pub(crate) fn pointer_token(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn check(value: Value, expect: Result<&str, &str>) {
        let got = Object::from_value(value, "x.yaml")
            .map(|object| object.id().to_string())
            .map_err(|error| error.to_string());
        assert_eq!(got, expect.map(str::to_string).map_err(str::to_string));
    }

    #[test]
    fn every_object_has_a_version_a_kind_and_a_name() {
        check(
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "app"}}),
            Ok("Service/app"),
        );
        check(
            json!([]),
            Err("a Kubernetes object is a mapping with `apiVersion`, `kind` and `metadata.name`; this is a list"),
        );
        check(
            json!({"kind": "Service", "metadata": {"name": "app"}}),
            Err("a Kubernetes object needs `apiVersion`, a string that is not empty"),
        );
        check(
            json!({"apiVersion": "v1", "kind": 3, "metadata": {"name": "app"}}),
            Err("a Kubernetes object needs `kind`, a string that is not empty"),
        );
        check(
            json!({"apiVersion": "v1", "kind": "Service", "metadata": []}),
            Err("a Kubernetes object needs `metadata.name`, a string that is not empty"),
        );
        check(
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": 7}}),
            Err("a Kubernetes object needs `metadata.namespace`, a string that is not empty"),
        );
    }

    #[test]
    fn a_field_that_is_not_written_is_placed_at_its_nearest_ancestor() {
        let value = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "app"}, "spec": {}});
        let place = Place {
            file: "a.yaml".into(),
            line: 3,
            column: 1,
        };
        let object = Object::placed(value, place, BTreeMap::from([("/spec".to_string(), (7, 1))])).unwrap();
        assert_eq!(object.place_of("/spec/replicas").to_string(), "a.yaml:7:1");
        assert_eq!(object.place_of("/metadata/name").to_string(), "a.yaml:3:1");
        assert_eq!(object.place_of("").to_string(), "a.yaml:3:1");
    }

    #[test]
    fn debug_shows_no_values_and_cluster_kinds_get_no_namespace() {
        let secret =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"A": "hunter2"}});
        let secret = Object::from_value(secret, "s.yaml").unwrap();
        assert_eq!(format!("{secret:?}"), "Object(Secret/s at s.yaml:1:1)");
        assert_eq!(secret.in_namespace("dev").value["metadata"]["namespace"], "dev");
        let space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "dev"}});
        let space = Object::from_value(space, "n.yaml").unwrap().in_namespace("dev");
        assert_eq!(space.namespace, None);
    }
}
