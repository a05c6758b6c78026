//! Gates and plans.

use super::{
    database::Transaction,
    handle::SqlStore,
    query::Query,
    record::{Record, insert, put, record, select},
};
use crate::{Expect, GateRow, GateStore, PlanRow, StoreError};
use async_trait::async_trait;
use towpath_types::{Digest, EnvironmentId, JobId, ProjectName};

record!(GateRow in "gates", "gate" by ["job"] {
    job, workflow, workflow_name, pipeline, pipeline_number, project, name, branch, tag, commit = "commit_id", subject,
    environment, waiting, plan, plan_error, as_of, approved_by, created_at, version,
});

record!(PlanRow in "plans", "plan" by ["digest"] { digest, environment, created_at, plan });

#[async_trait]
impl GateStore for SqlStore {
    async fn gate(&self, job: JobId) -> Result<Option<GateRow>, StoreError> {
        let query = select::<GateRow>().sql(" WHERE job = ").value(&job);
        self.one("gate", query).await
    }

    async fn waiting_gates(
        &self,
        project: Option<&ProjectName>,
        offset: u32,
        limit: u32,
    ) -> Result<Vec<GateRow>, StoreError> {
        let mut query = select::<GateRow>().sql(" WHERE waiting = 1");
        if let Some(project) = project {
            query = query.sql(" AND project = ").value(project);
        }
        query = query
            .sql(" ORDER BY created_at, job LIMIT ")
            .value(&limit)
            .sql(" OFFSET ")
            .value(&offset);
        self.all("waiting_gates", query).await
    }

    async fn count_waiting_gates(&self) -> Result<u64, StoreError> {
        let query = Query::new("SELECT count(*) AS gates FROM gates WHERE waiting = 1");
        match self.rows("count_waiting_gates", GateRow::TABLE, query).await?.first() {
            Some(row) => row.get("gates"),
            None => Ok(0),
        }
    }

    async fn gates_of(&self, environment: &EnvironmentId) -> Result<Vec<GateRow>, StoreError> {
        let query = select::<GateRow>()
            .sql(" WHERE waiting = 1 AND environment = ")
            .value(environment)
            .sql(" ORDER BY created_at, job");
        self.all("gates_of", query).await
    }

    async fn plan(&self, digest: &Digest) -> Result<Option<PlanRow>, StoreError> {
        let query = select::<PlanRow>().sql(" WHERE digest = ").value(digest);
        self.one("plan", query).await
    }
}

pub(crate) async fn put_gate(to: &mut Transaction<'_>, row: &GateRow, expect: Expect) -> Result<(), StoreError> {
    put(to, row, expect, &[]).await
}

/// A plan is named by its content, so one that is there already is the same.
pub(crate) async fn keep_plan(to: &mut Transaction<'_>, row: &PlanRow) -> Result<(), StoreError> {
    let query = insert(PlanRow::TABLE, row.columns()).sql(" ON CONFLICT DO NOTHING");
    to.execute(query).await.map(drop)
}
