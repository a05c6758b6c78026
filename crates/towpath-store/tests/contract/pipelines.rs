use crate::rows::{at, commit, fresh, name, pipeline, project, refused, sha, trigger};
use serde_json::json;
use towpath_store::{
    Expect, HandledRef, PipelineConfig, PipelineRow, PipelineStore, ProjectRow, SqlStore, TriggerKind, TriggerRow,
    TriggerStore, Write,
};
use towpath_types::TriggerStatus;

pub async fn projects_are_compared_and_sorted(store: SqlStore) {
    // Byte order, whatever the database's locale.
    let names = ["a-b", "a.b", "a0", "a_b", "ab"];
    for one in names.iter().rev() {
        let write = Write::Project(project(one), Expect::Absent);
        commit(&store, [write.clone()]).await.unwrap();
        refused(&store, write, &format!("the project `{one}`")).await;
    }
    let found: Vec<String> = store
        .projects()
        .await
        .unwrap()
        .iter()
        .map(|row| row.name.to_string())
        .collect();
    assert_eq!(found, names);
    assert_eq!(store.project(&name("ab")).await.unwrap(), Some(project("ab")));
    assert_eq!(store.project(&name("nosuch")).await.unwrap(), None);
    let changed = ProjectRow {
        head: None,
        default_branch: "trunk".into(),
        // The store counts versions itself.
        version: 77,
        ..project("ab")
    };
    let update = Write::Project(changed.clone(), Expect::Version(1));
    commit(&store, [update.clone()]).await.unwrap();
    let expected = ProjectRow { version: 2, ..changed };
    assert_eq!(store.project(&name("ab")).await.unwrap(), Some(expected));
    refused(&store, update, "the project `ab`").await;
    refused(
        &store,
        Write::Project(project("nosuch"), Expect::Version(1)),
        "`nosuch`",
    )
    .await;
}

pub async fn triggers_take_numbers(store: SqlStore) {
    let rows: Vec<TriggerRow> = ["claims", "claims", "other"].into_iter().map(trigger).collect();
    let writes = rows.iter().map(|row| Write::Trigger(row.clone(), Expect::Absent));
    let committed = commit(&store, writes).await.unwrap();
    let ids: Vec<_> = rows.iter().map(|row| row.pipeline).collect();
    assert_eq!(committed.pipelines, [(ids[0], 1), (ids[1], 2), (ids[2], 1)]);
    // A refused insert leaves no gap.
    refused(&store, Write::Trigger(rows[0].clone(), Expect::Absent), "the trigger").await;
    let with_number = TriggerRow {
        number: 9,
        ..trigger("claims")
    };
    let next = trigger("claims");
    let committed = commit(
        &store,
        [
            Write::Trigger(trigger("claims"), Expect::Absent),
            Write::Trigger(with_number.clone(), Expect::Absent),
            Write::Trigger(next, Expect::Absent),
        ],
    )
    .await
    .unwrap();
    let numbers: Vec<_> = committed.pipelines.iter().map(|(_, number)| *number).collect();
    assert_eq!(numbers, [3, 9, 10]);
    let twice = TriggerRow {
        id: fresh(),
        ..with_number
    };
    refused(&store, Write::Trigger(twice, Expect::Absent), "the trigger").await;
    // An update keeps the number, even if the writer never learnt it.
    let done = TriggerRow {
        status: TriggerStatus::Done,
        ..rows[1].clone()
    };
    commit(&store, [Write::Trigger(done, Expect::Version(1))])
        .await
        .unwrap();
    let found = store.trigger(rows[1].id).await.unwrap().unwrap();
    assert_eq!((found.number, found.status, found.version), (2, TriggerStatus::Done, 2));
}

pub async fn triggers_stay_open_until_they_are_done(store: SqlStore) {
    let older = TriggerRow {
        kind: TriggerKind::Api,
        created_at: at(0),
        ..trigger("claims")
    };
    let newer = trigger("claims");
    let scheduled = TriggerRow {
        kind: TriggerKind::Schedule,
        status: TriggerStatus::Announced,
        parameters: json!({}),
        ..trigger("other")
    };
    for row in [&newer, &older, &scheduled] {
        commit(&store, [Write::Trigger(row.clone(), Expect::Absent)])
            .await
            .unwrap();
    }
    let expected = [
        TriggerRow { number: 2, ..older },
        TriggerRow {
            number: 1,
            ..newer.clone()
        },
        TriggerRow {
            number: 1,
            ..scheduled.clone()
        },
    ];
    assert_eq!(store.open_triggers().await.unwrap(), expected);
    let dropped = TriggerRow {
        status: TriggerStatus::Dropped,
        reason: Some("git refused the push".into()),
        number: 1,
        ..newer
    };
    let done = TriggerRow {
        status: TriggerStatus::Done,
        ..scheduled
    };
    let writes = [dropped.clone(), done].map(|row| Write::Trigger(row, Expect::Version(1)));
    commit(&store, writes).await.unwrap();
    assert_eq!(store.open_triggers().await.unwrap(), expected[..1]);
    let found = store.trigger(dropped.id).await.unwrap().unwrap();
    assert_eq!(found, TriggerRow { version: 2, ..dropped });
    assert_eq!(store.trigger(fresh()).await.unwrap(), None);
}

pub async fn handled_refs_are_replaced_and_removed(store: SqlStore) {
    let handled = |ref_name: &str, digit: Option<&str>| HandledRef {
        project: name("claims"),
        name: ref_name.into(),
        commit: digit.map(sha),
        number: 0,
    };
    let other = HandledRef {
        project: name("other"),
        ..handled("refs/heads/main", Some("f"))
    };
    let writes = [
        handled("refs/tags/v1", Some("a")),
        handled("refs/heads/main", Some("b")),
        other,
        handled("refs/heads/main", Some("c")),
        handled("refs/heads/gone", Some("d")),
        handled("refs/heads/gone", None),
        handled("refs/heads/never", None),
    ];
    commit(&store, writes.map(Write::HandledRef)).await.unwrap();
    assert_eq!(
        store.handled_refs(&name("claims")).await.unwrap(),
        [
            handled("refs/heads/main", Some("c")),
            handled("refs/tags/v1", Some("a"))
        ]
    );
    assert_eq!(store.handled_refs(&name("nosuch")).await.unwrap(), []);
}

pub async fn a_handled_ref_keeps_the_newest_push(store: SqlStore) {
    let handled = |digit: &str, number| HandledRef {
        project: name("claims"),
        name: "refs/heads/main".into(),
        commit: Some(sha(digit)),
        number,
    };
    // Pipelines are made concurrently: the older push may be handled last.
    for (write, expected) in [
        (handled("a", 2), handled("a", 2)),
        (handled("b", 5), handled("b", 5)),
        (handled("c", 4), handled("b", 5)),
        (handled("d", 0), handled("d", 5)),
        (handled("e", 5), handled("e", 5)),
    ] {
        commit(&store, [Write::HandledRef(write)]).await.unwrap();
        assert_eq!(store.handled_refs(&name("claims")).await.unwrap(), [expected]);
    }
}

pub async fn pipelines_are_listed_newest_first(store: SqlStore) {
    let mut rows = Vec::new();
    for (one, number) in [("claims", 1), ("claims", 2), ("other", 3), ("claims", 4)] {
        let row = pipeline(one, number);
        commit(&store, [Write::Pipeline(row.clone(), Expect::Absent)])
            .await
            .unwrap();
        rows.push(row);
    }
    refused(&store, Write::Pipeline(rows[0].clone(), Expect::Absent), "the pipeline").await;
    refused(
        &store,
        Write::Pipeline(pipeline("claims", 1), Expect::Absent),
        "the pipeline",
    )
    .await;
    let numbers = async |of: Option<&str>, before, limit| -> Vec<i64> {
        let of = of.map(name);
        let found = store.pipelines(of.as_ref(), before, limit).await.unwrap();
        found.iter().map(|row| row.number).collect()
    };
    assert_eq!(numbers(None, None, 10).await, [4, 3, 2, 1]);
    assert_eq!(numbers(None, Some(3), 10).await, [2, 1]);
    assert_eq!(numbers(Some("claims"), None, 2).await, [4, 2]);
    assert_eq!(numbers(Some("claims"), Some(4), 10).await, [2, 1]);
    assert_eq!(numbers(Some("nosuch"), None, 10).await, [0i64; 0]);
    assert_eq!(store.pipeline(rows[2].id).await.unwrap().as_ref(), Some(&rows[2]));
    let by_number = store.pipeline_by_number(&name("claims"), 4).await.unwrap();
    assert_eq!(by_number.as_ref(), Some(&rows[3]));
    assert_eq!(store.pipeline_by_number(&name("claims"), 3).await.unwrap(), None);
    let changed = PipelineRow {
        subject: "changed".into(),
        ..rows[0].clone()
    };
    let update = Write::Pipeline(changed.clone(), Expect::Version(1));
    commit(&store, [update.clone()]).await.unwrap();
    refused(&store, update, "the pipeline").await;
    let found = store.pipeline(changed.id).await.unwrap();
    assert_eq!(found, Some(PipelineRow { version: 2, ..changed }));
}

pub async fn a_configuration_is_written_once(store: SqlStore) {
    let config = PipelineConfig {
        pipeline: fresh(),
        source: "version: 2.1\n".into(),
        processed: String::new(),
        project_file: Some("[project]\n".into()),
    };
    commit(&store, [Write::PipelineConfig(config.clone())]).await.unwrap();
    refused(
        &store,
        Write::PipelineConfig(config.clone()),
        "the configuration of pipeline",
    )
    .await;
    assert_eq!(store.pipeline_config(config.pipeline).await.unwrap(), Some(config));
    assert_eq!(store.pipeline_config(fresh()).await.unwrap(), None);
}
