//! A job's environment as containers of one engine that share one network.

use crate::engine::{
    Capacity, Container, Engine, EngineError, EnvironmentKind, EnvironmentRequest, EnvironmentState, Limits,
    MOST_PROCESSES, ServiceLog,
};
use futures::{FutureExt, future::BoxFuture};
use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::Instant;
use towpath_container::{
    ContainerClient, ContainerSpec, ContainerSummary, Labels, LogLimit, Mount, Network, Phase, PullError, PullFailure,
};
use towpath_protocol::variable;
use towpath_types::{EngineName, ImageReference, NodeId, RegistryCredentials, SecretString};

const INSTANCE_LABEL: &str = "dev.towpath.instance";
const JOB_LABEL: &str = "dev.towpath.job";
const ATTEMPT_LABEL: &str = "dev.towpath.attempt";
const NODE_LABEL: &str = "dev.towpath.node";
/// The label of a service: its index and its name.
const SERVICE_LABEL: &str = "dev.towpath.service";

const AGENT_BINARY: &str = "/towpath/bin/towpath";
const SOCKET_DIRECTORY: &str = "/towpath/socket";
const STATE_DIRECTORY: &str = "/towpath/state";

/// How long a stopped agent has to end its steps before the engine kills it. The agent gives its steps less time.
const GRACE: Duration = Duration::from_secs(15);
/// How long new containers may keep appearing while an environment is being stopped.
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// How long to wait while another caller creates the same container.
const CREATION_LIMIT: Duration = Duration::from_secs(30);
/// The most bytes of a service's output that the engine passes on.
const SERVICE_LOG_BYTES: usize = 1 << 20;
/// The most bytes of a dead agent's own output that the engine passes on.
const AGENT_LOG_BYTES: usize = 4 << 10;
/// Limits how much of a container's output the host's disk holds.
const LOG_LIMIT: LogLimit = LogLimit { mebibytes: 10 };

/// The surroundings of a [`DockerEngine`].
#[derive(Debug, Clone)]
pub struct DockerOptions {
    /// The data directory's instance. The engine labels everything that it makes with it, and touches nothing without that
    /// label.
    pub instance: String,
    /// The agent's static binary on the engine's host. Containers see it read-only.
    pub agent_binary: PathBuf,
    /// The agent socket on the engine's host. The engine mounts its *directory* into containers, so that they find the socket
    /// that a restarted server makes. Every user has to be able to connect to it: the token protects it.
    pub agent_socket: PathBuf,
}

/// An engine that speaks Docker's API.
#[derive(Debug, Clone)]
pub struct DockerEngine {
    client: ContainerClient,
    name: EngineName,
    capacity: Capacity,
    options: DockerOptions,
    socket_inside: String,
}

impl DockerEngine {
    /// Connects to the engine that `DOCKER_HOST` names, or to the one at the usual socket.
    ///
    /// # Errors
    /// When there is no engine, the engine does not answer, or a path in `options` is not absolute UTF-8.
    pub async fn connect(options: DockerOptions) -> Result<Self, EngineError> {
        let socket_name = socket_name(&options)?;
        let client = ContainerClient::connect().await?;
        let info = client.info().await?;
        Ok(Self {
            client,
            name: EngineName::new("docker", &info.id, &options.instance),
            capacity: Capacity {
                cpu_millis: info.processors.saturating_mul(1000),
                memory_bytes: info.memory_bytes,
            },
            socket_inside: format!("{SOCKET_DIRECTORY}/{socket_name}"),
            options,
        })
    }

    /// The Unix socket of the engine that [`Self::connect`] connects to, if it is on this machine.
    #[must_use]
    pub fn socket() -> Option<PathBuf> {
        ContainerClient::socket()
    }

    async fn pull_if_absent(
        &self,
        image: &ImageReference,
        credentials: Option<&RegistryCredentials>,
    ) -> Result<(), EngineError> {
        if self.client.has_image(&image.to_string()).await? {
            return Ok(());
        }
        tracing::info!(%image, "pulling an image");
        let pulled = self.client.pull(image, credentials).await;
        pulled.map_err(|error| pull_error(error, credentials.is_some()))
    }

    /// Gives the agent what it needs to run as any user in any image: a state directory and a `/tmp` that everybody may write
    /// to. They are in the container's own layer, so they vanish with it and need no rights on the host.
    async fn prepare(&self, container: &str) -> Result<(), EngineError> {
        let has_tmp = self.client.has_path(container, "/tmp").await?;
        let attempted = format!("prepare the container `{container}`");
        let archive = directories(has_tmp).map_err(EngineError::failed(attempted))?;
        Ok(self.client.unpack(container, "/", archive).await?)
    }

    /// Creates and starts a container, unless that is already done.
    async fn ensure_started(&self, name: &str, spec: &ContainerSpec, is_primary: bool) -> Result<(), EngineError> {
        let state = self.client.ensure_created(name, spec, CREATION_LIMIT).await?;
        if state.phase != Phase::Created {
            return Ok(());
        }
        if is_primary {
            self.prepare(name).await?;
        }
        Ok(self.client.start(name).await?)
    }

    fn labels(&self, id: &NodeId) -> Labels {
        Labels::from([
            (INSTANCE_LABEL.to_string(), self.options.instance.clone()),
            (JOB_LABEL.to_string(), id.job.to_string()),
            (ATTEMPT_LABEL.to_string(), id.attempt.to_string()),
            (NODE_LABEL.to_string(), id.node.to_string()),
        ])
    }

    async fn containers_of(&self, id: &NodeId) -> Result<Vec<ContainerSummary>, EngineError> {
        let labels = self.labels(id);
        let labels: Vec<(&str, &str)> = labels
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        Ok(self.client.list(&labels).await?)
    }

    fn primary_spec(
        &self,
        id: &NodeId,
        token: &SecretString,
        primary: &Container,
        services: &[Container],
        limits: Option<Limits>,
    ) -> ContainerSpec {
        let mut environment = environment_of(primary);
        environment.extend([
            (
                variable::AGENT_SOCKET.to_string(),
                SecretString::new(self.socket_inside.clone()),
            ),
            (variable::AGENT_TOKEN.to_string(), token.clone()),
            (
                variable::STATE_DIR.to_string(),
                SecretString::new(STATE_DIRECTORY.to_string()),
            ),
        ]);
        let names = services.iter().filter_map(|service| service.name.clone());
        let socket_directory = self.options.agent_socket.parent().unwrap_or(Path::new("/"));
        ContainerSpec {
            image: primary.image.to_string(),
            entrypoint: Some(vec![AGENT_BINARY.to_string(), "agent".to_string()]),
            command: Some(Vec::new()),
            // The image's working directory is meant for the image's entrypoint, which the agent replaces.
            working_directory: Some("/".to_string()),
            user: primary.user.clone(),
            environment,
            labels: self.labels(id),
            hosts: names.map(|name| (name, IpAddr::V4(Ipv4Addr::LOCALHOST))).collect(),
            mounts: vec![
                Mount::read_only_host(&self.options.agent_binary, AGENT_BINARY),
                Mount::read_only_host(socket_directory, SOCKET_DIRECTORY),
            ],
            stop_timeout: Some(GRACE),
            limits: engine_limits(limits),
            log_limit: Some(LOG_LIMIT),
            ..ContainerSpec::default()
        }
    }

    fn service_spec(&self, id: &NodeId, index: usize, service: &Container, limits: Option<Limits>) -> ContainerSpec {
        let mut labels = self.labels(id);
        let shown = service.name.clone().unwrap_or_else(|| service.image.to_string());
        labels.insert(SERVICE_LABEL.to_string(), format!("{index:03} {shown}"));
        ContainerSpec {
            image: service.image.to_string(),
            entrypoint: service.entrypoint.clone(),
            command: service.command.clone(),
            user: service.user.clone(),
            environment: environment_of(service),
            labels,
            network: Network::OfContainer(primary_name(id)),
            limits: engine_limits(limits),
            log_limit: Some(LOG_LIMIT),
            ..ContainerSpec::default()
        }
    }

    async fn start_environment(&self, request: &EnvironmentRequest) -> Result<(), EngineError> {
        let EnvironmentKind::Docker { primary, services } = &request.kind else {
            return Err(EngineError::Refused {
                message: "this job asks for a machine, and a container engine runs containers only".to_string(),
            });
        };
        let name = primary_name(&request.id);
        // Do not restart a container that has ended, nor the services around it.
        if let Some(state) = self.client.inspect(&name).await?
            && state.phase == Phase::Ended
        {
            return Ok(());
        }
        for container in std::iter::once(primary).chain(services) {
            self.pull_if_absent(&container.image, container.credentials.as_ref())
                .await?;
        }
        let spec = self.primary_spec(&request.id, &request.token, primary, services, request.limits);
        self.ensure_started(&name, &spec, true).await?;
        for (index, service) in services.iter().enumerate() {
            let spec = self.service_spec(&request.id, index, service, request.limits);
            self.ensure_started(&format!("{name}-service-{index}"), &spec, false)
                .await?;
        }
        Ok(())
    }

    async fn state_of(&self, id: &NodeId) -> Result<EnvironmentState, EngineError> {
        let name = primary_name(id);
        let Some(state) = self.client.inspect(&name).await? else {
            return Ok(EnvironmentState::Absent);
        };
        match state.phase {
            // Half made: the server crashed between creating and starting it.
            Phase::Created | Phase::Removing => Ok(EnvironmentState::Absent),
            Phase::Running => Ok(EnvironmentState::Running),
            Phase::Ended => {
                let killed = "the kernel killed it because its memory limit was reached".to_string();
                let words = self.client.last_output(&name, AGENT_LOG_BYTES).await?;
                let words = String::from_utf8_lossy(&words).trim().to_string();
                let details = [state.out_of_memory.then_some(killed), Some(state.error), Some(words)];
                let details = details.into_iter().flatten().filter(|text| !text.is_empty());
                Ok(EnvironmentState::Exited {
                    code: state.exit_code,
                    detail: details.collect::<Vec<_>>().join("\n"),
                })
            }
        }
    }

    async fn stop_environment(&self, id: &NodeId) -> Result<(), EngineError> {
        let ours = self.containers_of(id).await?;
        let is_primary = |container: &&ContainerSummary| !container.labels.contains_key(SERVICE_LABEL);
        if let Some(primary) = ours.iter().find(is_primary) {
            self.client.stop(&primary.id, GRACE).await?;
        }
        // List the containers again each time: a start that was under way may have created another one.
        let deadline = Instant::now() + STOP_LIMIT;
        loop {
            let left = self.containers_of(id).await?;
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                let attempted = format!("remove the containers of the job {id}");
                let seconds = STOP_LIMIT.as_secs();
                return Err(EngineError::failed(attempted)(format!(
                    "new ones were still being made after {seconds} s"
                )));
            }
            for container in left {
                self.client.remove(&container.id).await?;
            }
        }
    }

    async fn list_environments(&self) -> Result<Vec<NodeId>, EngineError> {
        let labels = [(INSTANCE_LABEL, self.options.instance.as_str()), (JOB_LABEL, "")];
        let mut found = BTreeSet::new();
        for container in self.client.list(&labels).await? {
            match node_of(&container.labels) {
                Some(id) => drop(found.insert(id)),
                None => tracing::warn!(
                    container = container.name,
                    "a container has the labels of a job that no Towpath writes; remove it by hand"
                ),
            }
        }
        Ok(found.into_iter().collect())
    }

    async fn logs_of_services(&self, id: &NodeId) -> Result<Vec<ServiceLog>, EngineError> {
        let mut logs = Vec::new();
        for container in self.containers_of(id).await? {
            let Some(label) = container.labels.get(SERVICE_LABEL) else {
                continue;
            };
            let state = self.client.inspect(&container.id).await?;
            let exit_code = state
                .filter(|state| state.phase == Phase::Ended)
                .and_then(|state| state.exit_code);
            let output = self.client.last_output(&container.id, SERVICE_LOG_BYTES).await?;
            logs.push((label.clone(), exit_code, output));
        }
        logs.sort();
        let logs = logs.into_iter().map(|(label, exit_code, output)| ServiceLog {
            name: label
                .split_once(' ')
                .map_or(label.clone(), |(_, name)| name.to_string()),
            exit_code,
            output,
        });
        Ok(logs.collect())
    }
}

impl Engine for DockerEngine {
    fn name(&self) -> &EngineName {
        &self.name
    }

    fn capacity(&self) -> Capacity {
        self.capacity
    }

    fn start<'a>(&'a self, request: &'a EnvironmentRequest) -> BoxFuture<'a, Result<(), EngineError>> {
        self.start_environment(request).boxed()
    }

    fn state<'a>(&'a self, id: &'a NodeId) -> BoxFuture<'a, Result<EnvironmentState, EngineError>> {
        self.state_of(id).boxed()
    }

    fn stop<'a>(&'a self, id: &'a NodeId) -> BoxFuture<'a, Result<(), EngineError>> {
        self.stop_environment(id).boxed()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<NodeId>, EngineError>> {
        self.list_environments().boxed()
    }

    fn service_logs<'a>(&'a self, id: &'a NodeId) -> BoxFuture<'a, Result<Vec<ServiceLog>, EngineError>> {
        self.logs_of_services(id).boxed()
    }
}

/// The name of the agent socket in its directory. Refuses paths that cannot be mounted.
fn socket_name(options: &DockerOptions) -> Result<String, EngineError> {
    for (what, path) in [
        ("the agent's binary", &options.agent_binary),
        ("the agents' socket", &options.agent_socket),
    ] {
        if !path.is_absolute() || path.to_str().is_none() {
            return Err(EngineError::Refused {
                message: format!("the path of {what} (`{}`) is not absolute and UTF-8", path.display()),
            });
        }
    }
    let name = options.agent_socket.file_name().and_then(|name| name.to_str());
    name.map(str::to_string).ok_or_else(|| EngineError::Refused {
        message: format!(
            "`{}` is no file, so it is not the agents' socket",
            options.agent_socket.display()
        ),
    })
}

fn primary_name(id: &NodeId) -> String {
    format!("towpath-job-{}-{}-{}", id.job, id.attempt, id.node)
}

fn node_of(labels: &Labels) -> Option<NodeId> {
    let label = |name: &str| labels.get(name).map(String::as_str);
    format!("{}.{}.{}", label(JOB_LABEL)?, label(ATTEMPT_LABEL)?, label(NODE_LABEL)?)
        .parse()
        .ok()
}

fn environment_of(container: &Container) -> Vec<(String, SecretString)> {
    let variables = container.environment.iter();
    variables
        .map(|variable| (variable.name.clone(), variable.value.clone()))
        .collect()
}

fn engine_limits(limits: Option<Limits>) -> towpath_container::Limits {
    towpath_container::Limits {
        cpu_millis: limits.map(|limits| limits.cpu_millis),
        memory_bytes: limits.map(|limits| limits.memory_bytes),
        processes: Some(MOST_PROCESSES),
        ..towpath_container::Limits::default()
    }
}

/// An archive with the state directory and, if the image lacks one, `/tmp`. Every user may write to both.
fn directories(has_tmp: bool) -> io::Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |path: &str, mode: u32| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(mode);
        header.set_size(0);
        builder.append_data(&mut header, path, io::empty())
    };
    add("towpath/", 0o755)?;
    add("towpath/state/", 0o1777)?;
    if !has_tmp {
        add("tmp/", 0o1777)?;
    }
    builder.into_inner()
}

fn pull_error(error: PullError, had_credentials: bool) -> EngineError {
    let image = error.image().to_string();
    let remedy = match (error.failure(), had_credentials) {
        (PullFailure::Denied, true) => "check its name, and the user name and the password under `auth`",
        (PullFailure::Denied, false) => {
            "check its name, or if it is private add `auth` with a user name and a password to the image"
        }
        (PullFailure::Absent, _) => "check its name and tag, or push it first",
        (PullFailure::Failed, _) => {
            return EngineError::Failed {
                attempted: format!(
                    "pull the image `{image}`; check that the container engine reaches its registry, or load the image by hand"
                ),
                source: error.into_source(),
            };
        }
    };
    EngineError::Refused {
        message: format!(
            "the image `{image}` cannot be pulled: {remedy} (the engine said: {})",
            error.said()
        ),
    }
}
