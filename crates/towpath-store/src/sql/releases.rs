//! Releases, runs of one-off jobs, and pushed images.

use super::{
    counters::{self, Counter},
    database::Transaction,
    handle::SqlStore,
    query::Row,
    record::{Column, Record, insert, put, record, select},
    value::ToValue,
};
use crate::{Expect, ImagePush, ReleaseRow, ReleaseStore, RunRow, StoreError};
use async_trait::async_trait;
use towpath_types::{EnvironmentId, ImageReference, JobId, ReleaseId, ReleaseStatus, RunId, WorkflowId};

record!(ReleaseRow in "releases", "release" by ["id"] {
    id, environment, number, status, outcome, images, commit = "commit_id", actor, cause, plan, parent, job,
    created_at, stopped_at, message, repeats, repeated_at, version,
});

record!(RunRow in "runs", "run" by ["id"] {
    id, environment, kind, name, object, image, actor, outcome, exit_code, message, created_at, stopped_at, version,
});

/// Its image takes four columns.
impl Record for ImagePush {
    const TABLE: &'static str = "image_pushes";
    const NOUN: &'static str = "push";
    const KEY: &'static [&'static str] = &["workflow", "repository", "tag"];

    fn names() -> Vec<&'static str> {
        vec![
            "project",
            "workflow",
            "registry",
            "repository",
            "tag",
            "digest",
            "pushed_at",
        ]
    }

    fn read(row: &Row) -> Result<Self, StoreError> {
        Ok(Self {
            project: row.get("project")?,
            workflow: row.get("workflow")?,
            image: ImageReference {
                registry: row.get("registry")?,
                repository: row.get("repository")?,
                tag: row.get("tag")?,
                digest: row.get("digest")?,
            },
            at: row.get("pushed_at")?,
        })
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            ("project", self.project.to_value()),
            ("workflow", self.workflow.to_value()),
            ("registry", self.image.registry.to_value()),
            ("repository", self.image.repository.to_value()),
            ("tag", self.image.tag.to_value()),
            ("digest", self.image.digest.to_value()),
            ("pushed_at", self.at.to_value()),
        ]
    }
}

/// The statuses of open releases. An index uses the same list.
const OPEN: &str = "status IN ('planned', 'approved', 'applying', 'watching', 'rolling_back')";

#[async_trait]
impl ReleaseStore for SqlStore {
    async fn release(&self, id: ReleaseId) -> Result<Option<ReleaseRow>, StoreError> {
        let query = select::<ReleaseRow>().sql(" WHERE id = ").value(&id);
        self.one("release", query).await
    }

    async fn releases(&self, environment: &EnvironmentId, limit: u32) -> Result<Vec<ReleaseRow>, StoreError> {
        let query = select::<ReleaseRow>()
            .sql(" WHERE environment = ")
            .value(environment)
            .sql(" ORDER BY number DESC, id DESC LIMIT ")
            .value(&limit);
        self.all("releases", query).await
    }

    async fn last_release(
        &self,
        environment: &EnvironmentId,
        statuses: &[ReleaseStatus],
    ) -> Result<Option<ReleaseRow>, StoreError> {
        let mut query = select::<ReleaseRow>().sql(" WHERE environment = ").value(environment);
        if !statuses.is_empty() {
            query = query
                .sql(" AND status IN ")
                .list(statuses.iter().map(ToValue::to_value));
        }
        query = query.sql(" ORDER BY number DESC, id DESC LIMIT 1");
        self.one("last_release", query).await
    }

    async fn open_releases(&self) -> Result<Vec<ReleaseRow>, StoreError> {
        let query = select::<ReleaseRow>().sql(&format!(" WHERE {OPEN} ORDER BY created_at, id"));
        self.all("open_releases", query).await
    }

    async fn release_of_job(&self, job: JobId, environment: &EnvironmentId) -> Result<Option<ReleaseRow>, StoreError> {
        let query = select::<ReleaseRow>()
            .sql(" WHERE job = ")
            .value(&job)
            .sql(" AND environment = ")
            .value(environment)
            .sql(" ORDER BY number DESC, id DESC LIMIT 1");
        self.one("release_of_job", query).await
    }

    async fn run(&self, id: RunId) -> Result<Option<RunRow>, StoreError> {
        let query = select::<RunRow>().sql(" WHERE id = ").value(&id);
        self.one("run", query).await
    }

    async fn runs(&self, environment: &EnvironmentId, limit: u32) -> Result<Vec<RunRow>, StoreError> {
        let query = select::<RunRow>()
            .sql(" WHERE environment = ")
            .value(environment)
            .sql(" ORDER BY created_at DESC, id DESC LIMIT ")
            .value(&limit);
        self.all("runs", query).await
    }

    async fn pushes_of(&self, workflow: WorkflowId) -> Result<Vec<ImagePush>, StoreError> {
        let query = select::<ImagePush>()
            .sql(" WHERE workflow = ")
            .value(&workflow)
            .sql(" ORDER BY pushed_at, position");
        self.all("pushes_of", query).await
    }

    async fn last_push(&self, repository: &str, tag: &str) -> Result<Option<ImagePush>, StoreError> {
        let query = select::<ImagePush>()
            .sql(" WHERE repository = ")
            .value(repository)
            .sql(" AND tag = ")
            .value(tag)
            .sql(" ORDER BY pushed_at DESC, position DESC LIMIT 1");
        self.one("last_push", query).await
    }
}

/// Returns the release's number if the release is new.
pub(crate) async fn put_release(
    to: &mut Transaction<'_>,
    row: &ReleaseRow,
    expect: Expect,
) -> Result<Option<i64>, StoreError> {
    let slug = row.environment.slug();
    match expect {
        Expect::Absent => {
            let number = counters::number(to, Counter::Releases(&slug), row.number).await?;
            let row = ReleaseRow { number, ..row.clone() };
            put(to, &row, expect, &[]).await?;
            Ok(Some(number))
        }
        // The writer does not know the number.
        Expect::Version(_) if row.number == 0 => {
            put(to, row, expect, &["number"]).await?;
            Ok(None)
        }
        Expect::Version(_) => {
            // An environment may have recorded it under another number.
            counters::raise(to, Counter::Releases(&slug), row.number).await?;
            put(to, row, expect, &[]).await?;
            Ok(None)
        }
    }
}

pub(crate) async fn put_run(to: &mut Transaction<'_>, row: &RunRow, expect: Expect) -> Result<(), StoreError> {
    put(to, row, expect, &[]).await
}

/// Adds a push. Pushing a tag again adds another one, because the first image under a tag has to stay known.
pub(crate) async fn put_push(to: &mut Transaction<'_>, row: &ImagePush) -> Result<(), StoreError> {
    to.execute(insert(ImagePush::TABLE, row.columns())).await.map(drop)
}
