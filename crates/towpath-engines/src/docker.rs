//! A job's environment as containers of one engine, sharing one network namespace.

use crate::engine::{
    Container, Engine, EngineError, EnvironmentId, EnvironmentKind, EnvironmentRequest, EnvironmentState, Limits,
    RegistryCredentials, ServiceLog,
};
use bollard::{
    Docker,
    auth::DockerCredentials,
    errors::Error as DockerError,
    models::{
        ContainerCreateBody, ContainerState, ContainerStateStatusEnum, ContainerSummary, HostConfig,
        HostConfigLogConfig, Mount, MountType,
    },
    query_parameters::{
        ContainerArchiveInfoOptionsBuilder, CreateContainerOptionsBuilder, CreateImageOptionsBuilder,
        ListContainersOptionsBuilder, LogsOptionsBuilder, RemoveContainerOptionsBuilder, StopContainerOptionsBuilder,
        UploadToContainerOptionsBuilder,
    },
};
use futures::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture};
use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    path::PathBuf,
    time::Duration,
};
use tokio::time::Instant;
use towpath_protocol::variable;
use towpath_types::{ImageReference, SecretString};

const INSTANCE_LABEL: &str = "dev.towpath.instance";
const JOB_LABEL: &str = "dev.towpath.job";
const NODE_LABEL: &str = "dev.towpath.node";
const SERVICE_LABEL: &str = "dev.towpath.service";

const AGENT_BINARY: &str = "/towpath/bin/towpath";
const SOCKET_DIRECTORY: &str = "/towpath/socket";
const STATE_DIRECTORY: &str = "/towpath/state";

/// How long a stopped agent has to end its steps before it is killed, in seconds. The agent gives steps less.
const GRACE_SECONDS: i32 = 15;
/// How long a removal that the engine has begun may take.
const REMOVAL_LIMIT: Duration = Duration::from_secs(30);
/// How long somebody else's creation of the same container may take.
const CREATION_LIMIT: Duration = Duration::from_secs(30);
/// How much of a service's output is handed on.
const SERVICE_LOG_BYTES: usize = 1 << 20;
/// How much of a dead agent's own output is.
const AGENT_LOG_BYTES: usize = 4 << 10;

/// What a [`DockerEngine`] needs to know of its surroundings.
#[derive(Debug, Clone)]
pub struct DockerOptions {
    /// The data directory's instance: what is made carries it, and only what carries it is touched.
    pub instance: String,
    /// The agent's static binary on the engine's host. Containers see it read-only.
    pub agent_binary: PathBuf,
    /// The agent socket on the engine's host. Its *directory* is what containers see, so that the socket that a restarted
    /// server makes is the one they find. It must let every user connect: the token is what protects it.
    pub agent_socket: PathBuf,
}

/// An engine that speaks Docker's API.
#[derive(Debug, Clone)]
pub struct DockerEngine {
    docker: Docker,
    options: DockerOptions,
    socket_directory: String,
    socket_inside: String,
    binary: String,
}

impl DockerEngine {
    /// Connects to the engine that `DOCKER_HOST` names, or the one at the usual socket.
    ///
    /// # Errors
    /// When there is none, it does not answer, or a path in `options` is not absolute UTF-8.
    pub async fn connect(options: DockerOptions) -> Result<Self, EngineError> {
        let docker = Docker::connect_with_defaults()
            .map_err(EngineError::failed(
                "reach the container engine that `DOCKER_HOST` names",
            ))?
            .negotiate_version()
            .await
            .map_err(EngineError::failed(
                "talk to the container engine; is it running, and may this user open its socket",
            ))?;
        let refused = |what: &str| EngineError::Refused {
            message: format!("{what} must be an absolute path in UTF-8"),
        };
        let text = |path: Option<&std::path::Path>| path.filter(|p| p.is_absolute())?.to_str().map(str::to_string);
        let socket_directory = text(options.agent_socket.parent()).ok_or_else(|| refused("the agent socket"))?;
        let socket_name = options
            .agent_socket
            .file_name()
            .and_then(|name| name.to_str())
            .ok_or_else(|| refused("the agent socket"))?;
        Ok(Self {
            docker,
            socket_inside: format!("{SOCKET_DIRECTORY}/{socket_name}"),
            socket_directory,
            binary: text(Some(&options.agent_binary)).ok_or_else(|| refused("the agent's binary"))?,
            options,
        })
    }

    async fn pull_if_absent(
        &self,
        image: &ImageReference,
        credentials: Option<&RegistryCredentials>,
    ) -> Result<(), EngineError> {
        let name = image.to_string();
        match self.docker.inspect_image(&name).await {
            Ok(_) => return Ok(()),
            Err(error) if status(&error) == Some(404) => {}
            Err(error) => return Err(EngineError::failed(format!("look for the image `{name}`"))(error)),
        }
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
        let credentials = credentials.map(|given| DockerCredentials {
            username: Some(given.username.clone()),
            password: Some(given.password.expose().to_string()),
            serveraddress: image.registry.clone(),
            ..DockerCredentials::default()
        });
        let had_credentials = credentials.is_some();
        tracing::info!(image = %name, "pulling an image");
        let pulled: Result<Vec<()>, DockerError> = self
            .docker
            .create_image(Some(options), None, credentials)
            .map_ok(|_| ())
            .try_collect()
            .await;
        pulled
            .map(|_| ())
            .map_err(|error| pull_error(&name, had_credentials, error))
    }

    async fn inspect(&self, name: &str) -> Result<Option<ContainerState>, EngineError> {
        match self.docker.inspect_container(name, None).await {
            Ok(found) => Ok(Some(found.state.unwrap_or_default())),
            Err(error) if status(&error) == Some(404) => Ok(None),
            Err(error) => Err(EngineError::failed(format!("inspect the container `{name}`"))(error)),
        }
    }

    /// Whether it was made; somebody else has the name already, or is about to have it, otherwise.
    async fn create(&self, name: &str, body: ContainerCreateBody) -> Result<bool, EngineError> {
        let options = CreateContainerOptionsBuilder::default().name(name).build();
        let image = body.image.clone().unwrap_or_default();
        match self.docker.create_container(Some(options), body).await {
            Ok(_) => Ok(true),
            // Between our look and now; the name is deterministic, so it is the same container.
            Err(error) if status(&error) == Some(409) => Ok(false),
            Err(error) => Err(self.classify(format!("create the container `{name}` from the image `{image}`"), error)),
        }
    }

    /// What can never be (no such user, program or option) the engine answers with 400, or says in words only.
    fn classify(&self, attempted: String, error: DockerError) -> EngineError {
        let never = |status: u16, message: &str| {
            let low = message.to_lowercase();
            let words = ["unable to find user", "executable file not found", "exec format error"];
            status == 400 || words.iter().any(|words| low.contains(words))
        };
        match error {
            DockerError::DockerResponseServerError { status_code, message } if never(status_code, &message) => {
                EngineError::Refused {
                    message: format!("the container engine refused to {attempted}: {message}"),
                }
            }
            error => EngineError::failed(attempted)(error),
        }
    }

    /// What the agent needs before it can run as any user in any image: a state directory and a `/tmp` to write to.
    /// They go into the container's own layer, so they vanish with it and need no rights on the host.
    async fn prepare(&self, name: &str) -> Result<(), EngineError> {
        let attempted = || format!("prepare the container `{name}`");
        let look = ContainerArchiveInfoOptionsBuilder::default().path("/tmp").build();
        let has_tmp = match self.docker.get_container_archive_info(name, Some(look)).await {
            Ok(_) => true,
            Err(error) if status(&error) == Some(404) => false,
            Err(error) => return Err(EngineError::failed(attempted())(error)),
        };
        let archive = directories(has_tmp).map_err(EngineError::failed(attempted()))?;
        let options = UploadToContainerOptionsBuilder::default().path("/").build();
        self.docker
            .upload_to_container(name, Some(options), bollard::body_full(archive.into()))
            .await
            .map_err(EngineError::failed(attempted()))
    }

    async fn ensure_started(&self, name: &str, body: ContainerCreateBody, prepare: bool) -> Result<(), EngineError> {
        let deadline = Instant::now() + CREATION_LIMIT;
        let state = loop {
            if let Some(state) = self.inspect(name).await? {
                break state;
            }
            if self.create(name, body.clone()).await? {
                break ContainerState {
                    status: Some(ContainerStateStatusEnum::CREATED),
                    ..ContainerState::default()
                };
            }
            // The name is taken before the container is there.
            if Instant::now() > deadline {
                let seconds = CREATION_LIMIT.as_secs();
                return Err(EngineError::failed(format!("create the container `{name}`"))(format!(
                    "its name is taken, and there is no container of that name after {seconds} s"
                )));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        if state.status != Some(ContainerStateStatusEnum::CREATED) {
            return Ok(());
        }
        if prepare {
            self.prepare(name).await?;
        }
        match self.docker.start_container(name, None).await {
            Ok(()) => Ok(()),
            Err(error) if status(&error) == Some(304) => Ok(()),
            Err(error) => Err(self.classify(format!("start the container `{name}`"), error)),
        }
    }

    async fn containers_of(&self, labels: Vec<String>) -> Result<Vec<ContainerSummary>, EngineError> {
        let filters = HashMap::from([("label".to_string(), labels)]);
        let options = ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&filters)
            .build();
        self.docker
            .list_containers(Some(options))
            .await
            .map_err(EngineError::failed("list the jobs' containers"))
    }

    fn labels(&self, id: &EnvironmentId) -> HashMap<String, String> {
        HashMap::from([
            (INSTANCE_LABEL.to_string(), self.options.instance.clone()),
            (JOB_LABEL.to_string(), id.job.to_string()),
            (NODE_LABEL.to_string(), id.node.to_string()),
        ])
    }

    fn filters(&self, id: &EnvironmentId) -> Vec<String> {
        self.labels(id)
            .into_iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect()
    }

    fn primary_body(
        &self,
        id: &EnvironmentId,
        token: &SecretString,
        primary: &Container,
        services: &[Container],
        limits: Option<Limits>,
    ) -> ContainerCreateBody {
        let mut environment = environment_of(primary);
        for (name, value) in [
            (variable::AGENT_SOCKET, self.socket_inside.as_str()),
            (variable::JOB_TOKEN, token.expose()),
            (variable::STATE_DIR, STATE_DIRECTORY),
        ] {
            environment.push(format!("{name}={value}"));
        }
        let bind = |source: &str, target: &str| Mount {
            typ: Some(MountType::BIND),
            source: Some(source.to_string()),
            target: Some(target.to_string()),
            read_only: Some(true),
            ..Mount::default()
        };
        let hosts: Vec<String> = services
            .iter()
            .filter_map(|service| service.name.as_deref())
            .map(|name| format!("{name}:127.0.0.1"))
            .collect();
        ContainerCreateBody {
            image: Some(primary.image.to_string()),
            entrypoint: Some(vec![AGENT_BINARY.to_string(), "agent".to_string()]),
            cmd: Some(Vec::new()),
            user: primary.user.clone(),
            env: Some(environment),
            labels: Some(self.labels(id)),
            // The image's own health check and working directory are made for its own entrypoint.
            working_dir: Some("/".to_string()),
            stop_timeout: Some(GRACE_SECONDS.into()),
            host_config: Some(HostConfig {
                mounts: Some(vec![
                    bind(&self.binary, AGENT_BINARY),
                    bind(&self.socket_directory, SOCKET_DIRECTORY),
                ]),
                extra_hosts: Some(hosts),
                ..host_config(limits)
            }),
            ..ContainerCreateBody::default()
        }
    }

    fn service_body(
        &self,
        id: &EnvironmentId,
        index: usize,
        service: &Container,
        limits: Option<Limits>,
    ) -> ContainerCreateBody {
        let mut labels = self.labels(id);
        let shown = service.name.clone().unwrap_or_else(|| service.image.to_string());
        labels.insert(SERVICE_LABEL.to_string(), format!("{index:03} {shown}"));
        ContainerCreateBody {
            image: Some(service.image.to_string()),
            entrypoint: service.entrypoint.clone(),
            cmd: service.command.clone(),
            user: service.user.clone(),
            env: Some(environment_of(service)),
            labels: Some(labels),
            host_config: Some(HostConfig {
                network_mode: Some(format!("container:{}", primary_name(id))),
                ..host_config(limits)
            }),
            ..ContainerCreateBody::default()
        }
    }

    /// The last `limit` bytes that a container printed.
    async fn output(&self, container: &str, limit: usize) -> Result<Vec<u8>, EngineError> {
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true).build();
        let mut logs = self.docker.logs(container, Some(options));
        let mut last: VecDeque<u8> = VecDeque::new();
        while let Some(piece) = logs.next().await {
            match piece {
                Ok(piece) => {
                    last.extend(piece.as_ref());
                    let excess = last.len().saturating_sub(limit);
                    last.drain(..excess);
                }
                Err(error) if status(&error) == Some(404) => break,
                Err(error) => {
                    return Err(EngineError::failed(format!(
                        "read what the container `{container}` printed"
                    ))(error));
                }
            }
        }
        Ok(last.into())
    }
}

fn primary_name(id: &EnvironmentId) -> String {
    format!("towpath-job-{}-{}", id.job, id.node)
}

fn status(error: &DockerError) -> Option<u16> {
    match error {
        DockerError::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

fn environment_of(container: &Container) -> Vec<String> {
    container
        .environment
        .iter()
        .map(|v| format!("{}={}", v.name, v.value.expose()))
        .collect()
}

fn host_config(limits: Option<Limits>) -> HostConfig {
    HostConfig {
        nano_cpus: limits.and_then(|l| i64::try_from(l.cpu_millis).ok()?.checked_mul(1_000_000)),
        memory: limits.and_then(|l| i64::try_from(l.memory_bytes).ok()),
        // Whatever a container prints is bounded on the host's disk.
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_string()),
            config: Some(HashMap::from([
                ("max-size".to_string(), "10m".to_string()),
                ("max-file".to_string(), "2".to_string()),
            ])),
        }),
        ..HostConfig::default()
    }
}

/// A tar of the state directory and, where there is none, `/tmp`; both for every user.
fn directories(has_tmp: bool) -> std::io::Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |path: &str, mode: u32| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(mode);
        header.set_size(0);
        builder.append_data(&mut header, path, std::io::empty())
    };
    add("towpath/", 0o755)?;
    add("towpath/state/", 0o1777)?;
    if !has_tmp {
        add("tmp/", 0o1777)?;
    }
    builder.into_inner()
}

fn pull_error(image: &str, had_credentials: bool, error: DockerError) -> EngineError {
    let answer = error.to_string().to_lowercase();
    let credentials = if had_credentials {
        "check the user name and password under `auth`"
    } else {
        "add `auth` with a user name and a password to the image"
    };
    let absent = ["not found", "manifest unknown", "does not exist", "no such image"];
    let denied = ["denied", "unauthorized", "authentication required", "no basic auth"];
    let hint = if denied.iter().any(|word| answer.contains(word)) {
        format!("check the name, or if it is private {credentials}")
    } else if absent.iter().any(|word| answer.contains(word)) && !answer.contains("no such host") {
        "check its name and tag, or push it first".to_string()
    } else {
        return EngineError::failed(format!(
            "pull the image `{image}`; check that the container engine reaches its registry, or load the image by hand"
        ))(error);
    };
    EngineError::Refused {
        message: format!("the image `{image}` cannot be pulled: {hint} (the answer was: {error})"),
    }
}

impl Engine for DockerEngine {
    fn start<'a>(&'a self, request: &'a EnvironmentRequest) -> BoxFuture<'a, Result<(), EngineError>> {
        async move {
            let EnvironmentKind::Docker { primary, services } = &request.kind else {
                return Err(EngineError::Refused {
                    message: "the container engine runs containers; this job asks for a machine".to_string(),
                });
            };
            let name = primary_name(&request.id);
            // What has ended is not begun again, nor are services brought back around it.
            if let Some(state) = self.inspect(&name).await?
                && matches!(
                    state.status,
                    Some(ContainerStateStatusEnum::EXITED | ContainerStateStatusEnum::DEAD)
                )
            {
                return Ok(());
            }
            for container in std::iter::once(primary).chain(services) {
                self.pull_if_absent(&container.image, container.credentials.as_ref())
                    .await?;
            }
            let body = self.primary_body(&request.id, &request.token, primary, services, request.limits);
            self.ensure_started(&name, body, true).await?;
            for (index, service) in services.iter().enumerate() {
                let body = self.service_body(&request.id, index, service, request.limits);
                self.ensure_started(&format!("{name}-service-{index}"), body, false)
                    .await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn state<'a>(&'a self, id: &'a EnvironmentId) -> BoxFuture<'a, Result<EnvironmentState, EngineError>> {
        async move {
            let name = primary_name(id);
            let Some(state) = self.inspect(&name).await? else {
                return Ok(EnvironmentState::Absent);
            };
            use ContainerStateStatusEnum as Status;
            Ok(match state.status {
                Some(Status::EXITED | Status::DEAD) => {
                    let mut detail = Vec::new();
                    if state.oom_killed == Some(true) {
                        detail.push("the kernel killed it for want of memory".to_string());
                    }
                    detail.extend(state.error.filter(|text| !text.is_empty()));
                    let words = self.output(&name, AGENT_LOG_BYTES).await?;
                    let words = String::from_utf8_lossy(&words).trim().to_string();
                    detail.extend(Some(words).filter(|text| !text.is_empty()));
                    EnvironmentState::Exited {
                        code: state.exit_code,
                        detail: detail.join("\n"),
                    }
                }
                // Half made: a crash came between creating and starting it.
                Some(Status::CREATED | Status::REMOVING) => EnvironmentState::Absent,
                _ => EnvironmentState::Running,
            })
        }
        .boxed()
    }

    fn stop<'a>(&'a self, id: &'a EnvironmentId) -> BoxFuture<'a, Result<(), EngineError>> {
        async move {
            let name = primary_name(id);
            let ours = self.containers_of(self.filters(id)).await?;
            let primary = ours
                .iter()
                .find(|c| !c.labels.as_ref().is_some_and(|l| l.contains_key(SERVICE_LABEL)));
            if let Some(primary) = primary.and_then(|found| found.id.as_deref()) {
                let options = StopContainerOptionsBuilder::default().t(GRACE_SECONDS).build();
                match self.docker.stop_container(primary, Some(options)).await {
                    Ok(()) => {}
                    Err(error) if matches!(status(&error), Some(304 | 404)) => {}
                    Err(error) => return Err(EngineError::failed(format!("stop the container `{name}`"))(error)),
                }
            }
            // Listed again each time round: a start that was on its way may have made one more.
            let deadline = Instant::now() + REMOVAL_LIMIT;
            loop {
                let left = self.containers_of(self.filters(id)).await?;
                if left.is_empty() {
                    return Ok(());
                }
                for container in left.iter().filter_map(|found| found.id.as_deref()) {
                    let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
                    match self.docker.remove_container(container, Some(options)).await {
                        Ok(()) => {}
                        // Gone, or somebody else's removal is under way.
                        Err(error) if matches!(status(&error), Some(404 | 409)) => {}
                        Err(error) => {
                            return Err(EngineError::failed(format!("remove the container `{container}`"))(
                                error,
                            ));
                        }
                    }
                }
                if Instant::now() > deadline {
                    return Err(EngineError::failed(format!("remove the containers of the job {id}"))(
                        format!(
                            "{} of them are still there after {} s",
                            left.len(),
                            REMOVAL_LIMIT.as_secs()
                        ),
                    ));
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        .boxed()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<EnvironmentId>, EngineError>> {
        async move {
            let labels = vec![
                format!("{INSTANCE_LABEL}={}", self.options.instance),
                JOB_LABEL.to_string(),
            ];
            let found: BTreeSet<EnvironmentId> = self
                .containers_of(labels)
                .await?
                .into_iter()
                .filter_map(|container| {
                    let labels = container.labels?;
                    Some(EnvironmentId {
                        job: labels.get(JOB_LABEL)?.parse().ok()?,
                        node: labels.get(NODE_LABEL)?.parse().ok()?,
                    })
                })
                .collect();
            Ok(found.into_iter().collect())
        }
        .boxed()
    }

    fn service_logs<'a>(&'a self, id: &'a EnvironmentId) -> BoxFuture<'a, Result<Vec<ServiceLog>, EngineError>> {
        async move {
            let mut labels = self.filters(id);
            labels.push(SERVICE_LABEL.to_string());
            let mut logs = Vec::new();
            for container in self.containers_of(labels).await? {
                let (Some(container), Some(label)) = (
                    container.id,
                    container.labels.as_ref().and_then(|l| l.get(SERVICE_LABEL)),
                ) else {
                    continue;
                };
                let exit_code = self
                    .inspect(&container)
                    .await?
                    .filter(|state| state.status == Some(ContainerStateStatusEnum::EXITED))
                    .and_then(|state| state.exit_code);
                let output = self.output(&container, SERVICE_LOG_BYTES).await?;
                logs.push((label.clone(), exit_code, output));
            }
            logs.sort();
            Ok(logs
                .into_iter()
                .map(|(label, exit_code, output)| ServiceLog {
                    name: label
                        .split_once(' ')
                        .map_or(label.clone(), |(_, name)| name.to_string()),
                    exit_code,
                    output,
                })
                .collect())
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(answer: &str, credentials: bool, refused: bool, hint: &str) {
        let error = DockerError::DockerResponseServerError {
            status_code: 404,
            message: answer.to_string(),
        };
        let error = pull_error("127.0.0.1:7070/claims:app-1", credentials, error);
        assert_eq!(matches!(error, EngineError::Refused { .. }), refused, "{error:?}");
        let text = format!("{error} {error:?}");
        assert!(
            text.contains("127.0.0.1:7070/claims:app-1") && text.contains(hint) && text.contains(answer),
            "{text}"
        );
    }

    #[test]
    fn a_failed_pull_says_what_to_do() {
        check(
            "manifest for x not found: manifest unknown",
            false,
            true,
            "push it first",
        );
        check(
            "pull access denied for x, repository does not exist",
            false,
            true,
            "add `auth`",
        );
        check(
            "unauthorized: authentication required",
            true,
            true,
            "check the user name",
        );
        check(
            "dial tcp: lookup r.io: no such host",
            false,
            false,
            "reaches its registry",
        );
        check("Service Unavailable", false, false, "reaches its registry");
    }
}
