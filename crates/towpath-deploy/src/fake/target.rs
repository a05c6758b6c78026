//! The target itself.

use super::{
    environment::{FakeEnvironment, failure},
    faults::{Faults, Method, Moment},
    job::JobScript,
};
use crate::contract::{Capabilities, SecondApply};
use crate::target::{
    Applied, ApplyError, ApplyRequest, CronJobStatus, Drift, Environment, Finding, Hold, JobHandle, Preflight,
    Progress, ReleaseRecord, Target, TargetError, Volumes, WorkloadStatus,
};
use bytes::Bytes;
use futures::{
    StreamExt as _,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use jiff::Timestamp;
use serde_json::Value;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::mpsc;
use towpath_manifest::{ChangeKind, Fingerprints, Object, ObjectId};
use towpath_types::{Outcome, ReleaseId};

#[derive(Default)]
struct State {
    environments: HashMap<Environment, FakeEnvironment>,
    faults: Faults,
}

/// A target in memory. Clones share their environments.
#[derive(Clone)]
pub struct FakeTarget {
    capabilities: Capabilities,
    now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    state: Arc<Mutex<State>>,
}

impl Default for FakeTarget {
    /// Behaves like the Kubernetes target.
    fn default() -> Self {
        Self::new(Capabilities::KUBERNETES)
    }
}

/// Keeps every `apply` of an environment waiting after it has begun, until this is dropped.
pub struct Pause {
    paused: tokio::sync::watch::Sender<bool>,
}

impl Drop for Pause {
    fn drop(&mut self) {
        self.paused.send_replace(false);
    }
}

impl FakeTarget {
    /// A target without environments.
    #[must_use]
    pub fn new(capabilities: Capabilities) -> Self {
        Self {
            capabilities,
            now: Arc::new(Timestamp::now),
            state: Arc::default(),
        }
    }

    /// Uses another clock, for holds and records.
    #[must_use]
    pub fn with_clock(mut self, now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        self.now = Arc::new(now);
        self
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, environment: &Environment, with: impl FnOnce(&mut FakeEnvironment) -> T) -> T {
        let mut state = self.state();
        with(state.environments.entry(environment.clone()).or_default())
    }

    /// How often a method was called, including calls that failed.
    #[must_use]
    pub fn calls(&self, method: Method) -> u64 {
        self.state().faults.calls(method)
    }

    /// How often any method was called.
    #[must_use]
    pub fn total_calls(&self) -> u64 {
        self.state().faults.total()
    }

    /// Counts from zero again.
    pub fn reset_calls(&self) {
        self.state().faults.reset_calls();
    }

    /// Makes every call fail with this reason, before it has an effect; `None` ends that.
    pub fn set_unreachable(&self, why: Option<&str>) {
        self.state().faults.set_unreachable(why.map(str::to_string));
    }

    /// Makes one call fail: the one after `before` more calls, of `method` or of any.
    pub fn fail_call(&self, method: Option<Method>, before: u64, moment: Moment) {
        self.state().faults.plan(method, before, moment);
    }

    /// Adds a finding, which counts whenever its object is among those of a request.
    pub fn add_finding(&self, environment: &Environment, finding: Finding) {
        self.with(environment, |environment| environment.findings.push(finding));
    }

    /// Removes all findings of [`FakeTarget::add_finding`].
    pub fn clear_findings(&self, environment: &Environment) {
        self.with(environment, |environment| environment.findings.clear());
    }

    /// Makes the next `apply` that is not refused fail after it has applied its objects. Calls add up.
    pub fn fail_next_apply(&self, environment: &Environment, error: ApplyError) {
        self.with(environment, |environment| environment.failures.push_back(error));
    }

    /// Makes the next `apply` that is not refused take this long. Calls add up.
    pub fn delay_next_apply(&self, environment: &Environment, delay: Duration) {
        self.with(environment, |environment| environment.delays.push_back(delay));
    }

    /// Keeps every `apply` of an environment waiting after it has begun.
    #[must_use]
    pub fn pause(&self, environment: &Environment) -> Pause {
        let paused = self.with(environment, |environment| environment.paused.clone());
        paused.send_replace(true);
        Pause { paused }
    }

    /// Scripts all later runs with this name: of a run, of a job by its label, or of a CronJob. Other runs print nothing and
    /// succeed.
    pub fn script_job(&self, environment: &Environment, name: &str, script: JobScript) {
        self.with(environment, |environment| {
            environment.scripts.insert(name.to_string(), script)
        });
    }

    /// Scripts the logs of a workload.
    pub fn script_logs(&self, environment: &Environment, workload: ObjectId, lines: Vec<String>) {
        self.with(environment, |environment| environment.logs.insert(workload, lines));
    }

    /// Sets the result of `fingerprints`.
    pub fn set_fingerprints(&self, environment: &Environment, fingerprints: Fingerprints) {
        self.with(environment, |environment| environment.fingerprints = fingerprints);
    }

    /// Changes an object as the field manager `manager`, behind Towpath's back.
    pub fn tamper(&self, environment: &Environment, id: &ObjectId, manager: &str, change: impl FnOnce(&mut Value)) {
        let now = (self.now)();
        self.with(environment, |environment| environment.tamper(id, manager, now, change));
    }

    /// Deletes an object behind Towpath's back.
    pub fn remove(&self, environment: &Environment, id: &ObjectId) {
        self.with(environment, |environment| environment.remove(id));
    }

    /// The objects of an environment as they are now, in the order of application.
    #[must_use]
    pub fn live(&self, environment: &Environment) -> Vec<Object> {
        self.with(environment, |environment| environment.live())
    }

    /// Every request that has begun, oldest first.
    #[must_use]
    pub fn requests(&self, environment: &Environment) -> Vec<ApplyRequest> {
        self.with(environment, |environment| environment.requests.clone())
    }

    /// The names of all runs of jobs that were started.
    #[must_use]
    pub fn runs(&self, environment: &Environment) -> Vec<String> {
        self.with(environment, |environment| environment.jobs.keys().cloned().collect())
    }

    /// A call of `method` with this effect, with the faults that the test has planned.
    fn call<T>(
        &self,
        method: Method,
        effect: impl FnOnce(&mut HashMap<Environment, FakeEnvironment>) -> Result<T, TargetError>,
    ) -> Result<T, TargetError> {
        let mut state = self.state();
        let fails = state.faults.begin(method);
        if fails == Some(Moment::Before) {
            return Err(state.faults.error(method));
        }
        let result = effect(&mut state.environments);
        match fails {
            Some(_) => Err(state.faults.error(method)),
            None => result,
        }
    }

    /// A call that only reads one environment.
    fn read<T>(
        &self,
        method: Method,
        environment: &Environment,
        read: impl FnOnce(&FakeEnvironment) -> T,
    ) -> Result<T, TargetError> {
        self.call(method, |environments| {
            let empty = FakeEnvironment::default();
            Ok(read(environments.get(environment).unwrap_or(&empty)))
        })
    }

    async fn carry_out(
        &self,
        mut request: ApplyRequest,
        progress: &mpsc::UnboundedSender<Progress>,
    ) -> Result<(), ApplyError> {
        let refusal = |message: String| failure(Outcome::Rejected, message);
        let environment = request.environment.clone();
        let allowed = self.with(&environment, |environment| {
            environment.refuse(&request, self.capabilities.enforces_holds, (self.now)())
        });
        allowed.map_err(refusal)?;
        let turn = self.with(&environment, |environment| Arc::clone(&environment.turn));
        let _turn = match (turn.clone().try_lock_owned(), self.capabilities.second_apply) {
            (Ok(turn), _) => turn,
            (Err(_), SecondApply::Waits) => {
                let message = "somebody else is deploying here; waiting for that deployment to end".to_string();
                let _ = progress.send(Progress { object: None, message });
                turn.lock_owned().await
            }
            (Err(_), SecondApply::IsRefused) => {
                return Err(refusal(format!("another deployment of {environment} is running")));
            }
        };
        // Somebody may have set a hold in the meantime.
        let begun = self.with(&environment, |environment| {
            environment.refuse(&request, self.capabilities.enforces_holds, (self.now)())?;
            environment.begin(&mut request, self.capabilities.records_releases, (self.now)())?;
            let scripted = (environment.failures.pop_front(), environment.delays.pop_front());
            Ok::<_, String>((scripted, environment.paused.subscribe()))
        });
        let ((failure, delay), mut paused) = begun.map_err(refusal)?;
        let mut running = Running {
            target: self,
            request: &request,
            has_ended: false,
        };
        let changes = self.with(&environment, |environment| environment.apply_objects(&request));
        for (id, kind) in changes {
            match kind {
                ChangeKind::Created => tell(progress, id, "created"),
                ChangeKind::Changed => tell(progress, id, "changed"),
                ChangeKind::Unchanged | ChangeKind::Deleted => {}
            }
        }
        if let Some(delay) = delay {
            tokio::time::sleep(delay).await;
        }
        // The environment keeps the sender, so this does not fail.
        let _ = paused.wait_for(|paused| !paused).await;
        let result = match failure {
            Some(error) => Err(error),
            None => {
                let pruned = self.with(&environment, |environment| environment.prune(&request));
                pruned.into_iter().for_each(|id| tell(progress, id, "removed"));
                Ok(())
            }
        };
        running.end(&result);
        result
    }
}

fn tell(progress: &mpsc::UnboundedSender<Progress>, object: ObjectId, message: &str) {
    // It is fine if nobody listens.
    let _ = progress.send(Progress {
        object: Some(object),
        message: message.to_string(),
    });
}

/// An `apply` that has begun. Dropping its future ends it as if its process had died.
struct Running<'a> {
    target: &'a FakeTarget,
    request: &'a ApplyRequest,
    has_ended: bool,
}

impl Running<'_> {
    fn end(&mut self, result: &Result<(), ApplyError>) {
        self.has_ended = true;
        let now = (self.target.now)();
        self.target.with(&self.request.environment, |environment| {
            environment.end(self.request, result, now);
        });
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.has_ended {
            let why = "the process that carried it out died before it ended";
            self.end(&Err(failure(Outcome::Errored, why)));
        }
    }
}

impl Target for FakeTarget {
    fn preflight<'a>(
        &'a self,
        environment: &'a Environment,
        objects: &'a [Object],
        prune: &'a [ObjectId],
    ) -> BoxFuture<'a, Result<Preflight, TargetError>> {
        Box::pin(async move {
            self.read(Method::Preflight, environment, |environment| Preflight {
                findings: environment.findings_about(objects),
                changes: self
                    .capabilities
                    .predicts_changes
                    .then(|| environment.changes(objects, prune)),
            })
        })
    }

    fn fingerprints<'a>(
        &'a self,
        environment: &'a Environment,
        _: &'a [Object],
    ) -> BoxFuture<'a, Result<Fingerprints, TargetError>> {
        Box::pin(async move {
            self.read(Method::Fingerprints, environment, |environment| {
                environment.fingerprints.clone()
            })
        })
    }

    fn releases<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Vec<ReleaseRecord>, TargetError>> {
        Box::pin(async move { self.read(Method::Releases, environment, FakeEnvironment::releases) })
    }

    fn current<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Option<Applied>, TargetError>> {
        Box::pin(async move { self.read(Method::Current, environment, FakeEnvironment::applied) })
    }

    fn apply(
        &self,
        request: ApplyRequest,
        progress: mpsc::UnboundedSender<Progress>,
    ) -> BoxFuture<'_, Result<(), ApplyError>> {
        Box::pin(async move {
            let errored = |error: TargetError| failure(Outcome::Errored, error.chain());
            let fails = self.state().faults.begin(Method::Apply);
            if fails == Some(Moment::Before) {
                return Err(errored(self.state().faults.error(Method::Apply)));
            }
            let result = self.carry_out(request, &progress).await;
            match fails {
                Some(_) => Err(errored(self.state().faults.error(Method::Apply))),
                None => result,
            }
        })
    }

    fn count_repeat<'a>(
        &'a self,
        environment: &'a Environment,
        id: ReleaseId,
        at: Timestamp,
    ) -> BoxFuture<'a, Result<(), TargetError>> {
        Box::pin(async move {
            self.call(Method::CountRepeat, |environments| {
                let environment = environments.entry(environment.clone()).or_default();
                environment.count_repeat(id, at);
                Ok(())
            })
        })
    }

    fn status<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Vec<WorkloadStatus>, TargetError>> {
        Box::pin(async move { self.read(Method::Status, environment, FakeEnvironment::statuses) })
    }

    fn drift<'a>(
        &'a self,
        environment: &'a Environment,
        objects: &'a [Object],
    ) -> BoxFuture<'a, Result<Vec<Drift>, TargetError>> {
        Box::pin(async move {
            self.read(Method::Drift, environment, |environment| {
                match self.capabilities.finds_drift {
                    true => environment.drift(objects),
                    false => Vec::new(),
                }
            })
        })
    }

    fn set_hold<'a>(
        &'a self,
        environment: &'a Environment,
        hold: Option<Hold>,
    ) -> BoxFuture<'a, Result<(), TargetError>> {
        Box::pin(async move {
            self.call(Method::SetHold, |environments| {
                environments.entry(environment.clone()).or_default().hold = hold;
                Ok(())
            })
        })
    }

    fn cron_jobs<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Vec<CronJobStatus>, TargetError>> {
        let now = (self.now)();
        Box::pin(async move { self.read(Method::CronJobs, environment, |environment| environment.cron_jobs(now)) })
    }

    fn run_job<'a>(
        &'a self,
        environment: &'a Environment,
        job: Object,
        _: Option<Duration>,
    ) -> BoxFuture<'a, Result<JobHandle, TargetError>> {
        Box::pin(async move {
            let (now, excludes) = ((self.now)(), self.capabilities.runs_exclude_each_other);
            self.call(Method::RunJob, |environments| {
                let environment = environments.entry(environment.clone()).or_default();
                let name = job.name.clone();
                Ok(environment.start_job(job, None, excludes, now)?.follow(&name))
            })
        })
    }

    fn follow_job<'a>(
        &'a self,
        environment: &'a Environment,
        name: &'a str,
        _: Option<Duration>,
    ) -> BoxFuture<'a, Result<JobHandle, TargetError>> {
        Box::pin(async move {
            self.call(Method::FollowJob, |environments| {
                let missing = || TargetError::NotFound(format!("{environment} has no Job `{name}`"));
                let known = environments.get_mut(environment).ok_or_else(missing)?;
                Ok(known.jobs.get_mut(name).ok_or_else(missing)?.follow(name))
            })
        })
    }

    fn start_cron_job<'a>(
        &'a self,
        environment: &'a Environment,
        name: &'a str,
        _: Option<Duration>,
    ) -> BoxFuture<'a, Result<JobHandle, TargetError>> {
        Box::pin(async move {
            let now = (self.now)();
            self.call(Method::StartCronJob, |environments| {
                let missing = || TargetError::NotFound(format!("{environment} has no CronJob `{name}`"));
                let run = format!("{name}-{}", now.as_second());
                let environment = environments.get_mut(environment).ok_or_else(missing)?;
                let job = environment.job_of_cron_job(name, &run).ok_or_else(missing)?;
                Ok(environment.start_job(job, Some(name), false, now)?.follow(&run))
            })
        })
    }

    fn cancel_job<'a>(&'a self, environment: &'a Environment, name: &'a str) -> BoxFuture<'a, Result<(), TargetError>> {
        Box::pin(async move {
            let now = (self.now)();
            self.call(Method::CancelJob, |environments| {
                let missing = || TargetError::NotFound(format!("{environment} has no Job `{name}`"));
                let jobs = environments
                    .get_mut(environment)
                    .map(|environment| &mut environment.jobs);
                let job = jobs.and_then(|jobs| jobs.get_mut(name)).ok_or_else(missing)?;
                job.cancel(now);
                Ok(())
            })
        })
    }

    fn logs<'a>(
        &'a self,
        environment: &'a Environment,
        workload: &'a ObjectId,
        tail: u32,
        _: bool,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Bytes>, TargetError>> {
        Box::pin(async move {
            let lines = self.read(Method::Logs, environment, |environment| environment.lines_of(workload))?;
            let missing = || TargetError::NotFound(format!("{environment} has no {workload}"));
            let lines = lines.ok_or_else(missing)?;
            let skip = lines.len().saturating_sub(usize::try_from(tail).unwrap_or(usize::MAX));
            let lines = lines
                .into_iter()
                .skip(skip)
                .map(|line| Bytes::from(format!("{line}\n")));
            Ok(stream::iter(lines.collect::<Vec<_>>()).boxed())
        })
    }

    fn delete_environment<'a>(
        &'a self,
        environment: &'a Environment,
        _: Volumes,
    ) -> BoxFuture<'a, Result<(), TargetError>> {
        Box::pin(async move {
            self.call(Method::DeleteEnvironment, |environments| {
                environments.remove(environment);
                Ok(())
            })
        })
    }
}
