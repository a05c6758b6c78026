//! Builds a server from its parts. It makes no decisions.

use crate::{
    AgentDoor, Approvals, Contexts, Engines, Grant, Identity, Orbs, Outside, ProgressLogs, Pushes, Queries, Reconciler,
    ServerIdentity, Sessions, Settings, TargetSettings, Triggers, Worker,
    agents::Masks,
    capacity::Capacity,
    conductor::Conductor,
    handlers::Handlers,
    job::{
        prepare::{Addresses, Preparation},
        supervise::Attendance,
    },
};
use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use towpath_delivery::{Delivery, DeliveryError, Ports, PullSecret};
use towpath_deploy::render::Renderer;
use towpath_forge::{Forge, GitForge};
use towpath_images::{Images, Registry};
use towpath_store::{Objects, Store};
use towpath_types::{Clock, ProjectName, SecretString};

/// How often to collect the registry's garbage.
const COLLECT_EVERY: Duration = Duration::from_secs(3600);
/// How long a client may take between uploading a blob and the manifest that names it.
const COLLECT_GRACE: Duration = Duration::from_secs(3600);
/// Jobs rarely use all of their processors, so jobs may begin as if the machine had this many times as many.
const PROCESSOR_OVERCOMMIT: u64 = 4;

/// A server's parts. Each does one thing and gets its dependencies from outside.
#[allow(missing_docs)]
pub struct System {
    pub store: Arc<dyn Store>,
    pub objects: Arc<dyn Objects>,
    pub clock: Arc<dyn Clock>,
    pub identity: Arc<dyn Identity>,
    /// The git remote, as git talks to it.
    pub git: Arc<GitForge>,
    pub registry: Registry,
    pub images: Arc<dyn Images>,
    pub triggers: Triggers,
    pub conductor: Conductor,
    pub approvals: Approvals,
    pub agents: AgentDoor,
    /// The pushes that git is accepting now.
    pub pushes: Pushes,
    pub queries: Queries,
    pub contexts: Contexts,
    pub sessions: Sessions,
    pub orbs: Orbs,
    pub delivery: Arc<Delivery>,
    pub progress: ProgressLogs,
    pub addresses: Addresses,
    /// The path of the agents' socket.
    pub agent_socket: PathBuf,
    address: SocketAddr,
    worker: Worker,
    reconciler: Reconciler,
}

impl System {
    /// Opens everything.
    ///
    /// # Errors
    /// When another Towpath uses the data directory, something in it cannot be used, the database does not answer, or
    /// no container engine is reachable.
    pub async fn open(settings: Settings) -> Result<Self, DeliveryError> {
        let outside = Outside::open(&settings).await?;
        Self::on(&settings, outside)
    }

    /// Builds a server on `outside`.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn on(settings: &Settings, outside: Outside) -> Result<Self, DeliveryError> {
        let Outside {
            store,
            objects,
            clock,
            identity,
            sealed,
            git,
            forge,
            registry,
            images,
            engines,
            target,
            live,
        } = outside;
        let addresses = settings.addresses();
        let contexts = Contexts {
            store: store.clone(),
            sealed: sealed.clone(),
            identity: identity.clone(),
            registry: addresses.registry.clone(),
        };
        let delivery = Arc::new(Delivery::new(Ports {
            store: store.clone(),
            target,
            live,
            forge: forge.clone(),
            images: images.clone(),
            clock: clock.clone(),
            renderer: Arc::new(Renderer::default()),
            fingerprint: Arc::new({
                let sealed = sealed.clone();
                move |bytes: &[u8]| sealed.fingerprint_bytes(bytes).to_string()
            }),
            own_registry: addresses.registry.clone(),
            pull_secret: match settings.target {
                TargetSettings::Kubernetes(_) => PullSecret::Brought,
                TargetSettings::Local => PullSecret::NotNeeded,
            },
        }));
        let progress = ProgressLogs {
            store: store.clone(),
            objects: objects.clone(),
            clock: clock.clone(),
        };
        let conductor = Conductor::new(store.clone(), clock.clone());
        let attendance = Attendance::default();
        let machine = machine(&engines);
        let server = ServerIdentity {
            id: uuid::Uuid::new_v4().simple().to_string(),
            address: addresses.base_url.clone(),
            engines: engines.all().map(|engine| engine.name().to_string()).collect(),
            capacity: Capacity {
                cpu_millis: machine.cpu_millis.saturating_mul(PROCESSOR_OVERCOMMIT),
                memory_bytes: machine.memory_bytes,
            },
            alone: settings.database.is_none(),
        };
        let agent_socket = settings.agent_socket(store.instance());
        let orbs = Orbs::new(store.clone(), clock.clone(), settings)?;
        let preparation = Preparation {
            engine_use: settings.host_jobs.engine,
            store: store.clone(),
            contexts: contexts.clone(),
            identity: identity.clone(),
            images: images.clone(),
            addresses: addresses.clone(),
        };
        let handlers = Handlers {
            store: store.clone(),
            objects: objects.clone(),
            forge: forge.clone(),
            clock: clock.clone(),
            conductor: conductor.clone(),
            engines: engines.clone(),
            preparation: preparation.clone(),
            identity: identity.clone(),
            attendance: attendance.clone(),
            server: server.id.clone(),
            machine,
            orbs: orbs.clone(),
            contexts: contexts.clone(),
            delivery: delivery.clone(),
            progress: progress.clone(),
            base_url: addresses.base_url.clone(),
        };
        let handlers = handlers.by_kind();
        let worker = Worker::new(store.clone(), clock.clone(), server, handlers);
        Ok(Self {
            triggers: Triggers {
                store: store.clone(),
                forge: forge.clone(),
                clock: clock.clone(),
            },
            approvals: Approvals {
                store: store.clone(),
                clock: clock.clone(),
                conductor: conductor.clone(),
                delivery: delivery.clone(),
            },
            agents: AgentDoor {
                store: store.clone(),
                objects: objects.clone(),
                forge,
                conductor: conductor.clone(),
                attendance,
                preparation,
                masks: Masks::default(),
                addresses: addresses.clone(),
                identity: identity.clone(),
            },
            pushes: Pushes::default(),
            queries: Queries {
                store: store.clone(),
                objects: objects.clone(),
                clock: clock.clone(),
            },
            reconciler: Reconciler {
                store: store.clone(),
                clock: clock.clone(),
                conductor: conductor.clone(),
                engines,
            },
            sessions: Sessions {
                store: store.clone(),
                clock: clock.clone(),
            },
            address: settings.address,
            store,
            objects,
            clock,
            identity,
            git,
            registry,
            images,
            conductor,
            contexts,
            orbs,
            delivery,
            progress,
            addresses,
            agent_socket,
            worker,
        })
    }

    /// Runs until `shutdown`.
    pub async fn run(&self, shutdown: CancellationToken) {
        if let Err(error) = self.tell_registry_address().await {
            tracing::error!(
                error = error.chain(),
                "failed to tell the projects' jobs where the registry is"
            );
        }
        tokio::join!(
            self.worker.run(shutdown.clone()),
            self.reconciler.run(shutdown.clone()),
            self.triggers.catch_up_until(shutdown.clone()),
            self.collect_until(&shutdown),
        );
    }

    /// Creates a project with an empty repository, and the context that gives its jobs access to the registry.
    ///
    /// # Errors
    /// When git, the sealed store or the storage does not work.
    pub async fn create_project(&self, project: &ProjectName, by: &str) -> Result<(), DeliveryError> {
        self.triggers.create_project(project).await?;
        self.contexts.provide_registry(project, by)
    }

    /// The address that the server listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The owner's token.
    #[must_use]
    pub fn owner_token(&self) -> SecretString {
        self.identity.issue(&Grant::Owner)
    }

    /// Updates the registry's address in contexts: this process may listen on another address than the one before.
    async fn tell_registry_address(&self) -> Result<(), DeliveryError> {
        let projects = self
            .git
            .projects()
            .await
            .map_err(crate::pipeline::triggers::forge_error)?;
        for project in projects {
            self.contexts.provide_registry(&project, "towpath up")?;
        }
        Ok(())
    }

    /// Deletes registry content that no manifest needs, periodically until `shutdown`.
    async fn collect_until(&self, shutdown: &CancellationToken) {
        let mut times = tokio::time::interval(COLLECT_EVERY);
        while shutdown.run_until_cancelled(times.tick()).await.is_some() {
            match self.registry.collect(COLLECT_GRACE).await {
                Ok(collected) if collected.blobs + collected.uploads > 0 => {
                    tracing::info!(?collected, "the registry's garbage was collected");
                }
                Ok(_) => {}
                Err(error) => {
                    let error = towpath_types::with_causes(&error);
                    tracing::warn!(error, "failed to collect the registry's garbage; its disk fills up");
                }
            }
        }
    }
}

/// The machine's capacity, from the first engine that knows it.
fn machine(engines: &Engines) -> Capacity {
    let mut all = Capacity::default();
    for engine in engines.all() {
        let capacity = engine.capacity();
        all.cpu_millis = all.cpu_millis.max(capacity.cpu_millis);
        all.memory_bytes = all.memory_bytes.max(capacity.memory_bytes);
    }
    all
}
