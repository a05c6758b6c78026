//! Mounts of a pod's containers: volumes, and files from ConfigMaps and Secrets.

use super::{
    environment::missing,
    local_environment::LocalEnvironment,
    model::{Container, PodTemplate, VolumeSource},
    names,
    start_error::StartError,
    volume,
};
use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};
use towpath_container::{Labels, Mount, MountSource};
use towpath_types::SecretBytes;

/// Creates the volumes of a pod, and its files from ConfigMaps and Secrets.
pub(crate) async fn ensure(context: &LocalEnvironment, pod: &str, template: &PodTemplate) -> Result<(), StartError> {
    for volume in &template.volumes {
        match &volume.source {
            VolumeSource::Claim { name, .. } => {
                let mut labels = context.names.labels();
                labels.insert(names::CLAIM.to_string(), name.clone());
                ensure_writable(context, &context.names.claim(name), &labels).await?;
            }
            VolumeSource::EmptyDir => {
                let mut labels = context.names.labels();
                labels.insert(names::POD.to_string(), pod.to_string());
                ensure_writable(context, &context.names.empty_dir(pod, &volume.name), &labels).await?;
            }
            VolumeSource::Files {
                secret,
                name,
                optional,
                items,
                mode,
            } => {
                let values = match context.source(*secret, name).await? {
                    Some(values) => values,
                    None if *optional => BTreeMap::new(),
                    None => return Err(missing(*secret, name, None)),
                };
                let files = select(values, items, *optional).map_err(|key| missing(*secret, name, Some(&key)))?;
                let folder = files_of(context, pod, *secret).join(&volume.name);
                write(context, folder, files, *mode).await?;
            }
        }
    }
    Ok(())
}

/// The files by path. Without `items`, each key becomes a file with its name. The error is a key that does not exist.
fn select(
    mut values: BTreeMap<String, SecretBytes>,
    items: &[(String, String)],
    optional: bool,
) -> Result<Vec<(String, SecretBytes)>, String> {
    if items.is_empty() {
        return Ok(values.into_iter().collect());
    }
    let mut files = Vec::new();
    for (key, path) in items {
        match values.remove(key) {
            Some(value) => files.push((path.clone(), value)),
            None if optional => {}
            None => return Err(key.clone()),
        }
    }
    Ok(files)
}

async fn ensure_writable(context: &LocalEnvironment, volume: &str, labels: &Labels) -> Result<(), StartError> {
    let _turn = context.opening.lock().await;
    volume::ensure_open(&context.engine, volume, &context.proxy_image, labels).await
}

/// The host folder with the files of a pod. Files of Secrets are in memory.
fn files_of(context: &LocalEnvironment, pod: &str, secret: bool) -> PathBuf {
    if secret {
        context.memory.join(&context.names.slug).join(pod)
    } else {
        context.store.folder.join("files").join(pod)
    }
}

/// The mounts of `container` from its pod's volumes.
pub(crate) fn mounts(
    context: &LocalEnvironment,
    pod: &str,
    template: &PodTemplate,
    container: &Container,
) -> Vec<Mount> {
    let mut mounts = Vec::new();
    for mount in &container.mounts {
        // A mount that names no volume of the pod was refused.
        let Some(volume) = template.volumes.iter().find(|volume| volume.name == mount.volume) else {
            continue;
        };
        let named = |name: String| MountSource::Volume {
            name,
            labels: Labels::new(),
        };
        let (source, read_only) = match &volume.source {
            VolumeSource::Claim { name, read_only } => (named(context.names.claim(name)), *read_only),
            VolumeSource::EmptyDir => (named(context.names.empty_dir(pod, &volume.name)), false),
            VolumeSource::Files { secret, .. } => {
                let mut path = files_of(context, pod, *secret).join(&volume.name);
                path.extend(&mount.sub_path);
                (MountSource::Host(path), true)
            }
        };
        mounts.push(Mount {
            source,
            target: mount.path.clone(),
            read_only: read_only || mount.read_only,
        });
    }
    mounts
}

/// Removes the files of a pod.
pub(crate) async fn remove_files(context: &LocalEnvironment, pod: &str) {
    for secret in [false, true] {
        let folder = files_of(context, pod, secret);
        let removed = tokio::task::spawn_blocking(move || match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        });
        if let Ok(Err(error)) = removed.await {
            tracing::warn!(pod, %error, "failed to remove a pod's files");
        }
    }
}

async fn write(
    context: &LocalEnvironment,
    folder: PathBuf,
    files: Vec<(String, SecretBytes)>,
    mode: u32,
) -> Result<(), StartError> {
    let (shown, private) = (folder.display().to_string(), context.memory.clone());
    let written = tokio::task::spawn_blocking(move || write_files(&private, &folder, &files, mode)).await;
    let failed =
        |error: &dyn std::fmt::Display| StartError::Passing(format!("failed to write the files in `{shown}`: {error}"));
    match written {
        Ok(written) => written.map_err(|error| failed(&error)),
        Err(error) => Err(failed(&error)),
    }
}

/// Writes `files` under `folder`. Only this user may enter `private`, the folder in memory.
fn write_files(private: &Path, folder: &Path, files: &[(String, SecretBytes)], mode: u32) -> io::Result<()> {
    if folder.starts_with(private) {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(private)?;
    }
    // Pods of any user read the files, but see only this folder.
    fs::create_dir_all(folder)?;
    for (path, value) in files {
        let path = folder.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let file = tempfile::NamedTempFile::new_in(folder)?;
        fs::write(file.path(), value.expose())?;
        fs::set_permissions(file.path(), fs::Permissions::from_mode(mode))?;
        file.persist(path).map_err(|error| error.error)?;
    }
    Ok(())
}
