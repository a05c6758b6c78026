//! Which kinds a cluster serves, and under which paths.

use super::api::{Api, ApiError, escape};
use serde_json::Value;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};
use towpath_manifest::is_namespaced;

/// A kind of object, as one API version serves it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    /// `apps/v1`.
    pub api_version: String,
    /// `Deployment`.
    pub kind: String,
    /// `deployments`.
    pub plural: String,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
}

impl Kind {
    /// One of Kubernetes' own kinds, whose names do not change.
    pub(super) fn known(api_version: &str, kind: &str, plural: &str) -> Self {
        Self {
            api_version: api_version.into(),
            kind: kind.into(),
            plural: plural.into(),
            namespaced: is_namespaced(kind),
        }
    }

    /// A kind that is not served yet: what it is called in paths is known once it is.
    pub(super) fn unserved(api_version: &str, kind: &str) -> Self {
        Self::known(api_version, kind, "")
    }

    /// Whether its objects have no paths yet.
    pub(super) fn is_unserved(&self) -> bool {
        self.plural.is_empty()
    }

    /// `apps`; empty for the core group.
    pub(super) fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    /// The path of the kind's objects in `namespace`.
    pub(super) fn collection(&self, namespace: &str) -> String {
        let root = if self.api_version.contains('/') { "apis" } else { "api" };
        let version: Vec<String> = self.api_version.split('/').map(escape).collect();
        let version = version.join("/");
        match self.namespaced {
            true => format!("/{root}/{version}/namespaces/{}/{}", escape(namespace), self.plural),
            false => format!("/{root}/{version}/{}", self.plural),
        }
    }

    /// The path of one object.
    pub(super) fn object(&self, namespace: &str, name: &str) -> String {
        format!("{}/{}", self.collection(namespace), escape(name))
    }
}

/// What a cluster says of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Lookup {
    /// It serves it.
    Served(Kind),
    /// It does not serve the version at all.
    NoVersion,
    /// It serves the version, without this kind; a kind that is called almost like it, if there is one.
    NoKind { similar: Option<String> },
}

/// The kinds that were asked for, kept: a cluster rarely learns new ones, and when it does they are asked for again.
#[derive(Default)]
pub(super) struct Kinds(Mutex<HashMap<String, Arc<Vec<Kind>>>>);

impl Kinds {
    pub(super) async fn find(&self, api: &Api, api_version: &str, kind: &str) -> Result<Lookup, ApiError> {
        let known = self.known(api_version);
        if let Some(found) = known
            .iter()
            .flat_map(|kinds| kinds.iter())
            .find(|known| known.kind == kind)
        {
            return Ok(Lookup::Served(found.clone()));
        }
        let Some(kinds) = self.ask(api, api_version).await? else {
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

    /// Every kind of an API version; `None` when it is not served.
    pub(super) async fn of(&self, api: &Api, api_version: &str) -> Result<Option<Arc<Vec<Kind>>>, ApiError> {
        match self.known(api_version) {
            Some(kinds) => Ok(Some(kinds)),
            None => self.ask(api, api_version).await,
        }
    }

    fn known(&self, api_version: &str) -> Option<Arc<Vec<Kind>>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(api_version).cloned()
    }

    async fn ask(&self, api: &Api, api_version: &str) -> Result<Option<Arc<Vec<Kind>>>, ApiError> {
        let root = if api_version.contains('/') { "apis" } else { "api" };
        let version: Vec<String> = api_version.split('/').map(escape).collect();
        let Some(served) = api.find(&format!("/{root}/{}", version.join("/"))).await? else {
            return Ok(None);
        };
        let resources = served.get("resources").and_then(Value::as_array);
        let kinds: Vec<Kind> = resources
            .into_iter()
            .flatten()
            .filter_map(|resource| {
                let text = |field: &str| resource.get(field).and_then(Value::as_str);
                // `deployments/scale` is a part of another resource.
                let plural = text("name").filter(|name| !name.contains('/'))?;
                Some(Kind {
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
