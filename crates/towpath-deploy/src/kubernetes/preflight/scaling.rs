//! Workloads whose number of pods somebody else decides.

use super::finding::note;
use crate::target::{Environment, Finding};
use serde_json::Value;
use towpath_kube::{ApiError, Client, Resource, Select, managed_fields, text_at};
use towpath_manifest::{Kind, Object, ObjectId};

const AUTOSCALER: &str = "HorizontalPodAutoscaler";
/// The field with the number of pods, as a JSON pointer and as the path of its owners.
const REPLICAS: &str = "/spec/replicas";
const REPLICAS_PATH: [&str; 2] = ["f:spec", "f:replicas"];

/// What scales workloads, in the manifests and in the environment.
#[derive(Default)]
pub(super) struct Scalers {
    known: Vec<Scaler>,
    /// Whether the account may not see the scalers in the environment.
    is_denied: bool,
}

struct Scaler {
    /// HorizontalPodAutoscaler `web`.
    name: String,
    target_kind: String,
    target_name: String,
}

impl Scaler {
    /// Anything that names a workload in the way an autoscaler does scales it: a `ScaledObject` creates its own autoscaler.
    fn of(kind: &str, name: &str, value: &Value) -> Option<Self> {
        let target = value.pointer("/spec/scaleTargetRef")?;
        let target_kind = Some(text_at(target, "/kind")).filter(|kind| !kind.is_empty());
        Some(Self {
            name: format!("{kind} `{name}`"),
            target_kind: target_kind.unwrap_or_else(|| "Deployment".to_string()),
            target_name: text_at(target, "/name"),
        })
    }
}

impl Scalers {
    /// Finds the scalers in the manifests. If an object of `served` leaves its number of pods to a scaler, also finds those in
    /// the environment, except those that the deployment prunes.
    pub(super) async fn find<'a>(
        client: &Client,
        environment: &Environment,
        objects: &[Object],
        prune: &[ObjectId],
        mut served: impl Iterator<Item = (&'a Object, Option<&'a Value>)>,
    ) -> Result<Self, ApiError> {
        let of_manifest = |object: &Object| Scaler::of(&object.kind, &object.name, &object.value);
        let mut scalers = Self {
            known: objects.iter().filter_map(of_manifest).collect(),
            is_denied: false,
        };
        if !served.any(|(object, live)| live.is_some_and(|live| leaves_replicas(object, live))) {
            return Ok(scalers);
        }
        let collection = Resource::of(Kind::of(AUTOSCALER)).collection(&environment.namespace);
        match client.list(&collection, &Select::All).await {
            Ok((live, _)) => {
                let is_pruned = |name: &str| prune.iter().any(|id| id.kind == AUTOSCALER && id.name == name);
                let names = live.iter().map(|one| (text_at(one, "/metadata/name"), one));
                let stays = names.filter(|(name, _)| !is_pruned(name));
                scalers
                    .known
                    .extend(stays.filter_map(|(name, one)| Scaler::of(AUTOSCALER, &name, one)));
            }
            Err(error) if error.is_forbidden() => scalers.is_denied = true,
            // The cluster does not serve autoscalers of this version.
            Err(error) if error.is_missing() => {}
            Err(error) => return Err(error),
        }
        Ok(scalers)
    }

    fn of(&self, object: &Object) -> Option<&str> {
        let scaler = self
            .known
            .iter()
            .find(|scaler| (&scaler.target_kind, &scaler.target_name) == (&object.kind, &object.name));
        scaler.map(|scaler| scaler.name.as_str())
    }

    /// Whether the ownership of `replicas` has to be given up before `object` is applied. Otherwise the server would put its
    /// default, one pod, in the place of what runs, until the autoscaler decides again.
    ///
    /// Source: <https://kubernetes.io/docs/reference/using-api/server-side-apply/#transferring-ownership>
    pub(super) fn take_over(&self, object: &Object, live: &Value) -> bool {
        leaves_replicas(object, live) && self.of(object).is_some()
    }

    /// The finding about the number of pods of an object that exists, if there is one.
    pub(super) fn check(&self, object: &Object, live: &Value) -> Option<Finding> {
        let current = live.pointer(REPLICAS)?;
        let message = match object.value.pointer(REPLICAS).filter(|wanted| !wanted.is_null()) {
            Some(wanted) => {
                let by = match self.of(object) {
                    Some(scaler) => format!("{scaler} decides"),
                    None if wanted != current && is_autoscaled(live) => "a HorizontalPodAutoscaler decides".to_string(),
                    None => return None,
                };
                let now = match wanted == current {
                    true => String::new(),
                    false => format!(" ({current} run now)"),
                };
                format!(
                    "{by} how many pods run{now}, and this deployment sets {wanted}: remove `replicas` from the manifest"
                )
            }
            None if !leaves_replicas(object, live) || *current == 1 => return None,
            None => match self.of(object) {
                Some(scaler) => {
                    format!("{scaler} decides from now on how many pods run; until then it stays at {current}")
                }
                None => {
                    let unseen = match self.is_denied {
                        true => " (permission to list `horizontalpodautoscalers` would tell whether one decides)",
                        false => "",
                    };
                    format!(
                        "`replicas` has left the manifest, and nothing scales it{unseen}: instead of {current} pods, one will run, which \
                         is the server's default. Put `replicas: {current}` back to keep them"
                    )
                }
            },
        };
        Some(Finding {
            place: object.place_of(REPLICAS),
            field: "spec.replicas".into(),
            ..note(object, &message)
        })
    }
}

/// Whether the manifest sets no number of pods, and the next deployment would remove the one in the cluster, because only
/// deployments have set it.
fn leaves_replicas(object: &Object, live: &Value) -> bool {
    let is_set = object.value.pointer(REPLICAS).is_some_and(|wanted| !wanted.is_null());
    !is_set && managed_fields::is_ours_alone(live, &REPLICAS_PATH)
}

/// Whether a HorizontalPodAutoscaler has last set the number of replicas.
fn is_autoscaled(live: &Value) -> bool {
    managed_fields::entries(live).any(|entry| {
        entry.manager == "kube-controller-manager"
            && entry.subresource == "scale"
            && entry.fields.pointer("/f:spec/f:replicas").is_some()
    })
}

/// The manifest of `object` with the current number of pods. The server makes this of it once the ownership is given up.
pub(in crate::kubernetes) fn with_live_replicas(object: &Object, live: &Value) -> Value {
    let mut value = object.value.clone();
    if leaves_replicas(object, live)
        && let (Some(spec), Some(replicas)) = (
            value.get_mut("spec").and_then(Value::as_object_mut),
            live.pointer(REPLICAS),
        )
    {
        spec.insert("replicas".to_string(), replicas.clone());
    }
    value
}

/// The path of the owners of `replicas`.
pub(in crate::kubernetes) fn replicas_path() -> managed_fields::Path {
    REPLICAS_PATH.map(str::to_string).to_vec()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn web(replicas: Value) -> Object {
        let value = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
                           "spec": {"replicas": replicas, "paused": false}});
        Object::from_value(value, "test").unwrap()
    }

    fn live(managers: &[&str]) -> Value {
        let entries: Vec<Value> = managers
            .iter()
            .map(|manager| {
                let (operation, subresource) = match *manager {
                    "towpath" => ("Apply", ""),
                    "kube-controller-manager" => ("Update", "scale"),
                    _ => ("Update", ""),
                };
                json!({"manager": manager, "operation": operation, "subresource": subresource,
                       "fieldsV1": {"f:spec": {"f:replicas": {}}}})
            })
            .collect();
        json!({"metadata": {"name": "web", "managedFields": entries}, "spec": {"replicas": 5}})
    }

    fn scalers(kind: &str, target: Value) -> Scalers {
        let value = json!({"spec": {"scaleTargetRef": target}});
        Scalers {
            known: Scaler::of(kind, "web", &value).into_iter().collect(),
            is_denied: false,
        }
    }

    #[test]
    fn replicas_are_given_up_where_only_deployments_have_set_them() {
        let scaled = scalers(AUTOSCALER, json!({"kind": "Deployment", "name": "web"}));
        let without = web(Value::Null);
        assert!(scaled.take_over(&without, &live(&["towpath"])));
        // Taken over from `kubectl apply` in the same step.
        assert!(scaled.take_over(&without, &live(&["kubectl-client-side-apply"])));
        // The autoscaler owns it already, and so does somebody who has scaled by hand.
        assert!(!scaled.take_over(&without, &live(&["towpath", "kube-controller-manager"])));
        assert!(!scaled.take_over(&without, &live(&["kubectl-edit"])));
        assert!(!scaled.take_over(&web(json!(5)), &live(&["towpath"])));
        assert!(!Scalers::default().take_over(&without, &live(&["towpath"])));
        // KEDA's default is a Deployment.
        assert!(scalers("ScaledObject", json!({"name": "web"})).take_over(&without, &live(&["towpath"])));
        let other = json!({"kind": "StatefulSet", "name": "web"});
        assert!(!scalers(AUTOSCALER, other).take_over(&without, &live(&["towpath"])));
    }

    #[test]
    fn a_plan_says_what_becomes_of_the_number_of_pods() {
        let said = |scalers: &Scalers, object: &Object, managers: &[&str]| {
            let finding = scalers.check(object, &live(managers));
            finding.map(|finding| finding.message).unwrap_or_default()
        };
        let scaled = scalers(AUTOSCALER, json!({"kind": "Deployment", "name": "web"}));
        let handed = "HorizontalPodAutoscaler `web` decides from now on how many pods run; until then it stays at 5";
        assert_eq!(said(&scaled, &web(Value::Null), &["towpath"]), handed);
        assert_eq!(said(&scaled, &web(Value::Null), &["kube-controller-manager"]), "");
        let dropped = said(&Scalers::default(), &web(Value::Null), &["towpath"]);
        assert!(
            dropped.starts_with(
                "`replicas` has left the manifest, and nothing scales it: instead of 5 pods, one will run"
            ),
            "{dropped}"
        );
        let denied = Scalers {
            is_denied: true,
            ..Scalers::default()
        };
        assert!(
            said(&denied, &web(Value::Null), &["towpath"]).contains("permission to list `horizontalpodautoscalers`")
        );
        let set = "HorizontalPodAutoscaler `web` decides how many pods run (5 run now), and this deployment sets 2: remove \
                   `replicas` from the manifest";
        assert_eq!(said(&scaled, &web(json!(2)), &["towpath"]), set);
    }

    #[test]
    fn a_dry_run_is_asked_with_the_number_that_runs() {
        assert_eq!(
            with_live_replicas(&web(Value::Null), &live(&["towpath"]))["spec"],
            json!({"replicas": 5, "paused": false})
        );
        assert_eq!(
            with_live_replicas(&web(json!(2)), &live(&["towpath"])),
            web(json!(2)).value
        );
    }
}
