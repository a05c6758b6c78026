//! Removes what a Towpath created in the container engine.

use anyhow::{Context, Result};
use bollard::{
    Docker,
    query_parameters::{
        InspectContainerOptions, ListContainersOptions, ListImagesOptions, ListNetworksOptions, ListVolumesOptions,
        RemoveContainerOptions, RemoveImageOptions, RemoveVolumeOptions,
    },
};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The label of everything that a Towpath creates. Its value is the instance of the data directory.
const LABEL: &str = "dev.towpath.instance";

/// The label of the containers of a Deployment's pods. Its value is the Deployment's name.
const DEPLOYMENT: &str = "dev.towpath.deployment";

/// How many of each were removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Removed {
    /// Including running ones.
    pub containers: usize,
    pub networks: usize,
    pub volumes: usize,
    pub images: usize,
}

/// Removes every container, network, volume and image with the label of `instance`, and nothing else. Safe to repeat.
///
/// # Errors
/// When the engine does not answer, or refuses to remove something.
pub async fn remove_instance(instance: &str) -> Result<Removed> {
    let engine = Docker::connect_with_defaults().context("failed to reach the container engine")?;
    let filters = || {
        Some(HashMap::from([(
            "label".to_string(),
            vec![format!("{LABEL}={instance}")],
        )]))
    };
    let mut removed = Removed::default();

    let list = ListContainersOptions {
        all: true,
        filters: filters(),
        ..ListContainersOptions::default()
    };
    for container in engine
        .list_containers(Some(list))
        .await
        .context("failed to list containers")?
    {
        let Some(id) = container.id else { continue };
        let options = RemoveContainerOptions {
            force: true,
            v: true,
            ..RemoveContainerOptions::default()
        };
        gone(engine.remove_container(&id, Some(options)).await)
            .with_context(|| format!("failed to remove container {id}"))?;
        removed.containers += 1;
    }
    let list = ListNetworksOptions { filters: filters() };
    for network in engine
        .list_networks(Some(list))
        .await
        .context("failed to list networks")?
    {
        let Some(id) = network.id else { continue };
        gone(engine.remove_network(&id).await).with_context(|| format!("failed to remove network {id}"))?;
        removed.networks += 1;
    }
    let list = ListVolumesOptions { filters: filters() };
    for volume in engine
        .list_volumes(Some(list))
        .await
        .context("failed to list volumes")?
        .volumes
        .unwrap_or_default()
    {
        let options = RemoveVolumeOptions { force: true };
        gone(engine.remove_volume(&volume.name, Some(options)).await)
            .with_context(|| format!("failed to remove volume {}", volume.name))?;
        removed.volumes += 1;
    }
    let list = ListImagesOptions {
        filters: filters(),
        ..ListImagesOptions::default()
    };
    for image in engine.list_images(Some(list)).await.context("failed to list images")? {
        let options = RemoveImageOptions {
            force: true,
            ..RemoveImageOptions::default()
        };
        let answer = engine.remove_image(&image.id, Some(options), None).await;
        gone(answer).with_context(|| format!("failed to remove image {}", image.id))?;
        removed.images += 1;
    }
    Ok(removed)
}

/// The containers of an instance's pods, by the name of their Deployment: for each the id and the time of its start.
///
/// # Errors
/// When the engine does not answer.
pub async fn pods(instance: &str) -> Result<BTreeMap<String, BTreeSet<(String, String)>>> {
    let engine = Docker::connect_with_defaults().context("failed to reach the container engine")?;
    let label = format!("{LABEL}={instance}");
    let list = ListContainersOptions {
        filters: Some(HashMap::from([(
            "label".to_string(),
            vec![label, DEPLOYMENT.to_string()],
        )])),
        ..ListContainersOptions::default()
    };
    let containers = engine.list_containers(Some(list)).await;
    let mut found: BTreeMap<String, BTreeSet<(String, String)>> = BTreeMap::new();
    for container in containers.context("failed to list containers")? {
        let deployment = container.labels.and_then(|mut labels| labels.remove(DEPLOYMENT));
        let (Some(deployment), Some(id)) = (deployment, container.id) else {
            continue;
        };
        let inspected = engine.inspect_container(&id, None::<InspectContainerOptions>).await;
        let inspected = inspected.with_context(|| format!("failed to look at container {id}"))?;
        let started = inspected.state.and_then(|state| state.started_at).unwrap_or_default();
        found.entry(deployment).or_default().insert((id, started));
    }
    Ok(found)
}

/// Removes the images that `reference` matches (`127.0.0.1:7070/claims` matches all its tags), except the `kept` newest and those
/// in use. Answers how many it removed.
///
/// # Errors
/// When the engine does not answer.
pub async fn remove_images(reference: &str, kept: usize) -> Result<usize> {
    let engine = Docker::connect_with_defaults().context("failed to reach the container engine")?;
    let options = ListImagesOptions {
        filters: Some(HashMap::from([("reference".to_string(), vec![reference.to_string()])])),
        ..ListImagesOptions::default()
    };
    let images = engine.list_images(Some(options)).await;
    let mut images = images.context("failed to list images")?;
    images.sort_by_key(|image| std::cmp::Reverse(image.created));
    let mut removed = 0;
    for image in images.into_iter().skip(kept) {
        for tag in &image.repo_tags {
            let answer = engine.remove_image(tag, None::<RemoveImageOptions>, None).await;
            removed += usize::from(answer.is_ok());
            gone(answer).with_context(|| format!("failed to remove image {tag}"))?;
        }
    }
    Ok(removed)
}

/// Accepts 404 and 409: someone else has removed it, or is removing it.
fn gone<T>(answer: Result<T, bollard::errors::Error>) -> Result<(), bollard::errors::Error> {
    match answer {
        Err(bollard::errors::Error::DockerResponseServerError {
            status_code: 404 | 409, ..
        })
        | Ok(_) => Ok(()),
        Err(error) => Err(error),
    }
}
