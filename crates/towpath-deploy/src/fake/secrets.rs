//! Secrets in memory.

use crate::live::{Keeper, Kept, KeyChange, LiveKey, LiveSecret, LiveSecrets};
use crate::target::{Environment, EnvironmentId, TargetError};
use futures::future::BoxFuture;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};
use towpath_types::SecretBytes;

type Keys = BTreeMap<String, (SecretBytes, String)>;

/// The Secrets of environments in memory, by environment and name. People keep all of them. Clones share them.
#[derive(Clone, Default)]
pub struct FakeSecrets(Arc<Mutex<BTreeMap<(String, String), Keys>>>);

impl FakeSecrets {
    /// The value of a key.
    #[must_use]
    pub fn value(&self, environment: &EnvironmentId, secret: &str, key: &str) -> Option<SecretBytes> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = all.get(&(environment.to_string(), secret.to_string()))?;
        keys.get(key).map(|(value, _)| value.clone())
    }
}

impl LiveSecrets for FakeSecrets {
    fn needs_place(&self) -> bool {
        true
    }

    fn list<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Vec<LiveSecret>, TargetError>> {
        Box::pin(async move {
            let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let here = all.iter().filter(|((of, _), _)| *of == environment.id.to_string());
            let view = |((_, name), keys): (&(String, String), &Keys)| LiveSecret {
                name: name.clone(),
                kind: "Opaque".into(),
                kept: Kept::new(Keeper::People, "nothing shows another keeper"),
                keys: keys
                    .iter()
                    .map(|(key, (value, by))| LiveKey {
                        key: key.clone(),
                        bytes: value.expose().len(),
                        by: by.clone(),
                        at: None,
                    })
                    .collect(),
            };
            Ok(here.map(view).collect())
        })
    }

    fn change<'a>(
        &'a self,
        environment: &'a Environment,
        change: &'a KeyChange,
    ) -> BoxFuture<'a, Result<(), TargetError>> {
        Box::pin(async move {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let keys = all
                .entry((environment.id.to_string(), change.secret.clone()))
                .or_default();
            match &change.value {
                Some(value) => drop(keys.insert(change.key.clone(), (value.clone(), change.by.clone()))),
                None => drop(keys.remove(&change.key).ok_or_else(|| {
                    TargetError::NotFound(format!("the Secret `{}` has no `{}`", change.secret, change.key))
                })?),
            }
            Ok(())
        })
    }
}
