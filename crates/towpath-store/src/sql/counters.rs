//! Numbers without gaps: a counter changes in the transaction that uses its number.

use super::{
    database::{Dialect, Transaction},
    query::Query,
    value::ToValue,
};
use crate::StoreError;

const TABLE: &str = "counters";

/// Names a sequence of numbers.
pub(crate) enum Counter<'a> {
    Pipelines(&'a str),
    Jobs(&'a str),
    Releases(&'a str),
}

impl Counter<'_> {
    fn name(&self) -> String {
        match self {
            Self::Pipelines(project) => format!("pipelines/{project}"),
            Self::Jobs(project) => format!("jobs/{project}"),
            Self::Releases(environment) => format!("releases/{environment}"),
        }
    }
}

/// Takes the next number, from 1.
pub(crate) async fn take(to: &mut Transaction<'_>, counter: Counter<'_>) -> Result<i64, StoreError> {
    take_named(to, &counter.name()).await
}

/// Makes the next number higher than `number`, which came from elsewhere.
pub(crate) async fn raise(to: &mut Transaction<'_>, counter: Counter<'_>, number: i64) -> Result<(), StoreError> {
    let query = Query::new("INSERT INTO counters (name, value) VALUES ")
        .values([counter.name().to_value(), number.to_value()])
        .sql(" ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE counters.value < excluded.value");
    to.execute(query).await.map(drop)
}

/// The number to store for a row with `number`: the next one for 0, else the row's own.
pub(crate) async fn number(to: &mut Transaction<'_>, counter: Counter<'_>, number: i64) -> Result<i64, StoreError> {
    if number == 0 {
        return take(to, counter).await;
    }
    raise(to, counter, number).await?;
    Ok(number)
}

/// A fence that is higher than every earlier one. There may be gaps.
pub(crate) async fn fence(to: &mut Transaction<'_>) -> Result<i64, StoreError> {
    match to.dialect() {
        Dialect::Sqlite => take_named(to, "fences").await,
        // Not a row of `counters`, because then all claims of all servers would wait for it.
        Dialect::Postgres => first(to, Query::new("SELECT nextval('fences') AS value")).await,
    }
}

async fn take_named(to: &mut Transaction<'_>, name: &str) -> Result<i64, StoreError> {
    let query = Query::new("INSERT INTO counters (name, value) VALUES (")
        .value(name)
        .sql(", 1) ON CONFLICT (name) DO UPDATE SET value = counters.value + 1 RETURNING value");
    first(to, query).await
}

async fn first(to: &mut Transaction<'_>, query: Query) -> Result<i64, StoreError> {
    match to.rows(TABLE, query).await?.first() {
        Some(row) => row.get("value"),
        None => Err(StoreError::Unreadable {
            what: "a counter".into(),
            why: "it gave no number".into(),
        }),
    }
}
