use crate::rows::{at, commit, fresh, pipeline, refused, workflow};
use serde_json::{Value, json};
use towpath_store::{Expect, SqlStore, WorkflowRow, WorkflowStore, Write};
use towpath_types::{Outcome, WorkflowStatus};

fn events(stream: &str, expected: u64, events: Vec<Value>) -> Write {
    Write::Events {
        stream: stream.into(),
        expected,
        events,
    }
}

pub async fn a_stream_is_appended_to_at_its_end(store: SqlStore) {
    let many: Vec<Value> = (0..250).map(|n| json!({"n": n, "text": "\u{0} “x”"})).collect();
    commit(&store, [events("workflow/a", 0, many.clone())]).await.unwrap();
    for wrong in [0, 249, 251] {
        refused(
            &store,
            events("workflow/a", wrong, vec![json!(1)]),
            "the stream `workflow/a`",
        )
        .await;
        refused(
            &store,
            events("workflow/a", wrong, Vec::new()),
            "the stream `workflow/a`",
        )
        .await;
    }
    let two = [
        events("workflow/a", 250, vec![json!("next")]),
        events("workflow/b", 0, vec![json!(null)]),
        events("workflow/a", 251, Vec::new()),
    ];
    commit(&store, two).await.unwrap();
    let found = store.events("workflow/a", 0).await.unwrap();
    assert_eq!(found.len(), 251);
    assert!(found.iter().zip(0..).all(|(row, sequence)| row.sequence == sequence));
    assert_eq!(
        found[..250].iter().map(|row| row.event.clone()).collect::<Vec<_>>(),
        many
    );
    let rest = store.events("workflow/a", 249).await.unwrap();
    assert_eq!(rest, found[249..]);
    assert_eq!(store.events("workflow/b", 0).await.unwrap()[0].event, json!(null));
    assert_eq!(store.events("workflow/b", 1).await.unwrap(), []);
    assert_eq!(store.events("workflow/", 0).await.unwrap(), []);
}

pub async fn workflows_come_in_the_order_asked_for(store: SqlStore) {
    let (first, second) = (pipeline("claims", 1), pipeline("claims", 2));
    let rows = [workflow(&first, 1), workflow(&second, 0), workflow(&first, 0)];
    for row in &rows {
        let write = Write::Workflow(row.clone(), Expect::Absent);
        commit(&store, [write.clone()]).await.unwrap();
        refused(&store, write, "the workflow").await;
    }
    let [a, b, c] = rows.clone();
    let found = store.workflows_of(&[second.id, first.id, fresh()]).await.unwrap();
    assert_eq!(found, [b, c.clone(), a]);
    assert_eq!(store.workflows_of(&[]).await.unwrap(), []);
    let changed = WorkflowRow {
        status: WorkflowStatus::Ended(Outcome::TimedOut),
        message: Some("too long".into()),
        stopped_at: Some(at(9)),
        ..c
    };
    let update = Write::Workflow(changed.clone(), Expect::Version(1));
    commit(&store, [update.clone()]).await.unwrap();
    refused(&store, update, "the workflow").await;
    let found = store.workflow(changed.id).await.unwrap();
    assert_eq!(found, Some(WorkflowRow { version: 2, ..changed }));
    assert_eq!(store.workflow(fresh()).await.unwrap(), None);
}

pub async fn unfinished_workflows_are_found(store: SqlStore) {
    let statuses = [
        WorkflowStatus::OnHold,
        WorkflowStatus::Ended(Outcome::Succeeded),
        WorkflowStatus::Failing,
        WorkflowStatus::Ended(Outcome::Canceled),
        WorkflowStatus::Running,
    ];
    let of = pipeline("claims", 1);
    for (status, age) in statuses.into_iter().zip([4, 3, 2, 1, 0]) {
        let row = WorkflowRow {
            status,
            ..workflow(&of, age)
        };
        commit(&store, [Write::Workflow(row, Expect::Absent)]).await.unwrap();
    }
    let found = store.unfinished_workflows().await.unwrap();
    assert_eq!(
        found.iter().map(|row| row.status).collect::<Vec<_>>(),
        [WorkflowStatus::Running, WorkflowStatus::Failing, WorkflowStatus::OnHold]
    );
}
