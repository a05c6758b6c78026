//! Environments.

use super::{
    database::Transaction,
    handle::SqlStore,
    query::Row,
    record::{Column, Field, Record, put, select},
    value::ToValue,
};
use crate::{EnvironmentRow, EnvironmentStore, Expect, Sighting, StoreError};
use async_trait::async_trait;
use jiff::Timestamp;
use towpath_types::{EnvironmentId, ProjectName};

/// The id is stored beside its two parts, which are used for lookups and sorting.
impl Record for EnvironmentRow {
    const TABLE: &'static str = "environments";
    const NOUN: &'static str = "environment";
    const KEY: &'static [&'static str] = &["id"];

    fn names() -> Vec<&'static str> {
        vec![
            "id",
            "kube_context",
            "namespace",
            "ambiguous",
            "listed",
            "sighting",
            "sighted_at",
            "because",
            "release",
            "seen",
            "drift",
            "drift_at",
            "version",
        ]
    }

    fn read(row: &Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.get("id")?,
            kube_context: row.get("kube_context")?,
            namespace: row.get("namespace")?,
            ambiguous: row.get("ambiguous")?,
            listed: row.get("listed")?,
            sighting: Field::read(row, "sighting")?,
            release: row.get("release")?,
            seen: row.get("seen")?,
            drift: row.get("drift")?,
            drift_at: row.get("drift_at")?,
            version: row.get("version")?,
        })
    }

    fn columns(&self) -> Vec<Column> {
        let mut columns = vec![
            ("id", self.id.to_value()),
            ("project", self.id.project().to_value()),
            ("name", self.id.environment().to_value()),
            ("kube_context", self.kube_context.to_value()),
            ("namespace", self.namespace.to_value()),
            ("ambiguous", self.ambiguous.to_value()),
            ("listed", self.listed.to_value()),
            ("release", self.release.to_value()),
            ("seen", self.seen.to_value()),
            ("drift", self.drift.to_value()),
            ("drift_at", self.drift_at.to_value()),
            ("version", self.version.to_value()),
        ];
        Field::columns(&self.sighting, "sighting", &mut columns);
        columns
    }
}

impl Field for Sighting {
    fn names(_: &'static str, names: &mut Vec<&'static str>) {
        names.extend(["sighting", "sighted_at", "because"]);
    }

    fn read(row: &Row, _: &'static str) -> Result<Self, StoreError> {
        let word: String = row.get("sighting")?;
        match word.as_str() {
            "never" => Ok(Self::Never),
            "seen" => Ok(Self::Seen {
                at: row.get("sighted_at")?,
            }),
            "unknown" => Ok(Self::Unknown {
                since: row.get("sighted_at")?,
                because: row.get("because")?,
            }),
            _ => Err(StoreError::Unreadable {
                what: format!("the column `sighting` of `{}`", row.table),
                why: format!("`{}` is not a sighting", word.escape_debug()),
            }),
        }
    }

    fn columns(&self, _: &'static str, columns: &mut Vec<Column>) {
        let (word, at, because): (_, Option<Timestamp>, Option<String>) = match self {
            Self::Never => ("never", None, None),
            Self::Seen { at } => ("seen", Some(*at), None),
            Self::Unknown { since, because } => ("unknown", Some(*since), Some(because.clone())),
        };
        columns.push(("sighting", word.to_value()));
        columns.push(("sighted_at", at.to_value()));
        columns.push(("because", because.to_value()));
    }
}

#[async_trait]
impl EnvironmentStore for SqlStore {
    async fn environment(&self, id: &EnvironmentId) -> Result<Option<EnvironmentRow>, StoreError> {
        let query = select::<EnvironmentRow>().sql(" WHERE id = ").value(id);
        self.one("environment", query).await
    }

    async fn environments(&self, project: Option<&ProjectName>) -> Result<Vec<EnvironmentRow>, StoreError> {
        let mut query = select::<EnvironmentRow>();
        if let Some(project) = project {
            query = query.sql(" WHERE project = ").value(project);
        }
        self.all("environments", query.sql(" ORDER BY project, name")).await
    }
}

pub(crate) async fn put_environment(
    to: &mut Transaction<'_>,
    row: &EnvironmentRow,
    expect: Expect,
) -> Result<(), StoreError> {
    put(to, row, expect, &[]).await
}
