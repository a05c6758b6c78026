//! The results of jobs: artifacts, tests, caches, workspace layers.

use super::{
    database::Transaction,
    handle::SqlStore,
    query::Query,
    record::{Record, insert, record, replace, select, upsert},
    value::ToValue,
};
use crate::{Artifact, ArtifactStore, Cache, StoreError, TestRow, WorkspaceLayer};
use async_trait::async_trait;
use towpath_types::{JobId, ProjectName, WorkflowId};

record!(Artifact in "artifacts", "artifact" by ["job", "attempt", "node", "path"] {
    job, attempt, node, path, digest, bytes,
});

record!(TestRow in "tests", "test" by ["name"] { name, classname, file, seconds, result, message });

record!(Cache in "caches", "cache" by ["project", "domain", "key"] { project, domain, key, digest, bytes });

record!(WorkspaceLayer in "workspace_layers", "layer" by ["workflow", "job", "attempt", "node", "step"] {
    workflow, job, attempt, node, step, digest, bytes,
});

/// How many tests one statement inserts.
const TESTS_AT_ONCE: usize = 100;

/// One file of results.
pub(crate) struct TestFile<'a> {
    pub(crate) project: &'a ProjectName,
    pub(crate) job: JobId,
    pub(crate) attempt: u32,
    pub(crate) node: u32,
    pub(crate) path: &'a str,
}

#[async_trait]
impl ArtifactStore for SqlStore {
    async fn artifacts(&self, job: JobId, attempt: u32) -> Result<Vec<Artifact>, StoreError> {
        let query = select::<Artifact>()
            .sql(" WHERE job = ")
            .value(&job)
            .sql(" AND attempt = ")
            .value(&attempt)
            .sql(" ORDER BY node, path");
        self.all("artifacts", query).await
    }

    async fn tests(&self, job: JobId, attempt: u32) -> Result<Vec<TestRow>, StoreError> {
        let query = Query::new(format!(
            "SELECT {} FROM test_files AS files JOIN tests ON tests.test_file = files.position WHERE files.job = ",
            names_in_tests()
        ))
        .value(&job)
        .sql(" AND files.attempt = ")
        .value(&attempt)
        .sql(" ORDER BY files.node, files.path, tests.place");
        self.all("tests", query).await
    }

    async fn recent_tests(&self, project: &ProjectName, files: u32) -> Result<Vec<TestRow>, StoreError> {
        let names = names_in_tests();
        let query = Query::new(format!(
            "SELECT {names} FROM (SELECT position FROM test_files WHERE project = "
        ))
        .value(project)
        .sql(" ORDER BY position DESC LIMIT ")
        .value(&files)
        .sql(") AS files JOIN tests ON tests.test_file = files.position ORDER BY files.position DESC, tests.place");
        self.all("recent_tests", query).await
    }

    async fn has_cache(&self, project: &ProjectName, domain: &str, key: &str) -> Result<bool, StoreError> {
        let query = Query::new("SELECT position FROM caches WHERE project = ")
            .value(project)
            .sql(" AND domain = ")
            .value(domain)
            .sql(" AND key = ")
            .value(key);
        Ok(!self.rows("has_cache", Cache::TABLE, query).await?.is_empty())
    }

    async fn find_cache(&self, project: &ProjectName, domain: &str, prefix: &str) -> Result<Option<Cache>, StoreError> {
        let query = select::<Cache>()
            .sql(" WHERE project = ")
            .value(project)
            .sql(" AND domain = ")
            .value(domain)
            .sql(" AND substr(key, 1, length(")
            .value(prefix)
            .sql(")) = ")
            .value(prefix)
            .sql(" ORDER BY position DESC LIMIT 1");
        self.one("find_cache", query).await
    }

    async fn workspace_layers(&self, workflow: WorkflowId) -> Result<Vec<WorkspaceLayer>, StoreError> {
        let query = select::<WorkspaceLayer>()
            .sql(" WHERE workflow = ")
            .value(&workflow)
            .sql(" ORDER BY job, attempt, node, step");
        self.all("workspace_layers", query).await
    }
}

fn names_in_tests() -> String {
    let names: Vec<String> = TestRow::names().iter().map(|name| format!("tests.{name}")).collect();
    names.join(", ")
}

/// Replaces an artifact of the same path, because agents resend what was not acknowledged.
pub(crate) async fn put_artifact(
    to: &mut Transaction<'_>,
    project: &ProjectName,
    row: &Artifact,
) -> Result<(), StoreError> {
    let mut columns = row.columns();
    columns.push(("project", project.to_value()));
    to.execute(upsert(Artifact::TABLE, Artifact::KEY, columns))
        .await
        .map(drop)
}

/// Stores the tests of a file, and replaces its earlier ones.
pub(crate) async fn put_tests(
    to: &mut Transaction<'_>,
    file: &TestFile<'_>,
    tests: &[TestRow],
) -> Result<(), StoreError> {
    let columns = vec![
        ("project", file.project.to_value()),
        ("job", file.job.to_value()),
        ("attempt", file.attempt.to_value()),
        ("node", file.node.to_value()),
        ("path", file.path.to_value()),
    ];
    let query = upsert("test_files", &["job", "attempt", "node", "path"], columns).sql(" RETURNING position");
    let rows = to.rows("test_files", query).await?;
    let Some(row) = rows.first() else {
        return Err(StoreError::Unreadable {
            what: format!("the file of results `{}`", file.path),
            why: "it was stored without a position".into(),
        });
    };
    let position: i64 = row.get("position")?;
    to.execute(Query::new("DELETE FROM tests WHERE test_file = ").value(&position))
        .await?;
    let mut place = 0i64;
    let names = TestRow::names().join(", ");
    for part in tests.chunks(TESTS_AT_ONCE) {
        let mut query = Query::new(format!("INSERT INTO tests (test_file, place, {names}) VALUES "));
        for (at, test) in part.iter().enumerate() {
            if at > 0 {
                query = query.sql(", ");
            }
            let columns = test.columns().into_iter().map(|(_, value)| value);
            query = query.values([position.to_value(), place.to_value()].into_iter().chain(columns));
            place += 1;
        }
        to.execute(query).await?;
    }
    Ok(())
}

/// Stores a cache; returns whether the key was free.
pub(crate) async fn add_cache(to: &mut Transaction<'_>, row: &Cache) -> Result<bool, StoreError> {
    let query = insert(Cache::TABLE, row.columns()).sql(" ON CONFLICT DO NOTHING");
    Ok(to.execute(query).await? == 1)
}

pub(crate) async fn put_layer(to: &mut Transaction<'_>, row: &WorkspaceLayer) -> Result<(), StoreError> {
    replace(to, row).await
}
