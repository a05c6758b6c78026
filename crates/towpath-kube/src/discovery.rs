//! Which kinds a cluster serves, and under which paths.

use crate::{
    client::Client,
    error::ApiError,
    resource::{Resource, version_path},
};
use serde_json::Value;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Whether a cluster serves a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// It serves the kind like this.
    Served(Resource),
    /// It does not serve the API version.
    NoVersion,
    /// It serves the API version without this kind.
    NoKind {
        /// A kind with almost the same name.
        similar: Option<String>,
    },
}

/// The kinds that a cluster serves. Remembers answers. A kind that it does not know is asked for again, because definitions of
/// kinds can be added at any time.
#[derive(Default)]
pub struct Discovery(Mutex<HashMap<String, Arc<Vec<Resource>>>>);

impl Discovery {
    /// Finds out whether the cluster of `client` serves a kind. Always pass the client of the same cluster.
    ///
    /// # Errors
    /// If the server gives no answer.
    pub async fn find(&self, client: &Client, api_version: &str, kind: &str) -> Result<Lookup, ApiError> {
        let known = self.known(api_version);
        if let Some(found) = known
            .iter()
            .flat_map(|kinds| kinds.iter())
            .find(|known| known.kind == kind)
        {
            return Ok(Lookup::Served(found.clone()));
        }
        let Some(kinds) = self.ask(client, api_version).await? else {
            return Ok(Lookup::NoVersion);
        };
        if let Some(found) = kinds.iter().find(|known| known.kind == kind) {
            return Ok(Lookup::Served(found.clone()));
        }
        let folded = kind.to_lowercase();
        let similar = kinds.iter().find(|known| {
            let known = known.kind.to_lowercase();
            known == folded || known == folded.trim_end_matches('s')
        });
        Ok(Lookup::NoKind {
            similar: similar.map(|kind| kind.kind.clone()),
        })
    }

    /// All kinds of an API version; `None` if the cluster does not serve it.
    ///
    /// # Errors
    /// If the server gives no answer.
    pub async fn version(&self, client: &Client, api_version: &str) -> Result<Option<Arc<Vec<Resource>>>, ApiError> {
        match self.known(api_version) {
            Some(kinds) => Ok(Some(kinds)),
            None => self.ask(client, api_version).await,
        }
    }

    fn known(&self, api_version: &str) -> Option<Arc<Vec<Resource>>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(api_version).cloned()
    }

    async fn ask(&self, client: &Client, api_version: &str) -> Result<Option<Arc<Vec<Resource>>>, ApiError> {
        let Some(served) = client.find(&version_path(api_version)).await? else {
            return Ok(None);
        };
        let resources = served.get("resources").and_then(Value::as_array);
        let kinds: Vec<Resource> = resources
            .into_iter()
            .flatten()
            .filter_map(|resource| {
                let text = |field: &str| resource.get(field).and_then(Value::as_str);
                // Skip subresources such as `deployments/scale`.
                let plural = text("name").filter(|name| !name.contains('/'))?;
                Some(Resource {
                    api_version: api_version.to_string(),
                    kind: text("kind")?.to_string(),
                    plural: plural.to_string(),
                    namespaced: resource.get("namespaced").and_then(Value::as_bool).unwrap_or(true),
                })
            })
            .collect();
        let kinds = Arc::new(kinds);
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(api_version.to_string(), Arc::clone(&kinds));
        Ok(Some(kinds))
    }
}
