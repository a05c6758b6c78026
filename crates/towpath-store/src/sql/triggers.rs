//! Triggers and handled refs.

use super::{
    counters::{self, Counter},
    database::Transaction,
    handle::SqlStore,
    query::{Query, Row},
    record::{Column, Field, Record as _, insert, put, record, select},
    value::ToValue,
};
use crate::{Expect, HandledRef, StoreError, TriggerKind, TriggerRow, TriggerStore};
use async_trait::async_trait;
use towpath_types::{ProjectName, TriggerId};

record!(TriggerRow in "triggers", "trigger" by ["id"] {
    id, project, kind, branch, tag, commit = "commit_id", parameters, actor, pipeline, number, status, reason,
    created_at, version,
});

record!(HandledRef in "handled_refs", "handled ref" by ["project", "name"] {
    project, name, commit = "commit_id", number,
});

/// The condition for open triggers. An index uses the same statuses.
const OPEN: &str = " WHERE status IN ('announced', 'received') ORDER BY created_at, id";

impl Field for TriggerKind {
    fn names(_: &'static str, names: &mut Vec<&'static str>) {
        names.extend(["kind", "ref_name"]);
    }

    fn read(row: &Row, _: &'static str) -> Result<Self, StoreError> {
        let kind: String = row.get("kind")?;
        match kind.as_str() {
            "push" => Ok(Self::Push {
                ref_name: row.get("ref_name")?,
            }),
            "api" => Ok(Self::Api),
            "schedule" => Ok(Self::Schedule),
            _ => Err(StoreError::Unreadable {
                what: format!("the column `kind` of `{}`", row.table),
                why: format!("`{}` is not a kind of trigger", kind.escape_debug()),
            }),
        }
    }

    fn columns(&self, _: &'static str, columns: &mut Vec<Column>) {
        let (kind, ref_name) = match self {
            Self::Push { ref_name } => ("push", Some(ref_name.clone())),
            Self::Api => ("api", None),
            Self::Schedule => ("schedule", None),
        };
        columns.push(("kind", kind.to_value()));
        columns.push(("ref_name", ref_name.to_value()));
    }
}

#[async_trait]
impl TriggerStore for SqlStore {
    async fn trigger(&self, id: TriggerId) -> Result<Option<TriggerRow>, StoreError> {
        let query = select::<TriggerRow>().sql(" WHERE id = ").value(&id);
        self.one("trigger", query).await
    }

    async fn open_triggers(&self) -> Result<Vec<TriggerRow>, StoreError> {
        self.all("open_triggers", select::<TriggerRow>().sql(OPEN)).await
    }

    async fn handled_refs(&self, project: &ProjectName) -> Result<Vec<HandledRef>, StoreError> {
        let query = select::<HandledRef>()
            .sql(" WHERE project = ")
            .value(project)
            .sql(" ORDER BY name");
        self.all("handled_refs", query).await
    }
}

/// Returns the pipeline's number if the row is new.
pub(crate) async fn put_trigger(
    to: &mut Transaction<'_>,
    row: &TriggerRow,
    expect: Expect,
) -> Result<Option<i64>, StoreError> {
    match expect {
        Expect::Absent => {
            let number = counters::number(to, Counter::Pipelines(row.project.as_str()), row.number).await?;
            let row = TriggerRow { number, ..row.clone() };
            put(to, &row, expect, &[]).await?;
            Ok(Some(number))
        }
        Expect::Version(_) => {
            put(to, row, expect, &["number"]).await?;
            Ok(None)
        }
    }
}

pub(crate) async fn put_handled_ref(to: &mut Transaction<'_>, row: &HandledRef) -> Result<(), StoreError> {
    if row.commit.is_some() {
        let newer = " DO UPDATE SET commit_id = excluded.commit_id, number = \
                     CASE WHEN excluded.number = 0 THEN handled_refs.number ELSE excluded.number END \
                     WHERE excluded.number = 0 OR excluded.number >= handled_refs.number";
        let query = insert(HandledRef::TABLE, row.columns())
            .sql(" ON CONFLICT (project, name)")
            .sql(newer);
        return to.execute(query).await.map(drop);
    }
    let query = Query::new("DELETE FROM handled_refs WHERE project = ")
        .value(&row.project)
        .sql(" AND name = ")
        .value(&row.name);
    to.execute(query).await.map(drop)
}
