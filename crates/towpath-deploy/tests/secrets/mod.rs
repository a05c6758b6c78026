//! A test's own vault, for every target.

use futures::future::BoxFuture;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
};
use towpath_deploy::{EnvironmentId, SecretSource, SourceError};
use towpath_types::{Digest, RegistryCredentials, SecretString};

/// Secrets in memory.
#[derive(Default)]
pub struct Secrets(Mutex<BTreeMap<String, BTreeMap<String, String>>>);

impl Secrets {
    pub fn set(&self, secret: &str, key: &str, value: &str) {
        let mut all = self.0.lock().unwrap();
        all.entry(secret.into())
            .or_default()
            .insert(key.into(), value.to_string());
    }

    fn of(&self, secret: &str) -> Option<BTreeMap<String, String>> {
        self.0.lock().unwrap().get(secret).cloned()
    }
}

impl SecretSource for Secrets {
    fn keys<'a>(
        &'a self,
        _: &'a EnvironmentId,
        secret: &'a str,
    ) -> BoxFuture<'a, Result<Option<BTreeSet<String>>, SourceError>> {
        Box::pin(async move { Ok(self.of(secret).map(|values| values.into_keys().collect())) })
    }

    fn values<'a>(
        &'a self,
        _: &'a EnvironmentId,
        secret: &'a str,
    ) -> BoxFuture<'a, Result<Option<BTreeMap<String, SecretString>>, SourceError>> {
        let hidden = |values: BTreeMap<String, String>| {
            let hide = |(key, value)| (key, SecretString::new(value));
            values.into_iter().map(hide).collect()
        };
        Box::pin(async move { Ok(self.of(secret).map(hidden)) })
    }

    fn fingerprint(&self, value: &[u8]) -> String {
        Digest::of(value).to_string()
    }

    fn pull_credentials<'a>(
        &'a self,
        _: &'a EnvironmentId,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Option<RegistryCredentials>, SourceError>> {
        Box::pin(async { Ok(None) })
    }
}
