//! All dependencies of delivery, in memory.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::mpsc;
use towpath_delivery::{
    Delivery, DeliveryError, EnvironmentView, HISTORY, LaptopRequest, ManifestFile, Plan, Ports, Progress, PullSecret,
};
use towpath_deploy::{
    ApplyError, ApplyRequest, Environment, Occasion, ReleaseRecord, Severity, Target as _,
    contract::Capabilities,
    fake::{FakeSecrets, FakeTarget, JobScript},
    render::Renderer,
};
use towpath_forge::{Forge as _, fake::FakeForge};
use towpath_images::{TagName, fake::FakeImages};
use towpath_manifest::Object;
use towpath_store::{
    Commit, Database, EnvironmentStore as _, Expect, Faults, GateRow, GateStore as _, Guard, ImagePush, JobRow,
    PlanRow, ReleaseRow, ReleaseStore as _, RunRow, SqlStore, Store as _, WorkKey, WorkKind, WorkStore as _,
    WorkflowRow, Write,
};
use towpath_testkit::clock::FakeClock;
use towpath_types::{
    Actor, Clock as _, CommitId, Digest, EnvironmentId, ImageReference, JobId, JobKind, JobStatus, Outcome, PipelineId,
    ProjectName, RecordedState, ReleaseId, RunId, Via, WorkflowId, WorkflowStatus,
};

/// Towpath's own registry.
pub const REGISTRY: &str = "127.0.0.1:7070";

/// A Deployment that runs the project's image, and a ConfigMap.
pub const WEB: &str = "apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - name: app
          image: claims:latest
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: web
data:
  GREETING: hello
";

/// A Job.
pub const MIGRATE: &str = "apiVersion: batch/v1
kind: Job
metadata:
  name: migrate
spec:
  template:
    spec:
      restartPolicy: Never
      containers:
        - name: app
          image: claims
          args: [migrate]
";

/// A CronJob.
pub const VACUUM: &str = "apiVersion: batch/v1
kind: CronJob
metadata:
  name: vacuum-db
spec:
  schedule: \"0 3 * * *\"
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: Never
          containers:
            - name: app
              image: claims
";

pub struct World {
    pub store: SqlStore,
    pub faults: Faults,
    pub target: FakeTarget,
    pub forge: Arc<FakeForge>,
    pub images: Arc<FakeImages>,
    pub clock: FakeClock,
    pub secrets: FakeSecrets,
    pub delivery: Delivery,
    ports: Ports,
}

/// Collects every line.
#[derive(Default)]
pub struct Lines(Mutex<Vec<String>>);

impl Lines {
    pub fn text(&self) -> String {
        self.0.lock().unwrap().join("\n")
    }
}

impl Progress for Lines {
    fn line(&self, line: &str) {
        self.0.lock().unwrap().push(line.to_string());
    }
}

pub fn claims() -> ProjectName {
    "claims".parse().unwrap()
}

pub fn environment(name: &str) -> EnvironmentId {
    EnvironmentId::new("claims", name).unwrap()
}

/// Where an environment is.
pub fn place(name: &str) -> Environment {
    Environment {
        id: environment(name),
        kube_context: "live".into(),
        namespace: format!("claims-{name}"),
    }
}

pub fn ann() -> Actor {
    Actor::owner("ann", Via::CommandLine)
}

pub fn bob() -> Actor {
    Actor::owner("bob", Via::Page)
}

pub fn repository() -> ImageReference {
    format!("{REGISTRY}/claims").parse().unwrap()
}

pub fn tag(text: &str) -> TagName {
    text.parse().unwrap()
}

pub fn file(path: &str, text: &str) -> ManifestFile {
    ManifestFile::text(path, text)
}

/// Release `number` of an environment, by a program that is not this world's. It has no objects.
pub fn foreign_request(name: &str, number: i64) -> ApplyRequest {
    ApplyRequest {
        environment: place(name),
        occasion: Occasion::Release,
        record: ReleaseRecord {
            id: ReleaseId::from_u128(u128::try_from(number).unwrap()),
            number,
            state: RecordedState::Running,
            images: vec!["r.io/claims".parse().unwrap()],
            commit: None,
            by: "eve".into(),
            cause: "towpath deploy".into(),
            at: at("2026-01-01T00:00:00Z"),
            stopped_at: None,
            message: None,
            repeats: 0,
            repeated_at: None,
            plan: json!({}),
        },
        objects: Vec::new(),
        hooks: towpath_deploy::Hooks::default(),
        prune: Vec::new(),
        deadline: Duration::from_secs(60),
        unschedulable: None,
    }
}

/// A request to deploy `tag` from a working tree with [`WEB`] in `dev` and `qa`.
pub fn request(tag: &str) -> LaptopRequest {
    LaptopRequest {
        tag: Some(tag.into()),
        files: vec![
            file(".k8s/live/dev/web.yaml", WEB),
            file(".k8s/live/qa/web.yaml", WEB),
            file(".k8s/live/production/web.yaml", WEB),
            file(".k8s/live/jobs/migrate.yaml", MIGRATE),
        ],
        ..LaptopRequest::default()
    }
}

impl World {
    /// A single machine: environments record nothing themselves.
    pub async fn new() -> Self {
        Self::on(None, Capabilities::LOCAL).await
    }

    /// A cluster: environments record their releases.
    pub async fn on_cluster() -> Self {
        Self::on(None, Capabilities::KUBERNETES).await
    }

    /// Another machine, with its own storage, that deploys to the same environments.
    pub async fn laptop(&self) -> Self {
        Self::on(Some(self.target.clone()), Capabilities::KUBERNETES).await
    }

    async fn on(target: Option<FakeTarget>, capabilities: Capabilities) -> Self {
        let faults = Faults::new();
        let store = SqlStore::open(Database::SqliteMemory).await.unwrap();
        let store = store.with_faults(faults.clone());
        let (forge, images) = (Arc::default(), Arc::default());
        let clock = FakeClock::default();
        let target = target.unwrap_or_else(|| {
            let clock = clock.clone();
            FakeTarget::new(capabilities).with_clock(move || clock.now())
        });
        let secrets = FakeSecrets::default();
        let ports = Ports {
            store: Arc::new(store.clone()),
            target: Arc::new(target.clone()),
            live: Arc::new(secrets.clone()),
            forge: Arc::<FakeForge>::clone(&forge),
            images: Arc::<FakeImages>::clone(&images),
            clock: Arc::new(clock.clone()),
            renderer: Arc::new(Renderer::with_path("")),
            fingerprint: Arc::new(|_| "****".into()),
            own_registry: REGISTRY.into(),
            pull_secret: PullSecret::NotNeeded,
        };
        Self {
            delivery: Delivery::new(ports.clone()),
            store,
            faults,
            target,
            forge,
            images,
            clock,
            secrets,
            ports,
        }
    }

    /// The same world in a new process.
    pub fn restart(&mut self) {
        self.delivery = Delivery::new(self.ports.clone());
    }

    /// The same world, with a program in place of Helm. A template of it is already rendered: it prints the chart's
    /// `rendered.txt`.
    pub fn with_helm(&mut self) -> tempfile::TempDir {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let helm = dir.path().join("helm");
        std::fs::write(&helm, "#!/bin/sh\ncat \"$3/rendered.txt\"\n").unwrap();
        std::fs::set_permissions(&helm, std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:/usr/bin:/bin", dir.path().display());
        self.ports.renderer = Arc::new(Renderer::with_path(path));
        self.restart();
        dir
    }

    /// The same world, with pods that pull with a Secret.
    pub fn pull_with_secret(&mut self) {
        self.ports.pull_secret = PullSecret::Brought;
        self.restart();
    }

    /// Makes preflight and `apply` of `dev` refuse everything.
    pub fn refuse(&self, message: &str) {
        self.target
            .add_finding_about_all(&place("dev"), Severity::Refused, message);
    }

    /// Makes preflight of `dev` note something.
    pub fn note(&self, message: &str) {
        self.target
            .add_finding_about_all(&place("dev"), Severity::Note, message);
    }

    /// Makes images fail in `dev`.
    pub fn break_image(&self, part: &str, outcome: Outcome) {
        self.target.break_image(&place("dev"), part, outcome);
    }

    /// What the runs of `migrate` do in `dev`.
    pub fn script_migrate(&self, script: JobScript) {
        self.target.script_job(&place("dev"), "migrate", script);
    }

    /// Everything that was applied to an environment, in order.
    pub fn applied(&self, name: &str) -> Vec<(Occasion, ReleaseId)> {
        let requests = self.target.requests(&place(name)).into_iter();
        requests.map(|request| (request.occasion, request.record.id)).collect()
    }

    /// The objects of an environment, by kind and name.
    pub fn live(&self, name: &str) -> Vec<String> {
        let objects = self.target.live(&place(name)).into_iter();
        let mut ids: Vec<String> = objects.map(|object| object.id().to_string()).collect();
        ids.sort();
        ids
    }

    /// The release that runs completely in an environment.
    pub async fn running(&self, name: &str) -> Option<ReleaseId> {
        self.target.current(&place(name)).await.unwrap()?.release
    }

    /// The releases that an environment records itself, newest first.
    pub async fn records(&self, name: &str) -> Vec<ReleaseRecord> {
        self.target.releases(&place(name)).await.unwrap()
    }

    /// Applies a request to the target itself, as another program does.
    pub async fn apply(&self, request: ApplyRequest) -> Result<(), ApplyError> {
        self.target.apply(request, mpsc::unbounded_channel().0).await
    }

    /// Applies a CronJob to an environment, as another program does.
    pub async fn apply_cron_job(&self, environment: &str, name: &str) {
        let container = json!({"name": "app", "image": "r.io/claims"});
        let pod = json!({"restartPolicy": "Never", "containers": [container]});
        let job = json!({"spec": {"template": {"spec": pod}}});
        let spec = json!({"schedule": "0 3 * * *", "jobTemplate": job});
        let object = json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": name}, "spec": spec});
        let request = ApplyRequest {
            occasion: Occasion::Beside,
            objects: vec![Object::from_value(object, "a test").unwrap()],
            ..foreign_request(environment, 0)
        };
        self.apply(request).await.unwrap();
    }

    /// The plan of a request.
    pub async fn planned(&self, name: &str, request: LaptopRequest) -> Result<Plan, DeliveryError> {
        let planner = &self.delivery.planner;
        planner.plan_of_request(&environment(name), request).await
    }

    /// Pushes an image, and returns its digest.
    pub fn push_image(&self, tag_text: &str) -> Digest {
        self.images.push(&repository(), &tag(tag_text))
    }

    /// Takes the lease of a piece of work.
    pub async fn lease(&self, kind: WorkKind, key: impl ToString) -> Guard {
        let key = WorkKey::new(kind, key);
        let lease = self
            .store
            .claim(
                std::slice::from_ref(&key),
                "server-1",
                self.clock.now(),
                Duration::from_secs(60),
            )
            .await
            .unwrap()
            .pop()
            .unwrap_or_else(|| panic!("{key} is not to be had"));
        Guard::from(&lease)
    }

    /// Waits until a dead server's leases have expired.
    pub fn let_leases_end(&self) {
        self.clock.advance(SignedDuration::from_secs(61));
    }

    /// Carries a release out, and returns its row and its lines.
    pub async fn carry_out(&self, id: ReleaseId) -> (ReleaseRow, String) {
        let lines = Lines::default();
        let guard = self.lease(WorkKind::Release, id).await;
        let row = self.delivery.releases.carry_out(&guard, id, &lines).await.unwrap();
        assert_eq!(self.store.work(&guard.key).await.unwrap(), None, "the work is done");
        (row, lines.text())
    }

    /// Deploys `tag` to an environment, to the end.
    pub async fn deploy(&self, name: &str, tag: &str) -> (ReleaseRow, String) {
        let row = self
            .delivery
            .releases
            .deploy(&environment(name), request(tag), &ann())
            .await
            .unwrap();
        self.carry_out(row.id).await
    }

    /// Follows a run to its end.
    pub async fn follow(&self, id: RunId) -> (RunRow, String) {
        let lines = Lines::default();
        let guard = self.lease(WorkKind::Run, id).await;
        let row = self.delivery.runs.follow(&guard, id, &lines).await.unwrap();
        assert_eq!(self.store.work(&guard.key).await.unwrap(), None, "the work is done");
        (row, lines.text())
    }

    /// What a page shows of an environment, from rows alone.
    pub async fn view(&self, name: &str) -> EnvironmentView {
        let id = environment(name);
        let row = self.store.environment(&id).await.unwrap().unwrap();
        let releases = self.store.releases(&id, HISTORY).await.unwrap();
        EnvironmentView::from_row(&row, &releases, self.clock.now()).unwrap()
    }

    pub async fn release(&self, id: ReleaseId) -> ReleaseRow {
        self.store.release(id).await.unwrap().unwrap()
    }

    pub async fn plan(&self, digest: &Digest) -> PlanRow {
        self.store.plan(digest).await.unwrap().unwrap()
    }

    pub async fn gate(&self, job: JobId) -> GateRow {
        self.store.gate(job).await.unwrap().unwrap()
    }

    /// Creates an empty repository.
    pub async fn forge_project(&self) {
        self.forge.create(&claims(), "main").await.unwrap();
    }

    /// Commits manifests to the default branch.
    pub async fn push_commit(&self, files: &[(&str, &str)]) -> CommitId {
        let project = claims();
        self.forge.create(&project, "main").await.unwrap();
        let mut draft = self.forge.commit_to(&project, "main").message("Say good day");
        for (path, text) in files {
            draft = draft.file(path, text);
        }
        draft.push()
    }

    /// Commits to another branch, on top of the default branch.
    pub fn push_branch(&self, branch: &str, files: &[(&str, &str)]) -> CommitId {
        let project = claims();
        let mut draft = self.forge.commit_to(&project, branch).message("Work in progress");
        for (path, text) in files {
            draft = draft.file(path, text);
        }
        draft.push()
    }

    /// A workflow of a commit whose job `build` pushed an image, with the gate `hold` of `dev` and the job `deploy` behind it.
    pub async fn workflow(&self, commit: &CommitId) -> Flow {
        let image = self.push_image(&format!("app-{commit}"));
        let flow = self.workflow_without_image(commit, 1).await;
        let push = ImagePush {
            project: claims(),
            workflow: Some(flow.row.id),
            image: ImageReference {
                tag: Some(format!("app-{commit}")),
                digest: Some(image),
                ..repository()
            },
            at: self.clock.now(),
        };
        self.store
            .commit(Commit::new().with(Write::ImagePush(push)))
            .await
            .unwrap();
        flow
    }

    pub async fn workflow_without_image(&self, commit: &CommitId, number: u128) -> Flow {
        let now = self.clock.now();
        let row = WorkflowRow {
            id: WorkflowId::from_u128(number),
            pipeline: PipelineId::from_u128(number),
            pipeline_number: 3,
            project: claims(),
            position: 0,
            name: "build-and-deploy".into(),
            status: WorkflowStatus::OnHold,
            branch: Some("main".into()),
            tag: None,
            commit: commit.clone(),
            message: None,
            created_at: now,
            stopped_at: None,
            version: 0,
        };
        let job = |position: i64, name: &str, kind: JobKind, requires: &[&str], deploys: bool| JobRow {
            id: JobId::from_u128(number * 100 + u128::try_from(position).unwrap()),
            workflow: row.id,
            pipeline: row.pipeline,
            project: claims(),
            position,
            number: None,
            name: name.into(),
            kind,
            status: JobStatus::Blocked,
            requires: requires.iter().map(ToString::to_string).collect(),
            nodes: 1,
            cpu_millis: 1000,
            memory_bytes: 1 << 30,
            attempt: 1,
            environment: deploys.then(|| "dev".to_string()),
            queued_at: None,
            started_at: None,
            stopped_at: None,
            message: None,
            approved_by: None,
            stop_requested: false,
            engine: None,
            image: None,
            version: 0,
        };
        let build = job(0, "build", JobKind::Build, &[], false);
        let hold = job(1, "hold", JobKind::Approval, &["build"], true);
        let deploy = JobRow {
            status: JobStatus::Running,
            ..job(2, "deploy", JobKind::Build, &["hold"], true)
        };
        let gate = GateRow {
            job: hold.id,
            workflow: row.id,
            workflow_name: row.name.clone(),
            pipeline: row.pipeline,
            pipeline_number: row.pipeline_number,
            project: claims(),
            name: "hold".into(),
            branch: row.branch.clone(),
            tag: None,
            commit: commit.clone(),
            subject: "Say good day".into(),
            environment: Some(environment("dev")),
            waiting: true,
            plan: None,
            plan_error: None,
            as_of: None,
            approved_by: None,
            created_at: now,
            version: 0,
        };
        let mut commit = Commit::new()
            .with(Write::Workflow(row.clone(), Expect::Absent))
            .with(Write::Gate(gate.clone(), Expect::Absent));
        for job in [&build, &hold, &deploy] {
            commit.write(Write::Job(job.clone(), Expect::Absent));
        }
        self.store.commit(commit).await.unwrap();
        Flow {
            row,
            build,
            hold,
            deploy,
        }
    }

    /// Changes a job's row.
    pub async fn change_job(&self, id: JobId, change: impl FnOnce(&mut JobRow)) {
        use towpath_store::JobStore as _;
        let mut row = self.store.job(id).await.unwrap().unwrap();
        let version = row.version;
        change(&mut row);
        self.store
            .commit(Commit::new().with(Write::Job(row, Expect::Version(version))))
            .await
            .unwrap();
    }

    /// Opens a gate as the conductor does: refresh, show, approve, commit.
    pub async fn approve(&self, gate: JobId) -> Digest {
        let shown = self.delivery.gates.refresh(gate).await.unwrap().plan.unwrap();
        let approval = self
            .delivery
            .gates
            .decide_approval(gate, Some(&shown), &bob())
            .await
            .unwrap();
        let mut commit = Commit::new();
        approval.writes.into_iter().for_each(|write| commit.write(write));
        self.store.commit(commit).await.unwrap();
        shown
    }
}

/// A workflow and its jobs.
#[derive(Clone)]
#[allow(dead_code)]
pub struct Flow {
    pub row: WorkflowRow,
    pub build: JobRow,
    pub hold: JobRow,
    pub deploy: JobRow,
}

pub fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// Converts to a moment before now.
pub trait Past {
    fn now_minus(&self, by: SignedDuration) -> Timestamp;
}

impl Past for FakeClock {
    fn now_minus(&self, by: SignedDuration) -> Timestamp {
        self.now() - by
    }
}
