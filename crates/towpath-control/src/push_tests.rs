//! What happens to pushes, whatever is pushed and whenever a process dies.

#![allow(clippy::unwrap_used, clippy::panic)]

use crate::{
    MOST_TAGS,
    testing::{Server, World},
    worker::{Done, Handler as _},
};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use towpath_delivery::ErrorKind;
use towpath_forge::{Forge, RefUpdate};
use towpath_store::{Expect, Lease, PipelineRow, TriggerRow, Work, WorkKey, WorkKind, Write};
use towpath_types::{Actor, CommitId, PipelineStatus, TriggerStatus, Via};

const CONFIG: &str = "
version: 2.1
jobs:
  test:
    docker: [{image: cimg/base:2026.01}]
    steps: [{run: make test}]
workflows:
  main: {jobs: [test]}
";

fn ada() -> Actor {
    Actor::owner("ada", Via::GitPush)
}

fn update(name: &str, commit: &CommitId) -> RefUpdate {
    RefUpdate {
        name: name.into(),
        old: None,
        new: Some(commit.clone()),
    }
}

/// Makes all open triggers due now.
async fn let_all_be_due(world: &World) {
    for trigger in world.store.open_triggers().await.unwrap() {
        let work = Work::new(WorkKey::new(WorkKind::Trigger, trigger.id), world.clock.now());
        let commit = towpath_store::Commit::new().with(Write::Work(work));
        world.store.commit(commit).await.unwrap();
    }
}

async fn settled(world: &World, triggers: Vec<TriggerRow>) -> Vec<TriggerRow> {
    let settled = world
        .triggers()
        .settled(triggers, Duration::from_secs(20))
        .await
        .unwrap();
    assert!(
        settled
            .iter()
            .all(|trigger| matches!(trigger.status, TriggerStatus::Done | TriggerStatus::Dropped)),
        "{settled:?}"
    );
    settled
}

async fn pipelines(world: &World) -> Vec<PipelineRow> {
    world.store.pipelines(Some(&world.project), None, 100).await.unwrap()
}

/// Compares refs until no trigger is open; returns the number of pipelines.
async fn caught_up(world: &World, server: &Server) -> usize {
    server.triggers.catch_up().await.unwrap();
    let open = world.store.open_triggers().await.unwrap();
    settled(world, open).await;
    pipelines(world).await.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ref_that_git_refused_to_move_makes_no_pipeline_though_its_commit_is_there() {
    let world = World::new().await;
    let server = world.start();
    let commit = world.commit("feature", CONFIG);
    server.push(&world, "feature", &commit).await;
    // Git cannot have both `feature` and `feature/x`.
    let refused = [update("refs/heads/feature/x", &commit)];
    let announced = server
        .triggers
        .announce(&world.project, &refused, &ada())
        .await
        .unwrap();
    let_all_be_due(&world).await;
    let settled = settled(&world, announced.triggers).await;
    assert_eq!(settled[0].status, TriggerStatus::Dropped);
    let reason = settled[0].reason.as_deref().unwrap();
    assert!(
        reason.contains("the push was not completed: `refs/heads/feature/x`"),
        "{reason}"
    );
    assert_eq!(caught_up(&world, &server).await, 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_git_accepted_has_its_pipeline_though_nobody_told_and_the_next_one_came() {
    let world = World::new().await;
    let before = world.start();
    let first = world.commit("main", CONFIG);
    let announced = before
        .triggers
        .announce(&world.project, &[update("refs/heads/main", &first)], &ada())
        .await
        .unwrap();
    before.kill();
    let server = world.start();
    let second = world.commit("main", CONFIG);
    server.push(&world, "main", &second).await;
    let_all_be_due(&world).await;
    let settled = settled(&world, announced.triggers).await;
    assert_eq!(settled[0].status, TriggerStatus::Done, "{:?}", settled[0].reason);
    // The older one was handled last; the ref points to the newer one's commit.
    assert_eq!(caught_up(&world, &server).await, 2);
    let commits: Vec<CommitId> = pipelines(&world).await.into_iter().map(|row| row.commit).collect();
    assert_eq!(commits, [second, first]);
    server.stop().await;
}

/// Announces a push twice at once: each announcement looks before the other has stored anything.
async fn announce_twice(world: &World, updates: &[RefUpdate]) -> Vec<TriggerRow> {
    let announced = world
        .triggers()
        .announce(&world.project, updates, &ada())
        .await
        .unwrap();
    let other = TriggerRow {
        id: uuid::Uuid::now_v7().into(),
        pipeline: uuid::Uuid::now_v7().into(),
        number: 0,
        ..announced.triggers[0].clone()
    };
    let commit = towpath_store::Commit::new().with(Write::Trigger(other, Expect::Absent));
    world.store.commit(commit).await.unwrap();
    let open = world.store.open_triggers().await.unwrap();
    assert_eq!(open.len(), 2);
    open
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_two_announced_at_once_has_one_pipeline() {
    let world = World::new().await;
    let commit = world.commit("main", CONFIG);
    let open = announce_twice(&world, &[update("refs/heads/main", &commit)]).await;
    // Neither is completed.
    let server = world.start();
    let_all_be_due(&world).await;
    settled(&world, open).await;
    assert_eq!(caught_up(&world, &server).await, 1);
    // Completed, and completed again after its pipeline was made.
    let next = world.commit("main", CONFIG);
    let updates = [update("refs/heads/main", &next)];
    announce_twice(&world, &updates).await;
    for _ in 0..2 {
        let completed = server
            .triggers
            .complete(&world.project, &updates, &ada())
            .await
            .unwrap();
        settled(&world, completed).await;
    }
    let_all_be_due(&world).await;
    assert_eq!(caught_up(&world, &server).await, 2);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_was_dropped_too_early_is_found_when_git_accepts_it() {
    let world = World::new().await;
    let server = world.start();
    let commit = world.commit("elsewhere", CONFIG);
    server.push(&world, "elsewhere", &commit).await;
    let updates = [update("refs/heads/main", &commit)];
    let announced = server
        .triggers
        .announce(&world.project, &updates, &ada())
        .await
        .unwrap();
    let_all_be_due(&world).await;
    let dropped = settled(&world, announced.triggers).await;
    assert_eq!(dropped[0].status, TriggerStatus::Dropped);
    world.forge.set_ref(&world.project, "refs/heads/main", Some(&commit));
    let completed = server
        .triggers
        .complete(&world.project, &updates, &ada())
        .await
        .unwrap();
    assert_eq!(settled(&world, completed).await[0].status, TriggerStatus::Done);
    assert_eq!(caught_up(&world, &server).await, 2);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_annotated_tag_has_one_pipeline_of_the_commit_that_it_names() {
    let world = World::new().await;
    let server = world.start();
    let commit = world.commit("main", CONFIG);
    server.push(&world, "main", &commit).await;
    let object = world.forge.annotate(&world.project, "v1", &commit);
    assert_ne!(object, commit);
    let updates = [update("refs/tags/v1", &object)];
    server
        .triggers
        .announce(&world.project, &updates, &ada())
        .await
        .unwrap();
    let completed = server
        .triggers
        .complete(&world.project, &updates, &ada())
        .await
        .unwrap();
    settled(&world, completed).await;
    assert_eq!(caught_up(&world, &server).await, 2);
    let newest = pipelines(&world).await.swap_remove(0);
    assert_eq!((newest.tag.as_deref(), newest.commit), (Some("v1"), commit));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tag_of_a_file_stops_no_other_ref() {
    let world = World::new().await;
    let server = world.start();
    let commit = world.commit("main", CONFIG);
    let blob: CommitId = "b".repeat(40).parse().unwrap();
    world.forge.set_ref(&world.project, "refs/tags/a-key", Some(&blob));
    world.forge.set_ref(&world.project, "refs/tags/v1", Some(&commit));
    let updates = [
        update("refs/tags/a-key", &blob),
        update("refs/heads/main", &commit),
        update("refs/tags/v1", &commit),
    ];
    server
        .triggers
        .announce(&world.project, &updates, &ada())
        .await
        .unwrap();
    let completed = server
        .triggers
        .complete(&world.project, &updates, &ada())
        .await
        .unwrap();
    let settled = settled(&world, completed).await;
    let statuses: Vec<TriggerStatus> = settled.iter().map(|trigger| trigger.status).collect();
    assert_eq!(
        statuses,
        [TriggerStatus::Dropped, TriggerStatus::Done, TriggerStatus::Done]
    );
    assert_eq!(
        settled[0].reason.as_deref(),
        Some("the tag `a-key` leads to no commit, so there is nothing to run")
    );
    assert_eq!(caught_up(&world, &server).await, 2);
    assert!(world.store.set_aside().await.unwrap().is_empty());
    // The same without a completion: the trigger must not stay open for ever.
    let other: CommitId = "c".repeat(40).parse().unwrap();
    world
        .forge
        .set_ref(&world.project, "refs/tags/another-key", Some(&other));
    assert_eq!(caught_up(&world, &server).await, 2);
    server.triggers.catch_up().await.unwrap();
    assert_eq!(world.store.open_triggers().await.unwrap(), []);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_of_tags_starts_nothing_even_if_the_server_dies_in_the_middle() {
    let world = World::new().await;
    let server = world.start();
    let commit = world.commit("main", CONFIG);
    let names: Vec<String> = (0..40).map(|number| format!("refs/tags/v{number}")).collect();
    let mut updates: Vec<RefUpdate> = names.iter().map(|name| update(name, &commit)).collect();
    updates.push(update("refs/heads/main", &commit));
    let announced = server
        .triggers
        .announce(&world.project, &updates, &ada())
        .await
        .unwrap();
    assert_eq!(announced.held_back.len(), names.len());
    // The comparison runs while git has moved only some of them.
    for name in &names[..MOST_TAGS] {
        world.forge.set_ref(&world.project, name, Some(&commit));
    }
    server.triggers.catch_up().await.unwrap();
    server.kill();
    let server = world.start();
    for name in &names {
        world.forge.set_ref(&world.project, name, Some(&commit));
    }
    server
        .triggers
        .complete(&world.project, &updates, &ada())
        .await
        .unwrap();
    assert_eq!(caught_up(&world, &server).await, 1, "only the branch");
    // One requested by hand.
    let parameters = serde_json::Map::new();
    let asked = server
        .triggers
        .request(&world.project, None, Some("v7"), parameters, &ada())
        .await
        .unwrap();
    settled(&world, vec![asked]).await;
    assert_eq!(pipelines(&world).await[0].tag.as_deref(), Some("v7"));
    // Few tags in one push start pipelines.
    let few: Vec<RefUpdate> = (0..MOST_TAGS)
        .map(|number| {
            let name = format!("refs/tags/few-{number}");
            world.forge.set_ref(&world.project, &name, Some(&commit));
            update(&name, &commit)
        })
        .collect();
    server.triggers.announce(&world.project, &few, &ada()).await.unwrap();
    let completed = server.triggers.complete(&world.project, &few, &ada()).await.unwrap();
    settled(&world, completed).await;
    assert_eq!(caught_up(&world, &server).await, 2 + MOST_TAGS);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tags_that_were_missed_start_nothing_either_if_they_are_many() {
    let world = World::new().await;
    let server = world.start();
    let commit = world.commit("main", CONFIG);
    for number in 0..=MOST_TAGS {
        let name = format!("refs/tags/v{number}");
        world.forge.set_ref(&world.project, &name, Some(&commit));
    }
    assert_eq!(caught_up(&world, &server).await, 1, "only the branch");
    world.forge.set_ref(&world.project, "refs/tags/one-more", Some(&commit));
    assert_eq!(caught_up(&world, &server).await, 2);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_find_the_same_missed_push_make_one_pipeline_of_it() {
    let world = World::new().await;
    let servers = [world.start(), world.start()];
    for number in 0..20 {
        world.commit(&format!("branch-{number}"), CONFIG);
    }
    let looks = servers
        .iter()
        .flat_map(|server| [server.triggers.catch_up(), server.triggers.catch_up()]);
    for looked in futures::future::join_all(looks).await {
        looked.unwrap();
    }
    assert_eq!(caught_up(&world, &servers[0]).await, 20);
    for server in servers {
        server.stop().await;
    }
}

/// Claims the work of a trigger that failed `failures` times before.
async fn claimed(world: &World, trigger: &TriggerRow, failures: u32) -> Lease {
    let now = world.clock.now();
    let keys = [WorkKey::new(WorkKind::Trigger, trigger.id)];
    let mut leases = world
        .store
        .claim(&keys, "a-server", now, Duration::from_secs(60))
        .await
        .unwrap();
    let mut lease = leases.pop().unwrap();
    lease.work.failures = failures;
    lease
}

#[tokio::test]
async fn a_poisoned_push_becomes_a_pipeline_that_says_why_after_a_few_tries() {
    let world = World::new().await;
    let (maker, lost) = (world.pipeline_maker(), CancellationToken::new());
    let commit = world.commit("main", CONFIG);
    let updates = [update("refs/heads/main", &commit)];
    world
        .triggers()
        .announce(&world.project, &updates, &ada())
        .await
        .unwrap();
    let trigger = world
        .triggers()
        .complete(&world.project, &updates, &ada())
        .await
        .unwrap()
        .remove(0);
    world.forge.fail(Some("fatal: loose object is corrupt"));
    let lease = claimed(&world, &trigger, 0).await;
    let error = maker.handle(&lease, &lost).await.unwrap_err();
    assert_eq!(maker.give_up(&lease, &error).await.unwrap(), Some(Done::Committed));
    world.forge.fail(None);
    let pipeline = pipelines(&world).await.remove(0);
    assert_eq!((pipeline.status, &pipeline.commit), (PipelineStatus::Errored, &commit));
    let why = &towpath_yaml::read_diagnostics(&pipeline.diagnostics).unwrap()[0];
    assert!(
        why.is_error() && why.message.contains("loose object is corrupt"),
        "{why:?}"
    );
    world.triggers().catch_up().await.unwrap();
    assert_eq!(
        world.store.open_triggers().await.unwrap(),
        [],
        "it is not tried for ever"
    );
}

#[tokio::test]
async fn a_storage_that_fails_is_no_reason_to_give_a_push_up() {
    let world = World::new().await;
    let (maker, lost) = (world.pipeline_maker(), CancellationToken::new());
    let commit = world.commit("main", CONFIG);
    let updates = [update("refs/heads/main", &commit)];
    world
        .triggers()
        .announce(&world.project, &updates, &ada())
        .await
        .unwrap();
    let trigger = world
        .triggers()
        .complete(&world.project, &updates, &ada())
        .await
        .unwrap()
        .remove(0);
    let lease = claimed(&world, &trigger, 99).await;
    world.faults.set_away();
    let error = maker.handle(&lease, &lost).await.unwrap_err();
    assert!(error.is_of_store_that_is_away(), "{}", error.chain());
    world.faults.restore();
    assert_eq!(maker.handle(&lease, &lost).await.unwrap(), Done::Committed);
    assert_eq!(pipelines(&world).await[0].status, PipelineStatus::Created);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_that_is_too_large_is_said_at_once() {
    let world = World::new().await;
    let server = world.start();
    let config = format!("{CONFIG}#{}\n", "x".repeat(9 << 20));
    let pipeline = server.push_config(&world, &config).await;
    assert_eq!(pipeline.status, PipelineStatus::Errored);
    assert!(
        pipeline.errors[0].message.contains("`.circleci/config.yml`")
            && pipeline.errors[0].message.contains("a file may have 8 MiB"),
        "{:?}",
        pipeline.errors
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_of_thousands_of_branches_is_announced_and_completed_once() {
    let world = World::new().await;
    let commit = world.commit("main", CONFIG);
    let updates: Vec<RefUpdate> = (0..3_000)
        .map(|number| {
            let name = format!("refs/heads/b{number}");
            world.forge.set_ref(&world.project, &name, Some(&commit));
            update(&name, &commit)
        })
        .collect();
    let triggers = world.triggers();
    triggers.announce(&world.project, &updates, &ada()).await.unwrap();
    // The answer is lost, and the client retries the push.
    let again = triggers.announce(&world.project, &updates, &ada()).await.unwrap();
    let completed = triggers.complete(&world.project, &updates, &ada()).await.unwrap();
    assert_eq!((again.triggers.len(), completed.len()), (3_000, 3_000));
    let open = world.store.open_triggers().await.unwrap();
    assert_eq!(open.len(), 3_000);
    assert!(open.iter().all(|trigger| trigger.status == TriggerStatus::Received));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_pushes_first_does_not_choose_the_default_branch_and_the_owner_does() {
    let world = World::new().await;
    let server = world.start();
    server.triggers.create_project(&world.project).await.unwrap();
    let default = async || {
        let row = world.store.project(&world.project).await.unwrap().unwrap();
        let of_git = world.forge.default_branch(&world.project).await.unwrap();
        assert_eq!(row.default_branch, of_git);
        let missing = server.triggers.missing_default_branch(&world.project).await.unwrap();
        (row.default_branch, missing)
    };
    let trunk = world.commit("trunk", CONFIG);
    let pipeline = server.push(&world, "trunk", &trunk).await;
    assert!(
        pipeline.errors.is_empty(),
        "it runs all the same: {:?}",
        pipeline.errors
    );
    assert_eq!(default().await, ("main".into(), Some("main".into())));
    let choose = |branch: &'static str| server.triggers.set_default_branch(&world.project, branch, "ann");
    let error = choose("nosuch").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(default().await.0, "main");
    choose("trunk").await.unwrap();
    assert_eq!(default().await, ("trunk".into(), None));
    for branch in ["master", "main"] {
        let commit = world.commit(branch, CONFIG);
        server.push(&world, branch, &commit).await;
        assert_eq!(default().await, ("trunk".into(), None), "{branch} was pushed");
    }
}
