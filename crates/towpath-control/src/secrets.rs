//! The live side of the local target: Secrets that people set, sealed in the data directory; and what pods pull images with.

use crate::tokens::{Grant, Identity};
use futures::future::BoxFuture;
use std::{collections::BTreeMap, sync::Arc};
use towpath_deploy::{
    Environment, Keeper, Kept, KeyChange, LiveKey, LiveSecret, LiveSecrets, PullCredentials, SecretSource, TargetError,
};
use towpath_images::docker_credentials;
use towpath_secrets::{Scope, SealedStore, SealedStoreError};
use towpath_types::{EnvironmentId, RegistryCredentials, SecretBytes, SeenSecrets};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The sealed store and the registry's tokens, as targets use them.
pub(crate) struct EnvironmentSecrets {
    sealed: Arc<SealedStore>,
    identity: Arc<dyn Identity>,
    registry: String,
    pulls_here: bool,
}

impl EnvironmentSecrets {
    /// `registry` is Towpath's own. `pulls_here` says that this machine pulls the images; its docker may have
    /// credentials for other registries, which must not be sent elsewhere.
    pub(crate) fn new(
        sealed: Arc<SealedStore>,
        identity: Arc<dyn Identity>,
        registry: String,
        pulls_here: bool,
    ) -> Self {
        Self {
            sealed,
            identity,
            registry,
            pulls_here,
        }
    }

    fn scope(environment: &EnvironmentId, secret: &str) -> Scope {
        Scope::secret(environment.project(), environment.environment(), secret)
    }
}

impl SecretSource for EnvironmentSecrets {
    fn values<'a>(
        &'a self,
        environment: &'a EnvironmentId,
        secret: &'a str,
    ) -> BoxFuture<'a, Result<Option<BTreeMap<String, SecretBytes>>, Failure>> {
        Box::pin(async move {
            let values = self.sealed.reveal(&Self::scope(environment, secret))?;
            Ok((!values.is_empty()).then_some(values))
        })
    }

    fn fingerprint(&self, value: &[u8]) -> String {
        self.sealed.fingerprint_bytes(value).to_string()
    }
}

impl PullCredentials for EnvironmentSecrets {
    fn pull_credentials<'a>(
        &'a self,
        environment: &'a EnvironmentId,
        registry: &'a str,
    ) -> BoxFuture<'a, Result<Option<RegistryCredentials>, Failure>> {
        Box::pin(async move {
            if registry == self.registry {
                return Ok(Some(RegistryCredentials {
                    username: "towpath".into(),
                    password: self.identity.issue(&Grant::Pull {
                        project: environment.project().to_string(),
                    }),
                }));
            }
            if !self.pulls_here {
                return Ok(None);
            }
            Ok(docker_credentials(registry).await?)
        })
    }
}

impl LiveSecrets for EnvironmentSecrets {
    fn needs_place(&self) -> bool {
        false
    }

    fn list<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Vec<LiveSecret>, TargetError>> {
        Box::pin(async move {
            let id = &environment.id;
            let (project, name) = (id.project(), id.environment());
            let mut secrets = Vec::new();
            for secret in self.sealed.secrets(project, name).map_err(target_error)? {
                let listing = self.sealed.list(&Self::scope(id, &secret)).map_err(target_error)?;
                let keys = listing.entries.into_iter().map(|entry| LiveKey {
                    key: entry.key,
                    bytes: entry.bytes,
                    by: entry.set_by,
                    at: Some(entry.set_at),
                });
                secrets.push(LiveSecret {
                    keys: keys.collect(),
                    name: secret,
                    kind: "Opaque".into(),
                    kept: Kept::new(Keeper::People, "the local target has no others"),
                });
            }
            Ok(secrets)
        })
    }

    fn change<'a>(
        &'a self,
        environment: &'a Environment,
        change: &'a KeyChange,
    ) -> BoxFuture<'a, Result<(), TargetError>> {
        Box::pin(async move {
            let scope = Self::scope(&environment.id, &change.secret);
            match &change.value {
                Some(value) => self
                    .sealed
                    .set(&scope, &change.key, value, &change.by)
                    .map_err(target_error),
                None if self.sealed.unset(&scope, &change.key).map_err(target_error)? => Ok(()),
                None => Err(TargetError::NotFound(format!("{scope} has no `{}`", change.key))),
            }
        })
    }
}

fn target_error(error: SealedStoreError) -> TargetError {
    match error {
        SealedStoreError::Name(_) | SealedStoreError::Value { .. } => TargetError::Refused(error.to_string()),
        other => TargetError::Failed {
            attempted: "use the sealed Secrets of this server".into(),
            source: other.into(),
        },
    }
}

/// Secrets in a cluster, whose values this process's log hides once somebody has set them.
pub(crate) struct NotedSecrets {
    pub live: Arc<dyn LiveSecrets>,
    pub seen: SeenSecrets,
}

impl LiveSecrets for NotedSecrets {
    fn needs_place(&self) -> bool {
        self.live.needs_place()
    }

    fn list<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Vec<LiveSecret>, TargetError>> {
        self.live.list(environment)
    }

    fn change<'a>(
        &'a self,
        environment: &'a Environment,
        change: &'a KeyChange,
    ) -> BoxFuture<'a, Result<(), TargetError>> {
        if let Some(value) = &change.value {
            self.seen.note(value);
        }
        self.live.change(environment, change)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Tokens;

    fn change(value: Option<&[u8]>) -> KeyChange {
        KeyChange {
            secret: "keys".into(),
            key: "store".into(),
            value: value.map(|value| SecretBytes::new(value.to_vec())),
            by: "ada".into(),
        }
    }

    fn dev() -> Environment {
        Environment {
            id: EnvironmentId::new("claims", "dev").unwrap(),
            kube_context: String::new(),
            namespace: String::new(),
        }
    }

    #[tokio::test]
    async fn the_local_targets_secrets_are_set_listed_and_read_byte_for_byte() {
        let folder = tempfile::tempdir().unwrap();
        let sealed = Arc::new(SealedStore::open(&folder.path().join("secrets")).unwrap());
        let identity = Arc::new(Tokens::open(folder.path()).unwrap());
        let secrets = EnvironmentSecrets::new(sealed, identity, "127.0.0.1:7070".into(), true);
        let dev = dev();
        assert!(!secrets.needs_place());
        secrets.change(&dev, &change(Some(b"\xff\0\n"))).await.unwrap();
        let values = secrets.values(&dev.id, "keys").await.unwrap().unwrap();
        assert_eq!(values["store"].expose(), b"\xff\0\n");
        let listed = secrets.list(&dev).await.unwrap();
        let key = &listed[0].keys[0];
        assert_eq!((listed[0].name.as_str(), listed[0].kept.by), ("keys", Keeper::People));
        assert_eq!((key.key.as_str(), key.bytes, key.by.as_str()), ("store", 3, "ada"));
        secrets.change(&dev, &change(None)).await.unwrap();
        assert_eq!(secrets.list(&dev).await.unwrap(), []);
        let gone = secrets.change(&dev, &change(None)).await.unwrap_err();
        assert!(matches!(gone, TargetError::NotFound(_)), "{gone}");
    }

    #[tokio::test]
    async fn the_log_hides_a_value_that_somebody_sets_in_a_cluster() {
        let seen = SeenSecrets::default();
        let noted = NotedSecrets {
            live: Arc::new(towpath_deploy::fake::FakeSecrets::default()),
            seen: seen.clone(),
        };
        noted.change(&dev(), &change(Some(b"hunter2hunter2"))).await.unwrap();
        assert_eq!(seen.mask().text("hunter2hunter2"), "****");
    }
}
