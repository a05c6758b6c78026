//! When a rollout is stuck: in a state that rarely heals, for longer than is tolerated.

use super::{
    tolerance::Tolerance,
    watched::{Awaited, Watched},
};
use serde_json::Value;
use std::{collections::HashMap, time::Duration};
use tokio::time::Instant;
use towpath_kube::{condition, container_statuses, text_at};
use towpath_manifest::{Readiness, pod};
use towpath_types::Outcome;

/// How long a Deployment may be paused. It is scaled nevertheless, which takes a moment.
const PAUSED: Duration = Duration::from_secs(5);
/// How long to wait for details that make an error more precise.
pub(super) const SETTLING: Duration = Duration::from_secs(5);

/// Why a rollout is given up.
pub(super) struct Stuck {
    pub outcome: Outcome,
    pub message: String,
    /// The pod that caused it.
    pub pod: Option<Value>,
}

/// A state that may last only for some time.
#[derive(PartialEq, Eq, Hash, Clone, Copy)]
enum Trouble {
    Paused,
    Refused,
    Pull,
    Creation,
    Unschedulable,
}

/// Remembers since when workloads and pods have been in trouble.
pub(super) struct StuckDetector {
    tolerance: Tolerance,
    /// By the name of the workload or the uid of the pod.
    since: HashMap<(String, Trouble), Instant>,
}

impl StuckDetector {
    pub(super) fn new(tolerance: Tolerance) -> Self {
        Self {
            tolerance,
            since: HashMap::new(),
        }
    }

    fn lasts(&mut self, of: &str, trouble: Trouble, limit: Duration, now: Instant) -> bool {
        let since = *self.since.entry((of.to_string(), trouble)).or_insert(now);
        now.duration_since(since) >= limit
    }

    /// Whether a workload is stuck at `now`. Looks at its pods only if any pod is `in_trouble`.
    pub(super) fn check(&mut self, one: &Awaited, watched: &Watched, in_trouble: bool, now: Instant) -> Option<Stuck> {
        let failed = |message: String, pod| Stuck {
            outcome: Outcome::Failed,
            message,
            pod,
        };
        let (observed, is_paused, refusal) = watched.with_live(one, |live| {
            let observed = live.pointer("/status/observedGeneration").and_then(Value::as_i64);
            let is_paused = live.pointer("/spec/paused").and_then(Value::as_bool) == Some(true);
            let refusal = condition(live, "ReplicaFailure").filter(|refusal| text_at(refusal, "/status") == "True");
            Some((observed, is_paused, refusal.map(|refusal| text_at(refusal, "/message"))))
        })?;
        // Until the controller has seen the change, the pods are those of the old manifest.
        if observed.unwrap_or(0) < one.generation {
            return None;
        }
        let name = &one.object.name;
        if is_paused && self.lasts(name, Trouble::Paused, PAUSED, now) {
            let message = "it is paused, so nothing rolls out: remove `paused` from its manifest, or run `kubectl rollout resume`";
            return Some(failed(message.into(), None));
        }
        if let Some(refusal) = refusal
            && self.lasts(name, Trouble::Refused, self.tolerance.refusal, now)
        {
            return Some(failed(format!("its pods cannot be created: {refusal}"), None));
        }
        if !in_trouble {
            return None;
        }
        if one.resource.kind == "Deployment" {
            // Give the ReplicaSets a moment to be listed: they tell which pods are current.
            let (since, replica_sets) = watched.replica_sets();
            let is_settled = replica_sets.is_listed() || replica_sets.denied().is_some();
            if !is_settled && now.saturating_duration_since(since) < SETTLING {
                return None;
            }
        }
        for pod in watched.current_pods(one) {
            if let Some(message) = self.check_pod(&pod, now) {
                return Some(failed(message, Some(pod)));
            }
        }
        None
    }

    fn check_pod(&mut self, value: &Value, now: Instant) -> Option<String> {
        let Readiness::Failed(why) = pod(value) else {
            return None;
        };
        let uid = text_at(value, "/metadata/uid");
        let statuses = container_statuses(value);
        let waiting: Vec<&str> = statuses
            .iter()
            .filter_map(|status| status.pointer("/state/waiting/reason")?.as_str())
            .collect();
        let restarts = statuses
            .iter()
            .filter_map(|status| status.get("restartCount")?.as_i64())
            .max()
            .unwrap_or(0);
        let has = |reasons: &[&str]| waiting.iter().any(|reason| reasons.contains(reason));
        let does_not_exist = ["not found", "manifest unknown", "does not exist", "NotFound"]
            .iter()
            .any(|words| why.contains(words));
        let tolerance = self.tolerance;
        let is_stuck = if has(&["ImagePullBackOff", "ErrImagePull"]) {
            let limit = if does_not_exist { Duration::ZERO } else { tolerance.pull };
            self.lasts(&uid, Trouble::Pull, limit, now)
        } else if has(&["InvalidImageName", "ErrImageNeverPull"]) {
            true
        } else if has(&["CrashLoopBackOff"]) {
            restarts >= tolerance.restarts
        } else if has(&[
            "CreateContainerConfigError",
            "CreateContainerError",
            "RunContainerError",
        ]) {
            self.lasts(&uid, Trouble::Creation, tolerance.creation, now)
        } else if text_at(value, "/status/phase") == "Failed" {
            // Its controller creates another one. The release is not to blame for evictions and preemptions.
            false
        } else {
            self.lasts(&uid, Trouble::Unschedulable, tolerance.unschedulable, now)
        };
        is_stuck.then_some(why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn waiting(reason: &str, message: &str, restarts: i64) -> Value {
        json!({"metadata": {"uid": "1"}, "status": {"phase": "Pending", "containerStatuses": [
            {"name": "web", "restartCount": restarts, "state": {"waiting": {"reason": reason, "message": message}}}]}})
    }

    #[test]
    fn each_trouble_has_its_own_limit() {
        let start = Instant::now();
        let after = |pod: &Value, seconds: u64| {
            let mut detector = StuckDetector::new(Tolerance::default());
            let _ = detector.check_pod(pod, start);
            detector.check_pod(pod, start + Duration::from_secs(seconds)).is_some()
        };
        let pull = waiting("ImagePullBackOff", "timeout", 0);
        assert!(!after(&pull, 29) && after(&pull, 30));
        assert!(after(&waiting("ErrImagePull", "manifest unknown", 0), 0));
        assert!(after(&waiting("InvalidImageName", "", 0), 0));
        let config = waiting("CreateContainerConfigError", "", 0);
        assert!(!after(&config, 9) && after(&config, 10));
        assert!(!after(&waiting("CrashLoopBackOff", "", 1), 1000) && after(&waiting("CrashLoopBackOff", "", 2), 0));
        let evicted = json!({"metadata": {"uid": "1"}, "status": {"phase": "Failed", "reason": "Evicted"}});
        assert!(!after(&evicted, 1000));
        let unschedulable = json!({"metadata": {"uid": "1"}, "status": {"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]}});
        assert!(!after(&unschedulable, 89) && after(&unschedulable, 90));
    }
}
