//! Secrets of environments and variables of contexts, kept sealed by the vault.

use crate::{Control, ControlError, Grant, Tokens, views::KeyView};
use futures::future::BoxFuture;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use towpath_deploy::{EnvironmentId, RegistryCredentials, SecretSource};
use towpath_forge::ProjectName;
use towpath_images::Credentials;
use towpath_secrets::{Entry, Scope, Vault, VaultError};
use towpath_types::SecretString;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The vault as targets ask it.
pub(crate) struct EnvironmentSecrets {
    vault: Arc<Vault>,
    tokens: Arc<Tokens>,
    registry: String,
    pulls_here: bool,
}

impl EnvironmentSecrets {
    /// `registry` is Towpath's own. `pulls_here` says that images are pulled on this machine, whose docker may know other
    /// registries too; what it knows is never carried elsewhere.
    pub(crate) fn new(vault: Arc<Vault>, tokens: Arc<Tokens>, registry: String, pulls_here: bool) -> Self {
        Self {
            vault,
            tokens,
            registry,
            pulls_here,
        }
    }

    fn scope(environment: &EnvironmentId, secret: &str) -> Scope {
        Scope::secret(environment.project(), environment.environment(), secret)
    }
}

impl SecretSource for EnvironmentSecrets {
    fn keys<'a>(
        &'a self,
        environment: &'a EnvironmentId,
        secret: &'a str,
    ) -> BoxFuture<'a, Result<Option<BTreeSet<String>>, Failure>> {
        Box::pin(async move {
            let listing = self.vault.list(&Self::scope(environment, secret))?;
            let keys: BTreeSet<String> = listing.entries.into_iter().map(|entry| entry.key).collect();
            Ok((!keys.is_empty()).then_some(keys))
        })
    }

    fn values<'a>(
        &'a self,
        environment: &'a EnvironmentId,
        secret: &'a str,
    ) -> BoxFuture<'a, Result<Option<BTreeMap<String, SecretString>>, Failure>> {
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
                    password: self.tokens.issue(&Grant::Registry {
                        project: environment.project().to_string(),
                        workflow: None,
                    }),
                }));
            }
            if !self.pulls_here {
                return Ok(None);
            }
            let credentials = Credentials::of_docker(registry).await?;
            Ok(credentials.map(|credentials| RegistryCredentials {
                username: credentials.username,
                password: credentials.password,
            }))
        })
    }
}

fn vault_error(error: VaultError) -> ControlError {
    match error {
        VaultError::Name(_) | VaultError::Value { .. } => ControlError::invalid(error.to_string()),
        other => ControlError::unavailable("the vault does not do what is needed").caused_by(other),
    }
}

fn key_view(name: &str, entry: Entry) -> KeyView {
    KeyView {
        name: name.to_string(),
        key: entry.key,
        by: entry.set_by,
        at: entry.set_at,
    }
}

impl Control {
    /// Sets a key of an environment's Secret.
    ///
    /// # Errors
    /// `Invalid` for names and values that Kubernetes would not take.
    pub async fn set_secret(
        &self,
        project: &str,
        environment: &str,
        secret: &str,
        key: &str,
        value: &SecretString,
        by: &str,
    ) -> Result<(), ControlError> {
        crate::plans::target_id(project, environment)?;
        self.vault
            .set(&Scope::secret(project, environment, secret), key, value, by)
            .map_err(vault_error)
    }

    /// Removes a key of an environment's Secret.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    pub async fn unset_secret(
        &self,
        project: &str,
        environment: &str,
        secret: &str,
        key: &str,
    ) -> Result<(), ControlError> {
        let scope = Scope::secret(project, environment, secret);
        self.unset(&scope, key)
    }

    fn unset(&self, scope: &Scope, key: &str) -> Result<(), ControlError> {
        if self.vault.unset(scope, key).map_err(vault_error)? {
            return Ok(());
        }
        Err(ControlError::not_found(format!("{scope} has no `{key}`")))
    }

    /// The keys of an environment's Secrets.
    ///
    /// # Errors
    /// When the vault cannot be read.
    pub async fn list_secrets(&self, project: &str, environment: &str) -> Result<Vec<KeyView>, ControlError> {
        let mut keys = Vec::new();
        for secret in self.vault.secrets(project, environment).map_err(vault_error)? {
            let listing = self
                .vault
                .list(&Scope::secret(project, environment, &secret))
                .map_err(vault_error)?;
            keys.extend(listing.entries.into_iter().map(|entry| key_view(&secret, entry)));
        }
        Ok(keys)
    }

    /// Sets a variable of a context.
    ///
    /// # Errors
    /// `Invalid` for names that no environment variable has.
    pub async fn set_context(
        &self,
        context: &str,
        key: &str,
        value: &SecretString,
        by: &str,
    ) -> Result<(), ControlError> {
        self.vault
            .set(&Scope::context(context), key, value, by)
            .map_err(vault_error)
    }

    /// Removes a variable of a context.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    pub async fn unset_context(&self, context: &str, key: &str) -> Result<(), ControlError> {
        self.unset(&Scope::context(context), key)
    }

    /// The variables of all contexts.
    ///
    /// # Errors
    /// When the vault cannot be read.
    pub async fn list_contexts(&self) -> Result<Vec<KeyView>, ControlError> {
        let mut keys = Vec::new();
        for context in self.vault.contexts().map_err(vault_error)? {
            let listing = self.vault.list(&Scope::context(&context)).map_err(vault_error)?;
            keys.extend(listing.entries.into_iter().map(|entry| key_view(&context, entry)));
        }
        Ok(keys)
    }

    /// The variables of a job's contexts, in order: a later one of a name wins.
    pub(crate) fn context_variables(&self, contexts: &[String]) -> Result<Vec<(String, SecretString)>, ControlError> {
        let mut variables = Vec::new();
        for context in contexts {
            let values = self.vault.reveal(&Scope::context(context)).map_err(vault_error)?;
            if values.is_empty() {
                return Err(ControlError::invalid(format!(
                    "there is no context `{context}`: set its variables with `towpath context set {context} NAME`"
                )));
            }
            variables.extend(values);
        }
        Ok(variables)
    }

    /// Sets what a project's jobs need to reach the registry, in the context `<project>-registry`; what is there stays.
    pub(crate) async fn provide_registry_context(&self, project: &ProjectName, by: &str) -> Result<(), ControlError> {
        let scope = Scope::context(&format!("{project}-registry"));
        let wanted = [
            ("REGISTRY", SecretString::new(self.registry_name())),
            ("REGISTRY_USERNAME", SecretString::new("towpath".into())),
            ("REGISTRY_PASSWORD", self.registry_token(project.as_str(), None)),
        ];
        let known: BTreeSet<String> = self
            .vault
            .list(&scope)
            .map_err(vault_error)?
            .entries
            .into_iter()
            .map(|entry| entry.key)
            .collect();
        for (key, value) in wanted {
            // The address is this server's own, and changes with it.
            if key == "REGISTRY" || !known.contains(key) {
                self.vault.set(&scope, key, &value, by).map_err(vault_error)?;
            }
        }
        Ok(())
    }
}
