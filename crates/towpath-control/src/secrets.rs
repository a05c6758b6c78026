//! Secrets of environments on the local target, kept sealed by the vault.

use crate::{
    contexts::{key_view, unset, vault_error},
    tokens::{Grant, Identity},
    views::KeyView,
};
use futures::future::BoxFuture;
use std::{collections::BTreeMap, sync::Arc};
use towpath_delivery::DeliveryError;
use towpath_deploy::SecretSource;
use towpath_images::docker_credentials;
use towpath_secrets::{Scope, Vault};
use towpath_types::{EnvironmentId, RegistryCredentials, SecretBytes};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The vault, as targets use it.
pub(crate) struct EnvironmentSecrets {
    vault: Arc<Vault>,
    identity: Arc<dyn Identity>,
    registry: String,
    pulls_here: bool,
}

impl EnvironmentSecrets {
    /// `registry` is Towpath's own. `pulls_here` says that this machine pulls the images; its docker may have
    /// credentials for other registries, which must not be sent elsewhere.
    pub(crate) fn new(vault: Arc<Vault>, identity: Arc<dyn Identity>, registry: String, pulls_here: bool) -> Self {
        Self {
            vault,
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
            let values = self.vault.reveal(&Self::scope(environment, secret))?;
            Ok((!values.is_empty()).then_some(values))
        })
    }

    fn fingerprint(&self, value: &[u8]) -> String {
        self.vault.fingerprint_bytes(value).to_string()
    }

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

/// Lets people edit the Secrets of environments. Clones share the vault.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct Secrets {
    pub vault: Arc<Vault>,
}

impl Secrets {
    /// Sets a key of an environment's Secret.
    ///
    /// # Errors
    /// `Invalid` for names and values that Kubernetes would not take.
    pub fn set(
        &self,
        environment: &EnvironmentId,
        secret: &str,
        key: &str,
        value: &SecretBytes,
        by: &str,
    ) -> Result<(), DeliveryError> {
        let scope = Scope::secret(environment.project(), environment.environment(), secret);
        self.vault.set(&scope, key, value, by).map_err(vault_error)
    }

    /// Removes a key of an environment's Secret.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    pub fn unset(&self, environment: &EnvironmentId, secret: &str, key: &str) -> Result<(), DeliveryError> {
        let scope = Scope::secret(environment.project(), environment.environment(), secret);
        unset(&self.vault, &scope, key)
    }

    /// The keys of an environment's Secrets.
    ///
    /// # Errors
    /// When the vault cannot be read.
    pub fn list(&self, environment: &EnvironmentId) -> Result<Vec<KeyView>, DeliveryError> {
        let (project, name) = (environment.project(), environment.environment());
        let mut keys = Vec::new();
        for secret in self.vault.secrets(project, name).map_err(vault_error)? {
            let listing = self
                .vault
                .list(&Scope::secret(project, name, &secret))
                .map_err(vault_error)?;
            keys.extend(listing.entries.into_iter().map(|entry| key_view(&secret, entry)));
        }
        Ok(keys)
    }
}
