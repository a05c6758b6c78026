//! Carrying a request out: lock, look, record, apply, wait, prune, record.

use super::{
    api::{Api, ApiError, Mode},
    examine::{CHANGE_CAUSE, Examination, Examined, Examiner, kept, redacted},
    fields,
    kinds::{Kind, Kinds, Lookup},
    lock::{self, Held, NotHeld},
    record::{self, Begun, Kept, State},
    rollout::{Awaited, Waiter, progress_of, rolls_out},
    target::{KubernetesOptions, Seen, mask_of},
};
use crate::target::{ApplyError, ApplyRequest, Environment, Occasion, Progress, ReleaseRecord};
use futures::future::join_all;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::mpsc, time::Instant};
use towpath_manifest::{Object, ObjectId, Readiness};
use towpath_types::Outcome;

/// How long is waited for a CustomResourceDefinition to be served.
const ESTABLISHED: Duration = Duration::from_secs(30);

/// What carrying out needs.
pub(super) struct Carrier<'a> {
    pub api: &'a Arc<Api>,
    pub kinds: &'a Kinds,
    pub options: &'a KubernetesOptions,
    pub key: &'a [u8],
    pub progress: &'a mpsc::UnboundedSender<Progress>,
}

pub(super) fn failure(outcome: Outcome, object: Option<ObjectId>, message: impl Into<String>) -> ApplyError {
    ApplyError {
        outcome,
        object,
        message: message.into(),
        log: Vec::new(),
        running: Vec::new(),
    }
}

fn errored(error: &ApiError) -> ApplyError {
    failure(Outcome::Errored, None, error.to_string())
}

impl Carrier<'_> {
    /// Carries `request` out; `seen` is what was found out for its plan just now.
    pub(super) async fn carry_out(&self, request: &ApplyRequest, seen: Option<Seen>) -> Result<(), ApplyError> {
        let deadline = Instant::now() + request.deadline;
        let environment = &request.environment;
        if let Some(refused) = jobs_among(&request.objects) {
            return Err(refused);
        }
        let mut made_namespace = false;
        if let Some(namespace) = self.missing_namespace(request).await? {
            // What is refused changes nothing, not even that there is a namespace.
            self.examine(request, &State::default()).await?;
            self.make_namespace(namespace).await?;
            made_namespace = true;
        }
        let made = |error: ApplyError| match made_namespace {
            true => ApplyError {
                // What only a namespace that is there can refuse is refused too late for nothing to have changed.
                outcome: match error.outcome {
                    Outcome::Rejected => Outcome::Failed,
                    outcome => outcome,
                },
                message: format!(
                    "{}\nThe namespace `{}` was made, and nothing else",
                    error.message, environment.namespace
                ),
                ..error
            },
            false => error,
        };
        // A look without the lock first: what is refused changes nothing, not even the lock.
        let (loaded, examination) = match seen {
            Some(seen) => (seen.loaded, seen.examination),
            None => {
                let loaded = record::load(self.api, environment).await;
                let loaded = loaded.map_err(|error| made(errored(&error)))?;
                let examination = self.examine(request, &loaded.state).await.map_err(made)?;
                (loaded, examination)
            }
        };
        let version = loaded.version.clone();
        let record = &request.record;
        let held = lock::take(
            lock::Request {
                api: self.api,
                environment,
                by: record.by.clone(),
                what: match request.occasion {
                    Occasion::Release => format!("release {}: {}", record.number, record.cause),
                    Occasion::Back => format!("going back to release {}", record.number),
                    Occasion::Beside => record.cause.clone(),
                },
                release: record.id,
                key: self.key,
                expiry: self.options.lock_expiry,
                deadline: deadline.min(Instant::now() + self.options.lock_wait),
                loaded,
            },
            self.progress,
        )
        .await
        .map_err(|error| match error {
            NotHeld::Busy(who) if made_namespace => made(failure(Outcome::Rejected, None, who)),
            NotHeld::Busy(who) => failure(Outcome::Rejected, None, format!("{who}. Nothing was changed")),
            NotHeld::Failed(error) => made(errored(&error)),
        })?;
        let mut request = request.clone();
        // Whoever deployed while this waited for its turn has changed what was seen.
        let examination = Some(examination).filter(|_| held.is_next_after(version.as_deref()));
        match self.under_lock(&mut request, examination, &held, deadline).await {
            Ok(state) => self.finish(&request, held, state).await,
            Err(error) => {
                self.record_failure(&request, &error).await;
                if let Err(why) = held.release(|_| {}).await {
                    tracing::warn!(why, "the environment's lock is left to expire");
                }
                Err(error)
            }
        }
    }

    async fn examine(&self, request: &ApplyRequest, state: &State) -> Result<Examination, ApplyError> {
        let examiner = Examiner {
            api: self.api,
            kinds: self.kinds,
            environment: &request.environment,
            secrets: self.options.secrets.as_ref(),
            state,
            gone: &request.prune,
        };
        let examination = examiner
            .examine(&request.objects)
            .await
            .map_err(|error| errored(&error))?;
        let lines: Vec<String> = examination.refused().map(ToString::to_string).collect();
        if lines.is_empty() {
            return Ok(examination);
        }
        Err(failure(Outcome::Rejected, None, lines.join("\n")))
    }

    /// The environment's own namespace, when its manifests bring it and it is not there: everything else is kept in it.
    async fn missing_namespace<'r>(&self, request: &'r ApplyRequest) -> Result<Option<&'r Object>, ApplyError> {
        let is_own = |object: &&Object| object.kind == "Namespace" && object.name == request.environment.namespace;
        let Some(object) = request.objects.iter().find(is_own) else {
            return Ok(None);
        };
        let path = Kind::known("v1", "Namespace", "namespaces").object("", &object.name);
        let there = self.api.find(&path).await.map_err(|error| errored(&error))?;
        Ok(Some(object).filter(|_| there.is_none()))
    }

    async fn make_namespace(&self, object: &Object) -> Result<(), ApplyError> {
        let kind = Kind::known("v1", "Namespace", "namespaces");
        self.api
            .apply(&kind, "", &object.value, Mode::Real)
            .await
            .map_err(|error| errored(&error))?;
        self.say(&object.id(), "created");
        Ok(())
    }

    async fn under_lock(
        &self,
        request: &mut ApplyRequest,
        examination: Option<Examination>,
        held: &Held,
        deadline: Instant,
    ) -> Result<Vec<Kept>, ApplyError> {
        let lost = |why: String| failure(Outcome::Errored, None, why);
        let state = held.state().await;
        // What failed is not left half done because somebody locked the door meanwhile.
        if let Some(hold) = state.hold.as_ref().filter(|_| request.occasion != Occasion::Back)
            && hold.keeps_out(&request.record.by, Timestamp::now())
        {
            let message = format!("{} is {hold}", request.environment);
            return Err(failure(Outcome::Rejected, None, message));
        }
        let examination = match examination {
            Some(examination) => examination,
            None => self.examine(request, &state).await?,
        };
        if request.occasion == Occasion::Release {
            self.begin(&request.environment, &mut request.record).await?;
        }
        let request = &*request;
        let environment = &request.environment;
        // What is about to be made is known before it is there, so that nothing is ever forgotten.
        let mut known = state.objects.clone();
        let at: HashMap<ObjectId, usize> = state.objects.iter().map(|kept| kept.id.clone()).zip(0..).collect();
        for one in examination.objects.iter().filter(|one| !one.from_vault) {
            let id = one.object.id();
            if let Some(kept) = at.get(&id).and_then(|at| known.get_mut(*at)) {
                if one.applies {
                    // From here on it is not certain to be as it was applied: whoever finds it looks.
                    kept.manifest.clear();
                }
                kept.made = is_made(kept.made, one.live.as_ref());
            } else {
                known.push(Kept {
                    id,
                    api_version: one.object.api_version.clone(),
                    uid: String::new(),
                    manifest: String::new(),
                    owned: String::new(),
                    made: one.live.as_ref().is_none_or(says_made),
                });
            }
        }
        let is_touched = !request.prune.is_empty() || examination.objects.iter().any(|one| one.applies);
        if is_touched || known != state.objects {
            held.update(|state| {
                if request.occasion != Occasion::Beside {
                    state.current = None;
                    state.attempted = Some(request.record.id);
                }
                state.objects.clone_from(&known);
            })
            .await
            .map_err(lost)?;
        }
        let mut stamps = Stamps::of(request);
        stamps.made = known
            .iter()
            .filter(|kept| kept.made)
            .map(|kept| kept.id.clone())
            .collect();
        let mut applied: BTreeMap<ObjectId, Value> = BTreeMap::new();
        for wave in waves(&examination.objects) {
            held.check().map_err(lost)?;
            let changing = wave.iter().filter(|one| one.applies);
            let answers =
                join_all(changing.map(|one| async { (*one, self.apply_one(environment, one, &stamps).await) })).await;
            for (one, answer) in answers {
                let id = one.object.id();
                match answer {
                    Ok(value) => {
                        self.say(&id, if one.live.is_some() { "changed" } else { "created" });
                        applied.insert(id, value);
                    }
                    Err(error) => {
                        let outcome = if error.code().is_some_and(|code| code < 500) {
                            Outcome::Failed
                        } else {
                            Outcome::Errored
                        };
                        return Err(failure(
                            outcome,
                            Some(id),
                            redacted(&one.object, "", &error.to_string()),
                        ));
                    }
                }
            }
            self.wait_for_definitions(&wave, deadline).await?;
        }
        // What was not touched and runs as it is to is not waited for.
        let is_done = |one: &&Examined| {
            let done = |live: &Value| progress_of(&one.object.kind, live) == Readiness::Done;
            !one.applies && one.live.as_ref().is_some_and(done)
        };
        let awaited = examination
            .objects
            .iter()
            .filter(|one| rolls_out(&one.object.kind) && !is_done(one))
            .map(|one| {
                let now = applied.get(&one.object.id()).or(one.live.as_ref());
                Awaited {
                    object: one.object.clone(),
                    kind: one.kind.clone(),
                    generation: now
                        .and_then(|now| now.pointer("/metadata/generation")?.as_i64())
                        .unwrap_or(0),
                }
            });
        let awaited: Vec<Awaited> = awaited.collect();
        if !awaited.is_empty() {
            let waiter = Waiter {
                api: Arc::clone(self.api),
                environment: environment.clone(),
                tolerance: self.options.tolerance.with_unschedulable(request.unschedulable),
                mask: mask_of(self.api, environment, &request.objects, self.options.secrets.as_ref()).await,
            };
            waiter.wait(&awaited, deadline, self.progress).await?;
        }
        held.check().map_err(lost)?;
        let state = State {
            objects: known,
            ..state
        };
        self.prune(request, &state).await?;
        Ok(inventory(request, &state, &examination, &applied))
    }

    /// Writes the release down, under the next number that nobody has: one that was begun and never ended was begun by
    /// somebody who died, for we hold the lock.
    async fn begin(&self, environment: &Environment, record: &mut ReleaseRecord) -> Result<(), ApplyError> {
        record.state = "running".into();
        loop {
            let begun = record::begin(self.api, environment, record).await;
            let there = match begun.map_err(|error| errored(&error))? {
                Begun::Written => return Ok(()),
                Begun::Taken(there) => *there,
            };
            match there {
                Some(dead) if dead.state == "running" => {
                    let ended = ReleaseRecord {
                        state: Outcome::Errored.as_str().into(),
                        stopped_at: Some(Timestamp::now()),
                        message: Some(record::DIED.into()),
                        ..dead
                    };
                    record::end(self.api, environment, &ended)
                        .await
                        .map_err(|error| errored(&error))?;
                    record.number += 1;
                }
                _ => {
                    let message = format!(
                        "{environment} changed since this plan was made: there is a release {} already. Look at a new plan",
                        record.number
                    );
                    return Err(failure(Outcome::Rejected, None, message));
                }
            }
        }
    }

    async fn apply_one(&self, environment: &Environment, one: &Examined, stamps: &Stamps) -> Result<Value, ApiError> {
        let namespace = &environment.namespace;
        let kind = match one.kind.is_unserved() {
            true => self.newly_served(one).await?,
            false => one.kind.clone(),
        };
        let path = kind.object(namespace, &one.object.name);
        let mut live = one.live.clone();
        while let Some(there) = &live {
            let Some(managed) = fields::taken_over(there) else {
                break;
            };
            let patch = json!([
                {"op": "replace", "path": "/metadata/managedFields", "value": managed},
                {"op": "replace", "path": "/metadata/resourceVersion", "value": there.pointer("/metadata/resourceVersion")},
            ]);
            match self.api.patch(&path, &patch).await {
                Ok(_) => break,
                // Somebody wrote meanwhile: with what is there now.
                Err(error) if error.is_conflict() => live = self.api.find(&path).await?,
                Err(error) if error.is_missing() => break,
                Err(error) => return Err(error),
            }
        }
        let object = stamps.on(&one.object, one.live.as_ref());
        let answer = self.api.apply(&kind, namespace, &object, Mode::Real).await?;
        Ok(answer.value)
    }

    /// The kind of an object whose definition was applied just now: servers tell of it a little later.
    async fn newly_served(&self, one: &Examined) -> Result<Kind, ApiError> {
        let deadline = Instant::now() + ESTABLISHED;
        loop {
            let found = self
                .kinds
                .find(self.api, &one.object.api_version, &one.object.kind)
                .await?;
            match found {
                Lookup::Served(kind) => return Ok(kind),
                _ if Instant::now() >= deadline => {
                    return Err(ApiError::Malformed {
                        server: "the cluster".into(),
                        why: format!(
                            "it does not serve `{}` in `{}`, which was defined",
                            one.object.kind, one.object.api_version
                        ),
                    });
                }
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    async fn wait_for_definitions(&self, wave: &[&Examined], deadline: Instant) -> Result<(), ApplyError> {
        let deadline = deadline.min(Instant::now() + ESTABLISHED);
        for one in wave
            .iter()
            .filter(|one| one.object.kind == "CustomResourceDefinition" && one.applies)
        {
            loop {
                let path = one.kind.object("", &one.object.name);
                let live = self.api.get(&path).await.map_err(|error| errored(&error))?;
                let conditions = live.pointer("/status/conditions").and_then(Value::as_array);
                let established = conditions.into_iter().flatten().any(|condition| {
                    condition.get("type") == Some(&json!("Established"))
                        && condition.get("status") == Some(&json!("True"))
                });
                if established {
                    break;
                }
                if Instant::now() >= deadline {
                    let message = "the server does not serve the kind that it defines";
                    return Err(failure(Outcome::TimedOut, Some(one.object.id()), message));
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }

    /// Removes what is to go, if it is ours: the very object that was applied, still labelled as this environment's.
    async fn prune(&self, request: &ApplyRequest, state: &State) -> Result<(), ApplyError> {
        for id in request.prune.iter().rev() {
            let Some(known) = state.objects.iter().find(|kept| kept.id == *id) else {
                continue;
            };
            let failed = |error: ApiError| {
                failure(
                    Outcome::Errored,
                    Some(id.clone()),
                    format!("it cannot be removed: {error}"),
                )
            };
            let lookup = self
                .kinds
                .find(self.api, &known.api_version, &id.kind)
                .await
                .map_err(failed)?;
            let Lookup::Served(kind) = lookup else { continue };
            if let Some(why) = stays_by_kind(&kind) {
                self.say(id, why);
                continue;
            }
            let path = kind.object(&request.environment.namespace, &id.name);
            let Some(live) = self.api.find(&path).await.map_err(failed)? else {
                continue;
            };
            let uid = live
                .pointer("/metadata/uid")
                .and_then(Value::as_str)
                .unwrap_or_default();
            if let Some(why) = why_it_stays(&request.environment, known, &live) {
                self.say(id, why);
                continue;
            }
            match self.api.delete(&path, Some(uid)).await {
                // Another object by now.
                Err(error) if error.is_conflict() => {}
                other => other.map_err(failed)?,
            }
            // Whoever put a finalizer on it has something to clear away first, which may take long or for ever.
            let finalizers = live.pointer("/metadata/finalizers").and_then(Value::as_array);
            let finalizers: Vec<&str> = finalizers.into_iter().flatten().filter_map(Value::as_str).collect();
            match finalizers[..] {
                [] => self.say(id, "removed"),
                _ => self.say(
                    id,
                    &format!(
                        "deleted; it goes when its finalizers ({}) have done their work",
                        finalizers.join(", ")
                    ),
                ),
            }
        }
        Ok(())
    }

    /// Writes down that the release runs.
    async fn finish(&self, request: &ApplyRequest, held: Held, objects: Vec<Kept>) -> Result<(), ApplyError> {
        let (environment, record) = (&request.environment, &request.record);
        if request.occasion == Occasion::Release {
            let ended = ReleaseRecord {
                state: Outcome::Succeeded.as_str().into(),
                stopped_at: Some(Timestamp::now()),
                ..record.clone()
            };
            // All of it runs: that is no reason to go back. The state, which comes next, says that it succeeded, too.
            if let Err(error) = record::end(self.api, environment, &ended).await {
                let message = format!(
                    "that release {} succeeded could not be written down: {error}",
                    record.number
                );
                let _ = self.progress.send(Progress { object: None, message });
            }
        }
        let released = held.release(|state| {
            state.objects = objects;
            if request.occasion != Occasion::Beside {
                state.current = Some(record.id);
                state.attempted = Some(record.id);
            }
            if request.occasion == Occasion::Release {
                state.succeeded = Some(record.id);
                state.succeeded_number = record.number;
            }
        });
        released.await.map_err(|why| failure(Outcome::Errored, None, why))?;
        if request.occasion == Occasion::Release
            && let Err(error) = record::trim(self.api, environment, record).await
        {
            tracing::warn!(error = %error, "the oldest releases are not forgotten");
        }
        Ok(())
    }

    /// Writes down that the release failed; what goes wrong in that is only logged, for there is an error to tell.
    async fn record_failure(&self, request: &ApplyRequest, error: &ApplyError) {
        let record = &request.record;
        if error.outcome == Outcome::Rejected || request.occasion != Occasion::Release {
            return;
        }
        let ended = ReleaseRecord {
            state: error.outcome.as_str().into(),
            stopped_at: Some(Timestamp::now()),
            message: Some(error.to_string()),
            ..record.clone()
        };
        if let Err(error) = record::end(self.api, &request.environment, &ended).await {
            tracing::warn!(error = %error, "the end of a release is not recorded");
        }
    }

    fn say(&self, object: &ObjectId, message: &str) {
        // Nobody listening is fine.
        let _ = self.progress.send(Progress {
            object: Some(object.clone()),
            message: message.to_string(),
        });
    }
}

/// Why Jobs among `objects` are refused.
fn jobs_among(objects: &[Object]) -> Option<ApplyError> {
    let jobs = objects.iter().filter(|object| object.kind == "Job");
    let why = "a Job is run by its name and not applied with the rest";
    let lines: Vec<String> = jobs.map(|job| format!("{}: {}: {why}", job.place, job.id())).collect();
    (!lines.is_empty()).then(|| failure(Outcome::Rejected, None, lines.join("\n")))
}

/// The objects in the order of need: those of one wave need none of each other.
fn waves(objects: &[Examined]) -> Vec<Vec<&Examined>> {
    let rank = |kind: &str| match kind {
        "Namespace" | "CustomResourceDefinition" => 0,
        "ServiceAccount"
        | "ClusterRole"
        | "Role"
        | "ConfigMap"
        | "Secret"
        | "PersistentVolume"
        | "StorageClass"
        | "PersistentVolumeClaim"
        | "ResourceQuota"
        | "LimitRange"
        | "NetworkPolicy"
        | "PriorityClass" => 1,
        "RoleBinding" | "ClusterRoleBinding" | "Service" | "PodDisruptionBudget" => 2,
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "Pod" | "CronJob" => 3,
        _ => 4,
    };
    let mut waves: BTreeMap<u8, Vec<&Examined>> = BTreeMap::new();
    for one in objects {
        waves.entry(rank(&one.object.kind)).or_default().push(one);
    }
    waves.into_values().collect()
}

/// What is known of the objects once they are applied.
fn inventory(
    request: &ApplyRequest,
    state: &State,
    examination: &Examination,
    applied: &BTreeMap<ObjectId, Value>,
) -> Vec<Kept> {
    let before: HashMap<&ObjectId, &Kept> = state.objects.iter().map(|kept| (&kept.id, kept)).collect();
    let mut now: Vec<Kept> = Vec::new();
    for one in examination.objects.iter().filter(|one| !one.from_vault) {
        let id = one.object.id();
        let made = before.get(&id).is_some_and(|kept| kept.made);
        let live = applied.get(&id).or(one.live.as_ref());
        now.extend(live.map(|live| kept(&one.object, live, made)));
    }
    let mut gone: HashSet<&ObjectId> = request.prune.iter().collect();
    gone.extend(now.iter().map(|kept| &kept.id));
    let others = state.objects.iter().filter(|kept| !gone.contains(&kept.id));
    others.cloned().chain(now.iter().cloned()).collect()
}

/// What tells which release wrote an object.
struct Stamps {
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    /// Whether the release that an object is of stays the one that it says.
    keeps_release: bool,
    /// What Towpath has made, and so may remove: that is said by the objects, too, for the record of it may be lost.
    made: BTreeSet<ObjectId>,
}

/// The annotation of an object that Towpath has made.
const MADE: &str = "towpath.dev/made";

/// Whether an object itself says that Towpath has made it.
fn says_made(live: &Value) -> bool {
    let annotations = live.pointer("/metadata/annotations");
    fields::ours(live).is_some() && annotations.is_some_and(|annotations| annotations.get(MADE).is_some())
}

/// The label with the number of the release that wrote an object last.
const RELEASE: &str = "towpath.dev/release";

impl Stamps {
    fn of(request: &ApplyRequest) -> Self {
        let mut labels = record::labels(&request.environment);
        let record = &request.record;
        if let Some(commit) = &record.commit {
            labels.insert("towpath.dev/commit".into(), commit.as_str().chars().take(63).collect());
        }
        let cause = match request.occasion {
            Occasion::Beside => format!("{} by {} ({})", record.image, record.by, record.cause),
            Occasion::Release | Occasion::Back => {
                labels.insert(RELEASE.into(), record.number.to_string());
                format!(
                    "release {}: {} by {} ({})",
                    record.number, record.image, record.by, record.cause
                )
            }
        };
        let annotations = BTreeMap::from([
            ("towpath.dev/image".to_string(), record.image.clone()),
            ("towpath.dev/by".to_string(), record.by.clone()),
            ("towpath.dev/cause".to_string(), record.cause.clone()),
            (CHANGE_CAUSE.to_string(), cause),
        ]);
        Self {
            labels,
            annotations,
            keeps_release: request.occasion == Occasion::Beside,
            made: BTreeSet::new(),
        }
    }

    fn on(&self, object: &Object, live: Option<&Value>) -> Value {
        let is_made = self.made.contains(&object.id());
        let mut object = object.value.clone();
        for (field, stamps) in [("labels", &self.labels), ("annotations", &self.annotations)] {
            if !object["metadata"][field].is_object() {
                object["metadata"][field] = json!({});
            }
            for (key, value) in stamps {
                object["metadata"][field][key] = Value::from(value.as_str());
            }
        }
        if is_made {
            object["metadata"]["annotations"][MADE] = Value::from("true");
        }
        let release = live.and_then(|live| live.pointer("/metadata/labels")?.get(RELEASE));
        if let Some(release) = release.filter(|_| self.keeps_release) {
            object["metadata"]["labels"][RELEASE] = release.clone();
        }
        object
    }
}

/// Whether an object that is applied again counts as made by us, by what was known and what is there.
fn is_made(made: bool, live: Option<&Value>) -> bool {
    match live {
        None => true,
        // Somebody made it before we came to it.
        Some(live) => made && fields::ours(live).is_some(),
    }
}

/// Why objects of a kind that left the manifests stay, whatever became of them: nobody need be allowed to look at them.
pub(super) fn stays_by_kind(kind: &Kind) -> Option<&'static str> {
    if matches!(
        kind.kind.as_str(),
        "PersistentVolumeClaim" | "Namespace" | "CustomResourceDefinition"
    ) {
        return Some("left the manifests, and stays: deleting it would delete data. Delete it by hand");
    }
    (!kind.namespaced)
        .then_some("left the manifests, and stays: other environments of the cluster may need it. Delete it by hand")
}

/// Why an object that left the manifests stays; `None` when it is to be removed: the very object that we made, still
/// labelled as this environment's.
pub(super) fn why_it_stays(environment: &Environment, kept: &Kept, live: &Value) -> Option<&'static str> {
    if !kept.made {
        return Some("left the manifests, and stays: Towpath did not make it. Delete it by hand");
    }
    let uid = live.pointer("/metadata/uid").and_then(Value::as_str);
    let of_live = live.pointer("/metadata/labels");
    let labelled = record::labels(environment)
        .iter()
        .all(|(label, value)| of_live.and_then(|labels| labels.get(label)) == Some(&json!(value)));
    let same = kept.uid.is_empty() || Some(kept.uid.as_str()) == uid;
    (!labelled || !same || fields::ours(live).is_none())
        .then_some("left the manifests, and stays: somebody else made it anew")
}
