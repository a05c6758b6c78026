//! The target itself.

use super::{
    environment::{FakeEnvironment, FakeHelm, failure},
    faults::{Fault, Faults, Method, Moment},
    job::JobScript,
};
use crate::contract::{Capabilities, SecondApply};
use crate::hooks::{HookRunner, When};
use crate::target::{
    Applied, ApplyError, ApplyRequest, CronJobStatus, Drift, Environment, Finding, HelmRelease, Hold, JobHandle,
    Preflight, Progress, ReleaseRecord, Severity, Target, TargetError, Volumes, WorkloadStatus,
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
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::{Notify, mpsc};
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
    /// Told when a process dies in a call.
    dead: Arc<Notify>,
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
            dead: Arc::default(),
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
    pub fn calls(&self, method: Method) -> usize {
        let state = self.state();
        state.faults.called().iter().filter(|called| **called == method).count()
    }

    /// How often any method was called.
    #[must_use]
    pub fn total_calls(&self) -> usize {
        self.state().faults.called().len()
    }

    /// Every call, in order.
    #[must_use]
    pub fn called(&self) -> Vec<Method> {
        self.state().faults.called().to_vec()
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
    pub fn fail_call(&self, method: Option<Method>, before: usize, moment: Moment) {
        let fault = Fault { moment, kills: false };
        self.state().faults.plan(method, before, fault);
    }

    /// Makes the caller's process die in one call of any method: the one after `before` more calls. That call never returns,
    /// and [`FakeTarget::until_death`] ends.
    pub fn die_in_call(&self, before: usize, moment: Moment) {
        let fault = Fault { moment, kills: true };
        self.state().faults.plan(None, before, fault);
    }

    /// Whether the process still has to die.
    #[must_use]
    pub fn is_death_pending(&self) -> bool {
        self.state().faults.is_death_pending()
    }

    /// Lets the process live.
    pub fn forget_death(&self) {
        self.state().faults.forget_death();
    }

    /// The result of `work`; `None` if the process died in it.
    pub async fn until_death<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.dead.notified() => None,
            result = work => Some(result),
        }
    }

    /// Adds a finding, which counts whenever its object is among those of a request.
    pub fn add_finding(&self, environment: &Environment, finding: Finding) {
        self.with(environment, |environment| environment.findings.push(finding));
    }

    /// Adds a finding about the first object of every request, whichever that is.
    pub fn add_finding_about_all(&self, environment: &Environment, severity: Severity, message: &str) {
        self.with(environment, |environment| {
            environment.findings_about_all.push((severity, message.to_string()));
        });
    }

    /// Removes all findings of [`FakeTarget::add_finding`] and [`FakeTarget::add_finding_about_all`].
    pub fn clear_findings(&self, environment: &Environment) {
        self.with(environment, |environment| {
            environment.findings.clear();
            environment.findings_about_all.clear();
        });
    }

    /// Makes every `apply` of an image that contains `part` fail with this outcome, after it has applied its objects.
    pub fn break_image(&self, environment: &Environment, part: &str, outcome: Outcome) {
        self.with(environment, |environment| {
            environment.broken_images.push((part.to_string(), outcome));
        });
    }

    /// Ends what [`FakeTarget::break_image`] began.
    pub fn mend_images(&self, environment: &Environment) {
        self.with(environment, |environment| environment.broken_images.clear());
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

    /// The names of all runs of jobs that were started, each as often as it was.
    #[must_use]
    pub fn started(&self, environment: &Environment) -> Vec<String> {
        self.with(environment, |environment| environment.started.clone())
    }

    /// Scripts the logs of a workload.
    pub fn script_logs(&self, environment: &Environment, workload: ObjectId, lines: Vec<String>) {
        self.with(environment, |environment| environment.logs.insert(workload, lines));
    }

    /// Sets the result of `fingerprints`.
    pub fn set_fingerprints(&self, environment: &Environment, fingerprints: Fingerprints) {
        self.with(environment, |environment| environment.fingerprints = fingerprints);
    }

    /// Sets what Helm has left.
    pub fn set_helm(&self, environment: &Environment, helm: FakeHelm) {
        self.with(environment, |environment| environment.helm = helm);
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

    /// The error of a call that a fault stops. Never returns if the process dies.
    async fn stop(&self, fault: Fault, method: Method) -> TargetError {
        if fault.kills {
            self.dead.notify_one();
            return pending().await;
        }
        self.state().faults.error(method)
    }

    /// A call of `method` with this effect, with the faults that the test has planned.
    async fn call<T: Send>(
        &self,
        method: Method,
        effect: impl FnOnce(&mut HashMap<Environment, FakeEnvironment>) -> Result<T, TargetError> + Send,
    ) -> Result<T, TargetError> {
        let fault = self.state().faults.begin(method);
        if let Some(fault) = fault.filter(|fault| fault.moment != Moment::After) {
            return Err(self.stop(fault, method).await);
        }
        let result = effect(&mut self.state().environments);
        match fault {
            Some(fault) => Err(self.stop(fault, method).await),
            None => result,
        }
    }

    /// A call that only reads one environment.
    async fn read<T: Send>(
        &self,
        method: Method,
        environment: &Environment,
        read: impl FnOnce(&FakeEnvironment) -> T + Send,
    ) -> Result<T, TargetError> {
        let read = |environments: &mut HashMap<Environment, FakeEnvironment>| {
            let empty = FakeEnvironment::default();
            Ok(read(environments.get(environment).unwrap_or(&empty)))
        };
        self.call(method, read).await
    }

    /// Carries a request out; only to its middle if `is_cut_off`.
    async fn carry_out(
        &self,
        mut request: ApplyRequest,
        progress: &mpsc::UnboundedSender<Progress>,
        is_cut_off: bool,
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
            let scripted = (environment.next_failure(&request), environment.delays.pop_front());
            Ok::<_, String>((scripted, environment.paused.subscribe()))
        });
        let ((scripted, delay), mut paused) = begun.map_err(refusal)?;
        let mut running = Running {
            target: self,
            request: &request,
            has_ended: false,
        };
        let deadline = tokio::time::Instant::now() + request.deadline;
        let hooks = HookRunner::new(self, &request, deadline, progress);
        let before = hooks.run(When::Before).await;
        if before.is_err() {
            running.end(&before);
            return before;
        }
        let count = match is_cut_off {
            true => request.objects.len() / 2,
            false => request.objects.len(),
        };
        let changes = self.with(&environment, |environment| {
            environment.apply_objects(&request.objects[..count])
        });
        for (id, kind) in changes {
            match kind {
                ChangeKind::Created => tell(progress, id, "created"),
                ChangeKind::Changed => tell(progress, id, "changed"),
                ChangeKind::Unchanged | ChangeKind::Deleted => {}
            }
        }
        if is_cut_off {
            return Err(failure(Outcome::Errored, "it was cut off in the middle"));
        }
        if let Some(delay) = delay {
            tokio::time::sleep(delay).await;
        }
        // The environment keeps the sender, so this does not fail.
        let _ = paused.wait_for(|paused| !paused).await;
        let after = match scripted {
            Some(error) => Err(error),
            None => hooks.run(When::After).await,
        };
        let result = match after {
            Err(error) => Err(error),
            Ok(()) => {
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

/// An `apply` that has begun. Dropping its future leaves what a process leaves that dies: the record of a release that never
/// ended, until the next `apply`.
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
            self.target.with(&self.request.environment, |environment| {
                environment.deploying = None;
            });
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
            .await
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
            .await
        })
    }

    fn helm_releases<'a>(
        &'a self,
        environment: &'a Environment,
    ) -> BoxFuture<'a, Result<Option<Vec<HelmRelease>>, TargetError>> {
        Box::pin(async { Ok(self.with(environment, |environment| environment.helm.recorded.clone())) })
    }

    fn has_helm_deployed<'a>(
        &'a self,
        environment: &'a Environment,
        _: &'a [Object],
    ) -> BoxFuture<'a, Result<bool, TargetError>> {
        Box::pin(async { Ok(self.with(environment, |environment| environment.helm.has_deployed)) })
    }

    fn releases<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Vec<ReleaseRecord>, TargetError>> {
        Box::pin(async move {
            self.read(Method::Releases, environment, FakeEnvironment::releases)
                .await
        })
    }

    fn current<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Option<Applied>, TargetError>> {
        Box::pin(async move { self.read(Method::Current, environment, FakeEnvironment::applied).await })
    }

    fn apply(
        &self,
        request: ApplyRequest,
        progress: mpsc::UnboundedSender<Progress>,
    ) -> BoxFuture<'_, Result<(), ApplyError>> {
        Box::pin(async move {
            let errored = |error: TargetError| failure(Outcome::Errored, error.chain());
            let fault = self.state().faults.begin(Method::Apply);
            if let Some(fault) = fault.filter(|fault| fault.moment == Moment::Before) {
                return Err(errored(self.stop(fault, Method::Apply).await));
            }
            let is_cut_off = fault.is_some_and(|fault| fault.moment == Moment::Middle);
            let result = self.carry_out(request, &progress, is_cut_off).await;
            match fault {
                Some(fault) => Err(errored(self.stop(fault, Method::Apply).await)),
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
            .await
        })
    }

    fn status<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Vec<WorkloadStatus>, TargetError>> {
        Box::pin(async move { self.read(Method::Status, environment, FakeEnvironment::statuses).await })
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
            .await
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
            .await
        })
    }

    fn cron_jobs<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Vec<CronJobStatus>, TargetError>> {
        let now = (self.now)();
        Box::pin(async move {
            self.read(Method::CronJobs, environment, |environment| environment.cron_jobs(now))
                .await
        })
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
            .await
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
            .await
        })
    }

    fn start_cron_job<'a>(
        &'a self,
        environment: &'a Environment,
        name: &'a str,
        run: &'a str,
        _: Option<Duration>,
    ) -> BoxFuture<'a, Result<JobHandle, TargetError>> {
        Box::pin(async move {
            let now = (self.now)();
            self.call(Method::StartCronJob, |environments| {
                let missing = || TargetError::NotFound(format!("{environment} has no CronJob `{name}`"));
                let environment = environments.get_mut(environment).ok_or_else(missing)?;
                let job = environment.job_of_cron_job(name, run).ok_or_else(missing)?;
                Ok(environment.start_job(job, Some(name), false, now)?.follow(run))
            })
            .await
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
                let jobs = jobs.filter(|jobs| jobs.contains_key(name)).ok_or_else(missing)?;
                match jobs.get_mut(name) {
                    Some(job) if job.end.is_none() => job.cancel(now),
                    // As on a cluster, somebody who asks for this run later starts it anew.
                    _ => drop(jobs.remove(name)),
                }
                Ok(())
            })
            .await
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
            let lines = self
                .read(Method::Logs, environment, |environment| environment.lines_of(workload))
                .await?;
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
            .await
        })
    }
}
