//! The storage on real files: atomic, ordered, and there again after a kill.

#![allow(clippy::unwrap_used)]

use jiff::Timestamp;
use serde_json::json;
use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};
use towpath_store::{Batch, JobRow, PipelineRow, ReleaseRow, Row, Store, StoreError, TestRow, WorkflowRow};
use towpath_types::{JobId, PipelineId, ReleaseId, WorkflowId};

const CHILD: &str = "TOWPATH_STORE_TEST_CHILD";

/// Bits for an id; later ones sort later, as ids do.
fn fresh() -> u128 {
    static LAST: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    LAST.fetch_add(1, std::sync::atomic::Ordering::Relaxed).into()
}

async fn open() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    (dir, store)
}

fn pipeline(project: &str) -> PipelineRow {
    PipelineRow {
        id: PipelineId::from_u128(fresh()),
        project: project.into(),
        number: 0,
        branch: Some("main".into()),
        tag: None,
        commit: "a".repeat(40).parse().unwrap(),
        subject: "Add".into(),
        author: "Ada".into(),
        state: "created".into(),
        errors: Vec::new(),
        warnings: Vec::new(),
        created_at: Timestamp::UNIX_EPOCH,
    }
}

fn workflow(pipeline: PipelineId) -> WorkflowRow {
    WorkflowRow {
        id: WorkflowId::from_u128(fresh()),
        pipeline,
        position: 0,
        name: "main".into(),
        status: "running".into(),
        created_at: Timestamp::UNIX_EPOCH,
        stopped_at: None,
    }
}

fn job(workflow: WorkflowId, position: i64) -> JobRow {
    JobRow {
        id: JobId::from_u128(fresh()),
        workflow,
        project: "claims".into(),
        position,
        number: None,
        name: format!("job-{position}"),
        kind: "build".into(),
        status: "queued".into(),
        requires: Vec::new(),
        started_at: None,
        stopped_at: None,
        message: None,
        environment: None,
        approved_by: None,
    }
}

#[tokio::test]
async fn a_batch_is_all_or_nothing() {
    let (_dir, store) = open().await;
    let mut batch = Batch::default();
    batch.append("s".into(), Some(0), vec![json!(1), json!(2)]);
    batch.document("c", "k", Some(json!("v")));
    store.commit(batch).await.unwrap();
    let mut stale = Batch::default();
    stale.document("c", "k", Some(json!("other")));
    stale.append("t".into(), None, vec![json!(9)]);
    stale.append("s".into(), Some(1), vec![json!(3)]);
    let error = store.commit(stale).await.unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::Conflict {
                actual: 2,
                expected: 1,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(store.events::<i64>("s").await.unwrap(), [1, 2]);
    assert_eq!(store.events::<i64>("t").await.unwrap(), [0i64; 0]);
    assert_eq!(store.document::<String>("c", "k").await.unwrap().as_deref(), Some("v"));
    let mut gone = Batch::default();
    gone.document("c", "k", None);
    store.commit(gone).await.unwrap();
    assert_eq!(store.document::<String>("c", "k").await.unwrap(), None);
}

#[tokio::test]
async fn numbers_are_given_once_each_and_kept() {
    let (_dir, store) = open().await;
    let (first, second) = (pipeline("claims"), pipeline("claims"));
    let mut batch = Batch::default();
    batch.put(Row::Pipeline(first.clone()));
    batch.put(Row::Pipeline(second.clone()));
    batch.put(Row::Pipeline(pipeline("other")));
    let workflow = workflow(first.id);
    batch.put(Row::Workflow(workflow.clone()));
    let jobs: Vec<JobRow> = (0..3).map(|at| job(workflow.id, at)).collect();
    for row in &jobs {
        batch.put(Row::Job(row.clone()));
    }
    batch.number_job(jobs[1].id);
    store.commit(batch).await.unwrap();
    let mut batch = Batch::default();
    // A later write of the row does not take its number away, and numbering twice changes nothing.
    batch.put(Row::Job(JobRow {
        status: "running".into(),
        ..jobs[1].clone()
    }));
    batch.number_job(jobs[1].id);
    batch.number_job(jobs[0].id);
    store.commit(batch).await.unwrap();
    let numbers: Vec<_> = store
        .jobs(workflow.id)
        .await
        .unwrap()
        .into_iter()
        .map(|row| (row.number, row.status))
        .collect();
    let queued = "queued".to_string();
    assert_eq!(
        numbers,
        [
            (Some(2), queued.clone()),
            (Some(1), "running".to_string()),
            (None, queued)
        ]
    );
    assert_eq!(store.job_by_number("claims", 2).await.unwrap().unwrap().id, jobs[0].id);
    let pipelines: Vec<_> = store
        .pipelines(Some("claims"), None, 10)
        .await
        .unwrap()
        .iter()
        .map(|row| row.number)
        .collect();
    assert_eq!(pipelines, [2, 1]);
    assert_eq!(store.pipelines(None, None, 10).await.unwrap().len(), 3);
    assert_eq!(
        store.pipelines(Some("claims"), Some(2), 10).await.unwrap()[0].id,
        first.id
    );
    assert_eq!(store.unfinished_workflows().await.unwrap(), [workflow]);
}

#[tokio::test]
async fn a_log_is_as_long_as_what_was_acknowledged() {
    let (_dir, store) = open().await;
    let (logs, id) = (store.logs(), JobId::from_u128(fresh()));
    assert_eq!(logs.append(id, 0, 1, 0, b"hello ").await.unwrap(), 6);
    assert_eq!(logs.append(id, 0, 1, 3, b"lo world").await.unwrap(), 11);
    assert_eq!(logs.append(id, 0, 1, 0, b"hello").await.unwrap(), 11);
    assert!(matches!(
        logs.append(id, 0, 1, 12, b"x").await,
        Err(StoreError::LogGap { length: 11 })
    ));
    assert_eq!(&logs.read(id, 0, 1, 6, 100).await.unwrap()[..], b"world");
    assert_eq!(&logs.read(id, 0, 1, 0, 5).await.unwrap()[..], b"hello");
    assert!(logs.read(id, 0, 1, 99, 5).await.unwrap().is_empty());
    assert!(logs.read(id, 7, 7, 0, 5).await.unwrap().is_empty());
}

#[tokio::test]
async fn racing_senders_of_the_same_bytes_write_them_once() {
    let (_dir, store) = open().await;
    let id = JobId::from_u128(fresh());
    let text: Vec<u8> = (0..20_000u32).flat_map(|n| format!("{n}\n").into_bytes()).collect();
    let sends = (0..8).map(|sender| {
        let (store, text) = (store.clone(), text.clone());
        async move {
            let mut at = 0;
            while at < text.len() {
                let end = (at + 701 + sender * 97).min(text.len());
                at = usize::try_from(store.logs().append(id, 0, 0, at as u64, &text[at..end]).await.unwrap()).unwrap();
            }
        }
    });
    futures::future::join_all(sends).await;
    assert_eq!(store.logs().read(id, 0, 0, 0, 1 << 20).await.unwrap(), text);
}

#[tokio::test]
async fn the_newest_cache_with_the_prefix_wins() {
    let (_dir, store) = open().await;
    let mut stored = Vec::new();
    for text in ["one", "two", "three"] {
        stored.push(store.blobs().put(text.as_bytes()).await.unwrap());
    }
    assert!(store.save_cache("claims", "v1-abc", &stored[0]).await.unwrap());
    assert!(store.save_cache("claims", "v1-abcdef", &stored[1]).await.unwrap());
    assert!(store.save_cache("other", "v1-abcx", &stored[2]).await.unwrap());
    assert!(
        !store.save_cache("claims", "v1-abc", &stored[2]).await.unwrap(),
        "a key is taken once"
    );
    let found = store.find_cache("claims", "v1-abc").await.unwrap().unwrap();
    assert_eq!((found.key.as_str(), found.bytes), ("v1-abcdef", 3));
    assert!(store.has_cache("claims", "v1-abc").await.unwrap());
    assert!(!store.has_cache("claims", "v1-ab").await.unwrap());
    assert_eq!(store.find_cache("claims", "v2").await.unwrap(), None);
    assert_eq!(store.find_cache("claims", "V1").await.unwrap(), None);
}

#[tokio::test]
async fn what_jobs_keep_is_found_again() {
    let (_dir, store) = open().await;
    let (workflow, job) = (WorkflowId::from_u128(fresh()), JobId::from_u128(fresh()));
    let blob = store.blobs().put(&b"layer"[..]).await.unwrap();
    store.put_workspace_layer(workflow, job, 0, 3, &blob).await.unwrap();
    store.put_workspace_layer(workflow, job, 0, 3, &blob).await.unwrap();
    assert_eq!(store.workspace_layers(workflow).await.unwrap().len(), 1);
    store.put_artifact(job, 0, "out/a.txt", &blob).await.unwrap();
    assert_eq!(store.artifacts(job).await.unwrap()[0].digest, blob.digest);
    let test = TestRow {
        name: "adds".into(),
        classname: None,
        file: None,
        seconds: 0.5,
        result: "success".into(),
        message: String::new(),
    };
    store
        .put_tests("claims", job, 0, "junit.xml", std::slice::from_ref(&test))
        .await
        .unwrap();
    assert_eq!(store.tests(job).await.unwrap(), std::slice::from_ref(&test));
    assert_eq!(store.recent_tests("claims", 5).await.unwrap(), [test]);
}

#[tokio::test]
async fn a_second_server_is_told_who_has_the_directory() {
    let (dir, store) = open().await;
    let error = Store::open(dir.path()).await.err().unwrap().to_string();
    assert!(error.contains(&format!("(process {})", std::process::id())), "{error}");
    let name = store.instance().to_string();
    drop(store);
    // The lock goes with the last clone; the pools close behind it.
    let again = Store::open(dir.path()).await.unwrap();
    assert_eq!(again.instance(), name);
}

#[tokio::test]
async fn a_blob_that_breaks_off_leaves_nothing() {
    struct Broken(u8);
    impl tokio::io::AsyncRead for Broken {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            buffer: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            self.0 += 1;
            if self.0 > 3 {
                return std::task::Poll::Ready(Err(std::io::Error::other("the line is cut")));
            }
            buffer.put_slice(b"part");
            std::task::Poll::Ready(Ok(()))
        }
    }
    let (dir, store) = open().await;
    let error = store.blobs().put(Broken(0)).await.unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::Io {
                attempt: "receive the bytes for",
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(std::fs::read_dir(dir.path().join("temporary")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(dir.path().join("blobs")).unwrap().count(), 0);
}

/// Not a test of its own: what the next one starts and kills.
#[tokio::test]
async fn child_that_commits_until_it_is_killed() {
    let Ok(dir) = std::env::var(CHILD) else { return };
    let store = Store::open(dir.as_ref()).await.unwrap();
    let mut version = store.events::<u64>("s").await.unwrap().len() as u64;
    loop {
        let mut batch = Batch::default();
        batch.append("s".into(), Some(version), vec![json!(version)]);
        batch.document("newest", "s", Some(json!(version)));
        store.commit(batch).await.unwrap();
        println!("committed {version}");
        version += 1;
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = None;
    for round in 0..4u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_commits_until_it_is_killed", "--nocapture"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let committed = lines
            .map_while(Result::ok)
            .filter_map(|line| line.split("committed ").nth(1)?.trim().parse::<u64>().ok());
        for version in committed {
            acknowledged = Some(version);
            if version >= (round + 1) * 13 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        let events: Vec<u64> = store.events("s").await.unwrap();
        assert_eq!(events, (0..events.len() as u64).collect::<Vec<_>>(), "round {round}");
        assert!(
            events.last() >= acknowledged.as_ref(),
            "round {round}: {:?} < {acknowledged:?}",
            events.last()
        );
        let newest: Option<u64> = store.document("newest", "s").await.unwrap();
        assert_eq!(newest.as_ref(), events.last(), "an event without its row");
    }
}

#[tokio::test]
async fn a_full_disk_is_said_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
        .arg(dir.path())
        .status()
        .is_ok_and(|status| status.success());
    if !mounted {
        assert!(
            std::env::var("CI").is_err(),
            "a small disk cannot be mounted here, and CI must"
        );
        println!("SKIPPED: a small disk cannot be mounted here (not root?)");
        return;
    }
    let store = Store::open(dir.path()).await.unwrap();
    let id = JobId::from_u128(fresh());
    let mut kept = 0;
    let piece = vec![b'x'; 64 << 10];
    let error = loop {
        match store.logs().append(id, 0, 0, kept, &piece).await {
            Ok(length) => kept = length,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::Full(_)), "{error:?}");
    assert!(error.to_string().contains("is full: make room"), "{error}");
    assert_eq!(
        store.logs().len(id, 0, 0).await,
        kept,
        "the log has bytes that nobody acknowledged"
    );
    let blob = store.blobs().put(&piece[..]).await.unwrap_err();
    assert!(matches!(blob, StoreError::Full(_)), "{blob:?}");
    let mut batch = Batch::default();
    batch.append("s".into(), Some(0), vec![json!("y".repeat(200 << 10))]);
    let refused = store.commit(batch).await.unwrap_err();
    assert!(matches!(refused, StoreError::Full(_)), "{refused:?}");
    std::fs::remove_dir_all(dir.path().join("logs").join(id.to_string())).unwrap();
    let mut batch = Batch::default();
    batch.append("s".into(), Some(0), vec![json!("y".repeat(100 << 10))]);
    store.commit(batch).await.unwrap();
    drop(store);
    assert!(
        Command::new("umount")
            .arg("-l")
            .arg(dir.path())
            .status()
            .unwrap()
            .success()
    );
}

#[tokio::test]
async fn the_newest_release_in_a_state_is_found_behind_many_others() {
    let (_dir, store) = open().await;
    let release = |environment: &str, state: &str| {
        Row::Release(ReleaseRow {
            id: ReleaseId::from_u128(fresh()),
            environment: environment.into(),
            number: 0,
            state: state.into(),
            image: "claims".into(),
            commit: None,
            by: "Ada".into(),
            cause: "a push".into(),
            at: Timestamp::UNIX_EPOCH,
            stopped_at: None,
            message: None,
            plan: json!({"state": "succeeded"}),
        })
    };
    let states = ["succeeded", "succeeded"]
        .into_iter()
        .chain(std::iter::repeat_n("failed", 60));
    for state in states {
        let mut batch = Batch::default();
        batch.put(release("claims/dev", state));
        store.commit(batch).await.unwrap();
    }
    let number = async |environment: &str, state: Option<&str>| {
        let row = store.last_release(environment, state).await.unwrap();
        row.map(|row| row.number)
    };
    assert_eq!(number("claims/dev", Some("succeeded")).await, Some(2));
    assert_eq!(number("claims/dev", None).await, Some(62));
    assert_eq!(number("claims/dev", Some("running")).await, None);
    assert_eq!(number("claims/prod", None).await, None);
}
