use crate::rows::{commit, digest, fresh, name};
use towpath_store::{Artifact, ArtifactStore, Cache, SqlStore, TestRow, WorkspaceLayer, Write};
use towpath_types::{JobId, ProjectName, TestResult, WorkflowId};

pub async fn artifacts_are_replaced_by_path(store: SqlStore) {
    let job: JobId = fresh();
    let artifact = |node, path: &str, content: &str| Artifact {
        job,
        attempt: 1,
        node,
        path: path.into(),
        digest: digest(content),
        bytes: content.len() as u64,
    };
    let rows = [
        artifact(1, "a.txt", "one"),
        artifact(0, "b.txt", "two"),
        artifact(0, "a.txt", "three"),
        artifact(0, "b.txt", "four"),
    ];
    let write = |row| Write::Artifact(name("claims"), row);
    commit(&store, rows.clone().map(write)).await.unwrap();
    let [a, _, c, d] = rows;
    assert_eq!(store.artifacts(job, 1).await.unwrap(), [c, d, a]);
    assert_eq!(store.artifacts(job, 2).await.unwrap(), []);
}

fn test(name: &str) -> TestRow {
    TestRow {
        name: name.into(),
        classname: Some("Claims".into()),
        file: None,
        seconds: 0.25,
        result: TestResult::Failure,
        message: "expected 1\0".into(),
    }
}

fn file(project: ProjectName, job: JobId, node: u32, path: &str, tests: Vec<TestRow>) -> Write {
    Write::Tests {
        project,
        job,
        attempt: 1,
        node,
        path: path.into(),
        tests,
    }
}

fn names(tests: &[TestRow]) -> Vec<&str> {
    tests.iter().map(|test| test.name.as_str()).collect()
}

pub async fn tests_are_replaced_by_file(store: SqlStore) {
    let (job, other): (JobId, JobId) = (fresh(), fresh());
    let claims = || name("claims");
    let many: Vec<TestRow> = (0..250).map(|n| test(&format!("{n:03}"))).collect();
    let writes = [
        file(claims(), job, 1, "a.xml", vec![test("d")]),
        file(claims(), job, 0, "b.xml", vec![test("c")]),
        file(claims(), job, 0, "a.xml", many),
        file(name("other"), other, 0, "a.xml", vec![test("x")]),
    ];
    commit(&store, writes).await.unwrap();
    let found = store.tests(job, 1).await.unwrap();
    assert_eq!(found.len(), 252);
    assert_eq!(names(&found)[248..], ["248", "249", "c", "d"]);
    let replaced = [file(claims(), job, 0, "a.xml", vec![test("b"), test("a")])];
    commit(&store, replaced).await.unwrap();
    let found = store.tests(job, 1).await.unwrap();
    assert_eq!(names(&found), ["b", "a", "c", "d"]);
    let expected = TestRow {
        message: "expected 1\u{fffd}".into(),
        ..test("b")
    };
    assert_eq!(found[0], expected);
    assert_eq!(store.tests(job, 2).await.unwrap(), []);
    // The newest files come first; a replaced one keeps its age.
    assert_eq!(names(&store.recent_tests(&claims(), 2).await.unwrap()), ["b", "a", "c"]);
    assert_eq!(
        names(&store.recent_tests(&claims(), 9).await.unwrap()),
        ["b", "a", "c", "d"]
    );
    assert_eq!(names(&store.recent_tests(&name("nosuch"), 9).await.unwrap()), [""; 0]);
    commit(&store, [file(claims(), job, 0, "a.xml", Vec::new())])
        .await
        .unwrap();
    assert_eq!(names(&store.tests(job, 1).await.unwrap()), ["c", "d"]);
}

pub async fn the_newest_cache_with_the_prefix_wins(store: SqlStore) {
    let cache = |project: &str, key: &str, content: &str| Cache {
        project: name(project),
        domain: "branch".into(),
        key: key.into(),
        digest: digest(content),
        bytes: content.len() as u64,
    };
    let rows = [
        cache("claims", "v1-ab", "one"),
        cache("claims", "v1-abc", "two"),
        cache("other", "v1-abcd", "three"),
        cache("claims", "v1-ab", "four"),
    ];
    let committed = commit(&store, rows.clone().map(Write::Cache)).await.unwrap();
    assert_eq!(committed.caches_saved, [true, true, true, false], "a key is taken once");
    let claims = name("claims");
    assert_eq!(
        store.find_cache(&claims, "branch", "v1-ab").await.unwrap().as_ref(),
        Some(&rows[1])
    );
    assert_eq!(store.find_cache(&claims, "branch", "v1-abcd").await.unwrap(), None);
    assert_eq!(store.find_cache(&claims, "branch", "V1").await.unwrap(), None);
    assert_eq!(store.find_cache(&claims, "branch", "%").await.unwrap(), None);
    assert!(store.has_cache(&claims, "branch", "v1-ab").await.unwrap());
    assert!(!store.has_cache(&claims, "branch", "v1-a").await.unwrap());
    // Another trust domain has its own keys.
    assert!(!store.has_cache(&claims, "protected", "v1-ab").await.unwrap());
    assert_eq!(store.find_cache(&claims, "protected", "v1").await.unwrap(), None);
    let protected = Cache {
        domain: "protected".into(),
        ..rows[0].clone()
    };
    let committed = commit(&store, [Write::Cache(protected.clone())]).await.unwrap();
    assert_eq!(committed.caches_saved, [true]);
    let found = store.find_cache(&claims, "protected", "v1").await.unwrap();
    assert_eq!(found, Some(protected));
}

pub async fn layers_are_sorted_and_replaced(store: SqlStore) {
    let (workflow, job): (WorkflowId, JobId) = (fresh(), fresh());
    let layer = |job, node, step, content: &str| WorkspaceLayer {
        workflow,
        job,
        attempt: 1,
        node,
        step,
        digest: digest(content),
        bytes: content.len() as u64,
    };
    let later: JobId = fresh();
    let rows = [
        layer(later, 0, 0, "one"),
        layer(job, 1, 0, "two"),
        layer(job, 0, 3, "three"),
        layer(job, 0, 2, "four"),
        layer(job, 1, 0, "five"),
    ];
    commit(&store, rows.clone().map(Write::WorkspaceLayer)).await.unwrap();
    let [a, _, c, d, e] = rows;
    assert_eq!(store.workspace_layers(workflow).await.unwrap(), [d, c, e, a]);
    assert_eq!(store.workspace_layers(fresh()).await.unwrap(), []);
}
