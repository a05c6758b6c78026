//! What control decides, on a whole server with fakes at its edges.

#![allow(clippy::unwrap_used, clippy::panic)]

mod faults;

use crate::{
    conductor::{Also, Conductor},
    testing::{Server, World},
};
use jiff::SignedDuration;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use towpath_delivery::ErrorKind;
use towpath_engines::Engine;
use towpath_store::{Database, Faults, LogId, SqlStore, Topic, TriggerKind, WorkKey, WorkKind, WorkState};
use towpath_types::{Actor, Digest, JobStatus, NodeId, Outcome, PipelineStatus, TriggerStatus, Via, WorkflowStatus};
use towpath_workflow::Event;

/// Two jobs, one after the other.
const CHAIN: &str = "
version: 2.1
jobs:
  test: &job
    docker: [{image: cimg/base:2026.01}]
    steps: [{run: make test}]
  package: *job
workflows:
  main:
    jobs:
      - test
      - package: {requires: [test]}
";

/// A gate without an environment between two jobs.
const HELD: &str = "
version: 2.1
jobs:
  test: &job
    docker: [{image: cimg/base:2026.01}]
    steps: [{run: make test}]
  publish: *job
workflows:
  main:
    jobs:
      - test
      - hold: {type: approval, requires: [test]}
      - publish: {requires: [hold]}
";

/// A gate of the environment `dev`.
const DEPLOYS: &str = "
version: 2.1
jobs:
  build: &job
    docker: [{image: cimg/base:2026.01}]
    steps: [{run: make image}]
  deploy-dev:
    docker: [{image: cimg/base:2026.01}]
    steps: [{run: towpath deploy dev}]
workflows:
  main:
    jobs:
      - build
      - hold-dev: {type: approval, requires: [build]}
      - deploy-dev: {requires: [hold-dev]}
";

/// Twenty gates without an environment.
fn many_gates() -> String {
    let gates: String = (0..20)
        .map(|gate| format!("      - hold{gate}: {{type: approval}}\n"))
        .collect();
    format!("version: 2.1\nworkflows:\n  main:\n    jobs:\n{gates}")
}

const MANIFEST: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {greeting: hello}
";

fn ada() -> Actor {
    Actor::owner("ada", Via::Page)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_becomes_jobs_that_run_in_order() {
    let world = World::new().await;
    let server = world.start();
    let pipeline = server.push_config(&world, CHAIN).await;
    assert_eq!((pipeline.number, pipeline.status), (1, PipelineStatus::Created));
    assert_eq!(pipeline.by, "ada");
    let test = server.run_job(&world, "test", Outcome::Succeeded).await;
    assert_eq!(test.number, Some(1));
    let package = server.run_job(&world, "package", Outcome::Succeeded).await;
    assert_eq!(package.number, Some(2));
    let view = server.queries.pipeline(pipeline.id).await.unwrap();
    assert_eq!(view.workflows[0].status, WorkflowStatus::Ended(Outcome::Succeeded));
    assert_eq!(world.engine.running(), [], "nothing is left running");
    let detail = server.queries.job(&world.project, 1).await.unwrap();
    assert_eq!(detail.steps.len(), 1);
    assert_eq!(detail.steps[0].name, "work");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_requires_a_failed_job_is_skipped() {
    let world = World::new().await;
    let server = world.start();
    server.push_config(&world, CHAIN).await;
    server.run_job(&world, "test", Outcome::Failed).await;
    let package = world.job("package", &[JobStatus::Ended(Outcome::Skipped)]).await;
    assert_eq!(package.message.as_deref(), Some("`test` failed"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_that_does_not_compile_makes_a_pipeline_that_says_where() {
    let world = World::new().await;
    let server = world.start();
    let pipeline = server
        .push_config(&world, "version: 2.1\njobs: {test: {dcoker: []}}\n")
        .await;
    assert_eq!(pipeline.status, PipelineStatus::Errored);
    assert!(
        pipeline
            .errors
            .iter()
            .any(|error| error.render(false).contains(".circleci/config.yml:2")),
        "{:?}",
        pipeline.errors
    );
    // The store has the diagnostics, not their text.
    let row = world.store.pipeline(pipeline.id).await.unwrap().unwrap();
    let stored = &row.diagnostics["diagnostics"][0];
    assert_eq!(
        (&row.diagnostics["version"], &stored["primary"]["file"]),
        (&1.into(), &".circleci/config.yml".into()),
        "{stored}"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_that_no_gate_could_show_fails_its_job_and_is_told_once() {
    let world = World::new().await;
    let server = world.start();
    let config = "
version: 2.1
commands:
  release:
    steps:
      - run: towpath deploy $TARGET
      - run: |
          towpath deploy dev
          towpath deploy qa
jobs:
  deploy:
    parameters: {number: {type: integer}}
    machine: true
    steps: [release]
  never: {machine: true, steps: [run: towpath deploy $OTHER]}
  test: {docker: [{image: cimg/base:2026.01}], steps: [run: make test]}
workflows:
  main:
    jobs:
      - test
      - hold: {type: approval}
      - deploy: {matrix: {parameters: {number: [1, 2, 3, 4, 5, 6, 7, 8]}}}
      - never: {filters: {branches: {only: release}}}
";
    let pipeline = server.push_config(&world, config).await;
    assert_eq!((pipeline.status, &*pipeline.errors), (PipelineStatus::Created, &[][..]));
    let warnings: Vec<String> = pipeline.warnings.iter().map(|warning| warning.render(false)).collect();
    let [unclear, both, never] = warnings.as_slice() else {
        panic!("{warnings:#?}")
    };
    assert!(
        unclear.contains("`towpath deploy $TARGET`") && unclear.contains("config.yml:6:9"),
        "{unclear}"
    );
    assert!(
        both.contains("to `dev` and to `qa`") && both.contains("config.yml:7:9"),
        "{both}"
    );
    assert!(never.contains("`towpath deploy $OTHER`"), "{never}");
    let failed = world.job("deploy-1", &[JobStatus::Ended(Outcome::Errored)]).await;
    assert_eq!(failed.environment, None, "there is no plan that a gate could show");
    let why = failed.message.unwrap();
    assert!(
        why.contains("config.yml:6:9: the environment of `towpath deploy $TARGET`") && why.contains("config.yml:7:9"),
        "{why}"
    );
    server.run_job(&world, "test", Outcome::Succeeded).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_is_read_through_links_or_the_pipeline_says_why_not() {
    let world = World::new().await;
    let server = world.start();
    let draft = || world.forge.commit_to(&world.project, "main");
    let linked = draft()
        .file("ci/circle.yml", CHAIN)
        .link(".circleci/config.yml", "../ci/circle.yml")
        .push();
    let pipeline = server.push(&world, "main", &linked).await;
    assert_eq!((pipeline.status, pipeline.errors), (PipelineStatus::Created, vec![]));
    for (draft, says) in [
        (
            draft().link(".circleci/config.yml", "../../circle.yml"),
            "is a link to `../../circle.yml`, which is outside of this repository",
        ),
        (
            draft().link(".circleci/config.yml", "../ci/gone.yml"),
            "is a link to `../ci/gone.yml`, and there is nothing",
        ),
        (
            draft().file(".circleci/config.yml", b"version: 2.1\n# gr\xfc\xdfe\n"),
            "`.circleci/config.yml` is not UTF-8: line 2, column 5 has the byte 0xfc",
        ),
        (
            draft()
                .file(".circleci/config.yml", CHAIN)
                .file("towpath.toml", b"# \xe9\n"),
            "`towpath.toml` is not UTF-8: line 1, column 3",
        ),
        (
            draft()
                .file("towpath.toml", "")
                .link(".circleci/orbs/acme", "../../gone"),
            "`.circleci/orbs/acme` is a link to `../../gone`",
        ),
    ] {
        let commit = draft.push();
        let pipeline = server.push(&world, "main", &commit).await;
        assert_eq!(pipeline.status, PipelineStatus::Errored, "{says}");
        assert!(pipeline.errors[0].message.contains(says), "{:?}", pipeline.errors);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_cannot_run_fails_when_it_is_reached_and_the_rest_runs() {
    let world = World::new().await;
    let server = world.start();
    let config = "
version: 2.1
jobs:
  test:
    docker: [{image: cimg/base:2026.01}]
    steps: [{run: make test}]
  ios:
    macos: {xcode: 26.0.0}
    steps: [{run: xcodebuild}]
workflows:
  main: {jobs: [test, ios]}
";
    let pipeline = server.push_config(&world, config).await;
    assert_eq!(pipeline.status, PipelineStatus::Created);
    let ios = world.job("ios", &[JobStatus::Ended(Outcome::Errored)]).await;
    assert!(ios.message.unwrap().contains("macOS"));
    server.run_job(&world, "test", Outcome::Succeeded).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_git_never_accepted_makes_no_pipeline() {
    let world = World::new().await;
    let server = world.start();
    world.commit("main", CHAIN);
    let updates = [towpath_forge::RefUpdate {
        name: "refs/heads/main".into(),
        old: None,
        new: Some("b".repeat(40).parse().unwrap()),
    }];
    let actor = Actor::owner("ada", Via::GitPush);
    let announced = server
        .triggers
        .announce(&world.project, &updates, &actor)
        .await
        .unwrap();
    // Nobody completes the push; the trigger becomes due by itself.
    let announced = announced.triggers;
    let key = WorkKey::new(WorkKind::Trigger, announced[0].id);
    assert!(world.store.work(&key).await.unwrap().unwrap().due > announced[0].created_at);
    let now = world.clock.now();
    let due = towpath_store::Commit::new().with(towpath_store::Write::Work(towpath_store::Work::new(key, now)));
    world.store.commit(due).await.unwrap();
    let settled = server
        .triggers
        .settled(announced, Duration::from_secs(10))
        .await
        .unwrap();
    assert_eq!(settled[0].status, TriggerStatus::Dropped);
    assert!(settled[0].reason.as_ref().unwrap().contains("not completed"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_refs_than_branches_and_tags_are_refused() {
    let world = World::new().await;
    let server = world.start();
    let updates = [towpath_forge::RefUpdate {
        name: "refs/replace/abc".into(),
        old: None,
        new: Some("b".repeat(40).parse().unwrap()),
    }];
    let refused = server
        .triggers
        .announce(&world.project, &updates, &ada())
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    assert!(world.store.open_triggers().await.unwrap().is_empty());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ref_that_moved_without_a_hook_is_found() {
    let world = World::new().await;
    let server = world.start();
    let commit = world.commit("main", CHAIN);
    server.triggers.catch_up().await.unwrap();
    let job = world.job("test", &[JobStatus::Running]).await;
    server.triggers.catch_up().await.unwrap();
    assert!(
        world.store.open_triggers().await.unwrap().is_empty(),
        "a handled ref asks for nothing"
    );
    let pipeline = world.store.pipeline(job.pipeline).await.unwrap().unwrap();
    assert_eq!(pipeline.commit, commit);
    let trigger = world.store.trigger(pipeline.trigger).await.unwrap().unwrap();
    assert!(matches!(trigger.kind, TriggerKind::Push { .. }));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canceled_workflow_stops_its_job() {
    let world = World::new().await;
    let server = world.start();
    let pipeline = server.push_config(&world, CHAIN).await;
    let job = world.job("test", &[JobStatus::Running]).await;
    let node = server.agent_begins(&world, &job).await;
    server.conductor.cancel(pipeline.workflows[0].id, "ada").await.unwrap();
    assert!(server.agents.orders(node).await.unwrap().cancel);
    server.agent_ends(node, Outcome::Canceled).await.unwrap();
    world.job("test", &[JobStatus::Ended(Outcome::Canceled)]).await;
    world.job("package", &[JobStatus::Ended(Outcome::Canceled)]).await;
    let again = server
        .conductor
        .cancel(pipeline.workflows[0].id, "bob")
        .await
        .unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Conflict);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_approval_opens_a_gate_once() {
    let world = World::new().await;
    let server = world.start();
    server.push_config(&world, HELD).await;
    let early = world.job("hold", &[JobStatus::Blocked]).await;
    let refused = server.approvals.approve(early.id, None, &ada()).await.unwrap_err();
    assert!(refused.to_string().contains("waits for `test`"), "{refused}");
    server.run_job(&world, "test", Outcome::Succeeded).await;
    let gate = world.job("hold", &[JobStatus::OnHold]).await;
    assert_eq!(server.queries.gates(None, 0, 10).await.unwrap().len(), 1);
    server.approvals.approve(gate.id, None, &ada()).await.unwrap();
    let again = server.approvals.approve(gate.id, None, &ada()).await.unwrap_err();
    assert!(again.to_string().contains("already approved by ada"), "{again}");
    assert!(server.queries.gates(None, 0, 10).await.unwrap().is_empty());
    let view = server.queries.gate(gate.id).await.unwrap();
    assert_eq!((view.waiting, view.approved_by.as_deref()), (false, Some("ada")));
    server.run_job(&world, "publish", Outcome::Succeeded).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_goes_away_leaves_no_half_transition() {
    let world = World::new().await;
    let server = world.start();
    let actor = ada();
    server.push_config(&world, HELD).await;
    server.run_job(&world, "test", Outcome::Succeeded).await;
    let gate = world.job("hold", &[JobStatus::OnHold]).await;
    // Poll each request once more often than the one before, then drop it. The first that gets far enough decides, and
    // runs to its end.
    let mut dropped = 0;
    while world.store.job(gate.id).await.unwrap().unwrap().status == JobStatus::OnHold {
        let mut request = Box::pin(server.approvals.approve(gate.id, None, &actor));
        let mut has_ended = false;
        for _ in 0..=dropped {
            has_ended = has_ended || futures::poll!(&mut request).is_ready();
            tokio::task::yield_now().await;
        }
        dropped += u64::from(!has_ended);
    }
    assert!(dropped > 0, "no request was dropped");
    server.run_job(&world, "publish", Outcome::Succeeded).await;
    server.stop().await;
}

/// Two conductors take turns, so each loses a race to the other and catches up with what the other stored.
#[tokio::test]
async fn who_lost_a_race_knows_as_much_as_who_reads_everything() {
    let world = World::new().await;
    let server = world.start();
    let pipeline = server.push_config(&world, &many_gates()).await;
    let workflow = world.store.workflows_of(&[pipeline.id]).await.unwrap().remove(0);
    let names: Vec<String> = (0..20).map(|job| format!("hold{job}")).collect();
    for name in &names {
        world.job(name, &[JobStatus::OnHold]).await;
    }
    let conductors = [
        Conductor::new(world.store.clone(), world.clock.clone()),
        Conductor::new(world.store.clone(), world.clock.clone()),
    ];
    for conductor in &conductors {
        conductor.load(workflow.id).await.unwrap();
    }
    let read_before = world.faults.count("jobs_of");
    for (turn, name) in names.iter().enumerate() {
        let event = Event::Approved {
            job: name.clone(),
            by: "ada".into(),
            plan: None,
            // Rows have microsecond precision.
            at: "2026-11-30T12:00:00.5Z".parse().unwrap(),
        };
        let applied = conductors[turn % 2]
            .apply(workflow.id, event, Also::default())
            .await
            .unwrap();
        let fresh = Conductor::new(world.store.clone(), world.clock.clone())
            .load(workflow.id)
            .await
            .unwrap();
        assert_eq!((applied.events, &applied.row), (fresh.events, &fresh.row));
        assert_eq!(applied.jobs, fresh.jobs);
        assert_eq!(applied.state, fresh.state);
    }
    let whole = world.faults.count("jobs_of") - read_before;
    assert_eq!(whole, names.len() as u64, "only the fresh conductors read every row");
    server.stop().await;
}

/// Polls a request one time more before each drop, until it answers. Returns the number of drops.
async fn dropped_everywhere<T, F: Future<Output = T>>(mut request: impl FnMut() -> F) -> (u32, T) {
    let (mut dropped, mut looks) = (0, 1);
    loop {
        let mut asked = Box::pin(request());
        for _ in 0..looks {
            if let std::task::Poll::Ready(answer) = futures::poll!(&mut asked) {
                return (dropped, answer);
            }
            tokio::task::yield_now().await;
        }
        dropped += 1;
        // Drop at each of the first steps, then at growing intervals.
        looks += (looks / 8).max(1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_transition_is_whole_wherever_its_request_is_dropped() {
    let world = World::new().await;
    let server = world.start();
    let actor = Actor::owner("ada", Via::GitPush);
    let commit = world.commit("main", CHAIN);
    let updates = [towpath_forge::RefUpdate {
        name: "refs/heads/main".into(),
        old: None,
        new: Some(commit),
    }];
    let mut all = Vec::new();
    let announce = || server.triggers.announce(&world.project, &updates, &actor);
    let (dropped, announced) = dropped_everywhere(announce).await;
    assert_eq!(announced.unwrap().triggers.len(), 1);
    all.push(("announce", dropped));
    let complete = || server.triggers.complete(&world.project, &updates, &actor);
    let (dropped, completed) = dropped_everywhere(complete).await;
    completed.unwrap();
    all.push(("complete", dropped));
    let job = world.job("test", &[JobStatus::Running]).await;
    let pipelines = world.store.pipelines(Some(&world.project), None, 10).await.unwrap();
    assert_eq!(pipelines.len(), 1, "one push, one pipeline");

    // Agents retry after each lost answer.
    let node = server.agent_begins(&world, &job).await;
    let report = || {
        let report = towpath_protocol::SequencedReport {
            sequence: 0,
            report: towpath_protocol::Report::StepStarted {
                step: 0,
                name: "work".into(),
                command: None,
                at: jiff::Timestamp::UNIX_EPOCH,
            },
        };
        server.agents.report(node, report)
    };
    let (dropped, reported) = dropped_everywhere(report).await;
    reported.unwrap();
    all.push(("report", dropped));
    let log = || server.agents.log(node, 0, 0, b"line\n", false);
    let (dropped, kept) = dropped_everywhere(log).await;
    assert_eq!(kept.unwrap(), crate::LogAnswer::Acknowledged(5), "no line twice");
    all.push(("log", dropped));

    let workflow = job.workflow;
    let cancel = || server.conductor.cancel(workflow, "ada");
    let (dropped, canceled) = dropped_everywhere(cancel).await;
    if let Err(error) = canceled {
        assert_eq!(
            error.kind(),
            ErrorKind::Conflict,
            "one that was dropped had done it: {error}"
        );
    }
    all.push(("cancel", dropped));
    assert!(
        server.agents.orders(node).await.unwrap().cancel,
        "the workflow is not stuck"
    );
    let end = towpath_protocol::SequencedReport {
        sequence: 1,
        report: towpath_protocol::Report::JobFinished {
            outcome: Outcome::Canceled,
            message: None,
            at: jiff::Timestamp::UNIX_EPOCH,
        },
    };
    server.agents.report(node, end).await.unwrap();
    world.job("test", &[JobStatus::Ended(Outcome::Canceled)]).await;
    world.job("package", &[JobStatus::Ended(Outcome::Canceled)]).await;

    // Each of these may request a pipeline, and every requested pipeline is made.
    let ask = || {
        let parameters = serde_json::Map::new();
        server
            .triggers
            .request(&world.project, Some("main"), None, parameters, &actor)
    };
    let (dropped, asked) = dropped_everywhere(ask).await;
    let settled = server
        .triggers
        .settled(vec![asked.unwrap()], Duration::from_secs(20))
        .await;
    assert_eq!(settled.unwrap()[0].status, TriggerStatus::Done);
    all.push(("request", dropped));
    world
        .until("no open trigger", || async {
            let open = world.store.open_triggers().await.map_err(|error| error.to_string())?;
            if open.is_empty() {
                Ok(())
            } else {
                Err(format!("{open:?}"))
            }
        })
        .await;
    println!("dropped: {all:?}");
    // On a busy machine one of them may answer at the first poll.
    assert!(all.iter().filter(|(_, dropped)| *dropped > 0).count() > 3, "{all:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_read_rows_and_do_nothing_else() {
    let world = World::new().await;
    let server = world.start();
    world
        .forge
        .commit_to(&world.project, "main")
        .file(".k8s/live/dev/settings.yml", MANIFEST)
        .push();
    let pipeline = server.push_config(&world, DEPLOYS).await;
    server.run_job(&world, "build", Outcome::Succeeded).await;
    let gate = world.job("hold-dev", &[JobStatus::OnHold]).await;
    world
        .until("the gate's plan, or why there is none", || async {
            let view = server.queries.gate(gate.id).await.map_err(|error| error.chain())?;
            view.as_of.map(drop).ok_or_else(|| "neither".into())
        })
        .await;
    server.stop().await;
    let counted = || {
        (
            world.target.total_calls(),
            world.forge.all_calls(),
            world.images.all_calls(),
            world.engine.calls(),
        )
    };
    let before = format!("{:?}", counted());
    let quiet = world.queries();
    quiet.board().await.unwrap();
    quiet.projects().await.unwrap();
    quiet.gates(None, 0, 50).await.unwrap();
    quiet.gate(gate.id).await.unwrap();
    quiet.pipelines(&world.project, None, 20).await.unwrap();
    quiet.pipeline(pipeline.id).await.unwrap();
    quiet.pipeline_config(pipeline.id).await.unwrap();
    quiet.workflow(pipeline.workflows[0].id).await.unwrap();
    quiet.job(&world.project, 1).await.unwrap();
    quiet.set_aside().await.unwrap();
    assert_eq!(format!("{:?}", counted()), before, "a page asked more than the store");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gate_of_an_environment_does_not_open_without_its_plan() {
    let world = World::new().await;
    let server = world.start();
    world
        .forge
        .commit_to(&world.project, "main")
        .file(".k8s/live/dev/settings.yml", MANIFEST)
        .push();
    server.push_config(&world, DEPLOYS).await;
    server.run_job(&world, "build", Outcome::Succeeded).await;
    let gate = world.job("hold-dev", &[JobStatus::OnHold]).await;
    let unseen = server.approvals.approve(gate.id, None, &ada()).await.unwrap_err();
    assert!(
        matches!(unseen.kind(), ErrorKind::Conflict | ErrorKind::Invalid),
        "{unseen:?}"
    );
    let wrong = Digest::of(b"another plan");
    let other = server
        .approvals
        .approve(gate.id, Some(&wrong), &ada())
        .await
        .unwrap_err();
    assert!(
        matches!(other.kind(), ErrorKind::Conflict | ErrorKind::Invalid),
        "{other:?}"
    );
    world.job("hold-dev", &[JobStatus::OnHold]).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_branch_that_takes_the_approval_away_waits_at_a_gate_of_the_environment() {
    let world = World::new().await;
    let server = world.start();
    world
        .forge
        .commit_to(&world.project, "main")
        .file(".k8s/live/production/settings.yml", MANIFEST)
        .push();
    let config = DEPLOYS
        .replace("deploy dev", "deploy production")
        .replace("      - hold-dev: {type: approval, requires: [build]}\n", "")
        .replace("requires: [hold-dev]", "requires: [build]");
    let commit = world
        .forge
        .commit_to(&world.project, "evil")
        .file(".circleci/config.yml", config)
        .file(".k8s/live/production/settings.yml", MANIFEST)
        .file("towpath.toml", "environments.production.protected = false\n")
        .push();
    server.push(&world, "evil", &commit).await;
    server.run_job(&world, "build", Outcome::Succeeded).await;
    let gate = world.job("approve-deploy-dev", &[JobStatus::OnHold]).await;
    assert_eq!(gate.environment.as_deref(), Some("production"));
    world.job("deploy-dev", &[JobStatus::Blocked]).await;
    let unseen = server.approvals.approve(gate.id, None, &ada()).await.unwrap_err();
    assert_eq!(unseen.kind(), ErrorKind::Conflict, "{unseen}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_hears_of_its_own_pipeline_only() {
    let world = World::new().await;
    let server = world.start();
    let first = server.push_config(&world, CHAIN).await;
    let job = world.job("test", &[JobStatus::Running]).await;
    let node = server.agent_begins(&world, &job).await;
    let mut changes = world.store.changes();
    server.agents.log(node, 0, 0, b"noise\n", false).await.unwrap();
    let change = changes.next().await.unwrap();
    assert!(change.concerns(&Topic::JobLogs(job.id)));
    assert!(!change.concerns(&Topic::Pipeline(first.id)));
    assert!(!change.concerns(&Topic::Project(world.project.clone())));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_branch_saves_in_a_cache_never_reaches_the_default_branch() {
    let world = World::new().await;
    let server = world.start();
    let node_on = async |branch: &str| {
        let name = format!("on-{branch}");
        let config = CHAIN.replace("test", &name);
        let commit = world.commit(branch, &config);
        server.push(&world, branch, &commit).await;
        let job = world.job(&name, &[JobStatus::Running]).await;
        server.agent_begins(&world, &job).await
    };
    let (main, evil) = (node_on("main").await, node_on("evil").await);
    let agents = &server.agents;
    let restored = async |node| agents.cache(node, "v1").await.unwrap().map(|(key, _)| key);
    assert!(
        agents
            .save_cache(evil, "v1-evil", Box::pin(&b"poison"[..]))
            .await
            .unwrap()
    );
    assert_eq!(restored(evil).await.as_deref(), Some("v1-evil"));
    assert_eq!(restored(main).await, None);
    assert!(!agents.cache_exists(main, "v1-evil").await.unwrap());
    // A key that a branch has taken is free on the default branch, whose caches every branch may restore.
    assert!(
        agents
            .save_cache(main, "v1-evil", Box::pin(&b"good"[..]))
            .await
            .unwrap()
    );
    assert!(
        agents
            .save_cache(main, "v2-good", Box::pin(&b"good"[..]))
            .await
            .unwrap()
    );
    assert_eq!(restored(main).await.as_deref(), Some("v1-evil"));
    let of_main = agents.cache(evil, "v2").await.unwrap().map(|(key, _)| key);
    assert_eq!(of_main.as_deref(), Some("v2-good"));
    server.stop().await;
}
