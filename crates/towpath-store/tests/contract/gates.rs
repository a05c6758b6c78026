use crate::rows::{commit, digest, environment_id, fresh, gate, name, plan, refused};
use towpath_store::{Expect, GateRow, GateStore, SqlStore, Write};

pub async fn gates_wait_in_order(store: SqlStore) {
    let rows = [
        gate(Some("dev"), 3),
        gate(Some("production"), 2),
        gate(None, 1),
        gate(Some("dev"), 0),
        GateRow {
            project: name("other"),
            ..gate(None, 4)
        },
    ];
    for row in &rows {
        let write = Write::Gate(row.clone(), Expect::Absent);
        commit(&store, [write.clone()]).await.unwrap();
        refused(&store, write, "the gate").await;
    }
    let [a, b, c, d, e] = rows.clone();
    let claims = name("claims");
    let all = store.waiting_gates(None, 0, 10).await.unwrap();
    assert_eq!(all, [d.clone(), c.clone(), b.clone(), a.clone(), e]);
    assert_eq!(store.waiting_gates(None, 1, 2).await.unwrap(), [c, b]);
    assert_eq!(store.waiting_gates(Some(&claims), 0, 10).await.unwrap(), all[..4]);
    assert_eq!(store.waiting_gates(Some(&claims), 9, 10).await.unwrap(), []);
    assert_eq!(store.count_waiting_gates().await.unwrap(), 5);
    let dev = environment_id("dev");
    assert_eq!(store.gates_of(&dev).await.unwrap(), [d.clone(), a.clone()]);
    let approved = GateRow {
        waiting: false,
        approved_by: Some("Ada".into()),
        plan: None,
        plan_error: Some("no manifests".into()),
        ..d
    };
    let update = Write::Gate(approved.clone(), Expect::Version(1));
    commit(&store, [update.clone()]).await.unwrap();
    refused(&store, update, "the gate").await;
    assert_eq!(store.gates_of(&dev).await.unwrap(), [a]);
    assert_eq!(store.count_waiting_gates().await.unwrap(), 4);
    let found = store.gate(approved.job).await.unwrap();
    assert_eq!(found, Some(GateRow { version: 2, ..approved }));
    assert_eq!(store.gate(fresh()).await.unwrap(), None);
}

pub async fn a_plan_is_kept_once(store: SqlStore) {
    let row = plan("one");
    commit(&store, [Write::Plan(row.clone()), Write::Plan(row.clone())])
        .await
        .unwrap();
    commit(&store, [Write::Plan(row.clone())]).await.unwrap();
    assert_eq!(store.plan(&row.digest).await.unwrap(), Some(row));
    assert_eq!(store.plan(&digest("nosuch")).await.unwrap(), None);
}
