//! The difference between the objects of a release and the objects that are wanted.

use crate::order::rank_and_name;
use crate::{Object, ObjectId};
use base64::Engine as _;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use similar::{ChangeTag, TextDiff};
use std::collections::BTreeMap;
use std::fmt;
use towpath_yaml::{Place, emit};

/// What a deployment does to one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It does not exist yet.
    Created,
    /// It exists and differs.
    Changed,
    /// It exists and is no longer wanted.
    Deleted,
    /// It exists as wanted.
    Unchanged,
}

/// The change of one object.
#[allow(missing_docs)]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub id: ObjectId,
    pub kind: ChangeKind,
    /// The place of its manifest; for a deleted object, where the manifest was.
    pub place: Place,
    /// The lines that differ, with three lines of context; empty if nothing differs. A created or deleted object is shown
    /// whole.
    pub hunks: Vec<Hunk>,
}

/// A group of neighbouring lines in a diff.
#[allow(missing_docs)]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hunk {
    /// The number of the first line before the change, from one; zero if there was nothing.
    pub before_line: usize,
    /// The number of the first line after the change, from one; zero if there is nothing.
    pub after_line: usize,
    pub lines: Vec<DiffLine>,
}

/// One line of a diff, without its line break.
#[allow(missing_docs)]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", content = "text", rename_all = "snake_case")]
pub enum DiffLine {
    Same(String),
    Removed(String),
    Added(String),
}

impl fmt::Display for DiffLine {
    /// Prints the line after ` `, `-` or `+`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Same(text) => write!(f, " {text}"),
            Self::Removed(text) => write!(f, "-{text}"),
            Self::Added(text) => write!(f, "+{text}"),
        }
    }
}

impl fmt::Display for Change {
    /// Prints a unified diff without colour, like `diff -u`. It also fits into a `diff` block in Markdown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.id.to_string();
        let (before, after) = match self.kind {
            ChangeKind::Unchanged => return Ok(()),
            ChangeKind::Created => ("/dev/null", name.as_str()),
            ChangeKind::Deleted => (name.as_str(), "/dev/null"),
            ChangeKind::Changed => (name.as_str(), name.as_str()),
        };
        writeln!(f, "--- {before}\n+++ {after}")?;
        for hunk in &self.hunks {
            let count = |skip: fn(&DiffLine) -> bool| hunk.lines.iter().filter(|line| !skip(line)).count();
            let removed = count(|line| matches!(line, DiffLine::Added(_)));
            let added = count(|line| matches!(line, DiffLine::Removed(_)));
            writeln!(f, "@@ -{},{removed} +{},{added} @@", hunk.before_line, hunk.after_line)?;
            for line in &hunk.lines {
                writeln!(f, "{line}")?;
            }
        }
        Ok(())
    }
}

/// Makes the fingerprint that is shown in place of a Secret's value. It has to be a keyed hash: equal for equal values, and
/// revealing nothing about them.
pub type Fingerprint<'a> = &'a dyn Fn(&[u8]) -> String;

/// Compares the objects of a release (`before`) with the objects that are wanted (`after`). The changes come in the order of
/// application, followed by the deletions in reverse order.
///
/// Both sides are normalised first ([`normalise`]), so that neither the order of keys nor the fields that a cluster writes
/// matter. The values of Secrets never appear: only their keys and `fingerprint`s.
#[must_use]
pub fn diff(before: &[Object], after: &[Object], fingerprint: Fingerprint<'_>) -> Vec<Change> {
    let by_id = |objects: &[Object]| -> BTreeMap<ObjectId, (String, Place)> {
        let text = |object: &Object| emit(&normalise(&object.value, fingerprint));
        objects
            .iter()
            .map(|object| (object.id(), (text(object), object.place.clone())))
            .collect()
    };
    let (mut before, after) = (by_id(before), by_id(after));
    let mut changes: Vec<Change> = after
        .into_iter()
        .map(|(id, (new, place))| {
            let (kind, hunks) = match before.remove(&id) {
                None => (ChangeKind::Created, hunks("", &new)),
                Some((old, _)) if old == new => (ChangeKind::Unchanged, Vec::new()),
                Some((old, _)) => (ChangeKind::Changed, hunks(&old, &new)),
            };
            Change { id, kind, place, hunks }
        })
        .collect();
    changes.sort_by_cached_key(|change| rank_and_name(&change.id));
    let mut deleted: Vec<Change> = before
        .into_iter()
        .map(|(id, (old, place))| Change {
            id,
            kind: ChangeKind::Deleted,
            place,
            hunks: hunks(&old, ""),
        })
        .collect();
    deleted.sort_by_cached_key(|change| rank_and_name(&change.id));
    changes.extend(deleted.into_iter().rev());
    changes
}

fn hunks(before: &str, after: &str) -> Vec<Hunk> {
    let diff = TextDiff::from_lines(before, after);
    let mut hunks = Vec::new();
    for group in diff.grouped_ops(3) {
        let (Some(first), mut lines) = (group.first(), Vec::new()) else {
            continue;
        };
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let text = change.value().trim_end_matches('\n').to_string();
            lines.push(match change.tag() {
                ChangeTag::Equal => DiffLine::Same(text),
                ChangeTag::Delete => DiffLine::Removed(text),
                ChangeTag::Insert => DiffLine::Added(text),
            });
        }
        // `diff -u` numbers an empty side 0.
        let number = |start: usize, whole: &str| if whole.is_empty() { 0 } else { start + 1 };
        hunks.push(Hunk {
            before_line: number(first.old_range().start, before),
            after_line: number(first.new_range().start, after),
            lines,
        });
    }
    hunks
}

/// Fields of `metadata` that the cluster writes.
const CLUSTERS_METADATA: &[&str] = &[
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "managedFields",
    "selfLink",
];

/// Annotations that tools and controllers write for their own use.
const CLUSTERS_ANNOTATIONS: &[&str] = &[
    "kubectl.kubernetes.io/last-applied-configuration",
    "deployment.kubernetes.io/revision",
];

/// Brings an object into its canonical form: sorted keys, no `status`, no metadata written by the cluster, no empty fields,
/// and quantities as strings (`cpu: 1` becomes `cpu: "1"`).
///
/// The `data` and `stringData` of a Secret become one `data` of fingerprints, merged as the API server merges them.
/// Normalising is idempotent except for Secrets, where it would fingerprint the fingerprints.
#[must_use]
pub fn normalise(object: &Value, fingerprint: Fingerprint<'_>) -> Value {
    let mut value = object.clone();
    // Sort before hashing, because values of the wrong shape are hashed as text, and again for the fields that hashing adds.
    value.sort_all_objects();
    let kind = value
        .get("kind")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_string();
    if let Some(fields) = value.as_object_mut() {
        fields.remove("status");
        if kind == "Secret" {
            hide_values(fields, fingerprint);
        }
        if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.retain(|key, _| !CLUSTERS_METADATA.contains(&key.as_str()));
            if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
                annotations.retain(|key, _| !CLUSTERS_ANNOTATIONS.contains(&key.as_str()));
            }
        }
    }
    tidy(&mut value, "");
    value.sort_all_objects();
    value
}

fn hide_values(fields: &mut Map<String, Value>, fingerprint: Fingerprint<'_>) {
    let mut hidden = Map::new();
    let encoding = base64::engine::general_purpose::STANDARD;
    for (field, is_encoded) in [("data", true), ("stringData", false)] {
        let Some(map) = fields.get(field).and_then(Value::as_object) else {
            continue;
        };
        for (key, value) in map {
            let hash = match value {
                Value::String(text) if is_encoded => {
                    let compact: String = text.chars().filter(|c| !c.is_whitespace()).collect();
                    let bytes = encoding.decode(compact).unwrap_or_else(|_| text.clone().into_bytes());
                    fingerprint(&bytes)
                }
                Value::String(text) => fingerprint(text.as_bytes()),
                other => fingerprint(other.to_string().as_bytes()),
            };
            hidden.insert(key.clone(), Value::from(format!("(fingerprint) {hash}")));
        }
        fields.shift_remove(field);
    }
    // A wrongly indented value ends up beside `data`. Therefore hide every field that a Secret does not have.
    for (field, value) in fields.iter_mut() {
        if !matches!(
            field.as_str(),
            "apiVersion" | "kind" | "metadata" | "type" | "immutable"
        ) && !value.is_null()
        {
            *value = Value::from(format!("(fingerprint) {}", fingerprint(value.to_string().as_bytes())));
        }
    }
    if !hidden.is_empty() {
        fields.insert("data".to_string(), Value::Object(hidden));
    }
}

/// Drops fields that are empty where empty means absent, and turns quantities into strings.
fn tidy(value: &mut Value, parent: &str) {
    match value {
        Value::Object(map) => {
            let quantities = matches!(parent, "limits" | "requests" | "capacity" | "hard");
            for (key, value) in map.iter_mut() {
                if quantities && value.is_number() {
                    *value = Value::from(value.to_string());
                }
                tidy(value, key);
            }
            map.retain(|key, value| {
                let empty = match value {
                    Value::Null => true,
                    // An empty `emptyDir` or `podSelector` means something; these do not.
                    Value::Object(map) => {
                        map.is_empty()
                            && matches!(key.as_str(), "annotations" | "labels" | "resources" | "securityContext")
                    }
                    _ => false,
                };
                !empty
            });
        }
        Value::Array(list) => list.iter_mut().for_each(|value| tidy(value, "")),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn print(bytes: &[u8]) -> String {
        format!(
            "{}",
            bytes
                .iter()
                .fold(7_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(*byte)))
        )
    }

    fn object(value: Value) -> Object {
        Object::from_value(value, "a.yaml").unwrap()
    }

    fn check(before: &[Object], after: &[Object], expect: &str) {
        let text: String = diff(before, after, &print)
            .iter()
            .map(|change| format!("{:?} {}\n{change}", change.kind, change.id))
            .collect();
        assert_eq!(text, expect);
    }

    #[test]
    fn every_kind_of_change() {
        let map = |name: &str, port: &str| {
            object(
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"PORT": port, "HOST": "app"}}),
            )
        };
        let service = |name: &str| object(json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": name}}));
        check(
            &[map("app", "80"), service("same"), service("old"), map("older", "1")],
            &[service("same"), map("app", "8080"), service("new")],
            "\
Changed ConfigMap/app
--- ConfigMap/app
+++ ConfigMap/app
@@ -1,7 +1,7 @@
 apiVersion: v1
 data:
   HOST: app
-  PORT: '80'
+  PORT: '8080'
 kind: ConfigMap
 metadata:
   name: app
Created Service/new
--- /dev/null
+++ Service/new
@@ -0,0 +1,4 @@
+apiVersion: v1
+kind: Service
+metadata:
+  name: new
Unchanged Service/same
Deleted Service/old
--- Service/old
+++ /dev/null
@@ -1,4 +0,0 @@
-apiVersion: v1
-kind: Service
-metadata:
-  name: old
Deleted ConfigMap/older
--- ConfigMap/older
+++ /dev/null
@@ -1,7 +0,0 @@
-apiVersion: v1
-data:
-  HOST: app
-  PORT: '1'
-kind: ConfigMap
-metadata:
-  name: older
",
        );
    }

    #[test]
    fn values_of_secrets_never_appear() {
        let secret = |field: &str, value: &str| {
            object(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, field: {"TOKEN": value}}))
        };
        let changes = diff(
            &[secret("stringData", "hunter2")],
            &[secret("stringData", "hunter3")],
            &print,
        );
        let text = serde_json::to_string(&changes).unwrap();
        assert!(!text.contains("hunter"), "{text}");
        assert_eq!(changes[0].kind, ChangeKind::Changed);
        // The same value, in base64.
        let same = diff(
            &[secret("stringData", "hunter2")],
            &[secret("data", "aHVudGVyMg==")],
            &print,
        );
        assert_eq!(same[0].kind, ChangeKind::Unchanged);
        // Nor do values in fields where none belongs.
        let odd = object(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s",
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "hunter2"}}, "data": "hunter2", "TOKEN": "hunter2", "stringData": {"A": 5150}}));
        let text = serde_json::to_string(&diff(&[], &[odd], &print)).unwrap();
        assert!(!text.contains("hunter") && !text.contains("5150"), "{text}");
    }

    #[test]
    fn fields_written_by_the_cluster_are_ignored() {
        let written = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "app", "labels": {}},
            "spec": {"template": {"spec": {"containers": [{"name": "a", "resources": {"limits": {"cpu": 1}}}], "volumes": [{"emptyDir": {}}]}}}});
        let live = json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "app", "uid": "x", "resourceVersion": "9", "generation": 3, "creationTimestamp": "x",
                "annotations": {"deployment.kubernetes.io/revision": "3"}},
            "spec": {"template": {"metadata": {"creationTimestamp": null}, "spec": {"containers": [{"resources": {"limits": {"cpu": "1"}}, "name": "a"}], "volumes": [{"emptyDir": {}}]}}},
            "status": {"replicas": 1}});
        let mut live = live;
        live["spec"]["template"]
            .as_object_mut()
            .unwrap()
            .shift_remove("metadata");
        let changes = diff(&[object(live)], &[object(written)], &print);
        assert_eq!(changes[0].kind, ChangeKind::Unchanged, "{}", changes[0]);
    }
}
