//! SQL with its values, and the rows that come back.

use super::value::{Stored, ToValue, Value};
use crate::StoreError;
use sqlx::{Row as _, postgres::PgRow, sqlite::SqliteRow};

/// A statement with its values. It numbers the placeholders itself.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    pub(crate) sql: String,
    pub(crate) values: Vec<Value>,
}

impl Query {
    pub(crate) fn new(sql: impl Into<String>) -> Self {
        Self {
            sql: sql.into(),
            values: Vec::new(),
        }
    }

    /// Appends SQL.
    pub(crate) fn sql(mut self, sql: &str) -> Self {
        self.sql.push_str(sql);
        self
    }

    /// Appends a placeholder for `value`. Both databases take `$1`.
    pub(crate) fn value(mut self, value: &(impl ToValue + ?Sized)) -> Self {
        self.push(value.to_value());
        self
    }

    /// Appends `(…, …)` for an `IN`. Repeats the last value up to a power of two, so that lists of many lengths share a
    /// few prepared statements.
    pub(crate) fn list(mut self, values: impl IntoIterator<Item = Value>) -> Self {
        let mut values: Vec<Value> = values.into_iter().collect();
        let Some(last) = values.last().cloned() else {
            self.sql.push_str("(NULL)");
            return self;
        };
        values.resize(values.len().next_power_of_two(), last);
        self.values(values)
    }

    /// Appends `($1, $2, …)`.
    pub(crate) fn values(mut self, values: impl IntoIterator<Item = Value>) -> Self {
        self.sql.push('(');
        for (at, value) in values.into_iter().enumerate() {
            if at > 0 {
                self.sql.push_str(", ");
            }
            self.push(value);
        }
        self.sql.push(')');
        self
    }

    fn push(&mut self, value: Value) {
        self.values.push(value);
        self.sql.push('$');
        self.sql.push_str(&self.values.len().to_string());
    }
}

/// A row of either database.
pub(crate) struct Row {
    /// For errors.
    pub(crate) table: &'static str,
    pub(crate) columns: Columns,
}

pub(crate) enum Columns {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Row {
    /// Reads a column by its name.
    ///
    /// # Errors
    /// [`StoreError::Unreadable`], with the table and the column.
    pub(crate) fn get<T: Stored>(&self, column: &str) -> Result<T, StoreError> {
        let value = match T::NULL {
            Value::Text(_) => self.raw(column).map(Value::Text),
            Value::Int(_) => self.raw(column).map(Value::Int),
            Value::Real(_) => self.raw(column).map(Value::Real),
        };
        value.and_then(T::from_value).map_err(|why| StoreError::Unreadable {
            what: format!("the column `{column}` of `{}`", self.table),
            why,
        })
    }

    fn raw<T>(&self, column: &str) -> Result<Option<T>, String>
    where
        T: for<'r> sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
        T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        match &self.columns {
            Columns::Sqlite(row) => row.try_get(column),
            Columns::Postgres(row) => row.try_get(column),
        }
        .map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_counted() {
        let query = Query::new("a = ")
            .value("x")
            .sql(" AND b IN ")
            .list((0..3i64).map(|n| n.to_value()))
            .sql(" AND c = ")
            .value(&1i64);
        assert_eq!(query.sql, "a = $1 AND b IN ($2, $3, $4, $5) AND c = $6");
        assert_eq!(query.values.len(), 6);
        assert_eq!(Query::new("a IN ").list([]).sql, "a IN (NULL)");
    }
}
