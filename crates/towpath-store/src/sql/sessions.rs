//! Browsers that signed in.

use super::{
    database::Transaction,
    handle::SqlStore,
    query::Query,
    record::{Record, add, record, select},
};
use crate::{SessionRow, SessionStore, StoreError};
use async_trait::async_trait;
use jiff::Timestamp;
use towpath_types::Digest;

record!(SessionRow in "sessions", "session" by ["digest"] { digest, browser, made_at, seen_at });

#[async_trait]
impl SessionStore for SqlStore {
    async fn session(&self, digest: &Digest) -> Result<Option<SessionRow>, StoreError> {
        let query = select::<SessionRow>().sql(" WHERE digest = ").value(digest);
        self.one("session", query).await
    }

    async fn sessions(&self) -> Result<Vec<SessionRow>, StoreError> {
        let query = select::<SessionRow>().sql(" ORDER BY made_at, digest");
        self.all("sessions", query).await
    }
}

pub(crate) async fn add_session(to: &mut Transaction<'_>, row: &SessionRow) -> Result<(), StoreError> {
    add(to, row, row.columns()).await
}

/// Does nothing for an ended session: using it does not reopen it.
pub(crate) async fn seen(to: &mut Transaction<'_>, digest: &Digest, at: Timestamp) -> Result<(), StoreError> {
    let query = Query::new("UPDATE sessions SET seen_at = ")
        .value(&at)
        .sql(" WHERE digest = ")
        .value(digest);
    to.execute(query).await.map(drop)
}

pub(crate) async fn end(to: &mut Transaction<'_>, digest: &Digest) -> Result<(), StoreError> {
    to.execute(Query::new("DELETE FROM sessions WHERE digest = ").value(digest))
        .await
        .map(drop)
}
