//! Releases: plans that are carried out, one at a time in an environment, and what a laptop asks for beside them.

use crate::{
    Control, ControlError, Grant, OnFailure, PROJECT_FILE, ProjectFile, Settings, TargetSettings,
    conductor::{store_error, to_json},
    plans::{
        Environments, Plan, PlanSource, environments_in, fill_in, image_repository_in, manifest_files,
        namespace_pattern, read_job, target_id,
    },
    push::forge_error,
    records::{WorkflowRecord, collection},
    views::{
        DriftView, EnvironmentView, LaptopRequest, ManifestFile, PlanView, Progress, ProjectView, ReleaseView,
        WorkloadView,
    },
};
use jiff::{SignedDuration, Timestamp};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::{Notify, mpsc};
use towpath_deploy::render::{RenderError, RenderFailure};
use towpath_deploy::{
    Applied, ApplyError, ApplyRequest, Environment, JOB_LABEL, JobHandle, JobLine, KubernetesOptions, KubernetesTarget,
    Occasion, PULL_SECRET, ReleaseRecord, Target, TargetError,
};
use towpath_manifest::{Object, with_pull_secret};
use towpath_store::{Batch, ReleaseRow, Row};
use towpath_types::{CommitId, ImageReference, JobId, Outcome, ReleaseId, WorkflowId, with_causes};

/// How long all of a release may take; each Deployment has its own deadline besides.
const RELEASE_DEADLINE: Duration = Duration::from_secs(30 * 60);
/// How long a question for new lines is held open.
const PROGRESS_POLL: Duration = Duration::from_secs(20);
/// How many releases `history` shows.
const HISTORY: u32 = 50;

/// A length of time that a project's file says.
pub(crate) fn length(said: Option<SignedDuration>) -> Option<Duration> {
    said.and_then(|said| said.try_into().ok())
}

/// What this process knows of releases and one-off jobs under way.
#[derive(Default)]
pub(crate) struct Releases {
    progress: Mutex<HashMap<String, Arc<ProgressLog>>>,
    /// One deployment at a time in an environment; the next waits here.
    turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// The environments of a project at a commit.
    environments: Mutex<HashMap<(String, CommitId), Environments>>,
    /// The environments of projects whose repositories are not here, as their owners' manifests say.
    shown: Mutex<HashMap<String, Environments>>,
    /// What was found when drift was looked for last, by the environment's slug.
    drift: Mutex<HashMap<String, DriftView>>,
}

/// The lines of one release or one-off job.
#[derive(Default)]
pub(crate) struct ProgressLog {
    state: Mutex<Lines>,
    grown: Notify,
}

#[derive(Default)]
struct Lines {
    lines: Vec<String>,
    ended: Option<(Outcome, Option<i32>)>,
}

impl ProgressLog {
    fn say(&self, line: impl Into<String>) {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .lines
            .push(line.into());
        self.grown.notify_waiters();
    }

    fn end(&self, outcome: Outcome, exit_code: Option<i32>) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).ended = Some((outcome, exit_code));
        self.grown.notify_waiters();
    }

    fn from(&self, from: usize) -> Progress {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Progress {
            lines: state.lines.get(from..).unwrap_or_default().to_vec(),
            next: state.lines.len().max(from),
            outcome: state.ended.map(|(outcome, _)| outcome),
            exit_code: state.ended.and_then(|(_, code)| code),
        }
    }
}

impl Releases {
    fn log(&self, id: &str) -> Arc<ProgressLog> {
        self.progress
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(id.to_string())
            .or_default()
            .clone()
    }

    fn known(&self, id: &str) -> Option<Arc<ProgressLog>> {
        self.progress
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(id)
            .cloned()
    }

    pub(crate) fn remember_drift(&self, environment: &str, view: DriftView) {
        let mut drift = self.drift.lock().unwrap_or_else(PoisonError::into_inner);
        drift.insert(environment.to_string(), view);
    }

    fn forget_drift(&self, environment: &str) {
        let mut drift = self.drift.lock().unwrap_or_else(PoisonError::into_inner);
        drift.remove(environment);
    }

    fn turn(&self, environment: &str) -> Arc<tokio::sync::Mutex<()>> {
        self.turns
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(environment.to_string())
            .or_default()
            .clone()
    }
}

/// A release with the plan that it carried out.
pub(crate) struct Release {
    pub row: ReleaseRow,
}

impl Release {
    pub(crate) fn plan(&self) -> Result<Plan, ControlError> {
        serde_json::from_value(self.row.plan.clone()).map_err(|error| {
            ControlError::internal(format!("the plan of release {} cannot be read", self.row.number)).caused_by(error)
        })
    }
}

impl Control {
    /// The newest release of an environment that succeeded: what runs there.
    pub(crate) async fn last_release(&self, environment: &str) -> Result<Option<Release>, ControlError> {
        let row = self.store.last_release(environment, Some("succeeded")).await;
        Ok(row.map_err(store_error)?.map(|row| Release { row }))
    }

    /// Records a release and begins to carry it out.
    pub(crate) async fn begin_release(
        self: &Arc<Self>,
        plan: Plan,
        cause: &str,
        by: &str,
        also: impl FnOnce(&mut Batch, ReleaseId),
    ) -> Result<ReleaseId, ControlError> {
        if !plan.blockers.is_empty() {
            return Err(ControlError::conflict(format!(
                "the plan cannot be carried out:\n{}",
                plan.blockers.join("\n")
            )));
        }
        self.refuse_held(&plan.target()?, by).await?;
        self.refuse_under_way(&plan.target()?).await?;
        let row = ReleaseRow {
            id: ReleaseId::from(uuid::Uuid::now_v7()),
            environment: target_id(&plan.project, &plan.environment)?.slug(),
            number: 0,
            state: "running".into(),
            image: plan.image.to_string(),
            commit: plan.commit.clone(),
            by: by.to_string(),
            cause: cause.to_string(),
            at: Timestamp::now(),
            stopped_at: None,
            message: None,
            plan: to_json(&plan)?,
        };
        let id = row.id;
        let mut batch = Batch::default();
        batch.put(Row::Release(row));
        also(&mut batch, id);
        self.store.commit(batch).await.map_err(store_error)?;
        self.carry_release_out(id);
        Ok(id)
    }

    /// An error while somebody deploys to the environment: a plan that is made meanwhile is of what will not be there any more.
    pub(crate) async fn refuse_under_way(&self, place: &Environment) -> Result<(), ControlError> {
        let name = place.id.environment();
        let applied = self.target.current(place).await.map_err(target_error)?;
        if let Some(deploying) = applied.and_then(|applied| applied.deploying) {
            return Err(ControlError::conflict(format!(
                "{} is deploying to {name} since {} ({}): when that has ended, look at what is to change, and deploy then",
                deploying.by, deploying.since, deploying.what
            )));
        }
        let running = self.store.last_release(&place.id.slug(), Some("running")).await;
        match running.map_err(store_error)? {
            Some(row) => Err(ControlError::conflict(format!(
                "{} is deploying release {} to {name} since {} ({}): when that has ended, look at what is to change, and deploy then",
                row.by, row.number, row.at, row.cause
            ))),
            None => Ok(()),
        }
    }

    fn carry_release_out(self: &Arc<Self>, id: ReleaseId) {
        let control = self.clone();
        let log = self.releases.log(&id.to_string());
        self.tasks.spawn(async move {
            let shutdown = control.shutdown.clone();
            tokio::select! {
                // What was begun goes on in the environment; the next start waits for its end.
                () = shutdown.cancelled() => {}
                result = control.release(id, &log) => if let Err(error) = result {
                    tracing::error!(release = %id, error = error.chain(), "failed to carry a release out");
                    log.say(format!("error: {}", error.chain()));
                    log.end(Outcome::Errored, None);
                }
            }
        });
    }

    /// Takes up the releases that an earlier process was carrying out.
    pub(crate) async fn resume_releases(self: &Arc<Self>) -> Result<(), ControlError> {
        for row in self.store.running_releases().await.map_err(store_error)? {
            tracing::info!(release = %row.id, environment = row.environment, "release taken up again");
            self.carry_release_out(row.id);
        }
        Ok(())
    }

    async fn release(self: &Arc<Self>, id: ReleaseId, log: &ProgressLog) -> Result<(), ControlError> {
        let missing = || ControlError::internal(format!("release {id} was not recorded"));
        let mut row = self.store.release(id).await.map_err(store_error)?.ok_or_else(missing)?;
        let plan = Release { row: row.clone() }.plan()?;
        let turn = self.releases.turn(&row.environment);
        let _turn = match turn.try_lock() {
            Ok(guard) => guard,
            Err(_) => {
                log.say(format!("waiting for another deployment to {} to end", plan.environment));
                turn.lock().await
            }
        };
        let result = self.carry_plan_out(&row, &plan, log).await;
        row.stopped_at = Some(Timestamp::now());
        let outcome = match result {
            Ok(()) => {
                row.state = "succeeded".into();
                log.say(format!("{} runs {}", plan.environment, plan.image));
                // What had drifted is put right.
                self.releases.forget_drift(&row.environment);
                Outcome::Succeeded
            }
            Err(failed) => {
                log.say(failed.say);
                row.state = failed.outcome.as_str().into();
                row.message = Some(failed.message);
                failed.outcome
            }
        };
        let mut batch = Batch::default();
        batch.put(Row::Release(row));
        self.store.commit(batch).await.map_err(store_error)?;
        log.end(outcome, None);
        // Where releases are recorded beside this storage, it may have got another number.
        if let Err(error) = self.learn_releases(&plan.target()?).await {
            tracing::warn!(release = %id, error = error.chain(), "the environment's own record is not read");
        }
        Ok(())
    }

    async fn carry_plan_out(&self, row: &ReleaseRow, plan: &Plan, log: &ProgressLog) -> Result<(), NotReleased> {
        let errored = |error: ControlError| NotReleased::new(Outcome::Errored, error.chain());
        let environment = plan.target().map_err(errored)?;
        self.learn_releases(&environment).await.map_err(errored)?;
        let previous = self.last_release(&row.environment).await.map_err(errored)?;
        if previous.as_ref().map(|release| release.row.id) != plan.parent {
            let runs = previous.map_or_else(|| "nothing".into(), |release| format!("release {}", release.row.number));
            let message = format!(
                "{} changed since this plan was made: {runs} runs there now. Look at a new plan",
                plan.environment
            );
            return Err(NotReleased::new(Outcome::Rejected, message));
        }
        log.say(format!(
            "release {} of {}: {}",
            row.number, plan.environment, plan.image
        ));
        for warning in &plan.warnings {
            log.say(format!("  note: {warning}"));
        }
        let error = match self.apply(plan, Occasion::Release, record_of(row), log).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let mut message = error.to_string();
        for line in &error.log {
            message.push_str("\n  | ");
            message.push_str(line);
        }
        if error.outcome == Outcome::Rejected {
            return Err(NotReleased::new(
                error.outcome,
                format!("{message}\nNothing was changed."),
            ));
        }
        let Some(previous) = previous.filter(|_| plan.on_failure == OnFailure::Rollback) else {
            if let Some(runs) = self.last_release(&row.environment).await.map_err(errored)? {
                let message = format!(
                    "{message}\nIt was left like this: {} is between release {} and this one. `towpath rollback {} {}` puts that back.",
                    plan.environment, runs.row.number, plan.environment, runs.row.number
                );
                return Err(NotReleased::new(error.outcome, message));
            }
            let message = format!("{message}\nThere was no release before this one to go back to.");
            return Err(NotReleased::new(error.outcome, message));
        };
        // Going back takes its time; why is known now.
        log.say(message.clone());
        log.say(format!("failed; going back to release {}", previous.row.number));
        let back = match previous.plan() {
            Ok(plan) => self
                .apply(&plan, Occasion::Back, record_of(&previous.row), log)
                .await
                .map_err(|error| error.to_string()),
            Err(error) => Err(error.chain()),
        };
        let say = match back {
            Ok(()) => format!("Release {} runs again.", previous.row.number),
            Err(why) => format!(
                "Going back to release {} failed too, so {} is between the two: {why}",
                previous.row.number, plan.environment
            ),
        };
        Err(NotReleased {
            outcome: error.outcome,
            message: format!("{message}\n{say}"),
            say,
        })
    }

    async fn apply(
        &self,
        plan: &Plan,
        occasion: Occasion,
        record: ReleaseRecord,
        log: &ProgressLog,
    ) -> Result<(), ApplyError> {
        let errored = |error: ControlError| ApplyError {
            outcome: Outcome::Errored,
            object: None,
            message: error.chain(),
            log: Vec::new(),
            running: Vec::new(),
        };
        let environment = plan.target().map_err(errored)?;
        let prune = self.to_prune(&environment, &plan.objects).await.map_err(errored)?;
        let request = ApplyRequest {
            environment,
            occasion,
            record,
            objects: plan.objects.clone(),
            prune,
            deadline: length(plan.wait.release).unwrap_or(RELEASE_DEADLINE),
            unschedulable: length(plan.wait.unschedulable),
        };
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let apply = self.target.apply(request, sender);
        tokio::pin!(apply);
        loop {
            tokio::select! {
                biased;
                Some(progress) = receiver.recv() => {
                    let object = progress.object.map(|object| format!("{object}: ")).unwrap_or_default();
                    log.say(format!("  {object}{}", progress.message));
                }
                result = &mut apply => return result,
            }
        }
    }

    /// Carries out what a step's `towpath deploy ENV` asks for: the plan that its gate approved. Asked again by the same
    /// job, it is the same release.
    ///
    /// # Errors
    /// When the gate in front of the job approved no plan of this environment, or the plan is stale.
    pub async fn agent_deploy(self: &Arc<Self>, job: JobId, environment: &str) -> Result<ReleaseId, ControlError> {
        let key = format!("{job}/{environment}");
        if let Some(id) = self.document::<ReleaseId>(collection::JOB_RELEASES, &key).await? {
            return Ok(id);
        }
        let record = self.record_of(job).await?;
        let (plan, cause, by) = self.plan_for_job(&record, job, environment).await?;
        self.begin_release(plan, &cause, &by, |batch, id| {
            batch.document(
                collection::JOB_RELEASES,
                key,
                Some(serde_json::Value::String(id.to_string())),
            );
        })
        .await
    }

    async fn plan_for_job(
        self: &Arc<Self>,
        record: &Arc<WorkflowRecord>,
        job: JobId,
        environment: &str,
    ) -> Result<(Plan, String, String), ControlError> {
        let name = record.job(job).map(|job| job.name.clone()).unwrap_or_default();
        let approval = {
            let live = self.live(record.id).await?;
            let live = live.lock().await;
            let gates = live.state.definition().ancestors(&name);
            gates.into_iter().rev().find_map(|(gate, _)| {
                let of_it = record.named(&gate)?.gate_of.as_deref() == Some(environment);
                let approval = live.state.job(&gate)?.approval.clone().filter(|_| of_it)?;
                Some((gate, approval))
            })
        };
        let pipeline = record.pipeline_number;
        self.refuse_unsaid(record, &name, environment).await?;
        let Some((gate, approval)) = approval else {
            let plan = self.plan_of_workflow(record, &name, environment).await?;
            return Ok((
                plan,
                format!("job {name} of pipeline {pipeline}"),
                "the pipeline".into(),
            ));
        };
        let plan = match &approval.plan {
            Some(id) => {
                self.document::<Plan>(collection::PLANS, &format!("{}/{environment}/{id}", record.project))
                    .await?
            }
            None => None,
        };
        let plan = plan.ok_or_else(|| {
            ControlError::conflict(format!("`{gate}` was approved without a plan of `{environment}`"))
        })?;
        Ok((plan, format!("gate {gate} of pipeline {pipeline}"), approval.by))
    }

    /// An error when a job deploys to another environment than its configuration says: no gate could have shown that.
    async fn refuse_unsaid(
        self: &Arc<Self>,
        record: &Arc<WorkflowRecord>,
        job: &str,
        environment: &str,
    ) -> Result<(), ControlError> {
        let live = self.live(record.id).await?;
        let pipeline = live.lock().await.pipeline.clone();
        let said = pipeline
            .compiled
            .as_ref()
            .and_then(|config| crate::compile::deployed_by(config, &record.name, job));
        if said.as_deref() == Some(environment) {
            return Ok(());
        }
        let said = said.map_or_else(
            || "that it deploys anywhere".to_string(),
            |said| format!("`towpath deploy {said}`"),
        );
        Err(ControlError::conflict(format!(
            "job `{job}` asks to deploy to `{environment}`, where its configuration says {said}: only what stands in a step as \
             `towpath deploy ENVIRONMENT` can be shown at a gate"
        )))
    }

    /// What `deploy` would do.
    ///
    /// # Errors
    /// When the request makes no plan: an unknown environment or tag, say.
    pub async fn plan(
        &self,
        project: &str,
        environment: &str,
        request: LaptopRequest,
    ) -> Result<PlanView, ControlError> {
        Ok(self.plan_of_request(project, environment, request).await?.view())
    }

    /// Deploys from a laptop's working tree.
    ///
    /// # Errors
    /// When the request makes no plan, or the plan has blockers.
    pub async fn deploy(
        self: &Arc<Self>,
        project: &str,
        environment: &str,
        request: LaptopRequest,
        by: &str,
    ) -> Result<ReleaseId, ControlError> {
        let mut cause = match &request.from {
            Some(from) => format!("towpath promote {from} {environment}"),
            None => format!(
                "towpath deploy {environment} {}",
                request.tag.as_deref().unwrap_or_default()
            ),
        };
        if let Some(reason) = &request.despite_freeze {
            cause = format!("{} despite a freeze: {reason}", cause.trim_end());
        }
        let plan = self.plan_of_request(project, environment, request).await?;
        self.begin_release(plan, cause.trim_end(), by, |_, _| {}).await
    }

    /// Goes back to an earlier release: its image and its objects, as a new release.
    ///
    /// # Errors
    /// `Conflict` when there is none to go back to.
    pub async fn rollback(
        self: &Arc<Self>,
        project: &str,
        environment: &str,
        to: Option<i64>,
        by: &str,
    ) -> Result<ReleaseId, ControlError> {
        let target = self.place(project, environment).await?;
        self.learn_releases(&target).await?;
        let rows = self
            .store
            .releases(&target.id.slug(), 1000)
            .await
            .map_err(store_error)?;
        let applied = self.target.current(&target).await.map_err(target_error)?;
        // After a deployment that failed and was left like that, the release before it is to be gone back to.
        let is_between = applied
            .as_ref()
            .is_some_and(|applied| between(applied, &rows).is_some());
        let mut succeeded = rows.into_iter().filter(|row| row.state == "succeeded").peekable();
        let nothing = || ControlError::conflict(format!("nothing was deployed to `{environment}` yet"));
        let current = Release {
            row: succeeded.peek().cloned().ok_or_else(nothing)?,
        };
        if !is_between {
            succeeded.next();
        }
        let earlier = match to {
            Some(number) => succeeded.find(|row| row.number == number),
            None if is_between => succeeded.next(),
            None => succeeded.find(|row| row.plan.get("objects") != current.row.plan.get("objects")),
        };
        let earlier = Release {
            row: earlier.ok_or_else(|| no_earlier(environment, to))?,
        };
        let mut plan = earlier.plan()?;
        let runs = current.plan()?;
        plan.parent = Some(current.row.id);
        plan.previous_image = Some(runs.image.clone());
        plan.commits = Vec::new();
        plan.warnings = Vec::new();
        plan.blockers = Vec::new();
        self.complete(&mut plan, Some(&runs)).await?;
        self.begin_release(
            plan,
            &format!("rollback to release {}", earlier.row.number),
            by,
            |_, _| {},
        )
        .await
    }

    /// The lines of a release or one-off job from line `from`, as soon as there is one, or its end.
    ///
    /// # Errors
    /// `NotFound` when nothing of that id is known.
    pub async fn progress(&self, id: &str, from: usize) -> Result<Progress, ControlError> {
        if let Some(log) = self.releases.known(id) {
            let deadline = tokio::time::Instant::now() + PROGRESS_POLL;
            loop {
                let grown = log.grown.notified();
                tokio::pin!(grown);
                grown.as_mut().enable();
                let progress = log.from(from);
                if !progress.lines.is_empty() || progress.outcome.is_some() {
                    return Ok(progress);
                }
                tokio::select! {
                    () = &mut grown => {}
                    () = tokio::time::sleep_until(deadline) => return Ok(progress),
                    () = self.shutdown.cancelled() => return Ok(progress),
                }
            }
        }
        let missing = || ControlError::not_found(format!("nothing called `{id}` is under way"));
        let release: ReleaseId = id.parse().map_err(|_| missing())?;
        let row = self
            .store
            .release(release)
            .await
            .map_err(store_error)?
            .ok_or_else(missing)?;
        let outcome = match row.state.as_str() {
            "running" => None,
            "succeeded" => Some(Outcome::Succeeded),
            "failed" => Some(Outcome::Failed),
            "timed_out" => Some(Outcome::TimedOut),
            "rejected" => Some(Outcome::Rejected),
            _ => Some(Outcome::Errored),
        };
        let lines: Vec<String> = row.message.into_iter().skip(from).collect();
        Ok(Progress {
            next: from + lines.len(),
            lines,
            outcome,
            exit_code: None,
        })
    }

    /// Runs a one-off job; its lines and its end come by `progress`.
    ///
    /// # Errors
    /// When there is no such job, or it cannot run.
    pub async fn run_job(
        self: &Arc<Self>,
        project: &str,
        environment: &str,
        request: LaptopRequest,
        by: &str,
    ) -> Result<String, ControlError> {
        let wait = project_file_of(&request)?.wait;
        let (mut job, target) = self.named_object(project, environment, request, "Job").await?;
        self.refuse_held(&target, by).await?;
        let base: String = job.name.chars().take(63).collect();
        if let Some(metadata) = job
            .value
            .pointer_mut("/metadata")
            .and_then(serde_json::Value::as_object_mut)
        {
            let labels = metadata.entry("labels").or_insert_with(|| serde_json::json!({}));
            labels[JOB_LABEL] = serde_json::Value::String(base.trim_end_matches(['-', '.']).to_string());
        }
        // Room for what tells one run from the next.
        let stem: String = job.name.chars().take(54).collect();
        let stem = stem.trim_end_matches(['-', '.']);
        let id = format!("{stem}-{}", JobId::from(uuid::Uuid::now_v7()).short());
        job.name.clone_from(&id);
        if let Some(name) = job.value.pointer_mut("/metadata/name") {
            *name = serde_json::Value::String(id.clone());
        }
        let blockers = self.blockers(&target, &job).await?;
        if !blockers.is_empty() {
            return Err(ControlError::conflict(format!(
                "the job cannot run:\n{}",
                blockers.join("\n")
            )));
        }
        tracing::info!(project, environment, job = id, by, "one-off job");
        let handle = self.target.run_job(&target, job, length(wait.unschedulable)).await;
        let handle = handle.map_err(target_error)?;
        Ok(self.follow_job(handle))
    }

    /// Gathers what a job prints, for whoever asks for its progress by the name that this answers.
    pub(crate) fn follow_job(&self, mut handle: JobHandle) -> String {
        let id = handle.name.clone();
        let log = self.releases.log(&id);
        self.tasks.spawn(async move {
            while let Some(line) = handle.output.recv().await {
                match line {
                    JobLine::Output(bytes) => String::from_utf8_lossy(&bytes).lines().for_each(|line| log.say(line)),
                    JobLine::Note(note) => log.say(format!("-- {note}")),
                }
            }
            match handle.end.await {
                Ok(end) => {
                    if !end.message.is_empty() {
                        log.say(format!("-- {}", end.message));
                    }
                    log.end(end.outcome, end.exit_code.and_then(|code| i32::try_from(code).ok()));
                }
                Err(_) => log.end(Outcome::Errored, None),
            }
        });
        id
    }

    /// Applies one cron job.
    ///
    /// # Errors
    /// When there is no such cron job, or it cannot run here.
    pub async fn apply_cron_job(
        self: &Arc<Self>,
        project: &str,
        environment: &str,
        request: LaptopRequest,
        by: &str,
    ) -> Result<Vec<String>, ControlError> {
        let (image, commit) = (request.tag.clone(), request.commit.clone());
        let project_file = project_file_of(&request)?;
        let (cron_job, target) = self.named_object(project, environment, request, "CronJob").await?;
        self.refuse_held(&target, by).await?;
        if let Some(freeze) = self.frozen(project, environment, Some(&project_file)).await? {
            return Err(ControlError::conflict(freeze));
        }
        let blockers = self.blockers(&target, &cron_job).await?;
        if !blockers.is_empty() {
            return Err(ControlError::conflict(format!(
                "the cron job cannot run:\n{}",
                blockers.join("\n")
            )));
        }
        let name = cron_job.name.clone();
        tracing::info!(project, environment, name, by, "cron job applied");
        let turn = self.releases.turn(&target.id.slug());
        let _turn = turn.lock().await;
        let now = Timestamp::now();
        let runs = towpath_manifest::containers(&cron_job).into_iter().next();
        let request = ApplyRequest {
            environment: target,
            occasion: Occasion::Beside,
            record: ReleaseRecord {
                id: ReleaseId::from(uuid::Uuid::now_v7()),
                number: 0,
                state: "running".into(),
                image: runs.map(|container| container.image).unwrap_or_default(),
                commit,
                by: by.to_string(),
                cause: format!("towpath cronjob {name} {environment} {}", image.unwrap_or_default())
                    .trim_end()
                    .to_string(),
                at: now,
                stopped_at: None,
                message: None,
                plan: serde_json::Value::Null,
            },
            objects: vec![cron_job],
            prune: Vec::new(),
            deadline: Duration::from_secs(60),
            unschedulable: None,
        };
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let applied = self.target.apply(request, sender).await;
        let mut lines = Vec::new();
        while let Ok(progress) = receiver.try_recv() {
            lines.push(progress.message);
        }
        applied.map_err(|error| ControlError::conflict(error.to_string()))?;
        lines.push(format!("applied CronJob {name} to {environment}"));
        Ok(lines)
    }

    async fn named_object(
        &self,
        project: &str,
        environment: &str,
        request: LaptopRequest,
        kind: &str,
    ) -> Result<(Object, Environment), ControlError> {
        let name = request
            .name
            .clone()
            .ok_or_else(|| ControlError::invalid("the request names no job"))?;
        let project_file = project_file_of(&request)?;
        let image = self
            .image_of_request(project, environment, &request, &project_file)
            .await?;
        let source = PlanSource {
            project: project.to_string(),
            environment: environment.to_string(),
            files: request.files,
            project_file,
            image,
            commit: request.commit,
            on_failure: None,
            despite_freeze: None,
        };
        let (source, _) = self.rendered(source).await?;
        let (object, place) = read_job(&source, &name, kind)?;
        let mut objects = [object];
        if self.brings_pull_secret(&source.image) {
            with_pull_secret(&mut objects, &source.image, PULL_SECRET);
        }
        let [object] = objects;
        Ok((object, place))
    }

    pub(crate) fn image_repository(&self, project: &str, file: &ProjectFile) -> ImageReference {
        image_repository_in(project, file, self.registry_name())
    }

    /// What stands in the way of one object.
    async fn blockers(&self, environment: &Environment, object: &Object) -> Result<Vec<String>, ControlError> {
        let objects = std::slice::from_ref(object);
        let preflight = self.target.preflight(environment, objects, &[]).await;
        let preflight = preflight.map_err(target_error)?;
        Ok(preflight.refused().map(ToString::to_string).collect())
    }

    /// Where an environment is: where its last release was carried out, or at least begun, or where the default branch's
    /// manifests say.
    pub(crate) async fn place(&self, project: &str, environment: &str) -> Result<Environment, ControlError> {
        let id = target_id(project, environment)?;
        for state in [Some("succeeded"), None] {
            let row = self.store.last_release(&id.slug(), state).await;
            if let Some(row) = row.map_err(store_error)? {
                return Release { row }.plan()?.target();
            }
        }
        let mut known = self.environments_of(project).await?;
        if let Some(kube_contexts) = known.ambiguous.get(environment) {
            return Err(crate::plans::which_kube_context(environment, kube_contexts));
        }
        let missing = || ControlError::not_found(format!("project `{project}` has no environment `{environment}`"));
        known.places.remove(environment).ok_or_else(missing)
    }

    /// Takes over the releases that others recorded in an environment.
    pub(crate) async fn learn_releases(&self, environment: &Environment) -> Result<(), ControlError> {
        let slug = environment.id.slug();
        let recorded = self.target.releases(environment).await.map_err(target_error)?;
        if recorded.is_empty() {
            return Ok(());
        }
        let known = self.store.releases(&slug, HISTORY).await.map_err(store_error)?;
        let (mut batch, mut any) = (Batch::default(), false);
        for record in recorded {
            let here = known.iter().find(|known| known.id == record.id);
            // What is under way is written down by whoever carries it out.
            let ended = record.state != "running" && here.is_none_or(|here| here.state != "running");
            if ended && here.is_none_or(|here| here.state != record.state || here.number != record.number) {
                batch.put(Row::Release(row_of(record, slug.clone())));
                any = true;
            }
        }
        if !any {
            return Ok(());
        }
        self.store.commit(batch).await.map_err(store_error)
    }

    /// An environment: what runs there.
    ///
    /// # Errors
    /// `NotFound` when the project has no such environment.
    pub async fn environment(&self, project: &str, environment: &str) -> Result<EnvironmentView, ControlError> {
        let target = self.place(project, environment).await?;
        self.learn_releases(&target).await?;
        let rows = self
            .store
            .releases(&target.id.slug(), HISTORY)
            .await
            .map_err(store_error)?;
        let workloads = self.target.status(&target).await.map_err(target_error)?;
        let applied = self.target.current(&target).await.map_err(target_error)?;
        let drift = self.releases.drift.lock().unwrap_or_else(PoisonError::into_inner);
        let drift = drift.get(&target.id.slug()).cloned();
        let addresses: BTreeSet<String> = workloads
            .iter()
            .flat_map(|workload| workload.addresses.iter().cloned())
            .collect();
        Ok(EnvironmentView {
            project: project.to_string(),
            name: environment.to_string(),
            workloads: workloads
                .into_iter()
                .filter(|workload| !matches!(workload.kind.as_str(), "Service" | "Ingress"))
                .map(|workload| WorkloadView {
                    kind: workload.kind,
                    name: workload.name,
                    image: workload.image.unwrap_or_default(),
                    ready: workload.ready,
                    desired: workload.desired,
                    restarts: workload.restarts,
                    message: workload.message,
                })
                .collect(),
            addresses: addresses.into_iter().collect(),
            deploying: rows
                .iter()
                .find(|row| row.state == "running")
                .cloned()
                .map(release_view),
            between: applied.as_ref().and_then(|applied| between(applied, &rows)),
            hold: applied
                .as_ref()
                .and_then(|applied| applied.hold.clone())
                .filter(|hold| Timestamp::now() < hold.until),
            under_way: applied.and_then(|applied| applied.deploying),
            drift,
            release: rows.into_iter().find(|row| row.state == "succeeded").map(release_view),
        })
    }

    /// The releases of an environment, newest first.
    ///
    /// # Errors
    /// `NotFound` when the project has no such environment.
    pub async fn history(&self, project: &str, environment: &str) -> Result<Vec<ReleaseView>, ControlError> {
        let target = self.place(project, environment).await?;
        self.learn_releases(&target).await?;
        let rows = self
            .store
            .releases(&target.id.slug(), HISTORY)
            .await
            .map_err(store_error)?;
        Ok(rows.into_iter().map(release_view).collect())
    }

    /// Every project with its environments.
    pub(crate) async fn projects(&self) -> Result<Vec<ProjectView>, ControlError> {
        let mut projects = Vec::new();
        for project in self.forge.projects().await.map_err(forge_error)? {
            let mut environments = Vec::new();
            for name in self.environments_of(project.as_str()).await?.places.into_keys() {
                environments.push(self.environment(project.as_str(), &name).await?);
            }
            projects.push(ProjectView {
                name: project.to_string(),
                environments,
            });
        }
        Ok(projects)
    }

    /// Every environment of every project.
    pub(crate) async fn every_environment(&self) -> Result<Vec<Environment>, ControlError> {
        let mut places = Vec::new();
        for project in self.forge.projects().await.map_err(forge_error)? {
            for name in self.environments_of(project.as_str()).await?.places.into_keys() {
                places.push(self.place(project.as_str(), &name).await?);
            }
        }
        Ok(places)
    }

    /// The environments of a project, as its default branch has them.
    async fn environments_of(&self, project: &str) -> Result<Environments, ControlError> {
        let name = self.project_name(project)?;
        if !self.forge.exists(&name).await {
            let shown = self.releases.shown.lock().unwrap_or_else(PoisonError::into_inner);
            let missing = || ControlError::not_found(format!("there is no project `{project}`"));
            return shown.get(project).cloned().ok_or_else(missing);
        }
        let branch = self.forge.default_branch(&name).await.map_err(forge_error)?;
        // A repository that nothing was pushed to has no commit.
        let Ok(commit) = self.forge.find(&name, &branch).await else {
            return Ok(Environments::default());
        };
        let key = (project.to_string(), commit);
        let known = self
            .releases
            .environments
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
            .cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let files = self.forge.files(&name, &key.1, ".k8s").await.map_err(forge_error)?;
        let project_file = self.optional_file(&name, &key.1, PROJECT_FILE).await?;
        let project_file = project_file
            .and_then(|text| ProjectFile::parse(&text).ok())
            .unwrap_or_default();
        let files = manifest_files(files)
            .into_iter()
            .map(|file| (file.path, file.text))
            .collect();
        let (environments, is_for_good) = self.find_environments(project, files, &project_file).await;
        if !is_for_good {
            return Ok(environments);
        }
        let mut cache = self
            .releases
            .environments
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        cache.retain(|(of, _), _| *of != project);
        cache.insert(key, environments.clone());
        Ok(environments)
    }

    /// Shows the manifests of a project whose repository is not here: where its environments are.
    pub async fn show_manifests(&self, project: &str, files: Vec<ManifestFile>, project_file: &ProjectFile) {
        let files = files.into_iter().map(|file| (file.path, file.text)).collect();
        let (environments, _) = self.find_environments(project, files, project_file).await;
        let mut shown = self.releases.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.insert(project.to_string(), environments);
    }

    /// The environments that manifests have, and whether the same manifests have the same ones tomorrow.
    async fn find_environments(
        &self,
        project: &str,
        files: Vec<(String, String)>,
        project_file: &ProjectFile,
    ) -> (Environments, bool) {
        let pattern = namespace_pattern(project, project_file);
        let rendered = self
            .renderer
            .render(files, project, None, |kube_context, environment| {
                fill_in(&pattern, kube_context, environment)
            })
            .await;
        for failure in &rendered.failures {
            let (environment, error) = (&failure.environment, with_causes(&failure.error));
            tracing::warn!(
                project,
                environment,
                error,
                "an environment is listed without its manifests"
            );
        }
        let environments = environments_in(project, &rendered.files, project_file);
        // What a program refuses it refuses again; one that was not there, or took too long, may do better next time.
        let for_good = |failure: &RenderFailure| matches!(failure.error, RenderError::Refused { .. });
        (environments, rendered.failures.iter().all(for_good))
    }

    /// What the project's jobs need to reach the registry.
    pub(crate) fn registry_token(&self, project: &str, workflow: Option<WorkflowId>) -> towpath_types::SecretString {
        self.tokens.issue(&Grant::Registry {
            project: project.to_string(),
            workflow,
        })
    }
}

/// Why a release did not come to its end.
struct NotReleased {
    outcome: Outcome,
    /// All of it.
    message: String,
    /// What of it was not said yet.
    say: String,
}

impl NotReleased {
    fn new(outcome: Outcome, message: String) -> Self {
        Self {
            outcome,
            say: message.clone(),
            message,
        }
    }
}

/// The project's file that came with a request.
pub(crate) fn project_file_of(request: &LaptopRequest) -> Result<ProjectFile, ControlError> {
    match &request.project_file {
        Some(text) => ProjectFile::parse(text).map_err(|error| ControlError::invalid(error.to_string())),
        None => Ok(ProjectFile::default()),
    }
}

/// What is to be said of an environment whose last deployment neither came to its end nor was undone.
fn between(applied: &Applied, rows: &[ReleaseRow]) -> Option<String> {
    if applied.release.is_some() || applied.deploying.is_some() {
        return None;
    }
    let attempted = rows.iter().find(|row| Some(row.id) == applied.attempted)?;
    if attempted.state == "running" {
        return None;
    }
    if attempted.state == "succeeded" {
        return Some(format!(
            "between releases: going back to release {} did not come to its end. Deploy again, or roll back",
            attempted.number
        ));
    }
    let how = format!(
        "release {}, which {}",
        attempted.number,
        attempted.state.replace('_', " ")
    );
    Some(match rows.iter().find(|row| row.state == "succeeded") {
        Some(before) => format!(
            "between release {} and {how}: deploy again, or roll back",
            before.number
        ),
        None => format!("left half-way by {how}, and there is none before it: deploy again"),
    })
}

fn no_earlier(environment: &str, to: Option<i64>) -> ControlError {
    ControlError::conflict(match to {
        Some(number) => format!(
            "`{environment}` has no earlier release {number} that succeeded: `towpath history {environment}` lists them"
        ),
        None => format!("`{environment}` has no earlier release that differs from what runs"),
    })
}

pub(crate) fn target_error(error: TargetError) -> ControlError {
    match error {
        TargetError::NotFound(message) => ControlError::not_found(message),
        TargetError::Refused(message) => ControlError::conflict(message),
        failed @ TargetError::Failed { .. } => {
            // It says itself what was attempted on what.
            ControlError::unavailable(failed.chain())
        }
    }
}

/// A release as it is recorded where it is carried out.
fn record_of(row: &ReleaseRow) -> ReleaseRecord {
    let row = row.clone();
    ReleaseRecord {
        id: row.id,
        number: row.number,
        state: row.state,
        image: row.image,
        commit: row.commit,
        by: row.by,
        cause: row.cause,
        at: row.at,
        stopped_at: row.stopped_at,
        message: row.message,
        plan: row.plan,
    }
}

fn row_of(record: ReleaseRecord, environment: String) -> ReleaseRow {
    ReleaseRow {
        id: record.id,
        environment,
        number: record.number,
        state: record.state,
        image: record.image,
        commit: record.commit,
        by: record.by,
        cause: record.cause,
        at: record.at,
        stopped_at: record.stopped_at,
        message: record.message,
        plan: record.plan,
    }
}

fn release_view(row: ReleaseRow) -> ReleaseView {
    ReleaseView {
        id: row.id,
        number: row.number,
        state: row.state,
        image: row.image,
        commit: row.commit,
        by: row.by,
        at: row.at,
        stopped_at: row.stopped_at,
        cause: row.cause,
        message: row.message,
    }
}

/// Opens the local target, whose helper containers run this program.
pub(crate) async fn open_target(
    settings: &Settings,
    instance: &str,
    secrets: Arc<dyn towpath_deploy::SecretSource>,
) -> Result<Arc<dyn Target>, ControlError> {
    if let TargetSettings::Kubernetes(identity) = &settings.target {
        let options = KubernetesOptions::new(identity.clone(), secrets);
        return Ok(Arc::new(KubernetesTarget::new(options)));
    }
    let failed = |error| ControlError::unavailable("failed to open the local target").caused_by(error);
    let target = towpath_deploy::LocalTarget::open(towpath_deploy::LocalOptions::new(
        settings.data_dir.join("local"),
        instance.to_string(),
        settings.binary.clone(),
        secrets,
    ))
    .await
    .map_err(failed)?;
    Ok(Arc::new(target))
}
