//! A server without a cluster, an engine, git or a network: every dependency is a fake except the store, which is
//! SQLite in memory.

#![allow(clippy::unwrap_used, clippy::panic)]

use crate::{
    AgentDoor, Approvals, Contexts, Engines, Identity, Queries, Reconciler, ServerIdentity, Tokens, Triggers, Worker,
    agents::Masks,
    capacity::Capacity,
    conductor::Conductor,
    handlers::Handlers,
    job::{
        prepare::{Addresses, Preparation},
        supervise::Attendance,
    },
    orbs::Orbs,
    pipeline::make::PipelineMaker,
    pollers::ReleaseCarrier,
    progress::ProgressLogs,
    views::{JobView, PipelineView},
};
use jiff::Timestamp;
use std::{sync::Arc, time::Duration};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use towpath_delivery::{Delivery, Ports, PullSecret};
use towpath_deploy::{fake::FakeTarget, render::Renderer};
use towpath_engines::ScriptedEngine;
use towpath_forge::{Forge, RefUpdate, fake::FakeForge};
use towpath_images::{Images, fake::FakeImages};
use towpath_protocol::{Report, SequencedReport};
use towpath_secrets::SealedStore;
use towpath_store::{Database, Faults, FolderObjects, JobRow, Objects, SqlStore, Store};
use towpath_testkit::clock::FakeClock;
use towpath_types::{
    Actor, Clock, CommitId, EngineName, JobId, JobKind, JobStatus, NodeId, Outcome, PipelineId, ProjectName, Via,
    WorkflowId,
};

/// How long a test waits for a condition.
const BOUND: Duration = Duration::from_secs(20);
/// How often it checks, in case it misses a change.
const LOOK: Duration = Duration::from_millis(5);

/// An otherwise empty job row.
pub(crate) fn job_row(id: JobId) -> JobRow {
    JobRow {
        id,
        workflow: WorkflowId::from_u128(1),
        pipeline: PipelineId::from_u128(1),
        project: "claims".parse().unwrap(),
        position: 0,
        number: None,
        name: "test".into(),
        kind: JobKind::Build,
        status: JobStatus::Blocked,
        requires: Vec::new(),
        nodes: 1,
        cpu_millis: 1000,
        memory_bytes: 1 << 30,
        attempt: 1,
        environment: None,
        queued_at: None,
        started_at: None,
        stopped_at: None,
        message: None,
        approved_by: None,
        stop_requested: false,
        engine: None,
        image: None,
        version: 1,
    }
}

/// What survives a server: the store, the engine, the forge, the target.
#[derive(Clone)]
pub(crate) struct World {
    pub store: Arc<dyn Store>,
    pub faults: Faults,
    pub objects: Arc<dyn Objects>,
    pub clock: Arc<dyn Clock>,
    /// The clock that all servers share.
    pub time: FakeClock,
    pub forge: Arc<FakeForge>,
    pub images: Arc<FakeImages>,
    pub target: FakeTarget,
    /// The engine for jobs in containers.
    pub engine: ScriptedEngine,
    pub host: ScriptedEngine,
    pub project: ProjectName,
    /// Whether only one server runs at a time.
    pub alone: bool,
    sealed: Arc<SealedStore>,
    identity: Arc<dyn Identity>,
    _folder: Arc<tempfile::TempDir>,
}

/// One server process of a [`World`].
pub(crate) struct Server {
    pub triggers: Triggers,
    pub conductor: Conductor,
    pub approvals: Approvals,
    pub agents: AgentDoor,
    pub queries: Queries,
    pub reconciler: Reconciler,
    worker: Worker,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
}

impl World {
    pub(crate) async fn new() -> Self {
        let faults = Faults::new();
        let store = SqlStore::open(Database::SqliteMemory)
            .await
            .unwrap()
            .with_faults(faults.clone());
        Self::over(Arc::new(store), faults)
    }

    /// A world on a store that others may share.
    pub(crate) fn over(store: Arc<dyn Store>, faults: Faults) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let time = FakeClock::running();
        Self {
            store,
            faults,
            objects: Arc::new(FolderObjects::open(&folder.path().join("objects")).unwrap()),
            clock: Arc::new(time.clone()),
            time,
            forge: Arc::default(),
            images: Arc::default(),
            target: FakeTarget::default(),
            engine: ScriptedEngine::new(),
            host: ScriptedEngine::new().with_name(EngineName::new("host", "test", "1")),
            project: "claims".parse().unwrap(),
            alone: true,
            sealed: Arc::new(SealedStore::open(&folder.path().join("secrets")).unwrap()),
            identity: Arc::new(Tokens::open(folder.path()).unwrap()),
            _folder: folder,
        }
    }

    /// Starts a server under a new name.
    pub(crate) fn start(&self) -> Server {
        self.start_with(&self.engine)
    }

    /// Makes pipelines from triggers.
    pub(crate) fn pipeline_maker(&self) -> PipelineMaker {
        PipelineMaker {
            store: self.store.clone(),
            forge: self.forge.clone(),
            clock: self.clock.clone(),
            orbs: Orbs::of_store(self.store.clone(), self.clock.clone()),
            contexts: self.contexts(),
            protections: self.delivery().protections.clone(),
            base_url: "http://127.0.0.1:7070".into(),
        }
    }

    /// Accepts pushes without a server that handles them.
    pub(crate) fn triggers(&self) -> Triggers {
        Triggers {
            store: self.store.clone(),
            forge: self.forge.clone(),
            clock: self.clock.clone(),
        }
    }

    /// What carries releases out.
    pub(crate) fn release_carrier(&self) -> ReleaseCarrier {
        ReleaseCarrier {
            store: self.store.clone(),
            delivery: self.delivery(),
            progress: self.progress(),
            clock: self.clock.clone(),
        }
    }

    fn progress(&self) -> ProgressLogs {
        ProgressLogs {
            store: self.store.clone(),
            objects: self.objects.clone(),
            clock: self.clock.clone(),
        }
    }

    fn delivery(&self) -> Arc<Delivery> {
        Arc::new(Delivery::new(Ports {
            store: self.store.clone(),
            target: Arc::new(self.target.clone()),
            live: Arc::new(towpath_deploy::fake::FakeSecrets::default()),
            forge: self.forge.clone(),
            images: self.images.clone(),
            clock: self.clock.clone(),
            renderer: Arc::new(Renderer::default()),
            fingerprint: Arc::new(|bytes: &[u8]| towpath_types::Digest::of(bytes).short().to_string()),
            own_registry: "127.0.0.1:7070".into(),
            pull_secret: PullSecret::NotNeeded,
        }))
    }

    fn contexts(&self) -> Contexts {
        Contexts {
            store: self.store.clone(),
            sealed: self.sealed.clone(),
            identity: self.identity.clone(),
            registry: "127.0.0.1:7070".into(),
        }
    }

    /// Starts a server with its own engine.
    pub(crate) fn start_with(&self, engine: &ScriptedEngine) -> Server {
        let (store, clock) = (self.store.clone(), self.clock.clone());
        let forge: Arc<dyn Forge> = self.forge.clone();
        let images: Arc<dyn Images> = self.images.clone();
        let addresses = Addresses {
            base_url: "http://127.0.0.1:7070".into(),
            registry: "127.0.0.1:7070".into(),
        };
        let contexts = self.contexts();
        let engines = Engines {
            containers: Some(Arc::new(engine.clone())),
            host: Arc::new(self.host.clone()),
        };
        let delivery = self.delivery();
        let conductor = Conductor::new(store.clone(), clock.clone());
        let attendance = Attendance::default();
        let progress = self.progress();
        let machine = Capacity {
            cpu_millis: 64_000,
            memory_bytes: 256 << 30,
        };
        let id = uuid::Uuid::now_v7().simple().to_string();
        let server = ServerIdentity {
            id: id.clone(),
            address: addresses.base_url.clone(),
            engines: engines.all().map(|engine| engine.name().to_string()).collect(),
            capacity: machine,
            alone: self.alone,
        };
        let preparation = Preparation {
            engine_use: crate::job::prepare::EngineUse::default(),
            store: store.clone(),
            contexts: contexts.clone(),
            identity: self.identity.clone(),
            images,
            addresses: addresses.clone(),
        };
        let handlers = Handlers {
            store: store.clone(),
            objects: self.objects.clone(),
            forge: forge.clone(),
            clock: clock.clone(),
            conductor: conductor.clone(),
            engines: engines.clone(),
            preparation: preparation.clone(),
            identity: self.identity.clone(),
            attendance: attendance.clone(),
            server: id.clone(),
            machine,
            orbs: Orbs::of_store(store.clone(), clock.clone()),
            contexts: contexts.clone(),
            delivery: delivery.clone(),
            progress,
            base_url: addresses.base_url.clone(),
        };
        let handlers = handlers.by_kind();
        let worker = Worker::new(store.clone(), clock.clone(), server, handlers);
        let shutdown = CancellationToken::new();
        let running = tokio::spawn({
            let (worker, shutdown) = (worker.clone(), shutdown.clone());
            async move { worker.run(shutdown).await }
        });
        Server {
            triggers: self.triggers(),
            approvals: Approvals {
                store: store.clone(),
                clock: clock.clone(),
                conductor: conductor.clone(),
                delivery: delivery.clone(),
            },
            agents: AgentDoor {
                store: store.clone(),
                objects: self.objects.clone(),
                forge,
                conductor: conductor.clone(),
                attendance,
                preparation,
                masks: Masks::default(),
                addresses,
                identity: self.identity.clone(),
            },
            queries: Queries {
                store: store.clone(),
                objects: self.objects.clone(),
                clock: clock.clone(),
            },
            reconciler: Reconciler {
                store,
                clock,
                conductor: conductor.clone(),
                engines,
            },
            conductor,
            worker,
            shutdown,
            running,
        }
    }

    /// Queries without a server.
    pub(crate) fn queries(&self) -> Queries {
        Queries {
            store: self.store.clone(),
            objects: self.objects.clone(),
            clock: self.clock.clone(),
        }
    }

    /// Sets a variable of the context `vault`.
    pub(crate) fn secret(&self, key: &str, value: &str) {
        let scope = towpath_secrets::Scope::context("vault");
        let value = towpath_types::SecretBytes::new(value.into());
        self.sealed.set(&scope, key, &value, "ada").unwrap();
    }

    /// Commits a configuration to `branch`, without telling any server.
    pub(crate) fn commit(&self, branch: &str, config: &str) -> CommitId {
        self.forge
            .commit_to(&self.project, branch)
            .file(".circleci/config.yml", config)
            .push()
    }

    /// Waits until `look` finds something; on timeout, fails with what it last saw.
    pub(crate) async fn until<T, F>(&self, what: &str, mut look: impl FnMut() -> F) -> T
    where
        F: Future<Output = Result<T, String>>,
    {
        let deadline = tokio::time::Instant::now() + BOUND;
        loop {
            let mut changes = self.store.changes();
            let seen = match look().await {
                Ok(found) => return found,
                Err(seen) => seen,
            };
            assert!(
                tokio::time::Instant::now() < deadline,
                "waited for {what}; saw last: {seen}"
            );
            let _ = tokio::time::timeout(LOOK, changes.next()).await;
        }
    }

    /// The job called `name`, once its status is one of `wanted`.
    pub(crate) async fn job(&self, name: &str, wanted: &[JobStatus]) -> JobRow {
        self.until(&format!("job {name} to be {wanted:?}"), || async {
            let jobs = self.jobs().await?;
            let found = jobs.into_iter().find(|job| job.name == name);
            let job = found.ok_or("there is no such job")?;
            match wanted.contains(&job.status) {
                true => Ok(job),
                false => Err(format!("{} ({:?})", job.status, job.message)),
            }
        })
        .await
    }

    async fn jobs(&self) -> Result<Vec<JobRow>, String> {
        let failed = |error: towpath_store::StoreError| error.to_string();
        let pipelines = self
            .store
            .pipelines(Some(&self.project), None, 100)
            .await
            .map_err(failed)?;
        let ids: Vec<PipelineId> = pipelines.iter().map(|row| row.id).collect();
        let workflows = self.store.workflows_of(&ids).await.map_err(failed)?;
        let ids: Vec<WorkflowId> = workflows.iter().map(|row| row.id).collect();
        self.store.jobs_of(&ids).await.map_err(failed)
    }
}

impl Server {
    /// Pushes a commit, as git's two hooks would report it.
    pub(crate) async fn push(&self, world: &World, branch: &str, commit: &CommitId) -> PipelineView {
        let actor = Actor::owner("ada", Via::GitPush);
        let updates = [RefUpdate {
            name: format!("refs/heads/{branch}"),
            old: None,
            new: Some(commit.clone()),
        }];
        self.triggers.announce(&world.project, &updates, &actor).await.unwrap();
        let triggers = self.triggers.complete(&world.project, &updates, &actor).await.unwrap();
        let settled = self.triggers.settled(triggers, BOUND).await.unwrap();
        self.queries.pipeline(settled[0].pipeline).await.unwrap()
    }

    /// Commits a configuration to the main branch and pushes it.
    pub(crate) async fn push_config(&self, world: &World, config: &str) -> PipelineView {
        let commit = world.commit("main", config);
        self.push(world, "main", &commit).await
    }

    /// Waits until a node's agent may begin, as the agent does.
    pub(crate) async fn agent_begins(&self, world: &World, job: &JobRow) -> NodeId {
        let node = NodeId {
            job: job.id,
            attempt: job.attempt,
            node: 0,
        };
        world
            .until("the agent's job", || async {
                match self.agents.job(node).await {
                    Ok(Some(_)) => Ok(()),
                    Ok(None) => Err("not ready".into()),
                    Err(error) => Err(error.chain()),
                }
            })
            .await;
        node
    }

    /// Reports one step and the end of a node.
    pub(crate) async fn agent_ends(&self, node: NodeId, outcome: Outcome) -> Result<(), String> {
        let at = Timestamp::now();
        let reports = [
            Report::StepStarted {
                step: 0,
                name: "work".into(),
                command: None,
                at,
            },
            Report::StepFinished {
                step: 0,
                exit_code: Some(i32::from(outcome != Outcome::Succeeded)),
                outcome,
                message: None,
                at,
            },
            Report::JobFinished {
                outcome,
                message: None,
                at,
            },
        ];
        for (sequence, report) in (0..).zip(reports) {
            let report = SequencedReport { sequence, report };
            self.agents.report(node, report).await.map_err(|error| error.chain())?;
        }
        Ok(())
    }

    /// Runs the job called `name` to its end.
    pub(crate) async fn run_job(&self, world: &World, name: &str, outcome: Outcome) -> JobView {
        let job = world.job(name, &[JobStatus::Running]).await;
        let node = self.agent_begins(world, &job).await;
        self.agent_ends(node, outcome).await.unwrap();
        let job = world.job(name, &[JobStatus::Ended(outcome)]).await;
        crate::queries::job_view(job)
    }

    /// Stops gracefully.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.running.await.unwrap();
    }

    /// Dies without releasing anything.
    pub(crate) fn kill(self) {
        self.running.abort();
        self.worker.abandon();
    }
}
