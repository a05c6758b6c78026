//! The proxies of one environment: one per Service, and one for all its Ingresses.

use super::{
    context::{Context, bounded_log},
    model::{Deployment, Ingress, Service, ServicePort, TargetPort},
    names,
    pod::{Owner, Pod},
};
use crate::{
    proxy::{Backend, Listener, Mode, PathType, ProxyState, ROUTES_FILE, Routes, Rule, STATE_FILE, replace_file},
    target::TargetError,
};
use bollard::models::{
    ContainerCreateBody, EndpointSettings, HostConfig, Mount, MountType, NetworkingConfig, PortBinding, RestartPolicy,
    RestartPolicyNameEnum,
};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};
use towpath_types::Digest;

/// The proxy that all Ingresses of an environment share.
pub(crate) const INGRESS: &str = "ingress";
/// Where it listens in its container.
const INGRESS_PORT: u16 = 8080;
/// Where a proxy finds its routes.
const ROUTES_INSIDE: &str = "/towpath/routes";
/// How often another port is tried when somebody took the chosen one in between.
const PORT_ATTEMPTS: u32 = 5;

/// What a proxy is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub key: String,
    pub aliases: Vec<String>,
    pub listeners: Vec<Listener>,
    pub pools: BTreeMap<String, Vec<Backend>>,
}

/// A proxy as it is.
#[derive(Debug)]
pub(crate) struct Frontend {
    pub folder: PathBuf,
    /// What was written last.
    pub routes: Routes,
    /// Whether its container was seen running, made of what it is to be made of.
    pub running: bool,
    /// Why it is not; empty when it is.
    pub message: String,
}

pub(crate) fn service_key(name: &str) -> String {
    format!("service-{name}")
}

/// The proxies that there should be, and what they should know.
pub(crate) fn wanted(
    namespace: &str,
    services: &BTreeMap<String, Service>,
    ingresses: &BTreeMap<String, Ingress>,
    pods: &[Arc<Pod>],
) -> Vec<Wanted> {
    let mut all = Vec::new();
    for (name, service) in services {
        let mut pools = BTreeMap::new();
        let mut listeners = Vec::new();
        for port in &service.ports {
            let pool = pool_name(name, port);
            pools.insert(pool.clone(), backends(service, port, pods));
            listeners.push(Listener {
                port: port.port,
                mode: port.mode,
                rules: vec![Rule {
                    host: None,
                    path: "/".into(),
                    path_type: PathType::Prefix,
                    pool,
                }],
                loopback_host: None,
            });
        }
        all.push(Wanted {
            key: service_key(name),
            aliases: vec![
                name.clone(),
                format!("{name}.{namespace}"),
                format!("{name}.{namespace}.svc"),
                format!("{name}.{namespace}.svc.cluster.local"),
            ],
            listeners,
            pools,
        });
    }
    if !ingresses.is_empty() {
        let mut pools = BTreeMap::new();
        let mut rules = Vec::new();
        for rule in ingresses.values().flat_map(|ingress| &ingress.rules) {
            // A rule whose Service or port is not there is refused before; between two steps of an application its
            // pool is empty and requests wait.
            let found = services.get(&rule.service).and_then(|service| {
                let port = service.ports.iter().find(|port| match &rule.port {
                    TargetPort::Number(number) => port.port == *number,
                    TargetPort::Name(name) => port.name.as_ref() == Some(name),
                })?;
                Some((pool_name(&rule.service, port), backends(service, port, pods)))
            });
            let (pool, backends) = found.unwrap_or_else(|| (format!("{}:?", rule.service), Vec::new()));
            pools.insert(pool.clone(), backends);
            rules.push(Rule {
                host: rule.host.clone(),
                path: rule.path.clone(),
                path_type: rule.path_type,
                pool,
            });
        }
        let hosts: BTreeSet<&String> = rules.iter().filter_map(|rule| rule.host.as_ref()).collect();
        let loopback_host = match hosts.first() {
            Some(host) if hosts.len() == 1 && !host.starts_with("*.") => Some((*host).clone()),
            _ => None,
        };
        all.push(Wanted {
            key: INGRESS.into(),
            aliases: Vec::new(),
            listeners: vec![Listener {
                port: INGRESS_PORT,
                mode: Mode::Http,
                rules,
                loopback_host,
            }],
            pools,
        });
    }
    all
}

fn pool_name(service: &str, port: &ServicePort) -> String {
    format!("{service}:{}", port.port)
}

fn backends(service: &Service, port: &ServicePort, pods: &[Arc<Pod>]) -> Vec<Backend> {
    let mut found: Vec<Backend> = pods
        .iter()
        .filter(|pod| matches!(pod.owner, Owner::Deployment { .. }) && selects(&service.selector, &pod.template.labels))
        .filter_map(|pod| {
            let state = pod.state();
            let address = SocketAddr::new(state.address?, pod.template.port(&port.target)?);
            (state.ready || state.leaving).then_some(Backend {
                address,
                draining: state.leaving,
            })
        })
        .collect();
    found.sort();
    found
}

/// A selector without labels selects nothing.
pub(crate) fn selects(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    !selector.is_empty() && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Whether the service has pods of `deployment`.
pub(crate) fn serves(service: &Service, deployment: &Deployment) -> bool {
    selects(&service.selector, &deployment.pod.labels)
}

impl Frontend {
    /// The proxy whose folder is `folder`, with what an earlier server told it.
    pub(crate) fn open(folder: PathBuf) -> Self {
        let routes = read(&folder.join(ROUTES_FILE)).unwrap_or_default();
        Self {
            folder,
            routes,
            running: false,
            message: "its proxy is being started".into(),
        }
    }

    /// Tells the proxy what is new, if anything is.
    pub(crate) fn tell(&mut self, wanted: &Wanted) -> io::Result<()> {
        if self.routes.generation > 0 && self.routes.listeners == wanted.listeners && self.routes.pools == wanted.pools
        {
            return Ok(());
        }
        std::fs::create_dir_all(&self.folder)?;
        let routes = Routes {
            generation: self.routes.generation + 1,
            listeners: wanted.listeners.clone(),
            pools: wanted.pools.clone(),
        };
        replace_file(&self.folder, ROUTES_FILE, &routes)?;
        self.routes = routes;
        Ok(())
    }

    /// Whether the proxy sends nothing more to `address` and has nothing under way there.
    pub(crate) fn drained(&self, address: IpAddr) -> bool {
        let told = self
            .routes
            .pools
            .values()
            .flatten()
            .filter(|backend| backend.address.ip() == address);
        let known: Vec<&Backend> = told.collect();
        if known.is_empty() || !self.running {
            return true;
        }
        let state: ProxyState = match read(&self.folder.join(STATE_FILE)) {
            Some(state) => state,
            None => return false,
        };
        known
            .iter()
            .all(|backend| backend.draining && state.drained(self.routes.generation, &backend.address))
    }

    /// Whether a backend at `address` got requests when this was written.
    pub(crate) fn served(&self, address: IpAddr) -> bool {
        self.routes
            .pools
            .values()
            .flatten()
            .any(|backend| backend.address.ip() == address && !backend.draining)
    }
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// Makes sure that the proxy `wanted` runs, made of what it should be made of.
///
/// A new version of the proxy's program is not a reason to make it anew: that would cut connections.
pub(crate) async fn ensure(context: &Context, wanted: &Wanted, folder: &Path) -> Result<(), TargetError> {
    let name = context.names.proxy(&wanted.key);
    let ingress = wanted.key == INGRESS;
    let made_of = json!({"aliases": wanted.aliases, "network": context.names.network(), "version": 1}).to_string();
    let digest = Digest::of(made_of.as_bytes()).short().to_string();
    for attempt in 0.. {
        let seen = context.engine.inspect(&name).await?;
        match seen {
            Some(seen) if seen.labels.get(names::PROXY) == Some(&digest) && seen.running => return Ok(()),
            Some(seen) if seen.labels.get(names::PROXY) != Some(&digest) => {
                context.engine.remove(&name).await?;
                continue;
            }
            _ => {}
        }
        let port = if ingress {
            Some(published_port(context).await?)
        } else {
            None
        };
        let body = body(context, wanted, folder, &digest, port)?;
        let attempted = || format!("start the proxy `{name}`");
        context
            .engine
            .create(&name, body)
            .await
            .map_err(TargetError::failed(attempted()))?;
        match context.engine.start(&name).await {
            Ok(()) => return Ok(()),
            Err(error) => {
                context.engine.remove(&name).await?;
                let text = error.to_string();
                let taken = text.contains("already allocated") || text.contains("address already in use");
                // Somebody may have taken a port that was free a moment ago; a port that people know is kept.
                if port.is_some() && taken && attempt < PORT_ATTEMPTS && !folder.join(STATE_FILE).exists() {
                    context.store.update(|document| document.port = None).await?;
                    continue;
                }
                return Err(TargetError::failed(attempted())(error));
            }
        }
    }
    Ok(())
}

/// The environment's port on 127.0.0.1: chosen once.
async fn published_port(context: &Context) -> Result<u16, TargetError> {
    if let Some(port) = context.store.read().port {
        return Ok(port);
    }
    let free = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map_err(TargetError::failed("find a free port on 127.0.0.1"))?;
    context
        .store
        .update(|document| *document.port.get_or_insert(free.port()))
        .await
}

fn body(
    context: &Context,
    wanted: &Wanted,
    folder: &Path,
    digest: &str,
    port: Option<u16>,
) -> Result<ContainerCreateBody, TargetError> {
    // It writes its state where we read it, so it is the same user.
    let owner = std::fs::metadata(folder).map_err(TargetError::failed(format!("look at `{}`", folder.display())))?;
    let mut labels = context.names.labels();
    labels.insert(names::PROXY.to_string(), digest.to_string());
    let mut command = context.proxy_command.clone();
    command.push(ROUTES_INSIDE.into());
    let published = format!("{INGRESS_PORT}/tcp");
    let network = context.names.network();
    Ok(ContainerCreateBody {
        image: Some(context.proxy_image.clone()),
        cmd: Some(command),
        user: Some(format!("{}:{}", owner.uid(), owner.gid())),
        labels: Some(labels),
        exposed_ports: port.map(|_| vec![published.clone()]),
        host_config: Some(HostConfig {
            network_mode: Some(network.clone()),
            mounts: Some(vec![Mount {
                typ: Some(MountType::BIND),
                source: Some(folder.display().to_string()),
                target: Some(ROUTES_INSIDE.into()),
                ..Mount::default()
            }]),
            port_bindings: port.map(|port| {
                let binding = PortBinding {
                    host_ip: Some(Ipv4Addr::LOCALHOST.to_string()),
                    host_port: Some(port.to_string()),
                };
                HashMap::from([(published, Some(vec![binding]))])
            }),
            // A Service's port may be a low one.
            sysctls: Some(HashMap::from([(
                "net.ipv4.ip_unprivileged_port_start".to_string(),
                "0".to_string(),
            )])),
            // Should it crash while the server is away.
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::ON_FAILURE),
                ..RestartPolicy::default()
            }),
            readonly_rootfs: Some(true),
            cap_drop: Some(vec!["ALL".into()]),
            security_opt: Some(vec!["no-new-privileges".into()]),
            log_config: Some(bounded_log()),
            ..HostConfig::default()
        }),
        networking_config: Some(NetworkingConfig {
            endpoints_config: Some(HashMap::from([(
                network,
                EndpointSettings {
                    aliases: Some(wanted.aliases.clone()),
                    ..EndpointSettings::default()
                },
            )])),
        }),
        ..ContainerCreateBody::default()
    })
}
