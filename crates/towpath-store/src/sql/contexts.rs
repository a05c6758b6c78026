//! Who may have a context.

use super::{
    database::Transaction,
    handle::SqlStore,
    record::{record, replace, select},
};
use crate::{ContextRule, ContextStore, StoreError};
use async_trait::async_trait;

record!(ContextRule in "context_rules", "rule of context" by ["context"] { context, projects, branches });

#[async_trait]
impl ContextStore for SqlStore {
    async fn context_rule(&self, context: &str) -> Result<Option<ContextRule>, StoreError> {
        let query = select::<ContextRule>().sql(" WHERE context = ").value(context);
        self.one("context_rule", query).await
    }

    async fn context_rules(&self) -> Result<Vec<ContextRule>, StoreError> {
        self.all("context_rules", select::<ContextRule>().sql(" ORDER BY context"))
            .await
    }
}

pub(crate) async fn put_rule(to: &mut Transaction<'_>, row: &ContextRule) -> Result<(), StoreError> {
    replace(to, row).await
}
