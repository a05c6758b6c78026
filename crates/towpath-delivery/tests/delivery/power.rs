//! Power cuts: wherever carrying a release out is interrupted, resuming it ends in the same state.

use crate::world::*;
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicUsize, Ordering},
};
use towpath_delivery::{OnFailure, Plan, PlanHooks, Unheard, Wait};
use towpath_deploy::{
    Occasion, Severity,
    fake::{JobScript, Method, Moment},
};
use towpath_manifest::{HookOccasion, Object};
use towpath_store::{ReleaseRow, ReleaseStore as _, WorkKey, WorkKind, WorkStore as _, WorkflowStore as _};
use towpath_types::{Digest, ImageReference, Outcome, ReleaseId, ReleaseStatus};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Story {
    Succeeds,
    First,
    FailsAndGoesBack,
    FailsAndStops,
    FailsWithNothingBefore,
    GoingBackFails,
    HookFails,
    Refused,
    Stale,
}

const STORIES: [Story; 9] = [
    Story::Succeeds,
    Story::First,
    Story::FailsAndGoesBack,
    Story::FailsAndStops,
    Story::FailsWithNothingBefore,
    Story::GoingBackFails,
    Story::HookFails,
    Story::Refused,
    Story::Stale,
];

/// Where to cut the power.
#[derive(Debug, Clone, Copy)]
enum Cut {
    /// Before an operation of the store.
    BeforeStore(u64),
    /// After an operation of the store, whose answer is lost.
    AfterStore(u64),
    /// In a call to the target.
    InTarget(usize, Moment),
}

fn object(kind: &str, name: &str, rest: serde_json::Value) -> Object {
    let version = if kind == "Deployment" { "apps/v1" } else { "v1" };
    let mut value = json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}});
    for (key, part) in rest.as_object().unwrap() {
        value[key] = part.clone();
    }
    Object::from_value(value, "a test").unwrap()
}

/// A Job that runs as a hook, and is deleted after it.
fn hook(name: &str, event: &str) -> Object {
    let annotations = json!({"helm.sh/hook": event, "helm.sh/hook-delete-policy": "hook-succeeded,hook-failed"});
    let pod = json!({"restartPolicy": "Never", "containers": [{"name": "app", "image": "r.io/hook"}]});
    let value = json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {"template": {"spec": pod}},
    });
    Object::from_value(value, "a test").unwrap()
}

fn plan(environment: &str, image: &str, parent: Option<ReleaseId>, on_failure: OnFailure) -> Plan {
    let repository: ImageReference = format!("r.io/{image}").parse().unwrap();
    // The same kind in each environment.
    let kind = image.split('-').next().unwrap_or_default();
    let image = repository.at(Digest::of(kind.as_bytes()));
    let container = json!({"name": "app", "image": image.to_string()});
    let spec = json!({"spec": {"template": {"spec": {"containers": [container]}}}});
    Plan {
        place: place(environment),
        on_failure,
        wait: Wait::default(),
        objects: vec![
            object("ConfigMap", "web", json!({"data": {"IMAGE": image.to_string()}})),
            object("ConfigMap", &format!("of-{}", image.repository), json!({})),
            object("Deployment", "web", spec),
        ],
        images: BTreeMap::from([("claims".to_string(), image)]),
        parent,
        previous_images: BTreeMap::new(),
        commit: None,
        commits: Vec::new(),
        third_party: BTreeMap::new(),
        changes: Vec::new(),
        unchanged: 0,
        hooks: PlanHooks {
            occasion: HookOccasion::Upgrade,
            jobs: vec![hook("migrate", "pre-upgrade"), hook("notify", "post-upgrade")],
        },
        blockers: Vec::new(),
        warnings: vec!["look".into()],
    }
}

/// How a story ended, without what differs between environments.
#[derive(Debug, PartialEq)]
struct End {
    status: ReleaseStatus,
    outcome: Option<Outcome>,
    message: Option<String>,
    objects: String,
    /// Which runs completely: the release, the one before it, or none.
    runs: Option<&'static str>,
    last_event: String,
    /// How many runs of hooks were started.
    started: usize,
}

struct Theatre {
    world: World,
    /// The number of environments used so far.
    used: AtomicUsize,
}

impl Theatre {
    async fn new(on_cluster: bool) -> Self {
        let world = match on_cluster {
            true => World::on_cluster().await,
            false => World::new().await,
        };
        Self {
            world,
            used: AtomicUsize::new(0),
        }
    }

    async fn release(&self, plan: &Plan) -> ReleaseRow {
        let begun = self.world.delivery.releases.begin(plan, "a story", &ann(), None).await;
        begun.unwrap()
    }

    /// Plays a story in its own environment up to the point where its release is ready to be carried out.
    async fn prepare(&self, story: Story) -> (String, ReleaseRow) {
        let number = self.used.fetch_add(1, Ordering::Relaxed);
        let environment = format!("story-{number}");
        let target = &self.world.target;
        target.break_image(&place(&environment), "r.io/bad", Outcome::Failed);
        // An image that fails only in this environment.
        let flaky = format!("flaky-{environment}");
        let before = match story {
            Story::First | Story::FailsWithNothingBefore => None,
            Story::GoingBackFails => Some(flaky.as_str()),
            _ => Some("good"),
        };
        let parent = match before {
            Some(image) => {
                let begun = self
                    .release(&plan(&environment, image, None, OnFailure::Rollback))
                    .await;
                let (row, _) = self.world.carry_out(begun.id).await;
                assert_eq!(row.status, ReleaseStatus::Succeeded);
                Some(begun.id)
            }
            None => None,
        };
        let (image, policy) = match story {
            Story::Succeeds | Story::First | Story::HookFails | Story::Refused | Story::Stale => {
                ("better", OnFailure::Rollback)
            }
            Story::FailsAndGoesBack | Story::GoingBackFails | Story::FailsWithNothingBefore => {
                ("bad", OnFailure::Rollback)
            }
            Story::FailsAndStops => ("bad", OnFailure::Stop),
        };
        let expects = match story {
            Story::Stale => None,
            _ => parent,
        };
        let begun = self.release(&plan(&environment, image, expects, policy)).await;
        match story {
            Story::HookFails => {
                target.script_job(&place(&environment), "migrate", JobScript::exits(&["no table"], 3));
            }
            Story::GoingBackFails => target.break_image(&place(&environment), &flaky, Outcome::TimedOut),
            Story::Refused => {
                target.add_finding_about_all(&place(&environment), Severity::Refused, "the quota is used up");
            }
            _ => {}
        }
        (environment, begun)
    }

    /// Carries the release out until the end, or until the power is cut.
    async fn play(&self, id: ReleaseId) {
        let key = WorkKey::new(WorkKind::Release, id);
        if self.world.store.work(&key).await.unwrap().is_none() {
            return;
        }
        self.world.let_leases_end();
        let guard = self.world.lease(WorkKind::Release, id).await;
        let releases = &self.world.delivery.releases;
        let carried = self.world.target.until_death(releases.carry_out(&guard, id, &Unheard));
        if let Some(Err(error)) = carried.await {
            assert!(error.is_temporary(), "{}", error.chain());
        }
    }

    /// The same with one cut. Returns `false` if the story ended before the cut.
    async fn play_with(&self, id: ReleaseId, cut: Cut) -> bool {
        let key = WorkKey::new(WorkKind::Release, id);
        if self.world.store.work(&key).await.unwrap().is_none() {
            return false;
        }
        self.world.let_leases_end();
        let guard = self.world.lease(WorkKind::Release, id).await;
        let (faults, target) = (&self.world.faults, &self.world.target);
        match cut {
            Cut::BeforeStore(n) => faults.cut_before(n),
            Cut::AfterStore(n) => faults.cut_after(n),
            Cut::InTarget(n, moment) => target.die_in_call(n, moment),
        }
        let releases = &self.world.delivery.releases;
        let carried = target.until_death(releases.carry_out(&guard, id, &Unheard)).await;
        let was_cut = !faults.is_pending() && !target.is_death_pending();
        faults.restore();
        target.forget_death();
        match carried {
            Some(Ok(_)) => assert!(!was_cut, "{cut:?} had no effect"),
            Some(Err(error)) => assert!(was_cut && error.is_temporary(), "{cut:?}: {}", error.chain()),
            None => assert!(was_cut),
        }
        was_cut
    }

    async fn end(&self, environment: &str, id: ReleaseId) -> End {
        let row = self.world.release(id).await;
        let applied = self.world.applied(environment);
        // Once something else was restored, nothing that failed is applied again.
        let back = applied.iter().position(|(occasion, _)| *occasion == Occasion::Back);
        if let Some(back) = back {
            let after = &applied[back..];
            assert!(after.iter().all(|(_, release)| *release != id), "{applied:?}");
        }
        let open = self.world.store.open_releases().await.unwrap();
        assert!(open.iter().all(|row| row.id != id), "{environment} has ended");
        let key = WorkKey::new(WorkKind::Release, id);
        assert_eq!(
            self.world.store.work(&key).await.unwrap(),
            None,
            "{environment}'s work is done"
        );
        let events = self.world.store.events(&format!("release/{id}"), 0).await.unwrap();
        let last = events.last().unwrap().event["event"]["type"]
            .as_str()
            .unwrap()
            .to_string();
        let started = self.world.target.started(&place(environment));
        let runs: BTreeSet<&String> = started.iter().collect();
        assert_eq!(runs.len(), started.len(), "a hook ran twice: {started:?}");
        let neutral = |text: String| text.replace(environment, "ENV");
        End {
            status: row.status,
            outcome: row.outcome,
            message: row.message.map(neutral),
            objects: neutral(format!("{:?}", self.world.target.live(&place(environment)))),
            runs: match self.world.running(environment).await {
                Some(release) if release == id => Some("it"),
                Some(_) => Some("the one before"),
                None => None,
            },
            last_event: last,
            started: started.len(),
        }
    }

    /// Plays a story without cuts: its end, its number of store operations, and its calls to the target.
    async fn reference(&self, story: Story) -> (End, u64, Vec<Method>) {
        let (environment, begun) = self.prepare(story).await;
        let (store, target) = (self.world.faults.total(), self.world.target.total_calls());
        let guard = self.world.lease(WorkKind::Release, begun.id).await;
        let claimed = self.world.faults.total() - store;
        let releases = &self.world.delivery.releases;
        releases.carry_out(&guard, begun.id, &Unheard).await.unwrap();
        let operations = self.world.faults.total() - store - claimed;
        let calls = self.world.target.called()[target..].to_vec();
        (self.end(&environment, begun.id).await, operations, calls)
    }

    /// Plays a story with cuts. Returns how many happened.
    async fn check(&self, story: Story, cuts: &[Cut], expected: &End) -> usize {
        let (environment, begun) = self.prepare(story).await;
        let mut count = 0;
        for cut in cuts {
            count += usize::from(self.play_with(begun.id, *cut).await);
        }
        self.play(begun.id).await;
        assert_eq!(self.end(&environment, begun.id).await, *expected, "{story:?} {cuts:?}");
        count
    }
}

fn cuts(operations: u64, calls: &[Method]) -> Vec<Cut> {
    let store = (1..=operations).flat_map(|n| [Cut::BeforeStore(n), Cut::AfterStore(n)]);
    let target = calls.iter().enumerate().flat_map(|(n, call)| {
        let middle = (*call == Method::Apply).then_some(Moment::Middle);
        [Some(Moment::Before), middle, Some(Moment::After)]
            .into_iter()
            .flatten()
            .map(move |moment| Cut::InTarget(n, moment))
    });
    store.chain(target).collect()
}

async fn every_cut(on_cluster: bool) -> usize {
    let theatre = Theatre::new(on_cluster).await;
    let mut places = 0;
    for story in STORIES {
        let (end, operations, calls) = theatre.reference(story).await;
        for cut in cuts(operations, &calls) {
            places += theatre.check(story, &[cut], &end).await;
        }
    }
    places
}

#[tokio::test]
async fn a_cut_anywhere_on_one_machine_changes_no_end() {
    let places = every_cut(false).await;
    println!("power was cut at {places} places");
    assert!(places > 200, "{places}");
}

#[tokio::test]
async fn a_cut_anywhere_on_a_cluster_changes_no_end() {
    let places = every_cut(true).await;
    println!("power was cut at {places} places");
    assert!(places > 200, "{places}");
}

#[tokio::test]
async fn cuts_may_follow_each_other() {
    let theatre = Theatre::new(true).await;
    let mut places = 0;
    for story in [Story::FailsAndGoesBack, Story::Succeeds] {
        let (end, operations, calls) = theatre.reference(story).await;
        let cuts = cuts(operations, &calls);
        // Trying every pair would take a minute; here each cut comes first once and second once.
        for (at, first) in cuts.iter().enumerate() {
            let second = cuts[(at * 7 + 16) % cuts.len()];
            places += theatre.check(story, &[*first, second], &end).await;
        }
    }
    println!("power was cut {places} times, twice in each story");
    assert!(places > 100, "{places}");
}

#[tokio::test]
async fn somebody_else_who_deployed_while_nobody_was_at_work_is_left_alone() {
    let theatre = Theatre::new(true).await;
    let (environment, begun) = theatre.prepare(Story::FailsAndGoesBack).await;
    let (_, _, calls) = theatre.reference(Story::FailsAndGoesBack).await;
    let apply = calls.iter().position(|call| *call == Method::Apply).unwrap();
    assert!(theatre.play_with(begun.id, Cut::InTarget(apply, Moment::Middle)).await);
    // A laptop deploys release 3.
    let plan = plan(&environment, "better", begun.parent, OnFailure::Rollback);
    let mut request = foreign_request(&environment, 3);
    let theirs = request.record.id;
    request.record.plan = towpath_delivery::write_plan(&plan);
    theatre.world.apply(request).await.unwrap();
    let before = theatre.world.applied(&environment);
    theatre.play(begun.id).await;
    let row = theatre.world.release(begun.id).await;
    assert_eq!(
        (row.status, row.outcome),
        (ReleaseStatus::Failed, Some(Outcome::Errored))
    );
    assert_eq!(
        row.message.as_deref(),
        Some("release 3 of eve deployed to the environment since, so it was left to that.")
    );
    assert_eq!(theatre.world.applied(&environment), before);
    assert_eq!(theatre.world.running(&environment).await, Some(theirs));
}
