//! Whether an object is ready: pure functions of the object's status.
//!
//! The table in [`crate::kinds`] says which of them belongs to which kind.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How far an object is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Readiness {
    /// It is as its manifest asks.
    Done,
    /// Not yet. The sentence says what is missing.
    Waiting(String),
    /// Waiting will not help. The sentence says why.
    Failed(String),
}

impl Readiness {
    fn waiting(sentence: impl Into<String>) -> Self {
        Self::Waiting(sentence.into())
    }
}

/// Whether a Deployment has rolled out, by the rules of `kubectl rollout status`.
///
/// It checks `observedGeneration` first: until the controller has seen the new manifest, the rest of the status is about
/// the old one.
/// Source: <https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#deployment-status>
#[must_use]
pub(crate) fn deployment(object: &Value) -> Readiness {
    if let Some(waiting) = unobserved(object) {
        return waiting;
    }
    if let Some(stalled) = condition(object, "Progressing")
        && text(stalled, "reason") == "ProgressDeadlineExceeded"
    {
        return Readiness::Failed(sentence("it made no progress within its deadline", stalled));
    }
    if let Some(failure) = condition(object, "ReplicaFailure")
        && text(failure, "status") == "True"
        && count(object, "/status/replicas", 0) == 0
    {
        return Readiness::Waiting(sentence("its pods cannot be created", failure));
    }
    let wanted = count(object, "/spec/replicas", 1);
    let updated = count(object, "/status/updatedReplicas", 0);
    let all = count(object, "/status/replicas", 0);
    let available = count(object, "/status/availableReplicas", 0);
    if updated < wanted {
        return Readiness::waiting(format!("{updated} of {wanted} new replicas have been started"));
    }
    if all > updated {
        return Readiness::waiting(match all - updated {
            1 => "1 old replica has not stopped yet".to_string(),
            old => format!("{old} old replicas have not stopped yet"),
        });
    }
    if available < updated {
        return Readiness::waiting(format!("{available} of {updated} new replicas are available"));
    }
    Readiness::Done
}

/// Whether a StatefulSet has rolled out, by the rules of `kubectl rollout status`.
///
/// Source: <https://github.com/kubernetes/kubectl/blob/master/pkg/polymorphichelpers/rollout_status.go>
#[must_use]
pub(crate) fn stateful_set(object: &Value) -> Readiness {
    if object.pointer("/spec/updateStrategy/type").and_then(Value::as_str) == Some("OnDelete") {
        return Readiness::Done;
    }
    if let Some(waiting) = unobserved(object) {
        return waiting;
    }
    let wanted = count(object, "/spec/replicas", 1);
    let ready = count(object, "/status/readyReplicas", 0);
    if ready < wanted {
        return Readiness::waiting(format!("{ready} of {wanted} replicas are ready"));
    }
    let partition = count(object, "/spec/updateStrategy/rollingUpdate/partition", 0);
    let updated = count(object, "/status/updatedReplicas", 0);
    if partition > 0 {
        let wanted = (wanted - partition).max(0);
        if updated < wanted {
            return Readiness::waiting(format!(
                "{updated} of {wanted} replicas above the partition are updated"
            ));
        }
        return Readiness::Done;
    }
    let revision = |field: &str| object.pointer(&format!("/status/{field}")).and_then(Value::as_str);
    if revision("updateRevision") != revision("currentRevision") {
        return Readiness::waiting(format!("{updated} of {wanted} replicas are updated"));
    }
    Readiness::Done
}

/// Whether a DaemonSet has rolled out, by the rules of `kubectl rollout status`.
///
/// Source: <https://github.com/kubernetes/kubectl/blob/master/pkg/polymorphichelpers/rollout_status.go>
#[must_use]
pub(crate) fn daemon_set(object: &Value) -> Readiness {
    if object.pointer("/spec/updateStrategy/type").and_then(Value::as_str) == Some("OnDelete") {
        return Readiness::Done;
    }
    if let Some(waiting) = unobserved(object) {
        return waiting;
    }
    let wanted = count(object, "/status/desiredNumberScheduled", 0);
    let updated = count(object, "/status/updatedNumberScheduled", 0);
    let available = count(object, "/status/numberAvailable", 0);
    if updated < wanted {
        return Readiness::waiting(format!("{updated} of {wanted} pods are updated"));
    }
    if available < wanted {
        return Readiness::waiting(format!("{available} of {wanted} updated pods are available"));
    }
    Readiness::Done
}

/// Whether a Job has completed.
///
/// Source: <https://kubernetes.io/docs/concepts/workloads/controllers/job/#terminal-job-conditions>
#[must_use]
pub(crate) fn job(object: &Value) -> Readiness {
    let holds = |name: &str| condition(object, name).filter(|found| text(found, "status") == "True");
    if holds("Complete").is_some() {
        return Readiness::Done;
    }
    if let Some(failed) = holds("Failed") {
        return Readiness::Failed(sentence("the job failed", failed));
    }
    if holds("Suspended").is_some() {
        return Readiness::waiting("the job is suspended");
    }
    let active = count(object, "/status/active", 0);
    let failed = count(object, "/status/failed", 0);
    let running = match active {
        1 => "1 pod is running".to_string(),
        _ => format!("{active} pods are running"),
    };
    Readiness::Waiting(match (active, failed) {
        (0, 0) => "the job has not started a pod yet".to_string(),
        (_, 0) => running,
        (_, 1) => format!("{running}, 1 has failed"),
        (_, failed) => format!("{running}, {failed} have failed"),
    })
}

/// Whether a pod is ready, or stuck in a state that waiting rarely ends.
///
/// `ImagePullBackOff`, `CrashLoopBackOff`, `CreateContainerConfigError` and the like are [`Readiness::Failed`] here, although
/// Kubernetes keeps trying. The caller decides how long it tolerates such a state.
/// Source: <https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/>
#[must_use]
pub fn pod(object: &Value) -> Readiness {
    match object.pointer("/status/phase").and_then(Value::as_str) {
        Some("Succeeded") => return Readiness::Done,
        Some("Failed") => {
            let status = object.get("status").unwrap_or(&Value::Null);
            let stopped = terminated(status).unwrap_or_else(|| sentence("the pod failed", status));
            return Readiness::Failed(stopped);
        }
        _ => {}
    }
    if let Some(scheduled) = condition(object, "PodScheduled")
        && text(scheduled, "status") == "False"
        && text(scheduled, "reason") == "Unschedulable"
    {
        return Readiness::Failed(sentence("no node can take the pod", scheduled));
    }
    let status = object.get("status").unwrap_or(&Value::Null);
    let mut waiting = None;
    for status in container_statuses(status) {
        let name = text(status, "name");
        let Some(state) = status.pointer("/state/waiting") else {
            continue;
        };
        let reason = text(state, "reason");
        let message = text(state, "message");
        if let Some(why) = stuck(reason) {
            let last = last_exit(status).unwrap_or_default();
            let detail = if message.is_empty() {
                String::new()
            } else {
                format!(": {message}")
            };
            return Readiness::Failed(format!("container `{name}` {why} ({reason}){last}{detail}"));
        }
        if waiting.is_none() && !reason.is_empty() {
            waiting = Some(format!("container `{name}` is waiting ({reason})"));
        }
    }
    if condition(object, "Ready").is_some_and(|ready| text(ready, "status") == "True") {
        return Readiness::Done;
    }
    Readiness::Waiting(waiting.unwrap_or_else(|| {
        match container_statuses(status).find(|one| one.get("ready").and_then(Value::as_bool) == Some(false)) {
            Some(status) => format!("container `{}` is not ready", text(status, "name")),
            None => "the pod has not started yet".to_string(),
        }
    }))
}

pub(crate) fn claim(object: &Value) -> Readiness {
    match object.pointer("/status/phase").and_then(Value::as_str) {
        Some("Lost") => Readiness::Failed("the volume behind the claim is lost".to_string()),
        // A claim may wait for its first pod (`WaitForFirstConsumer`), so do not wait for one that is unbound.
        _ => Readiness::Done,
    }
}

/// What a waiting reason means, if a person has to act on it.
fn stuck(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "ImagePullBackOff" | "ErrImagePull" => "cannot pull its image",
        "ErrImageNeverPull" => "may not pull its image, and the node does not have it",
        "InvalidImageName" => "names an image that is not a valid image reference",
        "CrashLoopBackOff" => "keeps crashing after it starts",
        "CreateContainerConfigError" => "reads a ConfigMap, a Secret or a key that does not exist",
        "CreateContainerError" => "cannot be created",
        "RunContainerError" => "cannot be started",
        _ => return None,
    })
}

fn container_statuses(status: &Value) -> impl Iterator<Item = &Value> {
    ["initContainerStatuses", "containerStatuses"]
        .into_iter()
        .filter_map(|list| status.get(list).and_then(Value::as_array))
        .flatten()
}

/// A sentence about the first container that exited with an error.
fn terminated(status: &Value) -> Option<String> {
    container_statuses(status).find_map(|status| {
        let state = status.pointer("/state/terminated")?;
        let code = state.get("exitCode").and_then(Value::as_i64)?;
        let reason = text(state, "reason");
        (code != 0).then(|| {
            format!(
                "container `{}` stopped with exit code {code} ({reason})",
                text(status, "name")
            )
        })
    })
}

fn last_exit(status: &Value) -> Option<String> {
    let last = status.pointer("/lastState/terminated")?;
    let code = last.get("exitCode").and_then(Value::as_i64)?;
    let restarts = status.get("restartCount").and_then(Value::as_i64).unwrap_or(0);
    let reason = text(last, "reason");
    Some(format!(", last with exit code {code} ({reason}), {restarts} restarts"))
}

fn unobserved(object: &Value) -> Option<Readiness> {
    let wanted = count(object, "/metadata/generation", 0);
    let seen = count(object, "/status/observedGeneration", 0);
    (seen < wanted).then(|| {
        Readiness::Waiting(format!(
            "its controller has not seen the change yet (generation {seen} of {wanted})"
        ))
    })
}

fn condition<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array)?;
    conditions.iter().find(|condition| text(condition, "type") == name)
}

fn sentence(what: &str, condition: &Value) -> String {
    match (text(condition, "reason"), text(condition, "message")) {
        ("", "") => what.to_string(),
        (reason, "") => format!("{what} ({reason})"),
        ("", message) => format!("{what}: {message}"),
        (reason, message) => format!("{what} ({reason}): {message}"),
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn count(object: &Value, pointer: &str, default: i64) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(default)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::Kind;
    use serde_json::json;

    fn check(object: &Value, expect: &str) {
        let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default();
        let got = match Kind::of(kind).readiness(object) {
            Readiness::Done => "done".to_string(),
            Readiness::Waiting(sentence) => format!("waiting: {sentence}"),
            Readiness::Failed(sentence) => format!("failed: {sentence}"),
        };
        assert_eq!(got, expect, "{object}");
    }

    fn rollout(kind: &str, status: &Value) -> Value {
        json!({"kind": kind, "metadata": {"generation": 2}, "spec": {"replicas": 2}, "status": status})
    }

    #[test]
    fn deployments() {
        let check = |status: Value, expect: &str| check(&rollout("Deployment", &status), expect);
        check(
            json!(null),
            "waiting: its controller has not seen the change yet (generation 0 of 2)",
        );
        check(
            json!({"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}),
            "waiting: its controller has not seen the change yet (generation 1 of 2)",
        );
        check(
            json!({"observedGeneration": 1, "conditions": [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]}),
            "waiting: its controller has not seen the change yet (generation 1 of 2)",
        );
        check(
            json!({"observedGeneration": 2, "conditions": [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "ReplicaSet \"app-1\" has timed out progressing."}]}),
            "failed: it made no progress within its deadline (ProgressDeadlineExceeded): ReplicaSet \"app-1\" has timed out progressing.",
        );
        check(
            json!({"observedGeneration": 2, "conditions": [{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota"}]}),
            "waiting: its pods cannot be created (FailedCreate): exceeded quota",
        );
        check(
            json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 1}),
            "waiting: 1 of 2 new replicas have been started",
        );
        check(
            json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 2, "availableReplicas": 3}),
            "waiting: 1 old replica has not stopped yet",
        );
        check(
            json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 1}),
            "waiting: 1 of 2 new replicas are available",
        );
        check(
            json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}),
            "done",
        );
    }

    #[test]
    fn stateful_and_daemon_sets() {
        let set = |status: Value| rollout("StatefulSet", &status);
        check(
            &set(json!({"observedGeneration": 2, "readyReplicas": 1})),
            "waiting: 1 of 2 replicas are ready",
        );
        check(
            &set(
                json!({"observedGeneration": 2, "readyReplicas": 2, "updatedReplicas": 1, "updateRevision": "b", "currentRevision": "a"}),
            ),
            "waiting: 1 of 2 replicas are updated",
        );
        check(
            &set(
                json!({"observedGeneration": 2, "readyReplicas": 2, "updatedReplicas": 2, "updateRevision": "b", "currentRevision": "b"}),
            ),
            "done",
        );
        let daemon = |status: Value| rollout("DaemonSet", &status);
        check(
            &daemon(json!({"observedGeneration": 2, "desiredNumberScheduled": 3, "updatedNumberScheduled": 2})),
            "waiting: 2 of 3 pods are updated",
        );
        check(
            &daemon(
                json!({"observedGeneration": 2, "desiredNumberScheduled": 3, "updatedNumberScheduled": 3, "numberAvailable": 1}),
            ),
            "waiting: 1 of 3 updated pods are available",
        );
        check(
            &daemon(json!({"observedGeneration": 2, "desiredNumberScheduled": 0})),
            "done",
        );
    }

    #[test]
    fn jobs() {
        let check = |status: Value, expect: &str| check(&json!({"kind": "Job", "status": status}), expect);
        check(json!({}), "waiting: the job has not started a pod yet");
        check(json!({"active": 1}), "waiting: 1 pod is running");
        check(
            json!({"active": 1, "failed": 2}),
            "waiting: 1 pod is running, 2 have failed",
        );
        check(json!({"conditions": [{"type": "Complete", "status": "True"}]}), "done");
        check(
            json!({"conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "Job has reached the specified backoff limit"}]}),
            "failed: the job failed (BackoffLimitExceeded): Job has reached the specified backoff limit",
        );
        check(
            json!({"conditions": [{"type": "Complete", "status": "False"}]}),
            "waiting: the job has not started a pod yet",
        );
    }

    #[test]
    fn pods() {
        let check = |status: Value, expect: &str| check(&json!({"kind": "Pod", "status": status}), expect);
        let waiting = |reason: &str, message: &str| json!({"phase": "Pending", "containerStatuses": [{"name": "app", "ready": false, "state": {"waiting": {"reason": reason, "message": message}}}]});
        check(json!({}), "waiting: the pod has not started yet");
        check(
            waiting("ContainerCreating", ""),
            "waiting: container `app` is waiting (ContainerCreating)",
        );
        check(
            waiting("ImagePullBackOff", "Back-off pulling image \"app:1\""),
            "failed: container `app` cannot pull its image (ImagePullBackOff): Back-off pulling image \"app:1\"",
        );
        check(
            waiting("CreateContainerConfigError", "secret \"app-secrets\" not found"),
            "failed: container `app` reads a ConfigMap, a Secret or a key that does not exist (CreateContainerConfigError): secret \"app-secrets\" not found",
        );
        check(
            json!({"phase": "Running", "containerStatuses": [{"name": "app", "restartCount": 4,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}}}]}),
            "failed: container `app` keeps crashing after it starts (CrashLoopBackOff), last with exit code 1 (Error), 4 restarts",
        );
        check(
            json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"}]}),
            "failed: no node can take the pod (Unschedulable): 0/3 nodes are available",
        );
        check(
            json!({"phase": "Failed", "containerStatuses": [{"name": "app", "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]}),
            "failed: container `app` stopped with exit code 137 (OOMKilled)",
        );
        check(
            json!({"phase": "Failed", "reason": "Evicted"}),
            "failed: the pod failed (Evicted)",
        );
        check(
            json!({"phase": "Running", "containerStatuses": [{"name": "app", "ready": false, "state": {"running": {}}}]}),
            "waiting: container `app` is not ready",
        );
        check(
            json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}),
            "done",
        );
        check(json!({"phase": "Succeeded"}), "done");
    }

    #[test]
    fn the_rest() {
        check(&json!({"kind": "ConfigMap"}), "done");
        check(
            &json!({"kind": "PersistentVolumeClaim", "status": {"phase": "Pending"}}),
            "done",
        );
        check(
            &json!({"kind": "PersistentVolumeClaim", "status": {"phase": "Lost"}}),
            "failed: the volume behind the claim is lost",
        );
        check(&json!("not an object at all"), "done");
    }
}
