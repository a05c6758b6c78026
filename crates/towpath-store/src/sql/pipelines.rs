//! Projects and pipelines.

use super::{
    database::Transaction,
    handle::SqlStore,
    record::Record,
    record::{add, put, record, select},
};
use crate::{Expect, PipelineConfig, PipelineRow, PipelineStore, ProjectRow, StoreError};
use async_trait::async_trait;
use towpath_types::{PipelineId, ProjectName};

record!(ProjectRow in "projects", "project" by ["name"] { name, default_branch, head, created_at, version });

record!(PipelineRow in "pipelines", "pipeline" by ["id"] {
    id, trigger, project, number, branch, tag, commit = "commit_id", subject, author, status, diagnostics, actor,
    created_at, version,
});

record!(PipelineConfig in "pipeline_configs", "configuration of pipeline" by ["pipeline"] {
    pipeline, source, processed, project_file,
});

#[async_trait]
impl PipelineStore for SqlStore {
    async fn project(&self, name: &ProjectName) -> Result<Option<ProjectRow>, StoreError> {
        let query = select::<ProjectRow>().sql(" WHERE name = ").value(name);
        self.one("project", query).await
    }

    async fn projects(&self) -> Result<Vec<ProjectRow>, StoreError> {
        self.all("projects", select::<ProjectRow>().sql(" ORDER BY name")).await
    }

    async fn pipeline(&self, id: PipelineId) -> Result<Option<PipelineRow>, StoreError> {
        let query = select::<PipelineRow>().sql(" WHERE id = ").value(&id);
        self.one("pipeline", query).await
    }

    async fn pipeline_by_number(&self, project: &ProjectName, number: i64) -> Result<Option<PipelineRow>, StoreError> {
        let query = select::<PipelineRow>()
            .sql(" WHERE project = ")
            .value(project)
            .sql(" AND number = ")
            .value(&number);
        self.one("pipeline_by_number", query).await
    }

    async fn pipelines(
        &self,
        project: Option<&ProjectName>,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<PipelineRow>, StoreError> {
        let mut query = select::<PipelineRow>()
            .sql(" WHERE number < ")
            .value(&before.unwrap_or(i64::MAX));
        query = match project {
            Some(project) => query.sql(" AND project = ").value(project).sql(" ORDER BY number DESC"),
            None => query.sql(" ORDER BY created_at DESC, id DESC"),
        };
        self.all("pipelines", query.sql(" LIMIT ").value(&limit)).await
    }

    async fn pipeline_config(&self, id: PipelineId) -> Result<Option<PipelineConfig>, StoreError> {
        let query = select::<PipelineConfig>().sql(" WHERE pipeline = ").value(&id);
        self.one("pipeline_config", query).await
    }
}

pub(crate) async fn put_project(to: &mut Transaction<'_>, row: &ProjectRow, expect: Expect) -> Result<(), StoreError> {
    put(to, row, expect, &[]).await
}

pub(crate) async fn put_pipeline(
    to: &mut Transaction<'_>,
    row: &PipelineRow,
    expect: Expect,
) -> Result<(), StoreError> {
    put(to, row, expect, &["number"]).await
}

pub(crate) async fn add_config(to: &mut Transaction<'_>, row: &PipelineConfig) -> Result<(), StoreError> {
    add(to, row, row.columns()).await
}
