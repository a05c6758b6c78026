//! A job on the machine itself that looks for what is not its own.

use crate::world::{self, PROJECT};
use std::{collections::BTreeMap, time::Duration};
use towpath_testkit::{Absent, Probe, engine_answers, skipped, until};

const BOUND: Duration = Duration::from_secs(90);

/// What the job tries: each line of its log is a name and what came of it.
fn config(data: &str, server: &str) -> String {
    format!(
        r#"version: 2.1
jobs:
  look:
    machine: true
    steps:
      - checkout
      - run: |
          said() {{ echo "$1: $2"; }}
          try() {{ if "${{@:2}}" > /dev/null 2>&1; then said "$1" yes; else said "$1" no; fi; }}
          said user "$(id -un)"
          said uid "$(id -u)"
          said groups "$(id -G)"
          try 'own home' touch ~/file
          try 'own folder' git status
          try 'the token' cat {data}/token
          try 'the database' head -c 1 {data}/towpath.db
          try 'the data directory' ls {data}
          try 'the environment of the server' head -c 1 /proc/{server}/environ
          try 'the folder of the server' ls /proc/{server}/cwd/
          try 'a signal to the server' kill -0 {server}
          try 'the folders of other jobs' ls ../../..
          said sudo "$(sudo -n true 2>&1)"
          setsid --fork env -i sleep 1000 > /dev/null 2>&1
workflows:
  main: {{jobs: [look]}}
"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_on_the_machine_reaches_nothing_of_the_server() {
    let name = "a_job_on_the_machine_reaches_nothing_of_the_server";
    if let Err(absent) = engine_answers().await {
        return skipped(name, &absent);
    }
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    // A directory that somebody else made, open to everybody.
    std::fs::create_dir(&data).unwrap();
    let server = world::server(folder.path(), &data, 0).await;
    if std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&data).unwrap()) != 0 {
        return skipped(name, &Absent("only root can run jobs as others".into()));
    }
    let pid = std::fs::read_to_string(data.join("lock")).unwrap();
    let repository = world::repository(folder.path(), &server, &config(&data.display().to_string(), &pid)).await;
    repository.push("HEAD").await.unwrap();
    let api = server.api().unwrap();
    let head = repository.head().await.unwrap();
    let pipeline = api.pipeline_of(PROJECT, "main", &head, BOUND).await.unwrap();
    let workflow = api.workflow_of(&pipeline, "main").await.unwrap();
    let job = api.job_until(PROJECT, &workflow, "look", &["success"], BOUND).await;
    let job = job.unwrap_or_else(|error| panic!("{error:#}\n{}", server.log_tail(30)));
    let log = api.log(PROJECT, job.job_number.unwrap()).await.unwrap();
    let said: BTreeMap<&str, &str> = log.lines().filter_map(|line| line.split_once(": ")).collect();

    assert_eq!(said["user"], "circleci");
    let uid = said["uid"];
    assert!(uid.parse::<u32>().unwrap() >= 1_000, "{log}");
    assert_eq!(
        said["groups"], uid,
        "nothing in the configuration names the container engine"
    );
    let expected = [
        ("own home", "yes"),
        ("own folder", "yes"),
        ("the token", "no"),
        ("the database", "no"),
        ("the data directory", "no"),
        ("the environment of the server", "no"),
        ("the folder of the server", "no"),
        ("a signal to the server", "no"),
        ("the folders of other jobs", "no"),
    ];
    for (what, answer) in expected {
        assert_eq!(said[what], answer, "{what}\n{log}");
    }
    assert!(said["sudo"].contains("cannot become root"), "{log}");
    assert!(said["sudo"].contains("--host-jobs-user server"), "{log}");

    // With the job ends what it hid.
    let wanted = format!("Uid:\t{uid}\t");
    let gone = until("the end of the job's processes", BOUND, async || {
        let processes = std::fs::read_dir("/proc")?.flatten();
        let left = processes
            .filter_map(|process| std::fs::read_to_string(process.path().join("status")).ok())
            .filter(|status| status.contains(&wanted))
            .count();
        Ok(match left {
            0 => Probe::Found(()),
            left => Probe::NotYet(format!("{left} are left")),
        })
    });
    gone.await.unwrap();
}
