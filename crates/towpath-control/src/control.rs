//! The conductor itself: what it holds, how it starts, and how it stops.

use crate::{
    ControlError, Grant, Tokens,
    conductor::{Live, store_error},
    jobs::RunningJobs,
    records::{Push, collection},
    releases::Releases,
    secrets::EnvironmentSecrets,
};
use futures::future::BoxFuture;
use std::{collections::HashMap, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};
use tokio::sync::{Mutex, broadcast};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use towpath_deploy::render::Renderer;
use towpath_deploy::{Identity, Target};
use towpath_engines::{DockerEngine, DockerOptions, Engine, HostEngine, HostOptions};
use towpath_forge::{Forge, ProjectName};
use towpath_images::{
    Access, Authorize, Registry, Verdict,
    registry::{PushObserver, PushedManifest},
};
use towpath_secrets::Vault;
use towpath_store::{Batch, Store};
use towpath_types::{ImageReference, WorkflowId};

/// How often the registry's garbage is looked for.
const COLLECT_EVERY: Duration = Duration::from_secs(3600);
/// How long a client may take between uploading a blob and the manifest that names it.
const COLLECT_GRACE: Duration = Duration::from_secs(3600);

/// What a server is started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Where the server listens: pages, git, registry.
    pub address: SocketAddr,
    /// This program's file: agent, proxy and hook.
    pub binary: PathBuf,
    /// The names of the host's environment variables that jobs of machine executors get.
    pub host_environment: Vec<String>,
    /// The public orb registry's address; `None` asks none.
    pub orb_registry: Option<String>,
    /// The beginnings of URLs that orbs may come from.
    pub orb_url_prefixes: Vec<towpath_orbs::UrlPrefix>,
    /// Where environments are.
    pub target: TargetSettings,
    /// Whether there is to be a container engine for jobs. Without one no job runs, and only clusters are deployed to.
    pub engine: bool,
}

/// Where environments are.
#[derive(Debug, Clone)]
pub enum TargetSettings {
    /// On this machine's container engine.
    Local,
    /// On Kubernetes: each in the cluster of the kube context whose folder has its manifests.
    Kubernetes(Identity),
}

/// Feeds events to the workflows, carries out what follows, and answers what people ask.
pub struct Control {
    pub(crate) settings: Settings,
    pub(crate) store: Store,
    pub(crate) forge: Forge,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) vault: Arc<Vault>,
    pub(crate) registry: Registry,
    pub(crate) target: Arc<dyn Target>,
    pub(crate) docker: Option<Arc<dyn Engine>>,
    pub(crate) host: Arc<dyn Engine>,
    pub(crate) lives: Mutex<HashMap<WorkflowId, Arc<Mutex<Live>>>>,
    pub(crate) running: RunningJobs,
    /// By project: held while a pipeline takes its number.
    pub(crate) numbering: std::sync::Mutex<HashMap<String, Arc<Mutex<()>>>>,
    /// Held while a version of an orb is published.
    pub(crate) publishing: Mutex<()>,
    pub(crate) releases: Releases,
    pub(crate) renderer: Renderer,
    pub(crate) tasks: TaskTracker,
    pub(crate) shutdown: CancellationToken,
}

impl Control {
    /// Opens the data directory and everything in it, and finds the container engine.
    ///
    /// # Errors
    /// When another Towpath uses the directory, something in it cannot be used, or there is no engine in reach.
    pub async fn open(settings: Settings) -> Result<Arc<Self>, ControlError> {
        let failed = |what: &str| {
            let what = format!("failed to open {what} in `{}`", settings.data_dir.display());
            move |error: Box<dyn std::error::Error + Send + Sync>| ControlError::unavailable(what).caused_by(error)
        };
        let store = Store::open(&settings.data_dir)
            .await
            .map_err(|error| failed("the storage")(error.into()))?;
        let tokens = Arc::new(Tokens::open(&settings.data_dir).map_err(|error| failed("the tokens")(error.into()))?);
        let vault =
            Vault::open(&settings.data_dir.join("secrets")).map_err(|error| failed("the secrets")(error.into()))?;
        let vault = Arc::new(vault);
        let forge = Forge::open(&settings.data_dir.join("git"), &settings.binary)
            .await
            .map_err(|error| failed("the git repositories")(error.into()))?;
        let observer = push_recorder(store.clone(), settings.address.to_string());
        let door = Arc::new(RegistryDoor { tokens: tokens.clone() });
        let registry = Registry::open(settings.data_dir.join("registry"), door, observer)
            .map_err(|error| failed("the registry")(error.into()))?;
        let socket = settings.data_dir.join("run/agent/agent.sock");
        let docker: Option<Arc<dyn Engine>> = match settings.engine {
            false => None,
            true => {
                let docker = DockerEngine::connect(DockerOptions {
                    instance: store.instance().to_string(),
                    agent_binary: settings.binary.clone(),
                    agent_socket: socket.clone(),
                });
                let absent =
                    |error| ControlError::unavailable("there is no container engine in reach").caused_by(error);
                Some(Arc::new(docker.await.map_err(absent)?))
            }
        };
        let host = HostEngine::new(HostOptions {
            directory: settings.data_dir.join("jobs"),
            agent_binary: settings.binary.clone(),
            agent_socket: socket,
            inherited: settings.host_environment.clone(),
        })
        .map_err(|error| failed("the jobs' folder")(error.into()))?;
        let secrets = Arc::new(EnvironmentSecrets::new(
            vault.clone(),
            tokens.clone(),
            settings.address.to_string(),
            matches!(settings.target, TargetSettings::Local),
        ));
        let target = crate::releases::open_target(&settings, store.instance(), secrets).await?;
        let control = Arc::new(Self {
            store,
            forge,
            tokens,
            vault,
            registry,
            target,
            docker,
            host: Arc::new(host),
            lives: Mutex::default(),
            running: RunningJobs::default(),
            numbering: std::sync::Mutex::default(),
            publishing: Mutex::default(),
            releases: Releases::default(),
            renderer: Renderer::default(),
            tasks: TaskTracker::new(),
            shutdown: CancellationToken::new(),
            settings,
        });
        Ok(control)
    }

    /// Takes up what an earlier process left, and works until `shutdown`.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        for (what, result) in [
            ("workflows", self.adopt().await),
            ("releases", self.resume_releases().await),
            ("pushes", self.catch_up_with_pushes().await),
            ("the registry's address", self.tell_registry_address().await),
        ] {
            if let Err(error) = result {
                tracing::error!(error = error.chain(), "failed to take up {what}");
            }
        }
        tokio::join!(self.collect_until(&shutdown), self.watch_drift_until(&shutdown));
        self.shutdown.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Tells every project's jobs where the registry is: this process may listen elsewhere than the one before.
    async fn tell_registry_address(&self) -> Result<(), ControlError> {
        for project in self.forge.projects().await.map_err(crate::push::forge_error)? {
            self.provide_registry_context(&project, "towpath up").await?;
        }
        Ok(())
    }

    /// Frees the registry's disk of what no manifest needs, now and then, until `shutdown`.
    async fn collect_until(&self, shutdown: &CancellationToken) {
        let mut times = tokio::time::interval(COLLECT_EVERY);
        while shutdown.run_until_cancelled(times.tick()).await.is_some() {
            match self.registry.collect(COLLECT_GRACE).await {
                Ok(collected) if collected.blobs + collected.uploads > 0 => {
                    tracing::info!(?collected, "the registry's garbage was collected");
                }
                Ok(_) => {}
                Err(error) => {
                    let error = ControlError::unavailable("failed to collect the registry's garbage").caused_by(error);
                    tracing::warn!(error = error.chain(), "the registry's disk fills up");
                }
            }
        }
    }

    /// Ends what is under way without waiting for it, for a process that worked for one command only.
    pub fn leave(&self) {
        self.shutdown.cancel();
    }

    /// The tokens.
    #[must_use]
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// The git repositories.
    #[must_use]
    pub fn forge(&self) -> &Forge {
        &self.forge
    }

    /// The registry.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The storage, for what the server streams.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Where the agents' socket is to be.
    #[must_use]
    pub fn agent_socket(&self) -> PathBuf {
        self.settings.data_dir.join("run/agent/agent.sock")
    }

    /// Told whenever something changed that a page may show.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<()> {
        self.store.changes()
    }

    /// Where the server listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.settings.address
    }

    /// `http://127.0.0.1:7070`.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}", self.settings.address)
    }

    /// The registry's name as images are called by it: `127.0.0.1:7070`.
    pub(crate) fn registry_name(&self) -> String {
        self.settings.address.to_string()
    }

    pub(crate) fn project_name(&self, project: &str) -> Result<ProjectName, ControlError> {
        project
            .parse()
            .map_err(|error: towpath_forge::ProjectNameError| ControlError::invalid(error.to_string()))
    }
}

/// Records pushes of images before the pusher is told that they are done: when a job has ended, what it pushed is known.
fn push_recorder(store: Store, registry: String) -> PushObserver {
    let runtime = tokio::runtime::Handle::current();
    Arc::new(move |manifest: &PushedManifest| {
        let Some(tag) = &manifest.tag else { return };
        let workflow = manifest.by.as_ref().and_then(|by| by.parse().ok());
        let key = format!("{}:{}", manifest.repository.as_str(), tag.as_str());
        // What somebody else pushes under the tag afterwards does not take its place.
        let key = match &workflow {
            Some(workflow) => format!("{workflow}/{key}"),
            None => key,
        };
        let push = Push {
            image: ImageReference {
                registry: Some(registry.clone()),
                repository: manifest.repository.as_str().to_string(),
                tag: Some(tag.as_str().to_string()),
                digest: Some(manifest.digest.clone()),
            },
            at: jiff::Timestamp::now(),
            workflow,
        };
        let recorded = crate::conductor::to_json(&push).and_then(|value| {
            let mut batch = Batch::default();
            batch.document(collection::PUSHES, key, Some(value));
            runtime.block_on(store.commit(batch)).map_err(store_error)
        });
        if let Err(error) = recorded {
            tracing::error!(image = %push.image, error = error.chain(), "failed to record a push to the registry");
        }
    })
}

/// Who may do what in the registry.
struct RegistryDoor {
    tokens: Arc<Tokens>,
}

impl Authorize for RegistryDoor {
    fn authorize<'a>(&'a self, headers: &'a http::HeaderMap, access: &'a Access) -> BoxFuture<'a, Verdict> {
        Box::pin(async move {
            let Some(token) = crate::tokens::presented(headers) else {
                return Verdict::Unauthenticated;
            };
            match self.tokens.check(&token) {
                Some(Grant::Owner) => Verdict::Allowed,
                Some(Grant::Registry { project, workflow }) => match &access.repository {
                    None => Verdict::Allowed,
                    Some(repository) => {
                        let name = repository.as_str();
                        let own =
                            name == project || name.strip_prefix(&project).is_some_and(|rest| rest.starts_with('/'));
                        if own && access.action != towpath_images::Action::Delete {
                            match workflow {
                                Some(workflow) => Verdict::AllowedAs(workflow.to_string()),
                                None => Verdict::Allowed,
                            }
                        } else {
                            Verdict::Forbidden
                        }
                    }
                },
                Some(_) => Verdict::Forbidden,
                None => Verdict::Unauthenticated,
            }
        })
    }
}
