//! Networks between containers.

use crate::{
    client::ContainerClient,
    error::{ContainerError, status},
    spec::Labels,
};
use bollard::{models::NetworkCreateRequest, query_parameters::ListNetworksOptionsBuilder};
use std::collections::HashMap;

impl ContainerClient {
    /// The ids of the networks called `name`, the oldest first.
    ///
    /// A network's name is not unique. Two concurrent requests, or two around a `kill -9`, may each create one, and
    /// from then on the engine rejects the name as ambiguous.
    async fn networks(&self, name: &str) -> Result<Vec<String>, ContainerError> {
        let filters = HashMap::from([("name".to_string(), vec![name.to_string()])]);
        let options = ListNetworksOptionsBuilder::default().filters(&filters).build();
        let found = self.docker.list_networks(Some(options)).await;
        let found = found.map_err(ContainerError::of("list the engine's networks"))?;
        // The filter also matches names that merely contain it.
        let named = found
            .into_iter()
            .filter(|network| network.name.as_deref() == Some(name));
        let mut all: Vec<_> = named.map(|network| (network.created, network.id)).collect();
        all.sort();
        Ok(all.into_iter().filter_map(|(_, id)| id).collect())
    }

    /// Makes sure that there is exactly one network called `name`.
    ///
    /// # Errors
    /// When the engine creates none, or keeps two.
    pub async fn ensure_network(&self, name: &str, labels: &Labels) -> Result<(), ContainerError> {
        let mut found = self.networks(name).await?;
        if found.is_empty() {
            let request = NetworkCreateRequest {
                name: name.to_string(),
                driver: Some("bridge".into()),
                labels: Some(labels.clone().into_iter().collect()),
                ..NetworkCreateRequest::default()
            };
            match self.docker.create_network(request).await {
                Ok(_) => {}
                Err(error) if status(&error) == Some(409) => {}
                Err(error) => return Err(ContainerError::of(format!("create the network `{name}`"))(error)),
            }
            found = self.networks(name).await?;
        }
        let mut spare = found.len().saturating_sub(1);
        for id in found.iter().rev() {
            if spare == 0 {
                break;
            }
            let is_gone = match self.docker.remove_network(id).await {
                Ok(()) => {
                    tracing::warn!(network = name, id, "removed a network that was made twice");
                    true
                }
                Err(error) if status(&error) == Some(404) => true,
                // A container uses it, so keep it and remove another one.
                Err(error) if status(&error) == Some(403) => false,
                Err(error) => {
                    let attempted = format!("remove the network `{name}` ({id}), of which there are two");
                    return Err(ContainerError::of(attempted)(error));
                }
            };
            spare -= usize::from(is_gone);
        }
        Ok(())
    }

    /// Removes every network called `name`.
    ///
    /// # Errors
    /// When a container is still in it.
    pub async fn remove_network(&self, name: &str) -> Result<(), ContainerError> {
        for id in self.networks(name).await? {
            match self.docker.remove_network(&id).await {
                Ok(()) => {}
                Err(error) if status(&error) == Some(404) => {}
                Err(error) => return Err(ContainerError::of(format!("remove the network `{name}`"))(error)),
            }
        }
        Ok(())
    }
}
