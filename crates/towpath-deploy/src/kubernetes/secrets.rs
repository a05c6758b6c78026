//! Secrets that come from the vault instead of a manifest, and the mask over the values of Secrets.

use super::error::ClusterError;
use crate::target::{Environment, PULL_SECRET, SecretSource};
use base64::Engine as _;
use futures::future::join_all;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use towpath_kube::{Client, Mode, Resource};
use towpath_manifest::{Kind, Object, SourceKind, containers, names_read, pull_secrets};
use towpath_types::{ImageReference, Mask, SecretBytes};

/// The Secrets that `objects` need and the vault has: those that pods read, and the one that they pull images with. A manifest
/// with the same name takes precedence.
pub(super) async fn from_vault(
    environment: &Environment,
    objects: &[Object],
    vault: &dyn SecretSource,
) -> Result<Vec<Object>, ClusterError> {
    let encoding = base64::engine::general_purpose::STANDARD;
    let mut secrets = Vec::new();
    for name in names_read(objects, SourceKind::Secret) {
        if is_manifest(objects, &name) {
            continue;
        }
        let values = vault.values(&environment.id, &name).await;
        let values = values.map_err(|source| ClusterError::Vault {
            secret: name.clone(),
            source,
        })?;
        let Some(values) = values else { continue };
        let data: BTreeMap<String, String> = values
            .into_iter()
            .map(|(key, value)| (key, encoding.encode(value.expose())))
            .collect();
        let value = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": {"name": name, "namespace": environment.namespace}, "data": data,
        });
        secrets.extend(Object::from_value(value, "the vault").ok());
    }
    secrets.extend(pull_secret(environment, objects, vault).await?);
    Ok(secrets)
}

fn is_manifest(objects: &[Object], name: &str) -> bool {
    objects
        .iter()
        .any(|object| object.kind == "Secret" && object.name == name)
}

/// The Secret [`PULL_SECRET`] with the credentials for all registries that `objects` pull from, if they use that Secret.
///
/// Source: <https://kubernetes.io/docs/tasks/configure-pod-container/pull-image-private-registry/>
async fn pull_secret(
    environment: &Environment,
    objects: &[Object],
    vault: &dyn SecretSource,
) -> Result<Option<Object>, ClusterError> {
    if is_manifest(objects, PULL_SECRET) {
        return Ok(None);
    }
    let pulling = objects
        .iter()
        .filter(|object| pull_secrets(object).iter().any(|name| name == PULL_SECRET));
    let registries: BTreeSet<String> = pulling
        .flat_map(containers)
        .filter_map(|container| container.image.parse::<ImageReference>().ok()?.registry)
        .collect();
    let encoding = base64::engine::general_purpose::STANDARD;
    let mut auths = serde_json::Map::new();
    for registry in registries {
        let credentials = vault.pull_credentials(&environment.id, &registry).await;
        let credentials = credentials.map_err(|source| ClusterError::Credentials {
            registry: registry.clone(),
            source,
        })?;
        if let Some(credentials) = credentials {
            let pair = format!("{}:{}", credentials.username, credentials.password.expose());
            auths.insert(registry, json!({"auth": encoding.encode(pair)}));
        }
    }
    if auths.is_empty() {
        return Ok(None);
    }
    let config = json!({"auths": auths}).to_string();
    let value = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
        "metadata": {"name": PULL_SECRET, "namespace": environment.namespace},
        "data": {".dockerconfigjson": encoding.encode(config)},
    });
    Ok(Object::from_value(value, "the vault").ok())
}

/// Writes the Secrets from [`from_vault`] into the cluster. A Job needs them before it starts.
pub(super) async fn write_from_vault(
    client: &Client,
    environment: &Environment,
    objects: &[Object],
    vault: &dyn SecretSource,
) -> Result<(), ClusterError> {
    let resource = Resource::of(&Kind::SECRET);
    for secret in from_vault(environment, objects, vault).await? {
        client
            .apply(&resource, &environment.namespace, &secret.value, Mode::Apply)
            .await?;
    }
    Ok(())
}

/// Masks the values of all Secrets that `objects` read. Values of a Secret that cannot be read are not masked.
pub(super) async fn mask_of(
    client: &Client,
    environment: &Environment,
    objects: &[Object],
    vault: &dyn SecretSource,
) -> Mask {
    let mut values: Vec<SecretBytes> = Vec::new();
    let encoding = base64::engine::general_purpose::STANDARD;
    let names = names_read(objects, SourceKind::Secret);
    let resource = Resource::of(&Kind::SECRET);
    let paths = names.iter().map(|name| resource.object(&environment.namespace, name));
    let found = join_all(paths.map(|path| async move { client.find(&path).await })).await;
    for secret in found.into_iter().filter_map(|found| found.ok().flatten()) {
        let data = secret.get("data").and_then(Value::as_object);
        for value in data.into_iter().flatten().filter_map(|(_, value)| value.as_str()) {
            values.extend(encoding.decode(value).ok().map(SecretBytes::new));
        }
    }
    for name in &names {
        if let Ok(Some(known)) = vault.values(&environment.id, name).await {
            values.extend(known.into_values());
        }
    }
    Mask::new(&values)
}
