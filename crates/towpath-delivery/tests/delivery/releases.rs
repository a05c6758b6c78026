//! Releases: begun, carried out, refused, and queued.

use crate::world::*;
use jiff::SignedDuration;
use std::{sync::Arc, time::Duration};
use towpath_delivery::{ErrorKind, Unheard};
use towpath_deploy::{Hold, Target as _, fake::Moment};
use towpath_store::{
    Commit, EnvironmentStore as _, Expect, ReleaseStore as _, Store as _, WorkKey, WorkKind, WorkStore as _,
    WorkflowStore as _, Write,
};
use towpath_testkit::Probe;
use towpath_types::{Clock as _, JobId, JobStatus, Outcome, ReleaseStatus, Via};

#[tokio::test]
async fn a_release_is_committed_with_its_plan_its_events_and_its_work() {
    let world = World::new().await;
    world.push_image("app-latest");
    let releases = &world.delivery.releases;
    let begun = releases
        .deploy(&environment("dev"), request("latest"), &ann())
        .await
        .unwrap();
    assert_eq!(begun, world.release(begun.id).await);
    assert_eq!(
        (begun.number, begun.status, begun.cause.as_str(), begun.actor.clone()),
        (1, ReleaseStatus::Approved, "towpath deploy dev latest", ann())
    );
    world.plan(&begun.plan).await;
    let events = world.store.events(&format!("release/{}", begun.id), 0).await.unwrap();
    let types: Vec<&str> = events
        .iter()
        .map(|event| event.event["event"]["type"].as_str().unwrap())
        .collect();
    assert_eq!(types, ["planned", "approved"]);
    let key = WorkKey::new(WorkKind::Release, begun.id);
    let work = world.store.work(&key).await.unwrap().unwrap();
    assert_eq!((work.project, work.due), (Some(claims()), world.clock.now()));
    assert!(world.applied("dev").is_empty());
    let row = world.store.environment(&environment("dev")).await.unwrap().unwrap();
    assert!(!row.listed, "nobody discovered it yet");
}

#[tokio::test]
async fn a_release_that_is_carried_out_runs() {
    let world = World::new().await;
    let digest = world.push_image("app-latest");
    let (row, said) = world.deploy("dev", "latest").await;
    assert_eq!(
        (row.status, row.outcome, row.message.clone()),
        (ReleaseStatus::Succeeded, Some(Outcome::Succeeded), None)
    );
    assert_eq!(row.stopped_at, Some(world.clock.now()));
    let image = format!("{REGISTRY}/claims@{digest}");
    assert_eq!(
        said,
        format!("release 1 of dev: {image}\n  ConfigMap/web: created\n  Deployment/web: created\ndev runs {image}")
    );
    assert_eq!(world.running("dev").await, Some(row.id));
    assert_eq!(world.live("dev").len(), 2);
    assert!(world.store.open_releases().await.unwrap().is_empty());
    // The poller is told to look.
    let key = WorkKey::new(WorkKind::Environment, environment("dev").slug());
    assert!(world.store.work(&key).await.unwrap().is_some());
}

#[tokio::test]
async fn what_left_the_manifests_is_removed() {
    let world = World::new().await;
    world.push_image("app-latest");
    world.deploy("dev", "latest").await;
    let mut request = request("latest");
    request.files[0] = file(".k8s/live/dev/web.yaml", WEB.split("---\n").next().unwrap());
    let releases = &world.delivery.releases;
    let begun = releases.deploy(&environment("dev"), request, &ann()).await.unwrap();
    world.carry_out(begun.id).await;
    assert_eq!(world.live("dev"), ["Deployment/web"]);
}

#[tokio::test]
async fn one_deployment_at_a_time_begins() {
    let world = World::new().await;
    world.push_image("app-latest");
    let releases = &world.delivery.releases;
    let id = environment("dev");
    let first = releases.deploy(&id, request("latest"), &ann()).await.unwrap();
    let error = releases.deploy(&id, request("latest"), &bob()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(
        error.to_string().starts_with(
            "ann is deploying release 1 to dev since 2026-01-01T00:00:00Z (towpath deploy dev latest): when that"
        ),
        "{error}"
    );
    // Another environment is not affected.
    assert!(
        releases
            .deploy(&environment("qa"), request("latest"), &bob())
            .await
            .is_ok()
    );
    world.carry_out(first.id).await;
    assert!(releases.deploy(&id, request("latest"), &bob()).await.is_ok());
}

/// Two releases in one environment, both begun before either was carried out, as on two servers at once.
async fn two_at_once(world: &World) -> (towpath_store::ReleaseRow, towpath_store::ReleaseRow) {
    world.push_image("app-latest");
    let id = environment("dev");
    let releases = &world.delivery.releases;
    let plan = world
        .delivery
        .planner
        .plan_of_request(&id, request("latest"))
        .await
        .unwrap();
    let first = releases.begin(&plan, "one", &ann(), None).await.unwrap();
    // Hide the first while the second checks whether anybody deploys.
    let hide = |row: &towpath_store::ReleaseRow, status| towpath_store::ReleaseRow { status, ..row.clone() };
    let write = Write::Release(hide(&first, ReleaseStatus::Abandoned), Expect::Version(first.version));
    world.store.commit(Commit::new().with(write)).await.unwrap();
    world.push_image("app-latest");
    let planner = &world.delivery.planner;
    let plan = planner.plan_of_request(&id, request("latest")).await.unwrap();
    let second = releases.begin(&plan, "two", &bob(), None).await.unwrap();
    let write = Write::Release(
        hide(&first, ReleaseStatus::Approved),
        Expect::Version(first.version + 1),
    );
    world.store.commit(Commit::new().with(write)).await.unwrap();
    (first, second)
}

#[tokio::test]
async fn the_second_release_waits_for_the_first_and_is_then_stale() {
    let world = Arc::new(World::new().await);
    let (first, second) = two_at_once(&world).await;
    assert_eq!((first.number, second.number), (1, 2));
    let waiting = {
        let (world, id) = (world.clone(), second.id);
        tokio::spawn(async move { world.carry_out(id).await })
    };
    // It has reported that it waits, and sleeps until the next change.
    towpath_testkit::until("the second release to wait", Duration::from_secs(30), async || {
        Ok(match world.clock.sleepers() {
            0 => Probe::NotYet("nobody sleeps".into()),
            _ => Probe::Found(()),
        })
    })
    .await
    .unwrap();
    assert!(world.applied("dev").is_empty());
    world.carry_out(first.id).await;
    let (row, said) = waiting.await.unwrap();
    assert_eq!(
        (row.status, row.outcome),
        (ReleaseStatus::Abandoned, Some(Outcome::Rejected))
    );
    assert_eq!(
        said,
        "waiting for another deployment to dev to end\ndev changed since this plan was made: release 1 runs there now. Look at a new \
         plan"
    );
    assert_eq!(row.message.as_deref(), said.split('\n').nth(1));
    assert_eq!(world.running("dev").await, Some(first.id));
}

#[tokio::test]
async fn the_second_release_goes_on_if_the_first_changed_nothing() {
    let world = World::new().await;
    let (first, second) = two_at_once(&world).await;
    world.refuse("no");
    let (row, _) = world.carry_out(first.id).await;
    assert_eq!(row.status, ReleaseStatus::Abandoned);
    world.target.clear_findings(&place("dev"));
    let (row, _) = world.carry_out(second.id).await;
    assert_eq!(row.status, ReleaseStatus::Succeeded);
}

#[tokio::test]
async fn what_the_target_refuses_changes_nothing() {
    let world = World::new().await;
    world.push_image("app-latest");
    let (before, _) = world.deploy("dev", "latest").await;
    world.push_image("app-latest");
    let releases = &world.delivery.releases;
    let begun = releases
        .deploy(&environment("dev"), request("latest"), &ann())
        .await
        .unwrap();
    world.refuse("the quota is used up");
    let (row, said) = world.carry_out(begun.id).await;
    assert_eq!(
        (row.status, row.outcome),
        (ReleaseStatus::Abandoned, Some(Outcome::Rejected))
    );
    let message = row.message.unwrap();
    assert!(
        message.ends_with("the quota is used up\nNothing was changed."),
        "{message}"
    );
    assert!(said.ends_with(&message), "{said}");
    assert_eq!(world.running("dev").await, Some(before.id));
    assert_eq!(world.applied("dev").len(), 1);
}

#[tokio::test]
async fn an_environment_that_does_not_answer_changes_nothing() {
    let world = World::new().await;
    world.push_image("app-latest");
    let releases = &world.delivery.releases;
    let begun = releases
        .deploy(&environment("dev"), request("latest"), &ann())
        .await
        .unwrap();
    world.target.set_unreachable(Some("connection refused"));
    let (row, said) = world.carry_out(begun.id).await;
    assert_eq!(
        (row.status, row.outcome),
        (ReleaseStatus::Abandoned, Some(Outcome::Errored))
    );
    assert!(said.contains("connection refused"), "{said}");
}

#[tokio::test]
async fn a_lock_that_somebody_took_meanwhile_holds() {
    let world = World::new().await;
    world.push_image("app-latest");
    let releases = &world.delivery.releases;
    let begun = releases
        .deploy(&environment("dev"), request("latest"), &ann())
        .await
        .unwrap();
    let hold = Hold {
        by: "bob".into(),
        reason: "looking".into(),
        since: at("2026-01-01T00:00:00Z"),
        until: at("2026-01-01T01:00:00Z"),
    };
    world.target.set_hold(&place("dev"), Some(hold)).await.unwrap();
    let (row, said) = world.carry_out(begun.id).await;
    assert_eq!(row.outcome, Some(Outcome::Rejected));
    assert!(said.contains("dev is locked by bob until"), "{said}");
}

#[tokio::test]
async fn a_release_of_a_laptop_is_learned_and_makes_plans_stale() {
    let world = World::on_cluster().await;
    world.push_image("app-latest");
    let planner = &world.delivery.planner;
    let plan = planner
        .plan_of_request(&environment("dev"), request("latest"))
        .await
        .unwrap();
    // A laptop with its own store deploys to the same cluster.
    let laptop = world.laptop().await;
    laptop.push_image("app-latest");
    laptop.push_image("app-latest");
    let (theirs, _) = laptop.deploy("dev", "latest").await;
    let begun = world.delivery.releases.begin(&plan, "x", &ann(), None).await.unwrap();
    let (row, said) = world.carry_out(begun.id).await;
    assert_eq!(row.status, ReleaseStatus::Abandoned);
    assert!(said.contains("release 1 runs there now"), "{said}");
    let learned = world.release(theirs.id).await;
    assert_eq!(
        (learned.status, learned.images, learned.plan, learned.actor.via),
        (ReleaseStatus::Succeeded, theirs.images, theirs.plan, Via::CommandLine)
    );
    // The next one starts from it.
    let next = world.planned("dev", request("latest"));
    assert_eq!(next.await.unwrap().parent, Some(theirs.id));
}

#[tokio::test]
async fn a_number_that_the_environment_gave_is_taken_over() {
    let world = World::on_cluster().await;
    world.push_image("app-latest");
    let (row, _) = world.deploy("dev", "latest").await;
    let mut request = world.target.requests(&place("dev")).remove(0);
    request.record.number = 5;
    world.apply(request).await.unwrap();
    world
        .delivery
        .history
        .learn(&world.delivery.history.place(&environment("dev")).await.unwrap())
        .await
        .unwrap();
    assert_eq!(world.release(row.id).await.number, 5);
    world.push_image("app-latest");
    let (next, _) = world.deploy("dev", "latest").await;
    assert_eq!(next.number, 6);
}

#[tokio::test]
async fn a_job_deploys_the_plan_that_its_gate_set_free() {
    let world = World::new().await;
    let commit = world.push_commit(&[(".k8s/live/dev/web.yaml", WEB)]).await;
    let flow = world.workflow(&commit).await;
    let plan = world.approve(flow.hold.id).await;
    let releases = &world.delivery.releases;
    let begun = releases.deploy_for_job(flow.deploy.id, "dev").await.unwrap();
    assert_eq!(
        (
            begun.plan.clone(),
            begun.cause.as_str(),
            begun.actor.name.as_str(),
            begun.job
        ),
        (plan, "gate hold of pipeline 3", "bob", Some(flow.deploy.id))
    );
    // Another request gets the same release, in progress or over.
    assert_eq!(
        releases.deploy_for_job(flow.deploy.id, "dev").await.unwrap().id,
        begun.id
    );
    world.carry_out(begun.id).await;
    let again = releases.deploy_for_job(flow.deploy.id, "dev").await.unwrap();
    assert_eq!((again.id, again.status), (begun.id, ReleaseStatus::Succeeded));
}

#[tokio::test]
async fn a_job_that_does_not_go_on_begins_no_release() {
    let world = World::new().await;
    let commit = world.push_commit(&[(".k8s/live/dev/web.yaml", WEB)]).await;
    let flow = world.workflow(&commit).await;
    world.approve(flow.hold.id).await;
    let releases = &world.delivery.releases;
    let stop: [fn(&mut towpath_store::JobRow); 2] = [
        |job| job.stop_requested = true,
        |job| {
            job.stop_requested = false;
            job.status = JobStatus::Ended(Outcome::Canceled);
        },
    ];
    for stop in stop {
        world.change_job(flow.deploy.id, stop).await;
        let error = releases.deploy_for_job(flow.deploy.id, "dev").await.unwrap_err();
        assert!(error.to_string().contains("does not run any more"), "{error}");
    }
    // The job may also be canceled after the check: the commit itself expects it to be running.
    world.push_image("app-latest");
    let plan = world.planned("dev", request("latest")).await.unwrap();
    let error = releases
        .begin(&plan, "x", &bob(), Some(&flow.deploy))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(world.store.releases(&environment("dev"), 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn two_requests_of_one_job_make_one_release() {
    let world = World::new().await;
    let commit = world.push_commit(&[(".k8s/live/dev/web.yaml", WEB)]).await;
    let flow = world.workflow(&commit).await;
    world.approve(flow.hold.id).await;
    let releases = &world.delivery.releases;
    let (one, other) = tokio::join!(
        releases.deploy_for_job(flow.deploy.id, "dev"),
        releases.deploy_for_job(flow.deploy.id, "dev")
    );
    let ids: Vec<_> = [one, other]
        .into_iter()
        .filter_map(Result::ok)
        .map(|row| row.id)
        .collect();
    assert!(!ids.is_empty() && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(world.store.releases(&environment("dev"), 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn another_attempt_of_a_job_deploys_again_what_failed() {
    let world = World::new().await;
    let commit = world.push_commit(&[(".k8s/live/dev/web.yaml", WEB)]).await;
    let flow = world.workflow(&commit).await;
    world.approve(flow.hold.id).await;
    let releases = &world.delivery.releases;
    let first = releases.deploy_for_job(flow.deploy.id, "dev").await.unwrap();
    world.break_image("claims", Outcome::Failed);
    let (row, _) = world.carry_out(first.id).await;
    assert_eq!(row.status, ReleaseStatus::Failed);
    assert_eq!(
        releases.deploy_for_job(flow.deploy.id, "dev").await.unwrap().id,
        first.id
    );
    world.target.mend_images(&place("dev"));
    world.change_job(flow.deploy.id, |job| job.attempt = 2).await;
    let second = releases.deploy_for_job(flow.deploy.id, "dev").await.unwrap();
    assert_ne!(second.id, first.id);
    let (row, _) = world.carry_out(second.id).await;
    assert_eq!(row.status, ReleaseStatus::Succeeded);
}

#[tokio::test]
async fn a_job_without_a_gate_deploys_the_plan_of_its_workflow() {
    let world = World::new().await;
    let commit = world.push_commit(&[(".k8s/live/dev/web.yaml", WEB)]).await;
    let flow = world.workflow(&commit).await;
    world
        .change_job(flow.deploy.id, |job| job.requires = vec!["build".into()])
        .await;
    let begun = world
        .delivery
        .releases
        .deploy_for_job(flow.deploy.id, "dev")
        .await
        .unwrap();
    assert_eq!(
        (begun.cause.as_str(), begun.actor.name.as_str()),
        ("job deploy of pipeline 3", "the pipeline")
    );
}

#[tokio::test]
async fn a_job_deploys_only_where_its_configuration_says() {
    let world = World::new().await;
    let commit = world
        .push_commit(&[(".k8s/live/dev/web.yaml", WEB), (".k8s/live/qa/web.yaml", WEB)])
        .await;
    let flow = world.workflow(&commit).await;
    let releases = &world.delivery.releases;
    let error = releases.deploy_for_job(flow.deploy.id, "qa").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(
        error
            .to_string()
            .starts_with("job `deploy` asks to deploy to `qa`, but its configuration says `towpath deploy dev`"),
        "{error}"
    );
    let error = releases.deploy_for_job(flow.build.id, "dev").await.unwrap_err();
    assert!(error.to_string().contains("says that it deploys anywhere"), "{error}");
    let error = releases.deploy_for_job(JobId::from_u128(9), "dev").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_gate_that_was_approved_without_a_plan_sets_nothing_free() {
    let world = World::new().await;
    let commit = world.push_commit(&[(".k8s/live/dev/web.yaml", WEB)]).await;
    let flow = world.workflow(&commit).await;
    let mut gate = world.gate(flow.hold.id).await;
    let version = gate.version;
    (gate.waiting, gate.approved_by) = (false, Some("bob".into()));
    let write = Write::Gate(gate, Expect::Version(version));
    world.store.commit(Commit::new().with(write)).await.unwrap();
    let error = world
        .delivery
        .releases
        .deploy_for_job(flow.deploy.id, "dev")
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "`hold` was approved without a plan of `dev`");
}

#[tokio::test]
async fn a_stale_approval_is_refused_when_the_job_gets_there() {
    let world = World::new().await;
    let commit = world.push_commit(&[(".k8s/live/dev/web.yaml", WEB)]).await;
    let flow = world.workflow(&commit).await;
    world.approve(flow.hold.id).await;
    world.push_image("app-latest");
    world.deploy("dev", "latest").await;
    let begun = world
        .delivery
        .releases
        .deploy_for_job(flow.deploy.id, "dev")
        .await
        .unwrap();
    let (row, said) = world.carry_out(begun.id).await;
    assert_eq!(row.outcome, Some(Outcome::Rejected));
    assert!(said.contains("changed since this plan was made"), "{said}");
}

#[tokio::test]
async fn whoever_lost_the_lease_decides_nothing() {
    let world = World::new().await;
    world.push_image("app-latest");
    let releases = &world.delivery.releases;
    let begun = releases
        .deploy(&environment("dev"), request("latest"), &ann())
        .await
        .unwrap();
    let old = world.lease(WorkKind::Release, begun.id).await;
    world.let_leases_end();
    let new = world.lease(WorkKind::Release, begun.id).await;
    let error = releases.carry_out(&old, begun.id, &Unheard).await.unwrap_err();
    assert!(error.is_fenced(), "{error}");
    assert!(world.applied("dev").is_empty());
    let row = releases.carry_out(&new, begun.id, &Unheard).await.unwrap();
    assert_eq!(row.status, ReleaseStatus::Succeeded);
}

#[tokio::test]
async fn a_release_that_cannot_go_on_stops_nothing_behind_it() {
    let world = World::new().await;
    world.push_image("app-latest");
    world.deploy("dev", "latest").await;
    world.push_image("app-latest");
    let releases = &world.delivery.releases;
    let begun = releases
        .deploy(&environment("dev"), request("latest"), &ann())
        .await
        .unwrap();
    let guard = world.lease(WorkKind::Release, begun.id).await;
    world.target.die_in_call(2, Moment::Middle);
    let died = world
        .target
        .until_death(releases.carry_out(&guard, begun.id, &Unheard))
        .await;
    assert!(died.is_none());
    world.let_leases_end();
    let guard = world.lease(WorkKind::Release, begun.id).await;
    world.target.set_unreachable(Some("connection refused"));
    let error = releases.carry_out(&guard, begun.id, &Unheard).await.unwrap_err();
    assert!(error.is_temporary(), "{error}");
    let row = releases.give_up(&guard, begun.id, "the cluster is gone").await.unwrap();
    assert_eq!(
        (row.status, row.outcome),
        (ReleaseStatus::Failed, Some(Outcome::Errored))
    );
    let message = row.message.unwrap();
    assert!(message.contains("the cluster is gone"), "{message}");
    assert!(world.store.open_releases().await.unwrap().is_empty());
    assert_eq!(world.store.work(&guard.key).await.unwrap(), None);
    world.target.set_unreachable(None);
    let (row, _) = world.deploy("dev", "latest").await;
    assert_eq!(row.status, ReleaseStatus::Succeeded);
}

#[tokio::test]
async fn giving_up_what_never_began_changes_nothing() {
    let world = World::new().await;
    world.push_image("app-latest");
    let releases = &world.delivery.releases;
    let begun = releases
        .deploy(&environment("dev"), request("latest"), &ann())
        .await
        .unwrap();
    let guard = world.lease(WorkKind::Release, begun.id).await;
    let row = releases.give_up(&guard, begun.id, "it failed ten times").await.unwrap();
    assert_eq!(
        (row.status, row.outcome),
        (ReleaseStatus::Abandoned, Some(Outcome::Errored))
    );
    assert_eq!(row.message.as_deref(), Some("it failed ten times"));
    assert_eq!(world.store.work(&guard.key).await.unwrap(), None);
    world.clock.advance(SignedDuration::from_secs(1));
}

#[tokio::test]
async fn deploying_what_runs_again_is_counted_and_no_new_release() {
    let world = World::on_cluster().await;
    world.push_image("app-latest");
    let (first, _) = world.deploy("dev", "latest").await;
    world.push_image("app-latest");
    let (second, _) = world.deploy("dev", "latest").await;
    let releases = &world.delivery.releases;
    let id = environment("dev");
    let applied = world.applied("dev").len();
    for repeats in 1..=12 {
        world.clock.advance(SignedDuration::from_secs(60));
        let again = releases.deploy(&id, request("latest"), &bob()).await.unwrap();
        assert_eq!((again.id, again.status), (second.id, ReleaseStatus::Succeeded));
        assert_eq!((again.repeats, again.repeated_at), (repeats, Some(world.clock.now())));
    }
    assert_eq!(world.applied("dev").len(), applied, "nothing was applied");
    let rows = world.store.releases(&id, 50).await.unwrap();
    let said: Vec<(i64, i64)> = rows.iter().map(|row| (row.number, row.repeats)).collect();
    assert_eq!(said, [(2, 12), (1, 0)]);
    let records = world.records("dev").await;
    let record = records.iter().find(|record| record.id == second.id).unwrap();
    assert_eq!((record.repeats, record.repeated_at), (12, Some(world.clock.now())));
    // Earlier releases are still available for a rollback.
    let back = releases.rollback(&id, None, None, &ann()).await.unwrap();
    assert_eq!(back.cause, format!("rollback to release {}", first.number));
}

#[tokio::test]
async fn what_runs_and_does_not_run_well_is_deployed_again() {
    let world = World::on_cluster().await;
    world.push_image("app-latest");
    let (first, _) = world.deploy("dev", "latest").await;
    let id = environment("dev");
    // The environment is between two releases.
    let applied = world.target.requests(&place("dev")).remove(0);
    world.target.die_in_call(0, Moment::Middle);
    assert!(world.target.until_death(world.apply(applied)).await.is_none());
    let again = world
        .delivery
        .releases
        .deploy(&id, request("latest"), &ann())
        .await
        .unwrap();
    assert_ne!(again.id, first.id);
    assert_eq!(again.status, ReleaseStatus::Approved);
}

#[tokio::test]
async fn a_release_that_left_the_objects_as_they_were_makes_no_plan_stale() {
    let world = World::on_cluster().await;
    world.push_image("app-latest");
    let (first, _) = world.deploy("dev", "latest").await;
    let unchanged = world.planned("dev", request("latest")).await.unwrap();
    world.push_image("app-latest");
    let plan = world.planned("dev", request("latest")).await.unwrap();
    assert_eq!(plan.parent, Some(first.id));
    // Before the plan is carried out, somebody else deploys what runs as a separate release.
    let mut theirs = unchanged.clone();
    theirs.warnings.push("of another commit".into());
    theirs.commit = Some("89abcdef0123456789abcdef0123456789abcdef".parse().unwrap());
    let releases = &world.delivery.releases;
    let begun = releases.begin(&theirs, "theirs", &bob(), None).await.unwrap();
    let (theirs, _) = world.carry_out(begun.id).await;
    assert_ne!(theirs.id, first.id);
    let begun = releases.begin(&plan, "ours", &ann(), None).await.unwrap();
    let (ours, said) = world.carry_out(begun.id).await;
    assert_eq!(ours.status, ReleaseStatus::Succeeded, "{said}");
    // A different deployment makes it stale.
    world.push_image("app-latest");
    let late = world.planned("dev", request("latest")).await.unwrap();
    world.push_image("app-latest");
    world.deploy("dev", "latest").await;
    let begun = releases.begin(&late, "late", &ann(), None).await.unwrap();
    assert_eq!(world.carry_out(begun.id).await.0.status, ReleaseStatus::Abandoned);
}
