//! The servers that share the database.

use super::{
    database::Transaction,
    handle::SqlStore,
    operation::{Done, Operation},
    query::Query,
    record::{record, replace, select},
};
use crate::{ServerRow, ServerStore, StoreError};
use async_trait::async_trait;
use jiff::Timestamp;

record!(ServerRow in "servers", "server" by ["id"] { id, address, engines, started_at, seen_at });

#[async_trait]
impl ServerStore for SqlStore {
    async fn put_server(&self, server: &ServerRow) -> Result<(), StoreError> {
        let operation = Operation::PutServer(server.clone());
        self.change("put_server", operation).await.map(|_: Done| ())
    }

    async fn servers(&self, since: Timestamp) -> Result<Vec<ServerRow>, StoreError> {
        let query = select::<ServerRow>()
            .sql(" WHERE seen_at >= ")
            .value(&since)
            .sql(" ORDER BY id");
        self.all("servers", query).await
    }

    async fn remove_server(&self, id: &str) -> Result<(), StoreError> {
        let operation = Operation::RemoveServer(id.to_string());
        self.change("remove_server", operation).await.map(|_: Done| ())
    }
}

pub(crate) async fn put(to: &mut Transaction<'_>, row: &ServerRow) -> Result<(), StoreError> {
    replace(to, row).await
}

pub(crate) async fn remove(to: &mut Transaction<'_>, id: &str) -> Result<(), StoreError> {
    to.execute(Query::new("DELETE FROM servers WHERE id = ").value(id))
        .await
        .map(drop)
}
