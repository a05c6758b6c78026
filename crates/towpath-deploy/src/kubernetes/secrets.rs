//! The Secret that pods pull images with, and the mask over the values of Secrets.

use super::error::ClusterError;
use crate::target::{Environment, PULL_SECRET, PullCredentials};
use base64::Engine as _;
use futures::future::join_all;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use towpath_kube::{Client, Mode, Resource};
use towpath_manifest::{Kind, Object, SourceKind, containers, names_read, pull_secrets};
use towpath_types::{ImageReference, Mask, SecretBytes};

fn is_manifest(objects: &[Object], name: &str) -> bool {
    objects
        .iter()
        .any(|object| object.kind == "Secret" && object.name == name)
}

/// The Secret [`PULL_SECRET`] with the credentials for all registries that `objects` pull from, if they use that Secret.
///
/// Source: <https://kubernetes.io/docs/tasks/configure-pod-container/pull-image-private-registry/>
pub(super) async fn pull_secret(
    environment: &Environment,
    objects: &[Object],
    credentials: &dyn PullCredentials,
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
        let found = credentials.pull_credentials(&environment.id, &registry).await;
        let found = found.map_err(|source| ClusterError::Credentials {
            registry: registry.clone(),
            source,
        })?;
        if let Some(found) = found {
            let pair = format!("{}:{}", found.username, found.password.expose());
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
    Ok(Object::from_value(value, "Towpath").ok())
}

/// Writes the Secret of [`pull_secret`] into the cluster. A Job needs it before it starts.
pub(super) async fn write_pull_secret(
    client: &Client,
    environment: &Environment,
    objects: &[Object],
    credentials: &dyn PullCredentials,
) -> Result<(), ClusterError> {
    let resource = Resource::of(&Kind::SECRET);
    if let Some(secret) = pull_secret(environment, objects, credentials).await? {
        client
            .apply(&resource, &environment.namespace, &secret.value, Mode::Apply)
            .await?;
    }
    Ok(())
}

/// Masks the values of all Secrets that `objects` read. Values of a Secret that cannot be read are not masked.
pub(super) async fn mask_of(client: &Client, environment: &Environment, objects: &[Object]) -> Mask {
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
    Mask::new(&values)
}
