//! Volumes. The first container that mounts a volume creates it.

use crate::{
    client::ContainerClient,
    containers::label_filter,
    error::{ContainerError, status},
};
use bollard::query_parameters::{ListVolumesOptionsBuilder, RemoveVolumeOptions};

impl ContainerClient {
    /// Whether there is a volume called `name`.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn has_volume(&self, name: &str) -> Result<bool, ContainerError> {
        match self.docker.inspect_volume(name).await {
            Ok(_) => Ok(true),
            Err(error) if status(&error) == Some(404) => Ok(false),
            Err(error) => Err(ContainerError::of(format!("look for the volume `{name}`"))(error)),
        }
    }

    /// The names of the volumes with all of `labels`. An empty value matches any.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn volumes(&self, labels: &[(&str, &str)]) -> Result<Vec<String>, ContainerError> {
        let options = ListVolumesOptionsBuilder::default()
            .filters(&label_filter(labels))
            .build();
        let found = self.docker.list_volumes(Some(options)).await;
        let found = found.map_err(ContainerError::of("list the engine's volumes"))?;
        let volumes = found.volumes.unwrap_or_default();
        Ok(volumes.into_iter().map(|volume| volume.name).collect())
    }

    /// Removes a volume with its content.
    ///
    /// # Errors
    /// When a container uses it.
    pub async fn remove_volume(&self, name: &str) -> Result<(), ContainerError> {
        match self.docker.remove_volume(name, None::<RemoveVolumeOptions>).await {
            Ok(()) => Ok(()),
            Err(error) if status(&error) == Some(404) => Ok(()),
            Err(error) => Err(ContainerError::of(format!("remove the volume `{name}`"))(error)),
        }
    }
}
