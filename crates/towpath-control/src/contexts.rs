//! Contexts: variables that jobs share, kept sealed by the vault.

use crate::{
    tokens::{Grant, Identity},
    views::KeyView,
};
use std::{collections::BTreeSet, sync::Arc};
use towpath_delivery::DeliveryError;
use towpath_secrets::{Entry, Scope, Vault, VaultError};
use towpath_types::{ProjectName, SecretString};

/// The contexts in a vault. Clones share it.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct Contexts {
    pub vault: Arc<Vault>,
    pub identity: Arc<dyn Identity>,
    /// The built-in registry as images are called by it.
    pub registry: String,
}

impl Contexts {
    /// Sets a variable of a context.
    ///
    /// # Errors
    /// `Invalid` for names that no environment variable has.
    pub fn set(&self, context: &str, key: &str, value: &SecretString, by: &str) -> Result<(), DeliveryError> {
        self.vault
            .set(&Scope::context(context), key, value, by)
            .map_err(vault_error)
    }

    /// Removes a variable of a context.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    pub fn unset(&self, context: &str, key: &str) -> Result<(), DeliveryError> {
        unset(&self.vault, &Scope::context(context), key)
    }

    /// The variables of all contexts.
    ///
    /// # Errors
    /// When the vault cannot be read.
    pub fn list(&self) -> Result<Vec<KeyView>, DeliveryError> {
        let mut keys = Vec::new();
        for context in self.vault.contexts().map_err(vault_error)? {
            let listing = self.vault.list(&Scope::context(&context)).map_err(vault_error)?;
            keys.extend(listing.entries.into_iter().map(|entry| key_view(&context, entry)));
        }
        Ok(keys)
    }

    /// The variables of a job's contexts, in order: a later one of a name wins.
    ///
    /// # Errors
    /// `Invalid` for a context that does not exist.
    pub(crate) fn variables(&self, contexts: &[String]) -> Result<Vec<(String, SecretString)>, DeliveryError> {
        let mut variables = Vec::new();
        for context in contexts {
            let values = self.vault.reveal(&Scope::context(context)).map_err(vault_error)?;
            if values.is_empty() {
                return Err(DeliveryError::invalid(format!(
                    "there is no context `{context}`: set its variables with `towpath context set {context} NAME`"
                )));
            }
            variables.extend(values);
        }
        Ok(variables)
    }

    /// Sets what a project's jobs need to reach the registry, in the context `<project>-registry`. What is there stays, but
    /// for the address: it is this server's own and changes with it.
    ///
    /// # Errors
    /// When the vault cannot be written.
    pub fn provide_registry(&self, project: &ProjectName, by: &str) -> Result<(), DeliveryError> {
        let scope = Scope::context(&format!("{project}-registry"));
        // A job gets one of its own in its place, with which it pushes.
        let token = self.identity.issue(&Grant::Pull {
            project: project.to_string(),
        });
        let wanted = [
            ("REGISTRY", SecretString::new(self.registry.clone())),
            ("REGISTRY_USERNAME", SecretString::new("towpath".into())),
            ("REGISTRY_PASSWORD", token),
        ];
        let listing = self.vault.list(&scope).map_err(vault_error)?;
        let known: BTreeSet<String> = listing.entries.into_iter().map(|entry| entry.key).collect();
        for (key, value) in wanted {
            if key == "REGISTRY" || !known.contains(key) {
                self.vault.set(&scope, key, &value, by).map_err(vault_error)?;
            }
        }
        Ok(())
    }
}

pub(crate) fn unset(vault: &Vault, scope: &Scope, key: &str) -> Result<(), DeliveryError> {
    if vault.unset(scope, key).map_err(vault_error)? {
        return Ok(());
    }
    Err(DeliveryError::not_found(format!("{scope} has no `{key}`")))
}

pub(crate) fn vault_error(error: VaultError) -> DeliveryError {
    match error {
        VaultError::Name(_) | VaultError::Value { .. } => DeliveryError::invalid(error.to_string()),
        other => DeliveryError::unavailable("the vault cannot do what is needed").caused_by(other),
    }
}

pub(crate) fn key_view(name: &str, entry: Entry) -> KeyView {
    KeyView {
        name: name.to_string(),
        key: entry.key,
        by: entry.set_by,
        at: entry.set_at,
    }
}
