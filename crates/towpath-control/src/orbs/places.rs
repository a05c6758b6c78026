//! The places to look for a configuration's orbs, and feeding orbs to the compiler.
//!
//! The compiler reports the orbs that it is missing. They are fetched here, one round at a time and outside of any
//! lock.

use crate::{
    orbs::{room::Room, versions::versions_of},
    settings::Settings,
    storage::store_error,
};
use futures::future::{BoxFuture, join_all};
use std::sync::Arc;
use towpath_config::{CompileOptions, Document, OrbError, OrbSource, missing_orbs};
use towpath_delivery::DeliveryError;
use towpath_orbs::{
    Found, Lock, Lookup, LookupError, OrbReference, OrbVersion, Origin, PublicRegistry, Selector, Sources, UrlOrbs,
    Vendored,
};
use towpath_store::{Commit, FetchedOrb, Store, Write};
use towpath_types::Clock;

/// The most rounds of nested orb imports to follow: more than anybody nests.
const MOST_ROUNDS: usize = 32;

/// Orbs: Towpath's registry, and lookups in other registries. Clones share everything.
#[derive(Clone)]
pub struct Orbs {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    /// CircleCI's registry, if the settings allow it.
    others: Option<Arc<PublicRegistry>>,
    urls: UrlOrbs,
    pub(crate) room: Room,
}

/// Where the orbs of one configuration may come from.
pub(crate) struct Places {
    vendored: Vendored,
    own: OwnRegistry,
    others: Option<OthersRegistry>,
    urls: UrlOrbs,
    lock: Lock,
}

impl Orbs {
    /// Orbs in `store`, and elsewhere as the settings say.
    ///
    /// # Errors
    /// When no client for the public registry can be made.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, settings: &Settings) -> Result<Self, DeliveryError> {
        let others = match &settings.orb_registry {
            None => None,
            Some(base) => {
                let client = PublicRegistry::new(base)
                    .map_err(|error| DeliveryError::internal("failed to set up TLS").caused_by(error))?;
                Some(Arc::new(match &settings.orb_registry_token {
                    Some(token) => client.signed_in(token.clone()),
                    None => client,
                }))
            }
        };
        Ok(Self {
            store,
            clock,
            others,
            urls: UrlOrbs::new(settings.orb_url_prefixes.clone()),
            room: Room::default(),
        })
    }

    /// Only the orbs in the store.
    #[cfg(test)]
    pub(crate) fn of_store(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        Self {
            store,
            clock,
            others: None,
            urls: UrlOrbs::new(Vec::new()),
            room: Room::default(),
        }
    }

    /// The places of a configuration without a repository.
    pub(crate) fn places(&self) -> Places {
        self.places_with(Vendored::default(), Lock::default())
    }

    /// The places for a commit's configuration. `files` are the files below the folder of vendored orbs, by full path.
    ///
    /// # Errors
    /// `Invalid` when the lock file cannot be read.
    pub(crate) fn places_of(&self, files: Vec<(String, Vec<u8>)>, lock: Option<&str>) -> Result<Places, DeliveryError> {
        let mut vendored = Vec::with_capacity(files.len());
        for (path, bytes) in files {
            let text = towpath_forge::text(bytes);
            let text = text.map_err(|why| DeliveryError::invalid(format!("`{path}` {why}")))?;
            let below = path.strip_prefix(towpath_orbs::VENDORED_FOLDER).unwrap_or(&path);
            vendored.push((below.trim_start_matches('/').to_string(), text));
        }
        let vendored = Vendored::of_files(vendored.iter().map(|(path, text)| (path.as_str(), text.clone())));
        let lock = match lock {
            Some(text) => {
                Lock::parse(text).map_err(|error| DeliveryError::invalid(error.to_string()).caused_by(error))?
            }
            None => Lock::default(),
        };
        Ok(self.places_with(vendored, lock))
    }

    fn places_with(&self, vendored: Vendored, lock: Lock) -> Places {
        Places {
            vendored,
            own: OwnRegistry {
                store: self.store.clone(),
                clock: self.clock.clone(),
            },
            others: self.others.clone().map(|client| OthersRegistry {
                store: self.store.clone(),
                client,
            }),
            urls: self.urls.clone(),
            lock,
        }
    }

    /// Like [`supply_orbs`], from `places`.
    pub(crate) async fn supply(&self, document: &Document, options: &mut CompileOptions, places: &Places) {
        supply_orbs(&places.sources(), document, options).await;
    }
}

/// Fetches every orb that `document` imports, directly or through other orbs, from `sources` into `options`, one round
/// at a time. An orb that cannot be fetched becomes a diagnostic of the compilation; its reference is in the result.
pub async fn supply_orbs(sources: &Sources<'_>, document: &Document, options: &mut CompileOptions) -> Vec<String> {
    let mut failed = Vec::new();
    for _ in 0..MOST_ROUNDS {
        let missing = missing_orbs(document, options);
        if missing.is_empty() {
            break;
        }
        let fetch = missing.into_iter().map(|orb| async {
            let answer = source(sources, &orb.reference).await;
            (orb.reference, answer)
        });
        for (reference, answer) in join_all(fetch).await {
            if answer.is_err() {
                failed.push(reference.clone());
            }
            options.orbs.insert(reference, answer);
        }
    }
    failed
}

/// Fetches one orb.
async fn source(sources: &Sources<'_>, reference: &str) -> Result<OrbSource, OrbError> {
    match sources.resolve(reference).await {
        Ok((resolved, text)) => Ok(OrbSource {
            resolved,
            text: text.into(),
        }),
        Err(LookupError::Unknown { reference, .. }) => Err(OrbError::Unknown(reference)),
        Err(LookupError::Unavailable(reason) | LookupError::Refused(reason)) => Err(OrbError::Unavailable {
            reference: reference.to_string(),
            reason,
        }),
    }
}

impl Places {
    /// The places, in lookup order.
    pub(crate) fn sources(&self) -> Sources<'_> {
        let sources = Sources::new(self.lock.clone())
            .with(Origin::Vendored, &self.vendored)
            .with(Origin::Towpath, &self.own)
            .with_urls(&self.urls);
        match &self.others {
            Some(others) => sources.with(Origin::Circleci, others),
            None => sources,
        }
    }
}

/// Towpath's registry as a place for lookups.
struct OwnRegistry {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
}

impl Lookup for OwnRegistry {
    fn find<'a>(&'a self, reference: &'a OrbReference) -> BoxFuture<'a, Result<Option<Found>, String>> {
        Box::pin(async move {
            let name = &reference.name;
            let orb = self.store.orb(&name.namespace, &name.name).await;
            let orb = orb.map_err(|error| store_error(error).chain())?;
            if orb.is_none() {
                return Ok(None);
            }
            let versions = versions_of(self.store.as_ref(), name, self.clock.now()).await;
            let versions = versions.map_err(|error| error.chain())?;
            let picked = reference.selector.pick(versions.keys());
            Ok(picked.map(|version| Found {
                version: version.clone(),
                text: versions[version].frozen.clone(),
            }))
        })
    }
}

/// CircleCI's registry, with a cache of the releases that it returned. Releases never change.
struct OthersRegistry {
    store: Arc<dyn Store>,
    client: Arc<PublicRegistry>,
}

impl Lookup for OthersRegistry {
    fn find<'a>(&'a self, reference: &'a OrbReference) -> BoxFuture<'a, Result<Option<Found>, String>> {
        Box::pin(async move {
            if let Selector::Exactly(version @ OrbVersion::Release(..)) = &reference.selector {
                let kept = self.store.fetched_orb(&reference.to_string()).await;
                if let Some(kept) = kept.map_err(|error| store_error(error).chain())? {
                    return Ok(Some(Found {
                        version: version.clone(),
                        text: kept.source,
                    }));
                }
            }
            let found = self.client.find(reference).await?;
            if let Some(found) = found.as_ref().filter(|found| !found.version.is_development()) {
                let kept = FetchedOrb {
                    reference: format!("{}@{}", reference.name, found.version),
                    source: found.text.clone(),
                };
                let stored = self.store.commit(Commit::new().with(Write::FetchedOrb(kept))).await;
                stored.map_err(|error| store_error(error).chain())?;
            }
            Ok(found)
        })
    }
}
