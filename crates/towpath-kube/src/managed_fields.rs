//! Who owns which field of an object: `metadata.managedFields`.
//!
//! Source: <https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management> and, for the form of
//! `fieldsV1`, <https://github.com/kubernetes-sigs/structured-merge-diff/blob/master/fieldpath/serialize-pe.go>

use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// The field manager that Towpath applies objects as.
pub const FIELD_MANAGER: &str = "towpath";

/// A path in the form of `fieldsV1`: `["f:spec", "f:containers", "k:{\"name\":\"app\"}", "f:image"]`.
pub type Path = Vec<String>;

/// The entry of one field manager.
pub struct Entry<'a> {
    /// The name of the manager: `kubectl-edit`.
    pub manager: &'a str,
    /// `Apply` or `Update`.
    pub operation: &'a str,
    /// `status`, `scale`; empty for the object itself.
    pub subresource: &'a str,
    /// The time of its last write (RFC 3339).
    pub time: &'a str,
    /// The fields that it owns, in the form of `fieldsV1`.
    pub fields: &'a Value,
}

impl Entry<'_> {
    /// Whether Towpath's deployments wrote it.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.manager == FIELD_MANAGER && self.operation == "Apply" && self.subresource.is_empty()
    }

    /// Whether `kubectl apply` wrote it: the way in which most people deploy before they use Towpath.
    ///
    /// Source: <https://github.com/kubernetes/client-go/blob/master/util/csaupgrade/upgrade.go>
    #[must_use]
    pub fn is_kubectl_apply(&self) -> bool {
        self.subresource.is_empty()
            && matches!(
                (self.manager, self.operation),
                ("kubectl-client-side-apply", "Update") | ("kubectl", "Apply")
            )
    }

    /// Whether Helm wrote it.
    #[must_use]
    pub fn is_helm(&self) -> bool {
        self.subresource.is_empty() && self.manager == "helm"
    }

    /// Whether a tool wrote it that deployed the object before, and whose fields a deployment takes over.
    #[must_use]
    pub fn is_predecessor(&self) -> bool {
        self.is_kubectl_apply() || self.is_helm()
    }

    /// The fields that a deployment takes over, in the form of `fieldsV1`. Empty for an entry of nobody who deployed before.
    fn left_over(&self) -> Value {
        let mut fields = match self.is_predecessor() {
            true => self.fields.clone(),
            false => Value::Null,
        };
        if self.is_helm() {
            for path in helms_own(self.fields) {
                disown(&mut fields, &path);
                // A parent without fields would count as a field.
                for parent in (1..path.len()).rev().map(|length| &path[..length]) {
                    let inside = parent.iter().try_fold(&fields, |fields, part| fields.get(part));
                    if inside.and_then(Value::as_object).is_some_and(Map::is_empty) {
                        disown(&mut fields, parent);
                    }
                }
            }
        }
        fields
    }
}

/// What Helm notes on each object of its releases, in no template: whose release it is. It stays Helm's.
///
/// Source: <https://github.com/helm/helm/blob/main/pkg/action/validate.go>
fn is_helms_own(path: &[String]) -> bool {
    match path {
        [metadata, field, key] if metadata == "f:metadata" => match field.as_str() {
            "f:annotations" => key.starts_with("f:meta.helm.sh/"),
            "f:labels" => key == "f:app.kubernetes.io/managed-by",
            _ => false,
        },
        _ => false,
    }
}

fn helms_own(fields: &Value) -> Vec<Path> {
    leaves(fields).into_iter().filter(|path| is_helms_own(path)).collect()
}

/// The entries of all managers.
pub fn entries(object: &Value) -> impl Iterator<Item = Entry<'_>> {
    let list = object.pointer("/metadata/managedFields").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(|entry| {
        let text = |field: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default();
        Some(Entry {
            manager: text("manager"),
            operation: text("operation"),
            subresource: text("subresource"),
            time: text("time"),
            fields: entry.get("fieldsV1")?,
        })
    })
}

/// The `fieldsV1` of Towpath's entry.
#[must_use]
pub fn ours(object: &Value) -> Option<&Value> {
    entries(object).find(Entry::is_ours).map(|entry| entry.fields)
}

/// Whether only Towpath's deployments, `kubectl apply` and Helm own the field at a path, so that it is removed when no manifest
/// has it.
#[must_use]
pub fn is_ours_alone(object: &Value, path: &[&str]) -> bool {
    let owns = |entry: &Entry<'_>| {
        path.iter()
            .try_fold(entry.fields, |fields, part| fields.get(part))
            .is_some()
    };
    let (ours, others): (Vec<Entry<'_>>, Vec<Entry<'_>>) = entries(object)
        .filter(owns)
        .partition(|entry| entry.is_ours() || entry.is_predecessor());
    !ours.is_empty() && others.is_empty()
}

/// The `fieldsV1` of Towpath's entry, with the items of each list in the order that they have in `object`. Entries themselves
/// say nothing about order, so a change of it alone leaves no other trace.
#[must_use]
pub fn owned_in_order(object: &Value) -> Option<Value> {
    ours(object).map(|fields| in_order(fields, object))
}

fn in_order(fields: &Value, value: &Value) -> Value {
    let Some(map) = fields.as_object() else {
        return fields.clone();
    };
    let mut found: Vec<(Option<usize>, &String, Value)> = Vec::new();
    for (element, inner) in map {
        let (position, inside) = match element.split_once(':') {
            Some(("f", key)) => (None, value.get(key)),
            // The items of a set have no order.
            Some(("k", keys)) => {
                let at = item_position(value, keys);
                (at, at.and_then(|at| value.get(at)))
            }
            _ => (None, None),
        };
        found.push((position, element, in_order(inner, inside.unwrap_or(&Value::Null))));
    }
    found.sort_by_key(|(position, ..)| *position);
    let found = found.into_iter().map(|(_, element, inner)| (element.clone(), inner));
    Value::Object(found.collect())
}

/// Where a list has the item with these keys, which are JSON.
fn item_position(list: &Value, keys: &str) -> Option<usize> {
    let keys: Map<String, Value> = serde_json::from_str(keys).ok()?;
    let is_it = |item: &Value| keys.iter().all(|(key, value)| item.get(key) == Some(value));
    list.as_array()?.iter().position(is_it)
}

/// All paths that an entry owns: its leaves, and the mappings and lists that it marks with `.`.
#[must_use]
pub fn paths(fields: &Value) -> BTreeSet<Path> {
    let mut found = BTreeSet::new();
    walk(fields, true, &mut Vec::new(), &mut found);
    found
}

/// The paths of an entry that hold values. Mappings and lists that it only marks with `.` are left out. A list that counts as
/// one value, such as `args`, is included.
fn leaves(fields: &Value) -> BTreeSet<Path> {
    let mut found = BTreeSet::new();
    walk(fields, false, &mut Vec::new(), &mut found);
    found
}

fn walk(fields: &Value, with_marks: bool, path: &mut Path, found: &mut BTreeSet<Path>) {
    let Some(map) = fields.as_object() else { return };
    if map.is_empty() && !path.is_empty() {
        found.insert(path.clone());
    }
    for (key, inner) in map {
        if key == "." {
            if with_marks {
                found.insert(path.clone());
            }
            continue;
        }
        path.push(key.clone());
        walk(inner, with_marks, path, found);
        path.pop();
    }
}

/// The value at a path, if it exists.
fn locate<'a>(object: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter()
        .try_fold(object, |value, element| match element.split_once(':')? {
            ("f", key) => value.get(key),
            ("i", index) => value.get(index.parse::<usize>().ok()?),
            (_, text) => value.as_array()?.iter().find(|item| is_item(element, text, item)),
        })
}

fn locate_mut<'a>(object: &'a mut Value, path: &[String]) -> Option<&'a mut Value> {
    path.iter()
        .try_fold(object, |value, element| match element.split_once(':')? {
            ("f", key) => value.get_mut(key),
            ("i", index) => value.get_mut(index.parse::<usize>().ok()?),
            (_, text) => value
                .as_array_mut()?
                .iter_mut()
                .find(|item| is_item(element, text, item)),
        })
}

/// Whether `item` is the list item that `k:{…}` or `v:…` selects.
fn is_item(element: &str, text: &str, item: &Value) -> bool {
    let Ok(wanted) = serde_json::from_str::<Value>(text) else {
        return false;
    };
    if element.starts_with("v:") {
        return *item == wanted;
    }
    wanted
        .as_object()
        .is_some_and(|keys| keys.iter().all(|(key, value)| item.get(key) == Some(value)))
}

/// Removes the value at a path, and parents that become empty.
fn remove(object: &mut Value, path: &[String]) {
    let Some((element, rest)) = path.split_first() else {
        return;
    };
    let (tag, text) = element.split_once(':').unwrap_or_default();
    match (tag, object) {
        ("f", Value::Object(map)) => {
            if rest.is_empty() {
                // Keep a mapping or list that still has members of others.
                if map.get(text).is_some_and(|value| !has_members(value)) {
                    map.shift_remove(text);
                }
                return;
            }
            if let Some(inner) = map.get_mut(text) {
                remove(inner, rest);
                if inner.as_object().is_some_and(Map::is_empty) || inner.as_array().is_some_and(Vec::is_empty) {
                    map.shift_remove(text);
                }
            }
        }
        (_, Value::Array(items)) => {
            let Some(at) = items.iter().position(|item| is_item(element, text, item)) else {
                return;
            };
            if rest.is_empty() {
                let keys = serde_json::from_str::<Map<String, Value>>(text).unwrap_or_default();
                // Keep an item that has fields of others.
                let is_bare = |item: &Value| {
                    item.as_object()
                        .is_none_or(|item| item.keys().all(|key| keys.contains_key(key)))
                };
                if tag == "v" || is_bare(&items[at]) {
                    items.remove(at);
                }
            } else if let Some(item) = items.get_mut(at) {
                remove(item, rest);
            }
        }
        _ => {}
    }
}

fn has_members(value: &Value) -> bool {
    value.as_object().is_some_and(|map| !map.is_empty()) || value.as_array().is_some_and(|list| !list.is_empty())
}

/// Predicts an object after a deployment that takes over the fields of `kubectl apply` and Helm.
///
/// `would_be` is the answer to a dry run. A dry run cannot take over fields, so it still has those that only these own: remove
/// them. Where the server fills in a default instead, as in `defaults`, use that.
#[must_use]
pub fn without_abandoned_fields(live: &Value, would_be: &Value, defaults: Option<&Value>) -> Value {
    let mut abandoned: BTreeSet<Path> = entries(live).flat_map(|entry| paths(&entry.left_over())).collect();
    if abandoned.is_empty() {
        return would_be.clone();
    }
    for entry in entries(would_be).filter(|entry| !entry.is_predecessor()) {
        for path in paths(entry.fields) {
            abandoned.remove(&path);
        }
    }
    let mut would_be = would_be.clone();
    abandoned.retain(|path| {
        let Some(default) = defaults.and_then(|defaults| locate(defaults, path)) else {
            return true;
        };
        if let Some(value) = locate_mut(&mut would_be, path).filter(|value| !has_members(value)) {
            *value = default.clone();
        }
        false
    });
    without(&would_be, abandoned)
}

/// Removes the fields at `paths` from a copy of `object`.
#[must_use]
pub fn without(object: &Value, paths: BTreeSet<Path>) -> Value {
    let mut object = object.clone();
    // The key of a list item is removed only together with the item.
    let is_key = |path: &Path| {
        let [.., item, field] = path.as_slice() else {
            return false;
        };
        let keys = item
            .strip_prefix("k:")
            .and_then(|keys| serde_json::from_str::<Map<String, Value>>(keys).ok());
        keys.is_some_and(|keys| keys.contains_key(field.trim_start_matches("f:")))
    };
    let mut paths: Vec<Path> = paths.into_iter().filter(|path| !is_key(path)).collect();
    // Deepest first, so that parents are empty when it is their turn.
    paths.sort_by_key(|path| std::cmp::Reverse(path.len()));
    for path in paths {
        remove(&mut object, &path);
    }
    object
}

/// The fields that others have added to `live` beside those of the release, and who added them: manager and time.
///
/// Managers for whom `is_known` returns true do not count, nor do finalizers, which controllers add to delay a deletion, nor
/// values that are the server's `defaults`, which whoever creates an object owns with the rest. The fields of the release are Towpath's fields in `would_be`, the answer to a dry run. In `live`, Towpath no longer owns a field
/// after somebody else has changed its value.
#[must_use]
pub fn added_by_others(
    live: &Value,
    would_be: &Value,
    defaults: Option<&Value>,
    is_known: impl Fn(&str) -> bool,
) -> (BTreeSet<Path>, Vec<(String, String)>) {
    let mut released = ours(would_be).map(paths).unwrap_or_default();
    for entry in entries(live).filter(|entry| is_known(entry.manager)) {
        released.extend(paths(entry.fields));
    }
    let is_default = |path: &Path| {
        let default = defaults.and_then(|defaults| locate(defaults, path));
        default.is_some() && default == locate(live, path)
    };
    let (mut added, mut writers) = (BTreeSet::new(), Vec::new());
    let others =
        entries(live).filter(|entry| !entry.is_ours() && entry.subresource.is_empty() && !is_known(entry.manager));
    for entry in others {
        let theirs: Vec<Path> = paths(entry.fields)
            .into_iter()
            .filter(|path| !released.contains(path) && !is_finalizer(path) && !is_servers(path) && !is_default(path))
            .filter(|path| !(entry.is_helm() && is_helms_own(path)))
            .collect();
        if !theirs.is_empty() {
            writers.push((entry.manager.to_string(), entry.time.to_string()));
            added.extend(theirs);
        }
    }
    (added, writers)
}

/// Whether a manager other than Towpath owns a field below `prefix`.
#[must_use]
pub fn has_others(object: &Value, prefix: &[&str]) -> bool {
    let is_below = |path: &Path| path.len() > prefix.len() && path.iter().zip(prefix).all(|(one, other)| one == other);
    entries(object)
        .filter(|entry| !entry.is_ours() && entry.subresource.is_empty())
        .any(|entry| leaves(entry.fields).iter().any(is_below))
}

/// The label that the server itself puts on each namespace.
fn is_servers(path: &[String]) -> bool {
    matches!(path, [.., last] if last == "f:kubernetes.io/metadata.name")
}

fn is_finalizer(path: &[String]) -> bool {
    matches!(path, [first, second, ..] if first == "f:metadata" && second == "f:finalizers")
}

/// Takes over into a copy of `wanted` the values that managers with `is_known` have written into `live`, such as the number of
/// replicas from an autoscaler.
#[must_use]
pub fn with_values_of(live: &Value, wanted: &Value, is_known: impl Fn(&str) -> bool) -> Value {
    let mut wanted = wanted.clone();
    for entry in entries(live).filter(|entry| is_known(entry.manager)) {
        for path in leaves(entry.fields) {
            if let (Some(theirs), Some(value)) = (locate(live, &path), locate_mut(&mut wanted, &path)) {
                *value = theirs.clone();
            }
        }
    }
    wanted
}

/// Whether `kubectl apply` or Helm owns fields that Towpath has to take over.
#[must_use]
pub fn is_to_be_taken_over(live: &Value) -> bool {
    !predecessors(live).is_empty()
}

/// The managers whose fields Towpath has to take over: `helm`, `kubectl-client-side-apply`.
#[must_use]
pub fn predecessors(live: &Value) -> BTreeSet<&str> {
    let found = entries(live).filter(|entry| entry.is_kubectl_apply() || !leaves(&entry.left_over()).is_empty());
    found.map(|entry| entry.manager).collect()
}

/// The managers other than Towpath that own, in `live`, fields of the manifest whose values a deployment changes. `would_be` is
/// the answer to a dry run.
#[must_use]
pub fn overruled<'a>(live: &'a Value, would_be: &Value) -> BTreeSet<&'a str> {
    let wanted = ours(would_be).map(leaves).unwrap_or_default();
    let changed: BTreeSet<Path> = wanted
        .into_iter()
        .filter(|path| locate(live, path) != locate(would_be, path))
        .collect();
    let owns = |entry: &Entry<'_>| leaves(entry.fields).iter().any(|path| changed.contains(path));
    let others = entries(live).filter(|entry| !entry.is_ours() && entry.subresource.is_empty());
    others.filter(owns).map(|entry| entry.manager).collect()
}

/// The `managedFields` that make Towpath the owner of everything `kubectl apply` and Helm owned, but not of the field `given_up`;
/// `None` if that changes nothing. What Helm notes about its release stays Helm's.
///
/// Without this step, a field that was removed from the manifest would stay forever, because `kubectl` still owns it; and a
/// field that somebody else takes over would be removed, because Towpath still owns it.
#[must_use]
pub fn handed_over(live: &Value, given_up: Option<&Path>) -> Option<Value> {
    let gives_up = given_up.is_some_and(|path| ours(live).is_some_and(|fields| paths(fields).contains(path)));
    if !is_to_be_taken_over(live) && !gives_up {
        return None;
    }
    let list = live.pointer("/metadata/managedFields")?.as_array()?;
    let mut fields = ours(live).cloned().unwrap_or_else(|| Value::Object(Map::new()));
    for entry in entries(live) {
        merge(&mut fields, &entry.left_over());
    }
    if let Some(path) = given_up {
        disown(&mut fields, path);
    }
    let entry_of = |value: &Value| {
        let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_string();
        (text("manager"), text("operation"), text("subresource"))
    };
    let goes = |value: &&Value| {
        let (manager, operation, subresource) = entry_of(value);
        let entry = Entry {
            manager: &manager,
            operation: &operation,
            subresource: &subresource,
            time: "",
            fields: &Value::Null,
        };
        entry.is_ours() || entry.is_predecessor()
    };
    let mut kept: Vec<Value> = list.iter().filter(|value| !goes(value)).cloned().collect();
    for entry in list.iter().filter(|value| entry_of(value).0 == "helm" && goes(value)) {
        let own = helms_own(entry.get("fieldsV1").unwrap_or(&Value::Null));
        if !own.is_empty() {
            let mut entry = entry.clone();
            entry["fieldsV1"] = of_paths(&own);
            kept.push(entry);
        }
    }
    kept.push(serde_json::json!({
        "manager": FIELD_MANAGER, "operation": "Apply", "apiVersion": live.get("apiVersion"),
        "time": jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "fieldsType": "FieldsV1", "fieldsV1": fields,
    }));
    Some(Value::Array(kept))
}

/// The form of `fieldsV1` for paths.
fn of_paths(paths: &[Path]) -> Value {
    let mut fields = Value::Object(Map::new());
    for path in paths {
        let of_path = path.iter().rev().fold(
            serde_json::json!({}),
            |inner, part| serde_json::json!({ part.as_str(): inner }),
        );
        merge(&mut fields, &of_path);
    }
    fields
}

fn disown(fields: &mut Value, path: &[String]) {
    match (path, fields.as_object_mut()) {
        ([last], Some(map)) => drop(map.shift_remove(last)),
        ([first, rest @ ..], Some(map)) => {
            if let Some(inner) = map.get_mut(first) {
                disown(inner, rest);
            }
        }
        _ => {}
    }
}

fn merge(into: &mut Value, from: &Value) {
    let (Some(into), Some(from)) = (into.as_object_mut(), from.as_object()) else {
        return;
    };
    for (key, value) in from {
        merge(
            into.entry(key.clone()).or_insert_with(|| Value::Object(Map::new())),
            value,
        );
    }
}

/// Who wrote the fields of `live` that differ from `wanted`: manager and time, latest first. Leaves out managers for whom
/// `is_known` returns true.
#[must_use]
pub fn who_changed(live: &Value, wanted: &Value, is_known: impl Fn(&str) -> bool) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = entries(live)
        .filter(|entry| !entry.is_ours() && entry.subresource != "status" && !is_known(entry.manager))
        .filter(|entry| {
            let of_it = leaves(entry.fields);
            of_it.iter().any(|path| {
                let (now, then) = (locate(live, path), locate(wanted, path));
                now.is_some() && now != then
            })
        })
        .map(|entry| (entry.manager.to_string(), entry.time.to_string()))
        .collect();
    found.sort_by(|one, other| other.1.cmp(&one.1));
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn live() -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "app", "labels": {"a": "1", "old": "x"}, "managedFields": [
                {"manager": "kubectl-client-side-apply", "operation": "Update", "time": "2026-01-01T00:00:00Z", "fieldsV1": {
                    "f:metadata": {"f:labels": {".": {}, "f:a": {}, "f:old": {}}},
                    "f:spec": {"f:containers": {"k:{\"name\":\"app\"}": {".": {}, "f:image": {}, "f:name": {}},
                                                "k:{\"name\":\"side\"}": {".": {}, "f:name": {}}}}}},
                {"manager": "kubectl-edit", "operation": "Update", "time": "2026-02-01T00:00:00Z", "fieldsV1": {
                    "f:spec": {"f:replicas": {}}}},
                {"manager": "kube-controller-manager", "operation": "Update", "subresource": "status", "fieldsV1": {"f:status": {}}},
            ]},
            "spec": {"replicas": 3, "containers": [{"name": "app", "image": "1"}, {"name": "side"}]},
        })
    }

    #[test]
    fn paths_are_leaves_and_marks() {
        let fields = json!({"f:spec": {"f:ports": {".": {}, "k:{\"port\":80}": {".": {}, "f:port": {}}}, "f:finalizers": {"v:\"x\"": {}}}});
        let got: Vec<String> = paths(&fields).into_iter().map(|path| path.join(" ")).collect();
        assert_eq!(
            got,
            [
                "f:spec f:finalizers v:\"x\"",
                "f:spec f:ports",
                "f:spec f:ports k:{\"port\":80}",
                "f:spec f:ports k:{\"port\":80} f:port",
            ]
        );
        let object = json!({"spec": {"ports": [{"port": 80, "a": 1}], "finalizers": ["x"]}});
        let path = |text: &str| text.split(' ').map(str::to_string).collect::<Path>();
        assert_eq!(
            locate(&object, &path("f:spec f:ports k:{\"port\":80} f:a")),
            Some(&json!(1))
        );
        assert_eq!(locate(&object, &path("f:spec f:finalizers v:\"x\"")), Some(&json!("x")));
        assert_eq!(locate(&object, &path("f:spec f:ports k:{\"port\":81}")), None);
    }

    #[test]
    fn fields_of_kubectl_alone_are_removed_and_those_of_others_stay() {
        let live = live();
        // A dry run of a manifest without the label `old` and the container `side`.
        let mut would_be = live.clone();
        let list = would_be["metadata"]["managedFields"].as_array_mut().unwrap();
        list.push(json!({"manager": "towpath", "operation": "Apply", "fieldsV1": {
            "f:metadata": {"f:labels": {"f:a": {}}},
            "f:spec": {"f:containers": {"k:{\"name\":\"app\"}": {".": {}, "f:image": {}, "f:name": {}}}}}}));
        let defaults =
            json!({"spec": {"containers": [{"name": "app", "image": "1"}]}, "metadata": {"labels": {"old": "y"}}});
        let with_default = without_abandoned_fields(&live, &would_be, Some(&defaults));
        assert_eq!(with_default["metadata"]["labels"], json!({"a": "1", "old": "y"}));
        let predicted = without_abandoned_fields(&live, &would_be, None);
        assert_eq!(predicted["metadata"]["labels"], json!({"a": "1"}));
        assert_eq!(
            predicted["spec"],
            json!({"replicas": 3, "containers": [{"name": "app", "image": "1"}]})
        );
    }

    #[test]
    fn an_item_is_removed_whole_unless_it_has_fields_of_others() {
        let object =
            json!({"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}], "finalizers": ["x", "y"]});
        let path = |text: &str| text.split(' ').map(str::to_string).collect::<Path>();
        let check = |paths: &[&str], expect: Value| {
            assert_eq!(
                without(&object, paths.iter().map(|text| path(text)).collect()),
                expect,
                "{paths:?}"
            );
        };
        let a = "f:env k:{\"name\":\"A\"}";
        let both = json!([{"name": "B", "value": "2"}]);
        check(
            &[
                a,
                &format!("{a} f:name"),
                &format!("{a} f:value"),
                "f:finalizers v:\"x\"",
            ],
            json!({"env": both, "finalizers": ["y"]}),
        );
        check(&[a, &format!("{a} f:name")], object.clone());
    }

    #[test]
    fn fields_of_kubectl_become_towpaths() {
        let after = json!({"metadata": {"managedFields": handed_over(&live(), None).unwrap()}});
        assert_eq!(entries(&after).filter(Entry::is_kubectl_apply).count(), 0);
        assert_eq!(entries(&after).count(), 3);
        let owned = paths(ours(&after).unwrap());
        assert!(
            owned.contains(&vec!["f:metadata".to_string(), "f:labels".into(), "f:old".into()]),
            "{owned:?}"
        );
        assert_eq!(handed_over(&after, None), None);
        assert!(is_to_be_taken_over(&live()) && !is_to_be_taken_over(&after));
    }

    #[test]
    fn fields_of_helm_become_towpaths_but_not_its_notes_about_its_release() {
        let live = json!({
            "metadata": {
                "name": "app", "labels": {"app.kubernetes.io/managed-by": "Helm", "old": "x"},
                "annotations": {"meta.helm.sh/release-name": "shop", "mine": "1"},
                "managedFields": [
                    {"manager": "helm", "operation": "Update", "time": "2026-01-01T00:00:00Z", "fieldsV1": {
                        "f:metadata": {"f:labels": {".": {}, "f:app.kubernetes.io/managed-by": {}, "f:old": {}},
                                       "f:annotations": {".": {}, "f:meta.helm.sh/release-name": {}, "f:mine": {}}},
                        "f:spec": {"f:replicas": {}}}},
                    {"manager": "argocd-controller", "operation": "Apply", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
                ]},
            "spec": {"replicas": 1},
        });
        assert_eq!(predecessors(&live), BTreeSet::from(["helm"]));
        // A dry run of a manifest that has `replicas`, with another value, and nothing else.
        let mut would_be = live.clone();
        would_be["spec"]["replicas"] = json!(2);
        would_be["metadata"]["managedFields"] = json!([
            live["metadata"]["managedFields"][0],
            {"manager": "towpath", "operation": "Apply", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
        ]);
        let predicted = without_abandoned_fields(&live, &would_be, None);
        assert_eq!(
            (&predicted["metadata"]["labels"], &predicted["metadata"]["annotations"]),
            (
                &json!({"app.kubernetes.io/managed-by": "Helm"}),
                &json!({"meta.helm.sh/release-name": "shop"})
            )
        );
        assert_eq!(
            overruled(&live, &would_be),
            BTreeSet::from(["argocd-controller", "helm"])
        );

        let after = json!({"metadata": {"managedFields": handed_over(&live, None).unwrap()}});
        assert!(predecessors(&after).is_empty() && handed_over(&after, None).is_none());
        let helm = entries(&after).find(Entry::is_helm).map(|entry| entry.fields.clone());
        let notes = json!({"f:metadata": {"f:annotations": {"f:meta.helm.sh/release-name": {}},
                                          "f:labels": {"f:app.kubernetes.io/managed-by": {}}}});
        assert_eq!(helm, Some(notes));
        let owned = paths(ours(&after).unwrap());
        assert!(owned.iter().any(|path| path.last().unwrap() == "f:old"), "{owned:?}");
        assert!(!owned.iter().any(|path| is_helms_own(path)), "{owned:?}");
        // The notes are no drift.
        let mut released = after.clone();
        released["metadata"]["managedFields"] = json!([entry_value(&after, "towpath")]);
        let (added, writers) = added_by_others(&after, &released, None, |_| false);
        assert_eq!((added, writers), (BTreeSet::new(), Vec::new()));
    }

    fn entry_value(object: &Value, manager: &str) -> Value {
        let list = object["metadata"]["managedFields"].as_array().unwrap();
        list.iter().find(|entry| entry["manager"] == manager).unwrap().clone()
    }

    #[test]
    fn a_field_that_is_given_up_has_no_owner() {
        let replicas: Path = vec!["f:spec".into(), "f:replicas".into()];
        let live = json!({"metadata": {"managedFields": [{"manager": "towpath", "operation": "Apply",
            "fieldsV1": {"f:spec": {"f:replicas": {}, "f:paused": {}}}}]}, "spec": {"replicas": 5}});
        assert!(is_ours_alone(&live, &["f:spec", "f:replicas"]));
        let after = json!({"metadata": {"managedFields": handed_over(&live, Some(&replicas)).unwrap()}});
        assert_eq!(ours(&after), Some(&json!({"f:spec": {"f:paused": {}}})));
        assert!(!is_ours_alone(&after, &["f:spec", "f:replicas"]));
        assert_eq!(handed_over(&after, Some(&replicas)), None);
    }

    #[test]
    fn the_order_of_items_is_seen_and_that_of_sets_and_keys_is_not() {
        let object = |env: Value, finalizers: Value| {
            json!({"metadata": {"finalizers": finalizers, "managedFields": [{"manager": "towpath", "operation": "Apply", "fieldsV1": {
                "f:env": {"k:{\"name\":\"A\"}": {".": {}, "f:name": {}}, "k:{\"name\":\"B\"}": {".": {}, "f:name": {}}},
                "f:metadata": {"f:finalizers": {"v:\"x\"": {}, "v:\"y\"": {}}}}}]}, "env": env})
        };
        let owned = |env: Value, finalizers: Value| owned_in_order(&object(env, finalizers)).unwrap().to_string();
        let (a, b, c) = (json!({"name": "A"}), json!({"name": "B"}), json!({"name": "C"}));
        let before = owned(json!([a, b]), json!(["x", "y"]));
        assert_eq!(owned(json!([c, a, c, b]), json!(["y", "x"])), before);
        assert_ne!(owned(json!([b, a]), json!(["x", "y"])), before);
    }

    #[test]
    fn the_writer_of_a_changed_field_is_named() {
        let wanted = json!({"spec": {"replicas": 2, "containers": [{"name": "app", "image": "1"}, {"name": "side"}]},
                            "metadata": {"labels": {"a": "1", "old": "x"}}});
        let who = who_changed(&live(), &wanted, |_| false);
        assert_eq!(who, [("kubectl-edit".to_string(), "2026-02-01T00:00:00Z".to_string())]);
        assert!(who_changed(&live(), &wanted, |manager| manager == "kubectl-edit").is_empty());
        // A list that counts as one value.
        let list = |args: Value| {
            json!({"spec": {"args": args}, "metadata": {"managedFields": [
                {"manager": "kubectl-edit", "operation": "Update", "time": "2026-02-01T00:00:00Z",
                 "fieldsV1": {"f:spec": {"f:args": {}}}}]}})
        };
        let of_list = |then: Value| who_changed(&list(json!(["a"])), &list(then), |_| false).len();
        assert_eq!((of_list(json!(["b"])), of_list(json!(["a"]))), (1, 0));
    }

    /// Somebody has changed `PORT`, a field of the release, and added `DEBUG` and a finalizer. An autoscaler has scaled.
    #[test]
    fn added_fields_are_told_from_changed_ones_and_from_those_of_controllers() {
        let entry = |manager: &str, operation: &str, subresource: &str, fields: Value| {
            json!({"manager": manager, "operation": operation, "subresource": subresource,
                   "time": "2026-02-01T00:00:00Z", "fieldsV1": fields})
        };
        let theirs =
            json!({"f:metadata": {"f:finalizers": {".": {}, "v:\"x\"": {}}}, "f:data": {"f:PORT": {}, "f:DEBUG": {}}});
        let live = json!({"data": {"PORT": "81", "DEBUG": "1"}, "spec": {"replicas": 5}, "metadata": {"finalizers": ["x"], "managedFields": [
            entry("towpath", "Apply", "", json!({"f:data": {".": {}}})),
            entry("kubectl-patch", "Update", "", theirs),
            entry("kube-controller-manager", "Update", "scale", json!({"f:spec": {"f:replicas": {}}}))]}});
        let would_be = json!({"data": {"PORT": "80", "DEBUG": "1"}, "spec": {"replicas": 2}, "metadata": {"managedFields": [
            entry("towpath", "Apply", "", json!({"f:data": {".": {}, "f:PORT": {}}, "f:spec": {"f:replicas": {}}}))]}});
        let is_controller = |manager: &str| manager == "kube-controller-manager";
        let (added, writers) = added_by_others(&live, &would_be, None, is_controller);
        let paths: Vec<String> = added.iter().map(|path| path.join(" ")).collect();
        assert_eq!(paths, ["f:data f:DEBUG"]);
        assert_eq!(writers.len(), 1);
        // If a server makes the same of a new one, nobody has added it.
        let defaults = json!({"data": {"DEBUG": "1"}});
        assert_eq!(
            added_by_others(&live, &would_be, Some(&defaults), is_controller),
            (BTreeSet::new(), Vec::new())
        );
        let defaults = json!({"data": {"DEBUG": "0"}});
        assert_eq!(
            added_by_others(&live, &would_be, Some(&defaults), is_controller)
                .1
                .len(),
            1
        );
        let released = with_values_of(&live, &without(&would_be, added), is_controller);
        assert_eq!(released["data"], json!({"PORT": "80"}));
        assert_eq!(released["spec"], json!({"replicas": 5}));
    }
}
