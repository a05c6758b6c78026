//! Carries releases out.
//!
//! - **Invariant:** each decision is committed, with the lease's guard, before anything acts on it.
//! - **Invariant:** after a kill at any point, the next process finds what it needs to continue; once a rollback has
//!   begun, nothing that failed is applied again.
//!
//! A process that resumes a release looks at the environment before it changes anything: an earlier process may have
//! done part or all of the work, and somebody else may have deployed since.

use super::{
    decide::{Left, failure_message, is_refusal, left_as_it_is, overtaken, same_objects, stale},
    request::Releases,
    stream::Loaded,
};
use crate::{
    error::DeliveryError, history::record_of, lock, plan::Plan, planner::to_prune, progress::Progress,
    run_name::as_run, turn, work::is_leased_by,
};
use tokio::sync::mpsc;
use towpath_deploy::{ApplyError, ApplyRequest, Hooks, Occasion, Progress as TargetProgress, clean_up_hooks};
use towpath_manifest::{HookEvent, Object};
use towpath_store::{Commit, Guard, ReleaseRow, Write};
use towpath_types::{Outcome, ReleaseId};
use towpath_workflow::release::{Effect, Event, OnFailure, State, Why};

/// One process's work on a release.
struct Carrying {
    guard: Guard,
    /// Whether this process did everything that was done in the environment so far, so that it need not look first.
    knows_all: bool,
}

impl Releases {
    /// Carries a release out, from its current state to its end. Returns its final row.
    ///
    /// Call it with the lease of the release's work. Safe to call again after a kill at any point, in any process; the
    /// commit that ends the release ends the work.
    ///
    /// # Errors
    /// The release is not over then. `is_fenced`: the lease was lost, and another server carries it out.
    /// `is_temporary`: the store, or an environment that was changed already, does not answer; try again later, or
    /// [`Releases::give_up`].
    pub async fn carry_out(
        &self,
        guard: &Guard,
        id: ReleaseId,
        progress: &dyn Progress,
    ) -> Result<ReleaseRow, DeliveryError> {
        let mut carrying = Carrying {
            guard: guard.clone(),
            knows_all: false,
        };
        loop {
            let loaded = Loaded::load(self.store.as_ref(), id).await?;
            let Some(effect) = loaded.release.outstanding() else {
                return self.done(guard, loaded).await;
            };
            let stepped = self.step(&mut carrying, progress, &loaded, effect).await;
            match stepped {
                // Another writer changed the row: load it again and continue.
                Err(error) if error.is_stale() => tracing::debug!(release = %id, "loaded again"),
                Err(error) => return Err(error),
                Ok(()) if loaded.release.is_over() => return self.end(id).await,
                Ok(()) => {}
            }
        }
    }

    async fn end(&self, id: ReleaseId) -> Result<ReleaseRow, DeliveryError> {
        Ok(Loaded::load(self.store.as_ref(), id).await?.row)
    }

    /// Ends the work of a release that has nothing left to do.
    async fn done(&self, guard: &Guard, loaded: Loaded) -> Result<ReleaseRow, DeliveryError> {
        let work = self.store.work(&guard.key).await?;
        if work.is_some_and(|work| is_leased_by(&work, guard)) {
            let mut commit = Commit::new();
            commit.write(Write::WorkDone(guard.clone()));
            self.store.commit(commit).await?;
        }
        Ok(loaded.row)
    }

    /// Fails a release that cannot continue, without touching the environment, so that it blocks nothing behind it. For
    /// work that failed repeatedly. If the release had begun to change the environment, the environment stays between
    /// two releases.
    ///
    /// # Errors
    /// When the lease was lost or the store does not work.
    pub async fn give_up(&self, guard: &Guard, id: ReleaseId, reason: &str) -> Result<ReleaseRow, DeliveryError> {
        loop {
            let loaded = Loaded::load(self.store.as_ref(), id).await?;
            let at = self.clock.now();
            let message = reason.to_string();
            let happened = match loaded.release.state() {
                State::Planned | State::Approved => vec![Event::Abandoned {
                    why: Why::Unable,
                    message,
                    at,
                }],
                State::Applying | State::Watching => vec![Event::Failed {
                    outcome: Outcome::Errored,
                    message,
                    at,
                }],
                State::Failing { .. } => vec![Event::RollbackBegan { at }, Event::RollbackFailed { message, at }],
                State::RollingBack { .. } => vec![Event::RollbackFailed { message, at }],
                State::Succeeded | State::Failed | State::RolledBack | State::Abandoned { .. } => {
                    match loaded.release.outstanding() {
                        Some(_) => vec![Event::Recorded { at }],
                        None => return self.done(guard, loaded).await,
                    }
                }
            };
            match self.record(guard, &loaded, &happened).await {
                Err(error) if error.is_stale() => tracing::debug!(release = %id, "loaded again"),
                other => other?,
            }
        }
    }

    async fn record(&self, guard: &Guard, loaded: &Loaded, happened: &[Event]) -> Result<(), DeliveryError> {
        let (store, clock) = (self.store.as_ref(), self.clock.as_ref());
        loaded.record(store, clock, guard, happened).await
    }

    async fn step(
        &self,
        carrying: &mut Carrying,
        progress: &dyn Progress,
        loaded: &Loaded,
        effect: Effect,
    ) -> Result<(), DeliveryError> {
        match effect {
            Effect::BeginApply => self.begin_apply(carrying, progress, loaded).await,
            Effect::Apply | Effect::Watch => self.apply_release(carrying, progress, loaded).await,
            Effect::BeginRollback { to } => self.begin_rollback(carrying, progress, loaded, to).await,
            Effect::RollBack { to } => self.roll_back(carrying, progress, loaded, to).await,
            Effect::Record => self.reconcile(carrying, loaded).await,
        }
    }

    /// Waits for the release's turn, and compares the environment with what the plan expects.
    async fn begin_apply(
        &self,
        carrying: &mut Carrying,
        progress: &dyn Progress,
        loaded: &Loaded,
    ) -> Result<(), DeliveryError> {
        let row = &loaded.row;
        let (store, clock) = (self.store.as_ref(), self.clock.as_ref());
        turn::wait(store, clock, &row.environment, Some(row.id), progress).await?;
        let (why, message) = match self.expected(loaded).await {
            Ok(plan) => {
                let (number, environment) = (row.number, plan.environment());
                progress.line(&format!("release {number} of {environment}: {}", plan.images_text()));
                for warning in &plan.warnings {
                    progress.line(&format!("  note: {warning}"));
                }
                let began = Event::ApplyBegan { at: self.clock.now() };
                self.record(&carrying.guard, loaded, &[began]).await?;
                carrying.knows_all = true;
                return Ok(());
            }
            Err(NotExpected::Here(error)) => return Err(error),
            Err(NotExpected::There(why, message)) => (why, message),
        };
        progress.line(&message);
        let abandoned = Event::Abandoned {
            why,
            message,
            at: self.clock.now(),
        };
        self.record(&carrying.guard, loaded, &[abandoned]).await
    }

    /// The release's plan, if the environment is as the plan expects.
    async fn expected(&self, loaded: &Loaded) -> Result<Plan, NotExpected> {
        let row = &loaded.row;
        if *loaded.release.plan() != row.plan {
            let message = format!("release {} names another plan than was approved", row.number);
            return Err(NotExpected::There(Why::Unable, message));
        }
        let plan = self.history.plan_of(row).await?;
        self.history.learn(&plan.place).await?;
        let runs = self.history.last(&row.environment).await?;
        let left = self.left(&plan, runs.as_ref()).await?;
        if let Some(message) = stale(&plan, runs.as_ref(), left) {
            return Err(NotExpected::There(Why::StalePlan, message));
        }
        let applied = self.target.current(&plan.place).await.map_err(DeliveryError::from)?;
        let held = lock::refuse_held(applied.as_ref(), plan.environment(), &row.actor.name, self.clock.now());
        match held {
            Ok(()) => Ok(plan),
            Err(error) => Err(NotExpected::There(Why::Refused, error.to_string())),
        }
    }

    /// Compares the release that runs, `runs`, with `plan` and the release that the plan starts from.
    async fn left(&self, plan: &Plan, runs: Option<&ReleaseRow>) -> Result<Left, DeliveryError> {
        let Some(runs) = runs.filter(|runs| Some(runs.id) != plan.parent) else {
            return Ok(Left::Other);
        };
        let running = self.history.plan_of(runs).await?;
        if same_objects(plan, &running) {
            return Ok(Left::NothingElse);
        }
        let parent = match plan.parent {
            Some(parent) => self.store.release(parent).await?,
            None => None,
        };
        let Some(parent) = parent else {
            return Ok(Left::Other);
        };
        Ok(match same_objects(&self.history.plan_of(&parent).await?, &running) {
            true => Left::NothingElse,
            false => Left::Other,
        })
    }

    /// Applies the plan and watches the rollouts.
    async fn apply_release(
        &self,
        carrying: &mut Carrying,
        progress: &dyn Progress,
        loaded: &Loaded,
    ) -> Result<(), DeliveryError> {
        let row = &loaded.row;
        let plan = self.history.plan_of(row).await?;
        let was_watching = loaded.release.state() == State::Watching;
        let succeeded = |at| {
            let applied = (!was_watching).then_some(Event::Applied { at });
            applied.into_iter().chain([Event::Succeeded { at }]).collect::<Vec<_>>()
        };
        let mut is_untouched = !was_watching;
        if !carrying.knows_all {
            match self.look(row, &plan, row.id).await? {
                Look::Overtaken(by) => return self.overtaken(carrying, progress, loaded, by).await,
                Look::Runs => {
                    progress.line(&runs(&plan));
                    self.record(&carrying.guard, loaded, &succeeded(self.clock.now()))
                        .await?;
                    self.clean_up(row, &plan, None).await;
                    return Ok(());
                }
                Look::Goes { attempted } => {
                    progress.line("taken up again after a restart");
                    is_untouched &= attempted != Some(row.id);
                }
            }
        }
        let applied = self.apply(&plan, Occasion::Release, row, progress).await;
        let error = match applied {
            Ok(()) => {
                progress.line(&runs(&plan));
                self.record(&carrying.guard, loaded, &succeeded(self.clock.now()))
                    .await?;
                self.clean_up(row, &plan, None).await;
                return Ok(());
            }
            Err(error) => error,
        };
        let mut message = failure_message(&error);
        let at = self.clock.now();
        // If no earlier process changed anything, a refusal means that nothing was changed.
        if is_refusal(&error) && is_untouched {
            message.push_str("\nNothing was changed.");
            progress.line(&message);
            let abandoned = Event::Abandoned {
                why: Why::Refused,
                message,
                at,
            };
            return self.record(&carrying.guard, loaded, &[abandoned]).await;
        }
        let before = loaded.before;
        let goes_back = loaded.release.on_failure() == OnFailure::Rollback && loaded.release.parent().is_some();
        if !goes_back {
            message = format!("{message}\n{}", left_as_it_is(plan.environment(), before));
        }
        progress.line(&message);
        if let Some(number) = before.filter(|_| goes_back) {
            // A rollback takes time; report the reason now.
            progress.line(&format!("failed; going back to release {number}"));
        }
        let failed = Event::Failed {
            outcome: error.outcome,
            message,
            at,
        };
        self.record(&carrying.guard, loaded, &[failed]).await?;
        self.clean_up(row, &plan, Some(&error)).await;
        Ok(())
    }

    /// Deletes what the hooks of a release left. Only its recorded end makes sure that no process runs them again, and that this
    /// one still had the lease.
    async fn clean_up(&self, row: &ReleaseRow, plan: &Plan, error: Option<&ApplyError>) {
        clean_up_hooks(self.target.as_ref(), &plan.place, &hooks_of(row, plan), error).await;
    }

    async fn begin_rollback(
        &self,
        carrying: &mut Carrying,
        progress: &dyn Progress,
        loaded: &Loaded,
        to: ReleaseId,
    ) -> Result<(), DeliveryError> {
        if !carrying.knows_all {
            let plan = self.history.plan_of(&loaded.row).await?;
            if let Look::Overtaken(by) = self.look(&loaded.row, &plan, to).await? {
                return self.overtaken(carrying, progress, loaded, by).await;
            }
        }
        let began = Event::RollbackBegan { at: self.clock.now() };
        self.record(&carrying.guard, loaded, &[began]).await
    }

    /// Restores the release `to`.
    async fn roll_back(
        &self,
        carrying: &mut Carrying,
        progress: &dyn Progress,
        loaded: &Loaded,
        to: ReleaseId,
    ) -> Result<(), DeliveryError> {
        let row = self.store.release(to).await?;
        let row = row.ok_or_else(|| DeliveryError::internal(format!("release {to} is not in Towpath's storage")))?;
        let number = row.number;
        let plan = self.history.plan_of(&row).await;
        let mut is_back = false;
        if let (false, Ok(plan)) = (carrying.knows_all, &plan) {
            match self.look(&loaded.row, plan, to).await? {
                Look::Overtaken(by) => return self.overtaken(carrying, progress, loaded, by).await,
                Look::Runs => is_back = true,
                Look::Goes { .. } => progress.line(&format!(
                    "going back to release {number} is taken up again after a restart"
                )),
            }
        }
        let back = match plan {
            Ok(_) if is_back => Ok(()),
            Ok(plan) => self
                .apply(&plan, Occasion::Back, &row, progress)
                .await
                .map_err(|error| error.to_string()),
            Err(error) => Err(error.chain()),
        };
        let environment = loaded.row.environment.environment();
        let at = self.clock.now();
        let happened = match back {
            Ok(()) => {
                progress.line(&format!("Release {number} runs again."));
                Event::RolledBack { at }
            }
            Err(why) => {
                let message = format!("{environment} is between release {number} and this one: {why}");
                progress.line(&format!(
                    "Going back to release {number} failed too, so {environment} is between the two: {why}"
                ));
                Event::RollbackFailed { message, at }
            }
        };
        self.record(&carrying.guard, loaded, &[happened]).await
    }

    /// Leaves the environment to whoever has deployed there since.
    async fn overtaken(
        &self,
        carrying: &mut Carrying,
        progress: &dyn Progress,
        loaded: &Loaded,
        by: String,
    ) -> Result<(), DeliveryError> {
        let environment = loaded.row.environment.environment();
        progress.line(&format!(
            "{by} was deployed to {environment} since, so this one is over"
        ));
        let happened = Event::Overtaken {
            by,
            at: self.clock.now(),
        };
        self.record(&carrying.guard, loaded, &[happened]).await
    }

    /// Reconciles the environment's own record with the store, now that both know the outcome.
    async fn reconcile(&self, carrying: &mut Carrying, loaded: &Loaded) -> Result<(), DeliveryError> {
        let recorded = Event::Recorded { at: self.clock.now() };
        self.record(&carrying.guard, loaded, &[recorded]).await?;
        // The environment may have given it another number. If it does not answer now, the next look imports the
        // number.
        if let Ok(plan) = self.history.plan_of(&loaded.row).await
            && let Err(error) = self.history.learn(&plan.place).await
        {
            let error = error.chain();
            tracing::warn!(release = %loaded.row.id, error, "the environment's own record is not read");
        }
        Ok(())
    }

    /// Finds what happened in the environment while no process worked on the release `mine`. `wanted` is the release
    /// that should run.
    async fn look(&self, mine: &ReleaseRow, plan: &Plan, wanted: ReleaseId) -> Result<Look, DeliveryError> {
        let recorded = self.history.learn(&plan.place).await?;
        let runs = self.history.last(&mine.environment).await?;
        if let Some(by) = overtaken(mine, runs.as_ref(), &recorded) {
            return Ok(Look::Overtaken(by));
        }
        let applied = self.target.current(&plan.place).await?;
        let (release, attempted) = applied.map_or((None, None), |applied| (applied.release, applied.attempted));
        Ok(match release == Some(wanted) {
            true => Look::Runs,
            false => Look::Goes { attempted },
        })
    }

    async fn apply(
        &self,
        plan: &Plan,
        occasion: Occasion,
        row: &ReleaseRow,
        progress: &dyn Progress,
    ) -> Result<(), ApplyError> {
        let errored = |error: DeliveryError| ApplyError {
            outcome: Outcome::Errored,
            object: None,
            hook: None,
            message: error.chain(),
            log: Vec::new(),
            running: Vec::new(),
        };
        let prune = to_prune(self.target.as_ref(), &plan.place, &plan.objects)
            .await
            .map_err(errored)?;
        let request = ApplyRequest {
            environment: plan.place.clone(),
            occasion,
            record: record_of(row, plan),
            objects: plan.objects.clone(),
            prune,
            hooks: match occasion {
                Occasion::Release => hooks_of(row, plan),
                // What runs again had its hooks when it was released.
                Occasion::Back | Occasion::Beside => Hooks::default(),
            },
            deadline: plan.wait.for_release(),
            unschedulable: plan.wait.for_node(),
        };
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let result = {
            let mut apply = self.target.apply(request, sender);
            loop {
                tokio::select! {
                    biased;
                    Some(line) = receiver.recv() => say(progress, line),
                    result = &mut apply => break result,
                }
            }
        };
        while let Ok(line) = receiver.try_recv() {
            say(progress, line);
        }
        result
    }
}

/// The hooks of a release as runs. Their names are those of the release, so that a process that takes it over finds them.
fn hooks_of(row: &ReleaseRow, plan: &Plan) -> Hooks {
    let runs = |hooks: Vec<(HookEvent, Object)>, when: &str| {
        let run = |(event, mut job): (HookEvent, Object)| {
            as_run(&mut job, &format!("{}-{when}", row.id.short()));
            (event, job)
        };
        hooks.into_iter().map(run).collect()
    };
    Hooks {
        before: runs(plan.hooks.before(), "pre"),
        after: runs(plan.hooks.after(), "post"),
    }
}

fn say(progress: &dyn Progress, line: TargetProgress) {
    let object = line.object.map(|object| format!("{object}: ")).unwrap_or_default();
    progress.line(&format!("  {object}{}", line.message));
}

fn runs(plan: &Plan) -> String {
    format!("{} runs {}", plan.environment(), plan.images_text())
}

/// What a process finds when it resumes a release.
enum Look {
    /// Somebody else has deployed since.
    Overtaken(String),
    /// The wanted release already runs.
    Runs,
    /// Work is left to do.
    Goes {
        /// The release that last began to change the environment.
        attempted: Option<ReleaseId>,
    },
}

/// Why a release does not begin.
enum NotExpected {
    /// The store failed, which says nothing about the release.
    Here(DeliveryError),
    /// The environment is not as the plan expects, or does not answer.
    There(Why, String),
}

impl From<DeliveryError> for NotExpected {
    fn from(error: DeliveryError) -> Self {
        match error.is_of_store() {
            true => Self::Here(error),
            false => Self::There(Why::Unable, error.chain()),
        }
    }
}
