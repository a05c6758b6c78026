use crate::rows::at;
use towpath_store::{ServerRow, ServerStore, SqlStore};

pub async fn servers_are_seen_and_removed(store: SqlStore) {
    let server = |id: &str, seen| ServerRow {
        id: id.into(),
        address: format!("http://{id}:7070"),
        engines: vec!["docker".into(), "host".into()],
        started_at: at(0),
        seen_at: at(seen),
    };
    for (id, seen) in [("b", 1), ("a", 2), ("c", 3), ("b", 4)] {
        store.put_server(&server(id, seen)).await.unwrap();
    }
    assert_eq!(
        store.servers(at(0)).await.unwrap(),
        [server("a", 2), server("b", 4), server("c", 3)]
    );
    assert_eq!(store.servers(at(3)).await.unwrap(), [server("b", 4), server("c", 3)]);
    store.remove_server("b").await.unwrap();
    store.remove_server("nosuch").await.unwrap();
    assert_eq!(store.servers(at(3)).await.unwrap(), [server("c", 3)]);
}
