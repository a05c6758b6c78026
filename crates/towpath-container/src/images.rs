//! Images: which are there, pulling, loading, building, naming and pushing them.

use crate::{
    client::ContainerClient,
    error::{ContainerError, PullError, status},
    spec::Labels,
};
use bollard::{
    auth::DockerCredentials,
    errors::Error as DockerError,
    query_parameters::{
        BuildImageOptionsBuilder, CreateImageOptionsBuilder, ImportImageOptionsBuilder, PushImageOptionsBuilder,
        RemoveImageOptionsBuilder, TagImageOptionsBuilder,
    },
};
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream::BoxStream};
use std::{collections::BTreeMap, io, time::Duration};
use towpath_types::{ImageReference, RegistryCredentials};

/// Disables the library's timeout for the beginning of an answer. A build and a push answer only when the engine has
/// received everything; callers that need a limit set their own.
const NO_LIMIT: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How long an engine may take to read an archive.
const LOAD_LIMIT: Duration = Duration::from_secs(600);

/// How an image is built.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct BuildSettings {
    /// The Dockerfile's name in the archive.
    pub dockerfile: String,
    /// Build arguments. The image's history shows them, so do not pass secrets.
    pub arguments: BTreeMap<String, String>,
    pub labels: Labels,
    /// The stage to stop at; the last one when `None`.
    pub target: Option<String>,
    /// Credentials for base images, by registry.
    pub credentials: BTreeMap<String, RegistryCredentials>,
}

/// What an engine says while it builds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildProgress {
    /// A piece of the output; lines may be cut anywhere.
    Printed(String),
    /// The status of an item: a layer being pulled, by its id.
    Status {
        #[allow(missing_docs)]
        id: Option<String>,
        #[allow(missing_docs)]
        text: String,
    },
    /// The id of the image that was built, `sha256:…`.
    Built(String),
}

/// What an engine says while it pushes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct PushProgress {
    pub text: String,
    /// Whether it is about one of several layers. The engine's library drops which.
    pub is_of_a_layer: bool,
}

/// Credentials in the engine's form; the engine talks to the registry for us.
fn for_registry(credentials: &RegistryCredentials, registry: &str) -> DockerCredentials {
    DockerCredentials {
        username: Some(credentials.username.clone()),
        password: Some(credentials.password.expose().to_string()),
        serveraddress: Some(registry.to_string()),
        ..DockerCredentials::default()
    }
}

fn for_image(credentials: &RegistryCredentials, image: &ImageReference) -> DockerCredentials {
    DockerCredentials {
        serveraddress: image.registry.clone(),
        ..for_registry(credentials, "")
    }
}

impl ContainerClient {
    /// Whether the engine has an image with that reference or id.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn has_image(&self, image: &str) -> Result<bool, ContainerError> {
        match self.docker.inspect_image(image).await {
            Ok(_) => Ok(true),
            Err(error) if status(&error) == Some(404) => Ok(false),
            Err(error) => Err(ContainerError::of(format!("look for the image `{image}`"))(error)),
        }
    }

    /// The user that an image runs as; empty for root.
    ///
    /// # Errors
    /// When the engine has no such image.
    pub async fn image_user(&self, image: &str) -> Result<String, ContainerError> {
        let found = self.docker.inspect_image(image).await;
        let found = found.map_err(ContainerError::of(format!("inspect the image `{image}`")))?;
        Ok(found.config.and_then(|config| config.user).unwrap_or_default())
    }

    /// Pulls an image. A digest overrides a tag; the default is `latest`.
    ///
    /// # Errors
    /// See [`PullError`].
    pub async fn pull(
        &self,
        image: &ImageReference,
        credentials: Option<&RegistryCredentials>,
    ) -> Result<(), PullError> {
        // Without a tag the engine would pull every tag of the repository.
        let tag = match (&image.tag, &image.digest) {
            (_, Some(digest)) => digest.to_string(),
            (Some(tag), None) => tag.clone(),
            (None, None) => "latest".to_string(),
        };
        let options = CreateImageOptionsBuilder::default()
            .from_image(&image.name())
            .tag(&tag)
            .build();
        let credentials = credentials.map(|given| for_image(given, image));
        let pulled = self.docker.create_image(Some(options), None, credentials);
        drained(pulled).await.map_err(|error| PullError::of(image, error))
    }

    /// Whether the registry has an image, without pulling it.
    ///
    /// # Errors
    /// When it does not have the image, or does not answer: see [`PullError`].
    pub async fn find_in_registry(
        &self,
        image: &ImageReference,
        credentials: Option<&RegistryCredentials>,
    ) -> Result<(), PullError> {
        let credentials = credentials.map(|given| for_image(given, image));
        let found = self
            .docker
            .inspect_registry_image(&image.to_string(), credentials)
            .await;
        found.map(drop).map_err(|error| PullError::of(image, error))
    }

    /// Loads the images in an archive in the format of `docker save`.
    ///
    /// # Errors
    /// When the engine does not take it, or `archive` breaks off.
    pub async fn load(
        &self,
        archive: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<(), ContainerError> {
        let docker = self.docker.clone().with_timeout(LOAD_LIMIT);
        let options = ImportImageOptionsBuilder::default().quiet(true).build();
        let loaded = docker.import_image(options, bollard::body_try_stream(archive), None);
        drained(loaded)
            .await
            .map_err(ContainerError::of("load an image into the container engine"))
    }

    /// Builds an image from an archive with a Dockerfile. Dropping the stream ends the build.
    pub fn build(
        &self,
        settings: &BuildSettings,
        archive: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> BoxStream<'static, Result<BuildProgress, ContainerError>> {
        let mut options = BuildImageOptionsBuilder::default()
            .dockerfile(&settings.dockerfile)
            .rm(true)
            .forcerm(true)
            .buildargs(&settings.arguments.clone().into_iter().collect())
            .labels(&settings.labels.clone().into_iter().collect());
        if let Some(target) = &settings.target {
            options = options.target(target);
        }
        let logins = settings.credentials.iter();
        let logins = logins
            .map(|(registry, credentials)| (registry.clone(), for_registry(credentials, registry)))
            .collect();
        let docker = self.docker.clone().with_timeout(NO_LIMIT);
        let failed = ContainerError::of("build an image");
        let body = bollard::body_try_stream(archive);
        let progress = async_stream::try_stream! {
            let mut answers = std::pin::pin!(docker.build_image(options.build(), Some(logins), Some(body)));
            while let Some(answer) = answers.try_next().await.map_err(&failed)? {
                if let Some(text) = answer.stream {
                    yield BuildProgress::Printed(text);
                }
                if let Some(text) = answer.status {
                    yield BuildProgress::Status { id: answer.id, text };
                }
                if let Some(id) = answer.aux.and_then(|aux| aux.id) {
                    yield BuildProgress::Built(id);
                }
            }
        };
        progress.boxed()
    }

    /// Pushes an image that the engine has under this name and tag (`latest` without one) to its registry.
    pub fn push(
        &self,
        image: &ImageReference,
        credentials: Option<&RegistryCredentials>,
    ) -> BoxStream<'static, Result<PushProgress, ContainerError>> {
        let tag = image.tag.as_deref().unwrap_or("latest");
        let options = PushImageOptionsBuilder::default().tag(tag).build();
        let login = credentials.map(|given| for_image(given, image));
        let docker = self.docker.clone().with_timeout(NO_LIMIT);
        let attempted = format!("push the image `{image}`");
        let answers = docker.push_image(&image.name(), Some(options), login);
        let progress = answers.filter_map(move |answer| {
            let progress = match answer {
                Ok(answer) => answer.status.map(|text| {
                    Ok(PushProgress {
                        text,
                        is_of_a_layer: answer.progress_detail.is_some(),
                    })
                }),
                Err(error) => Some(Err(ContainerError::of(attempted.clone())(error))),
            };
            std::future::ready(progress)
        });
        progress.boxed()
    }

    /// Removes an image's name, and the image itself with its last name.
    ///
    /// # Errors
    /// When a container that runs uses it.
    pub async fn remove_image(&self, image: &str) -> Result<(), ContainerError> {
        let options = RemoveImageOptionsBuilder::default().force(true).build();
        match self.docker.remove_image(image, Some(options), None).await {
            Ok(_) => Ok(()),
            Err(error) if status(&error) == Some(404) => Ok(()),
            Err(error) => Err(ContainerError::of(format!("remove the image `{image}`"))(error)),
        }
    }

    /// Gives an image in the engine another name, with its tag or `latest`.
    ///
    /// # Errors
    /// When the engine has no such image.
    pub async fn tag(&self, image: &str, name: &ImageReference) -> Result<(), ContainerError> {
        let options = TagImageOptionsBuilder::default()
            .repo(&name.name())
            .tag(name.tag.as_deref().unwrap_or("latest"))
            .build();
        let tagged = self.docker.tag_image(image, Some(options)).await;
        tagged.map_err(ContainerError::of(format!("tag the image `{image}` as `{name}`")))
    }
}

async fn drained<T>(answers: impl Stream<Item = Result<T, DockerError>>) -> Result<(), DockerError> {
    let mut answers = std::pin::pin!(answers);
    while answers.try_next().await?.is_some() {}
    Ok(())
}
