//! The queue of work.
//!
//! A request for leased work is stored beside the lease (`again`, its due time) and takes effect when the lease ends,
//! however it ends: finished work becomes new work; failed or returned work is due at the earlier of both times and its
//! failures are reset. A claim after an expired lease begins after the request and so fulfils it.

use super::{
    counters,
    database::Transaction,
    handle::SqlStore,
    operation::{Done, Operation},
    query::{Query, Row},
    record::{Column, Record, insert, select},
    value::ToValue,
};
use crate::{Guard, Lease, StoreError, Work, WorkKey, WorkKind, WorkState, WorkStore};
use async_trait::async_trait;
use jiff::Timestamp;
use std::time::Duration;

/// The lease's end is in `claimable_at`; the rest of the state in `server` and `reason`.
impl Record for Work {
    const TABLE: &'static str = "work";
    const NOUN: &'static str = "work";
    const KEY: &'static [&'static str] = &["kind", "key"];

    fn names() -> Vec<&'static str> {
        vec![
            "kind",
            "key",
            "project",
            "cpu_millis",
            "memory_bytes",
            "engine",
            "due",
            "claimable_at",
            "failures",
            "last_failure",
            "state",
            "server",
            "reason",
            "fence",
            "created_at",
        ]
    }

    fn read(row: &Row) -> Result<Self, StoreError> {
        let state: String = row.get("state")?;
        let state = match state.as_str() {
            "ready" => WorkState::Ready,
            "leased" => WorkState::Leased {
                server: row.get("server")?,
                until: row.get("claimable_at")?,
            },
            "set_aside" => WorkState::SetAside {
                reason: row.get("reason")?,
            },
            _ => {
                return Err(StoreError::Unreadable {
                    what: "the column `state` of `work`".into(),
                    why: format!("`{}` is not a state of work", state.escape_debug()),
                });
            }
        };
        Ok(Self {
            key: WorkKey {
                kind: row.get("kind")?,
                key: row.get("key")?,
            },
            project: row.get("project")?,
            cpu_millis: row.get("cpu_millis")?,
            memory_bytes: row.get("memory_bytes")?,
            engine: row.get("engine")?,
            due: row.get("due")?,
            failures: row.get("failures")?,
            last_failure: row.get("last_failure")?,
            state,
            fence: row.get("fence")?,
            created_at: row.get("created_at")?,
        })
    }

    /// The columns of new work, which nobody has claimed.
    fn columns(&self) -> Vec<Column> {
        vec![
            ("kind", self.key.kind.to_value()),
            ("key", self.key.key.to_value()),
            ("project", self.project.to_value()),
            ("cpu_millis", self.cpu_millis.to_value()),
            ("memory_bytes", self.memory_bytes.to_value()),
            ("engine", self.engine.to_value()),
            ("due", self.due.to_value()),
            ("claimable_at", self.due.to_value()),
            ("failures", 0u32.to_value()),
            ("state", "ready".to_value()),
            ("fence", 0u64.to_value()),
            ("created_at", self.created_at.to_value()),
        ]
    }
}

#[async_trait]
impl WorkStore for SqlStore {
    async fn due_work(
        &self,
        kinds: &[WorkKind],
        engines: &[String],
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<Work>, StoreError> {
        let query = select::<Work>()
            .sql(" WHERE kind IN ")
            .list(kinds.iter().map(ToValue::to_value))
            .sql(" AND claimable_at <= ")
            .value(&now)
            .sql(" AND (engine IS NULL OR engine IN ")
            .list(engines.iter().map(ToValue::to_value))
            .sql(") ORDER BY ROW_NUMBER() OVER (PARTITION BY project ORDER BY created_at, kind, key), created_at, kind, key LIMIT ")
            .value(&limit);
        self.all("due_work", query).await
    }

    async fn claim(
        &self,
        wanted: &[WorkKey],
        server: &str,
        now: Timestamp,
        lasts: Duration,
    ) -> Result<Vec<Lease>, StoreError> {
        let operation = Operation::Claim {
            wanted: wanted.to_vec(),
            server: server.to_string(),
            now,
            lasts,
        };
        match self.change("claim", operation).await? {
            Done::Claimed(leases) => Ok(leases),
            _ => Ok(Vec::new()),
        }
    }

    async fn renew(&self, server: &str, now: Timestamp, lasts: Duration) -> Result<Vec<(WorkKey, u64)>, StoreError> {
        let operation = Operation::Renew {
            server: server.to_string(),
            now,
            lasts,
        };
        match self.change("renew", operation).await? {
            Done::Renewed(leases) => Ok(leases),
            _ => Ok(Vec::new()),
        }
    }

    async fn next_due(&self, kinds: &[WorkKind]) -> Result<Option<Timestamp>, StoreError> {
        let query = Query::new("SELECT min(claimable_at) AS due FROM work WHERE kind IN ")
            .list(kinds.iter().map(ToValue::to_value));
        match self.rows("next_due", Work::TABLE, query).await?.first() {
            Some(row) => row.get("due"),
            None => Ok(None),
        }
    }

    async fn work(&self, key: &WorkKey) -> Result<Option<Work>, StoreError> {
        self.one("work", of_key(select::<Work>(), key)).await
    }

    async fn set_aside(&self) -> Result<Vec<Work>, StoreError> {
        let query = select::<Work>().sql(" WHERE state = 'set_aside' ORDER BY created_at, kind, key");
        self.all("set_aside", query).await
    }

    async fn forget_server(&self, server: &str) -> Result<(), StoreError> {
        let operation = Operation::ForgetServer(server.to_string());
        self.change("forget_server", operation).await.map(drop)
    }
}

/// Appends ` WHERE` the work is `key`.
fn of_key(query: Query, key: &WorkKey) -> Query {
    query
        .sql(" WHERE kind = ")
        .value(&key.kind)
        .sql(" AND key = ")
        .value(&key.key)
}

/// The same, if the guard's lease still holds.
fn of_guard(query: Query, guard: &Guard) -> Query {
    of_key(query, &guard.key)
        .sql(" AND state = 'leased' AND fence = ")
        .value(&guard.fence)
}

fn end_of(now: Timestamp, lasts: Duration) -> Timestamp {
    now.checked_add(lasts).unwrap_or(Timestamp::MAX)
}

/// Adds work, or a request to repeat it if it is leased.
pub(crate) async fn enqueue(to: &mut Transaction<'_>, work: &Work) -> Result<(), StoreError> {
    let query = insert(Work::TABLE, work.columns()).sql(
        " ON CONFLICT (kind, key) DO UPDATE SET
            failures = 0,
            reason = NULL,
            state = CASE WHEN work.state = 'leased' THEN 'leased' ELSE 'ready' END,
            due = CASE WHEN work.state <> 'leased' AND excluded.due < work.due THEN excluded.due ELSE work.due END,
            claimable_at = CASE
                WHEN work.state = 'leased' THEN work.claimable_at
                WHEN excluded.due < work.due THEN excluded.due
                ELSE work.due END,
            again = CASE
                WHEN work.state <> 'leased' THEN NULL
                WHEN work.again < excluded.due THEN work.again
                ELSE excluded.due END,
            again_engine = CASE WHEN work.state = 'leased' THEN excluded.engine END",
    );
    to.execute(query).await.map(drop)
}

/// Removes finished work, or renews it if it was requested again.
pub(crate) async fn done(to: &mut Transaction<'_>, guard: &Guard) -> Result<(), StoreError> {
    let remove = of_guard(Query::new("DELETE FROM work"), guard).sql(" AND again IS NULL");
    if to.execute(remove).await? == 1 {
        return Ok(());
    }
    let renew = Query::new(
        "UPDATE work SET state = 'ready', server = NULL, failures = 0, last_failure = NULL, engine = again_engine,
            due = again, claimable_at = again, created_at = again, again = NULL, again_engine = NULL",
    );
    held(to, of_guard(renew, guard).sql(" AND again IS NOT NULL"), guard).await
}

pub(crate) async fn cancel(to: &mut Transaction<'_>, key: &WorkKey) -> Result<(), StoreError> {
    to.execute(of_key(Query::new("DELETE FROM work"), key)).await.map(drop)
}

pub(crate) async fn failed(
    to: &mut Transaction<'_>,
    guard: &Guard,
    reason: &str,
    retry: Option<Timestamp>,
) -> Result<(), StoreError> {
    let query = Query::new(
        "UPDATE work SET server = NULL, again = NULL, again_engine = NULL,
            failures = CASE WHEN again IS NULL THEN failures + 1 ELSE 0 END, last_failure = ",
    )
    .value(reason);
    let query = match retry {
        Some(retry) => due_at(query.sql(", state = 'ready'"), retry),
        None => query
            .sql(
                ", state = CASE WHEN again IS NULL THEN 'set_aside' ELSE 'ready' END,
                 due = coalesce(again, due), claimable_at = again, reason = CASE WHEN again IS NULL THEN ",
            )
            .value(reason)
            .sql(" END"),
    };
    held(to, of_guard(query, guard), guard).await
}

pub(crate) async fn bound(to: &mut Transaction<'_>, guard: &Guard, engine: &str) -> Result<(), StoreError> {
    let query = Query::new("UPDATE work SET engine = ").value(&Some(engine.to_string()));
    held(to, of_guard(query, guard), guard).await
}

pub(crate) async fn returned(
    to: &mut Transaction<'_>,
    guard: &Guard,
    due: Timestamp,
    engine: Option<&String>,
) -> Result<(), StoreError> {
    let query = Query::new(
        "UPDATE work SET server = NULL, again = NULL, again_engine = NULL, state = 'ready', failures = 0, engine = ",
    )
    .value(&engine.cloned());
    held(to, of_guard(due_at(query, due), guard), guard).await
}

/// Sets the due time to `moment`, or to that of a request if it is earlier.
fn due_at(query: Query, moment: Timestamp) -> Query {
    ["due", "claimable_at"].into_iter().fold(query, |query, column| {
        query
            .sql(&format!(", {column} = CASE WHEN again < "))
            .value(&moment)
            .sql(" THEN again ELSE ")
            .value(&moment)
            .sql(" END")
    })
}

async fn held(to: &mut Transaction<'_>, update: Query, guard: &Guard) -> Result<(), StoreError> {
    if to.execute(update).await? == 1 {
        Ok(())
    } else {
        Err(StoreError::Fenced(guard.key.clone()))
    }
}

/// Makes sure that a lease holds until the transaction ends.
pub(crate) async fn check(to: &mut Transaction<'_>, guard: &Guard) -> Result<(), StoreError> {
    let lock = to.dialect().for_update();
    let query = of_guard(Query::new("SELECT fence FROM work"), guard).sql(lock);
    if to.rows(Work::TABLE, query).await?.is_empty() {
        return Err(StoreError::Fenced(guard.key.clone()));
    }
    Ok(())
}

pub(crate) async fn claim(
    to: &mut Transaction<'_>,
    wanted: &[WorkKey],
    server: &str,
    now: Timestamp,
    lasts: Duration,
) -> Result<Vec<Lease>, StoreError> {
    let mut leases: Vec<Lease> = Vec::new();
    let skip = to.dialect().for_update_skip_locked();
    for key in wanted {
        // Lock the row before taking the fence, so that a later claim gets a higher one.
        let free = of_key(Query::new("SELECT fence FROM work"), key)
            .sql(" AND claimable_at <= ")
            .value(&now)
            .sql(skip);
        if leases.iter().any(|lease| lease.work.key == *key) || to.rows(Work::TABLE, free).await?.is_empty() {
            continue;
        }
        let fence = counters::fence(to).await?;
        let query = Query::new(
            "UPDATE work SET state = 'leased', again = NULL, again_engine = NULL,
                failures = CASE WHEN again IS NULL THEN failures ELSE 0 END, server = ",
        )
        .value(server)
        .sql(", claimable_at = ")
        .value(&end_of(now, lasts))
        .sql(", fence = ")
        .value(&fence);
        let query = of_key(query, key).sql(&format!(" RETURNING {}", Work::names().join(", ")));
        for row in to.rows(Work::TABLE, query).await? {
            let work = Work::read(&row)?;
            leases.push(Lease {
                server: server.to_string(),
                fence: work.fence,
                work,
            });
        }
    }
    Ok(leases)
}

pub(crate) async fn renew(
    to: &mut Transaction<'_>,
    server: &str,
    now: Timestamp,
    lasts: Duration,
) -> Result<Vec<(WorkKey, u64)>, StoreError> {
    let query = Query::new("UPDATE work SET claimable_at = ")
        .value(&end_of(now, lasts))
        .sql(" WHERE state = 'leased' AND server = ")
        .value(server)
        .sql(" RETURNING kind, key, fence");
    let rows = to.rows(Work::TABLE, query).await?;
    let read = |row: &Row| {
        let key = WorkKey {
            kind: row.get("kind")?,
            key: row.get("key")?,
        };
        Ok((key, row.get("fence")?))
    };
    rows.iter().map(read).collect()
}

/// Ends the leases of a server that is gone.
pub(crate) async fn forget(to: &mut Transaction<'_>, server: &str) -> Result<(), StoreError> {
    let query = Query::new(
        "UPDATE work SET state = 'ready', server = NULL, again = NULL, again_engine = NULL,
            failures = CASE WHEN again IS NULL THEN failures ELSE 0 END,
            due = CASE WHEN again < due THEN again ELSE due END,
            claimable_at = CASE WHEN again < due THEN again ELSE due END
         WHERE state = 'leased' AND server = ",
    )
    .value(server);
    to.execute(query).await.map(drop)
}
