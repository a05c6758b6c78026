//! State that the tasks of one environment share.

use super::{names::Names, start_error::StartError, store::Store};
use crate::target::{EnvironmentId, SecretSource};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::{Notify, watch};
use towpath_container::ContainerClient;
use towpath_types::{Clock, SecretBytes};

/// One environment, as its controllers see it.
pub(crate) struct LocalEnvironment {
    pub engine: ContainerClient,
    pub names: Names,
    pub id: EnvironmentId,
    pub store: Store,
    pub secrets: Arc<dyn SecretSource>,
    pub clock: Arc<dyn Clock>,
    /// A folder in memory, for Secrets that are mounted as files.
    pub memory: PathBuf,
    pub proxy_image: String,
    /// The first pause before a container or a Job that failed is started again.
    pub backoff: Duration,
    /// Held while a volume is created.
    pub opening: tokio::sync::Mutex<()>,
    /// Wakes the environment's loop after a change.
    pub wake: Notify,
    /// Tells waiting tasks about a change.
    pub changed: watch::Sender<u64>,
    /// Why pods of Jobs have not started yet, keyed by the pod's name.
    hindrances: Mutex<BTreeMap<String, String>>,
}

/// The parts of a [`LocalEnvironment`].
pub(crate) struct Shared {
    pub engine: ContainerClient,
    pub secrets: Arc<dyn SecretSource>,
    pub clock: Arc<dyn Clock>,
    pub memory: PathBuf,
    pub proxy_image: String,
    pub backoff: Duration,
}

impl LocalEnvironment {
    pub(crate) fn new(shared: &Shared, names: Names, id: EnvironmentId, store: Store) -> Self {
        Self {
            engine: shared.engine.clone(),
            names,
            id,
            store,
            secrets: Arc::clone(&shared.secrets),
            clock: Arc::clone(&shared.clock),
            memory: shared.memory.clone(),
            proxy_image: shared.proxy_image.clone(),
            backoff: shared.backoff,
            opening: tokio::sync::Mutex::new(()),
            wake: Notify::new(),
            changed: watch::Sender::new(0),
            hindrances: Mutex::default(),
        }
    }

    /// Announces a change.
    pub(crate) fn notify(&self) {
        self.wake.notify_one();
        self.changed.send_modify(|count| *count += 1);
    }

    fn hindrances(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.hindrances.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records why a pod has not started yet; `None` once it has started or is given up.
    pub(crate) fn hinder(&self, pod: &str, why: Option<String>) {
        match why {
            Some(why) => drop(self.hindrances().insert(pod.to_string(), why)),
            None => drop(self.hindrances().remove(pod)),
        }
        self.notify();
    }

    /// Why a pod has not started yet, if known.
    pub(crate) fn hindrance(&self, pod: &str) -> Option<String> {
        self.hindrances().get(pod).cloned()
    }

    /// The values of a Secret or ConfigMap; `None` if it does not exist.
    pub(crate) async fn source(
        &self,
        secret: bool,
        name: &str,
    ) -> Result<Option<BTreeMap<String, SecretBytes>>, StartError> {
        if secret {
            let values = self.secrets.values(&self.id, name).await;
            return values.map_err(|error| {
                StartError::Passing(format!("failed to read the values of the Secret `{name}`: {error}"))
            });
        }
        let document = self.store.read();
        Ok(document.named("ConfigMap", name).map(|object| {
            let data = object.value.get("data").and_then(serde_json::Value::as_object);
            let texts = data.into_iter().flatten();
            texts
                .filter_map(|(key, value)| Some((key.clone(), SecretBytes::new(value.as_str()?.into()))))
                .collect()
        }))
    }
}
