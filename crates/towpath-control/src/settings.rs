//! What a server is started with.

use crate::job::prepare::{Addresses, EngineUse};
use std::{net::SocketAddr, path::PathBuf};
use towpath_deploy::Identity as KubeIdentity;
use towpath_engines::HostUsers;
use towpath_store::ObjectLocation;
use towpath_types::{SecretString, SeenSecrets};

/// Where to store logs and blobs.
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

/// Where the folders of root's jobs are, unless the settings name another place.
const JOBS_FOLDER: &str = "/var/lib/towpath-jobs";

/// How jobs with a machine executor run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostJobs {
    /// The folder for their private folders, in which each server has one of its own. `None`: in the data directory.
    pub directory: Option<PathBuf>,
    /// The users that they run as. `None`: the server's own.
    pub users: Option<HostUsers>,
    /// Which of them may use the machine's container engine.
    pub engine: EngineUse,
}

impl HostJobs {
    /// The part of the wanted settings that this process has the rights for. Only root can run jobs as other users. Such jobs
    /// have no access to the data directory, so their folders are elsewhere.
    #[must_use]
    pub fn allowed(users: Option<HostUsers>, directory: Option<PathBuf>, engine: EngineUse) -> Self {
        let possible = HostUsers::are_possible();
        Self {
            directory: directory.or_else(|| possible.then(|| PathBuf::from(JOBS_FOLDER))),
            users: users.filter(|_| possible),
            engine,
        }
    }
}

/// What a server is started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where git repositories, images, sealed secrets and tokens are stored; by default rows, logs and blobs, too.
    /// Several servers of one installation share it.
    pub data_dir: PathBuf,
    /// A PostgreSQL URL; `None` stores rows in SQLite in the data directory, for this server alone.
    pub database: Option<SecretString>,
    /// Where to store logs and blobs.
    pub objects: ObjectSettings,
    /// A folder name that tells apart servers which share the data directory. `None` for the only one.
    pub name: Option<String>,
    /// The address to listen on for pages, git and the registry.
    pub address: SocketAddr,
    /// The path of this program, which also runs as agent, proxy and hook.
    pub binary: PathBuf,
    /// The names of the host's environment variables that jobs with a machine executor get.
    pub host_environment: Vec<String>,
    /// How jobs with a machine executor run.
    pub host_jobs: HostJobs,
    /// The public orb registry's address; `None` for none.
    pub orb_registry: Option<String>,
    /// The token for the public orb registry.
    pub orb_registry_token: Option<SecretString>,
    /// The URL prefixes that orbs may be loaded from.
    pub orb_url_prefixes: Vec<towpath_orbs::UrlPrefix>,
    /// Where environments are.
    pub target: TargetSettings,
    /// Collects the values of contexts and Secrets that this server has handled, so that its log hides them.
    pub seen: SeenSecrets,
    /// Whether to use a container engine for jobs. Without one only jobs on the host run.
    pub engine: bool,
}

impl Settings {
    /// The folder for this server only.
    pub(crate) fn own_folder(&self) -> PathBuf {
        match &self.name {
            None => self.data_dir.clone(),
            Some(name) => self.data_dir.join("servers").join(name),
        }
    }

    /// The name under which this server makes things outside of the data directory. Two servers on one machine must not treat
    /// each other's environments as orphans.
    pub(crate) fn instance(&self, of_store: &str) -> String {
        match &self.name {
            None => of_store.to_string(),
            Some(name) => format!("{of_store}-{name}"),
        }
    }

    /// The folder for the jobs on the host.
    pub(crate) fn jobs_folder(&self, of_store: &str) -> PathBuf {
        match &self.host_jobs.directory {
            None => self.own_folder().join("jobs"),
            Some(directory) => directory.join(self.instance(of_store)),
        }
    }

    /// The path of the agents' socket. Jobs on the host have to reach it, and may have no access to the data directory.
    pub(crate) fn agent_socket(&self, of_store: &str) -> PathBuf {
        match &self.host_jobs.directory {
            None => self.own_folder().join("run/agent/agent.sock"),
            Some(directory) => directory
                .join(format!("{}.run", self.instance(of_store)))
                .join("agent.sock"),
        }
    }

    /// The addresses at which people and jobs reach this server.
    pub(crate) fn addresses(&self) -> Addresses {
        Addresses {
            base_url: format!("http://{}", self.address),
            registry: self.address.to_string(),
        }
    }
}
