//! What in the cluster is no longer as its release has it, and who changed it.

use super::{
    api::{Api, ApiError, Mode},
    examine::plain,
    fields,
    kinds::{Kinds, Lookup},
};
use crate::target::{Drift, Environment, Writer};
use futures::future::try_join_all;
use serde_json::Value;
use towpath_manifest::{Change, ChangeKind, Object, diff};

/// Field managers of Kubernetes' own controllers: what they write is how a cluster works, and no drift.
const CONTROLLERS: [&str; 5] = [
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-apiserver",
    "cloud-controller-manager",
];

/// The fields by which the items of a list of Kubernetes' own kinds are told apart, where one does.
const ITEM_KEYS: [&str; 6] = ["name", "mountPath", "devicePath", "containerPort", "port", "ip"];

/// Compares each of `objects` with what is there. Says of each field that differs what the release has, by asking what
/// applying it again would make of the object, and takes what others put in beside it for theirs. Of an object that the
/// server would not have like that any more, the fields that its manifest says are compared.
pub(super) async fn drift(
    api: &Api,
    kinds: &Kinds,
    environment: &Environment,
    objects: &[Object],
    fingerprint: &(dyn Fn(&[u8]) -> String + Sync),
) -> Result<Vec<Drift>, ApiError> {
    let looked = objects.iter().map(|object| async move {
        // Whoever deletes the definition of a kind deletes its objects.
        let Lookup::Served(kind) = kinds.find(api, &object.api_version, &object.kind).await? else {
            return Ok((object, None));
        };
        let Some(live) = api.find(&kind.object(&environment.namespace, &object.name)).await? else {
            return Ok((object, None));
        };
        let answer = api
            .apply(&kind, &environment.namespace, &object.value, Mode::DryRun)
            .await;
        let would_be = match answer {
            Ok(answer) => Some(answer.value),
            Err(error) if is_refusal(&error) => None,
            Err(error) => return Err(error),
        };
        Ok::<_, ApiError>((object, Some((live, would_be))))
    });
    let mut found = Vec::new();
    for (object, there) in try_join_all(looked).await? {
        let with = |value: &Value| {
            let mut object = object.clone();
            object.value = plain(value);
            object
        };
        let (changes, writers) = match there {
            None => (diff(&[with(&object.value)], &[], fingerprint), Vec::new()),
            Some((live, would_be)) => {
                let compared = compare(&object.value, &live, would_be.as_ref());
                let changes = diff(&[with(&compared.released)], &[with(&compared.live)], fingerprint);
                (changes, compared.writers)
            }
        };
        let differs = |change: &Change| change.kind != ChangeKind::Unchanged;
        let mut writers: Vec<Writer> = writers
            .into_iter()
            .map(|(manager, at)| Writer {
                manager,
                at: at.parse().ok(),
            })
            .collect();
        writers.sort_by_key(|writer| std::cmp::Reverse(writer.at));
        found.extend(changes.into_iter().filter(differs).map(|change| Drift {
            change,
            writers: writers.clone(),
        }));
    }
    Ok(found)
}

/// What is to be compared of an object that is there.
struct Compared {
    /// As its release has it.
    released: Value,
    /// As it is.
    live: Value,
    /// Who wrote what differs, and when.
    writers: Vec<(String, String)>,
}

/// Makes comparable what the release says of an object and what is there. `would_be` is what applying the manifest would
/// make of it; `None` when the server refuses to.
fn compare(manifest: &Value, live: &Value, would_be: Option<&Value>) -> Compared {
    let (released, seen, mut writers) = match would_be {
        Some(would_be) => {
            let (foreign, writers) = fields::foreign(live, would_be, is_controller);
            (fields::without(would_be, foreign), live.clone(), writers)
        }
        None => (manifest.clone(), as_far_as_said(live, manifest), Vec::new()),
    };
    let released = fields::with_values_of(live, &released, is_controller);
    let released = without_others_finalizers(&released, manifest);
    let seen = without_others_finalizers(&seen, manifest);
    for writer in fields::who_changed(&seen, &released, is_controller) {
        if !writers.contains(&writer) {
            writers.push(writer);
        }
    }
    Compared {
        released,
        live: seen,
        writers,
    }
}

fn is_controller(manager: &str) -> bool {
    CONTROLLERS.contains(&manager)
}

/// Whether the server has looked at what the release says and does not want it: a field cannot be changed any more, an
/// admission webhook says no. One that does not work says nothing of the object.
fn is_refusal(error: &ApiError) -> bool {
    match error {
        // Who may not apply would learn nothing of fields that somebody added, and is told so.
        //
        // Source: <https://github.com/kubernetes/kubernetes/blob/master/staging/src/k8s.io/apiserver/pkg/endpoints/handlers/responsewriters/errors.go>
        ApiError::Answered { code: 403, message, .. } => !message.contains("cannot patch resource"),
        ApiError::Answered { code, .. } => matches!(code, 400 | 422),
        _ => false,
    }
}

/// The part of `live` that `manifest` says something of, and who owns what.
fn as_far_as_said(live: &Value, manifest: &Value) -> Value {
    let mut seen = common(live, manifest);
    let owned = live.pointer("/metadata/managedFields");
    if let (Some(owned), Some(metadata)) = (owned, seen.get_mut("metadata").and_then(Value::as_object_mut)) {
        metadata.insert("managedFields".to_string(), owned.clone());
    }
    seen
}

/// The part of `live` that `said` says something of.
fn common(live: &Value, said: &Value) -> Value {
    match (live, said) {
        (Value::Object(live), Value::Object(said)) => {
            let mut fields = serde_json::Map::new();
            for (key, said) in said {
                match live.get(key) {
                    // A null says nothing.
                    _ if said.is_null() => {}
                    Some(live) => drop(fields.insert(key.clone(), common(live, said))),
                    // Servers leave out what says as much as its absence.
                    None if is_zero(said) => drop(fields.insert(key.clone(), said.clone())),
                    None => {}
                }
            }
            Value::Object(fields)
        }
        (Value::Array(live), Value::Array(said)) if said.iter().all(Value::is_object) => {
            Value::Array(common_items(live, said))
        }
        _ => live.clone(),
    }
}

fn common_items(live: &[Value], said: &[Value]) -> Vec<Value> {
    let Some(key) = ITEM_KEYS.into_iter().find(|key| tells_apart(said, key)) else {
        // What is told apart by nothing is one value, whole, and somebody's further items are a change of it.
        let pairs = live.iter().zip(said).map(|(live, said)| common(live, said));
        return pairs.chain(live.iter().skip(said.len()).cloned()).collect();
    };
    let mut items = Vec::new();
    for item in said {
        if let Some(there) = live.iter().find(|there| there.get(key) == item.get(key)) {
            items.push(common(there, item));
        }
    }
    items
}

/// Whether each of `items` has another value for `key`.
fn tells_apart(items: &[Value], key: &str) -> bool {
    items.iter().enumerate().all(|(index, item)| {
        let is_another = |other: &Value| other.get(key) != item.get(key);
        item.get(key).is_some() && items.iter().take(index).all(is_another)
    })
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// `object` without the finalizers that `manifest` does not say: by them a controller waits for its cleanup, and they are
/// no drift. The others are in the manifest's order, for they are a set.
fn without_others_finalizers(object: &Value, manifest: &Value) -> Value {
    let said = manifest.pointer("/metadata/finalizers").and_then(Value::as_array);
    let there = object.pointer("/metadata/finalizers").and_then(Value::as_array);
    let kept: Vec<Value> = said
        .into_iter()
        .flatten()
        .filter(|one| there.is_some_and(|there| there.contains(one)))
        .cloned()
        .collect();
    let mut object = object.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        if kept.is_empty() {
            metadata.shift_remove("finalizers");
        } else {
            metadata.insert("finalizers".to_string(), Value::Array(kept));
        }
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn of_what_the_server_refuses_the_fields_of_the_manifest_are_compared() {
        let check = |manifest: Value, live: Value, expect: Value| assert_eq!(common(&live, &manifest), expect);
        check(
            json!({"selector": {"app": "web"}, "paused": false, "gone": 1, "nothing": null}),
            json!({"selector": {"app": "other"}, "nothing": 2, "more": 3}),
            json!({"selector": {"app": "other"}, "paused": false}),
        );
        // Items are found by their key, whatever stands in front of them.
        check(
            json!([{"name": "web", "image": "1", "args": ["a"]}, {"name": "gone"}]),
            json!([{"name": "side", "image": "9"}, {"name": "web", "image": "2", "tty": true, "args": ["a", "b"]}]),
            json!([{"name": "web", "image": "2", "args": ["a", "b"]}]),
        );
        // Two of the same volume.
        check(
            json!([{"name": "data", "mountPath": "/a"}, {"name": "data", "mountPath": "/b"}]),
            json!([{"name": "data", "mountPath": "/b"}, {"name": "other", "mountPath": "/a", "subPath": "x"}]),
            json!([{"name": "other", "mountPath": "/a"}, {"name": "data", "mountPath": "/b"}]),
        );
        // Without a key the list is one value.
        check(
            json!([{"verbs": ["get"]}]),
            json!([{"verbs": ["get"], "more": 1}, {"verbs": ["*"]}]),
            json!([{"verbs": ["get"]}, {"verbs": ["*"]}]),
        );
    }

    #[test]
    fn finalizers_of_others_are_left_out() {
        let manifest = json!({"metadata": {"finalizers": ["ours", "second"]}});
        let of =
            |finalizers: Value| without_others_finalizers(&json!({"metadata": {"finalizers": finalizers}}), &manifest);
        assert_eq!(of(json!(["theirs", "second", "ours"])), manifest);
        assert_eq!(
            of(json!(["theirs", "ours"])),
            json!({"metadata": {"finalizers": ["ours"]}})
        );
        assert_eq!(of(json!(["theirs"])), json!({"metadata": {}}));
    }

    #[test]
    fn what_a_controller_decides_is_no_difference_even_where_the_server_refuses_the_manifest() {
        let manifest = json!({"metadata": {"name": "web"}, "spec": {"replicas": 2, "selector": {"app": "web"}}});
        let entry =
            |manager: &str, fields: Value| json!({"manager": manager, "operation": "Update", "fieldsV1": fields});
        let managed = json!([
            entry("kube-controller-manager", json!({"f:spec": {"f:replicas": {}}})),
            entry("kubectl-create", json!({"f:spec": {"f:selector": {}, "f:paused": {}}})),
            entry("kubectl-edit", json!({"f:spec": {"f:minReadySeconds": {}}})),
        ]);
        let live = json!({"metadata": {"name": "web", "managedFields": managed},
                          "spec": {"replicas": 5, "selector": {"app": "other"}, "minReadySeconds": 3}});
        let compared = compare(&manifest, &live, None);
        assert_eq!(
            compared.released["spec"],
            json!({"replicas": 5, "selector": {"app": "web"}})
        );
        assert_eq!(
            compared.live["spec"],
            json!({"replicas": 5, "selector": {"app": "other"}})
        );
        assert_eq!(compared.writers, [("kubectl-create".to_string(), String::new())]);
    }

    #[test]
    fn a_refusal_is_told_from_no_answer_and_from_no_permission() {
        let answered = |code: u16, message: &str| ApiError::Answered {
            code,
            reason: String::new(),
            message: message.into(),
            causes: Vec::new(),
            retry_after: None,
        };
        assert!(is_refusal(&answered(422, "spec.selector: field is immutable")));
        assert!(is_refusal(&answered(403, "admission webhook \"x\" denied the request")));
        assert!(!is_refusal(&answered(500, "failed calling webhook")));
        let forbidden = "deployments.apps \"web\" is forbidden: User \"ann\" cannot patch resource \"deployments\" in API group \"apps\"";
        assert!(!is_refusal(&answered(403, forbidden)));
        assert!(!is_refusal(&answered(503, "")));
        let unreachable = ApiError::Unreachable {
            server: "x".into(),
            why: "y".into(),
        };
        assert!(!is_refusal(&unreachable));
    }
}
