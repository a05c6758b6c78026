//! One-off runs: Jobs that somebody starts, CronJobs that somebody runs by hand, and single CronJobs that are applied.
//!
//! A run is stored before anything starts, so that a restart finds it. Only the process that got the request starts it,
//! once; afterwards any server can follow it from its beginning, by the name of its Job.

use crate::{
    agreement::agreed,
    environment::unseen,
    error::{DeliveryError, ErrorKind},
    history::History,
    lock::Locks,
    plan::{Plan, PlanHooks},
    planner::Planner,
    progress::{Progress, Unheard},
    project_file::{OnFailure, ProjectFile, Wait},
    protection::{Asked, Way},
    request::LaptopRequest,
    retry::until_stored,
    run_name::{as_run, name_of_run},
    turn,
    work::{self, is_leased_by},
};
use jiff::SignedDuration;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::sync::mpsc;
use towpath_deploy::{
    ApplyRequest, CronJobStatus, Environment, Hooks, JobEnd, JobHandle, JobLine, Occasion, ReleaseRecord, Target,
    TargetError,
};
use towpath_manifest::Object;
use towpath_store::{Commit, Expect, Guard, RunRow, Store, WorkKey, WorkKind, Write};
use towpath_types::{Actor, Clock, Digest, EnvironmentId, Outcome, RecordedState, ReleaseId, RunId, RunKind};
use uuid::Uuid;

/// How long starting a run may take. After that, the starting process counts as dead.
const STARTING: SignedDuration = SignedDuration::from_mins(5);
/// How long applying a single CronJob may take.
const APPLYING: Duration = Duration::from_secs(60);

/// Starts one-off runs and follows them.
#[derive(Clone)]
pub struct Runs {
    store: Arc<dyn Store>,
    target: Arc<dyn Target>,
    clock: Arc<dyn Clock>,
    history: History,
    planner: Planner,
    locks: Locks,
}

/// Finds the CronJob that a person means by `name`, which may also be its file's name (`vacuum_db` for
/// `claims-vacuum-db`).
fn meant<'a>(known: &'a [CronJobStatus], name: &str) -> Option<&'a CronJobStatus> {
    let plain = name.replace('_', "-");
    let ends = format!("-{plain}");
    known.iter().find(|known| known.name == name).or_else(|| {
        known
            .iter()
            .find(|known| known.name == plain || known.name.ends_with(&ends))
    })
}

impl Runs {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        target: Arc<dyn Target>,
        clock: Arc<dyn Clock>,
        planner: Planner,
        locks: Locks,
    ) -> Self {
        Self {
            store,
            target,
            clock,
            history: planner.history.clone(),
            planner,
            locks,
        }
    }

    /// Starts a one-off Job. [`Runs::follow`] delivers its lines and its end; this commits the work for that.
    ///
    /// # Errors
    /// `NotFound` when there is no such Job, `Conflict` when it cannot run, runs already, or somebody else has locked
    /// the environment; with a [`DeliveryError::plan`] when the requester has to see that plan and name it in the
    /// request.
    pub async fn start_job(
        &self,
        id: &EnvironmentId,
        request: LaptopRequest,
        actor: &Actor,
    ) -> Result<RunRow, DeliveryError> {
        let name = request.name.clone().unwrap_or_default();
        let shown = request.plan.clone();
        let named = self.planner.named_object(id, request, RunKind::Job).await?;
        let plan = self.planner.plan_of_object(&named);
        self.refuse_unagreed(&plan, shown.as_ref(), Some(&named.project_file))
            .await?;
        let (mut job, place) = (named.object, named.place);
        self.locks.refuse_held(&place, actor).await?;
        let run = RunId::from(Uuid::now_v7());
        as_run(&mut job, &run.short());
        let blockers = self.planner.blockers(&place, &job).await?;
        if !blockers.is_empty() {
            return Err(DeliveryError::conflict(format!(
                "the job cannot run:\n{}",
                blockers.join("\n")
            )));
        }
        let row = self.row(run, id, RunKind::Job, &name, actor);
        let row = RunRow {
            object: job.name.clone(),
            image: Planner::first_image(&job),
            ..row
        };
        self.store_row(&row, &place).await?;
        tracing::info!(environment = %id, job = row.object, by = %actor, "one-off job");
        let started = self
            .target
            .run_job(&place, job, named.project_file.wait.for_node())
            .await;
        self.started(row, started).await
    }

    /// Returns an error for what must not begin in its environment, as for releases.
    async fn refuse_unagreed(
        &self,
        plan: &Plan,
        shown: Option<&Digest>,
        project_file: Option<&ProjectFile>,
    ) -> Result<(), DeliveryError> {
        let agreed = agreed(self.store.as_ref(), shown, plan).await?;
        let asked = Asked {
            way: &Way::Person,
            agreed: &agreed,
            project_file,
        };
        let protections = &self.planner.protections;
        protections.refuse_unagreed(plan, asked, self.clock.now()).await
    }

    /// The plan of running a CronJob by hand: it changes nothing and runs the CronJob from the environment's release.
    async fn plan_of_cron_job(&self, place: &Environment, found: &CronJobStatus) -> Result<Plan, DeliveryError> {
        let mut plan = Plan {
            place: place.clone(),
            on_failure: OnFailure::Stop,
            wait: Wait::default(),
            images: BTreeMap::new(),
            parent: None,
            previous_images: BTreeMap::new(),
            commit: None,
            commits: Vec::new(),
            third_party: BTreeMap::new(),
            objects: Vec::new(),
            changes: Vec::new(),
            unchanged: 0,
            hooks: PlanHooks::default(),
            blockers: Vec::new(),
            warnings: vec![format!("the cron job `{}` is run now, once", found.name)],
        };
        if let Some(release) = self.history.last(&place.id).await? {
            let runs = self.history.plan_of(&release).await?;
            plan.parent = Some(release.id);
            plan.commit = runs.commit;
            plan.wait = runs.wait;
            plan.previous_images.clone_from(&runs.images);
            plan.images = runs.images;
            let is_it = |object: &Object| object.kind == RunKind::CronJob.as_str() && object.name == found.name;
            plan.objects = runs.objects.into_iter().filter(is_it).collect();
        }
        if plan.objects.is_empty() {
            // Somebody else applied it, so only its name is known.
            let named = json!({ "apiVersion": "batch/v1", "kind": RunKind::CronJob.as_str(), "metadata": { "name": found.name } });
            let named = Object::from_value(named, "the environment");
            plan.objects = vec![named.map_err(|error| DeliveryError::internal(error.to_string()))?];
        }
        Ok(plan)
    }

    /// Runs a CronJob now, as the environment's release has it. [`Runs::follow`] delivers its lines and its end.
    /// `actor` saw the plan `shown`.
    ///
    /// # Errors
    /// `NotFound` when the environment has no such CronJob; `Conflict` when it cannot run, or somebody else has locked
    /// the environment; with a [`DeliveryError::plan`] when the requester has to see that plan and name it in the
    /// request.
    pub async fn start_cron_job(
        &self,
        id: &EnvironmentId,
        name: &str,
        shown: Option<&Digest>,
        actor: &Actor,
    ) -> Result<RunRow, DeliveryError> {
        let place = self.history.place(id).await?;
        let known = self.target.cron_jobs(&place).await?;
        let Some(found) = meant(&known, name) else {
            let known: BTreeSet<&str> = known.iter().map(|known| known.name.as_str()).collect();
            let known = if known.is_empty() {
                "it has none".to_string()
            } else {
                format!("it has {}", Vec::from_iter(known).join(", "))
            };
            return Err(DeliveryError::not_found(format!(
                "`{}` runs no cron job `{name}`: {known}",
                id.environment()
            )));
        };
        self.locks.refuse_held(&place, actor).await?;
        self.history.learn(&place).await?;
        let plan = self.plan_of_cron_job(&place, found).await?;
        self.refuse_unagreed(&plan, shown, None).await?;
        // Its pods may wait for a node as long as the pods of its release.
        let unschedulable = plan.wait.for_node();
        let run = RunId::from(Uuid::now_v7());
        let row = self.row(run, id, RunKind::CronJob, name, actor);
        let row = RunRow {
            object: name_of_run(&found.name, &run.short()),
            image: found.image.clone().unwrap_or_default(),
            ..row
        };
        self.store_row(&row, &place).await?;
        tracing::info!(environment = %id, name = found.name, by = %actor, "cron job run by hand");
        let started = self
            .target
            .start_cron_job(&place, &found.name, &row.object, unschedulable)
            .await;
        self.started(row, started).await
    }

    /// The names of the tests of the release that an environment runs, in their order: the hooks `test` of its chart.
    ///
    /// # Errors
    /// `Conflict` when nothing was deployed there.
    pub async fn tests(&self, id: &EnvironmentId) -> Result<Vec<String>, DeliveryError> {
        let runs = self.released(id).await?;
        Ok(runs.hooks.tests().into_iter().map(|test| test.name).collect())
    }

    /// The plan of the release that an environment runs.
    async fn released(&self, id: &EnvironmentId) -> Result<Plan, DeliveryError> {
        let place = self.history.place(id).await?;
        self.history.learn(&place).await?;
        match self.history.last(id).await? {
            Some(release) => self.history.plan_of(&release).await,
            None => Err(DeliveryError::conflict(format!(
                "nothing was deployed to `{}` yet, so there is nothing to test",
                id.environment()
            ))),
        }
    }

    /// Runs a test of the release that an environment runs, as it was released. [`Runs::follow`] delivers its lines and its
    /// end. `actor` saw the plan `shown`.
    ///
    /// # Errors
    /// `NotFound` when the release has no such test; otherwise as for [`Runs::start_cron_job`].
    pub async fn start_test(
        &self,
        id: &EnvironmentId,
        name: &str,
        shown: Option<&Digest>,
        actor: &Actor,
    ) -> Result<RunRow, DeliveryError> {
        let released = self.released(id).await?;
        let found = released.hooks.tests().into_iter().find(|test| test.name == name);
        let mut job = found.ok_or_else(|| {
            DeliveryError::not_found(format!("what `{}` runs has no test `{name}`", id.environment()))
        })?;
        let mut plan = of_released(&released, format!("the test `{name}` is run now, once"));
        plan.objects = vec![job.clone()];
        self.refuse_unagreed(&plan, shown, None).await?;
        let place = released.place;
        self.locks.refuse_held(&place, actor).await?;
        let run = RunId::from(Uuid::now_v7());
        as_run(&mut job, &run.short());
        let row = RunRow {
            object: job.name.clone(),
            image: Planner::first_image(&job),
            ..self.row(run, id, RunKind::Job, name, actor)
        };
        self.store_row(&row, &place).await?;
        tracing::info!(environment = %id, name, by = %actor, "test");
        let started = self.target.run_job(&place, job, released.wait.for_node()).await;
        self.started(row, started).await
    }

    /// How long the pods of the environment's release may wait for a node.
    async fn wait_for_node(&self, id: &EnvironmentId) -> Result<Option<Duration>, DeliveryError> {
        match self.history.last(id).await? {
            Some(release) => Ok(self.history.plan_of(&release).await?.wait.for_node()),
            None => Ok(None),
        }
    }

    fn row(&self, id: RunId, environment: &EnvironmentId, kind: RunKind, name: &str, actor: &Actor) -> RunRow {
        RunRow {
            id,
            environment: environment.clone(),
            kind,
            name: name.to_string(),
            object: String::new(),
            image: String::new(),
            actor: actor.clone(),
            outcome: None,
            exit_code: None,
            message: None,
            created_at: self.clock.now(),
            stopped_at: None,
            version: 0,
        }
    }

    /// Stores a run before it starts. If this process dies meanwhile, the run's work becomes due.
    async fn store_row(&self, row: &RunRow, place: &Environment) -> Result<(), DeliveryError> {
        until_stored!(async {
            let mut commit = Commit::new()
                .with(Write::Run(row.clone(), Expect::Absent))
                .with(Write::Work(work::follow(
                    row.id,
                    &row.environment,
                    row.created_at + STARTING,
                )));
            if self.store.environment(&row.environment).await?.is_none() {
                commit.write(Write::Environment(unseen(place), Expect::Absent));
            }
            self.store.commit(commit).await?;
            Ok(())
        })
    }

    /// Stores that a run was started, or why not.
    async fn started(&self, mut row: RunRow, started: Result<JobHandle, TargetError>) -> Result<RunRow, DeliveryError> {
        row.version = 1;
        let error = match started {
            // The server with the work follows it from its beginning.
            Ok(_) => {
                let follow = work::follow(row.id, &row.environment, self.clock.now());
                self.store.commit(Commit::new().with(Write::Work(follow))).await?;
                return Ok(row);
            }
            Err(error) => DeliveryError::from(error),
        };
        let outcome = match error.kind() {
            ErrorKind::NotFound | ErrorKind::Conflict | ErrorKind::Invalid | ErrorKind::Forbidden => Outcome::Rejected,
            ErrorKind::Unavailable | ErrorKind::Internal => Outcome::Errored,
        };
        let ended = JobEnd {
            outcome,
            exit_code: None,
            message: error.chain(),
        };
        let commit = Commit::new()
            .with(Write::Run(self.ended(&row, ended), Expect::Version(row.version)))
            .with(Write::CancelWork(WorkKey::new(WorkKind::Run, row.id)));
        self.store.commit(commit).await?;
        Err(error)
    }

    fn ended(&self, row: &RunRow, end: JobEnd) -> RunRow {
        RunRow {
            outcome: Some(end.outcome),
            exit_code: end.exit_code,
            message: Some(end.message).filter(|message| !message.is_empty()),
            stopped_at: Some(self.clock.now()),
            ..row.clone()
        }
    }

    /// Follows a run from its beginning to its end: sends its output to `progress`, and stores its end in its row. Call
    /// it with the lease of the run's work. It is safe to call again in any process, and then follows from the
    /// beginning again.
    ///
    /// # Errors
    /// On an error, the run is not known to have ended. `is_fenced`: the lease was lost, and another server follows it.
    /// `is_temporary`: the store or the environment does not answer; try again later.
    pub async fn follow(&self, guard: &Guard, id: RunId, progress: &dyn Progress) -> Result<RunRow, DeliveryError> {
        let missing = || DeliveryError::not_found(format!("there is no run {id}"));
        let row = self.store.run(id).await?.ok_or_else(missing)?;
        if row.outcome.is_some() {
            let work = self.store.work(&guard.key).await?;
            if work.is_some_and(|work| is_leased_by(&work, guard)) {
                self.store
                    .commit(Commit::new().with(Write::WorkDone(guard.clone())))
                    .await?;
            }
            return Ok(row);
        }
        let lost = |message: String| JobEnd {
            outcome: Outcome::Errored,
            exit_code: None,
            message,
        };
        let object = row.object.as_str();
        let place = self.history.place_or_row(&row.environment).await?;
        let unschedulable = self.wait_for_node(&row.environment).await?;
        let end = match self.target.follow_job(&place, object, unschedulable).await {
            Ok(handle) => read(handle, progress).await.unwrap_or_else(|| {
                lost(format!(
                    "whoever followed the Job `{object}` stopped: it may still run; look with `kubectl`, or at the environment's \
                     page"
                ))
            }),
            Err(TargetError::NotFound(_)) => lost(format!(
                "there is no Job `{object}`: Towpath was stopped before it was made, or somebody deleted it. Find out what it did \
                 before you start it again"
            )),
            Err(error) => return Err(error.into()),
        };
        if !end.message.is_empty() {
            progress.line(&format!("-- {}", end.message));
        }
        self.end(guard, &row, end).await
    }

    /// Ends a run that cannot be followed, so that nobody waits for it. For work that failed repeatedly. The run may
    /// still be going on.
    ///
    /// # Errors
    /// `NotFound` when there is no such run; when the lease was lost or the store does not work.
    pub async fn give_up(&self, guard: &Guard, id: RunId, reason: &str) -> Result<RunRow, DeliveryError> {
        let missing = || DeliveryError::not_found(format!("there is no run {id}"));
        let row = self.store.run(id).await?.ok_or_else(missing)?;
        let end = JobEnd {
            outcome: Outcome::Errored,
            exit_code: None,
            message: format!("Towpath cannot follow it, so it is not known whether it still runs: {reason}"),
        };
        self.end(guard, &row, end).await
    }

    async fn end(&self, guard: &Guard, row: &RunRow, end: JobEnd) -> Result<RunRow, DeliveryError> {
        let ended = self.ended(row, end);
        let mut commit = Commit::new();
        commit.guard(guard.clone());
        commit.write(Write::Run(ended.clone(), Expect::Version(row.version)));
        commit.write(Write::WorkDone(guard.clone()));
        self.store.commit(commit).await?;
        Ok(RunRow {
            version: row.version + 1,
            ..ended
        })
    }

    /// Applies one CronJob outside of releases; the running release stays the same. Returns lines for the requester.
    ///
    /// # Errors
    /// `NotFound` when there is no such CronJob; `Conflict` when it cannot run, during a freeze, and when somebody else
    /// has locked the environment; with a [`DeliveryError::plan`] when the requester has to see that plan and name it
    /// in the request.
    pub async fn apply_cron_job(
        &self,
        id: &EnvironmentId,
        request: LaptopRequest,
        actor: &Actor,
    ) -> Result<Vec<String>, DeliveryError> {
        let (tag, commit, shown) = (request.tag.clone(), request.commit.clone(), request.plan.clone());
        let named = self.planner.named_object(id, request, RunKind::CronJob).await?;
        let plan = self.planner.plan_of_object(&named);
        self.refuse_unagreed(&plan, shown.as_ref(), Some(&named.project_file))
            .await?;
        let (cron_job, place) = (named.object, named.place);
        self.locks.refuse_held(&place, actor).await?;
        if let Some(freeze) = self.planner.frozen(id, Some(&named.project_file)).await? {
            return Err(DeliveryError::conflict(freeze.to_string()));
        }
        let blockers = self.planner.blockers(&place, &cron_job).await?;
        if !blockers.is_empty() {
            return Err(DeliveryError::conflict(format!(
                "the cron job cannot run:\n{}",
                blockers.join("\n")
            )));
        }
        turn::wait(self.store.as_ref(), self.clock.as_ref(), id, None, &Unheard).await?;
        let (name, environment) = (cron_job.name.clone(), id.environment());
        tracing::info!(environment = %id, name, by = %actor, "cron job applied");
        let cause = match tag {
            Some(tag) => format!("towpath cronjob {name} {environment} {tag}"),
            None => format!("towpath cronjob {name} {environment}"),
        };
        let request = ApplyRequest {
            environment: place,
            occasion: Occasion::Beside,
            record: ReleaseRecord {
                id: ReleaseId::from(Uuid::now_v7()),
                number: 0,
                state: RecordedState::Running,
                // A manifest may hold anything as an image; the cluster refuses what is none.
                images: Planner::first_image(&cron_job).parse().into_iter().collect(),
                commit,
                by: actor.name.clone(),
                cause,
                at: self.clock.now(),
                stopped_at: None,
                message: None,
                repeats: 0,
                repeated_at: None,
                plan: Value::Null,
            },
            objects: vec![cron_job],
            prune: Vec::new(),
            hooks: Hooks::default(),
            deadline: APPLYING,
            unschedulable: None,
        };
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let applied = self.target.apply(request, sender).await;
        let mut lines = Vec::new();
        while let Ok(progress) = receiver.try_recv() {
            lines.push(progress.message);
        }
        applied.map_err(|error| DeliveryError::conflict(error.to_string()))?;
        lines.push(format!("applied CronJob {name} to {environment}"));
        Ok(lines)
    }
}

/// A plan that runs a part of a release again. It changes no object.
fn of_released(released: &Plan, warning: String) -> Plan {
    Plan {
        place: released.place.clone(),
        on_failure: OnFailure::Stop,
        wait: released.wait,
        images: released.images.clone(),
        parent: None,
        previous_images: released.images.clone(),
        commit: released.commit.clone(),
        commits: Vec::new(),
        objects: Vec::new(),
        third_party: BTreeMap::new(),
        changes: Vec::new(),
        unchanged: 0,
        hooks: PlanHooks::default(),
        blockers: Vec::new(),
        warnings: vec![warning],
    }
}

/// Passes on a run's output, and returns its end; `None` if the follower stopped.
async fn read(mut handle: JobHandle, progress: &dyn Progress) -> Option<JobEnd> {
    while let Some(line) = handle.output.recv().await {
        match line {
            JobLine::Output(bytes) => String::from_utf8_lossy(&bytes)
                .lines()
                .for_each(|line| progress.line(line)),
            JobLine::Note(note) => progress.line(&format!("-- {note}")),
        }
    }
    handle.end.await.ok()
}
