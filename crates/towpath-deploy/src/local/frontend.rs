//! The proxies of one environment: one for each Service, and one for all its Ingresses.

use super::{
    container::LOG_LIMIT,
    local_environment::LocalEnvironment,
    model::{Deployment, Ingress, Service, ServicePort, TargetPort},
    names,
    pod::{Owner, Pod},
};
use crate::{
    proxy::{Backend, Listener, Mode, PathType, ProxyState, ROUTES_FILE, Routes, Rule, STATE_FILE, replace_file},
    target::TargetError,
};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};
use towpath_container::{ContainerSpec, Mount, MountSource, Network, PublishedPort};
use towpath_types::{Digest, with_causes};

/// The proxy that all Ingresses of an environment share.
pub(crate) const INGRESS: &str = "ingress";
/// The Ingress proxy's port inside its container.
const INGRESS_PORT: u16 = 8080;
/// The folder of the routes inside a proxy's container.
const ROUTES_INSIDE: &str = "/towpath/routes";
/// How many other ports to try if another program takes the chosen one first.
const PORT_ATTEMPTS: u32 = 5;

/// The wanted state of a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub key: String,
    pub aliases: Vec<String>,
    pub listeners: Vec<Listener>,
    pub pools: BTreeMap<String, Vec<Backend>>,
}

/// The actual state of a proxy.
#[derive(Debug)]
pub(crate) struct Frontend {
    pub folder: PathBuf,
    /// The routes as last written.
    pub routes: Routes,
    /// Whether its container was last seen running, and matches the wanted state.
    pub running: bool,
    /// Why it is not running; empty if it is.
    pub message: String,
}

pub(crate) fn service_key(name: &str) -> String {
    format!("service-{name}")
}

/// The wanted proxies, each with its routes.
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
            // A rule without its Service or port was refused earlier. Between two steps of an application, its pool may be
            // empty. Requests wait then.
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
    /// The proxy of the folder `folder`, with the routes that an earlier server wrote.
    pub(crate) fn open(folder: PathBuf) -> Self {
        let routes = read(&folder.join(ROUTES_FILE)).unwrap_or_default();
        Self {
            folder,
            routes,
            running: false,
            message: "its proxy is being started".into(),
        }
    }

    /// Writes the proxy's routes if they have changed.
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

    /// Whether the proxy sends no more requests to `address` and has none in progress there.
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

    /// Whether a backend at `address` received requests when the routes were last written.
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

/// Makes sure that the proxy `wanted` runs and matches its wanted state.
///
/// Does not replace a proxy only because its program has a new version: that would cut connections.
pub(crate) async fn ensure(context: &LocalEnvironment, wanted: &Wanted, folder: &Path) -> Result<(), TargetError> {
    let name = context.names.proxy(&wanted.key);
    let is_ingress = wanted.key == INGRESS;
    let made_of = json!({"aliases": wanted.aliases, "network": context.names.network(), "version": 1}).to_string();
    let digest = Digest::of(made_of.as_bytes()).to_string();
    for attempt in 0.. {
        let seen = context.engine.inspect(&name).await?;
        match seen {
            Some(seen) if seen.labels.get(names::PROXY) == Some(&digest) && seen.is_running() => return Ok(()),
            Some(seen) if seen.labels.get(names::PROXY) != Some(&digest) => {
                context.engine.remove(&name).await?;
                continue;
            }
            _ => {}
        }
        let port = if is_ingress {
            Some(published_port(context).await?)
        } else {
            None
        };
        let spec = spec(context, wanted, folder, &digest, port)?;
        // If the name is taken, it is that of the same proxy, which has stopped.
        let _ = context.engine.create(&name, &spec).await?;
        match context.engine.start(&name).await {
            Ok(()) => return Ok(()),
            Err(error) => {
                context.engine.remove(&name).await?;
                let text = with_causes(&error);
                let taken = text.contains("already allocated") || text.contains("address already in use");
                // Another program may have taken a port that was free a moment ago. Keep a port that people already know.
                if port.is_some() && taken && attempt < PORT_ATTEMPTS && !folder.join(STATE_FILE).exists() {
                    context.store.update(|document| document.port = None).await?;
                    continue;
                }
                return Err(error.into());
            }
        }
    }
    Ok(())
}

/// The environment's port on 127.0.0.1. It is chosen once and then kept.
async fn published_port(context: &LocalEnvironment) -> Result<u16, TargetError> {
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

fn spec(
    context: &LocalEnvironment,
    wanted: &Wanted,
    folder: &Path,
    digest: &str,
    port: Option<u16>,
) -> Result<ContainerSpec, TargetError> {
    // The proxy writes its state to a folder that this server reads, so it runs as the same user.
    let owner = std::fs::metadata(folder).map_err(TargetError::failed(format!("look at `{}`", folder.display())))?;
    let mut labels = context.names.labels();
    labels.insert(names::PROXY.to_string(), digest.to_string());
    Ok(ContainerSpec {
        image: context.proxy_image.clone(),
        command: Some(vec!["proxy".into(), "--routes".into(), ROUTES_INSIDE.into()]),
        user: Some(format!("{}:{}", owner.uid(), owner.gid())),
        labels,
        network: Network::Named {
            name: context.names.network(),
            aliases: wanted.aliases.clone(),
        },
        mounts: vec![Mount {
            source: MountSource::Host(folder.to_path_buf()),
            target: ROUTES_INSIDE.into(),
            read_only: false,
        }],
        published: port.map(|port| PublishedPort {
            container_port: INGRESS_PORT,
            at: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        }),
        // A Service's port may be below 1024.
        sysctls: BTreeMap::from([("net.ipv4.ip_unprivileged_port_start".into(), "0".into())]),
        // The proxy may crash while the server is away.
        restart_on_failure: true,
        read_only: true,
        dropped_capabilities: vec!["ALL".into()],
        no_new_privileges: true,
        log_limit: Some(LOG_LIMIT),
        ..ContainerSpec::default()
    })
}
