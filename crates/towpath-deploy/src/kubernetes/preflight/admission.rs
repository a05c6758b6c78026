//! Whether the cluster would admit the pods of workloads.

use super::{finding::note, report::CheckedObject};
use crate::kubernetes::error::ClusterError;
use crate::target::{Environment, Finding, Severity};
use futures::future::join_all;
use serde_json::{Value, json};
use std::collections::HashMap;
use towpath_kube::{ApiError, Client, Resource};
use towpath_manifest::{Kind, Object};

/// A pod that the server is asked to admit, and the workloads that it stands for, each with the pointer of its template.
struct Trial<'a> {
    pod: Value,
    workloads: Vec<(&'a CheckedObject, &'static str)>,
}

/// Asks the server, as a dry run, to create a pod of each workload that changes. So quota, LimitRange, Pod Security, service
/// account and admission webhooks can refuse the pods before anything is applied. Of pods that look the same to admission, it
/// tries one.
pub(super) async fn check(
    client: &Client,
    environment: &Environment,
    objects: &[Object],
    checked: &[CheckedObject],
) -> Result<Vec<Finding>, ClusterError> {
    let path = format!(
        "{}?dryRun=All",
        Resource::of(&Kind::POD).collection(&environment.namespace)
    );
    let tried = trials(checked).into_iter().map(|trial| {
        let path = &path;
        async move {
            let answer = client.create(path, &trial.pod).await;
            (trial, answer)
        }
    });
    let mut findings = Vec::new();
    for (trial, answer) in join_all(tried).await {
        let Err(error) = answer else { continue };
        let ApiError::Answered { code, message, .. } = &error else {
            return Err(error.into());
        };
        // The account may not create pods itself. Their controllers may.
        if *code == 403 && message.contains("cannot create resource \"pods\"") {
            continue;
        }
        // Something that the pod refers to does not exist yet. `references` reports it if it never will.
        if *code == 404 {
            continue;
        }
        if let Some(awaited) = applied_with_pods(message, objects, checked) {
            let message = format!("its pods can be checked only when {awaited}, which is applied with them");
            let workloads = trial.workloads.into_iter();
            findings.extend(workloads.map(|(workload, _)| note(&workload.object, &message)));
            continue;
        }
        let is_quota = message.contains("exceeded quota");
        let why = message
            .rsplit_once(" is forbidden: ")
            .map_or(message.as_str(), |(_, why)| why);
        findings.extend(trial.workloads.into_iter().map(|(workload, pointer)| Finding {
            // Even if the quota is used up, a rollout that first stops an old pod succeeds.
            severity: match is_quota && workload.live.is_some() {
                true => Severity::Note,
                false => Severity::Refused,
            },
            object: workload.object.id(),
            field: format!("{}.spec", pointer.trim_start_matches('/').replace('/', ".")),
            place: workload.object.place_of(&format!("{pointer}/spec")),
            message: format!("the cluster would not admit its pods: {why}"),
        }));
    }
    Ok(findings)
}

/// The pods to try.
fn trials(checked: &[CheckedObject]) -> Vec<Trial<'_>> {
    let mut trials: HashMap<String, Trial<'_>> = HashMap::new();
    for workload in checked.iter().filter(|checked| checked.applies) {
        let pointer = Kind::of(&workload.object.kind)
            .pod_template
            .filter(|pointer| !pointer.is_empty());
        let (Some(pointer), Some(would_be)) = (pointer, &workload.would_be) else {
            continue;
        };
        let Some(pod) = pod_of(would_be, pointer, &workload.object.name) else {
            continue;
        };
        let before = workload.live.as_ref();
        let before = before.and_then(|live| pod_of(live, pointer, &workload.object.name));
        // A pod that already runs has been admitted.
        if before.as_ref() != Some(&pod) {
            let trial = trials.entry(as_seen_by_admission(&pod).to_string());
            let trial = trial.or_insert_with(|| Trial {
                pod,
                workloads: Vec::new(),
            });
            trial.workloads.push((workload, pointer));
        }
    }
    trials.into_values().collect()
}

/// What made the server refuse a pod, if the same deployment changes that: an object that does not exist yet, or a limit that
/// it sets anew. For example, "LimitRange `a` exists".
fn applied_with_pods(message: &str, objects: &[Object], checked: &[CheckedObject]) -> Option<String> {
    let exists = |object: &Object| {
        let found = checked.iter().find(|checked| checked.object.id() == object.id());
        found.is_some_and(|checked| checked.live.is_some())
    };
    let new = |kind: &str, name: Option<&str>| {
        let is_it = |object: &&Object| object.kind == kind && name.is_none_or(|name| object.name == name);
        let found = objects.iter().filter(is_it).find(|object| !exists(object));
        found.map(|object| format!("{kind} `{}` exists", object.name))
    };
    let changed = |kind: &str| {
        let is_it = |checked: &&CheckedObject| checked.object.kind == kind && checked.applies && checked.live.is_some();
        let found = checked.iter().find(is_it);
        found.map(|checked| format!("{kind} `{}` is as its manifest has it", checked.object.name))
    };
    // `error looking up service account ns/name: serviceaccount "name" not found`
    if let Some((_, rest)) = message.split_once("serviceaccount \"") {
        return new("ServiceAccount", rest.split('"').next());
    }
    // `no PriorityClass with name x was found`
    if let Some((_, rest)) = message.split_once("no PriorityClass with name ") {
        return new("PriorityClass", rest.split_whitespace().next());
    }
    // A LimitRange sets the values that a quota demands.
    if message.contains("must specify")
        && let Some(limits) = new("LimitRange", None)
    {
        return Some(limits);
    }
    let decides = [
        ("exceeded quota", "ResourceQuota"),
        ("must specify", "ResourceQuota"),
        (" usage per ", "LimitRange"),
        ("limit to request ratio per ", "LimitRange"),
        ("violates PodSecurity", "Namespace"),
    ];
    let by = decides.iter().filter(|(text, _)| message.contains(text));
    by.map(|(_, kind)| *kind).find_map(changed)
}

/// A pod without the fields that admission does not look at: names, commands, and what its programs read.
fn as_seen_by_admission(pod: &Value) -> Value {
    let mut pod = pod.clone();
    if let Some(metadata) = pod.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.shift_remove("generateName");
        for field in ["labels", "annotations"] {
            // Policies usually ask whether a label exists. The values of some labels differ in every pod.
            let values = metadata.get_mut(field).and_then(Value::as_object_mut);
            values.into_iter().flatten().for_each(|(_, value)| *value = Value::Null);
        }
    }
    for list in ["containers", "initContainers"] {
        let containers = pod.pointer_mut(&format!("/spec/{list}")).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten().filter_map(Value::as_object_mut) {
            for field in ["name", "args", "command", "env", "envFrom"] {
                container.shift_remove(field);
            }
        }
    }
    pod
}

/// A pod of a workload's template, as the controller would create it.
fn pod_of(workload: &Value, pointer: &str, name: &str) -> Option<Value> {
    let template = workload.pointer(pointer)?;
    let mut metadata = template.get("metadata").cloned().unwrap_or_else(|| json!({}));
    metadata["generateName"] = Value::from(format!("{name}-"));
    let mut spec = template.get("spec")?.clone();
    let claims = workload.pointer("/spec/volumeClaimTemplates").and_then(Value::as_array);
    for claim in claims.into_iter().flatten() {
        let Some(volume) = claim.pointer("/metadata/name").and_then(Value::as_str) else {
            continue;
        };
        // A claim replaces a volume of the template with the same name.
        let mut volumes = spec
            .get("volumes")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        volumes.retain(|known| known.get("name").and_then(Value::as_str) != Some(volume));
        volumes.push(json!({"name": volume, "persistentVolumeClaim": {"claimName": format!("{volume}-{name}-0")}}));
        spec["volumes"] = Value::Array(volumes);
    }
    Some(json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn pods_that_differ_in_names_and_commands_look_the_same_to_admission() {
        let pod = |name: &str, user: u64| {
            json!({"metadata": {"generateName": name, "labels": {"app": name}},
                   "spec": {"containers": [{"name": name, "args": [name], "image": "a", "securityContext": {"runAsUser": user}}]}})
        };
        assert_eq!(
            as_seen_by_admission(&pod("web", 1)),
            as_seen_by_admission(&pod("worker", 1))
        );
        assert_ne!(
            as_seen_by_admission(&pod("web", 1)),
            as_seen_by_admission(&pod("web", 0))
        );
    }

    #[test]
    fn the_claim_of_a_stateful_set_replaces_a_volume_with_its_name() {
        let set = json!({"spec": {
            "volumeClaimTemplates": [{"metadata": {"name": "data"}}],
            "template": {"spec": {"volumes": [{"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]}}}});
        let pod = pod_of(&set, "/spec/template", "db").unwrap();
        assert_eq!(pod["metadata"]["generateName"], "db-");
        assert_eq!(
            pod["spec"]["volumes"],
            json!([{"name": "tmp", "emptyDir": {}},
                   {"name": "data", "persistentVolumeClaim": {"claimName": "data-db-0"}}])
        );
    }
}
