//! Jobs, their nodes and their steps.

use super::{
    counters::{self, Counter},
    database::Transaction,
    handle::SqlStore,
    query::Query,
    record::{Record, add, put, record, replace, select},
    value::ToValue,
};
use crate::{Expect, JobRow, JobSpecRow, JobStore, NodeRow, StepRow, StoreError};
use async_trait::async_trait;
use std::collections::HashMap;
use towpath_types::{JobId, ProjectName, WorkflowId};

record!(JobRow in "jobs", "job" by ["id"] {
    id, workflow, pipeline, project, position, number, name, kind, status, requires, nodes, cpu_millis, memory_bytes, attempt,
    environment, queued_at, started_at, stopped_at, message, approved_by, stop_requested, engine, image, version,
});

record!(JobSpecRow in "job_specs", "specification of job" by ["job"] { job, spec });

record!(NodeRow in "nodes", "node" by ["job", "attempt", "node"] counted in "reports" {
    job, attempt, node, reports, outcome, message, stopped_at,
});

record!(StepRow in "steps", "step" by ["job", "attempt", "node", "step"] {
    job, attempt, node, step, name, status, exit_code, message, started_at, stopped_at,
});

#[async_trait]
impl JobStore for SqlStore {
    async fn job(&self, id: JobId) -> Result<Option<JobRow>, StoreError> {
        let query = select::<JobRow>().sql(" WHERE id = ").value(&id);
        self.one("job", query).await
    }

    async fn job_by_number(&self, project: &ProjectName, number: i64) -> Result<Option<JobRow>, StoreError> {
        let query = select::<JobRow>()
            .sql(" WHERE project = ")
            .value(project)
            .sql(" AND number = ")
            .value(&number);
        self.one("job_by_number", query).await
    }

    async fn jobs_of(&self, workflows: &[WorkflowId]) -> Result<Vec<JobRow>, StoreError> {
        let query = select::<JobRow>()
            .sql(" WHERE workflow IN ")
            .list(workflows.iter().map(ToValue::to_value));
        let mut rows: Vec<JobRow> = self.all("jobs_of", query).await?;
        let order: HashMap<_, _> = workflows.iter().zip(0..).collect::<HashMap<_, usize>>();
        rows.sort_by_key(|row| (order.get(&row.workflow).copied(), row.position));
        Ok(rows)
    }

    async fn active_jobs(&self) -> Result<Vec<JobRow>, StoreError> {
        let query = select::<JobRow>().sql(" WHERE status IN ('claimed', 'running') ORDER BY id");
        let mut rows: Vec<JobRow> = self.all("active_jobs", query).await?;
        rows.sort_by_key(|row| (row.queued_at, row.id));
        Ok(rows)
    }

    async fn job_spec(&self, id: JobId) -> Result<Option<JobSpecRow>, StoreError> {
        let query = select::<JobSpecRow>().sql(" WHERE job = ").value(&id);
        self.one("job_spec", query).await
    }

    async fn nodes(&self, job: JobId, attempt: u32) -> Result<Vec<NodeRow>, StoreError> {
        let query = of_attempt::<NodeRow>(job, attempt).sql(" ORDER BY node");
        self.all("nodes", query).await
    }

    async fn steps(&self, job: JobId, attempt: u32) -> Result<Vec<StepRow>, StoreError> {
        let query = of_attempt::<StepRow>(job, attempt).sql(" ORDER BY node, step");
        self.all("steps", query).await
    }
}

fn of_attempt<R: Record>(job: JobId, attempt: u32) -> Query {
    select::<R>()
        .sql(" WHERE job = ")
        .value(&job)
        .sql(" AND attempt = ")
        .value(&attempt)
}

pub(crate) async fn put_job(to: &mut Transaction<'_>, row: &JobRow, expect: Expect) -> Result<(), StoreError> {
    if let (Expect::Absent, Some(number)) = (expect, row.number) {
        counters::raise(to, Counter::Jobs(row.project.as_str()), number).await?;
    }
    put(to, row, expect, &["number"]).await
}

pub(crate) async fn add_spec(to: &mut Transaction<'_>, row: &JobSpecRow) -> Result<(), StoreError> {
    add(to, row, row.columns()).await
}

/// Returns an error when the attempt has ended or is to stop.
pub(crate) async fn check_goes_on(to: &mut Transaction<'_>, job: JobId, attempt: u32) -> Result<(), StoreError> {
    let lock = to.dialect().for_update();
    let query = select::<JobRow>().sql(" WHERE id = ").value(&job).sql(lock);
    let rows = to.rows(JobRow::TABLE, query).await?;
    let row = rows.first().map(JobRow::read).transpose()?;
    match row.is_some_and(|row| row.goes_on(attempt)) {
        true => Ok(()),
        false => Err(StoreError::Conflict {
            what: format!("attempt {attempt} of the job `{job}`"),
        }),
    }
}

/// Returns the number that the job took; `None` if it already had one.
pub(crate) async fn number_job(to: &mut Transaction<'_>, job: JobId) -> Result<Option<i64>, StoreError> {
    let lock = to.dialect().for_update();
    let query = Query::new("SELECT project, number FROM jobs WHERE id = ")
        .value(&job)
        .sql(lock);
    let rows = to.rows("jobs", query).await?;
    let Some(row) = rows.first() else {
        return Err(StoreError::Conflict {
            what: format!("the job `{job}`"),
        });
    };
    if row.get::<Option<i64>>("number")?.is_some() {
        return Ok(None);
    }
    let project: ProjectName = row.get("project")?;
    let number = counters::take(to, Counter::Jobs(project.as_str())).await?;
    let query = Query::new("UPDATE jobs SET number = ")
        .value(&number)
        .sql(" WHERE id = ")
        .value(&job);
    to.execute(query).await?;
    Ok(Some(number))
}

pub(crate) async fn put_node(to: &mut Transaction<'_>, row: &NodeRow, expect: Expect) -> Result<(), StoreError> {
    put(to, row, expect, &[]).await
}

pub(crate) async fn put_step(to: &mut Transaction<'_>, row: &StepRow) -> Result<(), StoreError> {
    replace(to, row).await
}
