//! Injected failures behave as documented.

use crate::{
    backends,
    rows::{any_job, commit, name, one_job},
};
use serde_json::json;
use std::time::Duration;
use towpath_store::{
    Commit, Expect, Faults, JobStore, PipelineStore, SqlStore, Store, StoreError, WorkKind, WorkStore, WorkflowStore,
    Write,
};

async fn append(store: &SqlStore, expected: u64) -> Result<(), StoreError> {
    let events = Write::Events {
        stream: "s".into(),
        expected,
        events: vec![json!(expected)],
    };
    commit(store, [events]).await.map(drop)
}

async fn length(store: &SqlStore) -> usize {
    store.events("s", 0).await.unwrap().len()
}

fn assert_unavailable<T: std::fmt::Debug>(result: Result<T, StoreError>) {
    let error = result.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    assert!(error.is_temporary());
}

#[tokio::test]
async fn a_failure_is_before_or_after_the_effect() {
    let (plain, faults) = (backends::memory().await, Faults::new());
    let store = plain.clone().with_faults(faults.clone());
    faults.fail_before(2);
    append(&store, 0).await.unwrap();
    assert_unavailable(append(&store, 1).await);
    assert_eq!(length(&plain).await, 1);
    append(&store, 1).await.unwrap();
    faults.fail_after(1);
    assert_unavailable(append(&store, 2).await);
    assert_eq!(length(&plain).await, 3, "only the answer was to be lost");
    // Earlier clones have no failures and are not counted.
    faults.set_away();
    assert_unavailable(append(&store, 3).await);
    assert_unavailable(store.projects().await);
    assert_unavailable(store.claim(&[], "a", crate::rows::at(0), Duration::from_secs(1)).await);
    append(&plain, 3).await.unwrap();
    faults.restore();
    append(&store.clone(), 4).await.unwrap();
    let counts: Vec<(&str, u64)> = faults.counts().into_iter().collect();
    assert_eq!(counts, [("claim", 1), ("commit", 6), ("projects", 1)]);
    assert_eq!(faults.total(), 8);
    faults.reset_counts();
    assert_eq!(faults.total(), 0);
}

#[tokio::test]
async fn a_cut_in_front_of_each_operation_leaves_whole_commits() {
    let scenario = async |store: &SqlStore| -> Result<(), StoreError> {
        let (job, writes) = one_job("claims");
        commit(store, writes).await?;
        let found = store.job(job.id).await?.expect("its row");
        let update = Write::Job(found, Expect::Version(1));
        commit(store, [update, Write::NumberJob(job.id)]).await?;
        store.pipelines(Some(&name("claims")), None, 10).await?;
        store.next_due(&WorkKind::ALL).await?;
        Ok(())
    };
    let mut cut = 1;
    loop {
        for after in [false, true] {
            let (plain, faults) = (backends::memory().await, Faults::new());
            let store = plain.clone().with_faults(faults.clone());
            if after {
                faults.cut_after(cut);
            } else {
                faults.cut_before(cut);
            }
            let ended = scenario(&store).await;
            if faults.is_pending() {
                ended.unwrap();
                assert_eq!(cut, 6, "the scenario has five operations");
                return;
            }
            assert_unavailable(ended);
            let commits = [
                usize::from(cut > 1 || after),
                usize::from(cut > 3 || (cut == 3 && after)),
            ];
            let pipelines = plain.pipelines(None, None, 10).await.unwrap();
            assert_eq!(pipelines.len(), commits[0], "cut {cut}, after: {after}");
            let numbered = plain.job_by_number(&name("claims"), 1).await.unwrap();
            assert_eq!(usize::from(numbered.is_some()), commits[1], "cut {cut}, after: {after}");
        }
        cut += 1;
    }
}

#[tokio::test]
async fn statements_are_recorded_once() {
    let faults = Faults::new();
    let store = backends::memory().await.with_faults(faults.clone());
    for _ in 0..2 {
        store.job(any_job("claims").id).await.unwrap();
        store
            .commit(Commit::new().with(Write::Job(any_job("claims"), Expect::Absent)))
            .await
            .unwrap();
    }
    let statements = faults.statements();
    assert_eq!(statements.len(), 2, "{statements:?}");
    assert!(statements[0].starts_with("INSERT INTO jobs"), "{statements:?}");
    assert!(statements[1].starts_with("SELECT id, "), "{statements:?}");
}
