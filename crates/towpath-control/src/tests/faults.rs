//! Killed servers, storage that goes away, and work that fails.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_servers_job_is_taken_up_and_ends_once() {
    let world = World::new().await;
    let first = world.start();
    first.push_config(&world, CHAIN).await;
    let job = world.job("test", &[JobStatus::Running]).await;
    let node = first.agent_begins(&world, &job).await;
    first.kill();
    let second = world.start();
    second.agent_begins(&world, &job).await;
    second.agent_ends(node, Outcome::Succeeded).await.unwrap();
    world.job("test", &[JobStatus::Ended(Outcome::Succeeded)]).await;
    second.run_job(&world, "package", Outcome::Succeeded).await;
    assert_eq!(world.engine.started().len(), 2, "test and package, each once");
    second.stop().await;
}

/// A world whose only server was killed while the job `test` worked, and the node of that job.
async fn killed_in_a_step() -> (World, NodeId) {
    let world = World::new().await;
    let first = world.start();
    first.push_config(&world, CHAIN).await;
    let job = world.job("test", &[JobStatus::Running]).await;
    let node = first.agent_begins(&world, &job).await;
    let report = towpath_protocol::SequencedReport {
        sequence: 0,
        report: towpath_protocol::Report::StepStarted {
            step: 0,
            name: "work".into(),
            command: None,
            at: world.clock.now(),
        },
    };
    first.agents.report(node, report).await.unwrap();
    first.kill();
    (world, node)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_whose_environment_vanished_while_no_server_ran_errs() {
    let (world, node) = killed_in_a_step().await;
    world.engine.vanish(&node);
    let second = world.start();
    let job = world.job("test", &[JobStatus::Ended(Outcome::Errored)]).await;
    assert!(job.message.unwrap().contains("disappeared"));
    second.stop().await;
}

/// A server that takes a job over reads what its nodes reported, and then asks the engine. Between the two, the agent reports
/// the end, and the server that had the job takes the environment away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_ends_while_it_is_taken_over_keeps_its_outcome() {
    let (world, node) = killed_in_a_step().await;
    world.engine.set_outage(Some("starting"));
    let asked = world.engine.calls().state;
    let second = world.start();
    world
        .until("the engine to be asked", || async {
            match world.engine.calls().state > asked {
                true => Ok(()),
                false => Err("not yet".to_string()),
            }
        })
        .await;
    second.agent_ends(node, Outcome::Succeeded).await.unwrap();
    world.engine.vanish(&node);
    world.engine.set_outage(None);
    world.time.advance(SignedDuration::from_secs(5));
    world.job("test", &[JobStatus::Ended(Outcome::Succeeded)]).await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orphans_are_stopped_and_what_runs_is_left_alone() {
    let world = World::new().await;
    let server = world.start();
    server.push_config(&world, CHAIN).await;
    let job = world.job("test", &[JobStatus::Running]).await;
    let node = server.agent_begins(&world, &job).await;
    let orphan = NodeId {
        job: towpath_types::JobId::from_u128(77),
        attempt: 1,
        node: 0,
    };
    let earlier = NodeId { attempt: 9, ..node };
    world.engine.add_orphan(orphan);
    world.engine.add_orphan(earlier);
    server.reconciler.pass().await.unwrap();
    assert_eq!(world.engine.list().await.unwrap(), [node]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_refuses_ends_the_job_with_its_words() {
    let world = World::new().await;
    let server = world.start();
    let words = "there is no image `cimg/base:2026.01`";
    world.engine.next(towpath_engines::Scripted::Refuses(words.into()));
    server.push_config(&world, CHAIN).await;
    let job = world.job("test", &[JobStatus::Ended(Outcome::Errored)]).await;
    assert_eq!(job.message.as_deref(), Some("there is no image `cimg/base:2026.01`"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_of_an_earlier_attempt_or_out_of_order_changes_nothing() {
    let world = World::new().await;
    let server = world.start();
    server.push_config(&world, CHAIN).await;
    let job = world.job("test", &[JobStatus::Running]).await;
    let node = server.agent_begins(&world, &job).await;
    let stale = NodeId { attempt: 2, ..node };
    assert_eq!(server.agents.job(stale).await.unwrap_err().kind(), ErrorKind::NotFound);
    let end = |sequence| towpath_protocol::SequencedReport {
        sequence,
        report: towpath_protocol::Report::JobFinished {
            outcome: Outcome::Succeeded,
            message: None,
            at: jiff::Timestamp::UNIX_EPOCH,
        },
    };
    let gap = server.agents.report(node, end(3)).await.unwrap_err();
    assert!(gap.to_string().contains("reports 0 to 3 are missing"), "{gap}");
    server.agents.report(node, end(0)).await.unwrap();
    server.agents.report(node, end(0)).await.unwrap();
    world.job("test", &[JobStatus::Ended(Outcome::Succeeded)]).await;
    let over = server.agents.job(node).await.unwrap_err();
    assert_eq!(over.kind(), ErrorKind::NotFound);
    server.stop().await;
}

/// Runs a workflow with a gate from start to end on whatever server is up, and starts another one after each power cut.
async fn whole_way(world: &World, cuts: &mut u64) {
    let mut server = world.start();
    let commit = world.commit("main", HELD);
    let actor = Actor::owner("ada", Via::GitPush);
    let updates = [towpath_forge::RefUpdate {
        name: "refs/heads/main".into(),
        old: None,
        new: Some(commit),
    }];
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        assert!(
            tokio::time::Instant::now() < deadline,
            "the workflow does not come to its end"
        );
        if !world.faults.is_pending() && world.store.projects().await.is_err() {
            // The power is cut: everything in memory is gone.
            server.kill();
            world.faults.restore();
            server = world.start();
            *cuts += 1;
        }
        match one_step(world, &server, &updates, &actor).await {
            Ok(true) => break,
            // From outside, a cut looks like a failure; the next round finds out.
            Ok(false) | Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
        }
    }
    world.faults.restore();
    server.stop().await;
}

/// Does the next outside action: push, report, approve. `true` once the workflow has ended.
async fn one_step(
    world: &World,
    server: &Server,
    updates: &[towpath_forge::RefUpdate],
    actor: &Actor,
) -> Result<bool, String> {
    let told = |error: towpath_delivery::DeliveryError| error.chain();
    let stored = |error: towpath_store::StoreError| error.to_string();
    // Read triggers first: a trigger that is done by then has made its pipeline.
    let open = world.store.open_triggers().await.map_err(stored)?;
    let pipelines = world
        .store
        .pipelines(Some(&world.project), None, 10)
        .await
        .map_err(stored)?;
    let Some(pipeline) = pipelines.first() else {
        if open.is_empty() {
            server
                .triggers
                .announce(&world.project, updates, actor)
                .await
                .map_err(told)?;
        }
        server
            .triggers
            .complete(&world.project, updates, actor)
            .await
            .map_err(told)?;
        return Ok(false);
    };
    assert_eq!(pipelines.len(), 1, "one push, one pipeline");
    let workflows = world.store.workflows_of(&[pipeline.id]).await.map_err(stored)?;
    if workflows[0].status == WorkflowStatus::Ended(Outcome::Succeeded) {
        return Ok(true);
    }
    assert!(workflows[0].status.outcome().is_none(), "{:?}", workflows[0].status);
    for job in world.store.jobs_of(&[workflows[0].id]).await.map_err(stored)? {
        match job.status {
            JobStatus::OnHold => server.approvals.approve(job.id, None, actor).await.map_err(told)?,
            JobStatus::Running => {
                let node = NodeId {
                    job: job.id,
                    attempt: job.attempt,
                    node: 0,
                };
                server.agent_ends(node, Outcome::Succeeded).await?;
            }
            JobStatus::Blocked | JobStatus::Queued | JobStatus::Claimed | JobStatus::Ended(_) => {}
        }
    }
    Ok(false)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_is_cut_all_along_the_way_and_all_ends_once() {
    let mut cuts = 0;
    let mut places = 0;
    for after in [false, true] {
        let mut n = 1;
        loop {
            let world = World::new().await;
            match after {
                true => world.faults.cut_after(n),
                false => world.faults.cut_before(n),
            }
            let before = cuts;
            whole_way(&world, &mut cuts).await;
            places += 1;
            let started: BTreeMap<_, usize> =
                world
                    .engine
                    .started()
                    .iter()
                    .fold(BTreeMap::new(), |mut counts, request| {
                        *counts.entry(request.id).or_default() += 1;
                        counts
                    });
            assert_eq!(started.len(), 2, "two jobs, one attempt each: {started:?}");
            assert!(started.values().all(|count| *count == 1), "{started:?}");
            if cuts == before {
                break;
            }
            // Trying each of several hundred points would take a minute.
            n += if n < 60 { 3 } else { 17 };
        }
    }
    println!("power was cut {cuts} times at {places} places");
    assert!(cuts > 20, "only {cuts} cuts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_the_storage_ends_no_job_and_loses_no_line() {
    let world = World::new().await;
    let server = world.start();
    server.push_config(&world, CHAIN).await;
    let job = world.job("test", &[JobStatus::Running]).await;
    let node = server.agent_begins(&world, &job).await;
    server.agents.log(node, 0, 0, b"one\n", false).await.unwrap();
    world.faults.set_away();
    // The supervisor asks for its rows in vain meanwhile, several times.
    let asked = || world.faults.count("job") + world.faults.count("nodes");
    let before = asked();
    world
        .until("the supervisor to ask in vain", || async {
            world.time.advance(SignedDuration::from_secs(1));
            match asked() - before {
                3.. => Ok(()),
                times => Err(format!("asked {times} times")),
            }
        })
        .await;
    assert!(
        server.agent_ends(node, Outcome::Succeeded).await.is_err(),
        "the agent hears that it was not stored"
    );
    server.agents.log(node, 0, 4, b"two\n", false).await.unwrap();
    world.faults.restore();
    server.agent_ends(node, Outcome::Succeeded).await.unwrap();
    world.job("test", &[JobStatus::Ended(Outcome::Succeeded)]).await;
    let log = LogId::Step {
        job: job.id,
        attempt: 1,
        node: 0,
        step: 0,
    };
    assert_eq!(world.objects.read_log(log, 0, 100).await.unwrap(), "one\ntwo\n");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_fails_again_and_again_is_set_aside_and_holds_nothing_up() {
    let world = World::new().await;
    let server = world.start();
    let key = WorkKey::new(WorkKind::Trigger, "not-an-id");
    let poisoned = towpath_store::Work::new(key.clone(), world.clock.now());
    world
        .store
        .commit(towpath_store::Commit::new().with(towpath_store::Write::Work(poisoned)))
        .await
        .unwrap();
    server.push_config(&world, CHAIN).await;
    server.run_job(&world, "test", Outcome::Succeeded).await;
    let work = world
        .until("the poisoned work to be set aside", || async {
            world.time.advance(SignedDuration::from_secs(5));
            let work = world.store.work(&key).await.map_err(|error| error.to_string())?;
            work.filter(|work| matches!(work.state, WorkState::SetAside { .. }))
                .ok_or_else(|| "not yet".into())
        })
        .await;
    assert!(work.last_failure.unwrap().contains("`not-an-id` is not a trigger's id"));
    // And the jobs behind it are not blocked.
    server.run_job(&world, "package", Outcome::Succeeded).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_on_one_store_run_each_job_once_though_one_is_killed_again_and_again() {
    let faults = Faults::new();
    let store = SqlStore::open(Database::SqliteMemory)
        .await
        .unwrap()
        .with_faults(faults.clone());
    let mut world = World::over(Arc::new(store), faults);
    world.alone = false;
    let mut config = String::from("version: 2.1\njobs:\n");
    for job in 0..40 {
        config.push_str(&format!(
            "  j{job}: {{docker: [{{image: 'cimg/base:2026.01'}}], steps: [{{run: 'true'}}]}}\n"
        ));
    }
    config.push_str("workflows:\n  main:\n    jobs: [");
    config.push_str(&(0..40).map(|job| format!("j{job}")).collect::<Vec<_>>().join(", "));
    config.push_str("]\n");
    let steady = world.start();
    let pipeline = steady.push_config(&world, &config).await;
    let mut other = world.start();
    // The supervisor lets the agent begin; the agent talks to the server that is up.
    let until_ended = async |wanted: usize| {
        world
            .until("jobs to end", || {
                let (world, steady) = (&world, &steady);
                async move {
                    let workflows = world.store.workflows_of(&[pipeline.id]).await;
                    let workflows = workflows.map_err(|error| error.to_string())?;
                    let jobs = world.store.jobs_of(&[workflows[0].id]).await;
                    let jobs = jobs.map_err(|error| error.to_string())?;
                    for job in jobs.iter().filter(|job| job.status == JobStatus::Running) {
                        let node = NodeId {
                            job: job.id,
                            attempt: job.attempt,
                            node: 0,
                        };
                        let _ = steady.agent_ends(node, Outcome::Succeeded).await;
                    }
                    let succeeded = JobStatus::Ended(Outcome::Succeeded);
                    match jobs.iter().filter(|job| job.status == succeeded).count() {
                        ended if ended >= wanted => Ok(()),
                        ended => Err(format!("{ended} ended")),
                    }
                }
            })
            .await;
    };
    for wanted in [5, 15, 25] {
        until_ended(wanted).await;
        let next = world.start();
        std::mem::replace(&mut other, next).kill();
        // The dead server's leases expire.
        world.time.advance(SignedDuration::from_secs(30));
    }
    until_ended(40).await;
    let mut started: Vec<NodeId> = world.engine.started().iter().map(|request| request.id).collect();
    started.sort_unstable();
    let count = started.len();
    started.dedup();
    assert_eq!((count, started.len()), (40, 40), "each job ran once");
    steady.stop().await;
    other.stop().await;
}
