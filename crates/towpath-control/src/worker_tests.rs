//! What happens to work that fails.

#![allow(clippy::unwrap_used, clippy::panic)]

use crate::{
    ServerIdentity, Worker,
    capacity::Capacity,
    storage::store_error,
    testing::World,
    worker::{Done, Handler},
};
use futures::future::BoxFuture;
use jiff::SignedDuration;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};
use tokio_util::sync::CancellationToken;
use towpath_delivery::DeliveryError;
use towpath_store::{Commit, Lease, StoreError, Work, WorkKey, WorkKind, WorkState, Write};

/// How a handler of these tests fails.
#[derive(Clone, Copy, PartialEq)]
enum Fails {
    WithAnError,
    WithAPanic,
    OverAFullDisk,
}

/// Always fails.
struct Failing {
    fails: Fails,
    /// Whether it can end the subject of the work.
    can_give_up: bool,
    tries: AtomicU32,
    given_up: AtomicU32,
}

impl Handler for Failing {
    fn handle<'a>(&'a self, _: &'a Lease, _: &'a CancellationToken) -> BoxFuture<'a, Result<Done, DeliveryError>> {
        Box::pin(async move {
            self.tries.fetch_add(1, Ordering::SeqCst);
            match self.fails {
                Fails::WithAnError => Err(DeliveryError::unavailable("the cluster says no")),
                Fails::WithAPanic => panic!("a defect"),
                Fails::OverAFullDisk => Err(store_error(StoreError::Full("towpath.db".into()))),
            }
        })
    }

    fn give_up<'a>(
        &'a self,
        _: &'a Lease,
        error: &'a DeliveryError,
    ) -> BoxFuture<'a, Result<Option<Done>, DeliveryError>> {
        Box::pin(async move {
            self.given_up.fetch_add(1, Ordering::SeqCst);
            let says = match self.fails {
                Fails::WithAnError => "the cluster says no",
                Fails::WithAPanic => "a defect of Towpath",
                Fails::OverAFullDisk => panic!("nobody gives up over a full disk"),
            };
            assert!(error.chain().contains(says), "{}", error.chain());
            Ok(self.can_give_up.then_some(Done::Finished))
        })
    }
}

/// How far the clock is put forward at once, where the pauses between tries are not the subject.
const PACE: SignedDuration = SignedDuration::from_secs(10);

/// Whether the work is gone or set aside.
fn is_over(work: Option<&Work>) -> bool {
    work.is_none_or(|work| matches!(work.state, WorkState::SetAside { .. }))
}

/// Runs failing work of `kind` until it `is_enough`, given how often it was tried and what is left of it. Puts the clock forward
/// by `pace` before each look.
async fn fail(
    kind: WorkKind,
    fails: Fails,
    can_give_up: bool,
    pace: SignedDuration,
    is_enough: impl Fn(u32, Option<&Work>) -> bool,
) -> (Arc<Failing>, Option<Work>) {
    let world = World::new().await;
    let failing = Arc::new(Failing {
        fails,
        can_give_up,
        tries: AtomicU32::new(0),
        given_up: AtomicU32::new(0),
    });
    let identity = ServerIdentity {
        id: "s".into(),
        address: "127.0.0.1:7070".into(),
        engines: Vec::new(),
        capacity: Capacity {
            cpu_millis: 1_000,
            memory_bytes: 1 << 30,
        },
        alone: true,
    };
    let handlers = BTreeMap::from([(kind, failing.clone() as Arc<dyn Handler>)]);
    let worker = Worker::new(world.store.clone(), world.clock.clone(), identity, handlers);
    let key = WorkKey::new(kind, "w");
    let work = Work::new(key.clone(), world.clock.now());
    world.store.commit(Commit::new().with(Write::Work(work))).await.unwrap();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn({
        let (worker, shutdown) = (worker.clone(), shutdown.clone());
        async move { worker.run(shutdown).await }
    });
    let left = world
        .until("the work to have failed", || async {
            world.time.advance(pace);
            let work = world.store.work(&key).await.map_err(|error| error.to_string())?;
            match is_enough(failing.tries.load(Ordering::SeqCst), work.as_ref()) {
                true => Ok(work),
                false => Err(format!("{work:?}")),
            }
        })
        .await;
    shutdown.cancel();
    running.await.unwrap();
    assert_eq!(worker.busy(), 0);
    (failing, left)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_work_that_fails_again_and_again_hears_of_it() {
    for kind in [WorkKind::Release, WorkKind::Run, WorkKind::Job, WorkKind::Trigger] {
        for fails in [Fails::WithAnError, Fails::WithAPanic] {
            let (failing, left) = fail(kind, fails, true, PACE, |_, work| is_over(work)).await;
            let tries = failing.tries.load(Ordering::SeqCst);
            assert_eq!(left, None, "{kind:?}");
            assert!((4..=8).contains(&tries), "{kind:?} was tried {tries} times");
            assert_eq!(failing.given_up.load(Ordering::SeqCst), 1, "{kind:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_given_up_is_set_aside_with_its_reason() {
    let (failing, left) = fail(WorkKind::Timer, Fails::WithAnError, false, PACE, |_, work| {
        is_over(work)
    })
    .await;
    assert_eq!(failing.given_up.load(Ordering::SeqCst), 1);
    assert!(left.unwrap().last_failure.unwrap().contains("the cluster says no"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_pages_read_are_kept_fresh_whatever_failed_before() {
    for kind in [WorkKind::Gate, WorkKind::Environment, WorkKind::Project] {
        let (failing, left) = fail(kind, Fails::WithAnError, false, PACE, |tries, work| {
            tries >= 20 || is_over(work)
        })
        .await;
        assert!(failing.tries.load(Ordering::SeqCst) >= 20, "{kind:?}");
        assert_eq!(failing.given_up.load(Ordering::SeqCst), 0, "{kind:?}");
        assert!(!matches!(left.unwrap().state, WorkState::SetAside { .. }), "{kind:?}");
    }
}

/// The work after its first failure.
async fn after_failure(fails: Fails) -> Work {
    let waits = |tries: u32, work: Option<&Work>| tries == 1 && work.is_some_and(|work| work.state == WorkState::Ready);
    let (_, left) = fail(WorkKind::Project, fails, false, SignedDuration::ZERO, waits).await;
    left.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_of_a_handler_is_a_failure_like_others() {
    let work = after_failure(Fails::WithAPanic).await;
    assert_eq!(work.failures, 1);
    assert!(work.last_failure.unwrap().contains("a defect of Towpath"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_nobodys_failure() {
    let work = after_failure(Fails::OverAFullDisk).await;
    assert_eq!((work.failures, work.last_failure), (0, None));
    assert!(work.due > work.created_at, "it is tried again, and not at once");
}
