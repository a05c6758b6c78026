//! Towpath's orb registry, and sources that were fetched from others.

use super::{
    database::Transaction,
    handle::SqlStore,
    query::Query,
    record::{Record, add, record, replace, select},
};
use crate::{Expect, FetchedOrb, OrbNamespace, OrbRow, OrbStore, OrbVersionRow, StoreError};
use async_trait::async_trait;

record!(OrbNamespace in "orb_namespaces", "namespace" by ["name"] { name, id });

record!(OrbRow in "orbs", "orb" by ["namespace", "name"] { namespace, name, id, is_private, is_listed, created_at });

record!(OrbVersionRow in "orb_versions", "orb version" by ["namespace", "name", "version"] {
    namespace, name, version, id, source, frozen, created_at,
});

record!(FetchedOrb in "fetched_orbs", "orb" by ["reference"] { reference, source });

#[async_trait]
impl OrbStore for SqlStore {
    async fn orb_namespace(&self, name: &str) -> Result<Option<OrbNamespace>, StoreError> {
        let query = select::<OrbNamespace>().sql(" WHERE name = ").value(name);
        self.one("orb_namespace", query).await
    }

    async fn orb_namespaces(&self) -> Result<Vec<OrbNamespace>, StoreError> {
        self.all("orb_namespaces", select::<OrbNamespace>().sql(" ORDER BY name"))
            .await
    }

    async fn orb(&self, namespace: &str, name: &str) -> Result<Option<OrbRow>, StoreError> {
        let query = of_orb::<OrbRow>(namespace, name);
        self.one("orb", query).await
    }

    async fn orbs(&self, namespace: Option<&str>) -> Result<Vec<OrbRow>, StoreError> {
        let mut query = select::<OrbRow>();
        if let Some(namespace) = namespace {
            query = query.sql(" WHERE namespace = ").value(namespace);
        }
        self.all("orbs", query.sql(" ORDER BY namespace, name")).await
    }

    async fn orb_versions(&self, namespace: &str, name: &str) -> Result<Vec<OrbVersionRow>, StoreError> {
        let query = of_orb::<OrbVersionRow>(namespace, name).sql(" ORDER BY position");
        self.all("orb_versions", query).await
    }

    async fn fetched_orb(&self, reference: &str) -> Result<Option<FetchedOrb>, StoreError> {
        let query = select::<FetchedOrb>().sql(" WHERE reference = ").value(reference);
        self.one("fetched_orb", query).await
    }
}

fn of_orb<R: Record>(namespace: &str, name: &str) -> Query {
    select::<R>()
        .sql(" WHERE namespace = ")
        .value(namespace)
        .sql(" AND name = ")
        .value(name)
}

pub(crate) async fn add_namespace(to: &mut Transaction<'_>, row: &OrbNamespace) -> Result<(), StoreError> {
    add(to, row, row.columns()).await
}

/// Readers see no version of an orb, so [`Expect::Version`] only means that the orb exists. Only its listed flag ever
/// changes.
pub(crate) async fn put_orb(to: &mut Transaction<'_>, row: &OrbRow, expect: Expect) -> Result<(), StoreError> {
    match expect {
        Expect::Absent => add(to, row, row.columns()).await,
        Expect::Version(_) => {
            let query = Query::new("UPDATE orbs SET is_listed = ")
                .value(&row.is_listed)
                .sql(" WHERE namespace = ")
                .value(&row.namespace)
                .sql(" AND name = ")
                .value(&row.name);
            if to.execute(query).await? == 1 {
                Ok(())
            } else {
                Err(row.conflict())
            }
        }
    }
}

pub(crate) async fn put_version(to: &mut Transaction<'_>, row: &OrbVersionRow) -> Result<(), StoreError> {
    if row.version.starts_with("dev:") {
        // Delete it first, so that its publication time is renewed.
        let query = Query::new("DELETE FROM orb_versions WHERE namespace = ")
            .value(&row.namespace)
            .sql(" AND name = ")
            .value(&row.name)
            .sql(" AND version = ")
            .value(&row.version);
        to.execute(query).await?;
        return replace(to, row).await;
    }
    add(to, row, row.columns()).await
}

pub(crate) async fn keep_fetched(to: &mut Transaction<'_>, row: &FetchedOrb) -> Result<(), StoreError> {
    replace(to, row).await
}
