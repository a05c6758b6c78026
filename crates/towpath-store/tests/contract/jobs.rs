use crate::rows::{any_job, at, commit, fresh, job, name, node, one_job, pipeline, refused, step, workflow};
use serde_json::json;
use towpath_store::{Expect, JobRow, JobSpecRow, JobStore, NodeRow, SqlStore, StepRow, Write};
use towpath_types::{JobId, JobStatus, Outcome, StepStatus};

pub async fn jobs_are_compared_and_keep_their_number(store: SqlStore) {
    let (row, writes) = one_job("claims");
    commit(&store, writes).await.unwrap();
    assert_eq!(store.job(row.id).await.unwrap().as_ref(), Some(&row));
    refused(&store, Write::Job(row.clone(), Expect::Absent), "the job").await;
    // Its row comes earlier in the same commit.
    let other = any_job("claims");
    let committed = commit(
        &store,
        [
            Write::Job(other.clone(), Expect::Absent),
            Write::NumberJob(other.id),
            Write::NumberJob(row.id),
            Write::NumberJob(other.id),
        ],
    )
    .await
    .unwrap();
    assert_eq!(committed.jobs, [(other.id, 1), (row.id, 2)]);
    let running = JobRow {
        status: JobStatus::Running,
        number: None,
        stop_requested: true,
        ..row.clone()
    };
    let update = Write::Job(running.clone(), Expect::Version(1));
    let committed = commit(&store, [update.clone(), Write::NumberJob(row.id)])
        .await
        .unwrap();
    assert_eq!(committed.jobs, []);
    let expected = JobRow {
        number: Some(2),
        version: 2,
        ..running
    };
    assert_eq!(store.job_by_number(&name("claims"), 2).await.unwrap(), Some(expected));
    assert_eq!(store.job_by_number(&name("claims"), 3).await.unwrap(), None);
    assert_eq!(store.job_by_number(&name("other"), 1).await.unwrap(), None);
    refused(&store, update, "the job").await;
    let nobody: JobId = fresh();
    refused(&store, Write::NumberJob(nobody), &format!("the job `{nobody}`")).await;
    let spec = JobSpecRow {
        job: row.id,
        spec: json!({"version": 1, "steps": []}),
    };
    commit(&store, [Write::JobSpec(spec.clone())]).await.unwrap();
    refused(&store, Write::JobSpec(spec.clone()), "the specification of job").await;
    assert_eq!(store.job_spec(row.id).await.unwrap(), Some(spec));
    assert_eq!(store.job_spec(nobody).await.unwrap(), None);
}

pub async fn jobs_come_in_the_order_asked_for(store: SqlStore) {
    let of = pipeline("claims", 1);
    let (first, second) = (workflow(&of, 0), workflow(&of, 1));
    let rows = [job(&first, 1), job(&second, 0), job(&first, 0)];
    for row in &rows {
        commit(&store, [Write::Job(row.clone(), Expect::Absent)]).await.unwrap();
    }
    let [a, b, c] = rows;
    let found = store.jobs_of(&[second.id, fresh(), first.id]).await.unwrap();
    assert_eq!(found, [b, c, a]);
    assert_eq!(store.jobs_of(&[]).await.unwrap(), []);
}

pub async fn active_jobs_are_claimed_or_running(store: SqlStore) {
    let statuses = [
        JobStatus::Running,
        JobStatus::Blocked,
        JobStatus::OnHold,
        JobStatus::Queued,
        JobStatus::Claimed,
        JobStatus::Ended(Outcome::Errored),
    ];
    for (status, age) in statuses.into_iter().zip([9, 8, 7, 6, 5, 4]) {
        let row = JobRow {
            status,
            queued_at: Some(at(age)),
            ..any_job("claims")
        };
        commit(&store, [Write::Job(row, Expect::Absent)]).await.unwrap();
    }
    let found = store.active_jobs().await.unwrap();
    assert_eq!(
        found.iter().map(|row| row.status).collect::<Vec<_>>(),
        [JobStatus::Claimed, JobStatus::Running]
    );
}

pub async fn nodes_count_their_reports(store: SqlStore) {
    let of = any_job("claims");
    let rows = [node(&of, 1), node(&of, 0)];
    commit(&store, rows.clone().map(|row| Write::Node(row, Expect::Absent)))
        .await
        .unwrap();
    refused(&store, Write::Node(rows[0].clone(), Expect::Absent), "the node").await;
    let ended = NodeRow {
        outcome: None,
        reports: 5,
        ..rows[0].clone()
    };
    let update = Write::Node(ended.clone(), Expect::Version(1));
    commit(&store, [update.clone()]).await.unwrap();
    refused(&store, update, "/1/1`").await;
    let second = NodeRow {
        attempt: 2,
        ..node(&of, 0)
    };
    commit(&store, [Write::Node(second.clone(), Expect::Absent)])
        .await
        .unwrap();
    let expected = [rows[1].clone(), NodeRow { reports: 2, ..ended }];
    assert_eq!(store.nodes(of.id, 1).await.unwrap(), expected);
    assert_eq!(store.nodes(of.id, 2).await.unwrap(), [second]);
    assert_eq!(store.nodes(fresh(), 1).await.unwrap(), []);
}

pub async fn steps_are_replaced(store: SqlStore) {
    let of = any_job("claims");
    let rows = [step(&of, 1, 0), step(&of, 0, 1), step(&of, 0, 0)];
    commit(&store, rows.clone().map(Write::Step)).await.unwrap();
    let ended = StepRow {
        status: StepStatus::Ended(Outcome::Failed),
        exit_code: Some(2),
        message: Some("no".into()),
        stopped_at: Some(at(9)),
        ..rows[1].clone()
    };
    commit(&store, [Write::Step(ended.clone())]).await.unwrap();
    let expected = [rows[2].clone(), ended, rows[0].clone()];
    assert_eq!(store.steps(of.id, 1).await.unwrap(), expected);
    assert_eq!(store.steps(of.id, 2).await.unwrap(), []);
}
