use crate::rows::{at, commit, fresh, refused};
use towpath_store::{Expect, FetchedOrb, OrbNamespace, OrbRow, OrbStore, OrbVersionRow, SqlStore, Write};

fn orb(namespace: &str, name: &str) -> OrbRow {
    OrbRow {
        id: fresh(),
        namespace: namespace.into(),
        name: name.into(),
        is_private: true,
        is_listed: false,
        created_at: at(1),
    }
}

pub async fn orbs_are_found_and_listed(store: SqlStore) {
    let namespaces = ["team", "acme"].map(|name| OrbNamespace {
        id: fresh(),
        name: name.into(),
    });
    for row in &namespaces {
        let write = Write::OrbNamespace(row.clone());
        commit(&store, [write.clone()]).await.unwrap();
        refused(&store, write, "the namespace").await;
    }
    let [team, acme] = namespaces;
    assert_eq!(store.orb_namespaces().await.unwrap(), [acme, team.clone()]);
    assert_eq!(store.orb_namespace("team").await.unwrap(), Some(team));
    assert_eq!(store.orb_namespace("nosuch").await.unwrap(), None);
    let rows = [orb("team", "node"), orb("acme", "go"), orb("team", "aws")];
    for row in &rows {
        let write = Write::Orb(row.clone(), Expect::Absent);
        commit(&store, [write.clone()]).await.unwrap();
        refused(&store, write, "the orb").await;
    }
    let [a, b, c] = rows;
    assert_eq!(store.orbs(None).await.unwrap(), [b, c.clone(), a.clone()]);
    assert_eq!(store.orbs(Some("team")).await.unwrap(), [c, a.clone()]);
    let listed = OrbRow { is_listed: true, ..a };
    commit(&store, [Write::Orb(listed.clone(), Expect::Version(1))])
        .await
        .unwrap();
    assert_eq!(store.orb("team", "node").await.unwrap(), Some(listed));
    refused(
        &store,
        Write::Orb(orb("team", "nosuch"), Expect::Version(1)),
        "the orb `team/nosuch`",
    )
    .await;
    assert_eq!(store.orb("team", "nosuch").await.unwrap(), None);
    let fetched = FetchedOrb {
        reference: "circleci/node@5.0.0".into(),
        source: "version: 2.1".into(),
    };
    commit(
        &store,
        [Write::FetchedOrb(fetched.clone()), Write::FetchedOrb(fetched.clone())],
    )
    .await
    .unwrap();
    assert_eq!(store.fetched_orb(&fetched.reference).await.unwrap(), Some(fetched));
    assert_eq!(store.fetched_orb("circleci/node@5").await.unwrap(), None);
}

pub async fn versions_are_published_once(store: SqlStore) {
    let version = |version: &str, source: &str| OrbVersionRow {
        id: fresh(),
        namespace: "team".into(),
        name: "node".into(),
        version: version.into(),
        source: source.into(),
        frozen: format!("{source}, frozen"),
        created_at: at(2),
    };
    let rows = [
        version("dev:first", "a"),
        version("1.0.0", "b"),
        version("dev:first", "c"),
    ];
    commit(&store, rows.clone().map(Write::OrbVersion)).await.unwrap();
    refused(
        &store,
        Write::OrbVersion(version("1.0.0", "d")),
        "the orb version `team/node/1.0.0`",
    )
    .await;
    let [_, b, c] = rows;
    assert_eq!(store.orb_versions("team", "node").await.unwrap(), [b, c]);
    assert_eq!(store.orb_versions("team", "nosuch").await.unwrap(), []);
}
