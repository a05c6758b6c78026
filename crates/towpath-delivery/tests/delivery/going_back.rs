//! Failed deployments and manual rollbacks.

use crate::world::*;
use towpath_delivery::{ErrorKind, LaptopRequest, OnFailure};
use towpath_deploy::Occasion;
use towpath_types::{Outcome, ReleaseStatus};

/// An environment that runs release 1, and a release 2 with a broken image that has begun.
async fn broken(world: &World, policy: OnFailure, outcome: Outcome) -> towpath_store::ReleaseRow {
    world.push_image("app-latest");
    world.deploy("dev", "latest").await;
    let bad = world.push_image("app-latest");
    world.break_image(bad.hex(), outcome);
    let request = towpath_delivery::LaptopRequest {
        on_failure: Some(policy),
        ..request("latest")
    };
    let releases = &world.delivery.releases;
    releases.deploy(&environment("dev"), request, &ann()).await.unwrap()
}

#[tokio::test]
async fn a_release_that_fails_is_undone() {
    let world = World::on_cluster().await;
    let begun = broken(&world, OnFailure::Rollback, Outcome::TimedOut).await;
    let (row, said) = world.carry_out(begun.id).await;
    assert_eq!(
        (row.status, row.outcome),
        (ReleaseStatus::RolledBack, Some(Outcome::TimedOut))
    );
    assert_eq!(
        row.message.as_deref(),
        Some("the new pods do not start\n  | exec: not found\nRelease 1 runs again.")
    );
    let lines: Vec<&str> = said.lines().collect();
    let why = lines
        .iter()
        .position(|line| line.contains("the new pods do not start"))
        .unwrap();
    assert_eq!(lines[why + 2], "failed; going back to release 1");
    assert_eq!(lines.last(), Some(&"Release 1 runs again."));
    let applied = world.applied("dev");
    assert_eq!(
        applied.iter().map(|(occasion, _)| *occasion).collect::<Vec<_>>(),
        [Occasion::Release, Occasion::Release, Occasion::Back]
    );
    assert_eq!(world.running("dev").await, Some(applied[0].1));
    // The environment's own record says failed; the store keeps its more precise outcome.
    assert_eq!(world.records("dev").await[0].state.as_str(), "timed_out");
    assert_eq!(world.release(begun.id).await.status, ReleaseStatus::RolledBack);
}

#[tokio::test]
async fn a_release_may_be_left_as_it_failed() {
    let world = World::new().await;
    let begun = broken(&world, OnFailure::Stop, Outcome::Failed).await;
    let (row, said) = world.carry_out(begun.id).await;
    assert_eq!(
        (row.status, row.outcome),
        (ReleaseStatus::Failed, Some(Outcome::Failed))
    );
    assert!(
        said.ends_with(
            "It was left like this: dev is between release 1 and this one. `towpath rollback dev 1` puts that back."
        ),
        "{said}"
    );
    world.delivery.observer.observe(&environment("dev")).await.unwrap();
    assert_eq!(
        world.view("dev").await.between.as_deref(),
        Some("between release 1 and release 2, which failed: deploy again, or roll back")
    );
    // A rollback means the previous release, though nothing newer succeeded.
    let back = world
        .delivery
        .releases
        .rollback(&environment("dev"), None, None, &ann())
        .await
        .unwrap();
    assert_eq!((back.cause.as_str(), back.number), ("rollback to release 1", 3));
    let (row, _) = world.carry_out(back.id).await;
    assert_eq!(row.status, ReleaseStatus::Succeeded);
    world.delivery.observer.observe(&environment("dev")).await.unwrap();
    assert_eq!(world.view("dev").await.between, None);
}

#[tokio::test]
async fn the_first_release_has_nothing_to_go_back_to() {
    let world = World::new().await;
    world.push_image("app-latest");
    world.break_image("claims", Outcome::Failed);
    let (row, said) = world.deploy("dev", "latest").await;
    assert_eq!(
        (row.status, row.outcome),
        (ReleaseStatus::Failed, Some(Outcome::Failed))
    );
    assert!(
        said.ends_with("There was no release before this one to go back to."),
        "{said}"
    );
}

#[tokio::test]
async fn going_back_may_fail_too() {
    let world = World::new().await;
    let begun = broken(&world, OnFailure::Rollback, Outcome::Failed).await;
    world.break_image("claims", Outcome::Failed);
    let (row, said) = world.carry_out(begun.id).await;
    assert_eq!(
        (row.status, row.outcome),
        (ReleaseStatus::Failed, Some(Outcome::Failed))
    );
    assert!(
        said.ends_with("Going back to release 1 failed too, so dev is between the two: the new pods do not start"),
        "{said}"
    );
    let message = row.message.unwrap();
    assert!(
        message.ends_with("Going back failed too: dev is between release 1 and this one: the new pods do not start"),
        "{message}"
    );
}

#[tokio::test]
async fn rollback_goes_to_the_nearest_release_that_differs() {
    let world = World::new().await;
    world.push_image("app-latest");
    let (first, _) = world.deploy("dev", "latest").await;
    let missing = world
        .delivery
        .releases
        .rollback(&environment("dev"), None, None, &ann())
        .await
        .unwrap_err();
    assert_eq!(
        missing.to_string(),
        "`dev` has no earlier release that differs from what runs"
    );
    world.push_image("app-latest");
    world.deploy("dev", "latest").await;
    // The same once more, from another commit.
    let releases = &world.delivery.releases;
    let again = LaptopRequest {
        commit: Some("89abcdef0123456789abcdef0123456789abcdef".parse().unwrap()),
        ..request("latest")
    };
    let third = releases.deploy(&environment("dev"), again, &ann()).await.unwrap();
    let (third, _) = world.carry_out(third.id).await;
    let back = releases
        .rollback(&environment("dev"), None, None, &bob())
        .await
        .unwrap();
    assert_eq!(
        (
            back.cause.as_str(),
            back.parent,
            back.images.clone(),
            back.actor.name.as_str()
        ),
        ("rollback to release 1", Some(third.id), first.images.clone(), "bob")
    );
    let (row, _) = world.carry_out(back.id).await;
    assert_eq!((row.number, row.status), (4, ReleaseStatus::Succeeded));
    let plan = towpath_delivery::PlanView::from_row(&world.plan(&back.plan).await).unwrap();
    assert_eq!(plan.changes.len(), 1, "a rollback is planned like anything else");
    assert_eq!(
        plan.previous_image.as_deref(),
        Some(third.images["claims"].to_string().as_str())
    );
}

#[tokio::test]
async fn rollback_goes_to_the_release_that_is_named() {
    let world = World::new().await;
    for _ in 0..3 {
        world.push_image("app-latest");
        world.deploy("dev", "latest").await;
    }
    let releases = &world.delivery.releases;
    let id = environment("dev");
    let back = releases.rollback(&id, Some(1), None, &ann()).await.unwrap();
    assert_eq!(back.cause, "rollback to release 1");
    world.carry_out(back.id).await;
    for number in [0, 4, 9] {
        let error = releases.rollback(&id, Some(number), None, &ann()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(
            error
                .to_string()
                .contains(&format!("no earlier release {number} that succeeded")),
            "{error}"
        );
    }
}

#[tokio::test]
async fn an_image_that_is_gone_cannot_be_gone_back_to() {
    let world = World::new().await;
    let gone = world.push_image("app-latest");
    world.deploy("dev", "latest").await;
    world.push_image("app-latest");
    world.deploy("dev", "latest").await;
    world.images.delete(&repository(), &gone);
    let releases = &world.delivery.releases;
    let error = releases
        .rollback(&environment("dev"), None, None, &ann())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("it was removed there"), "{error}");
}
