//! Who owns which field: `metadata.managedFields`.
//!
//! Source: <https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management> and, for the form of
//! `fieldsV1`, <https://github.com/kubernetes-sigs/structured-merge-diff/blob/master/fieldpath/serialize-pe.go>

use super::api::FIELD_MANAGER;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// A path as `fieldsV1` writes it: `["f:spec", "f:containers", "k:{\"name\":\"app\"}", "f:image"]`.
pub(super) type Path = Vec<String>;

/// One manager's entry.
pub(super) struct Entry<'a> {
    pub manager: &'a str,
    /// `Apply` or `Update`.
    pub operation: &'a str,
    /// `status`, `scale`; empty for the object itself.
    pub subresource: &'a str,
    /// When it wrote last.
    pub time: &'a str,
    /// Its `fieldsV1`.
    pub fields: &'a Value,
}

impl Entry<'_> {
    /// Whether this is ours.
    pub(super) fn is_ours(&self) -> bool {
        self.manager == FIELD_MANAGER && self.operation == "Apply" && self.subresource.is_empty()
    }

    /// Whether this is what `kubectl apply` wrote: the hand that deployed before.
    ///
    /// Source: <https://github.com/kubernetes/client-go/blob/master/util/csaupgrade/upgrade.go>
    pub(super) fn is_kubectl_apply(&self) -> bool {
        self.subresource.is_empty()
            && matches!(
                (self.manager, self.operation),
                ("kubectl-client-side-apply", "Update") | ("kubectl", "Apply")
            )
    }
}

/// The entries of an object.
pub(super) fn entries(object: &Value) -> impl Iterator<Item = Entry<'_>> {
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

/// The `fieldsV1` of our entry.
pub(super) fn ours(object: &Value) -> Option<&Value> {
    entries(object).find(Entry::is_ours).map(|entry| entry.fields)
}

/// The paths that an entry owns: its leaves, and what it marks with `.`.
pub(super) fn paths(fields: &Value) -> BTreeSet<Path> {
    let mut found = BTreeSet::new();
    walk(fields, true, &mut Vec::new(), &mut found);
    found
}

/// The paths at which an entry has written values: what it only marks with `.`, a mapping or a list that holds them, is
/// none of them. A list that is one value, such as `args`, is.
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

/// The value at a path, if it is there.
pub(super) fn locate<'a>(object: &'a Value, path: &[String]) -> Option<&'a Value> {
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

/// Whether `item` is the one that `k:{…}` or `v:…` names.
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

/// Removes what is at a path, and what that leaves empty on the way.
fn remove(object: &mut Value, path: &[String]) {
    let Some((element, rest)) = path.split_first() else {
        return;
    };
    let (tag, text) = element.split_once(':').unwrap_or_default();
    match (tag, object) {
        ("f", Value::Object(map)) => {
            if rest.is_empty() {
                // Of a mapping or a list only the mark goes; what others put in stays.
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
                // What others put into it keeps it.
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

/// What will be after taking over from `kubectl apply` and applying, of `would_be`, the answer to a dry run that took over
/// nothing: without the fields that nobody but `kubectl apply` says. What the server fills in by itself, as in `defaults`,
/// comes back.
pub(super) fn without_kubectls(live: &Value, would_be: &Value, defaults: Option<&Value>) -> Value {
    let mut left: BTreeSet<Path> = entries(live)
        .filter(Entry::is_kubectl_apply)
        .flat_map(|entry| paths(entry.fields))
        .collect();
    if left.is_empty() {
        return would_be.clone();
    }
    for entry in entries(would_be).filter(|entry| !entry.is_kubectl_apply()) {
        for path in paths(entry.fields) {
            left.remove(&path);
        }
    }
    let mut would_be = would_be.clone();
    left.retain(|path| {
        let Some(default) = defaults.and_then(|defaults| locate(defaults, path)) else {
            return true;
        };
        if let Some(value) = locate_mut(&mut would_be, path).filter(|value| !has_members(value)) {
            *value = default.clone();
        }
        false
    });
    without(&would_be, left)
}

/// `object` without what is at `paths`.
pub(super) fn without(object: &Value, paths: BTreeSet<Path>) -> Value {
    let mut object = object.clone();
    // What an item is known by goes with the item, or not at all.
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
    // The deepest first, so that what they leave empty goes with its own mark.
    paths.sort_by_key(|path| std::cmp::Reverse(path.len()));
    for path in paths {
        remove(&mut object, &path);
    }
    object
}

/// What others have put into `live` beside what the release says, and who did. No others are those for whom `is_known`
/// answers true, and no field is a finalizer: by it a controller waits for its cleanup.
///
/// What the release says is what is ours in `would_be`, the answer to a dry run of it: in `live` it is ours no longer once
/// somebody has changed its value.
pub(super) fn foreign(
    live: &Value,
    would_be: &Value,
    is_known: impl Fn(&str) -> bool,
) -> (BTreeSet<Path>, Vec<(String, String)>) {
    let mut said = ours(would_be).map(paths).unwrap_or_default();
    for entry in entries(live).filter(|entry| is_known(entry.manager)) {
        said.extend(paths(entry.fields));
    }
    let (mut foreign, mut writers) = (BTreeSet::new(), Vec::new());
    let others =
        entries(live).filter(|entry| !entry.is_ours() && entry.subresource.is_empty() && !is_known(entry.manager));
    for entry in others {
        let theirs: Vec<Path> = paths(entry.fields)
            .into_iter()
            .filter(|path| !said.contains(path) && !is_finalizer(path))
            .collect();
        if !theirs.is_empty() {
            writers.push((entry.manager.to_string(), entry.time.to_string()));
            foreign.extend(theirs);
        }
    }
    (foreign, writers)
}

/// Whether somebody else than we owns a field of an object below `prefix`.
pub(super) fn has_others(object: &Value, prefix: &[&str]) -> bool {
    let is_below = |path: &Path| path.len() > prefix.len() && path.iter().zip(prefix).all(|(one, other)| one == other);
    entries(object)
        .filter(|entry| !entry.is_ours() && entry.subresource.is_empty())
        .any(|entry| leaves(entry.fields).iter().any(is_below))
}

fn is_finalizer(path: &[String]) -> bool {
    matches!(path, [first, second, ..] if first == "f:metadata" && second == "f:finalizers")
}

/// `wanted` with the values that those for whom `is_known` answers true have written into `live`, where it says another
/// value: the number of replicas that an autoscaler has found, say.
pub(super) fn with_values_of(live: &Value, wanted: &Value, is_known: impl Fn(&str) -> bool) -> Value {
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

/// The `managedFields` with which what `kubectl apply` owned is ours; `None` when it owns nothing.
///
/// Without this, a field that was deleted from the manifest would stay for ever: `kubectl` would still be saying it.
pub(super) fn taken_over(live: &Value) -> Option<Value> {
    if !entries(live).any(|entry| entry.is_kubectl_apply()) {
        return None;
    }
    let list = live.pointer("/metadata/managedFields")?.as_array()?;
    let mut fields = ours(live).cloned().unwrap_or_else(|| Value::Object(Map::new()));
    for entry in entries(live).filter(Entry::is_kubectl_apply) {
        merge(&mut fields, entry.fields);
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
        entry.is_ours() || entry.is_kubectl_apply()
    };
    let mut kept: Vec<Value> = list.iter().filter(|value| !goes(value)).cloned().collect();
    kept.push(serde_json::json!({
        "manager": FIELD_MANAGER, "operation": "Apply", "apiVersion": live.get("apiVersion"),
        "time": jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "fieldsType": "FieldsV1", "fieldsV1": fields,
    }));
    Some(Value::Array(kept))
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

/// Who says fields of `live` that are not as in `wanted`, and since when: `kubectl-edit at 2026-11-24T12:00:00Z`. Those
/// for whom `is_known` answers true are left out.
pub(super) fn who_changed(live: &Value, wanted: &Value, is_known: impl Fn(&str) -> bool) -> Vec<(String, String)> {
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
    fn what_only_kubectl_said_goes_and_what_others_say_stays() {
        let live = live();
        // A dry run of a manifest without the label `old` and the container `side`.
        let mut would_be = live.clone();
        let list = would_be["metadata"]["managedFields"].as_array_mut().unwrap();
        list.push(json!({"manager": "towpath", "operation": "Apply", "fieldsV1": {
            "f:metadata": {"f:labels": {"f:a": {}}},
            "f:spec": {"f:containers": {"k:{\"name\":\"app\"}": {".": {}, "f:image": {}, "f:name": {}}}}}}));
        let defaults =
            json!({"spec": {"containers": [{"name": "app", "image": "1"}]}, "metadata": {"labels": {"old": "y"}}});
        let with_default = without_kubectls(&live, &would_be, Some(&defaults));
        assert_eq!(with_default["metadata"]["labels"], json!({"a": "1", "old": "y"}));
        let predicted = without_kubectls(&live, &would_be, None);
        assert_eq!(predicted["metadata"]["labels"], json!({"a": "1"}));
        assert_eq!(
            predicted["spec"],
            json!({"replicas": 3, "containers": [{"name": "app", "image": "1"}]})
        );
    }

    #[test]
    fn an_item_goes_whole_unless_others_have_put_something_into_it() {
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
    fn kubectls_fields_become_ours() {
        let after = json!({"metadata": {"managedFields": taken_over(&live()).unwrap()}});
        assert_eq!(entries(&after).filter(Entry::is_kubectl_apply).count(), 0);
        assert_eq!(entries(&after).count(), 3);
        let owned = paths(ours(&after).unwrap());
        assert!(
            owned.contains(&vec!["f:metadata".to_string(), "f:labels".into(), "f:old".into()]),
            "{owned:?}"
        );
        assert_eq!(taken_over(&after), None);
    }

    #[test]
    fn whoever_changed_a_field_is_named() {
        let wanted = json!({"spec": {"replicas": 2, "containers": [{"name": "app", "image": "1"}, {"name": "side"}]},
                            "metadata": {"labels": {"a": "1", "old": "x"}}});
        let who = who_changed(&live(), &wanted, |_| false);
        assert_eq!(who, [("kubectl-edit".to_string(), "2026-02-01T00:00:00Z".to_string())]);
        assert!(who_changed(&live(), &wanted, |manager| manager == "kubectl-edit").is_empty());
        // A list that is one value counts as well.
        let list = |args: Value| {
            json!({"spec": {"args": args}, "metadata": {"managedFields": [
                {"manager": "kubectl-edit", "operation": "Update", "time": "2026-02-01T00:00:00Z",
                 "fieldsV1": {"f:spec": {"f:args": {}}}}]}})
        };
        let of_list = |then: Value| who_changed(&list(json!(["a"])), &list(then), |_| false).len();
        assert_eq!((of_list(json!(["b"])), of_list(json!(["a"]))), (1, 0));
    }

    /// Somebody has changed `PORT`, which the release says, and added `DEBUG` and a finalizer; an autoscaler has scaled.
    #[test]
    fn what_is_ours_is_what_the_release_says_and_a_controllers_value_counts() {
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
        let (foreign, writers) = foreign(&live, &would_be, is_controller);
        let foreign_paths: Vec<String> = foreign.iter().map(|path| path.join(" ")).collect();
        assert_eq!(foreign_paths, ["f:data f:DEBUG"]);
        assert_eq!(writers.len(), 1);
        let released = with_values_of(&live, &without(&would_be, foreign), is_controller);
        assert_eq!(released["data"], json!({"PORT": "80"}));
        assert_eq!(released["spec"], json!({"replicas": 5}));
    }
}
