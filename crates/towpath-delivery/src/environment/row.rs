//! Rows of environments.

use serde_json::Value;
use towpath_deploy::Environment;
use towpath_store::{EnvironmentRow, Sighting};

/// The row of an environment that no poller has seen and that is not known to be on a default branch.
pub(crate) fn unseen(place: &Environment) -> EnvironmentRow {
    EnvironmentRow {
        id: place.id.clone(),
        kube_context: place.kube_context.clone(),
        namespace: place.namespace.clone(),
        ambiguous: Vec::new(),
        listed: false,
        sighting: Sighting::Never,
        release: None,
        seen: Value::Null,
        drift: Value::Null,
        drift_at: None,
        version: 0,
    }
}
