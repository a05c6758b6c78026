//! Plans of requests: their inputs and their blockers.

use crate::world::*;
use jiff::SignedDuration;
use towpath_delivery::{ChangeAction, ErrorKind, ManifestContent, OnFailure, Plan, PlanView};
use towpath_store::{Commit, Expect, PlanRow, Store as _, Write};
use towpath_types::{Clock as _, Outcome, ReleaseStatus};

async fn plan(world: &World, name: &str, tag: &str) -> Plan {
    world.planned(name, request(tag)).await.unwrap()
}

fn said(changes: &Plan) -> Vec<String> {
    let said = changes
        .changes
        .iter()
        .map(|change| format!("{} {}/{}", change.action, change.kind, change.name));
    said.collect()
}

#[tokio::test]
async fn the_first_plan_creates_everything_with_a_pinned_image() {
    let world = World::new().await;
    let digest = world.push_image("app-latest");
    let plan = plan(&world, "dev", "latest").await;
    assert_eq!(said(&plan), ["created ConfigMap/web", "created Deployment/web"]);
    let image = format!("{REGISTRY}/claims@{digest}");
    assert_eq!(plan.images["claims"].to_string(), image);
    assert_eq!((plan.parent, plan.previous_images.len()), (None, 0));
    assert_eq!(plan.blockers, Vec::<String>::new());
    let deployment = plan.objects.iter().find(|object| object.kind == "Deployment").unwrap();
    let runs = deployment
        .value
        .pointer("/spec/template/spec/containers/0/image")
        .unwrap();
    assert_eq!(runs.as_str(), Some(image.as_str()));
    assert!(!plan.changes_nothing());
    let view = PlanView::from(plan.clone());
    assert_eq!((view.id, view.image, view.previous_image), (plan.digest(), image, None));
}

#[tokio::test]
async fn the_same_plan_has_the_same_name() {
    let world = World::new().await;
    world.push_image("app-latest");
    let first = plan(&world, "dev", "latest").await;
    assert_eq!(first.digest(), plan(&world, "dev", "latest").await.digest());
    world.push_image("app-latest");
    assert_ne!(first.digest(), plan(&world, "dev", "latest").await.digest());
}

#[tokio::test]
async fn a_deployment_of_what_runs_changes_nothing() {
    let world = World::new().await;
    world.push_image("app-latest");
    world.deploy("dev", "latest").await;
    let again = plan(&world, "dev", "latest").await;
    assert!(again.changes_nothing());
    assert_eq!(again.unchanged, 2);
    world.push_image("app-latest");
    let next = plan(&world, "dev", "latest").await;
    assert_eq!(said(&next), ["changed Deployment/web"]);
    assert_eq!(next.previous_images, again.images);
    assert_ne!(next.images, again.images);
}

#[tokio::test]
async fn what_left_the_manifests_is_deleted() {
    let world = World::new().await;
    world.push_image("app-latest");
    world.deploy("dev", "latest").await;
    let mut request = request("latest");
    request.files[0] = file(".k8s/live/dev/web.yaml", WEB.split("---\n").next().unwrap());
    let planned = world.planned("dev", request);
    assert_eq!(said(&planned.await.unwrap()), ["deleted ConfigMap/web"]);
}

#[tokio::test]
async fn a_wrong_manifest_is_a_blocker_with_its_place() {
    let world = World::new().await;
    world.push_image("app-latest");
    let mut request = request("latest");
    request.files.push(file(".k8s/live/dev/odd.yaml", "kind: Oddity\n"));
    let planned = world.planned("dev", request);
    let plan = planned.await.unwrap();
    assert!(
        plan.blockers[0].contains(".k8s/live/dev/odd.yaml:"),
        "{:?}",
        plan.blockers
    );
    let refused = world
        .delivery
        .releases
        .begin(&plan, "x", &ann(), None)
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert!(
        refused.to_string().starts_with("the plan cannot be carried out:\n"),
        "{refused}"
    );
}

#[tokio::test]
async fn what_cannot_be_read_blocks_the_environment_that_needs_it_and_deletes_nothing() {
    let world = World::new().await;
    world.push_image("app-latest");
    world.deploy("dev", "latest").await;
    world.deploy("qa", "latest").await;
    let mut request = request("latest");
    request.files[0].content = ManifestContent::Unread("has 9.0 MiB, and a file may have 8 MiB: split it".into());
    let dev = world.planned("dev", request.clone()).await.unwrap();
    assert_eq!(
        dev.blockers,
        ["error[manifest::unread]: `.k8s/live/dev/web.yaml` has 9.0 MiB, and a file may have 8 MiB: split it"]
    );
    assert_eq!(said(&dev), Vec::<String>::new());
    let qa = world.planned("qa", request).await.unwrap();
    assert_eq!((qa.blockers.len(), qa.unchanged), (0, 2));
}

#[tokio::test]
async fn a_target_that_refuses_blocks_and_its_notes_are_warnings() {
    let world = World::new().await;
    world.push_image("app-latest");
    world.refuse("the quota is used up");
    world.note("the cluster is old");
    let plan = plan(&world, "dev", "latest").await;
    assert!(
        plan.blockers[0].ends_with("the quota is used up"),
        "{:?}",
        plan.blockers
    );
    assert!(plan.warnings[0].ends_with("the cluster is old"), "{:?}", plan.warnings);
}

#[tokio::test]
async fn an_image_that_nothing_runs_is_a_warning() {
    let world = World::new().await;
    world.push_image("app-latest");
    let mut request = request("latest");
    request.files[0] = file(".k8s/live/dev/web.yaml", &WEB.replace("claims:latest", "nginx"));
    let planned = world.planned("dev", request.clone());
    let plan = planned.await.unwrap();
    assert!(
        plan.warnings[0].contains("no container's image is called `claims`"),
        "{:?}",
        plan.warnings
    );
    // The project file names the container.
    request.project_file = Some("containers = [\"app\"]".into());
    let planned = world.planned("dev", request);
    assert_eq!(planned.await.unwrap().warnings, Vec::<String>::new());
}

#[tokio::test]
async fn pods_pull_from_towpaths_own_registry_with_a_secret_where_they_need_one() {
    let mut world = World::new().await;
    world.push_image("app-latest");
    let pulls = |plan: &Plan| {
        let deployment = plan.objects.iter().find(|object| object.kind == "Deployment").unwrap();
        let secrets = deployment.value.pointer("/spec/template/spec/imagePullSecrets");
        secrets.is_some()
    };
    assert!(!pulls(&plan(&world, "dev", "latest").await));
    world.pull_with_secret();
    assert!(pulls(&plan(&world, "dev", "latest").await));
}

#[tokio::test]
async fn a_frozen_environment_blocks_unless_there_is_a_reason() {
    let world = World::new().await;
    world.push_image("app-latest");
    let freeze = "[[freeze]]\nenvironments = [\"dev\"]\nreason = \"holidays\"\nfrom = \"2025-12-20T00:00:00Z\"\nuntil = \"2026-01-04T08:00:00Z\"\n";
    let mut request = request("latest");
    request.project_file = Some(freeze.into());
    let id = environment("dev");
    let frozen = world
        .delivery
        .planner
        .plan_of_request(&id, request.clone())
        .await
        .unwrap();
    assert!(
        frozen.blockers[0].starts_with(
            "dev is frozen until 2026-01-04T08:00:00Z (holidays); `towpath deploy dev --despite-freeze REASON`"
        ),
        "{:?}",
        frozen.blockers
    );
    request.despite_freeze = Some("it burns".into());
    let despite = world
        .delivery
        .planner
        .plan_of_request(&id, request.clone())
        .await
        .unwrap();
    assert_eq!(despite.blockers, Vec::<String>::new());
    assert!(despite.warnings[0].ends_with("deployed all the same: it burns"));
    let begun = world
        .delivery
        .releases
        .deploy(&id, request.clone(), &ann())
        .await
        .unwrap();
    assert_eq!(begun.cause, "towpath deploy dev latest despite a freeze: it burns");
    request.despite_freeze = None;
    world.clock.advance(SignedDuration::from_hours(24 * 7));
    world.carry_out(begun.id).await;
    let thawed = world.delivery.planner.plan_of_request(&id, request).await.unwrap();
    assert_eq!(thawed.blockers, Vec::<String>::new());
}

#[tokio::test]
async fn the_default_branch_says_when_it_is_frozen() {
    let world = World::new().await;
    world.push_image("app-latest");
    let freeze =
        "[[freeze]]\nenvironments = [\"dev\"]\nfrom = \"2025-12-20T00:00:00Z\"\nuntil = \"2026-01-04T08:00:00Z\"\n";
    world.push_commit(&[("towpath.toml", freeze)]).await;
    // The laptop's own file has no freeze.
    let plan = plan(&world, "dev", "latest").await;
    assert!(
        plan.blockers[0].starts_with("dev is frozen until"),
        "{:?}",
        plan.blockers
    );
}

#[tokio::test]
async fn what_happens_on_failure_comes_from_the_request_then_the_file() {
    let world = World::new().await;
    world.push_image("app-latest");
    let policy = |asked: Option<OnFailure>, file: &str| {
        let mut request = request("latest");
        request.on_failure = asked;
        request.project_file = Some(file.into());
        let (planner, id) = (world.delivery.planner.clone(), environment("dev"));
        async move { planner.plan_of_request(&id, request).await.unwrap().on_failure }
    };
    let stops = "[on_failure]\ndev = \"stop\"\n";
    assert_eq!(policy(None, "").await, OnFailure::Rollback);
    assert_eq!(policy(None, stops).await, OnFailure::Stop);
    assert_eq!(policy(Some(OnFailure::Rollback), stops).await, OnFailure::Rollback);
}

#[tokio::test]
async fn an_unknown_environment_is_named_before_an_unknown_image() {
    let world = World::new().await;
    let planner = &world.delivery.planner;
    let error = planner
        .plan_of_request(&environment("nosuch"), request("latest"))
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "there is no environment `nosuch`: there are dev, production, qa"
    );
    let error = planner
        .plan_of_request(&environment("dev"), request("nosuch"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(
        error
            .to_string()
            .contains("no image of `127.0.0.1:7070/claims` tagged `nosuch`"),
        "{error}"
    );
}

#[tokio::test]
async fn an_image_that_was_removed_since_blocks() {
    let world = World::new().await;
    let digest = world.push_image("app-latest");
    world.deploy("dev", "latest").await;
    world.images.delete(&repository(), &digest);
    let mut request = request("latest");
    request.tag = None;
    let planned = world.planned("dev", request);
    let plan = planned.await.unwrap();
    assert!(plan.blockers[0].contains("it was removed there"), "{:?}", plan.blockers);
}

#[tokio::test]
async fn a_promotion_takes_the_images_and_the_commit_of_the_other_environment() {
    let world = World::new().await;
    let commit = world.push_commit(&[("README", "claims\n")]).await;
    world.push_image(&format!("app-{commit}"));
    let (dev, _) = world.deploy("dev", commit.as_str()).await;
    assert_eq!(dev.commit, Some(commit.clone()));
    world.push_image("app-latest");
    let mut promote = request("latest");
    (promote.tag, promote.from) = (None, Some("dev".into()));
    let begun = world
        .delivery
        .releases
        .deploy(&environment("qa"), promote.clone(), &ann())
        .await
        .unwrap();
    assert_eq!(
        (begun.images, begun.commit, begun.cause.as_str()),
        (dev.images, Some(commit), "towpath promote dev qa")
    );
    promote.from = Some("production".into());
    let error = world
        .delivery
        .planner
        .plan_of_request(&environment("qa"), promote)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("there is no project") || error.to_string().contains("has no environment"),
        "{error}"
    );
}

#[tokio::test]
async fn a_plan_lists_the_commits_since_the_release_before() {
    let world = World::new().await;
    let first = world.push_commit(&[("README", "1\n")]).await;
    world.push_image(&format!("app-{first}"));
    world.deploy("dev", first.as_str()).await;
    let second = world.push_commit(&[("README", "2\n")]).await;
    let third = world.push_commit(&[("README", "3\n")]).await;
    world.push_image(&format!("app-{third}"));
    let plan = plan(&world, "dev", third.as_str()).await;
    let commits: Vec<_> = plan.commits.iter().map(|commit| commit.id.clone()).collect();
    assert_eq!(commits, [third, second]);
    assert_eq!(plan.commits[0].subject, "Say good day");
}

#[tokio::test]
async fn another_plan_than_the_approved_one_is_not_carried_out() {
    let world = World::new().await;
    world.push_image("app-latest");
    let mut plan = plan(&world, "dev", "latest").await;
    let begun = world.delivery.releases.begin(&plan, "x", &ann(), None).await.unwrap();
    plan.place.namespace = "elsewhere".into();
    let mut release = world.release(begun.id).await;
    let expect = Expect::Version(release.version);
    release.plan = plan.digest();
    let commit = Commit::new()
        .with(Write::Plan(plan.row(world.clock.now())))
        .with(Write::Release(release, expect));
    world.store.commit(commit).await.unwrap();
    let (row, said) = world.carry_out(begun.id).await;
    assert_eq!(
        (row.status, row.outcome),
        (ReleaseStatus::Abandoned, Some(Outcome::Errored))
    );
    assert_eq!(said, "release 1 names another plan than was approved");
    assert!(world.applied("dev").is_empty());
}

#[tokio::test]
async fn a_plan_that_was_changed_in_storage_is_not_carried_out() {
    let world = World::new().await;
    world.push_image("app-latest");
    let plan = plan(&world, "dev", "latest").await;
    // Store other content under the plan's digest before the plan itself is stored.
    let mut other = plan.clone();
    other.place.namespace = "elsewhere".into();
    let row = PlanRow {
        digest: plan.digest(),
        ..other.row(world.clock.now())
    };
    world.store.commit(Commit::new().with(Write::Plan(row))).await.unwrap();
    let begun = world.delivery.releases.begin(&plan, "x", &ann(), None).await.unwrap();
    let (row, said) = world.carry_out(begun.id).await;
    assert_eq!(
        (row.status, row.outcome),
        (ReleaseStatus::Abandoned, Some(Outcome::Errored))
    );
    assert!(said.contains("what is stored is not what its name says"), "{said}");
    assert!(world.applied("dev").is_empty());
}

#[tokio::test]
async fn changes_speak_of_what_people_know() {
    let world = World::new().await;
    world.push_image("app-latest");
    let plan = plan(&world, "dev", "latest").await;
    let change = &plan.changes[0];
    assert_eq!(
        (change.action, change.kind.as_str()),
        (ChangeAction::Created, "ConfigMap")
    );
    assert!(change.diff.contains("+  GREETING: hello"), "{}", change.diff);
}

#[tokio::test]
async fn a_job_beside_what_is_applied_is_not_passed_over_in_silence() {
    let world = World::new().await;
    world.push_image("app-latest");
    let mut request = request("latest");
    request.files.push(file(".k8s/live/dev/migrate.yaml", MIGRATE));
    request.files.push(file(
        ".k8s/live/dev/jobs/seed.yaml",
        &MIGRATE.replace("name: migrate", "name: seed"),
    ));
    let plan = world.planned("dev", request).await.unwrap();
    assert_eq!(
        plan.warnings,
        [".k8s/live/dev/migrate.yaml:1:1: Job/migrate: a deployment runs no Jobs: `towpath job migrate dev` runs it"]
    );
}
