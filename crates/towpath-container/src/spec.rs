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

/// A container to make. What is not set is as the image or the engine has it.
#[derive(Debug, Clone, Default)]
pub struct ContainerSpec {
    /// A reference or an id. The engine has to have it.
    pub image: String,
    /// Replaces the image's.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's.
    pub command: Option<Vec<String>>,
    /// Replaces the image's; absolute.
    pub working_directory: Option<String>,
    /// Replaces the image's: a name or a number, and perhaps a group behind a colon.
    pub user: Option<String>,
    /// Over the image's. Values may be secrets.
    pub environment: Vec<(String, SecretString)>,
    #[allow(missing_docs)]
    pub labels: Labels,
    /// The container's own name in its network.
    pub host_name: Option<String>,
    #[allow(missing_docs)]
    pub network: Network,
    /// Further names that the container finds at an address.
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
    /// Whether only mounts can be written to.
    pub read_only: bool,
    /// Whether no program in it gets more rights than it was started with.
    pub no_new_privileges: bool,
    /// Whether the engine starts it again when it ends with another code than 0.
    pub restart_on_failure: bool,
    /// How long it has between the stop signal and the kill when the engine itself stops it.
    pub stop_timeout: Option<Duration>,
    #[allow(missing_docs)]
    pub log_limit: Option<LogLimit>,
}

/// Which network a container is in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Network {
    /// The engine's own bridge.
    #[default]
    Default,
    /// One that was made, in which the container answers to these names besides its own.
    Named {
        #[allow(missing_docs)]
        name: String,
        #[allow(missing_docs)]
        aliases: Vec<String>,
    },
    /// That of the container of this name: they share all addresses and ports.
    OfContainer(String),
}

/// Something that a container sees in its file system.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Mount {
    pub source: MountSource,
    /// Where it is seen: an absolute path.
    pub target: String,
    pub read_only: bool,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountSource {
    /// A file or folder of the engine's machine, which has to be there.
    Host(PathBuf),
    /// A volume. The engine makes it, with these labels, when there is none of that name.
    Volume {
        #[allow(missing_docs)]
        name: String,
        #[allow(missing_docs)]
        labels: Labels,
    },
}

/// A port of a container that is reached at an address of the engine's machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct PublishedPort {
    pub container_port: u16,
    pub at: SocketAddr,
}

/// What a container may use of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Thousandths of a processor that it never gets more than.
    pub cpu_millis: Option<u64>,
    /// Thousandths of a processor by which it is weighed when processors are short.
    pub cpu_request_millis: Option<u64>,
    /// Bytes past which it is killed.
    pub memory_bytes: Option<u64>,
    /// Bytes down to which the kernel takes memory back when that is short.
    pub memory_request_bytes: Option<u64>,
    /// How many processes and threads it may have at once.
    pub processes: Option<u64>,
}

/// How much of a container's output the engine keeps on its disk. Older output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLimit {
    /// The size of each of two files, in MiB.
    pub mebibytes: u32,
}

/// The kernel's bounds of a container's weight; 1024 stands for one processor.
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
    /// A file or folder of the engine's machine that the container can only read.
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

/// `None` instead of an empty list, which engines take for a setting.
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
