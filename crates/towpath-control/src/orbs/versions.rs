//! Which versions of an orb can be found.

use crate::storage::store_error;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use towpath_delivery::DeliveryError;
use towpath_orbs::{OrbName, OrbVersion};
use towpath_store::{OrbVersionRow, Store};

/// How long a development version can be found after publication.
const DEVELOPMENT_DAYS: i64 = 90;

/// The versions of an orb that can be found at `now`, by version.
pub(crate) async fn versions_of(
    store: &dyn Store,
    name: &OrbName,
    now: Timestamp,
) -> Result<BTreeMap<OrbVersion, OrbVersionRow>, DeliveryError> {
    let rows = store
        .orb_versions(&name.namespace, &name.name)
        .await
        .map_err(store_error)?;
    let mut versions = BTreeMap::new();
    for row in rows {
        let version: OrbVersion = row.version.parse().map_err(|_| {
            DeliveryError::internal(format!(
                "`{}` is stored as a version of orb `{name}`",
                row.version.escape_debug()
            ))
        })?;
        let age = now.duration_since(row.created_at);
        if !version.is_development() || age <= SignedDuration::from_hours(24 * DEVELOPMENT_DAYS) {
            versions.insert(version, row);
        }
    }
    Ok(versions)
}
