//! What a server is started with.

use crate::job::prepare::Addresses;
use std::{net::SocketAddr, path::PathBuf};
use towpath_deploy::Identity as KubeIdentity;
use towpath_store::ObjectLocation;
use towpath_types::{SecretString, SeenSecrets};

/// Where logs and blobs are kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ObjectSettings {
    /// In the data directory.
    #[default]
    DataDirectory,
    /// Elsewhere: a folder, or an S3-compatible object store.
    At(ObjectLocation),
}

/// Where environments are.
#[derive(Debug, Clone)]
pub enum TargetSettings {
    /// On this machine's container engine.
    Local,
    /// On Kubernetes: each in the cluster of the kube context whose folder has its manifests.
    Kubernetes(KubeIdentity),
}

/// What a server is started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where git repositories, images, sealed secrets and tokens are kept; and, by default, rows, logs and blobs. Several
    /// servers of one installation share it.
    pub data_dir: PathBuf,
    /// `None` keeps rows in SQLite in the data directory, for this server alone; else a URL of PostgreSQL.
    pub database: Option<SecretString>,
    /// Where logs and blobs are kept.
    pub objects: ObjectSettings,
    /// What tells this server from others that share the data directory: a folder's name. `None` for the only one.
    pub name: Option<String>,
    /// Where the server listens: pages, git, registry.
    pub address: SocketAddr,
    /// This program's file: agent, proxy and hook.
    pub binary: PathBuf,
    /// The names of the host's environment variables that jobs of machine executors get.
    pub host_environment: Vec<String>,
    /// The public orb registry's address; `None` asks none.
    pub orb_registry: Option<String>,
    /// What the public registry knows this server by.
    pub orb_registry_token: Option<SecretString>,
    /// The beginnings of URLs that orbs may come from.
    pub orb_url_prefixes: Vec<towpath_orbs::UrlPrefix>,
    /// Where environments are.
    pub target: TargetSettings,
    /// Where the values of contexts and Secrets are noted that this server has had in its hands: its log hides them.
    pub seen: SeenSecrets,
    /// Whether there is to be a container engine for jobs. Without one only jobs on the host run.
    pub engine: bool,
}

impl Settings {
    /// The folder of this server alone: its agents' socket and its jobs on the host.
    pub(crate) fn own_folder(&self) -> PathBuf {
        match &self.name {
            None => self.data_dir.clone(),
            Some(name) => self.data_dir.join("servers").join(name),
        }
    }

    /// Where the agents' socket is to be.
    pub(crate) fn agent_socket(&self) -> PathBuf {
        self.own_folder().join("run/agent/agent.sock")
    }

    /// Where people and jobs find this server.
    pub(crate) fn addresses(&self) -> Addresses {
        Addresses {
            base_url: format!("http://{}", self.address),
            registry: self.address.to_string(),
        }
    }
}
