//! Containers from their creation to their removal.

use crate::{
    client::ContainerClient,
    error::{ContainerError, status},
    spec::{ContainerSpec, Labels},
};
use bollard::{
    errors::Error as DockerError,
    models::{ContainerInspectResponse, ContainerStateStatusEnum as Status},
    query_parameters::{
        CreateContainerOptionsBuilder, EventsOptionsBuilder, ListContainersOptionsBuilder,
        RemoveContainerOptionsBuilder, StopContainerOptionsBuilder, WaitContainerOptionsBuilder,
    },
};
use futures::StreamExt;
use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::time::{Instant, timeout, timeout_at};

/// How long a removal may take, including one by another process.
const REMOVAL_LIMIT: Duration = Duration::from_secs(30);
/// How long to wait for another process's removal before trying again.
const REMOVAL_TURN: Duration = Duration::from_secs(5);
/// The pause before asking an engine again that went away during a wait.
const PAUSE: Duration = Duration::from_millis(500);
/// How far back to ask for events, so that none is missed between a look and the wait for it. A larger clock difference
/// only costs a second look.
const EVENTS_SINCE: Duration = Duration::from_secs(30);

/// The phase of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Created and never started.
    Created,
    /// Started and not ended; includes paused, and between restarts by the engine.
    Running,
    #[allow(missing_docs)]
    Ended,
    /// Being removed.
    Removing,
}

/// What an engine says of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ContainerState {
    pub phase: Phase,
    /// The exit code of the last end, if there was one.
    pub exit_code: Option<i64>,
    /// Whether the kernel ended it because its memory limit was reached.
    pub out_of_memory: bool,
    /// The engine's reason why it could not start or ended; usually empty.
    pub error: String,
    /// Its address in its first network; `None` once it has ended, and if it shares another container's network.
    pub address: Option<IpAddr>,
    pub labels: Labels,
}

/// A container in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ContainerSummary {
    pub id: String,
    pub name: String,
    pub labels: Labels,
}

/// The result of creating a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Creation {
    #[allow(missing_docs)]
    Made,
    /// Another container has the name, or is about to.
    NameTaken,
}

impl ContainerState {
    #[allow(missing_docs)]
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.phase == Phase::Running
    }
}

impl ContainerClient {
    /// Makes a container and does not start it.
    ///
    /// # Errors
    /// When the engine refuses; the image has to be there.
    pub async fn create(&self, name: &str, spec: &ContainerSpec) -> Result<Creation, ContainerError> {
        let options = CreateContainerOptionsBuilder::default().name(name).build();
        match self.docker.create_container(Some(options), spec.body()).await {
            Ok(_) => Ok(Creation::Made),
            Err(error) if status(&error) == Some(409) => Ok(Creation::NameTaken),
            Err(error) => {
                let image = &spec.image;
                Err(ContainerError::of(format!(
                    "create the container `{name}` from the image `{image}`"
                ))(error))
            }
        }
    }

    /// Creates the container `name` unless it exists, and returns its phase.
    ///
    /// Another process that creates it at the same time takes the name before the container is visible; this waits for
    /// it.
    ///
    /// # Errors
    /// When the engine refuses, or the name is taken for `limit` without a visible container.
    pub async fn ensure_created(
        &self,
        name: &str,
        spec: &ContainerSpec,
        limit: Duration,
    ) -> Result<ContainerState, ContainerError> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(state) = self.inspect(name).await? {
                return Ok(state);
            }
            if self.create(name, spec).await? == Creation::NameTaken && !self.appears(name, deadline).await {
                return Err(ContainerError::other(format!("create the container `{name}`"))(
                    format!(
                        "its name is taken, and there is no container of that name after {} s",
                        limit.as_secs()
                    ),
                ));
            }
        }
    }

    /// Waits for the creation of a container called `name`; returns whether it may exist.
    async fn appears(&self, name: &str, deadline: Instant) -> bool {
        if Instant::now() >= deadline {
            return false;
        }
        let since = SystemTime::now().checked_sub(EVENTS_SINCE);
        let since = since
            .and_then(|at| at.duration_since(UNIX_EPOCH).ok())
            .unwrap_or_default();
        let filters = HashMap::from([
            ("type".to_string(), vec!["container".to_string()]),
            ("event".to_string(), vec!["create".to_string()]),
            ("container".to_string(), vec![name.to_string()]),
        ]);
        let options = EventsOptionsBuilder::default()
            .since(&since.as_secs().to_string())
            .filters(&filters)
            .build();
        let mut events = std::pin::pin!(self.docker.events(Some(options)));
        // The other process may give up without an event: then the name is free again.
        let turn = deadline.min(Instant::now() + Duration::from_secs(1));
        let _ = timeout_at(turn, events.next()).await;
        true
    }

    /// Starts a container; does nothing if it already runs.
    ///
    /// # Errors
    /// When it is not there, or its program cannot be started.
    pub async fn start(&self, name: &str) -> Result<(), ContainerError> {
        match self.docker.start_container(name, None).await {
            Ok(()) => Ok(()),
            Err(error) if status(&error) == Some(304) => Ok(()),
            Err(error) => Err(ContainerError::of(format!("start the container `{name}`"))(error)),
        }
    }

    /// The state of a container; `None` if it does not exist.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn inspect(&self, name: &str) -> Result<Option<ContainerState>, ContainerError> {
        match self.docker.inspect_container(name, None).await {
            Ok(found) => Ok(Some(state(found))),
            Err(error) if status(&error) == Some(404) => Ok(None),
            Err(error) => Err(ContainerError::of(format!("inspect the container `{name}`"))(error)),
        }
    }

    /// The containers with all of `labels`, in no particular order. An empty value matches any.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn list(&self, labels: &[(&str, &str)]) -> Result<Vec<ContainerSummary>, ContainerError> {
        let options = ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&label_filter(labels))
            .build();
        let found = self.docker.list_containers(Some(options)).await;
        let found = found.map_err(ContainerError::of("list the engine's containers"))?;
        let summaries = found.into_iter().map(|summary| {
            let name = summary.names.and_then(|names| names.into_iter().next());
            let id = summary.id.unwrap_or_default();
            ContainerSummary {
                name: name.map_or_else(|| id.clone(), |name| name.trim_start_matches('/').to_string()),
                id,
                labels: summary.labels.unwrap_or_default().into_iter().collect(),
            }
        });
        Ok(summaries.collect())
    }

    /// Waits until a container has ended, and returns its exit code. `None` when the container is gone or the code is
    /// unknown.
    ///
    /// Never gives up: waits for an engine that goes away.
    pub async fn wait(&self, name: &str) -> Option<i64> {
        loop {
            let mut waiting = std::pin::pin!(self.docker.wait_container(name, None));
            match waiting.next().await {
                Some(Ok(ended)) => return Some(ended.status_code),
                Some(Err(DockerError::DockerContainerWaitError { code, .. })) => return Some(code),
                Some(Err(error)) if status(&error) == Some(404) => return None,
                // The engine went away, or closed the connection.
                Some(Err(_)) | None => match self.inspect(name).await {
                    Ok(None) => return None,
                    Ok(Some(state)) if state.phase == Phase::Ended => return state.exit_code,
                    Ok(Some(_)) | Err(_) => tokio::time::sleep(PAUSE).await,
                },
            }
        }
    }

    /// Sends the image's stop signal, waits for `grace`, and then kills. A container that has ended or is gone counts
    /// as stopped.
    ///
    /// # Errors
    /// When the engine does not obey.
    pub async fn stop(&self, name: &str, grace: Duration) -> Result<(), ContainerError> {
        let seconds = i32::try_from(grace.as_secs().max(1)).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::default().t(seconds).build();
        let patient = self
            .docker
            .clone()
            .with_timeout(grace.saturating_add(Duration::from_secs(60)));
        match patient.stop_container(name, Some(options)).await {
            Ok(()) => Ok(()),
            Err(error) if matches!(status(&error), Some(304 | 404)) => Ok(()),
            Err(error) => Err(ContainerError::of(format!("stop the container `{name}`"))(error)),
        }
    }

    /// Kills a container and removes it with its anonymous volumes. It is gone when this returns.
    ///
    /// # Errors
    /// When the engine keeps it for longer than 30 seconds.
    pub async fn remove(&self, name: &str) -> Result<(), ContainerError> {
        let attempted = format!("remove the container `{name}`");
        let removing = async {
            loop {
                let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
                match self.docker.remove_container(name, Some(options)).await {
                    Ok(()) => return Ok(()),
                    Err(error) if status(&error) == Some(404) => return Ok(()),
                    // Another process is removing it.
                    Err(error) if status(&error) == Some(409) => {
                        if let Ok(true) = timeout(REMOVAL_TURN, self.is_removed(name)).await {
                            return Ok(());
                        }
                    }
                    Err(error) => return Err(ContainerError::of(&attempted)(error)),
                }
            }
        };
        let limit = REMOVAL_LIMIT.as_secs();
        let late = |_| {
            Err(ContainerError::other(&attempted)(format!(
                "it is still there after {limit} s"
            )))
        };
        timeout(REMOVAL_LIMIT, removing).await.unwrap_or_else(late)
    }

    /// Waits until another process's removal is over; returns whether the container is gone.
    async fn is_removed(&self, name: &str) -> bool {
        let options = WaitContainerOptionsBuilder::default().condition("removed").build();
        let mut waiting = std::pin::pin!(self.docker.wait_container(name, Some(options)));
        match waiting.next().await {
            Some(Err(error)) if status(&error) == Some(404) => true,
            Some(Ok(_) | Err(_)) | None => matches!(self.inspect(name).await, Ok(None)),
        }
    }

    /// Waits until no container is called `name`, whoever removes it.
    pub async fn wait_until_removed(&self, name: &str) {
        while !self.is_removed(name).await {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// A filter for objects with all of `labels`.
pub(crate) fn label_filter(labels: &[(&str, &str)]) -> HashMap<String, Vec<String>> {
    let labels = labels.iter().map(|(key, value)| match *value {
        "" => (*key).to_string(),
        value => format!("{key}={value}"),
    });
    HashMap::from([("label".to_string(), labels.collect())])
}

fn state(found: ContainerInspectResponse) -> ContainerState {
    let state = found.state.unwrap_or_default();
    let networks = found.network_settings.and_then(|settings| settings.networks);
    let address = networks
        .unwrap_or_default()
        .values()
        .find_map(|network| network.ip_address.as_deref()?.parse().ok());
    let phase = match state.status {
        Some(Status::CREATED) => Phase::Created,
        Some(Status::REMOVING) => Phase::Removing,
        Some(Status::EXITED | Status::DEAD) => Phase::Ended,
        Some(Status::RUNNING | Status::PAUSED | Status::RESTARTING) => Phase::Running,
        // The engine did not report a status.
        _ if state.running == Some(true) => Phase::Running,
        _ => Phase::Ended,
    };
    ContainerState {
        phase,
        exit_code: state.exit_code,
        out_of_memory: state.oom_killed.unwrap_or(false),
        error: state.error.unwrap_or_default(),
        address,
        labels: found
            .config
            .and_then(|config| config.labels)
            .unwrap_or_default()
            .into_iter()
            .collect(),
    }
}
