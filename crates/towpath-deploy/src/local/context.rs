//! What is shared by everything in one environment, and what containers are made of.

use super::{
    cron::Clock,
    engine::{Engine, Seen, StartError},
    model::{Container, EnvSource, PodTemplate, PullPolicy, Source, VolumeSource},
    names::{self, Names},
    store::Store,
};
use crate::target::{EnvironmentId, SecretSource, TargetError};
use bollard::models::{ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, MountType};
use futures::{StreamExt, future::BoxFuture};
use jiff::Timestamp;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::sync::Notify;
use towpath_types::{ImageReference, Mask, SecretString};

/// How many lines of a container's output go into an error.
const LOG_LINES: u32 = 20;
/// How often whoever waits for a time looks at the clock.
const LOOK_AT_CLOCK: Duration = Duration::from_secs(1);

/// One environment, as its controllers see it.
pub(crate) struct Context {
    pub engine: Engine,
    pub names: Names,
    pub id: EnvironmentId,
    pub store: Store,
    pub secrets: Arc<dyn SecretSource>,
    pub clock: Arc<dyn Clock>,
    /// In memory: where Secrets that are mounted as files lie.
    pub memory: PathBuf,
    /// The proxies' image, and the program and arguments in it. The directory of the routes is added.
    pub proxy_image: String,
    pub proxy_command: Vec<String>,
    pub backoff: Duration,
    /// Held while a volume is made: one that somebody writes to already is not opened again.
    pub opening: tokio::sync::Mutex<()>,
    /// Something changed that the environment's loop should look at.
    pub wake: Notify,
    /// Something changed that somebody may be waiting for.
    pub changed: tokio::sync::watch::Sender<u64>,
    /// Why pods of Jobs have not started yet, by name.
    pub hindered: std::sync::Mutex<BTreeMap<String, String>>,
}

impl Context {
    pub(crate) fn notify(&self) {
        self.wake.notify_one();
        self.changed.send_modify(|count| *count += 1);
    }

    /// Notes why a pod has not started yet; `None` once it has, or will not be tried any more.
    pub(crate) fn hinder(&self, pod: &str, why: Option<String>) {
        let mut hindered = self.hindered.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match why {
            Some(why) => drop(hindered.insert(pod.to_string(), why)),
            None => drop(hindered.remove(pod)),
        }
        drop(hindered);
        self.notify();
    }

    /// Why a pod has not started yet, where that is known.
    pub(crate) fn hindrance(&self, pod: &str) -> Option<String> {
        let hindered = self.hindered.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        hindered.get(pod).cloned()
    }

    /// Waits until the clock says `at`. A machine that slept meanwhile is seen soon after it woke.
    pub(crate) async fn sleep_until(&self, at: Timestamp) {
        while let Ok(left) = Duration::try_from(at.duration_since(self.clock.now()))
            && !left.is_zero()
        {
            tokio::time::sleep(left.min(LOOK_AT_CLOCK)).await;
        }
    }

    /// The values of a Secret or ConfigMap; `None` when there is none.
    async fn source(&self, secret: bool, name: &str) -> Result<Option<BTreeMap<String, SecretString>>, StartError> {
        if secret {
            return self.secrets.values(&self.id, name).await.map_err(|error| {
                StartError::Passing(format!("the values of the Secret `{name}` cannot be had: {error}"))
            });
        }
        let document = self.store.read();
        Ok(document.named("ConfigMap", name).map(|object| {
            let data = object.value.get("data").and_then(serde_json::Value::as_object);
            data.into_iter()
                .flatten()
                .filter_map(|(key, value)| Some((key.clone(), SecretString::new(value.as_str()?.to_string()))))
                .collect()
        }))
    }

    /// Hides the values of every Secret that pods of `template` read.
    pub(crate) async fn mask(&self, template: &PodTemplate) -> Mask {
        let mut values = Vec::new();
        for name in secrets_of(template) {
            // What cannot be asked for now was not given to a container by us now either; what it printed before is
            // masked by the value of today.
            if let Ok(Some(found)) = self.source(true, &name).await {
                values.extend(found.into_values());
            }
        }
        Mask::new(&values)
    }

    /// A container's variables. A later one wins, and `$(NAME)` stands for one that came before.
    ///
    /// Source: <https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/>
    async fn environment(&self, container: &Container) -> Result<Vec<(String, SecretString)>, StartError> {
        let mut variables: Vec<(String, SecretString)> = Vec::new();
        for EnvSource {
            secret,
            name,
            prefix,
            optional,
        } in &container.environment.from
        {
            match self.source(*secret, name).await? {
                Some(values) => {
                    for (key, value) in values {
                        set(&mut variables, format!("{prefix}{key}"), value);
                    }
                }
                None if *optional => {}
                None => return Err(missing(*secret, name, None)),
            }
        }
        for (name, source) in &container.environment.variables {
            let value = match source {
                Source::Value(text) => SecretString::new(expand(text, &variables)),
                Source::Key {
                    secret,
                    name: from,
                    key,
                    optional,
                } => match self
                    .source(*secret, from)
                    .await?
                    .and_then(|mut values| values.remove(key))
                {
                    Some(value) => value,
                    None if *optional => continue,
                    None => return Err(missing(*secret, from, Some(key))),
                },
            };
            set(&mut variables, name.clone(), value);
        }
        Ok(variables)
    }

    /// Pulls what `template` needs and the engine has not.
    pub(crate) async fn ensure_images(&self, template: &PodTemplate) -> Result<(), StartError> {
        for container in template.init_containers.iter().chain(&template.containers) {
            let image: ImageReference = container
                .image
                .parse()
                .map_err(|error| StartError::Terminal(format!("{error}")))?;
            let present = self.engine.has_image(&container.image).await?;
            match container.pull_policy {
                PullPolicy::IfNotPresent | PullPolicy::Never if present => continue,
                // What a digest names does not change.
                PullPolicy::Always if present && image.digest.is_some() => continue,
                PullPolicy::Never => {
                    return Err(StartError::Terminal(format!(
                        "the image `{image}` is not on this machine, and `imagePullPolicy: Never` forbids pulling it"
                    )));
                }
                _ => {}
            }
            let registry = image.registry.clone().unwrap_or_default();
            let credentials = self
                .secrets
                .pull_credentials(&self.id, &registry)
                .await
                .map_err(|error| {
                    StartError::Passing(format!(
                        "the credentials for the registry `{registry}` cannot be had: {error}"
                    ))
                })?;
            tracing::info!(environment = %self.id, %image, "pulling an image");
            self.engine.pull(&image, credentials.as_ref()).await?;
        }
        Ok(())
    }

    /// Makes the volumes of a pod, and the files of those that are made of ConfigMaps and Secrets.
    pub(crate) async fn ensure_volumes(&self, pod: &str, template: &PodTemplate) -> Result<(), StartError> {
        let passing = |error: TargetError| StartError::Passing(error.chain());
        for volume in &template.volumes {
            match &volume.source {
                VolumeSource::Claim { name, .. } => {
                    let mut labels = self.names.labels();
                    labels.insert(names::CLAIM.to_string(), name.clone());
                    self.ensure_writable(&self.names.claim(name), labels)
                        .await
                        .map_err(passing)?;
                }
                VolumeSource::EmptyDir => {
                    let mut labels = self.names.labels();
                    labels.insert(names::POD.to_string(), pod.to_string());
                    self.ensure_writable(&self.names.empty_dir(pod, &volume.name), labels)
                        .await
                        .map_err(passing)?;
                }
                VolumeSource::Files {
                    secret,
                    name,
                    optional,
                    items,
                    mode,
                } => {
                    let values = match self.source(*secret, name).await? {
                        Some(values) => values,
                        None if *optional => BTreeMap::new(),
                        None => return Err(missing(*secret, name, None)),
                    };
                    let mut files = Vec::new();
                    if items.is_empty() {
                        files.extend(values);
                    } else {
                        for (key, path) in items {
                            match values.get(key) {
                                Some(value) => files.push((path.clone(), value.clone())),
                                None if *optional => {}
                                None => return Err(missing(*secret, name, Some(key))),
                            }
                        }
                    }
                    let folder = self.files(pod, &volume.name, *secret);
                    let (shown, mode, private) = (folder.display().to_string(), *mode, self.memory.clone());
                    let written =
                        tokio::task::spawn_blocking(move || write_files(&private, &folder, &files, mode)).await;
                    match written {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => {
                            return Err(StartError::Passing(format!(
                                "cannot write the files in `{shown}`: {error}"
                            )));
                        }
                        Err(error) => return Err(StartError::Passing(error.to_string())),
                    }
                }
            }
        }
        Ok(())
    }

    /// A volume that every user may write to at first, as on a cluster.
    async fn ensure_writable(&self, volume: &str, labels: HashMap<String, String>) -> Result<(), TargetError> {
        let _turn = self.opening.lock().await;
        if self.engine.is_open_volume(volume).await? {
            return Ok(());
        }
        self.engine.open_volume(volume, &self.proxy_image, labels).await
    }

    /// Where the files of a pod's volume lie on the host.
    fn files(&self, pod: &str, volume: &str, secret: bool) -> PathBuf {
        self.files_of(pod, secret).join(volume)
    }

    fn files_of(&self, pod: &str, secret: bool) -> PathBuf {
        if secret {
            self.memory.join(&self.names.slug).join(pod)
        } else {
            self.store.folder.join("files").join(pod)
        }
    }

    /// Makes the container `container` of a pod unless it is there, and starts it unless it was started.
    ///
    /// `network` is the environment's network, or the container that has the pod's.
    pub(crate) async fn ensure_container(
        &self,
        pod: &str,
        template: &PodTemplate,
        container: &Container,
        network: &str,
        labels: &HashMap<String, String>,
    ) -> Result<Seen, StartError> {
        let passing = |error: TargetError| StartError::Passing(error.chain());
        let name = self.names.container(pod, &container.name);
        let found = self.engine.inspect(&name).await.map_err(passing)?;
        if found.is_none() {
            let body = self.body(pod, template, container, network, labels).await?;
            self.engine.create(&name, body).await?;
        }
        if found.as_ref().is_none_or(|seen| seen.never_started)
            && let Err(error) = self.engine.start(&name).await
        {
            // A container that cannot be started is of no use to the next attempt.
            let _ = self.engine.remove(&name).await;
            return Err(error);
        }
        let seen = self.engine.inspect(&name).await.map_err(passing)?;
        seen.ok_or_else(|| StartError::Passing(format!("the container `{name}` vanished")))
    }

    async fn body(
        &self,
        pod: &str,
        template: &PodTemplate,
        container: &Container,
        network: &str,
        labels: &HashMap<String, String>,
    ) -> Result<ContainerCreateBody, StartError> {
        let environment = self.environment(container).await?;
        let security = &container.security;
        let user = match (security.user, security.group) {
            (Some(user), Some(group)) => Some(format!("{user}:{group}")),
            (Some(user), None) => Some(user.to_string()),
            (None, Some(group)) => Some(format!("{}:{group}", self.engine.image_user(&container.image).await?)),
            (None, None) => None,
        };
        if security.non_root {
            let effective = match &user {
                Some(user) => user.clone(),
                None => self.engine.image_user(&container.image).await?,
            };
            let id = effective.split(':').next().unwrap_or_default();
            if id.parse::<u32>().is_ok_and(|id| id == 0) || id.is_empty() || id == "root" {
                return Err(StartError::Terminal(format!(
                    "the container `{}` has `runAsNonRoot: true` and would run as root; give it a `runAsUser`",
                    container.name
                )));
            }
        }
        let command = |words: &[String]| {
            let words: Vec<String> = words.iter().map(|word| expand(word, &environment)).collect();
            (!words.is_empty()).then_some(words)
        };
        let mut labels = labels.clone();
        labels.extend(self.names.labels());
        labels.insert(names::POD.to_string(), pod.to_string());
        let shares_network = network.starts_with("container:");
        let hostname: String = pod.chars().take(63).collect();
        Ok(ContainerCreateBody {
            image: Some(container.image.clone()),
            entrypoint: command(&container.command),
            cmd: command(&container.args),
            working_dir: container.working_dir.clone(),
            user,
            env: Some(
                environment
                    .iter()
                    .map(|(name, value)| format!("{name}={}", value.expose()))
                    .collect(),
            ),
            labels: Some(labels),
            hostname: (!shares_network).then(|| hostname.trim_end_matches(['-', '.']).to_string()),
            host_config: Some(HostConfig {
                network_mode: Some(network.to_string()),
                mounts: Some(self.mounts(pod, template, container)),
                nano_cpus: container.cpu_limit_millis.map(cpu_limit),
                cpu_shares: container
                    .cpu_request_millis
                    .map(|millis| (millis * 1024 / 1000).clamp(2, 262_144)),
                // The engine takes no less than 6 MiB.
                memory: container.memory_limit.map(|bytes| bytes.max(6 << 20)),
                memory_reservation: container.memory_request.map(|bytes| bytes.max(6 << 20)),
                readonly_rootfs: Some(security.read_only_root),
                security_opt: security
                    .no_new_privileges
                    .then(|| vec!["no-new-privileges".to_string()]),
                cap_drop: (!security.drop.is_empty()).then(|| security.drop.clone()),
                log_config: Some(bounded_log()),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        })
    }

    fn mounts(&self, pod: &str, template: &PodTemplate, container: &Container) -> Vec<Mount> {
        let mut mounts = Vec::new();
        for mount in &container.mounts {
            let Some(volume) = template.volumes.iter().find(|volume| volume.name == mount.volume) else {
                continue;
            };
            let (typ, source, read_only) = match &volume.source {
                VolumeSource::Claim { name, read_only } => (MountType::VOLUME, self.names.claim(name), *read_only),
                VolumeSource::EmptyDir => (MountType::VOLUME, self.names.empty_dir(pod, &volume.name), false),
                VolumeSource::Files { secret, .. } => {
                    let mut path = self.files(pod, &volume.name, *secret);
                    path.extend(&mount.sub_path);
                    (MountType::BIND, path.display().to_string(), true)
                }
            };
            mounts.push(Mount {
                typ: Some(typ),
                source: Some(source),
                target: Some(mount.path.clone()),
                read_only: Some(read_only || mount.read_only),
                ..Mount::default()
            });
        }
        mounts
    }

    /// The last lines that a pod's container printed, masked.
    pub(crate) async fn tail(&self, pod: &str, template: &PodTemplate, container: &str) -> Vec<String> {
        let name = self.names.container(pod, container);
        let mask = self.mask(template).await;
        let mut pieces = std::pin::pin!(self.engine.logs(&name, Some(LOG_LINES), false));
        let mut last: VecDeque<u8> = VecDeque::new();
        while let Some(Ok(piece)) = pieces.next().await {
            last.extend(piece.as_ref());
            let excess = last.len().saturating_sub(16 << 10);
            last.drain(..excess);
        }
        let text = String::from_utf8_lossy(last.make_contiguous()).into_owned();
        mask.text(&text).lines().map(str::to_string).collect()
    }

    /// Removes a pod's containers, its own volumes and its files. Its claims stay.
    pub(crate) async fn clear(&self, pod: &str) -> Result<(), TargetError> {
        let labels = [
            (names::INSTANCE, self.names.instance.as_str()),
            (names::ENVIRONMENT, &self.names.slug),
            (names::POD, pod),
        ];
        for container in self.engine.list(&labels).await? {
            if let Some(id) = container.id {
                self.engine.remove(&id).await?;
            }
        }
        for volume in self.engine.volumes(&labels).await? {
            self.engine.remove_volume(&volume).await?;
        }
        for secret in [false, true] {
            let folder = self.files_of(pod, secret);
            let removed = tokio::task::spawn_blocking(move || match std::fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            });
            if let Ok(Err(error)) = removed.await {
                tracing::warn!(pod, %error, "cannot remove a pod's files");
            }
        }
        Ok(())
    }
}

/// Whatever a container prints is bounded on the host's disk.
pub(crate) fn bounded_log() -> HostConfigLogConfig {
    HostConfigLogConfig {
        typ: Some("json-file".into()),
        config: Some(HashMap::from([
            ("max-size".to_string(), "32m".to_string()),
            ("max-file".to_string(), "2".to_string()),
        ])),
    }
}

/// The engine refuses more than the machine has; more than that is no limit anyway.
fn cpu_limit(millis: i64) -> i64 {
    let there = std::thread::available_parallelism().map_or(1, |count| i64::try_from(count.get()).unwrap_or(1));
    millis.clamp(10, there * 1000) * 1_000_000
}

fn missing(secret: bool, name: &str, key: Option<&str>) -> StartError {
    let kind = if secret { "Secret" } else { "ConfigMap" };
    StartError::Passing(match key {
        Some(key) => format!("the {kind} `{name}` has no key `{key}`"),
        None => format!("there is no {kind} `{name}`"),
    })
}

fn set(variables: &mut Vec<(String, SecretString)>, name: String, value: SecretString) {
    match variables.iter_mut().find(|(known, _)| *known == name) {
        Some((_, known)) => *known = value,
        None => variables.push((name, value)),
    }
}

/// Replaces `$(NAME)` by the variable's value; an unknown one stays, and `$$` is a dollar sign.
///
/// Source: <https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#environment-variables>
fn expand(text: &str, variables: &[(String, SecretString)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$$") {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix("$(").and_then(|inside| inside.split_once(')')) {
            match variables.iter().find(|(known, _)| known == name) {
                Some((_, value)) => out.push_str(value.expose()),
                None => out.push_str(&rest[..name.len() + 3]),
            }
            rest = after;
        } else {
            out.push('$');
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    out
}

fn secrets_of(template: &PodTemplate) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for container in template.init_containers.iter().chain(&template.containers) {
        names.extend(
            container
                .environment
                .from
                .iter()
                .filter(|from| from.secret)
                .map(|from| from.name.clone()),
        );
        for (_, source) in &container.environment.variables {
            if let Source::Key { secret: true, name, .. } = source {
                names.insert(name.clone());
            }
        }
    }
    for volume in &template.volumes {
        if let VolumeSource::Files { secret: true, name, .. } = &volume.source {
            names.insert(name.clone());
        }
    }
    names
}

/// Writes `files` under `folder`, whose parent `private` (in memory) only this user may enter.
fn write_files(private: &Path, folder: &Path, files: &[(String, SecretString)], mode: u32) -> io::Result<()> {
    if folder.starts_with(private) {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(private)?;
    }
    // Pods of any user read them, and see this folder only.
    std::fs::create_dir_all(folder)?;
    for (path, value) in files {
        let path = folder.join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let file = tempfile::NamedTempFile::new_in(folder)?;
        std::fs::write(file.path(), value.expose())?;
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode))?;
        file.persist(path).map_err(|error| error.error)?;
    }
    Ok(())
}

/// A future that is owned and may move between threads.
pub(crate) type Boxed<T> = BoxFuture<'static, T>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_expand_as_on_a_cluster() {
        let variables = [
            ("A".to_string(), SecretString::new("one".into())),
            ("B_C".to_string(), SecretString::new("2".into())),
        ];
        for (text, expect) in [
            ("$(A)/$(B_C)", "one/2"),
            ("$$(A)", "$(A)"),
            ("$(NO) $A ${A} $", "$(NO) $A ${A} $"),
            ("$(A", "$(A"),
            ("plain", "plain"),
        ] {
            assert_eq!(expand(text, &variables), expect, "{text}");
        }
    }
}
