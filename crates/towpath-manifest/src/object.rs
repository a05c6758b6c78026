//! One Kubernetes object and the places of its fields.

use crate::kinds::Kind;
use base64::Engine as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use towpath_types::visible_name;
use towpath_yaml::Place;

/// The identity of an object within its environment: API group, kind and name.
///
/// It leaves out the version, because `apps/v1` and `apps/v1beta1` name the same Deployment, and the namespace, because an
/// environment has only one.
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
        write!(f, "{}/{}", visible_name(&self.kind), visible_name(&self.name))
    }
}

/// A Kubernetes object, as its manifest has it.
///
/// The first four fields are copies of fields of `value`. Code that changes `value` has to keep them equal.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Object {
    /// `apps/v1`.
    pub api_version: String,
    /// `Deployment`.
    pub kind: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`, if the manifest sets it.
    pub namespace: Option<String>,
    /// The whole object as JSON.
    pub value: Value,
    /// Where the object starts in its file.
    pub place: Place,
    /// Line and column of each field, by JSON pointer.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) places: BTreeMap<String, (u32, u32)>,
}

impl fmt::Debug for Object {
    /// Shows only the name: the manifest of a Secret holds values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Object({}/{} at {})", self.kind, self.name, self.place)
    }
}

/// Why a value is not a Kubernetes object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAnObject {
    /// It is a list, a string, a number or empty.
    #[error("a Kubernetes object is a mapping with `apiVersion`, `kind` and `metadata.name`; this is {0}")]
    NotAMapping(&'static str),
    /// A required field is missing, empty, or not a string.
    #[error("a Kubernetes object needs `{0}`, a non-empty string")]
    Lacks(&'static str),
}

impl NotAnObject {
    /// The JSON pointer of the field that is wrong, for the place of a diagnostic.
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
    /// Reads an object from a value that has no source file: one from a stored release, or one that a program made.
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

    /// The object's identity within its environment.
    #[must_use]
    pub fn id(&self) -> ObjectId {
        let group = self.api_version.split_once('/').map_or("", |(group, _)| group);
        ObjectId {
            group: group.to_string(),
            kind: self.kind.clone(),
            name: self.name.clone(),
        }
    }

    /// The place of the field at `pointer` (RFC 6901: `/spec/template/spec/containers/0/image`).
    ///
    /// A field that is not in the file (a default, or one that Towpath added) gets the place of its nearest ancestor.
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

    /// Puts the object into `namespace`. Cluster-wide kinds stay as they are.
    #[must_use]
    pub fn in_namespace(mut self, namespace: &str) -> Self {
        if Kind::of(&self.kind).namespaced
            && let Some(metadata) = self.value.pointer_mut("/metadata").and_then(Value::as_object_mut)
        {
            metadata.insert("namespace".to_string(), Value::from(namespace));
            self.namespace = Some(namespace.to_string());
        }
        self
    }
}

impl Object {
    /// Moves a Secret's `stringData` into `data`, as the API server does.
    ///
    /// The server never returns `stringData`. Without this step, a key removed from it would stay in the cluster, and nobody
    /// would notice when somebody else changed a value. Values that are not strings stay in `stringData`, so that the server
    /// refuses them.
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
            Err("a Kubernetes object needs `apiVersion`, a non-empty string"),
        );
        check(
            json!({"apiVersion": "v1", "kind": 3, "metadata": {"name": "app"}}),
            Err("a Kubernetes object needs `kind`, a non-empty string"),
        );
        check(
            json!({"apiVersion": "v1", "kind": "Service", "metadata": []}),
            Err("a Kubernetes object needs `metadata.name`, a non-empty string"),
        );
        check(
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": 7}}),
            Err("a Kubernetes object needs `metadata.namespace`, a non-empty string"),
        );
    }

    #[test]
    fn a_field_that_is_not_in_the_file_is_placed_at_its_nearest_ancestor() {
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
    fn debug_shows_no_values_and_cluster_wide_kinds_get_no_namespace() {
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
