//! What a container is made of.

use bollard::models::{
    ContainerCreateBody, EndpointSettings, HostConfig, HostConfigLogConfig, Mount as EngineMount, MountType,
    MountVolumeOptions, NetworkingConfig, PortBinding, RestartPolicy, RestartPolicyNameEnum,
};
use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};
use towpath_types::SecretString;

/// Labels of a container, a network or a volume.
pub type Labels = BTreeMap<String, String>;

/// A container to create. Unset fields default to the image's or the engine's settings.
#[derive(Debug, Clone, Default)]
pub struct ContainerSpec {
    /// A reference or an id. The engine has to have it.
    pub image: String,
    /// Overrides the image's entrypoint.
    pub entrypoint: Option<Vec<String>>,
    /// Overrides the image's command.
    pub command: Option<Vec<String>>,
    /// Overrides the image's working directory; an absolute path.
    pub working_directory: Option<String>,
    /// Overrides the image's user: a name or a number, optionally with a group after a colon.
    pub user: Option<String>,
    /// Added to the image's environment. Values may be secrets.
    pub environment: Vec<(String, SecretString)>,
    #[allow(missing_docs)]
    pub labels: Labels,
    /// The container's own name in its network.
    pub host_name: Option<String>,
    #[allow(missing_docs)]
    pub network: Network,
    /// Additional host names with their addresses.
    pub hosts: Vec<(String, IpAddr)>,
    #[allow(missing_docs)]
    pub mounts: Vec<Mount>,
    #[allow(missing_docs)]
    pub published: Option<PublishedPort>,
    #[allow(missing_docs)]
    pub limits: Limits,
    /// Kernel parameters of the container's own network.
    pub sysctls: BTreeMap<String, String>,
    /// Capabilities to take away; `ALL` takes all.
    pub dropped_capabilities: Vec<String>,
    /// Whether the root file system is read-only.
    pub read_only: bool,
    /// Whether programs in it can never gain privileges.
    pub no_new_privileges: bool,
    /// Whether the engine restarts it when it ends with another code than 0.
    pub restart_on_failure: bool,
    /// The time between the stop signal and the kill when the engine itself stops it.
    pub stop_timeout: Option<Duration>,
    #[allow(missing_docs)]
    pub log_limit: Option<LogLimit>,
}

/// The network of a container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Network {
    /// The engine's own bridge.
    #[default]
    Default,
    /// A created network, in which the container also answers to these names.
    Named {
        #[allow(missing_docs)]
        name: String,
        #[allow(missing_docs)]
        aliases: Vec<String>,
    },
    /// The network of the container with this name: they share all addresses and ports.
    OfContainer(String),
}

/// A mount in a container's file system.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Mount {
    pub source: MountSource,
    /// The absolute path in the container.
    pub target: String,
    pub read_only: bool,
}

/// The source of a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountSource {
    /// A file or folder of the engine's machine, which has to be there.
    Host(PathBuf),
    /// A volume. The engine creates it with these labels if it does not exist.
    Volume {
        #[allow(missing_docs)]
        name: String,
        #[allow(missing_docs)]
        labels: Labels,
    },
}

/// A port of a container, published at an address of the engine's machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct PublishedPort {
    pub container_port: u16,
    pub at: SocketAddr,
}

/// The resources that a container may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// The CPU limit, in thousandths of a processor.
    pub cpu_millis: Option<u64>,
    /// The CPU share when processors are short, in thousandths of a processor.
    pub cpu_request_millis: Option<u64>,
    /// The memory limit in bytes; the kernel kills a container that exceeds it.
    pub memory_bytes: Option<u64>,
    /// The memory in bytes that the kernel leaves the container when memory is short.
    pub memory_request_bytes: Option<u64>,
    /// The most processes and threads at once.
    pub processes: Option<u64>,
}

/// How much of a container's output the engine keeps on disk. Older output is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLimit {
    /// The size of each of two files, in MiB.
    pub mebibytes: u32,
}

/// The kernel's range for CPU shares; 1024 stands for one processor.
const CPU_SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;

impl ContainerSpec {
    pub(crate) fn body(&self) -> ContainerCreateBody {
        let published = self
            .published
            .map(|port| (format!("{}/tcp", port.container_port), port.at));
        ContainerCreateBody {
            image: Some(self.image.clone()),
            entrypoint: self.entrypoint.clone(),
            cmd: self.command.clone(),
            working_dir: self.working_directory.clone(),
            user: self.user.clone(),
            env: Some(self.environment()),
            labels: Some(self.labels.clone().into_iter().collect()),
            hostname: self.host_name.clone(),
            stop_timeout: self.stop_timeout.map(|timeout| whole(timeout.as_secs())),
            exposed_ports: published.as_ref().map(|(port, _)| vec![port.clone()]),
            networking_config: self.networking(),
            host_config: Some(HostConfig {
                network_mode: self.network_mode(),
                extra_hosts: some(self.hosts.iter().map(|(name, at)| format!("{name}:{at}")).collect()),
                mounts: some(self.mounts.iter().map(Mount::body).collect()),
                port_bindings: published.map(|(port, at)| {
                    let binding = PortBinding {
                        host_ip: Some(at.ip().to_string()),
                        host_port: Some(at.port().to_string()),
                    };
                    HashMap::from([(port, Some(vec![binding]))])
                }),
                nano_cpus: self
                    .limits
                    .cpu_millis
                    .map(|millis| whole(millis.saturating_mul(1_000_000))),
                cpu_shares: self.limits.cpu_request_millis.map(|millis| {
                    let shares = millis.saturating_mul(1024) / 1000;
                    whole(shares.clamp(*CPU_SHARES.start(), *CPU_SHARES.end()))
                }),
                memory: self.limits.memory_bytes.map(whole),
                memory_reservation: self.limits.memory_request_bytes.map(whole),
                pids_limit: self.limits.processes.map(whole),
                sysctls: (!self.sysctls.is_empty()).then(|| self.sysctls.clone().into_iter().collect()),
                cap_drop: some(self.dropped_capabilities.clone()),
                readonly_rootfs: Some(self.read_only),
                security_opt: self.no_new_privileges.then(|| vec!["no-new-privileges".to_string()]),
                restart_policy: self.restart_on_failure.then(|| RestartPolicy {
                    name: Some(RestartPolicyNameEnum::ON_FAILURE),
                    ..RestartPolicy::default()
                }),
                log_config: self.log_limit.map(LogLimit::body),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        }
    }

    fn environment(&self) -> Vec<String> {
        let pairs = self.environment.iter();
        pairs
            .map(|(name, value)| format!("{name}={}", value.expose()))
            .collect()
    }

    fn network_mode(&self) -> Option<String> {
        match &self.network {
            Network::Default => None,
            Network::Named { name, .. } => Some(name.clone()),
            Network::OfContainer(name) => Some(format!("container:{name}")),
        }
    }

    fn networking(&self) -> Option<NetworkingConfig> {
        let Network::Named { name, aliases } = &self.network else {
            return None;
        };
        let settings = EndpointSettings {
            aliases: some(aliases.clone()),
            ..EndpointSettings::default()
        };
        Some(NetworkingConfig {
            endpoints_config: Some(HashMap::from([(name.clone(), settings)])),
        })
    }
}

impl Mount {
    /// Mounts a file or folder of the engine's machine read-only.
    #[must_use]
    pub fn read_only_host(source: impl Into<PathBuf>, target: &str) -> Self {
        Self {
            source: MountSource::Host(source.into()),
            target: target.to_string(),
            read_only: true,
        }
    }

    fn body(&self) -> EngineMount {
        let (typ, source, labels) = match &self.source {
            MountSource::Host(path) => (MountType::BIND, path.display().to_string(), None),
            MountSource::Volume { name, labels } => (MountType::VOLUME, name.clone(), Some(labels)),
        };
        EngineMount {
            typ: Some(typ),
            source: Some(source),
            target: Some(self.target.clone()),
            read_only: Some(self.read_only),
            volume_options: labels
                .filter(|labels| !labels.is_empty())
                .map(|labels| MountVolumeOptions {
                    labels: Some(labels.clone().into_iter().collect()),
                    ..MountVolumeOptions::default()
                }),
            ..EngineMount::default()
        }
    }
}

impl LogLimit {
    fn body(self) -> HostConfigLogConfig {
        HostConfigLogConfig {
            typ: Some("json-file".to_string()),
            config: Some(HashMap::from([
                ("max-size".to_string(), format!("{}m", self.mebibytes)),
                ("max-file".to_string(), "2".to_string()),
            ])),
        }
    }
}

/// `None` for an empty list, because engines treat an empty list as a setting.
fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_in_the_request_and_nowhere_else() {
        let spec = ContainerSpec {
            environment: vec![("TOKEN".into(), SecretString::new("hunter2".into()))],
            ..ContainerSpec::default()
        };
        assert!(!format!("{spec:?}").contains("hunter2"));
        assert_eq!(spec.body().env.unwrap(), ["TOKEN=hunter2"]);
    }

    #[test]
    fn limits_are_in_the_engines_units() {
        let limits = Limits {
            cpu_millis: Some(1500),
            cpu_request_millis: Some(1),
            memory_bytes: Some(u64::MAX),
            memory_request_bytes: None,
            processes: Some(512),
        };
        let spec = ContainerSpec {
            limits,
            log_limit: Some(LogLimit { mebibytes: 10 }),
            ..ContainerSpec::default()
        };
        let host = spec.body().host_config.unwrap();
        assert_eq!((host.nano_cpus, host.cpu_shares), (Some(1_500_000_000), Some(2)));
        assert_eq!((host.memory, host.memory_reservation), (Some(i64::MAX), None));
        assert_eq!(host.log_config.unwrap().config.unwrap()["max-size"], "10m");
    }
}
