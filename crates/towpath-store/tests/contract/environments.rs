use crate::rows::{at, commit, environment, environment_id, name, refused};
use serde_json::json;
use towpath_store::{EnvironmentRow, EnvironmentStore, Expect, Sighting, SqlStore, Write};
use towpath_types::EnvironmentId;

pub async fn every_sighting_is_read_back(store: SqlStore) {
    let row = environment(environment_id("dev"));
    let insert = Write::Environment(row.clone(), Expect::Absent);
    commit(&store, [insert.clone()]).await.unwrap();
    refused(&store, insert, "the environment `claims.dev`").await;
    assert_eq!(store.environment(&row.id).await.unwrap().as_ref(), Some(&row));
    let unknown = Sighting::Unknown {
        since: at(3),
        because: "the cluster does not answer".into(),
    };
    for (sighting, version) in [Sighting::Seen { at: at(2) }, unknown, Sighting::Never]
        .into_iter()
        .zip(1..)
    {
        let changed = EnvironmentRow {
            sighting,
            listed: false,
            release: None,
            seen: json!({"n": version}),
            ..row.clone()
        };
        let update = Write::Environment(changed.clone(), Expect::Version(version));
        commit(&store, [update.clone()]).await.unwrap();
        refused(&store, update, "the environment").await;
        let expected = EnvironmentRow {
            version: version + 1,
            ..changed
        };
        assert_eq!(store.environment(&row.id).await.unwrap(), Some(expected));
    }
    assert_eq!(store.environment(&environment_id("nosuch")).await.unwrap(), None);
}

pub async fn environments_are_sorted_by_project_and_name(store: SqlStore) {
    // By slug, `a-b` would sort before `a`'s environments.
    let pairs = [("a", "dev"), ("a", "prod_2"), ("a-b", "dev"), ("b", "a")];
    for (project, one) in pairs.iter().rev() {
        let row = environment(EnvironmentId::new(project, one).unwrap());
        commit(&store, [Write::Environment(row, Expect::Absent)]).await.unwrap();
    }
    let of = |rows: &[EnvironmentRow]| -> Vec<(String, String)> {
        let parts = |row: &EnvironmentRow| (row.id.project().to_string(), row.id.environment().to_string());
        rows.iter().map(parts).collect()
    };
    let expected: Vec<(String, String)> = pairs.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect();
    assert_eq!(of(&store.environments(None).await.unwrap()), expected);
    assert_eq!(of(&store.environments(Some(&name("a"))).await.unwrap()), expected[..2]);
    assert_eq!(of(&store.environments(Some(&name("nosuch"))).await.unwrap()), []);
}
