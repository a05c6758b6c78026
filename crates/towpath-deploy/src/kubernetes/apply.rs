//! Carries a request out: check, lock, record, apply, wait, prune, record.

use super::{
    error::ClusterError,
    inventory::InventoryEntry,
    labels::{Marks, says_created},
    lock::{self, Held, NotTaken},
    memory::CheckedPlan,
    options::KubernetesOptions,
    preflight::{CheckedObject, Checker, Report, redacted, refusals, replicas_path},
    prune::{Leaving, why_kind_stays, why_object_stays},
    record::{self, Begun, State},
    rollout::{Awaited, Waiter},
    secrets::mask_of,
};
use crate::hooks::{HookRunner, When};
use crate::target::{ApplyError, ApplyRequest, Environment, Finding, Occasion, Progress, ReleaseRecord, Target};
use futures::future::join_all;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use towpath_kube::{ApiError, Client, Discovery, Lookup, Mode, Resource, condition, managed_fields, text_at};
use towpath_manifest::{Kind, Object, ObjectId, Readiness, Wave, is_applied_hook};
use towpath_types::{Outcome, RecordedState, with_causes};

/// How long to wait until the cluster serves a kind that was just defined.
const ESTABLISHED: Duration = Duration::from_secs(30);
/// How long servers may still use the old version of a changed definition.
const CHANGED: Duration = Duration::from_secs(5);
/// How often to check for either.
const CHECK: Duration = Duration::from_millis(100);

/// Carries out requests for one cluster.
pub(super) struct Applier<'a> {
    pub client: &'a Arc<Client>,
    pub discovery: &'a Discovery,
    pub options: &'a KubernetesOptions,
    /// Runs the hooks.
    pub target: &'a dyn Target,
    /// The key for fingerprints, if the environment has none yet.
    pub key: &'a [u8],
    pub progress: &'a mpsc::UnboundedSender<Progress>,
}

pub(super) fn failure(outcome: Outcome, object: Option<ObjectId>, message: impl Into<String>) -> ApplyError {
    ApplyError {
        outcome,
        object,
        hook: None,
        message: message.into(),
        log: Vec::new(),
        running: Vec::new(),
    }
}

fn errored(error: impl Into<ClusterError>) -> ApplyError {
    failure(Outcome::Errored, None, with_causes(&error.into()))
}

impl Applier<'_> {
    /// Carries `request` out. `plan` is the check for its plan, if that was made just now.
    pub(super) async fn apply(&self, request: &ApplyRequest, plan: Option<CheckedPlan>) -> Result<(), ApplyError> {
        let deadline = Instant::now() + request.deadline;
        let environment = &request.environment;
        if let Some(refused) = refuse_jobs(&request.objects) {
            return Err(refused);
        }
        let mut has_created_namespace = false;
        if let Some(namespace) = self.missing_namespace(request).await? {
            // A refused request changes nothing, so check first.
            self.check(request, &State::default()).await?;
            self.create_namespace(namespace).await?;
            has_created_namespace = true;
        }
        let after_namespace = |error: ApplyError| match has_created_namespace {
            true => ApplyError {
                // `Rejected` promises that nothing has changed. Some refusals are known only when the namespace exists.
                outcome: match error.outcome {
                    Outcome::Rejected => Outcome::Failed,
                    outcome => outcome,
                },
                message: format!(
                    "{}\nThe namespace `{}` was created, and nothing else",
                    error.message, environment.namespace
                ),
                ..error
            },
            false => error,
        };
        // First check without the lock: a refused request does not even take the lock.
        let (stored, report) = match plan {
            Some(plan) => (plan.stored, plan.report),
            None => {
                let stored = record::load(self.client, environment).await;
                let stored = stored.map_err(|error| after_namespace(errored(error)))?;
                let report = self.check(request, &stored.state).await.map_err(after_namespace)?;
                (stored, report)
            }
        };
        let version = stored.version.clone();
        let record = &request.record;
        let held = lock::take(
            lock::Request {
                client: self.client,
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
                stored,
            },
            self.progress,
        )
        .await
        .map_err(|error| match error {
            NotTaken::Busy(who) if has_created_namespace => after_namespace(failure(Outcome::Rejected, None, who)),
            NotTaken::Busy(who) => failure(Outcome::Rejected, None, format!("{who}. Nothing was changed")),
            NotTaken::Failed(error) => after_namespace(errored(error)),
        })?;
        let mut request = request.clone();
        // If somebody else deployed while this waited for the lock, check again.
        let report = Some(report).filter(|_| held.directly_follows(version.as_deref()));
        match self.apply_locked(&mut request, report, &held, deadline).await {
            Ok(inventory) => self.finish(&request, held, inventory).await,
            Err(error) => {
                self.record_failure(&request, &error).await;
                if let Err(why) = held.release(|_| {}).await {
                    tracing::warn!(why, "failed to release the lock of the environment: it will expire");
                }
                Err(error)
            }
        }
    }

    async fn check(&self, request: &ApplyRequest, state: &State) -> Result<Report, ApplyError> {
        let checker = Checker {
            client: self.client,
            discovery: self.discovery,
            environment: &request.environment,
            credentials: self.options.credentials.as_ref(),
            state,
            prune: &request.prune,
        };
        let report = checker.check(&request.objects).await.map_err(errored)?;
        let refusals: Vec<String> = report.refused().map(ToString::to_string).collect();
        if refusals.is_empty() {
            return Ok(report);
        }
        Err(failure(Outcome::Rejected, None, refusals.join("\n")))
    }

    /// The environment's own namespace, if the request contains it and it does not exist. The records need it, too.
    async fn missing_namespace<'r>(&self, request: &'r ApplyRequest) -> Result<Option<&'r Object>, ApplyError> {
        let is_own = |object: &&Object| object.kind == "Namespace" && object.name == request.environment.namespace;
        let Some(object) = request.objects.iter().find(is_own) else {
            return Ok(None);
        };
        let path = Resource::of(&Kind::NAMESPACE).object("", &object.name);
        let existing = self.client.find(&path).await.map_err(errored)?;
        Ok(Some(object).filter(|_| existing.is_none()))
    }

    async fn create_namespace(&self, object: &Object) -> Result<(), ApplyError> {
        let resource = Resource::of(&Kind::NAMESPACE);
        self.client
            .apply(&resource, "", &object.value, Mode::Apply)
            .await
            .map_err(errored)?;
        self.tell(&object.id(), "created");
        Ok(())
    }

    /// Everything that happens under the lock. Returns the inventory afterwards.
    async fn apply_locked(
        &self,
        request: &mut ApplyRequest,
        report: Option<Report>,
        held: &Held,
        deadline: Instant,
    ) -> Result<Vec<InventoryEntry>, ApplyError> {
        let state = held.state().await;
        // A hold does not keep a failed release from being rolled back.
        if let Some(hold) = state.hold.as_ref().filter(|_| request.occasion != Occasion::Back)
            && hold.keeps_out(&request.record.by, Timestamp::now())
        {
            let message = format!("{} is {hold}", request.environment);
            return Err(failure(Outcome::Rejected, None, message));
        }
        let report = match report {
            Some(report) => report,
            None => self.check(request, &state).await?,
        };
        if request.occasion == Occasion::Release {
            self.record_start(request).await?;
        }
        let request = &*request;
        let hooks = HookRunner::new(self.target, request, deadline, self.progress);
        self.apply_with_hooks(request, &report, state, held, &hooks, deadline)
            .await
    }

    /// Applies what was checked, with the hooks before and after it. Returns the inventory afterwards.
    async fn apply_with_hooks(
        &self,
        request: &ApplyRequest,
        report: &Report,
        state: State,
        held: &Held,
        hooks: &HookRunner<'_>,
        deadline: Instant,
    ) -> Result<Vec<InventoryEntry>, ApplyError> {
        let lost = |why: String| failure(Outcome::Errored, None, why);
        let is_early = |checked: &&CheckedObject| !request.hooks.before.is_empty() && is_applied_hook(&checked.object);
        let (early, rest): (Vec<&CheckedObject>, Vec<&CheckedObject>) = report.objects.iter().partition(is_early);
        // Record what will be created before it exists, so that nothing is ever forgotten.
        let inventory = inventory_before(&state, report);
        let runs_hooks = !request.hooks.before.is_empty() || !request.hooks.after.is_empty();
        let changes_anything =
            runs_hooks || !request.prune.is_empty() || report.objects.iter().any(|checked| checked.applies);
        if changes_anything || inventory != state.objects {
            held.update(|state| {
                if request.occasion != Occasion::Beside {
                    state.current = None;
                    state.attempted = Some(request.record.id);
                }
                state.objects.clone_from(&inventory);
            })
            .await
            .map_err(lost)?;
        }
        let created = inventory
            .iter()
            .filter(|entry| entry.made)
            .map(|entry| entry.id.clone());
        let marks = Marks::of(request, created.collect());
        let mut applied: BTreeMap<ObjectId, Value> = BTreeMap::new();
        for wave in waves(&early) {
            self.apply_wave(&request.environment, &wave, &marks, &mut applied)
                .await?;
        }
        hooks.run(When::Before).await?;
        for wave in waves(&rest) {
            held.check().map_err(lost)?;
            self.apply_wave(&request.environment, &wave, &marks, &mut applied)
                .await?;
            self.wait_for_definitions(&wave, deadline).await?;
            if wave
                .iter()
                .any(|checked| checked.object.kind == "CustomResourceDefinition")
            {
                self.try_defined(&request.environment, report).await?;
            }
        }
        self.wait_for_rollouts(request, report, &applied, deadline).await?;
        hooks.run(When::After).await?;
        held.check().map_err(lost)?;
        let state = State {
            objects: inventory,
            ..state
        };
        let kept = self.prune(request, &state, deadline).await?;
        Ok(inventory_after(request, &state, report, &applied, &kept))
    }

    /// Records the start of the release, under the next free number.
    async fn record_start(&self, request: &mut ApplyRequest) -> Result<(), ApplyError> {
        let ApplyRequest {
            environment,
            record,
            objects,
            ..
        } = request;
        let environment = &*environment;
        record.state = RecordedState::Running;
        loop {
            let begun = record::begin(self.client, environment, record).await;
            let other = match begun.map_err(errored)? {
                Begun::Recorded => return Ok(()),
                Begun::NumberTaken(other) => *other,
            };
            match other {
                // We hold the lock, so the process of a release that still counts as running has died.
                Some(dead) if dead.state == RecordedState::Running => {
                    let ended = ReleaseRecord {
                        state: RecordedState::Ended(Outcome::Errored),
                        stopped_at: Some(Timestamp::now()),
                        message: Some(record::DIED.into()),
                        ..dead
                    };
                    record::end(self.client, environment, &ended).await.map_err(errored)?;
                    record.number += 1;
                }
                // The other release left everything as it was, or as this one wants it.
                Some(other) if self.changed_nothing(environment, &other, objects).await? => record.number += 1,
                _ => {
                    let message = format!(
                        "{environment} has changed since this plan was made: there is already a release {}. Make a new plan",
                        record.number
                    );
                    return Err(failure(Outcome::Rejected, None, message));
                }
            }
        }
    }

    /// Whether the release `other`, which has ended, left the objects that ran before it, or those that are wanted now.
    async fn changed_nothing(
        &self,
        environment: &Environment,
        other: &ReleaseRecord,
        wanted: &[Object],
    ) -> Result<bool, ApplyError> {
        if !other.has_succeeded() {
            return Ok(true);
        }
        let wanted: Vec<&Value> = wanted.iter().map(|object| &object.value).collect();
        let left = record::objects_of(other);
        if left.is_some() && left.as_ref() == Some(&wanted) {
            return Ok(true);
        }
        let records = record::read(self.client, environment).await.map_err(errored)?;
        let before = records
            .releases
            .iter()
            .find(|release| release.number < other.number && release.has_succeeded());
        Ok(left.is_some() && left == before.and_then(record::objects_of))
    }

    /// Applies the changed objects of a wave at the same time.
    async fn apply_wave(
        &self,
        environment: &Environment,
        wave: &[&CheckedObject],
        marks: &Marks,
        applied: &mut BTreeMap<ObjectId, Value>,
    ) -> Result<(), ApplyError> {
        let changing = wave.iter().filter(|checked| checked.applies);
        let answers = changing.map(|checked| async { (*checked, self.apply_one(environment, checked, marks).await) });
        for (checked, answer) in join_all(answers).await {
            let id = checked.object.id();
            match answer {
                Ok(value) => {
                    self.tell(&id, if checked.live.is_some() { "changed" } else { "created" });
                    applied.insert(id, value);
                }
                Err(error) => {
                    let Some(refused) = refusals_in(&error, &checked.object) else {
                        let message = redacted(&checked.object, "", &with_causes(&error));
                        return Err(failure(Outcome::Errored, Some(id), message));
                    };
                    let lines: Vec<String> = refused
                        .iter()
                        .map(|one| format!("{}: {}", one.place, one.message))
                        .collect();
                    return Err(failure(Outcome::Failed, Some(id), lines.join("\n")));
                }
            }
        }
        Ok(())
    }

    async fn apply_one(
        &self,
        environment: &Environment,
        checked: &CheckedObject,
        marks: &Marks,
    ) -> Result<Value, ClusterError> {
        let namespace = &environment.namespace;
        let resource = match checked.resource.is_unserved() {
            true => self.newly_served(checked).await?,
            false => checked.resource.clone(),
        };
        self.hand_over(&resource.object(namespace, &checked.object.name), checked)
            .await?;
        let object = marks.put_on(&checked.object, checked.live.as_ref());
        let answer = self.client.apply(&resource, namespace, &object, Mode::Apply).await?;
        Ok(answer.value)
    }

    /// Makes Towpath the owner of the fields that `kubectl apply` owns, and of none that an autoscaler takes over.
    async fn hand_over(&self, path: &str, checked: &CheckedObject) -> Result<(), ApiError> {
        let given_up = checked.hands_over_replicas.then(replicas_path);
        let mut live = checked.live.clone();
        while let Some(object) = &live {
            let Some(managed) = managed_fields::handed_over(object, given_up.as_ref()) else {
                break;
            };
            let patch = json!([
                {"op": "replace", "path": "/metadata/managedFields", "value": managed},
                {"op": "replace", "path": "/metadata/resourceVersion", "value": object.pointer("/metadata/resourceVersion")},
            ]);
            match self.client.patch(path, &patch).await {
                Ok(_) => break,
                // Somebody has written in the meantime: start again with the new object.
                Err(error) if error.is_conflict() => live = self.client.find(path).await?,
                Err(error) if error.is_missing() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The resource of an object whose definition was just applied. Servers announce it a little later.
    async fn newly_served(&self, checked: &CheckedObject) -> Result<Resource, ClusterError> {
        let (api_version, kind) = (&checked.object.api_version, &checked.object.kind);
        let deadline = Instant::now() + ESTABLISHED;
        loop {
            match self.discovery.find(self.client, api_version, kind).await? {
                Lookup::Served(resource) => return Ok(resource),
                _ if Instant::now() >= deadline => {
                    return Err(ClusterError::NotServed {
                        api_version: api_version.clone(),
                        kind: kind.clone(),
                    });
                }
                _ => sleep(CHECK).await,
            }
        }
    }

    async fn wait_for_definitions(&self, wave: &[&CheckedObject], deadline: Instant) -> Result<(), ApplyError> {
        let deadline = deadline.min(Instant::now() + ESTABLISHED);
        let definitions = wave
            .iter()
            .filter(|checked| checked.object.kind == "CustomResourceDefinition" && checked.applies);
        for definition in definitions {
            let path = definition.resource.object("", &definition.object.name);
            loop {
                let live = self.client.get(&path).await.map_err(errored)?;
                let is_established =
                    condition(&live, "Established").is_some_and(|condition| text_at(condition, "/status") == "True");
                if is_established {
                    break;
                }
                if Instant::now() >= deadline {
                    let message = "the server does not serve the kind that it defines";
                    return Err(failure(Outcome::TimedOut, Some(definition.object.id()), message));
                }
                sleep(CHECK).await;
            }
        }
        Ok(())
    }

    /// Tries the objects that the server could not check before their definitions were applied. Nothing else has changed yet.
    async fn try_defined(&self, environment: &Environment, report: &Report) -> Result<(), ApplyError> {
        let late = report.objects.iter().filter(|checked| checked.waits_for_definition);
        let answers = late.map(|checked| async move { (checked, self.try_one(environment, checked).await) });
        let mut refused = Vec::new();
        for (checked, answer) in join_all(answers).await {
            match answer {
                Ok(()) => {}
                Err(error) => {
                    let Some(found) = refusals_in(&error, &checked.object) else {
                        let message = redacted(&checked.object, "", &with_causes(&error));
                        return Err(failure(Outcome::Errored, Some(checked.object.id()), message));
                    };
                    refused.extend(found.iter().map(ToString::to_string));
                }
            }
        }
        if refused.is_empty() {
            return Ok(());
        }
        let message = format!(
            "{}\nDefinitions and namespaces were applied, and nothing else was changed",
            refused.join("\n")
        );
        Err(failure(Outcome::Failed, None, message))
    }

    async fn try_one(&self, environment: &Environment, checked: &CheckedObject) -> Result<(), ClusterError> {
        let resource = match checked.resource.is_unserved() {
            true => self.newly_served(checked).await?,
            false => checked.resource.clone(),
        };
        let deadline = Instant::now() + CHANGED;
        loop {
            let answer = self
                .client
                .apply(&resource, &environment.namespace, &checked.object.value, Mode::DryRun)
                .await;
            match answer {
                Ok(_) => return Ok(()),
                // Servers take a moment to use a changed definition.
                Err(error) if refusals(&checked.object, &error).is_some() && Instant::now() < deadline => {
                    sleep(CHECK).await
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits for all workloads, except those that were not changed and run already.
    async fn wait_for_rollouts(
        &self,
        request: &ApplyRequest,
        report: &Report,
        applied: &BTreeMap<ObjectId, Value>,
        deadline: Instant,
    ) -> Result<(), ApplyError> {
        let runs_already = |checked: &CheckedObject| {
            let kind = Kind::of(&checked.object.kind);
            let is_done = |live: &Value| kind.readiness(live) == Readiness::Done;
            !checked.applies && checked.live.as_ref().is_some_and(is_done)
        };
        let awaited = report
            .objects
            .iter()
            .filter(|checked| Kind::of(&checked.object.kind).rolls_out && !runs_already(checked))
            .map(|checked| {
                let now = applied.get(&checked.object.id()).or(checked.live.as_ref());
                let generation = now.and_then(|now| now.pointer("/metadata/generation")?.as_i64());
                Awaited {
                    object: checked.object.clone(),
                    resource: checked.resource.clone(),
                    generation: generation.unwrap_or(0),
                }
            });
        let awaited: Vec<Awaited> = awaited.collect();
        if awaited.is_empty() {
            return Ok(());
        }
        let environment = &request.environment;
        let waiter = Waiter {
            client: Arc::clone(self.client),
            environment: environment.clone(),
            tolerance: self.options.tolerance.with_unschedulable(request.unschedulable),
            mask: mask_of(self.client, environment, &request.objects).await,
        };
        waiter.wait(&awaited, deadline, self.progress).await
    }

    /// Removes the objects that left the manifests, in the reverse order of application. Returns those that a later deployment
    /// has to remove.
    async fn prune(
        &self,
        request: &ApplyRequest,
        state: &State,
        deadline: Instant,
    ) -> Result<HashSet<ObjectId>, ApplyError> {
        let mut leaving = Leaving::new(self.client, &request.environment);
        let mut kept = HashSet::new();
        for id in request.prune.iter().rev() {
            let Some(entry) = state.objects.iter().find(|entry| entry.id == *id) else {
                continue;
            };
            let failed = |error: ApiError| {
                let message = format!("cannot remove it: {error}");
                failure(Outcome::Errored, Some(id.clone()), message)
            };
            let lookup = self
                .discovery
                .find(self.client, &entry.api_version, &id.kind)
                .await
                .map_err(failed)?;
            let Lookup::Served(resource) = lookup else { continue };
            if let Some(why) = why_kind_stays(&resource) {
                self.tell(id, why);
                continue;
            }
            let path = resource.object(&request.environment.namespace, &id.name);
            let Some(live) = self.client.find(&path).await.map_err(failed)? else {
                continue;
            };
            if let Some(why) = why_object_stays(&request.environment, entry, &live) {
                self.tell(id, why);
                continue;
            }
            if let Some(pod) = leaving.reader_of(id).await {
                // Its containers would not start again.
                self.tell(
                    id,
                    &format!(
                        "left the manifests and stays while the pod `{pod}` reads it: a later deployment removes it"
                    ),
                );
                kept.insert(id.clone());
                continue;
            }
            leaving.add(id, &live).await;
            match self.client.delete(&path, Some(&text_at(&live, "/metadata/uid"))).await {
                // By now, it is another object.
                Err(error) if error.is_conflict() => {}
                other => other.map_err(failed)?,
            }
            let finalizers = live.pointer("/metadata/finalizers").and_then(Value::as_array);
            let finalizers: Vec<&str> = finalizers.into_iter().flatten().filter_map(Value::as_str).collect();
            let message = match finalizers[..] {
                [] => "removed".to_string(),
                // Finalizers may take long, or forever. Do not wait for them.
                _ => format!(
                    "deleted; it is gone when its finalizers ({}) have finished",
                    finalizers.join(", ")
                ),
            };
            self.tell(id, &message);
        }
        // They may still handle requests.
        leaving.wait(deadline, |id, message| self.tell(id, message)).await;
        Ok(kept)
    }

    /// Records that the release runs, and releases the lock.
    async fn finish(
        &self,
        request: &ApplyRequest,
        held: Held,
        inventory: Vec<InventoryEntry>,
    ) -> Result<(), ApplyError> {
        let (environment, record) = (&request.environment, &request.record);
        if request.occasion == Occasion::Release {
            let ended = ReleaseRecord {
                state: RecordedState::Ended(Outcome::Succeeded),
                stopped_at: Some(Timestamp::now()),
                ..record.clone()
            };
            // Everything runs, so this is no reason to roll back. The state, which is written next, has the success, too.
            if let Err(error) = record::end(self.client, environment, &ended).await {
                let message = format!(
                    "failed to record that release {} succeeded: {}",
                    record.number,
                    with_causes(&error)
                );
                let _ = self.progress.send(Progress { object: None, message });
            }
        }
        let released = held.release(|state| {
            state.objects = inventory;
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
            && let Err(error) = record::trim(self.client, environment, record).await
        {
            tracing::warn!(error = with_causes(&error), "failed to delete the oldest releases");
        }
        Ok(())
    }

    /// Records that the release failed. Only logs its own errors, because the caller already has one to report.
    async fn record_failure(&self, request: &ApplyRequest, error: &ApplyError) {
        let record = &request.record;
        if error.outcome == Outcome::Rejected || request.occasion != Occasion::Release {
            return;
        }
        let ended = ReleaseRecord {
            state: RecordedState::Ended(error.outcome),
            stopped_at: Some(Timestamp::now()),
            message: Some(error.to_string()),
            ..record.clone()
        };
        if let Err(error) = record::end(self.client, &request.environment, &ended).await {
            tracing::warn!(error = with_causes(&error), "failed to record the end of a release");
        }
    }

    fn tell(&self, object: &ObjectId, message: &str) {
        // It is fine if nobody listens.
        let _ = self.progress.send(Progress {
            object: Some(object.clone()),
            message: message.to_string(),
        });
    }
}

/// The server's refusal of an object, if the error is one.
fn refusals_in(error: &ClusterError, object: &Object) -> Option<Vec<Finding>> {
    match error {
        ClusterError::Api(error) => refusals(object, error),
        _ => None,
    }
}

/// The refusal of Jobs among `objects`.
fn refuse_jobs(objects: &[Object]) -> Option<ApplyError> {
    let jobs = objects.iter().filter(|object| object.kind == "Job");
    let why = "a Job is run by its name and not applied with the rest";
    let lines: Vec<String> = jobs.map(|job| format!("{}: {}: {why}", job.place, job.id())).collect();
    (!lines.is_empty()).then(|| failure(Outcome::Rejected, None, lines.join("\n")))
}

/// The objects by wave, in the order of application.
fn waves<'a>(objects: &[&'a CheckedObject]) -> Vec<Vec<&'a CheckedObject>> {
    let mut waves: BTreeMap<Wave, Vec<&CheckedObject>> = BTreeMap::new();
    for checked in objects {
        let wave = Kind::of(&checked.object.kind).wave;
        waves.entry(wave).or_default().push(checked);
    }
    waves.into_values().collect()
}

/// The inventory to record before anything is applied: with everything that may be created, and without the digests of what may
/// be changed.
fn inventory_before(state: &State, report: &Report) -> Vec<InventoryEntry> {
    let mut inventory = state.objects.clone();
    let positions: HashMap<ObjectId, usize> = state.objects.iter().map(|entry| entry.id.clone()).zip(0..).collect();
    for checked in report.objects.iter().filter(|checked| !checked.brought) {
        let id = checked.object.id();
        if let Some(entry) = positions.get(&id).and_then(|at| inventory.get_mut(*at)) {
            if checked.applies {
                // If this deployment dies, the next one must not take the object for unchanged.
                entry.manifest.clear();
            }
            entry.made = match &checked.live {
                None => true,
                // If Towpath owns none of its fields, somebody else has created it anew.
                Some(live) => entry.made && managed_fields::ours(live).is_some(),
            };
        } else {
            inventory.push(InventoryEntry {
                id,
                api_version: checked.object.api_version.clone(),
                uid: String::new(),
                manifest: String::new(),
                owned: String::new(),
                made: checked.live.as_ref().is_none_or(says_created),
            });
        }
    }
    inventory
}

/// The inventory after everything was applied and pruned.
fn inventory_after(
    request: &ApplyRequest,
    state: &State,
    report: &Report,
    applied: &BTreeMap<ObjectId, Value>,
    kept: &HashSet<ObjectId>,
) -> Vec<InventoryEntry> {
    let before: HashMap<&ObjectId, &InventoryEntry> = state.objects.iter().map(|entry| (&entry.id, entry)).collect();
    let mut now: Vec<InventoryEntry> = Vec::new();
    for checked in report.objects.iter().filter(|checked| !checked.brought) {
        let id = checked.object.id();
        let made = before.get(&id).is_some_and(|entry| entry.made);
        let live = applied.get(&id).or(checked.live.as_ref());
        now.extend(live.map(|live| InventoryEntry::of(&checked.object, live, made)));
    }
    let mut replaced: HashSet<&ObjectId> = request.prune.iter().filter(|id| !kept.contains(id)).collect();
    replaced.extend(now.iter().map(|entry| &entry.id));
    let others = state.objects.iter().filter(|entry| !replaced.contains(&entry.id));
    others.cloned().chain(now.iter().cloned()).collect()
}
