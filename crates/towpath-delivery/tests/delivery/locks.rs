//! People's locks.

use crate::world::*;
use jiff::SignedDuration;
use towpath_delivery::ErrorKind;
use towpath_deploy::{Hold, Target as _};

async fn deployed() -> World {
    let world = World::new().await;
    world.push_image("app-latest");
    world.deploy("dev", "latest").await;
    world
}

/// The environment's own record of its lock.
async fn hold(world: &World) -> Option<Hold> {
    world.target.current(&place("dev")).await.unwrap().unwrap().hold
}

#[tokio::test]
async fn a_lock_keeps_others_out_and_its_owner_in() {
    let world = deployed().await;
    let locks = &world.delivery.locks;
    let id = environment("dev");
    let hour = SignedDuration::from_hours(1);
    let hold = locks.lock(&id, "looking", hour, &ann()).await.unwrap();
    assert_eq!((hold.by.as_str(), hold.until), ("ann", at("2026-01-01T01:00:00Z")));
    let releases = &world.delivery.releases;
    let error = releases.deploy(&id, request("latest"), &bob()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(
        error
            .to_string()
            .starts_with("dev is locked by ann until 2026-01-01 01:00 UTC (looking); ann ends that"),
        "{error}"
    );
    world.push_image("app-latest");
    let own = releases.deploy(&id, request("latest"), &ann()).await.unwrap();
    world.carry_out(own.id).await;
    let error = locks.lock(&id, "me too", hour, &bob()).await.unwrap_err();
    assert!(error.to_string().contains("locked by ann"), "{error}");
    world.clock.advance(hour);
    assert!(releases.deploy(&id, request("latest"), &bob()).await.is_ok());
}

#[tokio::test]
async fn a_lock_is_its_owners_to_give_back_unless_forced() {
    let world = deployed().await;
    let locks = &world.delivery.locks;
    let id = environment("dev");
    locks
        .lock(&id, "", SignedDuration::from_hours(1), &ann())
        .await
        .unwrap();
    let error = locks.unlock(&id, false, &bob()).await.unwrap_err();
    assert!(error.to_string().contains("`towpath unlock dev`"), "{error}");
    locks.unlock(&id, true, &bob()).await.unwrap();
    assert_eq!(hold(&world).await, None);
    locks
        .lock(&id, "", SignedDuration::from_hours(1), &ann())
        .await
        .unwrap();
    locks.unlock(&id, false, &ann()).await.unwrap();
    assert_eq!(hold(&world).await, None);
}

#[tokio::test]
async fn a_lock_is_shown_once_somebody_looked() {
    let world = deployed().await;
    let id = environment("dev");
    let hold = world
        .delivery
        .locks
        .lock(&id, "looking", SignedDuration::from_hours(1), &ann())
        .await
        .unwrap();
    world.delivery.observer.observe(&id).await.unwrap();
    assert_eq!(world.view("dev").await.hold, Some(hold));
    world.clock.advance(SignedDuration::from_hours(2));
    assert_eq!(world.view("dev").await.hold, None, "it ends by itself");
}

#[tokio::test]
async fn a_lock_ends_after_it_begins() {
    let world = deployed().await;
    let locks = &world.delivery.locks;
    for lasts in [SignedDuration::ZERO, SignedDuration::from_secs(-1), SignedDuration::MAX] {
        let error = locks.lock(&environment("dev"), "", lasts, &ann()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
    let error = locks
        .lock(&environment("nosuch"), "", SignedDuration::from_hours(1), &ann())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}
