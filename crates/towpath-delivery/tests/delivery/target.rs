//! A target in memory: environments that remember what was applied, fail on demand, and die in any call.

// The contract defines the error type.
#![allow(clippy::result_large_err)]

use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream, stream::BoxStream};
use jiff::Timestamp;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    sync::{Mutex, MutexGuard},
    time::Duration,
};
use tokio::sync::{Notify, mpsc, oneshot};
use towpath_deploy::{
    Applied, ApplyError, ApplyRequest, CronJobStatus, Drift, Environment, Finding, Hold, JobEnd, JobHandle, JobLine,
    Occasion, Preflight, Progress, ReleaseRecord, Severity, Target, TargetError, Volumes, WorkloadStatus,
};
use towpath_manifest::{Fingerprints, Object, ObjectId, containers};
use towpath_types::{EnvironmentId, Outcome, ReleaseId};

/// When the process dies in a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Nothing has happened yet.
    Before,
    /// Half of the objects are applied. In calls other than `apply`: the same as `Before`.
    Middle,
    /// Everything has happened; only the answer is lost.
    After,
}

/// The content of one environment.
#[derive(Debug, Clone, Default)]
pub struct Place {
    pub release: Option<ReleaseId>,
    pub attempted: Option<ReleaseId>,
    pub objects: BTreeMap<ObjectId, Value>,
    pub hold: Option<Hold>,
    pub deploying: Option<towpath_deploy::Deploying>,
    pub records: Vec<ReleaseRecord>,
    pub jobs: BTreeMap<String, Job>,
    pub cron_jobs: Vec<CronJobStatus>,
    pub drift: Vec<Drift>,
    /// Every call of `apply` that changed something, in order.
    pub applied: Vec<(Occasion, ReleaseId)>,
}

/// A Job that was started.
#[derive(Debug, Clone, Default)]
pub struct Job {
    pub lines: Vec<String>,
    pub end: Option<JobEnd>,
    pub starts: usize,
}

#[derive(Default)]
struct State {
    places: BTreeMap<EnvironmentId, Place>,
    keeps_records: bool,
    unreachable: Option<String>,
    calls: Vec<&'static str>,
    /// The number of calls until the process dies, and when in that call.
    death: Option<(usize, Moment)>,
    /// Applying an object whose image contains the text fails with the outcome.
    broken: Vec<(String, Outcome)>,
    refused: Vec<String>,
    notes: Vec<String>,
    job: Option<Job>,
}

/// Environments in memory.
#[derive(Default)]
pub struct FakeTarget {
    state: Mutex<State>,
    dead: Notify,
}

impl FakeTarget {
    /// Environments that record their releases themselves, as a cluster's do.
    pub fn cluster() -> Self {
        let target = Self::default();
        target.state().keeps_records = true;
        target
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Makes every call fail until reset with `None`.
    pub fn set_unreachable(&self, why: Option<&str>) {
        self.state().unreachable = why.map(str::to_string);
    }

    /// Makes an image fail wherever it is applied.
    pub fn break_image(&self, part: &str, outcome: Outcome) {
        self.state().broken.push((part.to_string(), outcome));
    }

    pub fn mend_images(&self) {
        self.state().broken.clear();
    }

    /// Makes preflight, and so `apply`, reject everything with this message.
    pub fn refuse(&self, message: &str) {
        self.state().refused.push(message.to_string());
    }

    pub fn accept(&self) {
        self.state().refused.clear();
    }

    pub fn note(&self, message: &str) {
        self.state().notes.push(message.to_string());
    }

    /// Sets the output and the end of the next Job.
    pub fn next_job(&self, lines: &[&str], end: JobEnd) {
        self.state().job = Some(Job {
            lines: lines.iter().map(ToString::to_string).collect(),
            end: Some(end),
            starts: 0,
        });
    }

    pub fn place(&self, id: &EnvironmentId) -> Place {
        self.state().places.get(id).cloned().unwrap_or_default()
    }

    pub fn change(&self, id: &EnvironmentId, change: impl FnOnce(&mut Place)) {
        change(self.state().places.entry(id.clone()).or_default());
    }

    /// The names of the calls so far, in order.
    pub fn calls(&self) -> Vec<&'static str> {
        self.state().calls.clone()
    }

    /// Makes the process die at the `n`th call from now, counted from 1.
    pub fn die_at(&self, n: usize, moment: Moment) {
        self.state().death = Some((n - 1, moment));
    }

    pub fn forget_death(&self) {
        self.state().death = None;
    }

    /// Whether the process still has to die.
    pub fn is_death_pending(&self) -> bool {
        self.state().death.is_some()
    }

    /// The result of `work`; `None` if the process died in it.
    pub async fn until_death<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.dead.notified() => None,
            answer = work => Some(answer),
        }
    }

    /// Counts a call, and returns whether the process dies in it.
    fn begin(&self, call: &'static str) -> Option<Moment> {
        let mut state = self.state();
        state.calls.push(call);
        match &mut state.death {
            Some((0, moment)) => {
                let moment = *moment;
                state.death = None;
                Some(moment)
            }
            Some((left, _)) => {
                *left -= 1;
                None
            }
            None => None,
        }
    }

    async fn die<T>(&self) -> T {
        self.dead.notify_one();
        pending().await
    }

    async fn call<T>(&self, call: &'static str, effect: impl FnOnce(&mut State) -> T + Send) -> Result<T, TargetError> {
        let moment = self.begin(call);
        if matches!(moment, Some(Moment::Before | Moment::Middle)) {
            return self.die().await;
        }
        let answer = {
            let mut state = self.state();
            match state.unreachable.clone() {
                Some(why) => Err(TargetError::Failed {
                    attempted: format!("{call} in the cluster"),
                    source: why.into(),
                }),
                None => Ok(effect(&mut state)),
            }
        };
        match moment {
            Some(_) => self.die().await,
            None => answer,
        }
    }

    async fn carry_out(
        &self,
        request: ApplyRequest,
        progress: mpsc::UnboundedSender<Progress>,
    ) -> Result<(), ApplyError> {
        let moment = self.begin("apply");
        if moment == Some(Moment::Before) {
            return self.die().await;
        }
        let half = request.objects.len() / 2;
        let begun = self.begin_applying(&request);
        if begun.is_ok() {
            self.write(&request, &request.objects[..half], &progress);
        }
        if moment == Some(Moment::Middle) {
            return self.die().await;
        }
        let result = begun.and_then(|()| {
            self.write(&request, &request.objects[half..], &progress);
            self.end_applying(&request)
        });
        match moment {
            Some(_) => self.die().await,
            None => result,
        }
    }

    fn begin_applying(&self, request: &ApplyRequest) -> Result<(), ApplyError> {
        let mut state = self.state();
        if let Some(why) = &state.unreachable {
            return Err(failure(Outcome::Errored, format!("the cluster does not answer: {why}")));
        }
        if let Some(refused) = state.refused.first() {
            return Err(failure(Outcome::Rejected, refused.clone()));
        }
        let keeps_records = state.keeps_records;
        let place = state.places.entry(request.environment.id.clone()).or_default();
        if request.occasion != Occasion::Beside {
            place.release = None;
            place.attempted = Some(request.record.id);
        }
        if request.occasion == Occasion::Release && keeps_records {
            place.records.retain(|record| record.id != request.record.id);
            place.records.insert(0, request.record.clone());
        }
        place.applied.push((request.occasion, request.record.id));
        Ok(())
    }

    fn write(&self, request: &ApplyRequest, objects: &[Object], progress: &mpsc::UnboundedSender<Progress>) {
        let mut state = self.state();
        let place = state.places.entry(request.environment.id.clone()).or_default();
        for object in objects {
            let message = match place.objects.insert(object.id(), object.value.clone()) {
                None => "created",
                Some(before) if before != object.value => "changed",
                Some(_) => continue,
            };
            let object = Some(object.id());
            let message = message.to_string();
            let _ = progress.send(Progress { object, message });
        }
    }

    fn end_applying(&self, request: &ApplyRequest) -> Result<(), ApplyError> {
        let mut state = self.state();
        let runs: Vec<String> = request
            .objects
            .iter()
            .flat_map(|object| containers(object).into_iter().map(|container| container.image))
            .collect();
        let broken = state.broken.clone();
        let outcome = broken
            .iter()
            .find(|(part, _)| runs.iter().any(|image| image.contains(part.as_str())));
        let place = state.places.entry(request.environment.id.clone()).or_default();
        let end = |place: &mut Place, outcome: Outcome, message: Option<String>| {
            let recorded = place.records.iter_mut().find(|record| record.id == request.record.id);
            if let Some(record) = recorded.filter(|_| request.occasion == Occasion::Release) {
                record.state = outcome.as_str().into();
                record.stopped_at = Some(request.record.at);
                record.message = message;
            }
        };
        if let Some((_, outcome)) = outcome {
            let error = ApplyError {
                log: vec!["exec: not found".into()],
                ..failure(*outcome, "the new pods do not start".into())
            };
            end(place, *outcome, Some(error.message.clone()));
            return Err(error);
        }
        for gone in &request.prune {
            place.objects.remove(gone);
        }
        if request.occasion != Occasion::Beside {
            place.release = Some(request.record.id);
        }
        end(place, Outcome::Succeeded, None);
        Ok(())
    }
}

fn failure(outcome: Outcome, message: String) -> ApplyError {
    ApplyError {
        outcome,
        object: None,
        message,
        log: Vec::new(),
        running: Vec::new(),
    }
}

fn handle(name: &str, job: Job) -> JobHandle {
    let (lines, output) = mpsc::channel(256);
    let (ended, end) = oneshot::channel();
    for line in &job.lines {
        let line = match line.strip_prefix("-- ") {
            Some(note) => JobLine::Note(note.to_string()),
            None => JobLine::Output(Bytes::from(format!("{line}\n"))),
        };
        lines.try_send(line).unwrap();
    }
    if let Some(end) = job.end {
        ended.send(end).unwrap();
    }
    JobHandle {
        name: name.to_string(),
        output,
        end,
    }
}

fn missing(environment: &Environment, name: &str) -> TargetError {
    TargetError::NotFound(format!("{environment} has no Job `{name}`"))
}

impl State {
    fn start(&mut self, environment: &Environment, name: &str) -> JobHandle {
        let next = self.job.clone().unwrap_or_default();
        let place = self.places.entry(environment.id.clone()).or_default();
        let job = place.jobs.entry(name.to_string()).or_insert(next);
        job.starts += 1;
        handle(name, job.clone())
    }
}

impl Target for FakeTarget {
    fn preflight<'a>(
        &'a self,
        _: &'a Environment,
        objects: &'a [Object],
        _: &'a [ObjectId],
    ) -> BoxFuture<'a, Result<Preflight, TargetError>> {
        self.call("preflight", |state| {
            let finding = |severity, message: &String| {
                let object = objects.first()?;
                Some(Finding {
                    severity,
                    object: object.id(),
                    field: String::new(),
                    place: object.place.clone(),
                    message: message.clone(),
                })
            };
            let refused = state.refused.iter().filter_map(|text| finding(Severity::Refused, text));
            let notes = state.notes.iter().filter_map(|text| finding(Severity::Note, text));
            Preflight {
                findings: refused.chain(notes).collect(),
                changes: None,
            }
        })
        .boxed()
    }

    fn fingerprints<'a>(
        &'a self,
        _: &'a Environment,
        _: &'a [Object],
    ) -> BoxFuture<'a, Result<Fingerprints, TargetError>> {
        self.call("fingerprints", |_| Fingerprints::default()).boxed()
    }

    fn releases<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Vec<ReleaseRecord>, TargetError>> {
        self.call("releases", |state| {
            let place = state.places.get(&environment.id);
            place.map(|place| place.records.clone()).unwrap_or_default()
        })
        .boxed()
    }

    fn current<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Option<Applied>, TargetError>> {
        self.call("current", |state| {
            let place = state.places.get(&environment.id)?;
            Some(Applied {
                release: place.release,
                attempted: place.attempted,
                objects: place.objects.keys().cloned().collect(),
                hold: place.hold.clone(),
                deploying: place.deploying.clone(),
            })
        })
        .boxed()
    }

    fn apply(
        &self,
        request: ApplyRequest,
        progress: mpsc::UnboundedSender<Progress>,
    ) -> BoxFuture<'_, Result<(), ApplyError>> {
        self.carry_out(request, progress).boxed()
    }

    fn count_repeat<'a>(
        &'a self,
        environment: &'a Environment,
        id: ReleaseId,
        at: Timestamp,
    ) -> BoxFuture<'a, Result<(), TargetError>> {
        self.call("count_repeat", move |state| {
            let place = state.places.entry(environment.id.clone()).or_default();
            for record in place.records.iter_mut().filter(|record| record.id == id) {
                record.repeats += 1;
                record.repeated_at = Some(at);
            }
        })
        .boxed()
    }

    fn status<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Vec<WorkloadStatus>, TargetError>> {
        self.call("status", |state| {
            let place = state.places.get(&environment.id).cloned().unwrap_or_default();
            let workloads = place.objects.into_iter().map(|(id, value)| WorkloadStatus {
                image: value
                    .pointer("/spec/template/spec/containers/0/image")
                    .and_then(Value::as_str)
                    .map(str::to_string),
                addresses: match id.kind.as_str() {
                    "Service" => vec![format!("http://{}.example", id.name)],
                    _ => Vec::new(),
                },
                kind: id.kind,
                name: id.name,
                ready: 1,
                desired: 1,
                ..WorkloadStatus::default()
            });
            workloads.collect()
        })
        .boxed()
    }

    fn drift<'a>(
        &'a self,
        environment: &'a Environment,
        _: &'a [Object],
    ) -> BoxFuture<'a, Result<Vec<Drift>, TargetError>> {
        self.call("drift", |state| {
            let place = state.places.get(&environment.id);
            place.map(|place| place.drift.clone()).unwrap_or_default()
        })
        .boxed()
    }

    fn set_hold<'a>(
        &'a self,
        environment: &'a Environment,
        hold: Option<Hold>,
    ) -> BoxFuture<'a, Result<(), TargetError>> {
        self.call("set_hold", move |state| {
            state.places.entry(environment.id.clone()).or_default().hold = hold;
        })
        .boxed()
    }

    fn cron_jobs<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Vec<CronJobStatus>, TargetError>> {
        self.call("cron_jobs", |state| {
            let place = state.places.get(&environment.id);
            place.map(|place| place.cron_jobs.clone()).unwrap_or_default()
        })
        .boxed()
    }

    fn run_job<'a>(
        &'a self,
        environment: &'a Environment,
        job: Object,
        _: Option<Duration>,
    ) -> BoxFuture<'a, Result<JobHandle, TargetError>> {
        async move { self.call("run_job", |state| state.start(environment, &job.name)).await }.boxed()
    }

    fn follow_job<'a>(
        &'a self,
        environment: &'a Environment,
        name: &'a str,
        _: Option<Duration>,
    ) -> BoxFuture<'a, Result<JobHandle, TargetError>> {
        async move {
            self.call("follow_job", |state| {
                let place = state.places.get(&environment.id);
                let job = place.and_then(|place| place.jobs.get(name));
                job.map(|job| handle(name, job.clone()))
                    .ok_or_else(|| missing(environment, name))
            })
            .await?
        }
        .boxed()
    }

    fn start_cron_job<'a>(
        &'a self,
        environment: &'a Environment,
        name: &'a str,
        _: Option<Duration>,
    ) -> BoxFuture<'a, Result<JobHandle, TargetError>> {
        async move {
            let run = format!("{name}-1");
            self.call("start_cron_job", |state| state.start(environment, &run))
                .await
        }
        .boxed()
    }

    fn cancel_job<'a>(&'a self, environment: &'a Environment, name: &'a str) -> BoxFuture<'a, Result<(), TargetError>> {
        async move { Err(missing(environment, name)) }.boxed()
    }

    fn logs<'a>(
        &'a self,
        _: &'a Environment,
        _: &'a ObjectId,
        _: u32,
        _: bool,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Bytes>, TargetError>> {
        async { Ok(stream::empty().boxed()) }.boxed()
    }

    fn delete_environment<'a>(
        &'a self,
        environment: &'a Environment,
        _: Volumes,
    ) -> BoxFuture<'a, Result<(), TargetError>> {
        self.call("delete_environment", |state| {
            state.places.remove(&environment.id);
        })
        .boxed()
    }
}

/// The ids of objects, for assertions.
pub fn names(objects: &BTreeMap<ObjectId, Value>) -> BTreeSet<String> {
    objects.keys().map(ToString::to_string).collect()
}
