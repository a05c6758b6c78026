//! Workflows and streams of events.

use super::{
    database::Transaction,
    handle::SqlStore,
    query::Query,
    record::{put, record, select},
    value::ToValue,
};
use crate::{EventRow, Expect, StoreError, WorkflowRow, WorkflowStore};
use async_trait::async_trait;
use serde_json::Value as Json;
use std::collections::HashMap;
use towpath_types::{PipelineId, WorkflowId};

record!(WorkflowRow in "workflows", "workflow" by ["id"] {
    id, pipeline, pipeline_number, project, position, name, status, branch, tag, commit = "commit_id", message,
    created_at, stopped_at, version,
});

record!(EventRow in "events", "event" by ["sequence"] { sequence, event });

/// How many events one statement inserts.
const EVENTS_AT_ONCE: usize = 100;

#[async_trait]
impl WorkflowStore for SqlStore {
    async fn workflow(&self, id: WorkflowId) -> Result<Option<WorkflowRow>, StoreError> {
        let query = select::<WorkflowRow>().sql(" WHERE id = ").value(&id);
        self.one("workflow", query).await
    }

    async fn workflows_of(&self, pipelines: &[PipelineId]) -> Result<Vec<WorkflowRow>, StoreError> {
        let query = select::<WorkflowRow>()
            .sql(" WHERE pipeline IN ")
            .list(pipelines.iter().map(ToValue::to_value));
        let mut rows: Vec<WorkflowRow> = self.all("workflows_of", query).await?;
        let order: HashMap<_, _> = pipelines.iter().zip(0..).collect::<HashMap<_, usize>>();
        rows.sort_by_key(|row| (order.get(&row.pipeline).copied(), row.position));
        Ok(rows)
    }

    async fn unfinished_workflows(&self) -> Result<Vec<WorkflowRow>, StoreError> {
        let query =
            select::<WorkflowRow>().sql(" WHERE status IN ('running', 'failing', 'on_hold') ORDER BY created_at, id");
        self.all("unfinished_workflows", query).await
    }

    async fn events(&self, stream: &str, from: u64) -> Result<Vec<EventRow>, StoreError> {
        let query = select::<EventRow>()
            .sql(" WHERE stream = ")
            .value(stream)
            .sql(" AND sequence >= ")
            .value(&from)
            .sql(" ORDER BY sequence");
        self.all("events", query).await
    }
}

pub(crate) async fn put_workflow(
    to: &mut Transaction<'_>,
    row: &WorkflowRow,
    expect: Expect,
) -> Result<(), StoreError> {
    put(to, row, expect, &[]).await
}

/// Appends events to a stream of exactly `expected` events.
pub(crate) async fn append(
    to: &mut Transaction<'_>,
    stream: &str,
    expected: u64,
    events: &[Json],
) -> Result<(), StoreError> {
    let conflict = || StoreError::Conflict {
        what: format!("the stream `{stream}`"),
    };
    let query = Query::new("SELECT coalesce(max(sequence) + 1, 0) AS length FROM events WHERE stream = ").value(stream);
    let length: u64 = match to.rows("events", query).await?.first() {
        Some(row) => row.get("length")?,
        None => 0,
    };
    if length != expected {
        return Err(conflict());
    }
    let mut sequence = expected;
    for part in events.chunks(EVENTS_AT_ONCE) {
        let mut query = Query::new("INSERT INTO events (stream, sequence, event) VALUES ");
        for (at, event) in part.iter().enumerate() {
            if at > 0 {
                query = query.sql(", ");
            }
            query = query.values([stream.to_value(), sequence.to_value(), event.to_value()]);
            sequence += 1;
        }
        // If another server appends at the same time, the primary key decides.
        if to.execute(query.sql(" ON CONFLICT DO NOTHING")).await? != part.len() as u64 {
            return Err(conflict());
        }
    }
    Ok(())
}
