//! A test's own Secrets and credentials, for every target.

use futures::future::BoxFuture;
use std::{collections::BTreeMap, sync::Mutex};
use towpath_deploy::{EnvironmentId, PullCredentials, SecretSource, SourceError};
use towpath_types::{Digest, RegistryCredentials, SecretBytes};

/// Secrets in memory.
#[derive(Default)]
pub struct Secrets(Mutex<BTreeMap<String, BTreeMap<String, SecretBytes>>>);

impl Secrets {
    pub fn set(&self, secret: &str, key: &str, value: &str) {
        self.set_bytes(secret, key, value.as_bytes());
    }

    pub fn set_bytes(&self, secret: &str, key: &str, value: &[u8]) {
        let mut all = self.0.lock().unwrap();
        all.entry(secret.into())
            .or_default()
            .insert(key.into(), SecretBytes::new(value.to_vec()));
    }

    fn of(&self, secret: &str) -> Option<BTreeMap<String, SecretBytes>> {
        self.0.lock().unwrap().get(secret).cloned()
    }
}

impl SecretSource for Secrets {
    fn values<'a>(
        &'a self,
        _: &'a EnvironmentId,
        secret: &'a str,
    ) -> BoxFuture<'a, Result<Option<BTreeMap<String, SecretBytes>>, SourceError>> {
        Box::pin(async move { Ok(self.of(secret)) })
    }

    fn fingerprint(&self, value: &[u8]) -> String {
        Digest::of(value).to_string()
    }
}

impl PullCredentials for Secrets {
    fn pull_credentials<'a>(
        &'a self,
        _: &'a EnvironmentId,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Option<RegistryCredentials>, SourceError>> {
        Box::pin(async { Ok(None) })
    }
}
