//! Waits until workloads have rolled out.

use super::{
    diagnosis::Diagnosis,
    stuck::{Stuck, StuckDetector},
    tolerance::Tolerance,
    watched::{Awaited, Watched, is_owned_by},
};
use crate::target::{ApplyError, Environment, Progress};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};
use towpath_kube::{Client, Resource, text_at};
use towpath_manifest::{Kind, ObjectId, Readiness, pod};
use towpath_types::{Mask, Outcome};

/// How often to check whether something has lasted too long.
const TICK: Duration = Duration::from_millis(500);
/// How long to collect changes before looking at them. Many come at once, and looking takes time away from the rollout.
const GATHER: Duration = Duration::from_millis(25);
/// How long to wait for a pod after its grace period. If its node has gone, the pod never goes.
const AFTER_GRACE: SignedDuration = SignedDuration::from_secs(30);

/// Waits until workloads have rolled out.
pub(in crate::kubernetes) struct Waiter {
    pub client: Arc<Client>,
    pub environment: Environment,
    pub tolerance: Tolerance,
    pub mask: Mask,
}

impl Waiter {
    /// Waits until all of `awaited` have rolled out and their old pods are gone.
    ///
    /// # Errors
    /// When the first of them is stuck, and when `deadline` has passed.
    pub(in crate::kubernetes) async fn wait(
        &self,
        awaited: &[Awaited],
        deadline: Instant,
        progress: &mpsc::UnboundedSender<Progress>,
    ) -> Result<(), ApplyError> {
        let changed = Arc::new(Notify::new());
        let watched = Watched::start(&self.client, &self.environment.namespace, awaited, &changed);
        let mut told: HashMap<ObjectId, String> = HashMap::new();
        let mut detector = StuckDetector::new(self.tolerance);
        let mut last_check: Option<Instant> = None;
        let mut removed: BTreeSet<String> = BTreeSet::new();
        loop {
            let now = Instant::now();
            // Limits are in seconds: checking them at every change would find nothing earlier.
            let is_check_due = last_check.is_none_or(|last| now.duration_since(last) >= TICK);
            if is_check_due {
                last_check = Some(now);
            }
            let old_pods = watched.pods.filter_map(|pod| stopping(pod, Timestamp::now()));
            let is_in_trouble = |value: &Value| matches!(pod(value), Readiness::Failed(_)).then_some(());
            let in_trouble = is_check_due && !watched.pods.filter_map(is_in_trouble).is_empty();
            let mut all_done = true;
            for one in awaited {
                let stuck = |outcome, message| Stuck {
                    outcome,
                    message,
                    pod: None,
                };
                let sentence = match watched.readiness(one) {
                    Ok(Readiness::Done) => {
                        // A pod that was told to stop may still handle requests. It counts until it is gone.
                        let old = old_pods.iter().filter(|labels| selects(one, labels)).count();
                        all_done &= old == 0 || now >= deadline;
                        match old {
                            _ if now >= deadline => "rolled out".to_string(),
                            0 => "rolled out".to_string(),
                            1 => "1 old pod is being stopped".to_string(),
                            old => format!("{old} old pods are being stopped"),
                        }
                    }
                    Ok(Readiness::Waiting(sentence)) => {
                        all_done = false;
                        let mut found = None;
                        if is_check_due {
                            self.remove_blocking_pods(one, &watched, &mut removed, progress).await;
                            found = detector.check(one, &watched, in_trouble, now);
                        }
                        let timed_out = || stuck(Outcome::TimedOut, format!("the deadline has passed: {sentence}"));
                        if let Some(found) = found.or_else(|| (now >= deadline).then(timed_out)) {
                            return Err(self.give_up(one, found, awaited, &watched).await);
                        }
                        sentence
                    }
                    Ok(Readiness::Failed(why)) => {
                        let found = stuck(Outcome::TimedOut, why);
                        return Err(self.give_up(one, found, awaited, &watched).await);
                    }
                    Err(why) => {
                        let found = stuck(Outcome::Errored, why);
                        return Err(self.give_up(one, found, awaited, &watched).await);
                    }
                };
                let id = one.object.id();
                if told.get(&id) != Some(&sentence) {
                    tell(progress, &id, &sentence);
                    told.insert(id, sentence);
                }
            }
            if all_done {
                return Ok(());
            }
            tokio::select! {
                () = changed.notified() => tokio::time::sleep(GATHER).await,
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }

    async fn give_up(&self, one: &Awaited, stuck: Stuck, awaited: &[Awaited], watched: &Watched) -> ApplyError {
        let diagnosis = Diagnosis {
            client: &self.client,
            environment: &self.environment,
            mask: &self.mask,
        };
        diagnosis.of(one, stuck, awaited, watched).await
    }

    /// Removes broken pods of a StatefulSet's old template. Its controller updates one pod after the other, and would wait
    /// forever for a broken one.
    ///
    /// Source: <https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#forced-rollback>
    async fn remove_blocking_pods(
        &self,
        one: &Awaited,
        watched: &Watched,
        removed: &mut BTreeSet<String>,
        progress: &mpsc::UnboundedSender<Progress>,
    ) {
        if one.resource.kind != "StatefulSet" {
            return;
        }
        let Some(live) = watched.live(one) else { return };
        let observed = live.pointer("/status/observedGeneration").and_then(Value::as_i64);
        let (uid, newest) = (
            text_at(&live, "/metadata/uid"),
            text_at(&live, "/status/updateRevision"),
        );
        let updates_pods = text_at(&live, "/spec/updateStrategy/type") != "OnDelete";
        if observed.unwrap_or(0) < one.generation || newest.is_empty() || !updates_pods {
            return;
        }
        let blocking = watched.pods.filter(|candidate| {
            is_owned_by(candidate, &uid)
                && text_at(candidate, "/metadata/labels/controller-revision-hash") != newest
                && matches!(pod(candidate), Readiness::Failed(_))
        });
        for candidate in blocking {
            let (name, uid) = (
                text_at(&candidate, "/metadata/name"),
                text_at(&candidate, "/metadata/uid"),
            );
            if !removed.insert(uid.clone()) {
                continue;
            }
            let path = Resource::of(&Kind::POD).object(&self.environment.namespace, &name);
            let message = match self.client.delete(&path, Some(&uid)).await {
                Ok(()) => format!("removed pod `{name}`, which is broken and would block the update of the others"),
                Err(error) => format!(
                    "pod `{name}` is broken and blocks the update of the others, but it cannot be removed: {error}"
                ),
            };
            tell(progress, &one.object.id(), &message);
        }
    }
}

fn tell(progress: &mpsc::UnboundedSender<Progress>, object: &ObjectId, message: &str) {
    // It is fine if nobody listens.
    let _ = progress.send(Progress {
        object: Some(object.clone()),
        message: message.to_string(),
    });
}

/// The labels of a pod that belongs to a ReplicaSet and is being stopped. Its deletion timestamp is the end of its grace
/// period.
///
/// Source: <https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination>
fn stopping(pod: &Value, now: Timestamp) -> Option<Value> {
    let deleted = pod.pointer("/metadata/deletionTimestamp")?.as_str()?;
    let ends = deleted.parse::<Timestamp>().ok()?;
    let owners = pod.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    let is_of_replica_set = owners
        .into_iter()
        .flatten()
        .any(|owner| text_at(owner, "/kind") == "ReplicaSet");
    (is_of_replica_set && now.duration_since(ends) < AFTER_GRACE)
        .then(|| pod.pointer("/metadata/labels").cloned())
        .flatten()
}

/// Whether a ReplicaSet's pod with these labels belongs to a workload, if that is a Deployment. Pods of other workloads get the
/// same names again, so they are gone before their successors start.
fn selects(one: &Awaited, labels: &Value) -> bool {
    let selector = one.object.value.pointer("/spec/selector/matchLabels");
    one.resource.kind == "Deployment"
        && selector.and_then(Value::as_object).is_some_and(|selector| {
            let has = |(key, value): (&String, &Value)| labels.get(key) == Some(value);
            !selector.is_empty() && selector.iter().all(has)
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn an_old_pod_counts_until_a_while_after_its_grace_period() {
        let pod = |owner: &str| {
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "labels": {"app": "web"},
                                "ownerReferences": [{"kind": owner}]}})
        };
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let counts = |pod: &Value, time: &str| stopping(pod, at(time)).is_some();
        assert!(counts(&pod("ReplicaSet"), "2026-01-01T00:00:29Z"));
        assert!(!counts(&pod("ReplicaSet"), "2026-01-01T00:00:30Z"));
        assert!(!counts(&pod("StatefulSet"), "2026-01-01T00:00:00Z"));
        assert!(!counts(&json!({"metadata": {}}), "2026-01-01T00:00:00Z"));
    }
}
