//! Objects in the cluster that differ from their release, and who changed them.

use super::{comparable::common, defaults::as_new, labels::without_marks, preflight::with_live_replicas};
use crate::target::{Drift, Environment, Writer};
use futures::future::try_join_all;
use serde_json::Value;
use towpath_kube::{ApiError, Client, Discovery, Lookup, Mode, managed_fields};
use towpath_manifest::{Change, ChangeKind, Object, diff};

/// The field managers of Kubernetes' own controllers. What they write is not drift.
const CONTROLLERS: [&str; 5] = [
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-apiserver",
    "cloud-controller-manager",
];

/// Compares each of `objects`, the manifests of a release, with the cluster.
///
/// A dry run tells what applying the manifest again would make of the object. Fields that others have added count as drift,
/// too. If the server refuses the manifest, only the fields in the manifest are compared.
pub(super) async fn drift(
    client: &Client,
    discovery: &Discovery,
    environment: &Environment,
    objects: &[Object],
    fingerprint: &(dyn Fn(&[u8]) -> String + Sync),
) -> Result<Vec<Drift>, ApiError> {
    let found = objects.iter().map(|object| async move {
        // Deleting the definition of a kind deletes its objects.
        let lookup = discovery.find(client, &object.api_version, &object.kind).await?;
        let Lookup::Served(resource) = lookup else {
            return Ok((object, None));
        };
        let path = resource.object(&environment.namespace, &object.name);
        let Some(live) = client.find(&path).await? else {
            return Ok((object, None));
        };
        // A manifest without a number of pods leaves it to whoever scales.
        let manifest = with_live_replicas(object, &live);
        let answer = client
            .apply(&resource, &environment.namespace, &manifest, Mode::DryRun)
            .await;
        let would_be = match answer {
            Ok(answer) => Some(answer.value),
            Err(error) if is_refusal(&error) => None,
            Err(error) => return Err(error),
        };
        // Whoever creates an object without a server-side apply owns the defaults of its fields, too.
        let defaults = match &would_be {
            Some(would_be)
                if !managed_fields::added_by_others(&live, would_be, None, is_controller)
                    .0
                    .is_empty() =>
            {
                as_new(client, &environment.namespace, &resource, object).await
            }
            _ => None,
        };
        Ok::<_, ApiError>((object, Some((live, would_be, defaults))))
    });
    let mut drifts = Vec::new();
    for (object, live) in try_join_all(found).await? {
        let with = |value: &Value| {
            let mut object = object.clone();
            object.value = without_marks(value);
            object
        };
        let (changes, writers) = match live {
            None => (diff(&[with(&object.value)], &[], fingerprint), Vec::new()),
            Some((live, would_be, defaults)) => {
                let compared = compare(&object.value, &live, would_be.as_ref(), defaults.as_ref());
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
        drifts.extend(changes.into_iter().filter(differs).map(|change| Drift {
            change,
            writers: writers.clone(),
        }));
    }
    Ok(drifts)
}

/// The two sides of a comparison.
struct Compared {
    /// The object as its release has it.
    released: Value,
    /// The object as it is in the cluster.
    live: Value,
    /// Who wrote the fields that differ, and when.
    writers: Vec<(String, String)>,
}

/// Makes an object of a release comparable with the one in the cluster. `would_be` is the object after applying the manifest;
/// `None` if the server refuses the manifest. `defaults` is what a server makes of a new object, if it is known.
fn compare(manifest: &Value, live: &Value, would_be: Option<&Value>, defaults: Option<&Value>) -> Compared {
    let (released, seen, mut writers) = match would_be {
        Some(would_be) => {
            let (added, writers) = managed_fields::added_by_others(live, would_be, defaults, is_controller);
            (managed_fields::without(would_be, added), live.clone(), writers)
        }
        None => (manifest.clone(), part_in_manifest(live, manifest), Vec::new()),
    };
    let released = managed_fields::with_values_of(live, &released, is_controller);
    let released = without_finalizers_of_others(&released, manifest);
    let seen = without_finalizers_of_others(&seen, manifest);
    for writer in managed_fields::who_changed(&seen, &released, is_controller) {
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

pub(super) fn is_controller(manager: &str) -> bool {
    CONTROLLERS.contains(&manager)
}

/// Whether the server has checked the manifest and refuses it: a field is immutable, or an admission webhook denies it. An
/// error of a webhook itself says nothing about the object.
fn is_refusal(error: &ApiError) -> bool {
    match error {
        // Without permission to apply, added fields cannot be found. That is an error of its own.
        //
        // Source: <https://github.com/kubernetes/kubernetes/blob/master/staging/src/k8s.io/apiserver/pkg/endpoints/handlers/responsewriters/errors.go>
        ApiError::Answered { code: 403, message, .. } => !message.contains("cannot patch resource"),
        ApiError::Answered { code, .. } => matches!(code, 400 | 422),
        _ => false,
    }
}

/// The part of `live` that `manifest` has, with the owners of its fields.
fn part_in_manifest(live: &Value, manifest: &Value) -> Value {
    let mut seen = common(live, manifest);
    let owned = live.pointer("/metadata/managedFields");
    if let (Some(owned), Some(metadata)) = (owned, seen.get_mut("metadata").and_then(Value::as_object_mut)) {
        metadata.insert("managedFields".to_string(), owned.clone());
    }
    seen
}

/// `object` without finalizers that `manifest` does not have: controllers add them to delay a deletion, which is not drift. The
/// others get the order of the manifest, because they are a set.
fn without_finalizers_of_others(object: &Value, manifest: &Value) -> Value {
    let wanted = manifest.pointer("/metadata/finalizers").and_then(Value::as_array);
    let live = object.pointer("/metadata/finalizers").and_then(Value::as_array);
    let kept: Vec<Value> = wanted
        .into_iter()
        .flatten()
        .filter(|one| live.is_some_and(|live| live.contains(one)))
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
    fn finalizers_of_others_are_ignored() {
        let manifest = json!({"metadata": {"finalizers": ["ours", "second"]}});
        let of = |finalizers: Value| {
            without_finalizers_of_others(&json!({"metadata": {"finalizers": finalizers}}), &manifest)
        };
        assert_eq!(of(json!(["theirs", "second", "ours"])), manifest);
        assert_eq!(
            of(json!(["theirs", "ours"])),
            json!({"metadata": {"finalizers": ["ours"]}})
        );
        assert_eq!(of(json!(["theirs"])), json!({"metadata": {}}));
    }

    #[test]
    fn values_of_controllers_are_no_drift_even_if_the_server_refuses_the_manifest() {
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
        let compared = compare(&manifest, &live, None, None);
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
    fn refusals_are_told_from_missing_answers_and_missing_permissions() {
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
