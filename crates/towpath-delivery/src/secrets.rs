//! The Secrets that an environment's pods read: listing them and setting their values.

use crate::{
    discover::Discoverer,
    error::{DeliveryError, ErrorKind},
    history::History,
    repository::project_name,
};
use std::sync::Arc;
use towpath_deploy::{Environment, KeyChange, LiveSecret, LiveSecrets};
use towpath_types::{EnvironmentId, SecretBytes};

/// Lets people set the Secrets of environments where pods read them.
#[derive(Clone)]
pub struct Secrets {
    live: Arc<dyn LiveSecrets>,
    history: History,
    discoverer: Discoverer,
}

impl Secrets {
    pub(crate) fn new(live: Arc<dyn LiveSecrets>, history: History, discoverer: Discoverer) -> Self {
        Self {
            live,
            history,
            discoverer,
        }
    }

    /// Sets a key of an environment's Secret. The Secret keeps everything else.
    ///
    /// # Errors
    /// `Conflict` if people do not keep the Secret, or the value is not taken; `NotFound` for an environment that is not known.
    pub async fn set(
        &self,
        environment: &EnvironmentId,
        secret: &str,
        key: &str,
        value: SecretBytes,
        by: &str,
    ) -> Result<(), DeliveryError> {
        self.change(environment, secret, key, Some(value), by).await
    }

    /// Removes a key of an environment's Secret.
    ///
    /// # Errors
    /// Like [`Secrets::set`], and `NotFound` when there is no such key.
    pub async fn unset(
        &self,
        environment: &EnvironmentId,
        secret: &str,
        key: &str,
        by: &str,
    ) -> Result<(), DeliveryError> {
        self.change(environment, secret, key, None, by).await
    }

    /// The Secrets of an environment and their keepers.
    ///
    /// # Errors
    /// When they cannot be read; `NotFound` for an environment that is not known.
    pub async fn list(&self, environment: &EnvironmentId) -> Result<Vec<LiveSecret>, DeliveryError> {
        let place = self.place(environment).await?;
        Ok(self.live.list(&place).await?)
    }

    async fn change(
        &self,
        environment: &EnvironmentId,
        secret: &str,
        key: &str,
        value: Option<SecretBytes>,
        by: &str,
    ) -> Result<(), DeliveryError> {
        let place = self.place(environment).await?;
        let change = KeyChange {
            secret: secret.to_string(),
            key: key.to_string(),
            value,
            by: by.to_string(),
        };
        Ok(self.live.change(&place, &change).await?)
    }

    async fn place(&self, environment: &EnvironmentId) -> Result<Environment, DeliveryError> {
        if !self.live.needs_place() {
            return Ok(Environment {
                id: environment.clone(),
                kube_context: String::new(),
                namespace: String::new(),
            });
        }
        let unknown = match self.history.place(environment).await {
            Err(error) if error.kind() == ErrorKind::NotFound => error,
            known => return known,
        };
        // The push that brought it may have arrived just now.
        if self
            .discoverer
            .discover(&project_name(environment.project())?)
            .await
            .is_ok()
            && let Ok(place) = self.history.place(environment).await
        {
            return Ok(place);
        }
        Err(DeliveryError::not_found(format!(
            "{unknown}, so it is not known where its Secrets are: push its manifests first, or, without a server, \
             have them in the working tree"
        )))
    }
}
