//! Waiting for rollouts: all of them together, with an early end for what will not heal by waiting.

use super::{
    api::{Api, escape},
    follow::Follower,
    kinds::Kind,
};
use crate::target::{ApplyError, Environment, Progress, WorkloadStatus};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};
use towpath_manifest::{Object, ObjectId, Readiness, daemon_set, deployment, pod, readiness, stateful_set};
use towpath_types::{Mask, Outcome};

/// How many of a pod's last lines an error shows.
const LAST_LINES: u32 = 20;
/// How often it is looked whether something has lasted too long.
const TICK: Duration = Duration::from_millis(500);
/// How long a paused Deployment is waited for.
const PAUSED: Duration = Duration::from_secs(5);
/// How long is waited for what an error can say besides.
const SETTLING: Duration = Duration::from_secs(5);
/// How long changes are gathered before they are looked at: much happens at once, and looking takes time from it.
const GATHER: Duration = Duration::from_millis(25);

/// How long a state that seldom heals may last before the rollout is given up.
#[derive(Debug, Clone, Copy)]
pub struct Tolerance {
    /// An image that cannot be pulled, unless the registry said that there is none.
    pub pull: Duration,
    /// No node can take the pod. A cluster that grows by itself needs minutes: a project's file can say so.
    pub unschedulable: Duration,
    /// A container that cannot be made: a ConfigMap, Secret or program that is not there.
    pub creation: Duration,
    /// Pods that are refused: quota, admission, a service account that is not there.
    pub refusal: Duration,
    /// How often a container may be started again.
    pub restarts: i64,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self {
            pull: Duration::from_secs(30),
            unschedulable: Duration::from_secs(90),
            creation: Duration::from_secs(10),
            refusal: Duration::from_secs(15),
            restarts: 2,
        }
    }
}

impl Tolerance {
    /// The same, but for how long a pod may wait for a node, where somebody said that.
    pub(super) fn with_unschedulable(self, unschedulable: Option<Duration>) -> Self {
        Self {
            unschedulable: unschedulable.unwrap_or(self.unschedulable),
            ..self
        }
    }
}

/// A workload that is waited for.
pub(super) struct Awaited {
    pub object: Object,
    pub kind: Kind,
    /// The generation that was applied: what the status says of an earlier one does not count.
    pub generation: i64,
}

/// What waiting needs.
pub(super) struct Waiter {
    pub api: Arc<Api>,
    pub environment: Environment,
    pub tolerance: Tolerance,
    pub mask: Mask,
}

/// The kinds that roll out.
pub(super) fn rolls_out(kind: &str) -> bool {
    matches!(kind, "Deployment" | "StatefulSet" | "DaemonSet")
}

/// How far a workload's rollout is.
pub(super) fn progress_of(kind: &str, live: &Value) -> Readiness {
    match kind {
        "StatefulSet" => stateful_set(live),
        "DaemonSet" => daemon_set(live),
        _ => deployment(live),
    }
}

/// The collections that are followed while somebody waits.
struct Followed {
    workloads: HashMap<Kind, Follower>,
    pods: Follower,
    /// Followed from when something goes wrong, and since when: until then nobody asks which pods are of which template.
    replica_sets: OnceLock<(Instant, Follower)>,
}

/// A state that lasts: of which pod or workload, and of what kind.
#[derive(PartialEq, Eq, Hash, Clone)]
struct Lasting(String, &'static str);

/// Why a rollout is given up.
struct Stuck {
    outcome: Outcome,
    message: String,
    pod: Option<Value>,
}

/// How long after its grace a pod that is being stopped counts: its node may be gone, and then it never is.
const AFTER_GRACE: SignedDuration = SignedDuration::from_secs(30);

/// The labels of a pod that a ReplicaSet made and that is being stopped. The time at which a pod was deleted, as Kubernetes
/// has it, is the one at which its grace ends.
///
/// Source: <https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination>
fn leaving(pod: &Value, now: Timestamp) -> Option<Value> {
    let deleted = pod.pointer("/metadata/deletionTimestamp")?.as_str()?;
    let ends = deleted.parse::<Timestamp>().ok()?;
    let owners = pod.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    let is_of_set = owners
        .into_iter()
        .flatten()
        .any(|owner| owner.get("kind").and_then(Value::as_str) == Some("ReplicaSet"));
    (is_of_set && now.duration_since(ends) < AFTER_GRACE)
        .then(|| pod.pointer("/metadata/labels").cloned())
        .flatten()
}

/// Whether a pod with these labels is one of a Deployment's, if a ReplicaSet made it. The pods of others have the same names
/// again, and are not replaced before they are gone.
fn selects(one: &Awaited, labels: &Value) -> bool {
    let selector = one
        .object
        .value
        .pointer("/spec/selector/matchLabels")
        .and_then(Value::as_object);
    one.kind.kind == "Deployment"
        && selector.is_some_and(|selector| {
            let has = |(key, value): (&String, &Value)| labels.get(key) == Some(value);
            !selector.is_empty() && selector.iter().all(has)
        })
}

impl Waiter {
    /// Waits until every workload is rolled out.
    ///
    /// # Errors
    /// At the first that cannot be, and when `deadline` has passed.
    pub(super) async fn wait(
        &self,
        awaited: &[Awaited],
        deadline: Instant,
        progress: &mpsc::UnboundedSender<Progress>,
    ) -> Result<(), ApplyError> {
        let changed = Arc::new(Notify::new());
        let followed = self.follow(awaited, &changed);
        let mut said: HashMap<ObjectId, String> = HashMap::new();
        let mut lasting: HashMap<Lasting, Instant> = HashMap::new();
        let mut judged: Option<Instant> = None;
        let mut removed: BTreeSet<String> = BTreeSet::new();
        loop {
            let now = Instant::now();
            // What lasts too long is not seen earlier by looking at every change.
            let judges = judged.is_none_or(|judged| now.duration_since(judged) >= TICK);
            if judges {
                judged = Some(now);
            }
            let mut all_done = true;
            let leaving = followed.pods.filter_map(|pod| leaving(pod, Timestamp::now()));
            let is_in_trouble = |value: &Value| matches!(pod(value), Readiness::Failed(_)).then_some(());
            let in_trouble = judges && !followed.pods.filter_map(is_in_trouble).is_empty();
            for one in awaited {
                let id = one.object.id();
                let sentence = match self.look(one, &followed) {
                    // What has been told to stop may still work on requests: it runs until it is gone.
                    Ok(Readiness::Done) if now < deadline && leaving.iter().any(|labels| selects(one, labels)) => {
                        all_done = false;
                        let pods = leaving.iter().filter(|labels| selects(one, labels)).count();
                        let pods = if pods == 1 {
                            "1 old pod is".into()
                        } else {
                            format!("{pods} old pods are")
                        };
                        format!("{pods} being stopped")
                    }
                    Ok(Readiness::Done) => "rolled out".to_string(),
                    Ok(Readiness::Waiting(sentence)) => {
                        all_done = false;
                        if judges {
                            self.clear_the_way(one, &followed, &mut removed, progress).await;
                        }
                        let stuck = if judges {
                            self.judge(one, &followed, in_trouble, now, &mut lasting)
                        } else {
                            None
                        };
                        let stuck = stuck.or_else(|| {
                            (now >= deadline).then(|| Stuck {
                                outcome: Outcome::TimedOut,
                                message: format!("the deadline passed: {sentence}"),
                                pod: None,
                            })
                        });
                        if let Some(stuck) = stuck {
                            return Err(self.give_up(one, stuck, awaited, &followed).await);
                        }
                        sentence
                    }
                    Ok(Readiness::Failed(sentence)) => {
                        let stuck = Stuck {
                            outcome: Outcome::TimedOut,
                            message: sentence,
                            pod: None,
                        };
                        return Err(self.give_up(one, stuck, awaited, &followed).await);
                    }
                    Err(why) => {
                        let stuck = Stuck {
                            outcome: Outcome::Errored,
                            message: why,
                            pod: None,
                        };
                        return Err(self.give_up(one, stuck, awaited, &followed).await);
                    }
                };
                if said.get(&id) != Some(&sentence) {
                    say(progress, &id, &sentence);
                    said.insert(id, sentence);
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

    fn start(&self, kind: &Kind, changed: &Arc<Notify>) -> Follower {
        let path = kind.collection(&self.environment.namespace);
        Follower::start(Arc::clone(&self.api), path, None, Arc::clone(changed))
    }

    fn follow(&self, awaited: &[Awaited], changed: &Arc<Notify>) -> Followed {
        let kinds: BTreeMap<String, &Kind> = awaited.iter().map(|one| (one.kind.plural.clone(), &one.kind)).collect();
        Followed {
            workloads: kinds
                .into_values()
                .map(|kind| (kind.clone(), self.start(kind, changed)))
                .collect(),
            pods: self.start(&Kind::known("v1", "Pod", "pods"), changed),
            replica_sets: OnceLock::new(),
        }
    }

    /// The ReplicaSets, followed from now on.
    fn replica_sets<'f>(&self, followed: &'f Followed) -> &'f Follower {
        let kind = Kind::known("apps/v1", "ReplicaSet", "replicasets");
        // Whoever asks looks again by itself.
        let start = || (Instant::now(), self.start(&kind, &Arc::default()));
        &followed.replica_sets.get_or_init(start).1
    }

    /// How a workload is doing; an error when that cannot be known.
    fn look(&self, one: &Awaited, followed: &Followed) -> Result<Readiness, String> {
        let Some(follower) = followed.workloads.get(&one.kind) else {
            return Ok(Readiness::Done);
        };
        if let Some(why) = follower.denied() {
            return Err(format!("its rollout cannot be watched: {why}"));
        }
        if !follower.is_read() {
            return Ok(Readiness::Waiting("its state is being read".into()));
        }
        Ok(follower.with(&one.object.name, |live| {
            let Some(live) = live else {
                return Readiness::Waiting("it is not there (any more)".into());
            };
            let generation = live.pointer("/metadata/generation").and_then(Value::as_i64);
            if generation.unwrap_or(0) < one.generation {
                return Readiness::Waiting("the cluster has not shown the change yet".into());
            }
            progress_of(&one.kind.kind, live)
        }))
    }

    /// Removes pods of a StatefulSet that are broken and of a template before the newest: its controller waits for each of
    /// them before it goes on to the next, and for one that is broken for ever.
    ///
    /// Source: <https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#forced-rollback>
    async fn clear_the_way(
        &self,
        one: &Awaited,
        followed: &Followed,
        removed: &mut BTreeSet<String>,
        progress: &mpsc::UnboundedSender<Progress>,
    ) {
        if one.kind.kind != "StatefulSet" {
            return;
        }
        let live = followed
            .workloads
            .get(&one.kind)
            .and_then(|kind| kind.get(&one.object.name));
        let Some(live) = live else { return };
        let observed = live.pointer("/status/observedGeneration").and_then(Value::as_i64);
        let (uid, newest) = (text(&live, "/metadata/uid"), text(&live, "/status/updateRevision"));
        let updates = text(&live, "/spec/updateStrategy/type") != "OnDelete";
        if observed.unwrap_or(0) < one.generation || newest.is_empty() || !updates {
            return;
        }
        let broken = followed.pods.filter(|candidate| {
            let owners = candidate.pointer("/metadata/ownerReferences").and_then(Value::as_array);
            owners.into_iter().flatten().any(|owner| text(owner, "/uid") == uid)
                && text(candidate, "/metadata/labels/controller-revision-hash") != newest
                && matches!(pod(candidate), Readiness::Failed(_))
        });
        for candidate in broken {
            let (name, uid) = (text(&candidate, "/metadata/name"), text(&candidate, "/metadata/uid"));
            if !removed.insert(uid.clone()) {
                continue;
            }
            let path = Kind::known("v1", "Pod", "pods").object(&self.environment.namespace, &name);
            let said = match self.api.delete(&path, Some(&uid)).await {
                Ok(()) => format!(
                    "removed pod `{name}`, which is broken and of the template before: nothing would go on behind it"
                ),
                Err(error) => format!(
                    "pod `{name}` is broken and of the template before, and nothing goes on behind it. It cannot be removed: {error}"
                ),
            };
            say(progress, &one.object.id(), &said);
        }
    }

    /// The pods of a workload's newest template.
    fn current_pods(&self, one: &Awaited, followed: &Followed) -> Vec<Value> {
        let Some(live) = followed
            .workloads
            .get(&one.kind)
            .and_then(|kind| kind.get(&one.object.name))
        else {
            return Vec::new();
        };
        let uid = text(&live, "/metadata/uid");
        let owned_by = |object: &Value, uid: &str| {
            let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
            owners.into_iter().flatten().any(|owner| text(owner, "/uid") == uid)
        };
        if one.kind.kind == "Deployment"
            && let sets = self.replica_sets(followed)
            && sets.is_read()
        {
            let revision = |object: &Value| text(object, "/metadata/annotations/deployment.kubernetes.io~1revision");
            let wanted = revision(&live);
            let sets = sets.filter(|set| owned_by(set, &uid) && revision(set) == wanted);
            let Some(set) = sets.first() else { return Vec::new() };
            let uid = text(set, "/metadata/uid");
            return followed.pods.filter(|pod| owned_by(pod, &uid));
        }
        let labels = live
            .pointer("/spec/selector/matchLabels")
            .and_then(Value::as_object)
            .cloned();
        let labels = labels.unwrap_or_default();
        let mut pods = followed.pods.filter(|pod| {
            let of_pod = pod.pointer("/metadata/labels");
            !labels.is_empty()
                && labels
                    .iter()
                    .all(|(key, value)| of_pod.and_then(|of_pod| of_pod.get(key)) == Some(value))
        });
        let update = text(&live, "/status/updateRevision");
        if update.is_empty() {
            // Without a look at the ReplicaSets: what they were made of tells.
            let template = live.pointer("/spec/template").cloned().unwrap_or_default();
            pods.retain(|pod| is_made_of(pod, &template));
        } else {
            pods.retain(|pod| text(pod, "/metadata/labels/controller-revision-hash") == update);
        }
        pods
    }

    /// Whether the workload is stuck: in a state that seldom heals, for longer than that is tolerated. Its pods are looked at
    /// when any is `in_trouble`.
    fn judge(
        &self,
        one: &Awaited,
        followed: &Followed,
        in_trouble: bool,
        now: Instant,
        lasting: &mut HashMap<Lasting, Instant>,
    ) -> Option<Stuck> {
        let tolerance = &self.tolerance;
        let mut lasts = |of: &str, kind: &'static str, bound: Duration| {
            let since = *lasting.entry(Lasting(of.to_string(), kind)).or_insert(now);
            now.duration_since(since) >= bound
        };
        let look = |live: Option<&Value>| {
            let live = live?;
            let observed = live.pointer("/status/observedGeneration").and_then(Value::as_i64);
            let is_paused = live.pointer("/spec/paused").and_then(Value::as_bool) == Some(true);
            let refusal = condition(live, "ReplicaFailure").filter(|refusal| text(refusal, "/status") == "True");
            Some((observed, is_paused, refusal.map(|refusal| text(refusal, "/message"))))
        };
        let (observed, is_paused, refusal) = followed.workloads.get(&one.kind)?.with(&one.object.name, look)?;
        // Until its controller has seen what was applied, the pods are those of what was there before.
        if observed.unwrap_or(0) < one.generation {
            return None;
        }
        // It is scaled all the same, which takes a moment.
        if is_paused && lasts(&one.object.name, "paused", PAUSED) {
            return Some(Stuck {
                outcome: Outcome::Failed,
                message: "it is paused, so nothing rolls out: take `paused` out of its manifest, or run `kubectl rollout resume`".into(),
                pod: None,
            });
        }
        if let Some(refusal) = refusal
            && lasts(&one.object.name, "refused", tolerance.refusal)
        {
            return Some(Stuck {
                outcome: Outcome::Failed,
                message: format!("its pods cannot be made: {refusal}"),
                pod: None,
            });
        }
        if !in_trouble {
            return None;
        }
        if one.kind.kind == "Deployment" {
            let sets = self.replica_sets(followed);
            let since = followed.replica_sets.get().map_or(now, |(since, _)| *since);
            if !sets.is_read() && sets.denied().is_none() && now.saturating_duration_since(since) < SETTLING {
                return None;
            }
        }
        for pod_value in &self.current_pods(one, followed) {
            let uid = text(pod_value, "/metadata/uid");
            let Readiness::Failed(why) = pod(pod_value) else {
                continue;
            };
            let statuses = container_statuses(pod_value);
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
            let gone = ["not found", "manifest unknown", "does not exist", "NotFound"];
            let is_stuck = if has(&["ImagePullBackOff", "ErrImagePull"]) {
                let no_such = gone.iter().any(|word| why.contains(word));
                lasts(&uid, "pull", if no_such { Duration::ZERO } else { tolerance.pull })
            } else if has(&["InvalidImageName", "ErrImageNeverPull"]) {
                true
            } else if has(&["CrashLoopBackOff"]) {
                restarts >= tolerance.restarts
            } else if has(&[
                "CreateContainerConfigError",
                "CreateContainerError",
                "RunContainerError",
            ]) {
                lasts(&uid, "creation", tolerance.creation)
            } else if text(pod_value, "/status/phase") == "Failed" {
                // Its controller makes another; evictions and preemptions are no fault of the release.
                false
            } else {
                lasts(&uid, "unschedulable", tolerance.unschedulable)
            };
            if is_stuck {
                return Some(Stuck {
                    outcome: Outcome::Failed,
                    message: why,
                    pod: Some(pod_value.clone()),
                });
            }
        }
        None
    }

    /// The error of a rollout that is given up, with all that can be known of its reason.
    async fn give_up(&self, one: &Awaited, stuck: Stuck, awaited: &[Awaited], followed: &Followed) -> ApplyError {
        if stuck.pod.is_none() && one.kind.kind == "Deployment" {
            self.replica_sets(followed).settled(SETTLING).await;
        }
        let at_fault = stuck.pod.or_else(|| {
            let pods = self.current_pods(one, followed);
            pods.iter().find(|value| pod(value) != Readiness::Done).cloned()
        });
        let mut message = stuck.message;
        let mut log = Vec::new();
        let mut lacking: BTreeSet<&str> = BTreeSet::new();
        if let Some(why) = followed.pods.denied() {
            tracing::debug!(why, "pods cannot be looked at");
            lacking.insert("list `pods`");
        }
        if let Some(pod_value) = &at_fault {
            let name = text(pod_value, "/metadata/name");
            if let Readiness::Failed(why) = pod(pod_value)
                && !message.contains(&why)
            {
                message = format!("{message}; pod `{name}`: {why}");
            }
            match self.last_lines(pod_value).await {
                Ok(lines) => log = lines,
                Err(true) => drop(lacking.insert("get `pods/log`")),
                Err(false) => {}
            }
        }
        let mut about = vec![one.object.name.clone()];
        about.extend(at_fault.as_ref().map(|pod| text(pod, "/metadata/name")));
        match self.events(&about).await {
            Ok(events) => {
                for event in events {
                    message = format!("{message}\n  event: {event}");
                }
            }
            Err(true) => drop(lacking.insert("list `events`")),
            Err(false) => {}
        }
        if !lacking.is_empty() {
            let lacking: Vec<&str> = lacking.into_iter().collect();
            message = format!("{message}\n  (permission to {} would tell more)", lacking.join(" and "));
        }
        ApplyError {
            outcome: stuck.outcome,
            object: Some(one.object.id()),
            message: self.mask.text(&message),
            log,
            running: awaited.iter().filter_map(|one| status_of(one, followed)).collect(),
        }
    }

    /// The last lines of the container of a pod that is at fault. `Err(true)` when they may not be read.
    async fn last_lines(&self, pod: &Value) -> Result<Vec<String>, bool> {
        let statuses = container_statuses(pod);
        let faulty = statuses
            .iter()
            .find(|status| status.get("ready").and_then(Value::as_bool) != Some(true))
            .or(statuses.first());
        let Some(status) = faulty else { return Err(false) };
        let container = text(status, "/name");
        let path = Kind::known("v1", "Pod", "pods").object(&self.environment.namespace, &text(pod, "/metadata/name"));
        let crashed = status.pointer("/lastState/terminated").is_some() && status.pointer("/state/running").is_none();
        let path = format!(
            "{path}/log?container={}&tailLines={LAST_LINES}&previous={crashed}",
            escape(&container)
        );
        let stream = self.api.open(&path).await.map_err(|error| error.is_forbidden())?;
        let mut text = Vec::new();
        let mut stream = stream;
        while let Some(Ok(piece)) = futures::StreamExt::next(&mut stream).await {
            text.extend_from_slice(&piece);
        }
        let text = self.mask.text(&String::from_utf8_lossy(&text));
        Ok(text.lines().map(str::to_string).collect())
    }

    /// What the cluster's warnings say of objects of these names. `Err(true)` when they may not be read.
    async fn events(&self, names: &[String]) -> Result<Vec<String>, bool> {
        let events = Kind::known("v1", "Event", "events").collection(&self.environment.namespace);
        let mut found = Vec::new();
        for name in names {
            let selector = escape(&format!("involvedObject.name={name},type=Warning"));
            let path = format!("{events}?fieldSelector={selector}&limit=50");
            let answer = self.api.get(&path).await.map_err(|error| error.is_forbidden())?;
            let items = answer
                .get("items")
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default();
            let mut items: Vec<(String, String)> = items
                .iter()
                .map(|event| {
                    let at = text(event, "/lastTimestamp");
                    let about = format!(
                        "{}/{}",
                        text(event, "/involvedObject/kind"),
                        text(event, "/involvedObject/name")
                    );
                    (
                        at,
                        format!("{about}: {} ({})", text(event, "/message"), text(event, "/reason")),
                    )
                })
                .collect();
            items.sort();
            found.extend(items.into_iter().rev().take(3).map(|(_, text)| text));
        }
        found.dedup();
        Ok(found)
    }
}

fn say(progress: &mpsc::UnboundedSender<Progress>, object: &ObjectId, message: &str) {
    // Nobody listening is fine.
    let _ = progress.send(Progress {
        object: Some(object.clone()),
        message: message.to_string(),
    });
}

pub(super) fn text(value: &Value, pointer: &str) -> String {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_string()
}

fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array)?;
    conditions.iter().find(|condition| text(condition, "/type") == kind)
}

/// The statuses of a pod's containers, init containers first.
pub(super) fn container_statuses(pod: &Value) -> Vec<&Value> {
    ["initContainerStatuses", "containerStatuses"]
        .iter()
        .filter_map(|list| pod.get("status")?.get(list)?.as_array())
        .flatten()
        .collect()
}

/// Whether a pod was made of `template`: what the template says of its annotations and containers, the pod says, too.
/// Admission may have added to it.
fn is_made_of(pod: &Value, template: &Value) -> bool {
    let annotations = template.pointer("/metadata/annotations").and_then(Value::as_object);
    let has_annotation = |(key, value): (&String, &Value)| {
        let of_pod = pod
            .pointer("/metadata/annotations")
            .and_then(|annotations| annotations.get(key));
        of_pod == Some(value)
    };
    if !annotations.into_iter().flatten().all(has_annotation) {
        return false;
    }
    ["initContainers", "containers"].iter().all(|list| {
        let of = |value: &Value, at: &str| {
            value
                .pointer(&format!("{at}/{list}"))
                .and_then(Value::as_array)
                .cloned()
        };
        let in_pod = of(pod, "/spec").unwrap_or_default();
        of(template, "/spec").unwrap_or_default().iter().all(|wanted| {
            let found = in_pod
                .iter()
                .find(|container| container.get("name") == wanted.get("name"));
            found.is_some_and(|found| {
                [
                    "image",
                    "command",
                    "args",
                    "env",
                    "envFrom",
                    "resources",
                    "ports",
                    "readinessProbe",
                    "livenessProbe",
                ]
                .iter()
                .all(|field| found.get(field) == wanted.get(field))
            })
        })
    })
}

fn status_of(one: &Awaited, followed: &Followed) -> Option<WorkloadStatus> {
    let live = followed.workloads.get(&one.kind)?.get(&one.object.name)?;
    Some(workload_status(&one.kind.kind, &live, &[]))
}

/// How a workload is doing, from its object and its pods.
pub(super) fn workload_status(kind: &str, live: &Value, pods: &[Value]) -> WorkloadStatus {
    let number = |pointer: &str| live.pointer(pointer).and_then(Value::as_i64);
    let small = |number: Option<i64>| number.and_then(|number| u32::try_from(number).ok()).unwrap_or(0);
    let mut whole = live.clone();
    whole["kind"] = Value::from(kind);
    let (ready, desired) = match kind {
        "DaemonSet" => ("/status/numberReady", number("/status/desiredNumberScheduled")),
        "Job" => ("/status/succeeded", number("/spec/completions").or(Some(1))),
        // It wants no pods of its own.
        "CronJob" | "Service" | "Ingress" => ("/status/readyReplicas", Some(0)),
        "Pod" => ("", Some(1)),
        _ => ("/status/readyReplicas", number("/spec/replicas").or(Some(1))),
    };
    let failing = pods.iter().find_map(|value| match pod(value) {
        Readiness::Failed(why) => Some(why),
        _ => None,
    });
    let message = failing.unwrap_or_else(|| match readiness(&whole) {
        Readiness::Done => String::new(),
        Readiness::Waiting(sentence) | Readiness::Failed(sentence) => sentence,
    });
    let template = towpath_manifest::pod_template_pointer(kind).unwrap_or_default();
    let image = live
        .pointer(&format!("{template}/spec/containers/0/image"))
        .and_then(Value::as_str);
    let restarts = pods
        .iter()
        .flat_map(|pod| container_statuses(pod))
        .filter_map(|status| {
            let count = status.get("restartCount")?.as_i64()?;
            u32::try_from(count).ok()
        });
    WorkloadStatus {
        kind: kind.to_string(),
        name: text(live, "/metadata/name"),
        image: image.map(str::to_string),
        ready: match kind {
            "Pod" => u32::from(condition(live, "Ready").is_some_and(|ready| text(ready, "/status") == "True")),
            _ => small(number(ready)),
        },
        desired: small(desired),
        since: text(live, "/metadata/creationTimestamp").parse().ok(),
        restarts: restarts.sum(),
        message,
        addresses: Vec::new(),
    }
}
