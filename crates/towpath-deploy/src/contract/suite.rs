//! The checks.

// A failed check is a failed test.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use super::{
    capabilities::{Capabilities, SecondApply},
    harness::Harness,
};
use crate::target::{
    Applied, ApplyError, ApplyRequest, Environment, Hold, Hooks, JobEnd, JobHandle, JobLine, Occasion, ReleaseRecord,
    Target, TargetError, Volumes,
};
use futures::future::{Either, join, select};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};
use tokio::{sync::mpsc, time::timeout};
use towpath_manifest::{ChangeKind, HookEvent, Object, ObjectId};
use towpath_types::{Outcome, RecordedState, ReleaseId};

/// How long to wait for anything that needs no rollout.
const BOUND: Duration = Duration::from_secs(60);
/// How often to check a condition.
const CHECK: Duration = Duration::from_millis(50);

/// Checks the contract of the harness's target, behaviour by behaviour.
///
/// # Panics
/// If the target does not keep the contract.
pub async fn check(harness: &dyn Harness) {
    let suite = Suite {
        harness,
        number: AtomicI64::new(0),
    };
    suite.an_unknown_environment_is_empty().await;
    suite.a_refused_request_changes_nothing().await;
    suite.apply_creates_changes_and_prunes().await;
    suite.an_apply_outside_of_releases_leaves_the_release().await;
    suite.hooks_run_around_what_is_applied().await;
    suite.a_failed_apply_is_visible_and_can_be_rolled_back().await;
    suite.a_dropped_apply_is_completed_by_the_next().await;
    suite.applies_of_one_environment_do_not_overlap().await;
    suite.a_hold_keeps_others_out_until_it_ends().await;
    suite.drift_is_found_and_repaired().await;
    suite.jobs_print_and_end().await;
    suite.a_job_can_be_canceled().await;
    suite.runs_of_one_job_exclude_each_other().await;
    suite.cron_jobs_run_by_hand().await;
    suite.a_deleted_environment_is_empty().await;
}

struct Suite<'a> {
    harness: &'a dyn Harness,
    /// The number of the last release.
    number: AtomicI64,
}

impl<'a> Suite<'a> {
    fn target(&self) -> &'a dyn Target {
        self.harness.target()
    }

    fn environment(&self) -> &'a Environment {
        self.harness.environment()
    }

    fn can(&self) -> Capabilities {
        self.harness.capabilities()
    }

    /// A request for a new release by `ann`.
    fn request(&self, objects: Vec<Object>) -> ApplyRequest {
        ApplyRequest {
            environment: self.environment().clone(),
            occasion: Occasion::Release,
            record: ReleaseRecord {
                id: ReleaseId::from_u128(rand::random()),
                number: self.number.fetch_add(1, Ordering::Relaxed) + 1,
                state: RecordedState::Running,
                images: vec!["towpath.test/app".parse().expect("an image")],
                commit: None,
                by: "ann".into(),
                cause: "the contract".into(),
                at: Timestamp::now(),
                stopped_at: None,
                message: None,
                repeats: 0,
                repeated_at: None,
                plan: json!({"objects": []}),
            },
            objects,
            prune: Vec::new(),
            hooks: Hooks::default(),
            deadline: self.harness.deadline(),
            unschedulable: None,
        }
    }

    /// Applies a request. Returns the messages about objects.
    async fn apply(&self, request: ApplyRequest) -> Result<Vec<(ObjectId, String)>, ApplyError> {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let deadline = request.deadline + BOUND;
        let result = timeout(deadline, self.target().apply(request, sender)).await;
        result.expect("apply ends soon after its deadline")?;
        let mut messages = Vec::new();
        while let Ok(progress) = receiver.try_recv() {
            messages.extend(progress.object.map(|object| (object, progress.message)));
        }
        Ok(messages)
    }

    /// Applies a new release, which has to succeed. Returns its record.
    async fn release(&self, version: &str) -> ReleaseRecord {
        let request = self.request(self.harness.application(version));
        let record = request.record.clone();
        self.apply(request).await.expect("the application rolls out");
        record
    }

    async fn current(&self) -> Option<Applied> {
        self.target().current(self.environment()).await.unwrap()
    }

    /// The release that runs, and the one that was started last.
    async fn running(&self) -> (Option<ReleaseId>, Option<ReleaseId>) {
        let current = self.current().await.expect("the environment was applied");
        (current.release, current.attempted)
    }

    /// The release's state as the environment records it.
    async fn recorded_state(&self, id: ReleaseId) -> Option<RecordedState> {
        let releases = self.target().releases(self.environment()).await.unwrap();
        let found = releases.into_iter().find(|release| release.id == id);
        found.map(|release| release.state)
    }

    /// Checks the recorded state of a release, if the target records releases.
    async fn expect_recorded(&self, id: ReleaseId, states: &[Outcome]) {
        let recorded = self.recorded_state(id).await;
        if self.can().records_releases {
            let recorded = recorded.expect("the release is recorded");
            assert!(
                states.iter().any(|state| RecordedState::Ended(*state) == recorded),
                "{recorded} is none of {states:?}"
            );
        } else {
            assert_eq!(recorded, None);
        }
    }

    async fn an_unknown_environment_is_empty(&self) {
        let (target, environment) = (self.target(), self.environment());
        assert!(self.current().await.is_none());
        assert!(target.releases(environment).await.unwrap().is_empty());
        assert!(target.status(environment).await.unwrap().is_empty());
        assert!(target.cron_jobs(environment).await.unwrap().is_empty());
        let web = ObjectId {
            group: "apps".into(),
            kind: "Deployment".into(),
            name: "web".into(),
        };
        let canceled = target.cancel_job(environment, "nosuch").await;
        assert!(matches!(canceled, Err(TargetError::NotFound(_))), "{canceled:?}");
        let started = target.start_cron_job(environment, "nosuch", "nosuch-1", None).await;
        assert!(matches!(started, Err(TargetError::NotFound(_))), "{started:?}");
        let logs = target.logs(environment, &web, 10, false).await.map(drop);
        assert!(matches!(logs, Err(TargetError::NotFound(_))), "{logs:?}");
        target.delete_environment(environment, Volumes::Delete).await.unwrap();
    }

    async fn a_refused_request_changes_nothing(&self) {
        let objects = self.harness.refused_application();
        let preflight = self
            .target()
            .preflight(self.environment(), &objects, &[])
            .await
            .unwrap();
        assert!(preflight.refused().count() > 0, "{preflight:?}");
        let refused = self.apply(self.request(objects)).await.unwrap_err();
        assert_eq!(refused.outcome, Outcome::Rejected, "{refused}");
        let mut with_job = self.harness.application("one");
        with_job.push(self.harness.job("migrate-0", "migrate", 0, "migrated"));
        let refused = self.apply(self.request(with_job)).await.unwrap_err();
        assert_eq!(refused.outcome, Outcome::Rejected, "{refused}");
        assert!(self.current().await.is_none());
        assert!(self.target().releases(self.environment()).await.unwrap().is_empty());
        // Neither took a number.
        self.number.store(0, Ordering::Relaxed);
    }

    async fn changes(&self, objects: &[Object], prune: &[ObjectId]) -> Option<Vec<(String, ChangeKind)>> {
        let preflight = self
            .target()
            .preflight(self.environment(), objects, prune)
            .await
            .unwrap();
        let refused: Vec<String> = preflight.refused().map(ToString::to_string).collect();
        assert!(refused.is_empty(), "{refused:?}");
        assert_eq!(preflight.changes.is_some(), self.can().predicts_changes);
        let changes = preflight.changes?.into_iter();
        let changes = changes.filter(|change| change.kind != ChangeKind::Unchanged);
        let mut changes: Vec<_> = changes.map(|change| (change.id.to_string(), change.kind)).collect();
        changes.sort_by(|one, other| one.0.cmp(&other.0));
        Some(changes)
    }

    async fn apply_creates_changes_and_prunes(&self) {
        let one = self.harness.application("one");
        let mut names: Vec<String> = one.iter().map(|object| object.id().to_string()).collect();
        names.sort();
        if let Some(changes) = self.changes(&one, &[]).await {
            let created: Vec<_> = names.iter().map(|name| (name.clone(), ChangeKind::Created)).collect();
            assert_eq!(changes, created);
        }
        let first = self.request(one.clone());
        let messages = self.apply(first.clone()).await.unwrap();
        let about = |messages: &[(ObjectId, String)], wanted: &str| {
            let matching = messages.iter().filter(|(_, message)| message == wanted);
            let mut names: Vec<String> = matching.map(|(id, _)| id.to_string()).collect();
            names.sort();
            names
        };
        assert_eq!(about(&messages, "created"), names);
        assert_eq!(self.running().await, (Some(first.record.id), Some(first.record.id)));
        let current = self.current().await.unwrap();
        let mut applied: Vec<String> = current.objects.iter().map(ToString::to_string).collect();
        applied.sort();
        assert_eq!(applied, names);
        assert!(current.deploying.is_none() && current.hold.is_none(), "{current:?}");
        self.expect_recorded(first.record.id, &[Outcome::Succeeded]).await;
        let statuses = self.target().status(self.environment()).await.unwrap();
        let web = statuses.iter().find(|status| status.kind == "Deployment").unwrap();
        assert!(
            web.name == "web" && web.ready == web.desired && web.desired > 0,
            "{web:?}"
        );

        // The same request again does nothing.
        let messages = self.apply(first.clone()).await.unwrap();
        assert_eq!(about(&messages, "created"), Vec::<String>::new());
        assert_eq!(about(&messages, "changed"), Vec::<String>::new());
        assert_eq!(self.running().await.0, Some(first.record.id));

        // One changed value changes one object.
        let two = self.harness.application("two");
        if let Some(changes) = self.changes(&two, &[]).await {
            let config = ("ConfigMap/contract".to_string(), ChangeKind::Changed);
            assert!(changes.contains(&config), "{changes:?}");
        }
        let second = self.request(two.clone());
        let messages = self.apply(second.clone()).await.unwrap();
        assert_eq!(about(&messages, "created"), Vec::<String>::new());
        let changed = about(&messages, "changed");
        assert!(changed.contains(&"ConfigMap/contract".to_string()), "{changed:?}");

        // An object that is pruned goes. One that is neither applied nor pruned stays.
        let (sweep, rest): (Vec<Object>, Vec<Object>) = two.into_iter().partition(|object| object.kind == "CronJob");
        let kept = self.request(rest.clone());
        self.apply(kept).await.unwrap();
        let has_sweep = |current: &Applied| current.objects.iter().any(|id| id.kind == "CronJob");
        assert!(has_sweep(&self.current().await.unwrap()));
        let mut prune = vec![sweep[0].id()];
        if let Some(changes) = self.changes(&rest, &prune).await {
            let deleted = (prune[0].to_string(), ChangeKind::Deleted);
            assert_eq!(changes, [deleted]);
        }
        prune.push(ObjectId {
            name: "nosuch".into(),
            ..sweep[0].id()
        });
        let mut pruning = self.request(rest);
        pruning.prune = prune;
        self.apply(pruning).await.unwrap();
        assert!(!has_sweep(&self.current().await.unwrap()));
        assert!(self.target().cron_jobs(self.environment()).await.unwrap().is_empty());

        if self.can().records_releases {
            let releases = self.target().releases(self.environment()).await.unwrap();
            let numbers: Vec<i64> = releases.iter().map(|release| release.number).collect();
            assert_eq!(numbers, [4, 3, 2, 1]);
        }
    }

    async fn an_apply_outside_of_releases_leaves_the_release(&self) {
        let release = self.release("one").await;
        let config = self.harness.application("beside").into_iter();
        let config = config.filter(|object| object.kind == "ConfigMap").collect();
        let mut request = self.request(config);
        self.number.fetch_sub(1, Ordering::Relaxed);
        request.occasion = Occasion::Beside;
        request.record.by = "bob".into();
        let id = request.record.id;
        self.apply(request).await.unwrap();
        assert_eq!(self.running().await, (Some(release.id), Some(release.id)));
        assert_eq!(self.recorded_state(id).await, None);
    }

    async fn a_failed_apply_is_visible_and_can_be_rolled_back(&self) {
        let good = self.request(self.harness.application("good"));
        self.apply(good.clone()).await.unwrap();
        let broken = self.request(self.harness.broken_application("broken"));
        let failed = broken.record.id;
        let error = self.apply(broken).await.unwrap_err();
        assert!(matches!(error.outcome, Outcome::Failed | Outcome::TimedOut), "{error}");
        let culprit = error.object.as_ref().map(ToString::to_string);
        assert_eq!(culprit.as_deref(), Some("Deployment/web"), "{error}");
        assert_eq!(self.running().await, (None, Some(failed)));
        self.expect_recorded(failed, &[Outcome::Failed, Outcome::TimedOut])
            .await;

        let back = ApplyRequest {
            occasion: Occasion::Back,
            ..good.clone()
        };
        self.apply(back).await.unwrap();
        assert_eq!(self.running().await, (Some(good.record.id), Some(good.record.id)));
        // Going back is not a release, and changes no record.
        self.expect_recorded(good.record.id, &[Outcome::Succeeded]).await;
        self.expect_recorded(failed, &[Outcome::Failed, Outcome::TimedOut])
            .await;
    }

    async fn hooks_run_around_what_is_applied(&self) {
        let good = self.request(self.harness.application("hooks-1"));
        self.apply(good.clone()).await.unwrap();
        let job = |name: &str, exit_code: i64| self.harness.job(&format!("{name}-hook"), name, exit_code, name);

        // The first that fails ends the release before anything else has changed.
        let mut failing = self.request(self.harness.application("hooks-2"));
        failing.hooks.before = vec![
            (HookEvent::PreUpgrade, job("prepare", 0)),
            (HookEvent::PreUpgrade, job("migrate", 3)),
            (HookEvent::PreUpgrade, job("never", 0)),
        ];
        failing.hooks.after = vec![(HookEvent::PostUpgrade, job("never", 0))];
        let failed = failing.record.id;
        let error = self.apply(failing).await.unwrap_err();
        assert_eq!(
            (error.outcome, error.object.as_ref().map(ToString::to_string)),
            (Outcome::Failed, Some("Job/migrate".to_string())),
            "{error}"
        );
        assert!(
            error.message.contains("`pre-upgrade`") && error.log == ["migrate"],
            "{error:?}"
        );
        let followed = self.target().follow_job(self.environment(), "never-hook", None).await;
        assert!(followed.is_err(), "it never ran");
        if let Some(changes) = self.changes(&good.objects, &[]).await {
            assert_eq!(changes, [], "everything is as it was");
        }
        assert_eq!(self.running().await, (None, Some(failed)));
        self.expect_recorded(failed, &[Outcome::Failed]).await;

        let mut request = self.request(self.harness.application("hooks-3"));
        request.hooks.before = vec![(HookEvent::PreUpgrade, self.harness.job("early-2", "early", 0, "early"))];
        request.hooks.after = vec![(HookEvent::PostUpgrade, self.harness.job("late-2", "late", 0, "late"))];
        let messages = self.apply(request.clone()).await.unwrap();
        let said: Vec<String> = messages.iter().map(|(id, said)| format!("{id}: {said}")).collect();
        let at = |text: &str| {
            let found = said.iter().position(|said| said == text);
            found.unwrap_or_else(|| panic!("`{text}` is in {said:?}"))
        };
        let order = [
            at("Job/early: runs as the hook `pre-upgrade`"),
            at("Job/early: | early"),
            at("ConfigMap/contract: changed"),
            at("Job/late: | late"),
        ];
        assert!(order.is_sorted(), "{said:?}");
        assert_eq!(self.running().await, (Some(request.record.id), Some(request.record.id)));
    }

    /// Waits until an `apply` of this release has begun.
    async fn until_begun(&self, id: ReleaseId) {
        let begun = async {
            while self.current().await.and_then(|current| current.attempted) != Some(id) {
                tokio::time::sleep(CHECK).await;
            }
        };
        timeout(BOUND, begun).await.expect("the release begins");
    }

    async fn a_dropped_apply_is_completed_by_the_next(&self) {
        let dropped = self.request(self.harness.slow_application("dropped"));
        let id = dropped.record.id;
        // Boxed, so that `drop` drops the future itself.
        let applying = Box::pin(self.apply(dropped));
        let begun = Box::pin(self.until_begun(id));
        match select(applying, begun).await {
            Either::Left((result, _)) => panic!("it was to be dropped before it ended: {result:?}"),
            Either::Right(((), applying)) => drop(applying),
        }
        let next = self.release("after-dropped").await;
        assert_eq!(self.running().await, (Some(next.id), Some(next.id)));
        self.expect_recorded(id, &[Outcome::Errored]).await;
    }

    async fn applies_of_one_environment_do_not_overlap(&self) {
        let first = self.request(self.harness.slow_application("first"));
        let mut second = self.request(self.harness.application("second"));
        second.record.by = "bob".into();
        let (first_id, second_id) = (first.record.id, second.record.id);
        let one = self.apply(first);
        let two = async {
            self.until_begun(first_id).await;
            self.apply(second).await
        };
        let (one, two) = join(one, two).await;
        one.expect("the first is not disturbed");
        match self.can().second_apply {
            SecondApply::Waits => {
                two.expect("the second waits for its turn");
                assert_eq!(self.running().await.0, Some(second_id));
            }
            SecondApply::IsRefused => {
                let refused = two.unwrap_err();
                assert_eq!(refused.outcome, Outcome::Rejected, "{refused}");
                assert_eq!(self.running().await.0, Some(first_id));
                self.number.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    fn hold_by(&self, by: &str, until: SignedDuration) -> Hold {
        let now = Timestamp::now();
        Hold {
            by: by.into(),
            reason: "an incident".into(),
            since: now,
            until: now + until,
        }
    }

    async fn set_hold(&self, hold: Option<Hold>) {
        self.target().set_hold(self.environment(), hold).await.unwrap();
    }

    async fn a_hold_keeps_others_out_until_it_ends(&self) {
        let before = self.release("before-hold").await;
        let hold = self.hold_by("bob", SignedDuration::from_mins(10));
        self.set_hold(Some(hold.clone())).await;
        self.set_hold(Some(hold.clone())).await;
        let held = self.current().await.unwrap().hold.expect("the hold is visible");
        assert_eq!((held.by.as_str(), held.reason.as_str()), ("bob", "an incident"));
        if self.can().enforces_holds {
            let refused = self
                .apply(self.request(self.harness.application("held")))
                .await
                .unwrap_err();
            assert_eq!(refused.outcome, Outcome::Rejected, "{refused}");
            let said = refused.to_string();
            assert!(said.contains("bob") && said.contains("an incident"), "{said}");
            assert_eq!(self.running().await.0, Some(before.id));
            self.number.fetch_sub(1, Ordering::Relaxed);
        }
        // Its owner may deploy.
        let mut bobs = self.request(self.harness.application("bobs"));
        bobs.record.by = "bob".into();
        self.apply(bobs).await.unwrap();
        assert!(
            self.current().await.unwrap().hold.is_some(),
            "a deployment does not end it"
        );
        // A hold ends by itself, and by `None`.
        self.set_hold(Some(self.hold_by("bob", SignedDuration::from_secs(-1))))
            .await;
        self.release("after-expiry").await;
        self.set_hold(None).await;
        self.set_hold(None).await;
        assert!(self.current().await.unwrap().hold.is_none());
        self.release("after-hold").await;
    }

    async fn drift_is_found_and_repaired(&self) {
        let objects = self.harness.application("steady");
        self.apply(self.request(objects.clone())).await.unwrap();
        let drift = async || self.target().drift(self.environment(), &objects).await.unwrap();
        assert_eq!(drift().await, []);
        if !self.can().finds_drift {
            return;
        }
        let config = objects.iter().find(|object| object.kind == "ConfigMap").unwrap().id();
        self.harness.tamper(&config).await;
        let found = drift().await;
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(
            (&found[0].change.id, found[0].change.kind),
            (&config, ChangeKind::Changed)
        );
        assert!(!found[0].writers.is_empty(), "{found:?}");
        self.apply(self.request(objects.clone())).await.unwrap();
        assert_eq!(drift().await, []);
    }

    async fn run(&self, job: Object) -> JobHandle {
        self.target().run_job(self.environment(), job, None).await.unwrap()
    }

    async fn jobs_print_and_end(&self) {
        let good = self.harness.job("migrate-1", "migrate", 0, "migrated");
        let handle = self.run(good.clone()).await;
        assert_eq!(handle.name, "migrate-1");
        let (lines, end) = finish(handle).await;
        assert_eq!(lines, ["migrated"]);
        assert_eq!((end.outcome, end.exit_code), (Outcome::Succeeded, Some(0)), "{end:?}");
        // The same run again is followed, not started.
        let (lines, end) = finish(self.run(good).await).await;
        assert_eq!((lines, end.outcome), (vec!["migrated".to_string()], Outcome::Succeeded));
        let (lines, end) = finish(self.run(self.harness.job("migrate-2", "migrate", 3, "no table")).await).await;
        assert_eq!(lines, ["no table"]);
        assert_eq!((end.outcome, end.exit_code), (Outcome::Failed, Some(3)), "{end:?}");
    }

    async fn a_job_can_be_canceled(&self) {
        let handle = self.run(self.harness.endless_job("endless-1", "endless")).await;
        self.target().cancel_job(self.environment(), "endless-1").await.unwrap();
        let (_, end) = finish(handle).await;
        assert_eq!(end.outcome, Outcome::Canceled, "{end:?}");
        let again = self.target().cancel_job(self.environment(), "endless-1").await;
        assert!(matches!(again, Ok(()) | Err(TargetError::NotFound(_))), "{again:?}");
    }

    async fn runs_of_one_job_exclude_each_other(&self) {
        if !self.can().runs_exclude_each_other {
            return;
        }
        let handle = self.run(self.harness.endless_job("endless-2", "endless")).await;
        let second = self.harness.endless_job("endless-3", "endless");
        let refused = self.target().run_job(self.environment(), second, None).await.map(drop);
        assert!(matches!(refused, Err(TargetError::Refused(_))), "{refused:?}");
        self.target().cancel_job(self.environment(), "endless-2").await.unwrap();
        finish(handle).await;
        // A run that has ended is replaced.
        let (_, end) = finish(self.run(self.harness.job("endless-4", "endless", 0, "done")).await).await;
        assert_eq!(end.outcome, Outcome::Succeeded, "{end:?}");
    }

    async fn cron_jobs_run_by_hand(&self) {
        self.release("cron").await;
        let statuses = self.target().cron_jobs(self.environment()).await.unwrap();
        let [sweep] = statuses.as_slice() else {
            panic!("one CronJob: {statuses:?}")
        };
        assert_eq!((sweep.name.as_str(), sweep.active), ("sweep", 0));
        assert!(sweep.next_run.is_some() && sweep.last_success.is_none(), "{sweep:?}");
        let run = async |name: &str| {
            let started = self
                .target()
                .start_cron_job(self.environment(), "sweep", name, None)
                .await;
            let handle = started.unwrap();
            assert_eq!(handle.name, name);
            let (lines, end) = finish(handle).await;
            assert_eq!(lines.last().map(String::as_str), Some("swept"), "{lines:?}");
            assert_eq!(end.outcome, Outcome::Succeeded, "{end:?}");
            self.target().cron_jobs(self.environment()).await.unwrap().remove(0)
        };
        let first = run("sweep-by-hand-1").await;
        assert!(first.last_success.is_some(), "{first:?}");
        // The same run again is followed, not started: by its name it is found again after a lost answer.
        let followed = run("sweep-by-hand-1").await;
        assert_eq!(
            (followed.last_run, followed.last_success),
            (first.last_run, first.last_success)
        );
        let found = self
            .target()
            .follow_job(self.environment(), "sweep-by-hand-1", None)
            .await;
        let (lines, end) = finish(found.unwrap()).await;
        assert_eq!(
            (lines.last().map(String::as_str), end.outcome),
            (Some("swept"), Outcome::Succeeded)
        );
        let unknown = self
            .target()
            .follow_job(self.environment(), "sweep-by-hand-2", None)
            .await;
        assert!(matches!(unknown, Err(TargetError::NotFound(_))), "nobody started it");
        run("sweep-by-hand-2").await;
    }

    async fn a_deleted_environment_is_empty(&self) {
        let (target, environment) = (self.target(), self.environment());
        for _ in 0..2 {
            target.delete_environment(environment, Volumes::Delete).await.unwrap();
            assert!(self.current().await.is_none());
            assert!(target.releases(environment).await.unwrap().is_empty());
            assert!(target.status(environment).await.unwrap().is_empty());
        }
    }
}

/// The lines of a job without notes, and how it ended.
async fn finish(mut handle: JobHandle) -> (Vec<String>, JobEnd) {
    let all = async {
        let mut printed = Vec::new();
        while let Some(line) = handle.output.recv().await {
            match line {
                JobLine::Output(bytes) => printed.extend_from_slice(&bytes),
                JobLine::Note(note) => tracing::debug!(note, "a note about a job"),
            }
        }
        let end = handle.end.await.expect("a job has an end");
        let printed = String::from_utf8_lossy(&printed);
        (printed.lines().map(str::to_string).collect(), end)
    };
    timeout(BOUND, all).await.expect("the job ends")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        EnvironmentId, Finding, Severity,
        fake::{FakeTarget, JobScript},
    };
    use futures::future::BoxFuture;
    use serde_json::Value;
    use towpath_manifest::Kind;

    struct Fake {
        target: FakeTarget,
        environment: Environment,
        capabilities: Capabilities,
    }

    impl Fake {
        fn new(capabilities: Capabilities) -> Self {
            Self {
                target: FakeTarget::new(capabilities),
                environment: Environment {
                    id: EnvironmentId::new("claims", "dev").unwrap(),
                    kube_context: "live".into(),
                    namespace: "claims-dev".into(),
                },
                capabilities,
            }
        }

        fn object(&self, kind: &str, name: &str, rest: &Value) -> Object {
            let mut value = json!({"apiVersion": Kind::of(kind).api_version, "kind": kind, "metadata": {"name": name}});
            for (field, rest) in rest.as_object().into_iter().flatten() {
                value[field] = rest.clone();
            }
            Object::from_value(value, "test").unwrap()
        }
    }

    impl Harness for Fake {
        fn target(&self) -> &dyn Target {
            &self.target
        }

        fn environment(&self) -> &Environment {
            &self.environment
        }

        fn capabilities(&self) -> Capabilities {
            self.capabilities
        }

        fn deadline(&self) -> Duration {
            Duration::from_secs(60)
        }

        fn application(&self, version: &str) -> Vec<Object> {
            let script = JobScript::exits(&["swept"], 0);
            self.target.script_job(&self.environment, "sweep", script);
            let job = json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "a"}]}}}});
            vec![
                self.object("ConfigMap", "contract", &json!({"data": {"VERSION": version}})),
                self.object("Deployment", "web", &json!({"spec": {"replicas": 2}})),
                self.object(
                    "CronJob",
                    "sweep",
                    &json!({"spec": {"schedule": "0 3 * * *", "jobTemplate": job}}),
                ),
            ]
        }

        fn slow_application(&self, version: &str) -> Vec<Object> {
            self.target
                .delay_next_apply(&self.environment, Duration::from_millis(300));
            self.application(version)
        }

        fn broken_application(&self, version: &str) -> Vec<Object> {
            let objects = self.application(version);
            let error = ApplyError {
                outcome: Outcome::Failed,
                object: Some(objects[1].id()),
                hook: None,
                message: "it crashes".into(),
                log: Vec::new(),
                running: Vec::new(),
            };
            self.target.fail_next_apply(&self.environment, error);
            objects
        }

        fn refused_application(&self) -> Vec<Object> {
            let mut objects = self.application("refused");
            let refused = self.object("ConfigMap", "refused", &json!({}));
            let finding = Finding {
                severity: Severity::Refused,
                object: refused.id(),
                field: String::new(),
                place: refused.place.clone(),
                message: "it is refused".into(),
            };
            self.target.add_finding(&self.environment, finding);
            objects.push(refused);
            objects
        }

        fn job(&self, name: &str, label: &str, exit_code: i64, text: &str) -> Object {
            let script = JobScript::exits(&[text], exit_code);
            self.target.script_job(&self.environment, name, script);
            let mut job = self.object("Job", name, &json!({}));
            job.value["metadata"]["labels"][crate::JOB_LABEL] = json!(label);
            job
        }

        fn endless_job(&self, name: &str, label: &str) -> Object {
            let job = self.job(name, label, 0, "");
            self.target.script_job(&self.environment, name, JobScript::endless(&[]));
            job
        }

        fn tamper<'a>(&'a self, id: &'a ObjectId) -> BoxFuture<'a, ()> {
            self.target.tamper(&self.environment, id, "kubectl-edit", |value| {
                value["data"]["VERSION"] = json!("tampered");
            });
            Box::pin(async {})
        }
    }

    #[tokio::test]
    async fn the_fake_keeps_the_contract_like_kubernetes() {
        check(&Fake::new(Capabilities::KUBERNETES)).await;
    }

    #[tokio::test]
    async fn the_fake_keeps_the_contract_like_the_local_target() {
        check(&Fake::new(Capabilities::LOCAL)).await;
    }
}
