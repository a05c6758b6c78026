//! Several servers on one PostgreSQL and one data directory. They run as processes that are killed, and lose their database.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};
use towpath_testkit::{
    Pipeline, Postgres, Probe, Repository, ServerOptions, Towpath, engine_answers, file_for_everybody, skipped, until,
};

const PROJECT: &str = "app";
const JOBS: usize = 60;
/// How many numbered lines each job prints.
const LINES: usize = 25;
const BOUND: Duration = Duration::from_secs(120);

/// Servers on one database, and a repository whose workflow has many concurrent jobs. Each job writes its name to the file
/// `ran` when it runs, and prints numbered lines.
struct World {
    folder: tempfile::TempDir,
    postgres: Postgres,
    servers: Vec<Towpath>,
    /// The pipeline of the only push.
    pipeline: Pipeline,
}

impl World {
    /// Starts one server for each name and pushes. `None` if the machine lacks a requirement.
    async fn start(test: &str, names: &[&str], pause_between_lines: &str) -> Option<Self> {
        if let Err(absent) = engine_answers().await {
            skipped(test, &absent);
            return None;
        }
        let postgres = match Postgres::start().unwrap() {
            Ok(postgres) => postgres,
            Err(absent) => {
                skipped(test, &absent);
                return None;
            }
        };
        let database = postgres.database().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut servers = Vec::new();
        for name in names {
            let options = ServerOptions {
                binary: env!("CARGO_BIN_EXE_towpath").into(),
                data_dir: folder.path().join("data"),
                listen: "127.0.0.1:0".into(),
                host_environment: Vec::new(),
                variables: vec![
                    ("TOWPATH_DATABASE".into(), database.clone()),
                    ("TOWPATH_NAME".into(), (*name).into()),
                ],
                log: folder.path().join(format!("{name}.log")),
                kubeconfig: None,
            };
            servers.push(Towpath::start(options).await.unwrap());
        }
        file_for_everybody(&folder.path().join("ran")).unwrap();
        let config = config(&folder.path().join("ran"), pause_between_lines);
        let files = [(".circleci/config.yml", config.as_str())];
        let repository = Repository::of_files(folder.path(), PROJECT, &files).await.unwrap();
        let said = servers[0].run(repository.directory(), &["init"], b"").await.unwrap();
        assert!(said.contains("added   git remote `towpath`"), "{said}");
        repository.push("HEAD").await.unwrap();
        let head = repository.head().await.unwrap();
        let pipelines = servers[0].api().unwrap().pipelines(PROJECT).await.unwrap();
        let pipeline = pipelines
            .into_iter()
            .find(|pipeline| pipeline.vcs.revision == head)
            .unwrap();
        Some(Self {
            folder,
            postgres,
            servers,
            pipeline,
        })
    }

    fn ran(&self) -> PathBuf {
        self.folder.path().join("ran")
    }

    async fn until_ran(&self, wanted: usize) {
        let ran = self.ran();
        let under_way = until(format!("{wanted} jobs that ran"), BOUND, async || {
            Ok(match lines(&ran).len() {
                count if count >= wanted => Probe::Found(()),
                count => Probe::NotYet(format!("{count} ran")),
            })
        });
        under_way.await.unwrap();
    }

    /// Waits for the end of the workflow. Checks that each job ran once, succeeded, and kept every line that it printed.
    async fn check(mut self) {
        let api = self.servers.last().unwrap().api().unwrap();
        let workflow = api.workflow_of(&self.pipeline, "w").await.unwrap();
        let ran = self.ran();
        let ended = until("the end of the workflow", BOUND, async || {
            let status = api.workflow(&workflow.id).await?.status;
            Ok(match status.as_str() {
                "success" => Probe::Found(()),
                "running" => Probe::NotYet(format!("running, {} ran", lines(&ran).len())),
                other => Probe::Never(other.to_string()),
            })
        });
        let ended = ended.await;
        let said: Vec<String> = self.servers.iter().map(|server| server.log_tail(10)).collect();
        assert!(ended.is_ok(), "{ended:?}\n{}", said.join("\n"));
        let all = lines(&ran);
        let once: BTreeSet<&String> = all.iter().collect();
        assert_eq!((all.len(), once.len()), (JOBS, JOBS), "a job ran twice, or not at all");
        for job in api.jobs(&workflow.id).await.unwrap() {
            let log = api.log(PROJECT, job.job_number.unwrap()).await.unwrap();
            let printed: Vec<&str> = log.lines().filter(|line| line.starts_with("line ")).collect();
            let wanted: Vec<String> = (1..=LINES).map(|line| format!("line {line} of {}", job.name)).collect();
            assert_eq!(printed, wanted, "the log of {}", job.name);
        }
        for server in &mut self.servers {
            server.stop().await.unwrap();
        }
    }
}

fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_string).collect()
}

fn config(ran: &Path, pause_between_lines: &str) -> String {
    let mut jobs = String::from("version: 2.1\njobs:\n");
    let mut workflow = String::from("workflows:\n  w:\n    jobs:\n");
    for job in 0..JOBS {
        let print =
            format!("for n in $(seq 1 {LINES}); do echo \"line $n of job-{job}\"; sleep {pause_between_lines}; done");
        writeln!(
            jobs,
            "  job-{job}:\n    machine: true\n    steps:\n      - run: |\n          echo job-{job} >> {}\n          {print}",
            ran.display()
        )
        .unwrap();
        writeln!(workflow, "      - job-{job}").unwrap();
    }
    jobs + &workflow
}

#[tokio::test(flavor = "multi_thread")]
async fn every_job_runs_once_and_no_line_is_lost_while_servers_are_killed() {
    let name = "every_job_runs_once_and_no_line_is_lost_while_servers_are_killed";
    let Some(mut world) = World::start(name, &["first", "second", "third"], "0.01").await else {
        return;
    };
    for index in 0..world.servers.len() {
        world.until_ran(JOBS / 5 * (index + 1)).await;
        let server = &mut world.servers[index];
        server.kill().await.unwrap();
        server.start_again().await.unwrap();
    }
    world.check().await;
}

/// How many seconds the database is away.
const OUTAGE: &str = "TOWPATH_TEST_OUTAGE_SECONDS";

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_crashes_and_comes_back_ends_no_job_and_loses_no_line() {
    let name = "a_database_that_crashes_and_comes_back_ends_no_job_and_loses_no_line";
    let outage = std::env::var(OUTAGE).map_or(5, |seconds| seconds.parse().unwrap());
    let Some(world) = World::start(name, &["first", "second"], "0.02").await else {
        return;
    };
    world.until_ran(JOBS / 4).await;
    world.postgres.crash().unwrap();
    // This sleep is the outage itself, not a wait for a condition.
    tokio::time::sleep(Duration::from_secs(outage)).await;
    world.postgres.resume().unwrap();
    world.check().await;
}
