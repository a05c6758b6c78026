//! `kill -9`, again and again, while people push, start pipelines and approve.

use crate::world::{self, PROJECT};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};
use towpath_testkit::{Api, Pipeline, Probe, Repository, Towpath, engine_answers, quiet_port, skipped, until};

/// How often the server is killed, unless `TOWPATH_KILLS` says otherwise.
const KILLS: u32 = 25;
/// After this time no more kills follow, unless `TOWPATH_KILLS` sets their number.
const BUDGET: Duration = Duration::from_secs(40);
/// How long the last pipelines may take.
const BOUND: Duration = Duration::from_secs(90);
/// How long one push or one call may take: longer than killing and restarting a server.
const PATIENCE: Duration = Duration::from_secs(40);

/// A gate, and after it a job that uses hardly any resources.
const CONFIG: &str = "
version: 2.1
jobs:
  last:
    type: no-op
workflows:
  main:
    jobs:
      - hold: {type: approval}
      - last: {requires: [hold]}
";

/// What people were told, and what they attempted.
#[derive(Default)]
struct Told {
    /// Each branch whose push succeeded, and its commit.
    pushed: Mutex<BTreeMap<String, String>>,
    tried: AtomicU32,
    /// The numbers of the pipelines that were asked for.
    triggered: Mutex<Vec<i64>>,
    tried_to_trigger: AtomicU32,
    /// The gates whose approval was acknowledged.
    approved: Mutex<BTreeSet<String>>,
    is_over: AtomicBool,
}

impl Told {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }
}

/// Pushes a new branch with a new commit, again and again.
async fn push(told: &Told, directory: &Path, data: &Path) {
    while !told.is_over() {
        let number = told.tried.fetch_add(1, Ordering::Relaxed);
        let branch = format!("branch-{number}");
        let commit = world::commit(directory, data, &branch).await;
        let refspec = format!("{commit}:refs/heads/{branch}");
        let pushed = world::git(directory, data, &["push", "--quiet", "towpath", &refspec], PATIENCE).await;
        if pushed.is_some_and(|output| output.status.success()) {
            told.pushed.lock().unwrap().insert(branch, commit);
        }
    }
}

/// Starts a pipeline of `main`, repeatedly.
async fn trigger(told: &Told, server: &tokio::sync::RwLock<Towpath>, repository: &Repository, data: &Path) {
    while !told.is_over() {
        told.tried_to_trigger.fetch_add(1, Ordering::Relaxed);
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_towpath"));
        command
            .args(["trigger", "--branch", "main"])
            .current_dir(repository.directory())
            .env("TOWPATH_DATA_DIR", data)
            .kill_on_drop(true);
        let Ok(Ok(output)) = tokio::time::timeout(PATIENCE, command.output()).await else {
            continue;
        };
        if output.status.success() {
            let text = String::from_utf8(output.stdout).unwrap();
            let number = text.split_whitespace().nth(2).unwrap().parse().unwrap();
            told.triggered.lock().unwrap().push(number);
        } else {
            // The server is down: wait until it has started again.
            drop(server.read().await);
        }
    }
}

/// Opens the gates of every pushed pipeline.
async fn approve(told: &Told, server: &tokio::sync::RwLock<Towpath>) {
    while !told.is_over() {
        let api = server.read().await.api().unwrap();
        // A failure is retried in the next round, with fresh data.
        let _ = approve_once(told, &api).await;
        tokio::task::yield_now().await;
    }
}

async fn approve_once(told: &Told, api: &Api) -> anyhow::Result<()> {
    for pipeline in api.pipelines(PROJECT).await? {
        for workflow in api.workflows(&pipeline.id).await? {
            for job in api.jobs(&workflow.id).await? {
                if job.status == "on_hold" && !told.is_over() {
                    api.approve_as_circleci(&workflow.id, &job).await?;
                    told.approved.lock().unwrap().insert(workflow.id.clone());
                }
            }
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_done_once_however_often_the_server_is_killed() {
    let name = "what_was_acknowledged_is_done_once_however_often_the_server_is_killed";
    if let Err(absent) = engine_answers().await {
        return skipped(name, &absent);
    }
    let asked: Option<u32> = std::env::var("TOWPATH_KILLS").ok().map(|text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = world::server(folder.path(), &data, quiet_port().unwrap()).await;
    let repository = world::repository(folder.path(), &server, CONFIG).await;
    repository.push("HEAD").await.unwrap();
    let server = tokio::sync::RwLock::new(server);
    let told = Told::default();

    let kills = async {
        let begun = Instant::now();
        let mut killed = 0;
        let mut to_start = Duration::from_millis(300);
        while killed < asked.unwrap_or(KILLS) && (asked.is_some() || begun.elapsed() < BUDGET) {
            // Kill at a different moment each time: after up to three times the server's start-up time on this machine.
            tokio::time::sleep(to_start * (killed * 37 % 100) / 33).await;
            let mut server = server.write().await;
            server.kill().await.unwrap();
            let started = Instant::now();
            server.start_again().await.unwrap();
            to_start = started.elapsed();
            killed += 1;
        }
        told.is_over.store(true, Ordering::Relaxed);
        killed
    };
    let (killed, ..) = tokio::join!(
        kills,
        push(&told, repository.directory(), &data),
        push(&told, repository.directory(), &data),
        trigger(&told, &server, &repository, &data),
        approve(&told, &server),
    );

    let mut server = server.into_inner();
    let api = server.api().unwrap();
    let in_repository = data.join("git").join(format!("{PROJECT}.git"));
    let refs = [
        "for-each-ref",
        "--format=%(objectname) %(refname:lstrip=2)",
        "refs/heads/branch-*",
    ];
    let refs = world::git(&in_repository, &data, &refs, PATIENCE).await.unwrap();
    let refs = String::from_utf8(refs.stdout).unwrap();
    let moved: BTreeMap<&str, &str> = refs
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(commit, branch)| (branch, commit))
        .collect();
    // Every ref that git accepted gets its pipeline in the end, even if the pusher never heard of it.
    let made = until("a pipeline of each ref that moved", BOUND, async || {
        let pipelines = api.all_pipelines(PROJECT).await?;
        let missing = moved.iter().find(|(branch, commit)| {
            let is_it = |one: &Pipeline| one.vcs.branch.as_deref() == Some(**branch) && one.vcs.revision == **commit;
            !pipelines.iter().any(is_it)
        });
        Ok(match missing {
            Some(missing) => Probe::NotYet(format!("{missing:?} has none")),
            None => Probe::Found(pipelines),
        })
    });
    let pipelines = match made.await {
        Ok(pipelines) => pipelines,
        Err(error) => panic!("{error:#}\n{}", server.log_tail(30)),
    };
    let (pushed, triggered) = (told.pushed.into_inner().unwrap(), told.triggered.into_inner().unwrap());
    let approved = told.approved.into_inner().unwrap();
    println!(
        "killed {killed} times: {} of {} pushes, {} of {} triggers and {} approvals were acknowledged",
        pushed.len(),
        told.tried.into_inner(),
        triggered.len(),
        told.tried_to_trigger.into_inner(),
        approved.len()
    );
    for (branch, commit) in &pushed {
        assert_eq!(moved.get(branch.as_str()), Some(&commit.as_str()), "git lost a push");
    }
    let mut of_branch: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for pipeline in &pipelines {
        let branch = pipeline.vcs.branch.as_deref().unwrap();
        of_branch.entry(branch).or_default().push(&pipeline.vcs.revision);
    }
    of_branch.remove("main");
    let expected: BTreeMap<&str, Vec<&str>> = moved.iter().map(|(branch, commit)| (*branch, vec![*commit])).collect();
    assert_eq!(
        of_branch, expected,
        "one pipeline of each push, and none of a push that git refused"
    );
    let numbers: BTreeSet<i64> = pipelines.iter().map(|pipeline| pipeline.number).collect();
    assert_eq!(numbers.len(), pipelines.len());
    let main = pipelines.iter().filter(|one| one.vcs.branch.as_deref() == Some("main"));
    let main: BTreeSet<i64> = main.map(|one| one.number).collect();
    let asked_for: BTreeSet<i64> = triggered.iter().copied().collect();
    assert_eq!(asked_for.len(), triggered.len(), "two answers name one pipeline");
    let lost: Vec<&i64> = asked_for.difference(&main).collect();
    assert!(lost.is_empty(), "pipelines {lost:?} were promised");
    for workflow in &approved {
        let status = api.workflow(workflow).await.unwrap().status;
        assert_eq!(status, "success", "an approval of workflow {workflow} was acknowledged");
    }
    let aside: serde_json::Value = api.get("/api/towpath/work").await.unwrap();
    assert_eq!(aside, serde_json::json!([]), "nothing was set aside");
    assert!(
        killed > 3 && !pushed.is_empty() && !triggered.is_empty(),
        "{killed} kills"
    );
    server.stop().await.unwrap();
}
