//! Row types and the columns of their tables.

use super::{
    database::Transaction,
    query::{Query, Row},
    value::{Stored, ToValue, Value},
};
use crate::{Expect, StoreError};
use towpath_types::Actor;

/// A column with its value.
pub(crate) type Column = (&'static str, Value);

/// A row type that has a table.
pub(crate) trait Record: Sized {
    const TABLE: &'static str;
    /// What one row is called in messages.
    const NOUN: &'static str;
    /// The columns that name one row.
    const KEY: &'static [&'static str];
    /// The column that counts its changes; not every table has one.
    const VERSION: &'static str = "version";

    fn names() -> Vec<&'static str>;
    fn read(row: &Row) -> Result<Self, StoreError>;
    fn columns(&self) -> Vec<Column>;

    /// `the job 0190…`.
    fn what(&self) -> String {
        let columns = self.columns();
        let key: Vec<String> = Self::KEY
            .iter()
            .filter_map(|name| columns.iter().find(|column| column.0 == *name))
            .map(|(_, value)| match value {
                Value::Text(text) => text.clone().unwrap_or_default(),
                Value::Int(number) => number.unwrap_or_default().to_string(),
                Value::Real(number) => number.unwrap_or_default().to_string(),
            })
            .collect();
        format!("the {} `{}`", Self::NOUN, key.join("/"))
    }

    fn conflict(&self) -> StoreError {
        StoreError::Conflict { what: self.what() }
    }
}

/// A field of a row type: one column, or several.
pub(crate) trait Field: Sized {
    fn names(name: &'static str, names: &mut Vec<&'static str>);
    fn read(row: &Row, name: &'static str) -> Result<Self, StoreError>;
    fn columns(&self, name: &'static str, columns: &mut Vec<Column>);
}

impl<T: Stored> Field for T {
    fn names(name: &'static str, names: &mut Vec<&'static str>) {
        names.push(name);
    }

    fn read(row: &Row, name: &'static str) -> Result<Self, StoreError> {
        row.get(name)
    }

    fn columns(&self, name: &'static str, columns: &mut Vec<Column>) {
        columns.push((name, self.to_value()));
    }
}

/// An actor always uses the same three columns.
impl Field for Actor {
    fn names(_: &'static str, names: &mut Vec<&'static str>) {
        names.extend(["actor", "actor_via", "actor_right"]);
    }

    fn read(row: &Row, _: &'static str) -> Result<Self, StoreError> {
        Ok(Self {
            name: row.get("actor")?,
            via: row.get("actor_via")?,
            right: row.get("actor_right")?,
        })
    }

    fn columns(&self, _: &'static str, columns: &mut Vec<Column>) {
        columns.push(("actor", self.name.to_value()));
        columns.push(("actor_via", self.via.to_value()));
        columns.push(("actor_right", self.right.to_value()));
    }
}

/// Names the columns of the type of the field that `_of` leads to.
pub(crate) fn field_names<R, T: Field>(_of: fn(&R) -> &T, name: &'static str, names: &mut Vec<&'static str>) {
    T::names(name, names);
}

/// Implements [`Record`] for a struct whose fields are its columns: `field` or `field = "column"`.
macro_rules! record {
    ($row:ident in $table:literal, $noun:literal by [$($key:literal),+] $(counted in $version:literal)? {
        $($field:ident $(= $column:literal)?),+ $(,)?
    }) => {
        impl $crate::sql::record::Record for $row {
            const TABLE: &'static str = $table;
            const NOUN: &'static str = $noun;
            const KEY: &'static [&'static str] = &[$($key),+];
            $(const VERSION: &'static str = $version;)?

            fn names() -> Vec<&'static str> {
                let mut names = Vec::new();
                $($crate::sql::record::field_names(
                    |row: &Self| &row.$field,
                    $crate::sql::record::column!($field $(= $column)?),
                    &mut names,
                );)+
                names
            }

            fn read(row: &$crate::sql::query::Row) -> Result<Self, $crate::StoreError> {
                Ok(Self {
                    $($field: $crate::sql::record::Field::read(
                        row,
                        $crate::sql::record::column!($field $(= $column)?),
                    )?,)+
                })
            }

            fn columns(&self) -> Vec<$crate::sql::record::Column> {
                let mut columns = Vec::new();
                $($crate::sql::record::Field::columns(
                    &self.$field,
                    $crate::sql::record::column!($field $(= $column)?),
                    &mut columns,
                );)+
                columns
            }
        }
    };
}

macro_rules! column {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident = $column:literal) => {
        $column
    };
}

pub(crate) use {column, record};

/// `SELECT … FROM …` of all columns.
pub(crate) fn select<R: Record>() -> Query {
    Query::new(format!("SELECT {} FROM {}", R::names().join(", "), R::TABLE))
}

/// `INSERT INTO … VALUES (…)`.
pub(crate) fn insert(table: &str, columns: Vec<Column>) -> Query {
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    Query::new(format!("INSERT INTO {table} ({}) VALUES ", names.join(", ")))
        .values(columns.into_iter().map(|(_, value)| value))
}

/// An insert that replaces the row of the same key.
pub(crate) fn upsert(table: &str, key: &[&str], columns: Vec<Column>) -> Query {
    let changed: Vec<String> = columns
        .iter()
        .filter(|(name, _)| !key.contains(name))
        .map(|(name, _)| format!("{name} = excluded.{name}"))
        .collect();
    let then = if changed.is_empty() {
        "NOTHING".to_string()
    } else {
        format!("UPDATE SET {}", changed.join(", "))
    };
    insert(table, columns).sql(&format!(" ON CONFLICT ({}) DO {then}", key.join(", ")))
}

/// Appends ` WHERE a = $1 AND b = $2`.
pub(crate) fn where_all(mut query: Query, columns: &[Column]) -> Query {
    for (at, (name, value)) in columns.iter().enumerate() {
        query = query
            .sql(if at == 0 { " WHERE " } else { " AND " })
            .sql(name)
            .sql(" = ");
        query = query.value(value);
    }
    query
}

impl ToValue for Value {
    fn to_value(&self) -> Value {
        self.clone()
    }
}

/// Inserts a row that must not be there.
pub(crate) async fn add<R: Record>(to: &mut Transaction<'_>, row: &R, columns: Vec<Column>) -> Result<(), StoreError> {
    let inserted = to
        .execute(insert(R::TABLE, columns).sql(" ON CONFLICT DO NOTHING"))
        .await?;
    if inserted == 1 { Ok(()) } else { Err(row.conflict()) }
}

/// Inserts or updates a row as `expect` says, and counts its version. An update leaves the columns `kept` as they are.
pub(crate) async fn put<R: Record>(
    to: &mut Transaction<'_>,
    row: &R,
    expect: Expect,
    kept: &[&str],
) -> Result<(), StoreError> {
    let mut columns = row.columns();
    columns.retain(|(name, _)| *name != R::VERSION);
    match expect {
        Expect::Absent => {
            columns.push((R::VERSION, 1i64.to_value()));
            add(to, row, columns).await
        }
        Expect::Version(version) => {
            let (mut key, changed): (Vec<_>, Vec<_>) = columns.into_iter().partition(|(name, _)| R::KEY.contains(name));
            let counted = format!("UPDATE {} SET {v} = {v} + 1", R::TABLE, v = R::VERSION);
            let mut query = Query::new(counted);
            for (name, value) in changed.iter().filter(|(name, _)| !kept.contains(name)) {
                query = query.sql(", ").sql(name).sql(" = ").value(value);
            }
            key.push((R::VERSION, version.to_value()));
            if to.execute(where_all(query, &key)).await? == 1 {
                Ok(())
            } else {
                Err(row.conflict())
            }
        }
    }
}

/// Inserts a row, or replaces the one of the same key.
pub(crate) async fn replace<R: Record>(to: &mut Transaction<'_>, row: &R) -> Result<(), StoreError> {
    to.execute(upsert(R::TABLE, R::KEY, row.columns())).await.map(drop)
}
