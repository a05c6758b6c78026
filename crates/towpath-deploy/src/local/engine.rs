//! The container engine, as far as pods need it.

use crate::target::{RegistryCredentials, TargetError};
use bollard::{
    Docker,
    auth::DockerCredentials,
    container::LogOutput,
    errors::Error as DockerError,
    exec::{CreateExecOptions, StartExecResults},
    models::{
        ContainerCreateBody, ContainerInspectResponse, ContainerSummary, HostConfig, Mount, MountType,
        MountVolumeOptions, NetworkCreateRequest,
    },
    query_parameters::{
        CreateContainerOptionsBuilder, CreateImageOptionsBuilder, ListContainersOptionsBuilder,
        ListNetworksOptionsBuilder, ListVolumesOptionsBuilder, LogsOptionsBuilder, RemoveContainerOptionsBuilder,
        StopContainerOptionsBuilder, UploadToContainerOptionsBuilder,
    },
};
use futures::{Stream, StreamExt, TryStreamExt};
use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    time::Duration,
};
use tokio::time::Instant;
use towpath_types::ImageReference;

/// How long a removal that the engine has begun may take.
const REMOVAL_LIMIT: Duration = Duration::from_secs(30);

/// The engine's API with this crate's errors. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    docker: Docker,
}

/// Why a container could not be made or an image not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// Trying again cannot help: no such image, no such user or program.
    #[error("{0}")]
    Terminal(String),
    /// It may.
    #[error("{0}")]
    Passing(String),
}

/// What a look at a container shows.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub running: bool,
    pub never_started: bool,
    pub exit_code: Option<i64>,
    pub oom_killed: bool,
    pub address: Option<IpAddr>,
    pub labels: HashMap<String, String>,
}

pub(crate) fn status(error: &DockerError) -> Option<u16> {
    match error {
        DockerError::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

fn said(error: &DockerError) -> String {
    match error {
        DockerError::DockerResponseServerError { message, .. } => message.clone(),
        DockerError::DockerStreamError { error } => error.clone(),
        other => other.to_string(),
    }
}

/// A command in a container. Dropped before it is over, it is killed: engines have no request for that, so its process is,
/// which is one of this machine's.
struct Abandoned {
    docker: Docker,
    exec: Option<String>,
}

impl Abandoned {
    fn over(mut self) {
        self.exec = None;
    }
}

impl Drop for Abandoned {
    fn drop(&mut self) {
        let (Some(exec), Ok(runtime)) = (self.exec.take(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        let docker = self.docker.clone();
        runtime.spawn(async move {
            let Ok(known) = docker.inspect_exec(&exec).await else {
                return;
            };
            let pid = known
                .pid
                .filter(|_| known.running == Some(true))
                .and_then(|pid| i32::try_from(pid).ok());
            if let Some(pid) = pid.filter(|pid| *pid > 1) {
                // Without the right to it, or gone already: there is nothing more to do.
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
            }
        });
    }
}

impl Engine {
    pub(crate) async fn connect() -> Result<Self, TargetError> {
        let docker = Docker::connect_with_defaults()
            .map_err(TargetError::failed(
                "reach the container engine that `DOCKER_HOST` names",
            ))?
            .negotiate_version()
            .await
            .map_err(TargetError::failed(
                "talk to the container engine; is it running, and may this user open its socket",
            ))?;
        Ok(Self { docker })
    }

    // Images.

    pub(crate) async fn has_image(&self, image: &str) -> Result<bool, StartError> {
        match self.docker.inspect_image(image).await {
            Ok(_) => Ok(true),
            Err(error) if status(&error) == Some(404) => Ok(false),
            Err(error) => Err(StartError::Passing(format!(
                "cannot look for the image `{image}`: {}",
                said(&error)
            ))),
        }
    }

    /// The user that the image runs as; empty for root.
    pub(crate) async fn image_user(&self, image: &str) -> Result<String, StartError> {
        match self.docker.inspect_image(image).await {
            Ok(found) => Ok(found.config.and_then(|config| config.user).unwrap_or_default()),
            Err(error) => Err(StartError::Passing(format!(
                "cannot inspect the image `{image}`: {}",
                said(&error)
            ))),
        }
    }

    pub(crate) async fn pull(
        &self,
        image: &ImageReference,
        credentials: Option<&RegistryCredentials>,
    ) -> Result<(), StartError> {
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
        let pulled: Result<Vec<()>, DockerError> = self
            .docker
            .create_image(
                Some(options),
                None,
                credentials.map(|given| docker_credentials(given, image)),
            )
            .map_ok(|_| ())
            .try_collect()
            .await;
        pulled.map(|_| ()).map_err(|error| missing_or_passing(image, &error))
    }

    /// Whether the registry has `image`; `Err` says why nobody knows.
    pub(crate) async fn registry_has(
        &self,
        image: &ImageReference,
        credentials: Option<&RegistryCredentials>,
    ) -> Result<(), StartError> {
        let credentials = credentials.map(|given| docker_credentials(given, image));
        match self
            .docker
            .inspect_registry_image(&image.to_string(), credentials)
            .await
        {
            Ok(_) => Ok(()),
            Err(error) => Err(missing_or_passing(image, &error)),
        }
    }

    pub(crate) async fn load_image(&self, archive: Vec<u8>) -> Result<(), TargetError> {
        let options = bollard::query_parameters::ImportImageOptionsBuilder::default().build();
        let loaded: Result<Vec<()>, DockerError> = self
            .docker
            .import_image(options, bollard::body_full(archive.into()), None)
            .map_ok(|_| ())
            .try_collect()
            .await;
        loaded
            .map(|_| ())
            .map_err(TargetError::failed("load the proxy's image into the engine"))
    }

    // Containers.

    pub(crate) async fn inspect(&self, name: &str) -> Result<Option<Seen>, TargetError> {
        match self.docker.inspect_container(name, None).await {
            Ok(found) => Ok(Some(seen(found))),
            Err(error) if status(&error) == Some(404) => Ok(None),
            Err(error) => Err(TargetError::failed(format!("inspect the container `{name}`"))(error)),
        }
    }

    /// Makes a container. One that has the name already is the same one.
    pub(crate) async fn create(&self, name: &str, body: ContainerCreateBody) -> Result<(), StartError> {
        let options = CreateContainerOptionsBuilder::default().name(name).build();
        match self.docker.create_container(Some(options), body).await {
            Ok(_) => Ok(()),
            Err(error) if status(&error) == Some(409) => Ok(()),
            Err(error) => Err(cannot_start("create", name, &error)),
        }
    }

    pub(crate) async fn start(&self, name: &str) -> Result<(), StartError> {
        match self.docker.start_container(name, None).await {
            Ok(()) => Ok(()),
            Err(error) if status(&error) == Some(304) => Ok(()),
            Err(error) => Err(cannot_start("start", name, &error)),
        }
    }

    pub(crate) async fn list(&self, labels: &[(&str, &str)]) -> Result<Vec<ContainerSummary>, TargetError> {
        let options = ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&filters(labels))
            .build();
        self.docker
            .list_containers(Some(options))
            .await
            .map_err(TargetError::failed("list the environments' containers"))
    }

    /// Waits until the container has ended; its exit code. `None` when it is gone.
    pub(crate) async fn wait(&self, name: &str) -> Option<i64> {
        loop {
            let mut waiting = self.docker.wait_container(name, None);
            match waiting.next().await {
                Some(Ok(ended)) => return Some(ended.status_code),
                Some(Err(DockerError::DockerContainerWaitError { code, .. })) => return Some(code),
                Some(Err(error)) if status(&error) == Some(404) => return None,
                // The engine went away, or the wait took longer than a request may.
                Some(Err(_)) | None => match self.inspect(name).await {
                    Ok(None) => return None,
                    Ok(Some(seen)) if !seen.running => return seen.exit_code,
                    _ => tokio::time::sleep(Duration::from_millis(500)).await,
                },
            }
        }
    }

    /// Sends the image's stop signal, waits for `grace`, kills. A container that is gone is stopped.
    pub(crate) async fn stop(&self, name: &str, grace: Duration) -> Result<(), TargetError> {
        let seconds = i32::try_from(grace.as_secs().max(1)).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::default().t(seconds).build();
        let patient = self.docker.clone().with_timeout(grace + Duration::from_secs(60));
        match patient.stop_container(name, Some(options)).await {
            Ok(()) => Ok(()),
            Err(error) if matches!(status(&error), Some(304 | 404)) => Ok(()),
            Err(error) => Err(TargetError::failed(format!("stop the container `{name}`"))(error)),
        }
    }

    /// Kills and removes; gone when this returns.
    pub(crate) async fn remove(&self, name: &str) -> Result<(), TargetError> {
        let deadline = Instant::now() + REMOVAL_LIMIT;
        loop {
            let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
            match self.docker.remove_container(name, Some(options)).await {
                Ok(()) => return Ok(()),
                Err(error) if status(&error) == Some(404) => return Ok(()),
                // Somebody else removes it: it is gone when they are through.
                Err(error) if status(&error) == Some(409) && Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(error) => return Err(TargetError::failed(format!("remove the container `{name}`"))(error)),
            }
        }
    }

    /// Runs a command in a container; its exit code and what it printed.
    pub(crate) async fn exec(&self, name: &str, command: &[String]) -> Result<(i64, String), TargetError> {
        let attempted = || {
            format!(
                "run `{}` in the container `{name}`",
                command.first().map_or("", String::as_str)
            )
        };
        let options = CreateExecOptions {
            cmd: Some(command.to_vec()),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..CreateExecOptions::default()
        };
        let exec = self
            .docker
            .create_exec(name, options)
            .await
            .map_err(TargetError::failed(attempted()))?;
        // Nobody waits for it any more when this is dropped: a probe's time is up, say.
        let abandoned = Abandoned {
            docker: self.docker.clone(),
            exec: Some(exec.id.clone()),
        };
        let mut printed = Vec::new();
        if let StartExecResults::Attached { mut output, .. } = self
            .docker
            .start_exec(&exec.id, None)
            .await
            .map_err(TargetError::failed(attempted()))?
        {
            while let Some(piece) = output.next().await {
                let piece = piece.map_err(TargetError::failed(attempted()))?;
                if printed.len() < 4096 {
                    printed.extend_from_slice(piece.as_ref());
                }
            }
        }
        let ended = self
            .docker
            .inspect_exec(&exec.id)
            .await
            .map_err(TargetError::failed(attempted()))?;
        abandoned.over();
        Ok((
            ended.exit_code.unwrap_or(-1),
            String::from_utf8_lossy(&printed).trim().to_string(),
        ))
    }

    /// What a container prints; `tail` of `None` is all of it.
    pub(crate) fn logs(
        &self,
        name: &str,
        tail: Option<u32>,
        follow: bool,
    ) -> impl Stream<Item = Result<LogOutput, DockerError>> + Send + 'static + use<> {
        let tail = tail.map_or_else(|| "all".to_string(), |tail| tail.to_string());
        let options = LogsOptionsBuilder::default()
            .stdout(true)
            .stderr(true)
            .follow(follow)
            .tail(&tail)
            .build();
        self.docker.logs(name, Some(options))
    }

    // Networks and volumes.

    /// The ids of the networks called `name`, the oldest first. The name of a network is not unique: of two requests
    /// at once, or before and after a `kill -9`, each may get one, and from then on the engine takes the name for ambiguous.
    async fn networks(&self, name: &str) -> Result<Vec<String>, TargetError> {
        let options = ListNetworksOptionsBuilder::default()
            .filters(&HashMap::from([("name".to_string(), vec![name.to_string()])]))
            .build();
        let found = self
            .docker
            .list_networks(Some(options))
            .await
            .map_err(TargetError::failed("list the engine's networks"))?;
        // The filter takes names that merely contain it.
        let named = found
            .into_iter()
            .filter(|network| network.name.as_deref() == Some(name));
        let mut all: Vec<_> = named.map(|network| (network.created, network.id)).collect();
        all.sort();
        Ok(all.into_iter().filter_map(|(_, id)| id).collect())
    }

    /// Makes sure that there is one network called `name`, and not two.
    pub(crate) async fn ensure_network(&self, name: &str, labels: HashMap<String, String>) -> Result<(), TargetError> {
        let mut found = self.networks(name).await?;
        if found.is_empty() {
            let request = NetworkCreateRequest {
                name: name.to_string(),
                driver: Some("bridge".into()),
                labels: Some(labels),
                ..NetworkCreateRequest::default()
            };
            match self.docker.create_network(request).await {
                Ok(_) => {}
                Err(error) if status(&error) == Some(409) => {}
                Err(error) => return Err(TargetError::failed(format!("create the network `{name}`"))(error)),
            }
            found = self.networks(name).await?;
        }
        let mut spare = found.len().saturating_sub(1);
        for id in found.iter().rev() {
            if spare == 0 {
                break;
            }
            match self.docker.remove_network(id).await {
                Ok(()) => tracing::warn!(network = name, id, "removed a network that was made twice"),
                Err(error) if status(&error) == Some(404) => {}
                // Something runs in it: another one is the one too many.
                Err(error) if status(&error) == Some(403) => continue,
                Err(error) => {
                    let attempted = format!("remove the network `{name}` ({id}), of which there are two");
                    return Err(TargetError::failed(attempted)(error));
                }
            }
            spare -= 1;
        }
        Ok(())
    }

    pub(crate) async fn remove_network(&self, name: &str) -> Result<(), TargetError> {
        for id in self.networks(name).await? {
            match self.docker.remove_network(&id).await {
                Ok(()) => {}
                Err(error) if status(&error) == Some(404) => {}
                Err(error) => return Err(TargetError::failed(format!("remove the network `{name}`"))(error)),
            }
        }
        Ok(())
    }

    /// Whether the volume is there and [`Engine::open_volume`] got to its end.
    pub(crate) async fn is_open_volume(&self, name: &str) -> Result<bool, TargetError> {
        match self.docker.inspect_volume(name).await {
            Ok(_) => Ok(self.inspect(&opener(name)).await?.is_none()),
            Err(error) if status(&error) == Some(404) => Ok(false),
            Err(error) => Err(TargetError::failed(format!("look for the volume `{name}`"))(error)),
        }
    }

    /// Makes a volume that every user may write to the root of. The engine changes a volume only through a container; this
    /// one is made of `image`, together with the volume, and never started. As long as it is there, the volume is not ready.
    pub(crate) async fn open_volume(
        &self,
        volume: &str,
        image: &str,
        labels: HashMap<String, String>,
    ) -> Result<(), TargetError> {
        let attempted = || format!("let every user write to the volume `{volume}`");
        let archive = open_folder(OPENED).map_err(TargetError::failed(attempted()))?;
        let name = opener(volume);
        let body = ContainerCreateBody {
            image: Some(image.to_string()),
            labels: Some(labels.clone()),
            host_config: Some(HostConfig {
                mounts: Some(vec![Mount {
                    typ: Some(MountType::VOLUME),
                    source: Some(volume.to_string()),
                    target: Some(format!("/{OPENED}")),
                    volume_options: Some(MountVolumeOptions {
                        labels: Some(labels),
                        ..MountVolumeOptions::default()
                    }),
                    ..Mount::default()
                }]),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        self.create(&name, body)
            .await
            .map_err(TargetError::failed(attempted()))?;
        // The archive holds the folder itself: engines take what is said of `.` for no change.
        let options = UploadToContainerOptionsBuilder::default().path("/").build();
        self.docker
            .upload_to_container(&name, Some(options), bollard::body_full(archive.into()))
            .await
            .map_err(TargetError::failed(attempted()))?;
        self.remove(&name).await
    }

    pub(crate) async fn remove_volume(&self, name: &str) -> Result<(), TargetError> {
        match self
            .docker
            .remove_volume(name, None::<bollard::query_parameters::RemoveVolumeOptions>)
            .await
        {
            Ok(()) => Ok(()),
            Err(error) if status(&error) == Some(404) => Ok(()),
            Err(error) => Err(TargetError::failed(format!("remove the volume `{name}`"))(error)),
        }
    }

    pub(crate) async fn volumes(&self, labels: &[(&str, &str)]) -> Result<Vec<String>, TargetError> {
        let options = ListVolumesOptionsBuilder::default().filters(&filters(labels)).build();
        let found = self
            .docker
            .list_volumes(Some(options))
            .await
            .map_err(TargetError::failed("list the engine's volumes"))?;
        Ok(found
            .volumes
            .unwrap_or_default()
            .into_iter()
            .map(|volume| volume.name)
            .collect())
    }
}

/// Where a volume is mounted while it is opened.
const OPENED: &str = "volume";

fn opener(volume: &str) -> String {
    format!("{volume}-opener")
}

/// An archive of one folder that every user may write to.
fn open_folder(name: &str) -> std::io::Result<Vec<u8>> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(0o777);
    header.set_size(0);
    header.set_mtime(now.map_or(0, |since| since.as_secs()));
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header, format!("{name}/"), std::io::empty())?;
    archive.into_inner()
}

fn filters(labels: &[(&str, &str)]) -> HashMap<String, Vec<String>> {
    let labels = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    HashMap::from([("label".to_string(), labels)])
}

fn seen(found: ContainerInspectResponse) -> Seen {
    let state = found.state.unwrap_or_default();
    let networks = found
        .network_settings
        .and_then(|settings| settings.networks)
        .unwrap_or_default();
    let address = networks
        .values()
        .find_map(|network| network.ip_address.as_deref()?.parse().ok());
    Seen {
        running: state.running.unwrap_or(false),
        never_started: state.status == Some(bollard::models::ContainerStateStatusEnum::CREATED),
        exit_code: state.exit_code,
        oom_killed: state.oom_killed.unwrap_or(false),
        address,
        labels: found.config.and_then(|config| config.labels).unwrap_or_default(),
    }
}

fn docker_credentials(given: &RegistryCredentials, image: &ImageReference) -> DockerCredentials {
    DockerCredentials {
        username: Some(given.username.clone()),
        password: Some(given.password.expose().to_string()),
        serveraddress: image.registry.clone(),
        ..DockerCredentials::default()
    }
}

/// Engines say in words only whether an image does not exist, so the words are what is looked at.
fn missing_or_passing(image: &ImageReference, error: &DockerError) -> StartError {
    let text = said(error);
    let low = text.to_lowercase();
    let terminal = [
        "not found",
        "manifest unknown",
        "does not exist",
        "access denied",
        "unauthorized",
        "no basic auth",
    ];
    if terminal.iter().any(|words| low.contains(words)) && !low.contains("no such host") {
        StartError::Terminal(format!(
            "the image `{image}` cannot be pulled: {text}; is it pushed, and may this server read it?"
        ))
    } else {
        StartError::Passing(format!("the image `{image}` cannot be pulled: {text}"))
    }
}

fn cannot_start(verb: &str, name: &str, error: &DockerError) -> StartError {
    let text = format!("cannot {verb} the container `{name}`: {}", said(error));
    let low = text.to_lowercase();
    // 400 is what can never be: no such program, user or option. 404 with a network in it is a race with its removal.
    let never = status(error) == Some(400)
        || [
            "executable file not found",
            "no such file or directory: unknown",
            "unable to find user",
            "exec format error",
        ]
        .iter()
        .any(|words| low.contains(words));
    if never {
        StartError::Terminal(text)
    } else {
        StartError::Passing(text)
    }
}

/// The containers' names by the value of one of their labels.
pub(crate) fn names_by_label(containers: &[ContainerSummary], label: &str) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for container in containers {
        let value = container.labels.as_ref().and_then(|labels| labels.get(label));
        let name = container.names.as_ref().and_then(|names| names.first());
        if let (Some(value), Some(name)) = (value, name) {
            found
                .entry(value.clone())
                .or_default()
                .push(name.trim_start_matches('/').to_string());
        }
    }
    found
}
