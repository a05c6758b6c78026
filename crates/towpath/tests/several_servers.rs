//! Several servers on one PostgreSQL and one data directory, as processes that are killed.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{collections::BTreeSet, fmt::Write as _, path::Path, time::Duration};
use towpath_testkit::{Postgres, Probe, Repository, ServerOptions, Towpath, engine_answers, skipped, until};

const PROJECT: &str = "app";
const JOBS: usize = 90;
const BOUND: Duration = Duration::from_secs(120);

fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_string).collect()
}

/// A workflow of jobs that each write their name to `ran`.
fn config(ran: &Path) -> String {
    let mut jobs = String::from("version: 2.1\njobs:\n");
    let mut workflow = String::from("workflows:\n  w:\n    jobs:\n");
    for job in 0..JOBS {
        let command = format!("echo job-{job} >> {}", ran.display());
        writeln!(
            jobs,
            "  job-{job}:\n    machine: true\n    steps:\n      - run: {command}"
        )
        .unwrap();
        writeln!(workflow, "      - job-{job}").unwrap();
    }
    jobs + &workflow
}

#[tokio::test(flavor = "multi_thread")]
async fn every_job_runs_once_while_servers_are_killed() {
    let name = "every_job_runs_once_while_servers_are_killed";
    if let Err(absent) = engine_answers().await {
        return skipped(name, &absent);
    }
    let postgres = match Postgres::start().unwrap() {
        Ok(postgres) => postgres,
        Err(absent) => return skipped(name, &absent),
    };
    let database = postgres.database().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ran = folder.path().join("ran");
    let mut servers = Vec::new();
    for server in ["first", "second", "third"] {
        let options = ServerOptions {
            binary: env!("CARGO_BIN_EXE_towpath").into(),
            data_dir: folder.path().join("data"),
            listen: "127.0.0.1:0".into(),
            host_environment: Vec::new(),
            variables: vec![
                ("TOWPATH_DATABASE".into(), database.clone()),
                ("TOWPATH_NAME".into(), server.into()),
            ],
            log: folder.path().join(format!("{server}.log")),
            kubeconfig: None,
        };
        servers.push(Towpath::start(options).await.unwrap());
    }

    let files = [(".circleci/config.yml", config(&ran))];
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    let repository = Repository::of_files(folder.path(), PROJECT, &files).await.unwrap();
    let said = servers[0].run(repository.directory(), &["init"], b"").await.unwrap();
    assert!(said.contains("added   git remote `towpath`"), "{said}");
    repository.push("HEAD").await.unwrap();
    let head = repository.head().await.unwrap();

    for (index, server) in servers.iter_mut().enumerate() {
        let wanted = JOBS / 5 * (index + 1);
        let under_way = until(format!("{wanted} jobs that ran"), BOUND, async || {
            Ok(match lines(&ran).len() {
                count if count >= wanted => Probe::Found(()),
                count => Probe::NotYet(format!("{count} ran")),
            })
        });
        under_way.await.unwrap();
        server.kill().await.unwrap();
        server.start_again().await.unwrap();
    }

    let api = servers[2].api().unwrap();
    let pipelines = api.pipelines(PROJECT).await.unwrap();
    let pipeline = pipelines.iter().find(|pipeline| pipeline.vcs.revision == head).unwrap();
    let workflow = api.workflow_of(pipeline, "w").await.unwrap();
    let ended = until("the end of the workflow", BOUND, async || {
        let status = api.workflow(&workflow.id).await?.status;
        Ok(match status.as_str() {
            "success" => Probe::Found(()),
            "running" => Probe::NotYet(format!("running, {} ran", lines(&ran).len())),
            other => Probe::Never(other.to_string()),
        })
    });
    let ended = ended.await;
    let logs: Vec<String> = servers.iter().map(|server| server.log_tail(10)).collect();
    for server in &mut servers {
        server.stop().await.unwrap();
    }
    assert!(ended.is_ok(), "{ended:?}\n{}", logs.join("\n"));
    let all = lines(&ran);
    let once: BTreeSet<&String> = all.iter().collect();
    assert_eq!((all.len(), once.len()), (JOBS, JOBS), "a job ran twice, or not at all");
}
