//! The containers of a pod: pulls images, creates and starts containers, reads their last output, and removes them.

use super::{
    environment::{self, expand_word},
    local_environment::LocalEnvironment,
    model::{Container, PodTemplate, PullPolicy},
    mounted, names,
    start_error::StartError,
};
use crate::target::TargetError;
use towpath_container::{ContainerSpec, ContainerState, Labels, Limits, LogLimit, Network, Phase};
use towpath_types::ImageReference;

/// How many lines of a container's output go into an error.
const LOG_LINES: u32 = 20;
/// The most bytes of those lines.
const LOG_BYTES: usize = 16 << 10;
/// Limits how much of a container's output the host's disk holds.
pub(crate) const LOG_LIMIT: LogLimit = LogLimit { mebibytes: 32 };
/// The least memory that the engine accepts.
const LEAST_MEMORY: u64 = 6 << 20;

/// Pulls the images of `template` that the engine does not have.
pub(crate) async fn ensure_images(context: &LocalEnvironment, template: &PodTemplate) -> Result<(), StartError> {
    for container in template.init_containers.iter().chain(&template.containers) {
        let image: ImageReference = container
            .image
            .parse()
            .map_err(|error| StartError::Terminal(format!("{error}")))?;
        let is_there = context.engine.has_image(&container.image).await?;
        let is_enough = match container.pull_policy {
            PullPolicy::IfNotPresent => is_there,
            // The content of a digest never changes.
            PullPolicy::Always => is_there && image.digest.is_some(),
            PullPolicy::Never if is_there => true,
            PullPolicy::Never => {
                return Err(StartError::Terminal(format!(
                    "the image `{image}` is not on this machine, and `imagePullPolicy: Never` forbids pulling it"
                )));
            }
        };
        if !is_enough {
            pull(context, &image).await?;
        }
    }
    Ok(())
}

async fn pull(context: &LocalEnvironment, image: &ImageReference) -> Result<(), StartError> {
    let registry = image.registry.clone().unwrap_or_default();
    let credentials = context.secrets.pull_credentials(&context.id, &registry).await;
    let credentials = credentials.map_err(|error| {
        StartError::Passing(format!(
            "failed to get the credentials for the registry `{registry}`: {error}"
        ))
    })?;
    tracing::info!(environment = %context.id, %image, "pulling an image");
    Ok(context.engine.pull(image, credentials.as_ref()).await?)
}

/// Creates a pod's container if it is missing, and starts it if it was never started. Returns its state.
pub(crate) async fn ensure(
    context: &LocalEnvironment,
    pod: &str,
    template: &PodTemplate,
    container: &Container,
    network: Network,
    labels: &Labels,
) -> Result<ContainerState, StartError> {
    let name = context.names.container(pod, &container.name);
    let found = context.engine.inspect(&name).await?;
    if found.is_none() {
        let spec = spec(context, pod, template, container, network, labels).await?;
        // If the name is taken, it is that of the same container.
        let _ = context.engine.create(&name, &spec).await?;
    }
    let is_new = found.is_none_or(|state| state.phase == Phase::Created);
    if is_new && let Err(error) = context.engine.start(&name).await {
        // The next attempt has no use for a container that cannot start.
        if let Err(error) = context.engine.remove(&name).await {
            tracing::warn!(
                container = name,
                error = towpath_types::with_causes(&error),
                "failed to remove a container"
            );
        }
        return Err(error.into());
    }
    if is_new {
        context.notify();
    }
    let state = context.engine.inspect(&name).await?;
    state.ok_or_else(|| StartError::Passing(format!("the container `{name}` vanished")))
}

async fn spec(
    context: &LocalEnvironment,
    pod: &str,
    template: &PodTemplate,
    container: &Container,
    network: Network,
    labels: &Labels,
) -> Result<ContainerSpec, StartError> {
    let variables = environment::variables(context, container).await?;
    let command = |words: &[String]| {
        let words: Vec<String> = words.iter().map(|word| expand_word(word, &variables)).collect();
        (!words.is_empty()).then_some(words)
    };
    let mut labels = labels.clone();
    labels.extend(context.names.labels());
    labels.insert(names::POD.to_string(), pod.to_string());
    let has_own_network = !matches!(network, Network::OfContainer(_));
    let security = &container.security;
    Ok(ContainerSpec {
        image: container.image.clone(),
        entrypoint: command(&container.command),
        command: command(&container.args),
        working_directory: container.working_dir.clone(),
        user: user(context, container).await?,
        labels,
        host_name: has_own_network.then(|| host_name(pod)),
        network,
        mounts: mounted::mounts(context, pod, template, container),
        limits: limits(container),
        dropped_capabilities: security.drop.clone(),
        read_only: security.read_only_root,
        no_new_privileges: security.no_new_privileges,
        log_limit: Some(LOG_LIMIT),
        environment: variables,
        ..ContainerSpec::default()
    })
}

/// The user of a container; `None` for the image's own user.
async fn user(context: &LocalEnvironment, container: &Container) -> Result<Option<String>, StartError> {
    let security = &container.security;
    let of_image = async || context.engine.image_user(&container.image).await;
    let user = match (security.user, security.group) {
        (Some(user), Some(group)) => Some(format!("{user}:{group}")),
        (Some(user), None) => Some(user.to_string()),
        (None, Some(group)) => Some(format!("{}:{group}", of_image().await?)),
        (None, None) => None,
    };
    if security.non_root {
        let effective = match &user {
            Some(user) => user.clone(),
            None => of_image().await?,
        };
        let id = effective.split(':').next().unwrap_or_default();
        if id.is_empty() || id == "root" || id.parse() == Ok(0_u32) {
            return Err(StartError::Terminal(format!(
                "the container `{}` has `runAsNonRoot: true` and would run as root; give it a `runAsUser`",
                container.name
            )));
        }
    }
    Ok(user)
}

/// A host name has 63 characters at most.
fn host_name(pod: &str) -> String {
    let name: String = pod.chars().take(63).collect();
    name.trim_end_matches(['-', '.']).to_string()
}

fn limits(container: &Container) -> Limits {
    // The engine refuses a limit above the machine's capacity, which would not limit anything anyway.
    let most = std::thread::available_parallelism().map_or(1000, |count| count.get() as u64 * 1000);
    let positive = |number: Option<i64>| number.map(i64::unsigned_abs);
    let memory = |bytes: Option<i64>| positive(bytes).map(|bytes| bytes.max(LEAST_MEMORY));
    Limits {
        cpu_millis: positive(container.cpu_limit_millis).map(|millis| millis.clamp(10, most)),
        cpu_request_millis: positive(container.cpu_request_millis),
        memory_bytes: memory(container.memory_limit),
        memory_request_bytes: memory(container.memory_request),
        processes: None,
    }
}

/// The last lines of a pod's container, masked; empty if they cannot be read.
pub(crate) async fn tail(
    context: &LocalEnvironment,
    pod: &str,
    template: &PodTemplate,
    container: &str,
) -> Vec<String> {
    let name = context.names.container(pod, container);
    let mask = environment::mask(context, template).await;
    let last = context.engine.last_lines(&name, LOG_LINES, LOG_BYTES).await;
    let last = last.unwrap_or_else(|error| {
        tracing::warn!(
            container = name,
            error = towpath_types::with_causes(&error),
            "failed to read a container's output"
        );
        Vec::new()
    });
    let text = String::from_utf8_lossy(&last);
    mask.text(&text).lines().map(str::to_string).collect()
}

/// Removes a pod's containers, its own volumes and its files. Its claims stay.
pub(crate) async fn clear(context: &LocalEnvironment, pod: &str) -> Result<(), TargetError> {
    let labels = [
        (names::INSTANCE, context.names.instance.as_str()),
        (names::ENVIRONMENT, &context.names.slug),
        (names::POD, pod),
    ];
    for container in context.engine.list(&labels).await? {
        context.engine.remove(&container.id).await?;
    }
    for volume in context.engine.volumes(&labels).await? {
        context.engine.remove_volume(&volume).await?;
    }
    mounted::remove_files(context, pod).await;
    Ok(())
}
