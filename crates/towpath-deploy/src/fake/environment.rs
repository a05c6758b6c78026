//! An environment of a fake target.

use super::job::{FakeJob, JobScript};
use crate::target::{
    Applied, ApplyError, ApplyRequest, CronFailure, CronJobStatus, Deploying, Drift, Finding, HelmRelease, Hold,
    JOB_LABEL, Occasion, ReleaseRecord, Severity, TargetError, WorkloadStatus, Writer,
};
use jiff::Timestamp;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};
use towpath_manifest::{
    Change, ChangeKind, Container, Fingerprints, Kind, Object, ObjectId, containers, diff, sort_for_apply,
};
use towpath_schedule::Schedule;
use towpath_types::{Digest, Outcome, RecordedState, ReleaseId};

/// An object as it is now.
struct Live {
    object: Object,
    /// Who has changed it since it was applied.
    writers: Vec<Writer>,
}

/// What Helm has left in an environment.
#[derive(Debug, Clone)]
pub struct FakeHelm {
    /// The releases that it has recorded; `None` if the account may not look.
    pub recorded: Option<Vec<HelmRelease>>,
    /// Whether it has deployed an object of every plan.
    pub has_deployed: bool,
}

impl Default for FakeHelm {
    /// Helm was never used here.
    fn default() -> Self {
        Self {
            recorded: Some(Vec::new()),
            has_deployed: false,
        }
    }
}

/// An environment of a fake target.
#[derive(Default)]
pub(super) struct FakeEnvironment {
    live: BTreeMap<ObjectId, Live>,
    /// Every object that was applied and not pruned.
    inventory: BTreeSet<ObjectId>,
    release: Option<ReleaseId>,
    attempted: Option<ReleaseId>,
    pub hold: Option<Hold>,
    pub deploying: Option<Deploying>,
    /// The recorded releases, newest last.
    releases: Vec<ReleaseRecord>,
    /// Every request that had an effect.
    pub requests: Vec<ApplyRequest>,
    pub jobs: BTreeMap<String, FakeJob>,
    /// The names of all runs that were started, in order.
    pub started: Vec<String>,
    /// Scripted by the test.
    pub findings: Vec<Finding>,
    /// Scripted by the test: findings about whatever there is.
    pub findings_about_all: Vec<(Severity, String)>,
    /// Scripted by the test: objects whose image contains the text do not roll out, with this outcome.
    pub broken_images: Vec<(String, Outcome)>,
    pub failures: VecDeque<ApplyError>,
    pub delays: VecDeque<Duration>,
    pub scripts: BTreeMap<String, JobScript>,
    pub logs: BTreeMap<ObjectId, Vec<String>>,
    pub fingerprints: Fingerprints,
    /// Scripted by the test: what Helm has left.
    pub helm: FakeHelm,
    /// Taken during an `apply`.
    pub turn: Arc<tokio::sync::Mutex<()>>,
    /// Whether an `apply` waits after it has begun.
    pub paused: tokio::sync::watch::Sender<bool>,
}

fn fingerprint(value: &[u8]) -> String {
    Digest::of(value).hex().to_string()
}

pub(super) fn failure(outcome: Outcome, message: impl Into<String>) -> ApplyError {
    ApplyError {
        outcome,
        object: None,
        hook: None,
        message: message.into(),
        log: Vec::new(),
        running: Vec::new(),
    }
}

/// Whether objects of this kind stay when they leave the manifests.
fn stays(id: &ObjectId) -> bool {
    let kind = Kind::of(&id.kind);
    kind.holds_data || !kind.namespaced
}

impl FakeEnvironment {
    /// The objects as they are now, in the order of application.
    pub(super) fn live(&self) -> Vec<Object> {
        let mut objects: Vec<Object> = self.live.values().map(|live| live.object.clone()).collect();
        sort_for_apply(&mut objects);
        objects
    }

    /// The scripted findings about `objects`.
    pub(super) fn findings_about(&self, objects: &[Object]) -> Vec<Finding> {
        let is_about = |finding: &&Finding| objects.iter().any(|object| object.id() == finding.object);
        let of_these = self.findings.iter().filter(is_about).cloned();
        let of_all = self.findings_about_all.iter().filter_map(|(severity, message)| {
            let object = objects.first()?;
            Some(Finding {
                severity: *severity,
                object: object.id(),
                field: String::new(),
                place: object.place.clone(),
                message: message.clone(),
            })
        });
        of_these.chain(of_all).collect()
    }

    fn refusals(&self, objects: &[Object]) -> Vec<String> {
        let findings = self.findings_about(objects).into_iter();
        let refused = findings.filter(|finding| finding.severity == Severity::Refused);
        refused.map(|finding| finding.to_string()).collect()
    }

    pub(super) fn changes(&self, objects: &[Object], prune: &[ObjectId]) -> Vec<Change> {
        let is_involved = |id: &ObjectId| {
            let is_pruned = prune.contains(id) && self.inventory.contains(id) && !stays(id);
            is_pruned || objects.iter().any(|object| object.id() == *id)
        };
        let before: Vec<Object> = self
            .live
            .iter()
            .filter(|(id, _)| is_involved(id))
            .map(|(_, live)| live.object.clone())
            .collect();
        diff(&before, objects, &fingerprint)
    }

    pub(super) fn applied(&self) -> Option<Applied> {
        let is_known = self.attempted.is_some() || self.hold.is_some() || self.deploying.is_some();
        is_known.then(|| Applied {
            release: self.release,
            attempted: self.attempted,
            objects: self.inventory.iter().cloned().collect(),
            hold: self.hold.clone(),
            deploying: self.deploying.clone(),
        })
    }

    /// The recorded releases, newest first.
    pub(super) fn releases(&self) -> Vec<ReleaseRecord> {
        self.releases.iter().rev().cloned().collect()
    }

    /// Refuses a request that may not begin. The error is the message of the refusal.
    pub(super) fn refuse(&self, request: &ApplyRequest, enforces_holds: bool, now: Timestamp) -> Result<(), String> {
        let mut refusals = self.refusals(&request.objects);
        let jobs = request.objects.iter().filter(|object| object.kind == "Job");
        refusals.extend(jobs.map(|job| {
            let why = "a Job is run by its name and not applied with the rest";
            format!("{}: {}: {why}", job.place, job.id())
        }));
        if !refusals.is_empty() {
            return Err(refusals.join("\n"));
        }
        let hold = self.hold.as_ref().filter(|_| enforces_holds);
        match hold {
            // A hold does not keep a failed release from being rolled back.
            Some(hold) if request.occasion != Occasion::Back && hold.keeps_out(&request.record.by, now) => {
                Err(format!("{} is {hold}", request.environment))
            }
            _ => Ok(()),
        }
    }

    /// How a request fails that has begun: as the test scripted for this request, or because of one of its images.
    pub(super) fn next_failure(&mut self, request: &ApplyRequest) -> Option<ApplyError> {
        if let Some(scripted) = self.failures.pop_front() {
            return Some(scripted);
        }
        let containers: Vec<Container> = request.objects.iter().flat_map(containers).collect();
        let (_, outcome) = self
            .broken_images
            .iter()
            .find(|(part, _)| containers.iter().any(|container| container.image.contains(part)))?;
        Some(ApplyError {
            log: vec!["exec: not found".into()],
            ..failure(*outcome, "the new pods do not start")
        })
    }

    /// Begins a request: from here on, it has an effect. The error is the message of a refusal.
    pub(super) fn begin(
        &mut self,
        request: &mut ApplyRequest,
        records_releases: bool,
        now: Timestamp,
    ) -> Result<(), String> {
        if request.occasion == Occasion::Release && records_releases {
            self.record_start(request)?;
        }
        self.end_abandoned(request.record.id, now);
        self.requests.push(request.clone());
        self.deploying = records_releases.then(|| Deploying {
            by: request.record.by.clone(),
            what: request.record.cause.clone(),
            since: now,
            renewed: now,
        });
        if request.occasion != Occasion::Beside {
            self.release = None;
            self.attempted = Some(request.record.id);
        }
        Ok(())
    }

    /// Counts on the record of a release that it was deployed again.
    pub(super) fn count_repeat(&mut self, id: ReleaseId, at: Timestamp) {
        for record in self.releases.iter_mut().filter(|record| record.id == id) {
            record.repeats += 1;
            record.repeated_at = Some(at);
        }
    }

    /// Ends the records of the releases whose process died before they ended.
    fn end_abandoned(&mut self, begun: ReleaseId, now: Timestamp) {
        let is_abandoned =
            |release: &&mut ReleaseRecord| release.id != begun && release.state == RecordedState::Running;
        for release in self.releases.iter_mut().filter(is_abandoned) {
            release.state = RecordedState::Ended(Outcome::Errored);
            release.stopped_at = Some(now);
            release.message = Some("the process that carried it out died before it ended".into());
        }
    }

    fn record_start(&mut self, request: &mut ApplyRequest) -> Result<(), String> {
        let record = &mut request.record;
        record.state = RecordedState::Running;
        self.releases.retain(|release| release.id != record.id);
        let number_of = |number: i64| self.releases.iter().find(|release| release.number == number);
        // A failed release leaves what was there before.
        while number_of(record.number).is_some_and(|other| !other.has_succeeded()) {
            record.number += 1;
        }
        if number_of(record.number).is_some() {
            return Err(format!(
                "{} has changed since this plan was made: there is already a release {}. Make a new plan",
                request.environment, record.number
            ));
        }
        self.releases.push(record.clone());
        self.releases.sort_by_key(|release| release.number);
        Ok(())
    }

    /// Applies objects of a request that has begun. Returns what happened to each: created, changed, or nothing.
    pub(super) fn apply_objects(&mut self, objects: &[Object]) -> Vec<(ObjectId, ChangeKind)> {
        let changes = self.changes(objects, &[]);
        for object in objects {
            let live = Live {
                object: object.clone(),
                writers: Vec::new(),
            };
            self.live.insert(object.id(), live);
            self.inventory.insert(object.id());
        }
        changes.into_iter().map(|change| (change.id, change.kind)).collect()
    }

    /// Removes the objects that a request prunes. Returns those that it removed.
    pub(super) fn prune(&mut self, request: &ApplyRequest) -> Vec<ObjectId> {
        let pruned = request
            .prune
            .iter()
            .filter(|id| !stays(id) && self.inventory.contains(id));
        let pruned: Vec<ObjectId> = pruned.cloned().collect();
        for id in &request.prune {
            self.inventory.remove(id);
        }
        for id in &pruned {
            self.live.remove(id);
        }
        pruned
    }

    /// Ends a request that has begun.
    pub(super) fn end(&mut self, request: &ApplyRequest, result: &Result<(), ApplyError>, now: Timestamp) {
        self.deploying = None;
        let record = &request.record;
        if request.occasion != Occasion::Beside && result.is_ok() {
            self.release = Some(record.id);
        }
        if request.occasion != Occasion::Release {
            return;
        }
        if let Some(release) = self.releases.iter_mut().find(|release| release.id == record.id) {
            release.stopped_at = Some(now);
            let outcome = match result {
                Ok(()) => Outcome::Succeeded,
                Err(error) => error.outcome,
            };
            release.state = RecordedState::Ended(outcome);
            release.message = result.as_ref().err().map(ToString::to_string);
        }
    }

    pub(super) fn statuses(&self) -> Vec<WorkloadStatus> {
        let has_row =
            |kind: &str| Kind::of(kind).rolls_out || matches!(kind, "Pod" | "CronJob" | "Service" | "Ingress");
        let rows = self.live().into_iter().filter(|object| has_row(&object.kind));
        rows.map(|object| {
            let replicas = object.value.pointer("/spec/replicas").and_then(Value::as_u64);
            let pods = match Kind::of(&object.kind).rolls_out {
                true => u32::try_from(replicas.unwrap_or(1)).unwrap_or(u32::MAX),
                false => 0,
            };
            WorkloadStatus {
                image: containers(&object).into_iter().next().map(|container| container.image),
                ready: pods,
                desired: pods,
                kind: object.kind,
                name: object.name,
                ..WorkloadStatus::default()
            }
        })
        .collect()
    }

    pub(super) fn drift(&self, objects: &[Object]) -> Vec<Drift> {
        let ids: Vec<ObjectId> = objects.iter().map(Object::id).collect();
        let live: Vec<Object> = ids
            .iter()
            .filter_map(|id| Some(self.live.get(id)?.object.clone()))
            .collect();
        let changes = diff(objects, &live, &fingerprint).into_iter();
        let changes = changes.filter(|change| change.kind != ChangeKind::Unchanged);
        changes
            .map(|change| Drift {
                writers: self
                    .live
                    .get(&change.id)
                    .map(|live| live.writers.clone())
                    .unwrap_or_default(),
                change,
            })
            .collect()
    }

    /// Changes or deletes an object, as somebody with other tools would.
    pub(super) fn tamper(&mut self, id: &ObjectId, manager: &str, now: Timestamp, change: impl FnOnce(&mut Value)) {
        if let Some(live) = self.live.get_mut(id) {
            change(&mut live.object.value);
            live.writers.insert(
                0,
                Writer {
                    manager: manager.into(),
                    at: Some(now),
                },
            );
        }
    }

    pub(super) fn remove(&mut self, id: &ObjectId) {
        self.live.remove(id);
    }

    /// Starts a run of a job, or finds the one that exists.
    pub(super) fn start_job(
        &mut self,
        job: Object,
        cron_job: Option<&str>,
        runs_exclude_each_other: bool,
        now: Timestamp,
    ) -> Result<&mut FakeJob, TargetError> {
        let refusals = self.refusals(std::slice::from_ref(&job));
        if !refusals.is_empty() {
            return Err(TargetError::Refused(refusals.join("\n")));
        }
        let name = job.name.clone();
        let label = label_of(&job);
        if !self.jobs.contains_key(&name) {
            if let Some(label) = label.as_deref().filter(|_| runs_exclude_each_other) {
                let is_running = |job: &FakeJob| job.end.is_none() && label_of(&job.object).as_deref() == Some(label);
                if let Some((run, _)) = self.jobs.iter().find(|(_, job)| is_running(job)) {
                    return Err(TargetError::Refused(format!(
                        "`{label}` is already running, as `{run}`"
                    )));
                }
            }
            let names = [Some(name.as_str()), label.as_deref(), cron_job];
            let script = names.into_iter().flatten().find_map(|name| self.scripts.get(name));
            let script = script.cloned().unwrap_or_default();
            let job = FakeJob::start(job, cron_job.map(str::to_string), script, now);
            self.jobs.insert(name.clone(), job);
            self.started.push(name.clone());
        }
        let missing = || TargetError::NotFound(format!("there is no Job `{name}`"));
        self.jobs.get_mut(&name).ok_or_else(missing)
    }

    /// The Job that a CronJob creates.
    pub(super) fn job_of_cron_job(&self, name: &str, run: &str) -> Option<Object> {
        let is_it = |object: &&Object| object.kind == "CronJob" && object.name == name;
        let objects = self.live();
        let cron_job = objects.iter().find(is_it)?;
        let spec = cron_job.value.pointer("/spec/jobTemplate/spec")?;
        let value =
            serde_json::json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": run}, "spec": spec});
        Object::from_value(value, "the fake target").ok()
    }

    pub(super) fn cron_jobs(&self, now: Timestamp) -> Vec<CronJobStatus> {
        let cron_jobs = self.live().into_iter().filter(|object| object.kind == "CronJob");
        cron_jobs.map(|object| self.cron_job(&object, now)).collect()
    }

    fn cron_job(&self, object: &Object, now: Timestamp) -> CronJobStatus {
        let text = |pointer: &str| object.value.pointer(pointer).and_then(Value::as_str);
        let suspended = object.value.pointer("/spec/suspend").and_then(Value::as_bool) == Some(true);
        let schedule = text("/spec/schedule").unwrap_or_default();
        let next_run = Schedule::parse(schedule, text("/spec/timeZone").or(Some("UTC"))).ok();
        let mut status = CronJobStatus {
            name: object.name.clone(),
            schedule: schedule.to_string(),
            suspended,
            image: containers(object).into_iter().next().map(|container| container.image),
            active: 0,
            last_run: None,
            last_success: None,
            next_run: next_run.filter(|_| !suspended).and_then(|schedule| schedule.next(now)),
            failures: Vec::new(),
        };
        let runs = self
            .jobs
            .iter()
            .filter(|(_, job)| job.cron_job.as_deref() == Some(object.name.as_str()));
        for (name, job) in runs {
            status.last_run = status.last_run.max(Some(job.started));
            match &job.end {
                None => status.active += 1,
                Some((end, at)) if end.outcome == Outcome::Succeeded => {
                    status.last_success = status.last_success.max(Some(*at));
                }
                Some((end, at)) => status.failures.push(CronFailure {
                    job: name.clone(),
                    at: Some(*at),
                    message: end.message.clone(),
                }),
            }
        }
        status.failures.sort_by_key(|failure| std::cmp::Reverse(failure.at));
        status
    }

    /// The lines that a workload printed; `None` if it does not exist.
    pub(super) fn lines_of(&self, workload: &ObjectId) -> Option<Vec<String>> {
        if let Some(lines) = self.logs.get(workload) {
            return Some(lines.clone());
        }
        match workload.kind.as_str() {
            "Job" => self.jobs.get(&workload.name).map(FakeJob::printed),
            _ => self.live.contains_key(workload).then(Vec::new),
        }
    }
}

fn label_of(job: &Object) -> Option<String> {
    let labels = job.value.pointer("/metadata/labels")?;
    labels.get(JOB_LABEL)?.as_str().map(str::to_string)
}
