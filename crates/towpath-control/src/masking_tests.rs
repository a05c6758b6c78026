//! Every write to the storage is masked, whatever the agent sends.

#![allow(clippy::unwrap_used, clippy::panic)]

use crate::{
    LogAnswer,
    testing::{Server, World},
};
use towpath_engines::Scripted;
use towpath_protocol::{Report, SequencedReport};
use towpath_store::{JobRow, LogId};
use towpath_types::{JobStatus, NodeId, Outcome};

const SECRET: &str = "pa\"ss\\word'42";

fn config(image: &str) -> String {
    format!(
        "
version: 2.1
jobs:
  test:
    docker: [{{image: '{image}'}}]
    steps: [{{run: make test}}]
workflows:
  main:
    jobs:
      - test: {{context: vault}}
"
    )
}

async fn running(world: &World) -> (Server, JobRow, NodeId) {
    world.secret("PASSWORD", SECRET);
    let server = world.start();
    server.push_config(world, &config("cimg/base:2026.01")).await;
    let job = world.job("test", &[JobStatus::Running]).await;
    let node = server.agent_begins(world, &job).await;
    (server, job, node)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_stored_without_secrets_and_undecided_bytes_come_again() {
    let world = World::new().await;
    let (server, job, node) = running(&world).await;
    let text = format!(
        "{{\"p\": {}}} {SECRET} and pa\"s",
        serde_json::to_string(SECRET).unwrap()
    );
    let bytes = text.as_bytes();
    let mut taken = 0;
    for end in 1..=bytes.len() {
        let answer = server
            .agents
            .log(node, 0, taken as u64, &bytes[taken..end], false)
            .await
            .unwrap();
        let LogAnswer::Acknowledged(length) = answer else {
            panic!("{answer:?}")
        };
        taken = usize::try_from(length).unwrap();
    }
    let log = LogId::Step {
        job: job.id,
        attempt: 1,
        node: 0,
        step: 0,
    };
    let stored = async || String::from_utf8(world.objects.read_log(log, 0, 1000).await.unwrap().to_vec()).unwrap();
    let quoted = "*".repeat(serde_json::to_string(SECRET).unwrap().len() - 2);
    let expected = format!("{{\"p\": \"{quoted}\"}} {} and ", "*".repeat(SECRET.len()));
    assert_eq!(stored().await, expected);
    let rest = server
        .agents
        .log(node, 0, taken as u64, &bytes[taken..], true)
        .await
        .unwrap();
    assert_eq!(rest, LogAnswer::Acknowledged(bytes.len() as u64));
    assert_eq!(stored().await, format!("{expected}pa\"s"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_look_after_the_job_masks_as_well() {
    let mut world = World::new().await;
    world.alone = false;
    let (server, job, node) = running(&world).await;
    let other = world.start();
    for (offset, last) in [(0, false), (SECRET.len(), true)] {
        let text = format!("{SECRET}{}", if last { "\n" } else { "" });
        let answer = other
            .agents
            .log(node, 0, offset as u64, text.as_bytes(), last)
            .await
            .unwrap();
        assert_eq!(answer, LogAnswer::Acknowledged((offset + text.len()) as u64));
    }
    let log = LogId::Step {
        job: job.id,
        attempt: 1,
        node: 0,
        step: 0,
    };
    let stored = world.objects.read_log(log, 0, 1000).await.unwrap();
    assert_eq!(stored, format!("{}\n", "*".repeat(2 * SECRET.len())));
    other.agent_ends(node, Outcome::Succeeded).await.unwrap();
    world.job("test", &[JobStatus::Ended(Outcome::Succeeded)]).await;
    other.stop().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_results_and_names_are_stored_without_secrets() {
    let world = World::new().await;
    let (server, job, node) = running(&world).await;
    let at = jiff::Timestamp::UNIX_EPOCH;
    let xml = format!(
        "<testsuite><testcase name='{0}' classname='{0}' file='{0}'><failure message='{0}'>{0}</failure></testcase></testsuite>",
        SECRET.replace('"', "&quot;").replace('\'', "&#39;")
    );
    let path = format!("r/{SECRET}.xml");
    let notes = server.agents.test_results(node, &path, xml.as_bytes()).await.unwrap();
    assert!(notes.is_empty(), "{notes:?}");
    let refused = server.agents.test_results(node, &path, b"{}").await.unwrap_err();
    assert!(
        refused.to_string().contains("`r/****.xml` is not JUnit XML"),
        "{refused}"
    );
    for content in ["one", "two", "one"] {
        let path = format!("out/{SECRET}.txt");
        server
            .agents
            .artifact(node, &path, Box::pin(content.as_bytes()))
            .await
            .unwrap();
    }
    let reports = [
        Report::StepStarted {
            step: 0,
            name: format!("show {SECRET}"),
            command: Some(SECRET.into()),
            at,
        },
        Report::StepFinished {
            step: 0,
            exit_code: Some(1),
            outcome: Outcome::Failed,
            message: Some(format!("no shell {SECRET}")),
            at,
        },
        Report::JobFinished {
            outcome: Outcome::Failed,
            message: Some(format!("show: {SECRET}")),
            at,
        },
    ];
    for (sequence, report) in (0..).zip(reports) {
        server
            .agents
            .report(node, SequencedReport { sequence, report })
            .await
            .unwrap();
    }
    let ended = world.job("test", &[JobStatus::Ended(Outcome::Failed)]).await;
    let detail = server.queries.job(&world.project, ended.number.unwrap()).await.unwrap();
    let tests = world.store.tests(job.id, 1).await.unwrap();
    let said = format!("{} {tests:?} {ended:?}", serde_json::to_string(&detail).unwrap());
    assert!(!said.contains("ss\\") && !said.contains("word"), "{said}");
    assert_eq!(ended.message.as_deref(), Some("show: ****"));
    let names: Vec<&str> = detail.artifacts.iter().map(|artifact| artifact.path.as_str()).collect();
    assert_eq!(
        names,
        ["out/****.txt", "out/****.txt.2"],
        "no file replaces another one"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_containers_last_words_and_an_images_name_are_told_without_secrets() {
    let world = World::new().await;
    world.secret("PASSWORD", SECRET);
    world.secret("REGISTRY_PATH", "Not/A-Name");
    world.engine.next(Scripted::Exits {
        code: Some(1),
        detail: format!("panic: cannot sign in with {SECRET:?}"),
    });
    let server = world.start();
    server.push_config(&world, &config("cimg/base:2026.01")).await;
    let job = world.job("test", &[JobStatus::Ended(Outcome::Errored)]).await;
    let message = job.message.unwrap();
    assert!(message.contains("panic: cannot sign in with \"****\""), "{message}");
    server.push_config(&world, &config("$REGISTRY_PATH/app")).await;
    let message = world
        .until("the second job's end", || async {
            let jobs = server
                .queries
                .job(&world.project, 2)
                .await
                .map_err(|error| error.chain())?;
            jobs.job.message.ok_or_else(|| "no message".to_string())
        })
        .await;
    assert!(message.contains("****") && !message.contains("A-Name"), "{message}");
    server.stop().await;
}
