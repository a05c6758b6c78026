//! The live side of the local target: Secrets that people set, sealed in the data directory; and what pods pull images with.

use crate::tokens::{Grant, Identity};
use futures::future::BoxFuture;
use std::{collections::BTreeMap, sync::Arc};
use towpath_deploy::{
    Environment, Keeper, Kept, KeyChange, LiveKey, LiveSecret, LiveSecrets, PullCredentials, SecretSource, TargetError,
};
use towpath_images::docker_credentials;
use towpath_secrets::{Scope, SealedStore, SealedStoreError};
use towpath_types::{EnvironmentId, RegistryCredentials, SecretBytes};

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
