//! One local target on the real engine, with tools to look at it from outside.
#![allow(clippy::unwrap_used, clippy::panic, dead_code)]

#[path = "../secrets/mod.rs"]
mod secrets;

use bollard::{
    Docker,
    models::ContainerSummary,
    query_parameters::{InspectContainerOptions, ListContainersOptionsBuilder},
};
use futures::FutureExt;
use jiff::Timestamp;
pub use secrets::Secrets;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};
use towpath_deploy::{
    ApplyError, ApplyRequest, Environment, EnvironmentId, Hooks, JobEnd, JobHandle, JobLine, LocalOptions, LocalTarget,
    Occasion, Progress, ReleaseRecord, Target, WorkloadStatus,
    proxy::{ProxyState, ROUTES_FILE, Routes, STATE_FILE},
};
use towpath_manifest::{Object, ObjectId, Tree};
use towpath_testkit::{Probe, clock::FakeClock, engine_answers, remove_instance, skipped, until};
use towpath_types::ReleaseId;

/// The test application. Called with `proxy`, it is the proxy.
pub const BINARY: &str = env!("CARGO_BIN_EXE_towpath-deploy-testapp");
/// How long to wait for any expected event.
pub const BOUND: Duration = Duration::from_secs(60);

pub struct World {
    pub folder: tempfile::TempDir,
    pub instance: String,
    pub secrets: Arc<Secrets>,
    pub clock: Arc<FakeClock>,
    pub id: Environment,
    pub image: String,
    pub docker: Docker,
    target: Option<Arc<LocalTarget>>,
}

/// An environment of the project `claims`.
pub fn environment(name: &str) -> Environment {
    Environment {
        id: EnvironmentId::new("claims", name).unwrap(),
        kube_context: "live".into(),
        namespace: format!("claims-{name}"),
    }
}

/// Runs `test` with a target of its own, and removes what it left in the engine, even if the test fails.
pub async fn in_world(name: &str, test: impl AsyncFnOnce(&mut World)) {
    if let Err(absent) = engine_answers().await {
        return skipped(name, &absent);
    }
    let _ = tracing_subscriber::fmt()
        .with_env_filter(std::env::var("RUST_LOG").unwrap_or_else(|_| "off".into()))
        .with_test_writer()
        .try_init();
    let mut world = World {
        folder: tempfile::tempdir().unwrap(),
        instance: format!("t{:08x}", rand::random::<u32>()),
        secrets: Arc::default(),
        clock: Arc::new(FakeClock::running()),
        id: environment("dev"),
        image: String::new(),
        docker: Docker::connect_with_defaults().unwrap(),
        target: None,
    };
    let result = AssertUnwindSafe(async {
        world.open().await;
        test(&mut world).await;
    })
    .catch_unwind()
    .await;
    if result.is_err() {
        eprintln!("{name}: what there was at the end\n{}", world.describe().await);
    }
    world.close();
    remove_instance(&world.instance).await.unwrap();
    let _ = std::fs::remove_dir_all(format!("/dev/shm/towpath-{}", world.instance));
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

impl World {
    /// Opens the target, as when the server starts.
    pub async fn open(&mut self) {
        let options = LocalOptions {
            backoff: Duration::from_millis(500),
            ..LocalOptions::new(
                self.folder.path().join("local"),
                self.instance.clone(),
                BINARY.into(),
                self.secrets.clone(),
                self.clock.clone(),
            )
        };
        let target = LocalTarget::open(options).await.unwrap();
        // The application is the same program as the proxy.
        self.image = target.proxy_image().to_string();
        self.target = Some(Arc::new(target));
    }

    /// Drops the target with all its tasks, like a `kill -9` of the server.
    pub fn close(&mut self) {
        self.target = None;
    }

    pub async fn reopen(&mut self) {
        self.close();
        self.open().await;
    }

    pub fn target(&self) -> &LocalTarget {
        self.target.as_ref().unwrap()
    }

    pub fn shared_target(&self) -> Arc<LocalTarget> {
        self.target.clone().unwrap()
    }

    pub fn request(&self, objects: Vec<Object>, prune: Vec<ObjectId>) -> ApplyRequest {
        ApplyRequest {
            environment: self.id.clone(),
            occasion: Occasion::Release,
            record: record(),
            objects,
            prune,
            hooks: Hooks::default(),
            deadline: BOUND,
            unschedulable: None,
        }
    }

    pub async fn apply(&self, objects: &[Object]) -> Result<Vec<Progress>, ApplyError> {
        self.apply_and_prune(objects, &[]).await
    }

    pub async fn apply_and_prune(&self, objects: &[Object], prune: &[ObjectId]) -> Result<Vec<Progress>, ApplyError> {
        self.carry_out(self.request(objects.to_vec(), prune.to_vec())).await
    }

    pub async fn carry_out(&self, request: ApplyRequest) -> Result<Vec<Progress>, ApplyError> {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        self.target().apply(request, sender).await?;
        let mut said = Vec::new();
        while let Ok(line) = receiver.try_recv() {
            said.push(line);
        }
        Ok(said)
    }

    pub async fn status(&self) -> Vec<WorkloadStatus> {
        self.target().status(&self.id).await.unwrap()
    }

    pub async fn status_of(&self, kind: &str, name: &str) -> WorkloadStatus {
        let all = self.status().await;
        let found = all.iter().find(|status| status.kind == kind && status.name == name);
        found.unwrap_or_else(|| panic!("no {kind} {name} in {all:?}")).clone()
    }

    /// The address of the Ingress.
    pub async fn address(&self) -> String {
        let status = self.status_of("Ingress", "web").await;
        status.addresses.first().cloned().unwrap()
    }

    /// Sends a request through the Ingress. Returns the status and body of the answer.
    pub async fn ask(&self, path: &str) -> (u16, String) {
        let address = self.address().await;
        http(address.trim_start_matches("http://"), path).await.unwrap()
    }

    /// Sends requests through the Ingress until the answer is `wanted`.
    pub async fn ask_until(&self, path: &str, wanted: &str) {
        until(format!("{path} to answer {wanted:?}"), BOUND, async || {
            let (status, body) = self.ask(path).await;
            Ok(if status == 200 && body == wanted {
                Probe::Found(())
            } else {
                Probe::NotYet(format!("{status} {body:?}"))
            })
        })
        .await
        .unwrap();
    }

    pub async fn run_job(&self, job: Object) -> (Vec<String>, JobEnd) {
        let handle = self.target().run_job(&self.id, job, None).await.unwrap();
        finish(handle).await
    }

    /// The containers of the environment with the label `label=value`, including stopped ones.
    pub async fn containers(&self, label: &str, value: &str) -> Vec<ContainerSummary> {
        let labels = vec![
            format!("dev.towpath.instance={}", self.instance),
            if value.is_empty() {
                label.to_string()
            } else {
                format!("{label}={value}")
            },
        ];
        let options = ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&HashMap::from([("label".to_string(), labels)]))
            .build();
        self.docker.list_containers(Some(options)).await.unwrap()
    }

    /// Each container with its start time. An unchanged time means that the container was not touched.
    pub async fn starts(&self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        for container in self.containers("dev.towpath.environment", "").await {
            let id = container.id.unwrap();
            let seen = self
                .docker
                .inspect_container(&id, None::<InspectContainerOptions>)
                .await
                .unwrap();
            let started = seen.state.unwrap().started_at.unwrap_or_default();
            let name = seen.name.unwrap();
            found.insert(format!("{} {id}", name.trim_start_matches('/')), started);
        }
        found
    }

    pub fn environment_folder(&self) -> PathBuf {
        self.folder.path().join("local").join(self.id.id.slug())
    }

    pub fn routes(&self, proxy: &str) -> Option<Routes> {
        read(&self.environment_folder().join("proxies").join(proxy).join(ROUTES_FILE))
    }

    pub fn proxy_state(&self, proxy: &str) -> Option<ProxyState> {
        read(&self.environment_folder().join("proxies").join(proxy).join(STATE_FILE))
    }

    /// The document on the disk.
    pub fn document(&self) -> Value {
        // Beside the record are its version and who wrote it.
        let mut text: Value = read(&self.environment_folder().join("environment.json")).unwrap();
        text["record"].take()
    }

    async fn describe(&self) -> String {
        let mut text = String::new();
        if let Some(target) = &self.target {
            for status in target.status(&self.id).await.unwrap_or_default() {
                text.push_str(&format!("  {status:?}\n"));
            }
        }
        for container in self.containers("dev.towpath.environment", "").await {
            let names = container.names.unwrap_or_default().join(" ");
            text.push_str(&format!("  {names}: {}\n", container.status.unwrap_or_default()));
        }
        text
    }

    /// A Deployment called `web` of two pods that are ready when `/ready` answers.
    pub fn web(&self, version: &str, change: impl FnOnce(&mut Value)) -> Object {
        self.deployment("web", version, change)
    }

    pub fn deployment(&self, name: &str, version: &str, change: impl FnOnce(&mut Value)) -> Object {
        let mut value = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
            "spec": {
                "replicas": 2,
                "progressDeadlineSeconds": 40,
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
                "selector": {"matchLabels": {"app": name}},
                "template": {
                    "metadata": {"labels": {"app": name}},
                    "spec": {
                        "terminationGracePeriodSeconds": 5,
                        "containers": [{
                            "name": "app",
                            "image": self.image,
                            "env": [{"name": "VERSION", "value": version}],
                            "ports": [{"name": "http", "containerPort": 8080}],
                            "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 1},
                        }],
                    },
                },
            },
        });
        change(&mut value);
        object(value)
    }

    /// A Job whose pod runs the application with `arguments`.
    pub fn job(&self, name: &str, arguments: &[&str], change: impl FnOnce(&mut Value)) -> Object {
        let mut value = json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
            "spec": self.job_spec(arguments),
        });
        change(&mut value["spec"]);
        object(value)
    }

    pub fn job_spec(&self, arguments: &[&str]) -> Value {
        json!({
            "backoffLimit": 0,
            "template": {"spec": {
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 1,
                "containers": [{"name": "job", "image": self.image, "args": arguments}],
            }},
        })
    }
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

pub fn object(value: Value) -> Object {
    Object::from_value(value, "test.yaml").unwrap()
}

/// The pod's first container in a Deployment or Job.
pub fn container(value: &mut Value) -> &mut Value {
    value.pointer_mut("/spec/template/spec/containers/0").unwrap()
}

/// Adds a variable to a pod's first container.
pub fn env(value: &mut Value, name: &str, text: &str) {
    let container = container(value);
    if container["env"].is_null() {
        container["env"] = json!([]);
    }
    let list = container["env"].as_array_mut().unwrap();
    list.push(json!({"name": name, "value": text}));
}

pub fn service(name: &str) -> Object {
    object(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
    }))
}

/// An Ingress called `web` that leads to the Service `web`.
pub fn ingress() -> Object {
    object(json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "web"},
        "spec": {"rules": [{"host": "claims.example.org", "http": {"paths": [
            {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "web", "port": {"name": "http"}}}},
        ]}}]},
    }))
}

pub fn claim(name: &str) -> Object {
    object(json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }))
}

/// Mounts the claim `claim` at `/data` of a pod's first container.
pub fn mount_claim(value: &mut Value, claim: &str) {
    container(value)["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    value.pointer_mut("/spec/template/spec").unwrap()["volumes"] =
        json!([{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]);
}

/// The objects of one file of an environment, with their places.
pub fn objects_of(file: &str, text: &str) -> Vec<Object> {
    let path = format!(".k8s/live/dev/{file}");
    let (tree, diagnostics) = Tree::read([(path.as_str(), text)]);
    assert!(diagnostics.is_empty(), "{diagnostics:?}");
    tree.environment("live", "dev").unwrap().objects.clone()
}

/// The output of a Job, line by line (notes begin with `note: `), and its end.
pub async fn finish(mut handle: JobHandle) -> (Vec<String>, JobEnd) {
    let all = async {
        let mut output = Vec::new();
        let mut lines = Vec::new();
        while let Some(line) = handle.output.recv().await {
            match line {
                JobLine::Output(bytes) => output.extend_from_slice(&bytes),
                JobLine::Note(note) => output.extend_from_slice(format!("note: {note}\n").as_bytes()),
            }
        }
        lines.extend(String::from_utf8(output).unwrap().lines().map(str::to_string));
        (lines, handle.end.await.unwrap())
    };
    tokio::time::timeout(BOUND, all)
        .await
        .expect("the job to end within a minute")
}

/// `GET path` on a new connection; status and body.
pub async fn http(authority: &str, path: &str) -> std::io::Result<(u16, String)> {
    let exchange = async {
        let mut stream = TcpStream::connect(authority).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        let status = text.split(' ').nth(1).and_then(|word| word.parse().ok());
        let status = status.ok_or_else(|| std::io::Error::other(format!("no answer but {text:?}")))?;
        let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        Ok((status, body.to_string()))
    };
    match tokio::time::timeout(Duration::from_secs(20), exchange).await {
        Ok(answer) => answer,
        Err(_) => Err(std::io::Error::other("no answer within 20 s")),
    }
}

/// Bits for an id; later ones sort later, as ids do.
/// A release with an id of its own.
fn record() -> ReleaseRecord {
    ReleaseRecord {
        id: ReleaseId::from_u128(fresh()),
        number: 1,
        state: towpath_types::RecordedState::Running,
        images: vec!["towpath.test/app".parse().unwrap()],
        commit: None,
        by: "ann".into(),
        cause: "a test".into(),
        at: Timestamp::now(),
        stopped_at: None,
        message: None,
        repeats: 0,
        repeated_at: None,
        plan: Value::Null,
    }
}

fn fresh() -> u128 {
    static LAST: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    LAST.fetch_add(1, std::sync::atomic::Ordering::Relaxed).into()
}
