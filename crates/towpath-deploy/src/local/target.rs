//! The contract of a target, kept by the controllers of each environment.

use super::{
    context::Context,
    controller::{self, Controller},
    cron::{Clock, SystemClock},
    engine::Engine,
    frontend::{INGRESS, serves, service_key},
    image::scratch_image,
    job::{self, LineCutter, pod_name},
    model::{self, Resource},
    names::{Names, revision},
    store::{CronRecord, Document, Rollout, RolloutState, Store, revision_key},
};
use crate::target::{
    Applied, ApplyError, ApplyRequest, CronFailure, CronJobStatus, Drift, Environment, EnvironmentId, Finding, Hold,
    JobHandle, Occasion, Preflight, Progress, ReleaseRecord, SecretSource, Severity, Target, TargetError, Volumes,
    WorkloadStatus,
};
use bytes::Bytes;
use futures::{StreamExt, future::BoxFuture, stream::BoxStream};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;
use towpath_manifest::{Existing, Fingerprints, Object, ObjectId, SourceKind, missing, reads};
use towpath_types::{Digest, ImageReference, Outcome};

/// The first pause before a crashed container is started again; it doubles.
///
/// Source: <https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#restart-policy>
const BACKOFF: Duration = Duration::from_secs(10);
/// How soon an application looks again while nothing is said to have changed.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// The program's name in the proxies' image.
const PROGRAM: &str = "towpath";

/// What a local target is opened with.
pub struct LocalOptions {
    /// Where it keeps what is applied, and the proxies' routes.
    pub directory: PathBuf,
    /// The data directory's name, on everything that is made in the engine.
    pub instance: String,
    /// This program's file: a static binary that is the proxy when it is called with `proxy --routes DIR`.
    pub binary: PathBuf,
    /// Where Secrets' values and pull credentials come from.
    pub secrets: Arc<dyn SecretSource>,
    /// What schedules and Jobs' deadlines go by.
    pub clock: Arc<dyn Clock>,
    /// The first pause before a crashed container or a failed Job is started again; it doubles.
    pub backoff: Duration,
}

impl LocalOptions {
    /// With this machine's clock, and the pauses that Kubernetes makes.
    #[must_use]
    pub fn new(directory: PathBuf, instance: String, binary: PathBuf, secrets: Arc<dyn SecretSource>) -> Self {
        Self {
            directory,
            instance,
            binary,
            secrets,
            clock: Arc::new(SystemClock),
            backoff: BACKOFF,
        }
    }
}

/// The environments of one machine's container engine.
pub struct LocalTarget {
    directory: PathBuf,
    instance: String,
    memory: PathBuf,
    proxy_image: String,
    engine: Engine,
    secrets: Arc<dyn SecretSource>,
    clock: Arc<dyn Clock>,
    backoff: Duration,
    controllers: Mutex<BTreeMap<EnvironmentId, Arc<Controller>>>,
    /// Held while an environment is made, so that two callers do not make two.
    making: tokio::sync::Mutex<()>,
    stop: CancellationToken,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LocalTarget {
    /// Takes over every environment in `options.directory`, with what runs of it.
    ///
    /// # Errors
    /// When the engine does not answer, or a document cannot be read.
    pub async fn open(options: LocalOptions) -> Result<Self, TargetError> {
        let engine = Engine::connect().await?;
        let proxy_image = load_proxy_image(&engine, &options.binary).await?;
        let target = Self {
            memory: PathBuf::from(format!("/dev/shm/towpath-{}", options.instance)),
            directory: options.directory,
            instance: options.instance,
            proxy_image,
            engine,
            secrets: options.secrets,
            clock: options.clock,
            backoff: options.backoff,
            controllers: Mutex::default(),
            making: tokio::sync::Mutex::new(()),
            stop: CancellationToken::new(),
        };
        let failed = || format!("read `{}`", target.directory.display());
        std::fs::create_dir_all(&target.directory).map_err(TargetError::failed(failed()))?;
        for entry in std::fs::read_dir(&target.directory).map_err(TargetError::failed(failed()))? {
            let entry = entry.map_err(TargetError::failed(failed()))?;
            let slug = entry.file_name().to_string_lossy().into_owned();
            let Some(id) = EnvironmentId::from_slug(&slug) else {
                continue;
            };
            if let Some(store) = Store::open(&entry.path())? {
                target.take_over(id, store).await?;
            }
        }
        Ok(target)
    }

    async fn take_over(&self, id: EnvironmentId, store: Store) -> Result<Arc<Controller>, TargetError> {
        let context = Context {
            engine: self.engine.clone(),
            names: Names::new(&self.instance, &id),
            id: id.clone(),
            store,
            secrets: Arc::clone(&self.secrets),
            clock: Arc::clone(&self.clock),
            memory: self.memory.clone(),
            proxy_image: self.proxy_image.clone(),
            proxy_command: vec!["proxy".into(), "--routes".into()],
            backoff: self.backoff,
            opening: tokio::sync::Mutex::new(()),
            wake: tokio::sync::Notify::new(),
            changed: tokio::sync::watch::Sender::new(0),
            hindered: std::sync::Mutex::default(),
        };
        let controller = Controller::start(context, self.stop.child_token()).await?;
        lock(&self.controllers).insert(id, Arc::clone(&controller));
        Ok(controller)
    }

    fn known(&self, id: &EnvironmentId) -> Option<Arc<Controller>> {
        lock(&self.controllers).get(id).cloned()
    }

    async fn controller(&self, id: &EnvironmentId) -> Result<Arc<Controller>, TargetError> {
        let _turn = self.making.lock().await;
        if let Some(known) = self.known(id) {
            return Ok(known);
        }
        let store = Store::create(&self.directory.join(id.slug()), id.clone())?;
        self.take_over(id.clone(), store).await
    }

    fn existing(&self, id: &EnvironmentId) -> Result<Arc<Controller>, TargetError> {
        self.known(id)
            .ok_or_else(|| TargetError::NotFound(format!("nothing was ever applied to {id}")))
    }

    async fn findings(&self, id: &EnvironmentId, objects: &[Object]) -> Result<Vec<Finding>, TargetError> {
        let mut findings: Vec<Finding> = objects.iter().flat_map(|object| model::parse(object).1).collect();
        findings.extend(self.missing_sources(id, objects).await?);
        findings.extend(self.missing_backends(id, objects));
        findings.extend(self.missing_images(id, objects).await?);
        findings.sort();
        findings.dedup();
        Ok(findings)
    }

    /// Secrets, ConfigMaps and claims that pods need and nobody made.
    async fn missing_sources(&self, id: &EnvironmentId, objects: &[Object]) -> Result<Vec<Finding>, TargetError> {
        let applied = self.known(id).map(|controller| controller.context.store.read());
        let mut existing = Existing::default();
        if let Some(document) = &applied {
            existing = existing.with(&document.objects);
        }
        let wanted: BTreeSet<String> = objects
            .iter()
            .flat_map(reads)
            .filter(|read| read.kind == SourceKind::Secret)
            .map(|read| read.name)
            .collect();
        for secret in wanted {
            let keys = self.secrets.keys(id, &secret).await;
            let keys = keys.map_err(|source| TargetError::Failed {
                attempted: format!("look for the Secret `{secret}`"),
                source,
            })?;
            if let Some(keys) = keys {
                existing.secrets.insert(secret, keys);
            }
        }
        let remedy = |finding: &towpath_manifest::Finding| match finding.read.kind {
            SourceKind::Secret => {
                let key = finding.read.key.as_deref().unwrap_or("KEY");
                format!(
                    "; set it with `towpath secrets set {} {} {key}`",
                    id.environment(),
                    finding.read.name
                )
            }
            SourceKind::ConfigMap | SourceKind::PersistentVolumeClaim => {
                // A Job brings nothing of its environment with it.
                let is_lone = objects.iter().all(|object| object.kind == "Job");
                match is_lone {
                    true => format!(
                        "; it comes with the environment's manifests: `towpath deploy {}` first",
                        id.environment()
                    ),
                    false => "; add it to the environment's manifests".into(),
                }
            }
        };
        let findings = missing(objects, &existing);
        Ok(findings
            .into_iter()
            .map(|finding| {
                let place = finding.read.place.clone();
                let text = finding.to_string();
                // The sentence ends with its place, which a finding shows in front.
                let sentence = text.strip_suffix(&format!(": {place}")).unwrap_or(&text);
                Finding {
                    severity: Severity::Refused,
                    object: finding.read.object.clone(),
                    field: String::new(),
                    message: format!("{sentence}{}", remedy(&finding)),
                    place,
                }
            })
            .collect())
    }

    /// Rules of Ingresses that lead to no Service, or to a port that it does not have.
    fn missing_backends(&self, id: &EnvironmentId, objects: &[Object]) -> Vec<Finding> {
        let mut all: Vec<Object> = self
            .known(id)
            .map(|c| c.context.store.read().objects.clone())
            .unwrap_or_default();
        all.extend(objects.iter().cloned());
        let parsed = controller::Parsed::of(&all);
        let mut findings = Vec::new();
        for object in objects.iter().filter(|object| object.kind == "Ingress") {
            let Some(Resource::Ingress(ingress)) = model::parse(object).0 else {
                continue;
            };
            for rule in &ingress.rules {
                let message = match parsed.services.get(&rule.service) {
                    None => format!("it leads to the Service `{}`, which is not there", rule.service),
                    Some(service) if !has_port(service, &rule.port) => {
                        format!("it leads to a port that the Service `{}` does not have", rule.service)
                    }
                    Some(_) => continue,
                };
                findings.push(Finding {
                    severity: Severity::Refused,
                    object: object.id(),
                    field: "spec.rules".into(),
                    place: object.place_of("/spec/rules"),
                    message,
                });
            }
        }
        findings
    }

    /// Images that neither the engine nor their registry has.
    async fn missing_images(&self, id: &EnvironmentId, objects: &[Object]) -> Result<Vec<Finding>, TargetError> {
        let mut known: BTreeMap<String, Option<String>> = BTreeMap::new();
        let mut findings = Vec::new();
        for object in objects {
            for container in towpath_manifest::containers(object) {
                let missing = match known.get(&container.image) {
                    Some(missing) => missing.clone(),
                    None => {
                        let missing = self.missing_image(id, &container.image).await;
                        known.insert(container.image.clone(), missing.clone());
                        missing
                    }
                };
                if let Some(message) = missing {
                    let pointer = format!("{}/image", container.pointer);
                    findings.push(Finding {
                        severity: Severity::Refused,
                        object: object.id(),
                        field: model::field_path(&pointer),
                        place: object.place_of(&pointer),
                        message,
                    });
                }
            }
        }
        Ok(findings)
    }

    async fn missing_image(&self, id: &EnvironmentId, text: &str) -> Option<String> {
        use super::engine::StartError;
        let image: ImageReference = text.parse().ok()?;
        if matches!(self.engine.has_image(text).await, Ok(true)) {
            return None;
        }
        let registry = image.registry.clone().unwrap_or_default();
        let credentials = self.secrets.pull_credentials(id, &registry).await.ok().flatten();
        match self.engine.registry_has(&image, credentials.as_ref()).await {
            Err(StartError::Terminal(message)) => Some(message),
            // A registry that does not answer now may when the pods start.
            Ok(()) | Err(StartError::Passing(_)) => None,
        }
    }

    async fn carry_out(
        &self,
        request: ApplyRequest,
        progress: mpsc::UnboundedSender<Progress>,
    ) -> Result<(), ApplyError> {
        let errored = |error: TargetError| failure(Outcome::Errored, None, error.chain());
        let refused: Vec<Finding> = self
            .findings(&request.environment.id, &request.objects)
            .await
            .map_err(errored)?
            .into_iter()
            .filter(|finding| finding.severity == Severity::Refused)
            .collect();
        let mut lines: Vec<String> = refused.iter().map(ToString::to_string).collect();
        let jobs = request.objects.iter().filter(|object| object.kind == "Job");
        lines.extend(jobs.map(|job| {
            let place = &job.place;
            format!(
                "{place}: {}: a Job is run by its name and not applied with the rest",
                job.id()
            )
        }));
        if !lines.is_empty() {
            return Err(failure(Outcome::Rejected, None, lines.join("\n")));
        }
        let controller = self.controller(&request.environment.id).await.map_err(errored)?;
        let Ok(_turn) = controller.applying.try_lock() else {
            let message = format!("another application to {} is under way", request.environment);
            return Err(failure(Outcome::Rejected, None, message));
        };
        let context = &controller.context;
        let now = self.clock.now();
        let said = context
            .store
            .update(|document| write_down(document, &request, now))
            .await
            .map_err(errored)?;
        for progress_line in said {
            // Nobody listening is fine.
            let _ = progress.send(progress_line);
        }
        context.notify();
        let deadline = Instant::now() + request.deadline;
        wait_for_rollouts(&controller, &request, deadline, &progress).await?;
        context
            .store
            .update(|document| prune(document, &request.prune))
            .await
            .map_err(errored)?;
        context.notify();
        wait_for_the_pruned(&controller, &request, deadline).await?;
        if request.occasion != Occasion::Beside {
            let finished = |document: &mut Document| document.release = Some(request.record.id);
            context.store.update(finished).await.map_err(errored)?;
        }
        Ok(())
    }
}

impl Drop for LocalTarget {
    fn drop(&mut self) {
        // The loops end; what runs in the engine goes on.
        self.stop.cancel();
    }
}

fn failure(outcome: Outcome, object: Option<ObjectId>, message: String) -> ApplyError {
    ApplyError {
        outcome,
        object,
        message,
        log: Vec::new(),
        running: Vec::new(),
    }
}

/// The image that proxies run: this program alone. It is loaded once for each build of it.
async fn load_proxy_image(engine: &Engine, binary: &std::path::Path) -> Result<String, TargetError> {
    let attempted = || format!("read `{}` for the proxies' image", binary.display());
    let path = binary.to_path_buf();
    let bytes = tokio::task::spawn_blocking(move || std::fs::read(path)).await;
    let bytes = bytes
        .map_err(TargetError::failed(attempted()))?
        .map_err(TargetError::failed(attempted()))?;
    let name = format!("towpath/proxy:{}", Digest::of(&bytes).short());
    let there = engine
        .has_image(&name)
        .await
        .map_err(TargetError::failed("look for the proxies' image"))?;
    if !there {
        let archive = scratch_image(&name, PROGRAM, &bytes).map_err(TargetError::failed("make the proxies' image"))?;
        engine.load_image(archive).await?;
    }
    Ok(name)
}

/// Puts the request into the document: the moment from which the controllers work on it.
fn write_down(document: &mut Document, request: &ApplyRequest, now: jiff::Timestamp) -> Vec<Progress> {
    document.namespace.clone_from(&request.environment.namespace);
    if request.occasion != Occasion::Beside {
        document.release = None;
        document.attempted = Some(request.record.id);
    }
    let mut said = Vec::new();
    let mut say = |object: &Object, message: &str| {
        said.push(Progress {
            object: Some(object.id()),
            message: message.into(),
        })
    };
    let mut objects = request.objects.clone();
    towpath_manifest::sort_for_apply(&mut objects);
    for object in objects {
        let before = document.object(&object.id()).map(|known| known.value.clone());
        let same = before.as_ref() == Some(&object.value);
        match (&before, same) {
            (None, _) => say(&object, "created"),
            (Some(_), false) => say(&object, "changed"),
            (Some(_), true) => {}
        }
        match object.kind.as_str() {
            "Deployment" => begin_rollout(document, &object, same, now),
            "CronJob" => {
                let schedule = |value: &serde_json::Value| {
                    (
                        value.pointer("/spec/schedule").cloned(),
                        value.pointer("/spec/timeZone").cloned(),
                    )
                };
                let moved = before
                    .as_ref()
                    .is_some_and(|before| schedule(before) != schedule(&object.value));
                let fresh = CronRecord {
                    last: now,
                    message: String::new(),
                };
                let record = document
                    .crons
                    .entry(object.name.clone())
                    .or_insert_with(|| fresh.clone());
                // Runs that the old schedule missed are not made up for by the new one.
                if moved {
                    *record = fresh;
                }
            }
            _ => {}
        }
        document.upsert(object);
    }
    said
}

fn begin_rollout(document: &mut Document, object: &Object, same: bool, now: jiff::Timestamp) {
    let Some(template) = object.value.pointer("/spec/template") else {
        return;
    };
    let revision = revision(template);
    document
        .revisions
        .insert(revision_key(&object.name, &revision), template.clone());
    let (generation, done) = match document.rollouts.get(&object.name) {
        Some(rollout) => {
            let is_current = rollout.revision == revision && rollout.state == RolloutState::Complete;
            (rollout.generation + 1, same && is_current)
        }
        None => (1, false),
    };
    if done {
        return;
    }
    let rollout = Rollout {
        revision,
        generation,
        began: now,
        state: RolloutState::Progressing,
    };
    document.rollouts.insert(object.name.clone(), rollout);
}

fn prune(document: &mut Document, gone: &[ObjectId]) {
    for id in gone {
        document.objects.retain(|object| object.id() != *id);
        match id.kind.as_str() {
            "Deployment" => drop(document.rollouts.remove(&id.name)),
            "CronJob" => drop(document.crons.remove(&id.name)),
            _ => {}
        }
    }
}

/// Waits until every Deployment of the request is rolled out and every proxy runs.
async fn wait_for_rollouts(
    controller: &Arc<Controller>,
    request: &ApplyRequest,
    deadline: Instant,
    progress: &mpsc::UnboundedSender<Progress>,
) -> Result<(), ApplyError> {
    let mut changed = controller.context.changed.subscribe();
    let mut told: BTreeMap<ObjectId, String> = BTreeMap::new();
    loop {
        changed.mark_unchanged();
        let (document, parsed) = controller.parsed();
        let mut waiting: Option<(ObjectId, String)> = None;
        for object in &request.objects {
            let state = match object.kind.as_str() {
                "Deployment" => match document.rollouts.get(&object.name).map(|rollout| &rollout.state) {
                    Some(RolloutState::Failed { outcome, message, log }) => {
                        return Err(ApplyError {
                            outcome: *outcome,
                            object: Some(object.id()),
                            message: message.clone(),
                            log: log.clone(),
                            running: statuses(controller),
                        });
                    }
                    Some(RolloutState::Complete) => Ok(()),
                    _ => {
                        let pods = controller.pods_of(&object.name);
                        let ready = pods.iter().filter(|pod| pod.state().ready).count();
                        let wanted = parsed
                            .deployments
                            .get(&object.name)
                            .map_or(0, |deployment| deployment.replicas);
                        Err(format!("{ready} ready of {wanted} wanted, {} there", pods.len()))
                    }
                },
                "Service" => controller.frontend(&service_key(&object.name)),
                "Ingress" => controller.frontend(INGRESS),
                _ => Ok(()),
            };
            let message = match state {
                Ok(()) if matches!(object.kind.as_str(), "Deployment") => "rolled out".to_string(),
                Ok(()) => continue,
                Err(message) => {
                    waiting.get_or_insert((object.id(), message.clone()));
                    message
                }
            };
            if told.get(&object.id()) != Some(&message) {
                told.insert(object.id(), message.clone());
                let _ = progress.send(Progress {
                    object: Some(object.id()),
                    message,
                });
            }
        }
        let Some((object, message)) = waiting else {
            return Ok(());
        };
        if Instant::now() >= deadline {
            let message = format!("not done within {} s: {message}", request.deadline.as_secs());
            return Err(ApplyError {
                running: statuses(controller),
                ..failure(Outcome::TimedOut, Some(object), message)
            });
        }
        // Whether a proxy runs is seen by a look, not by a change.
        let _ = tokio::time::timeout(LOOK_AGAIN, changed.changed()).await;
    }
}

/// Waits until nothing of what was pruned runs any more.
async fn wait_for_the_pruned(
    controller: &Arc<Controller>,
    request: &ApplyRequest,
    deadline: Instant,
) -> Result<(), ApplyError> {
    for id in request.prune.iter().filter(|id| id.kind == "Deployment") {
        while !controller.pods_of(&id.name).is_empty() {
            if Instant::now() >= deadline {
                let message = format!("its pods did not end within {} s", request.deadline.as_secs());
                return Err(failure(Outcome::TimedOut, Some(id.clone()), message));
            }
            let mut changed = controller.context.changed.subscribe();
            let _ = tokio::time::timeout(LOOK_AGAIN, changed.changed()).await;
        }
    }
    Ok(())
}

fn statuses(controller: &Arc<Controller>) -> Vec<WorkloadStatus> {
    let (document, parsed) = controller.parsed();
    let status = |object: &Object| WorkloadStatus {
        kind: object.kind.clone(),
        name: object.name.clone(),
        image: towpath_manifest::containers(object)
            .into_iter()
            .next()
            .map(|container| container.image),
        ready: 0,
        desired: 0,
        since: None,
        restarts: 0,
        message: String::new(),
        addresses: Vec::new(),
    };
    let mut all = Vec::new();
    for object in &document.objects {
        let mut status = status(object);
        match object.kind.as_str() {
            "Deployment" => {
                let pods = controller.pods_of(&object.name);
                let ready = pods.iter().filter(|pod| pod.state().ready).count();
                status.ready = u32::try_from(ready).unwrap_or(u32::MAX);
                status.desired = parsed
                    .deployments
                    .get(&object.name)
                    .map_or(0, |deployment| deployment.replicas);
                status.restarts = pods.iter().map(|pod| pod.state().restarts).sum();
                status.since = pods.iter().map(|pod| pod.state().since).max();
                status.message = match document.rollouts.get(&object.name).map(|rollout| &rollout.state) {
                    Some(RolloutState::Failed { message, .. }) => message.clone(),
                    _ => pods
                        .iter()
                        .map(|pod| pod.state().message.clone())
                        .find(|message| !message.is_empty())
                        .unwrap_or_default(),
                };
                status.addresses = parsed
                    .deployments
                    .get(&object.name)
                    .filter(|deployment| parsed.services.values().any(|service| serves(service, deployment)))
                    .and_then(|_| controller.address())
                    .into_iter()
                    .collect();
            }
            "CronJob" => {
                let runs = document
                    .jobs
                    .values()
                    .filter(|job| job.cron.as_deref() == Some(&object.name));
                let (running, ended): (Vec<_>, Vec<_>) = runs.partition(|job| job.end.is_none());
                status.ready = u32::try_from(running.len()).unwrap_or(u32::MAX);
                status.message = cron_message(&document, &parsed, &object.name, &ended);
            }
            "Ingress" => status.addresses = controller.address().into_iter().collect(),
            "Service" => {
                status.message = controller
                    .frontend(&service_key(&object.name))
                    .err()
                    .unwrap_or_default()
            }
            _ => continue,
        }
        all.push(status);
    }
    all
}

fn cron_jobs(controller: &Arc<Controller>) -> Vec<CronJobStatus> {
    let (document, parsed) = controller.parsed();
    let objects = document.objects.iter().filter(|object| object.kind == "CronJob");
    let status = |object: &Object| {
        let runs = document
            .jobs
            .iter()
            .filter(|(_, job)| job.cron.as_deref() == Some(&object.name));
        let mut failures: Vec<CronFailure> = Vec::new();
        let (mut active, mut last_run, mut last_success) = (0, None, None);
        for (name, job) in runs {
            last_run = last_run.max(Some(job.began));
            match &job.end {
                None => active += 1,
                Some((end, at)) if end.outcome == Outcome::Succeeded => last_success = last_success.max(Some(*at)),
                Some((end, at)) => failures.push(CronFailure {
                    job: name.clone(),
                    at: Some(*at),
                    message: end.message.clone(),
                }),
            }
        }
        failures.sort_by_key(|failure| std::cmp::Reverse(failure.at));
        let cron = parsed.crons.get(&object.name);
        let next = cron.filter(|cron| !cron.suspend).and_then(|cron| {
            let record = document.crons.get(&object.name)?;
            cron.schedule.next(record.last)
        });
        CronJobStatus {
            name: object.name.clone(),
            schedule: object
                .value
                .pointer("/spec/schedule")
                .and_then(serde_json::Value::as_str)
                .unwrap_or_default()
                .to_string(),
            suspended: cron.is_some_and(|cron| cron.suspend),
            image: towpath_manifest::containers(object)
                .into_iter()
                .next()
                .map(|container| container.image),
            active,
            last_run,
            last_success,
            next_run: next,
            failures,
        }
    };
    objects.map(status).collect()
}

fn cron_message(
    document: &Document,
    parsed: &controller::Parsed,
    name: &str,
    ended: &[&super::store::JobRecord],
) -> String {
    let mut parts = Vec::new();
    let last = ended
        .iter()
        .filter_map(|job| job.end.as_ref())
        .max_by_key(|(_, at)| *at);
    if let Some((end, at)) = last {
        parts.push(format!("last run {} at {at}", end.outcome.as_str().replace('_', " ")));
    }
    match parsed.crons.get(name) {
        Some(cron) if cron.suspend => parts.push("suspended".into()),
        Some(cron) => {
            let next = document
                .crons
                .get(name)
                .and_then(|record| cron.schedule.next(record.last));
            parts.extend(next.map(|at| format!("next run at {at}")));
        }
        None => {}
    }
    if let Some(record) = document.crons.get(name).filter(|record| !record.message.is_empty()) {
        parts.push(record.message.clone());
    }
    parts.join(", ")
}

impl Target for LocalTarget {
    fn preflight<'a>(
        &'a self,
        environment: &'a Environment,
        objects: &'a [Object],
        _prune: &'a [ObjectId],
    ) -> BoxFuture<'a, Result<Preflight, TargetError>> {
        Box::pin(async move {
            let findings = self.findings(&environment.id, objects).await?;
            Ok(Preflight {
                findings,
                changes: None,
            })
        })
    }

    fn fingerprints<'a>(
        &'a self,
        environment: &'a Environment,
        objects: &'a [Object],
    ) -> BoxFuture<'a, Result<Fingerprints, TargetError>> {
        Box::pin(async move {
            let mut fingerprints = Fingerprints::default();
            for name in read_names(objects, SourceKind::Secret) {
                let values = self.secrets.values(&environment.id, &name).await;
                let values = values.map_err(TargetError::failed(format!("read the Secret `{name}`")))?;
                let print = |(key, value): (String, towpath_types::SecretString)| {
                    (key, self.secrets.fingerprint(value.expose().as_bytes()))
                };
                if let Some(values) = values {
                    fingerprints
                        .secrets
                        .insert(name, values.into_iter().map(print).collect());
                }
            }
            Ok(fingerprints)
        })
    }

    fn releases<'a>(&'a self, _: &'a Environment) -> BoxFuture<'a, Result<Vec<ReleaseRecord>, TargetError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn current<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Option<Applied>, TargetError>> {
        Box::pin(async move {
            let document = self
                .known(&environment.id)
                .map(|controller| controller.context.store.read());
            Ok(document
                .filter(|document| document.attempted.is_some() || document.hold.is_some())
                .map(|document| Applied {
                    release: document.release,
                    attempted: document.attempted,
                    objects: document.objects.iter().map(Object::id).collect(),
                    hold: document.hold.clone(),
                    deploying: None,
                }))
        })
    }

    fn apply(
        &self,
        request: ApplyRequest,
        progress: mpsc::UnboundedSender<Progress>,
    ) -> BoxFuture<'_, Result<(), ApplyError>> {
        Box::pin(self.carry_out(request, progress))
    }

    fn status<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Vec<WorkloadStatus>, TargetError>> {
        Box::pin(async move {
            Ok(self
                .known(&environment.id)
                .map(|controller| statuses(&controller))
                .unwrap_or_default())
        })
    }

    fn drift<'a>(&'a self, _: &'a Environment, _: &'a [Object]) -> BoxFuture<'a, Result<Vec<Drift>, TargetError>> {
        // The controllers undo whatever is done to containers behind their back.
        Box::pin(async { Ok(Vec::new()) })
    }

    fn set_hold<'a>(
        &'a self,
        environment: &'a Environment,
        hold: Option<Hold>,
    ) -> BoxFuture<'a, Result<(), TargetError>> {
        Box::pin(async move {
            let controller = self.controller(&environment.id).await?;
            controller.context.store.update(|document| document.hold = hold).await
        })
    }

    fn cron_jobs<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Vec<CronJobStatus>, TargetError>> {
        Box::pin(async move {
            Ok(self
                .known(&environment.id)
                .map(|controller| cron_jobs(&controller))
                .unwrap_or_default())
        })
    }

    fn run_job<'a>(
        &'a self,
        environment: &'a Environment,
        job: Object,
        // There is one node, and it takes every pod.
        _unschedulable: Option<Duration>,
    ) -> BoxFuture<'a, Result<JobHandle, TargetError>> {
        Box::pin(async move {
            let refused = self.findings(&environment.id, std::slice::from_ref(&job)).await?;
            let refused: Vec<String> = refused
                .iter()
                .filter(|f| f.severity == Severity::Refused)
                .map(ToString::to_string)
                .collect();
            if !refused.is_empty() {
                return Err(TargetError::Refused(refused.join("\n")));
            }
            let controller = self.controller(&environment.id).await?;
            if controller.context.store.read().attempted.is_none() {
                controller
                    .context
                    .store
                    .update(|document| document.namespace.clone_from(&environment.namespace))
                    .await?;
            }
            let name = job.name.clone();
            controller.start_job(job, None).await?;
            Ok(job::follow(Arc::clone(&controller.context), &name))
        })
    }

    fn start_cron_job<'a>(
        &'a self,
        environment: &'a Environment,
        name: &'a str,
        _unschedulable: Option<Duration>,
    ) -> BoxFuture<'a, Result<JobHandle, TargetError>> {
        Box::pin(async move {
            let controller = self.existing(&environment.id)?;
            let (_, parsed) = controller.parsed();
            let missing = || TargetError::NotFound(format!("{environment} has no CronJob `{name}`"));
            let cron = parsed.crons.get(name).ok_or_else(missing)?;
            let run = format!("{name}-{}", self.clock.now().as_second());
            controller
                .start_job(controller::job_object(name, cron, &run)?, Some(name))
                .await?;
            Ok(job::follow(Arc::clone(&controller.context), &run))
        })
    }

    fn cancel_job<'a>(&'a self, environment: &'a Environment, name: &'a str) -> BoxFuture<'a, Result<(), TargetError>> {
        Box::pin(async move {
            let controller = self.existing(&environment.id)?;
            if !controller.context.store.read().jobs.contains_key(name) {
                return Err(TargetError::NotFound(format!("{environment} has no Job `{name}`")));
            }
            controller::cancel(&controller.context, &[name.to_string()]).await
        })
    }

    fn logs<'a>(
        &'a self,
        environment: &'a Environment,
        workload: &'a ObjectId,
        tail: u32,
        follow: bool,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Bytes>, TargetError>> {
        Box::pin(async move {
            let controller = self.existing(&environment.id)?;
            let context = Arc::clone(&controller.context);
            let mut sources = Vec::new();
            match workload.kind.as_str() {
                "Job" => {
                    let document = context.store.read();
                    let missing = || TargetError::NotFound(format!("{environment} has no {workload}"));
                    let record = document.jobs.get(&workload.name).ok_or_else(missing)?;
                    if let Some(Resource::Job(job)) = model::parse(&record.object).0 {
                        sources.push((pod_name(&workload.name, record.attempt), job.pod));
                    }
                }
                _ => sources.extend(
                    controller
                        .pods_of(&workload.name)
                        .iter()
                        .map(|pod| (pod.name.clone(), pod.template.clone())),
                ),
            }
            let several = sources.len() > 1;
            let mut streams = Vec::new();
            for (pod, template) in sources {
                let mask = context.mask(&template).await;
                for container in &template.containers {
                    let prefix = if several { format!("[{pod}] ") } else { String::new() };
                    let cutter = LineCutter::new(&mask, prefix);
                    let name = context.names.container(&pod, &container.name);
                    let pieces = context.engine.logs(&name, Some(tail), follow);
                    streams.push(whole_lines(pieces.boxed(), cutter));
                }
            }
            Ok(futures::stream::select_all(streams).boxed())
        })
    }

    fn delete_environment<'a>(
        &'a self,
        environment: &'a Environment,
        volumes: Volumes,
    ) -> BoxFuture<'a, Result<(), TargetError>> {
        Box::pin(async move {
            let Some(controller) = self.known(&environment.id) else {
                return Ok(());
            };
            controller.wipe(volumes == Volumes::Delete).await?;
            lock(&self.controllers).remove(&environment.id);
            Ok(())
        })
    }
}

/// The names of what `objects` read, of one kind, each once.
fn read_names(objects: &[Object], kind: SourceKind) -> BTreeSet<String> {
    let read = objects.iter().flat_map(reads).filter(|read| read.kind == kind);
    read.map(|read| read.name).collect()
}

/// Whether a Service has the port that an Ingress names.
fn has_port(service: &model::Service, port: &model::TargetPort) -> bool {
    service.ports.iter().any(|known| match port {
        model::TargetPort::Number(number) => known.port == *number,
        model::TargetPort::Name(name) => known.name.as_ref() == Some(name),
    })
}

/// Cuts a container's output into whole lines, masked.
fn whole_lines<P: AsRef<[u8]> + 'static, E: 'static>(
    pieces: BoxStream<'static, Result<P, E>>,
    cutter: LineCutter,
) -> BoxStream<'static, Bytes> {
    futures::stream::unfold((pieces, Some(cutter)), |(mut pieces, mut cutter)| async move {
        loop {
            let Some(lines) = &mut cutter else { return None };
            match pieces.next().await {
                Some(Ok(piece)) => {
                    if let Some(out) = lines.push(piece.as_ref()) {
                        return Some((out, (pieces, cutter)));
                    }
                }
                _ => {
                    let rest = cutter.take().and_then(LineCutter::finish)?;
                    return Some((rest, (pieces, None)));
                }
            }
        }
    })
    .boxed()
}
