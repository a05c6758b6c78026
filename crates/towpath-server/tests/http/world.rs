//! A server's routes over fakes, with rows of every kind.

use axum::{
    Router,
    body::Body,
    http::{Method, Request, StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};
use tower::ServiceExt;
use towpath_control::{Engines, ObjectSettings, Outside, Settings, System, TargetSettings};
use towpath_delivery::{OnFailure, Plan, PlanHooks, Wait};
use towpath_deploy::{
    Environment, Identity,
    fake::{FakeSecrets, FakeTarget},
};
use towpath_engines::ScriptedEngine;
use towpath_forge::fake::FakeForge;
use towpath_images::fake::FakeImages;
use towpath_store::{
    Artifact, Commit, Database, EnvironmentRow, Expect, GateRow, JobRow, JobSpecRow, LogId, PipelineConfig,
    PipelineRow, ProjectRow, ReleaseRow, RunRow, Sighting, SqlStore, StepRow, Store, TriggerKind, TriggerRow, Work,
    WorkKey, WorkKind, WorkflowRow, Write,
};
use towpath_types::{
    Actor, CommitId, EnvironmentId, JobId, JobKind, JobStatus, Outcome, PipelineId, PipelineStatus, ProjectName,
    ReleaseId, ReleaseStatus, RunId, RunKind, StepStatus, TriggerId, TriggerStatus, Via, WorkflowId, WorkflowStatus,
};

/// The address that the server believes it listens on.
pub const ADDRESS: &str = "127.0.0.1:7070";
pub const PROJECT: &str = "claims";
pub const ENVIRONMENT: &str = "dev";
pub const PIPELINE: PipelineId = PipelineId::from_u128(1);
pub const WORKFLOW: WorkflowId = WorkflowId::from_u128(2);
pub const BUILD: JobId = JobId::from_u128(3);
/// An approval job in front of a deployment to [`ENVIRONMENT`].
pub const GATE: JobId = JobId::from_u128(4);
pub const RELEASE: ReleaseId = ReleaseId::from_u128(5);
pub const RUN: RunId = RunId::from_u128(6);

/// A server over fakes.
pub struct World {
    pub system: Arc<System>,
    pub target: FakeTarget,
    pub forge: Arc<FakeForge>,
    pub images: Arc<FakeImages>,
    /// The rows that the registry reads.
    pub registry_rows: Arc<dyn Store>,
    pub secrets: FakeSecrets,
    engine: ScriptedEngine,
    router: Router,
    agents: Router,
    _folder: tempfile::TempDir,
}

impl World {
    pub async fn start() -> Self {
        Self::on(SqlStore::open(Database::SqliteMemory).await.unwrap()).await
    }

    /// A world whose rows are in `store`, which is still empty.
    pub async fn on(store: SqlStore) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            data_dir: folder.path().to_path_buf(),
            database: None,
            objects: ObjectSettings::DataDirectory,
            name: None,
            address: ADDRESS.parse().unwrap(),
            binary: PathBuf::from("/nowhere/towpath"),
            host_environment: Vec::new(),
            host_jobs: towpath_control::HostJobs::default(),
            orb_registry: None,
            orb_registry_token: None,
            orb_url_prefixes: Vec::new(),
            // The parts that matter are replaced below.
            target: TargetSettings::Kubernetes(Identity::from_environment(|_| None)),
            seen: towpath_types::SeenSecrets::default(),
            engine: false,
        };
        let outside = Outside::open(&settings).await.unwrap();
        let registry_rows = outside.store.clone();
        let secrets = FakeSecrets::default();
        let target = FakeTarget::default();
        let forge = Arc::new(FakeForge::default());
        let images = Arc::new(FakeImages::default());
        let engine = ScriptedEngine::default();
        let outside = Outside {
            store: Arc::new(store),
            target: Arc::new(target.clone()),
            live: Arc::new(secrets.clone()),
            forge: forge.clone(),
            images: images.clone(),
            engines: Engines {
                containers: Some(Arc::new(engine.clone())),
                host: Arc::new(engine.clone()),
            },
            ..outside
        };
        let system = Arc::new(System::on(&settings, outside).unwrap());
        let world = Self {
            router: towpath_server::router(system.clone()),
            agents: towpath_server::agent_router(system.clone()),
            system,
            target,
            forge,
            images,
            registry_rows,
            secrets,
            engine,
            _folder: folder,
        };
        world.fill().await;
        world
    }

    /// How often anything outside of the rows was called.
    pub fn calls_outside(&self) -> usize {
        let engine = self.engine.calls();
        let engine = engine.start + engine.state + engine.stop + engine.list + engine.service_logs;
        self.target.total_calls() + self.forge.all_calls() + self.images.all_calls() + engine
    }

    /// Sends a request as the owner, with the owner's token.
    pub async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, String) {
        let token = self.system.owner_token();
        let headers = [("circle-token", token.expose())];
        self.ask_with(&self.router, method, path, &headers, body).await
    }

    /// Sends bytes as the owner.
    pub async fn send_bytes(&self, method: Method, path: &str, body: &'static [u8]) -> (StatusCode, String) {
        let token = self.system.owner_token();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, ADDRESS)
            .header("circle-token", token.expose())
            .body(Body::from(body))
            .unwrap();
        answer(self.router.clone(), request).await
    }

    /// Submits a form as the owner.
    pub async fn submit(&self, path: &str, form: &str) -> (StatusCode, String) {
        let token = self.system.owner_token();
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(header::HOST, ADDRESS)
            .header("circle-token", token.expose())
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(form.to_string()))
            .unwrap();
        answer(self.router.clone(), request).await
    }

    /// Sends a request with these headers.
    pub async fn ask_as(
        &self,
        headers: &[(&str, &str)],
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> (StatusCode, String) {
        self.ask_with(&self.router, method, path, headers, body).await
    }

    /// Submits a browser's form with these headers.
    /// An answer to any request.
    pub async fn send(&self, request: Request<Body>) -> Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub async fn form(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(header::HOST, ADDRESS);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        let request = request.body(Body::from(body.to_string())).unwrap();
        self.router.clone().oneshot(request).await.unwrap()
    }

    /// Sends a request, and returns the answer with its headers.
    pub async fn answer(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Response {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, ADDRESS);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        self.router.clone().oneshot(request).await.unwrap()
    }

    /// An answer to any request on the agents' socket.
    pub async fn send_as_agent(&self, request: Request<Body>) -> Response {
        self.agents.clone().oneshot(request).await.unwrap()
    }

    /// Sends a request on the agents' socket.
    pub async fn ask_as_agent(&self, token: &str, method: Method, path: &str, body: &str) -> (StatusCode, String) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .body(Body::from(body.to_string()))
            .unwrap();
        answer(self.agents.clone(), request).await
    }

    /// Changes a job's row.
    pub async fn change_job(&self, id: JobId, change: impl FnOnce(&mut JobRow)) {
        let mut row = self.system.store.job(id).await.unwrap().unwrap();
        let expect = Expect::Version(row.version);
        change(&mut row);
        let write = Write::Job(row, expect);
        self.system.store.commit(Commit::new().with(write)).await.unwrap();
    }

    async fn ask_with(
        &self,
        router: &Router,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> (StatusCode, String) {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, ADDRESS);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = match body {
            Some(body) => request
                .header(header::CONTENT_TYPE, "application/json")
                .body(Body::from(body.to_string())),
            None => request.body(Body::empty()),
        };
        answer(router.clone(), request.unwrap()).await
    }

    async fn fill(&self) {
        let mut commit = Commit::new();
        for write in rows() {
            commit.write(write);
        }
        self.system.store.commit(commit).await.unwrap();
        let log = LogId::Step {
            job: BUILD,
            attempt: 1,
            node: 0,
            step: 0,
        };
        let objects = &self.system.objects;
        objects
            .append_log(log, 0, Bytes::from_static(b"hello\n"))
            .await
            .unwrap();
        for log in [LogId::Release(RELEASE), LogId::Run(RUN)] {
            objects
                .append_log(log, 0, Bytes::from_static(b"one\n\x04\n"))
                .await
                .unwrap();
        }
        let blob = objects.put_blob(Box::pin(&b"report"[..])).await.unwrap();
        let artifact = Artifact {
            job: BUILD,
            attempt: 1,
            node: 0,
            path: "out/report".into(),
            digest: blob.digest,
            bytes: blob.bytes,
        };
        let artifact = Write::Artifact(project(), artifact);
        self.system.store.commit(Commit::new().with(artifact)).await.unwrap();
    }
}

async fn answer(router: Router, request: Request<Body>) -> (StatusCode, String) {
    let response = router.oneshot(request).await.unwrap();
    let status = response.status();
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 24).await.unwrap();
    (status, String::from_utf8_lossy(&bytes).into_owned())
}

fn project() -> ProjectName {
    PROJECT.parse().unwrap()
}

pub fn environment() -> EnvironmentId {
    EnvironmentId::new(PROJECT, ENVIRONMENT).unwrap()
}

fn commit() -> CommitId {
    "a".repeat(40).parse().unwrap()
}

fn ann() -> Actor {
    Actor::owner("ann", Via::Page)
}

/// The plan of the gate and of the release.
pub fn plan() -> Plan {
    Plan {
        place: Environment {
            id: environment(),
            kube_context: "live".into(),
            namespace: "claims-dev".into(),
        },
        on_failure: OnFailure::Rollback,
        wait: Wait::default(),
        images: BTreeMap::new(),
        parent: None,
        previous_images: BTreeMap::new(),
        commit: Some(commit()),
        commits: Vec::new(),
        third_party: BTreeMap::new(),
        objects: Vec::new(),
        changes: Vec::new(),
        unchanged: 3,
        hooks: PlanHooks::default(),
        blockers: Vec::new(),
        warnings: Vec::new(),
    }
}

fn job(id: JobId, position: i64, name: &str, kind: JobKind, status: JobStatus, now: Timestamp) -> JobRow {
    JobRow {
        id,
        workflow: WORKFLOW,
        pipeline: PIPELINE,
        project: project(),
        position,
        number: None,
        name: name.into(),
        kind,
        status,
        requires: Vec::new(),
        nodes: 1,
        cpu_millis: 0,
        memory_bytes: 0,
        attempt: 1,
        environment: None,
        queued_at: None,
        started_at: Some(now),
        stopped_at: None,
        message: None,
        approved_by: None,
        stop_requested: false,
        engine: None,
        image: None,
        version: 0,
    }
}

/// Rows of every kind.
pub fn rows() -> Vec<Write> {
    let now = Timestamp::now();
    let plan = plan().row(now);
    let succeeded = JobStatus::Ended(Outcome::Succeeded);
    let gate = JobRow {
        environment: Some(ENVIRONMENT.into()),
        ..job(GATE, 1, "hold-dev", JobKind::Approval, JobStatus::OnHold, now)
    };
    let mut rows = vec![
        Write::Project(
            ProjectRow {
                name: project(),
                default_branch: "main".into(),
                head: Some(commit()),
                created_at: now,
                version: 0,
            },
            Expect::Absent,
        ),
        Write::Trigger(
            TriggerRow {
                id: TriggerId::from_u128(1),
                project: project(),
                kind: TriggerKind::Api,
                branch: Some("main".into()),
                tag: None,
                commit: commit(),
                parameters: json!({}),
                actor: ann(),
                pipeline: PIPELINE,
                number: 0,
                status: TriggerStatus::Done,
                reason: None,
                created_at: now,
                version: 0,
            },
            Expect::Absent,
        ),
        Write::Pipeline(
            PipelineRow {
                id: PIPELINE,
                trigger: TriggerId::from_u128(1),
                project: project(),
                number: 1,
                branch: Some("main".into()),
                tag: None,
                commit: commit(),
                subject: "Say hello".into(),
                author: "Ann".into(),
                status: PipelineStatus::Created,
                diagnostics: json!({ "version": 1, "diagnostics": [] }),
                actor: ann(),
                created_at: now,
                version: 0,
            },
            Expect::Absent,
        ),
        Write::PipelineConfig(PipelineConfig {
            pipeline: PIPELINE,
            source: "version: 2.1\n".into(),
            processed: "version: 2\n".into(),
            project_file: None,
        }),
        Write::Workflow(
            WorkflowRow {
                id: WORKFLOW,
                pipeline: PIPELINE,
                pipeline_number: 1,
                project: project(),
                position: 0,
                name: "main".into(),
                status: WorkflowStatus::OnHold,
                branch: Some("main".into()),
                tag: None,
                commit: commit(),
                message: None,
                created_at: now,
                stopped_at: None,
                version: 0,
            },
            Expect::Absent,
        ),
        Write::Job(job(BUILD, 0, "build", JobKind::Build, succeeded, now), Expect::Absent),
        Write::JobSpec(JobSpecRow {
            job: BUILD,
            spec: json!({"version": 1, "job": {
                "executor": {"type": "host"}, "nodes": 1, "working_directory": "~/project", "steps": [],
            }}),
        }),
        Write::NumberJob(BUILD),
        Write::Step(StepRow {
            job: BUILD,
            attempt: 1,
            node: 0,
            step: 0,
            name: "Greet".into(),
            status: StepStatus::Ended(Outcome::Succeeded),
            exit_code: Some(0),
            message: None,
            started_at: now,
            stopped_at: Some(now),
        }),
        Write::Job(gate, Expect::Absent),
        Write::Plan(plan.clone()),
        Write::Gate(
            GateRow {
                job: GATE,
                workflow: WORKFLOW,
                workflow_name: "main".into(),
                pipeline: PIPELINE,
                pipeline_number: 1,
                project: project(),
                name: "hold-dev".into(),
                branch: Some("main".into()),
                tag: None,
                commit: commit(),
                subject: "Say hello".into(),
                environment: Some(environment()),
                waiting: true,
                plan: Some(plan.digest.clone()),
                plan_error: None,
                as_of: Some(now),
                approved_by: None,
                created_at: now,
                version: 0,
            },
            Expect::Absent,
        ),
        Write::Environment(
            EnvironmentRow {
                id: environment(),
                kube_context: "live".into(),
                namespace: "claims-dev".into(),
                ambiguous: Vec::new(),
                listed: true,
                sighting: Sighting::Never,
                release: Some(RELEASE),
                seen: Value::Null,
                drift: Value::Null,
                drift_at: None,
                version: 0,
            },
            Expect::Absent,
        ),
    ];
    rows.extend([
        Write::Release(
            ReleaseRow {
                id: RELEASE,
                environment: environment(),
                number: 0,
                status: ReleaseStatus::Succeeded,
                outcome: Some(Outcome::Succeeded),
                images: BTreeMap::new(),
                commit: Some(commit()),
                actor: ann(),
                cause: "gate hold-dev of pipeline 1".into(),
                plan: plan.digest,
                parent: None,
                job: None,
                created_at: now,
                stopped_at: Some(now),
                message: None,
                repeats: 0,
                repeated_at: None,
                version: 0,
            },
            Expect::Absent,
        ),
        Write::Run(
            RunRow {
                id: RUN,
                environment: environment(),
                kind: RunKind::Job,
                name: "migrate".into(),
                object: "migrate-1".into(),
                image: "r/claims".into(),
                actor: ann(),
                outcome: Some(Outcome::Failed),
                exit_code: Some(3),
                message: None,
                created_at: now,
                stopped_at: Some(now),
                version: 0,
            },
            Expect::Absent,
        ),
        Write::Work(Work::new(WorkKey::new(WorkKind::Trigger, "t1"), now)),
    ]);
    rows
}
