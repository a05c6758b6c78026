//! Towpath's orb registry.
//!
//! A release never changes once it is published. A development version may be republished, and expires after 90 days.
//! An orb's own imports are pinned when it is published.
//!
//! Source: <https://circleci.com/docs/orbs/author/orb-concepts/#orb-versions-development-vs-production-vs-inline>

use crate::{
    orbs::{places::Orbs, versions::versions_of},
    storage::store_error,
};
use jiff::Timestamp;
use serde::Serialize;
use towpath_delivery::DeliveryError;
use towpath_orbs::{OrbName, OrbReference, OrbVersion, Selector};
use towpath_store::{Commit, Expect, OrbNamespace, OrbRow, OrbVersionRow, StoreError, Write};
use towpath_yaml::StoredDiagnostic;
use uuid::Uuid;

/// A namespace of orbs.
#[derive(Debug, Clone, Serialize)]
#[allow(missing_docs)]
pub struct NamespaceView {
    pub id: Uuid,
    pub name: String,
}

/// An orb with its versions.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct OrbView {
    pub id: Uuid,
    /// The id of its namespace.
    pub namespace: Uuid,
    pub name: OrbName,
    /// Whether the orb is private to its organisation. Here everybody who may sign in is in one organisation.
    pub is_private: bool,
    /// Whether lists show it.
    pub is_listed: bool,
    pub created_at: Timestamp,
    /// The newest release first, development versions last.
    pub versions: Vec<OrbVersionView>,
}

/// A version of an orb.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct OrbVersionView {
    pub id: Uuid,
    /// The orb's id.
    pub orb: Uuid,
    /// The orb's name.
    pub name: OrbName,
    pub version: OrbVersion,
    /// The source as it was published.
    pub source: String,
    pub created_at: Timestamp,
}

/// The part of a version number to increment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Segment {
    Major,
    Minor,
    Patch,
}

impl Orbs {
    /// Every namespace, by name.
    ///
    /// # Errors
    /// When the storage does not work.
    pub async fn namespaces(&self) -> Result<Vec<NamespaceView>, DeliveryError> {
        let rows = self.store.orb_namespaces().await.map_err(store_error)?;
        Ok(rows.into_iter().map(namespace_view).collect())
    }

    /// Creates a namespace; does nothing if it exists.
    ///
    /// # Errors
    /// `Invalid` for a name that no namespace can have.
    pub async fn create_namespace(&self, name: &str) -> Result<NamespaceView, DeliveryError> {
        // A namespace follows the rules for the first half of an orb's name.
        format!("{name}/orb").parse::<OrbName>().map_err(|_| {
            DeliveryError::invalid(format!(
                "`{}` is not a namespace's name: use letters, digits, `-` and `_`",
                name.escape_debug()
            ))
        })?;
        loop {
            if let Some(row) = self.store.orb_namespace(name).await.map_err(store_error)? {
                return Ok(namespace_view(row));
            }
            let row = OrbNamespace {
                id: Uuid::now_v7(),
                name: name.to_string(),
            };
            match self
                .store
                .commit(Commit::new().with(Write::OrbNamespace(row.clone())))
                .await
            {
                Ok(_) => return Ok(namespace_view(row)),
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(store_error(error)),
            }
        }
    }

    /// Creates an orb without versions, in an existing namespace.
    ///
    /// # Errors
    /// `NotFound` without the namespace, `Conflict` when the orb exists.
    pub async fn create(&self, name: &OrbName, is_private: bool) -> Result<OrbView, DeliveryError> {
        self.namespace_of(name).await?;
        let row = OrbRow {
            id: Uuid::now_v7(),
            namespace: name.namespace.clone(),
            name: name.name.clone(),
            is_private,
            is_listed: true,
            created_at: self.clock.now(),
        };
        match self
            .store
            .commit(Commit::new().with(Write::Orb(row, Expect::Absent)))
            .await
        {
            Ok(_) => self.need(name).await,
            Err(StoreError::Conflict { .. }) => Err(DeliveryError::conflict(format!("orb `{name}` exists already"))),
            Err(error) => Err(store_error(error)),
        }
    }

    async fn namespace_of(&self, name: &OrbName) -> Result<OrbNamespace, DeliveryError> {
        let row = self.store.orb_namespace(&name.namespace).await.map_err(store_error)?;
        row.ok_or_else(|| DeliveryError::not_found(format!("there is no namespace `{}`", name.namespace)))
    }

    /// The orbs, by name: of one namespace, or all.
    ///
    /// # Errors
    /// When the storage does not work.
    pub async fn list(&self, namespace: Option<&str>) -> Result<Vec<OrbView>, DeliveryError> {
        let mut orbs = Vec::new();
        for row in self.store.orbs(namespace).await.map_err(store_error)? {
            orbs.push(self.view(row).await?);
        }
        Ok(orbs)
    }

    async fn view(&self, row: OrbRow) -> Result<OrbView, DeliveryError> {
        let name = OrbName {
            namespace: row.namespace,
            name: row.name,
        };
        let versions = versions_of(self.store.as_ref(), &name, self.clock.now()).await?;
        let versions = versions.into_iter().rev().map(|(version, version_row)| OrbVersionView {
            id: version_row.id,
            orb: row.id,
            name: name.clone(),
            version,
            source: version_row.source,
            created_at: version_row.created_at,
        });
        Ok(OrbView {
            id: row.id,
            namespace: self.namespace_of(&name).await?.id,
            is_private: row.is_private,
            is_listed: row.is_listed,
            created_at: row.created_at,
            versions: versions.collect(),
            name,
        })
    }

    /// An orb.
    ///
    /// # Errors
    /// When the storage does not work.
    pub async fn orb(&self, name: &OrbName) -> Result<Option<OrbView>, DeliveryError> {
        match self.store.orb(&name.namespace, &name.name).await.map_err(store_error)? {
            Some(row) => Ok(Some(self.view(row).await?)),
            None => Ok(None),
        }
    }

    async fn need(&self, name: &OrbName) -> Result<OrbView, DeliveryError> {
        let orb = self.orb(name).await?;
        orb.ok_or_else(|| DeliveryError::not_found(format!("there is no orb `{name}`: create it first")))
    }

    /// Lists or unlists an orb.
    ///
    /// # Errors
    /// `NotFound` without the orb.
    pub async fn set_listed(&self, name: &OrbName, is_listed: bool) -> Result<(), DeliveryError> {
        let missing = || DeliveryError::not_found(format!("there is no orb `{name}`"));
        let row = self.store.orb(&name.namespace, &name.name).await.map_err(store_error)?;
        let changed = OrbRow {
            is_listed,
            ..row.ok_or_else(missing)?
        };
        // Only the listed flag ever changes on an orb, so the last write wins.
        match self
            .store
            .commit(Commit::new().with(Write::Orb(changed, Expect::Version(1))))
            .await
        {
            Ok(_) => Ok(()),
            Err(StoreError::Conflict { .. }) => Err(missing()),
            Err(error) => Err(store_error(error)),
        }
    }

    /// The version that a reference selects.
    ///
    /// # Errors
    /// When the storage does not work.
    pub async fn version(&self, reference: &OrbReference) -> Result<Option<OrbVersionView>, DeliveryError> {
        let Some(orb) = self.orb(&reference.name).await? else {
            return Ok(None);
        };
        let known = orb.versions.iter().map(|view| &view.version);
        let picked = reference.selector.pick(known).cloned();
        let mut versions = orb.versions.into_iter();
        Ok(versions.find(|view| Some(&view.version) == picked.as_ref()))
    }

    /// Publishes a version of an orb that exists.
    ///
    /// # Errors
    /// `NotFound` without the orb, `Invalid` when the source is wrong, `Conflict` for a release that was published already.
    pub async fn publish(
        &self,
        name: &OrbName,
        version: OrbVersion,
        source: String,
    ) -> Result<OrbVersionView, DeliveryError> {
        let orb = self.need(name).await?;
        let checked = self.check_orb(source.clone()).await?;
        if !checked.errors.is_empty() {
            let errors: Vec<String> = checked
                .errors
                .iter()
                .map(StoredDiagnostic::message_with_place)
                .collect();
            return Err(DeliveryError::invalid(errors.join("\n")));
        }
        let row = OrbVersionRow {
            id: Uuid::now_v7(),
            namespace: name.namespace.clone(),
            name: name.name.clone(),
            version: version.to_string(),
            frozen: checked.output.unwrap_or_else(|| source.clone()),
            source,
            created_at: self.clock.now(),
        };
        // When two publishers race for one release, the store refuses the second.
        match self
            .store
            .commit(Commit::new().with(Write::OrbVersion(row.clone())))
            .await
        {
            Ok(_) => Ok(OrbVersionView {
                id: row.id,
                orb: orb.id,
                name: name.clone(),
                version,
                source: row.source,
                created_at: row.created_at,
            }),
            Err(StoreError::Conflict { .. }) => Err(DeliveryError::conflict(format!(
                "orb `{name}` has a version {version} already, and a release never changes: publish the next one"
            ))),
            Err(error) => Err(store_error(error)),
        }
    }

    /// The release that comes after the newest one.
    ///
    /// # Errors
    /// `NotFound` without the orb.
    pub async fn next_version(&self, name: &OrbName, segment: Segment) -> Result<OrbVersion, DeliveryError> {
        let orb = self.need(name).await?;
        let newest = Selector::Volatile.pick(orb.versions.iter().map(|view| &view.version));
        let (major, minor, patch) = match newest {
            Some(OrbVersion::Release(major, minor, patch)) => (*major, *minor, *patch),
            Some(OrbVersion::Development(_)) | None => (0, 0, 0),
        };
        Ok(match segment {
            Segment::Major => OrbVersion::Release(major + 1, 0, 0),
            Segment::Minor => OrbVersion::Release(major, minor + 1, 0),
            Segment::Patch => OrbVersion::Release(major, minor, patch + 1),
        })
    }

    /// Publishes a development version's source as the next release.
    ///
    /// # Errors
    /// As [`Orbs::publish`].
    pub async fn promote(&self, from: &OrbVersionView, segment: Segment) -> Result<OrbVersionView, DeliveryError> {
        if !from.version.is_development() {
            return Err(DeliveryError::invalid(format!("{} is a release already", from.version)));
        }
        let next = self.next_version(&from.name, segment).await?;
        self.publish(&from.name, next, from.source.clone()).await
    }
}

fn namespace_view(row: OrbNamespace) -> NamespaceView {
    NamespaceView {
        id: row.id,
        name: row.name,
    }
}
