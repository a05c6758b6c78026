//! Resolves tags by asking the image's registry.

use crate::{
    Images, ImagesError, TagName,
    client::{ClientError, RegistryClient, Retries},
    docker_credentials,
    registry::{Registry, RepositoryName},
};
use futures::future::BoxFuture;
use towpath_types::{Digest, ImageReference};

/// The registry of images that name none.
const DOCKERS_OWN: &str = "docker.io";

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// All registries: Towpath's own by its folder, others by a client with the credentials that docker keeps on this machine.
#[derive(Clone, Default)]
pub struct RegistryImages {
    own: Option<(String, Registry)>,
    retries: Retries,
}

impl RegistryImages {
    /// Only other registries, for a process without one of its own.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds Towpath's own registry, which images call `name` (`127.0.0.1:7070`).
    #[must_use]
    pub fn with_own(mut self, name: impl Into<String>, registry: Registry) -> Self {
        self.own = Some((name.into(), registry));
        self
    }

    /// Changes how often another registry is retried.
    #[must_use]
    pub fn with_retries(mut self, retries: Retries) -> Self {
        self.retries = retries;
        self
    }

    /// Towpath's own registry, if the repository is in it.
    fn own(&self, repository: &ImageReference) -> Option<&Registry> {
        let (name, registry) = self.own.as_ref()?;
        (repository.registry.as_ref() == Some(name)).then_some(registry)
    }

    async fn client(&self, repository: &ImageReference) -> Result<RegistryClient, Cause> {
        let registry = repository.registry.as_deref().unwrap_or(DOCKERS_OWN);
        // Read the credentials each time: a helper's password may expire after hours.
        let credentials = docker_credentials(registry).await?;
        Ok(RegistryClient::new(registry, credentials)?.with_retries(self.retries))
    }

    async fn look_up(&self, image: &ImageReference) -> Result<Option<Digest>, Cause> {
        if let Some(registry) = self.own(image) {
            let name: RepositoryName = image.repository.parse()?;
            return match (&image.digest, &image.tag) {
                (Some(digest), _) => {
                    let exists = registry.manifest_exists(&name, digest).await?;
                    Ok(exists.then(|| digest.clone()))
                }
                (None, Some(tag)) => Ok(registry.resolve(&name, &tag.parse()?).await?),
                (None, None) => Ok(None),
            };
        }
        Ok(self.client(image).await?.resolve(image).await?)
    }

    async fn list(&self, repository: &ImageReference) -> Result<Vec<TagName>, Cause> {
        let mut tags = match self.own(repository) {
            Some(registry) => registry.tags(&repository.repository.parse()?).await?,
            None => match self.client(repository).await?.tags(repository).await {
                Ok(tags) => tags.iter().map(|tag| tag.parse()).collect::<Result<_, _>>()?,
                Err(ClientError::NotFound { .. }) => Vec::new(),
                Err(error) => return Err(error.into()),
            },
        };
        tags.sort();
        Ok(tags)
    }
}

fn failed(attempt: String) -> impl FnOnce(Cause) -> ImagesError {
    move |source| ImagesError { attempt, source }
}

impl Images for RegistryImages {
    fn resolve<'a>(
        &'a self,
        repository: &'a ImageReference,
        tag: &'a TagName,
    ) -> BoxFuture<'a, Result<Option<Digest>, ImagesError>> {
        Box::pin(async move {
            let image = ImageReference {
                tag: Some(tag.to_string()),
                digest: None,
                ..repository.clone()
            };
            let found = self.look_up(&image).await;
            found.map_err(failed(format!("look for `{image}`")))
        })
    }

    fn exists<'a>(
        &'a self,
        repository: &'a ImageReference,
        digest: &'a Digest,
    ) -> BoxFuture<'a, Result<bool, ImagesError>> {
        Box::pin(async move {
            let image = repository.at(digest.clone());
            let found = self.look_up(&image).await;
            let found = found.map_err(failed(format!("look for `{image}`")))?;
            Ok(found.is_some())
        })
    }

    fn tags<'a>(&'a self, repository: &'a ImageReference) -> BoxFuture<'a, Result<Vec<TagName>, ImagesError>> {
        Box::pin(async move {
            let tags = self.list(repository).await;
            tags.map_err(failed(format!("list the tags of `{}`", repository.name())))
        })
    }
}
