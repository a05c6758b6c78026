//! What all tests on a real cluster need: a namespace for each test, and a target that deploys to it.

#[path = "../secrets/mod.rs"]
mod secrets;

use jiff::Timestamp;
pub use secrets::Secrets;
use serde_json::{Value, json};
use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::{OnceCell, mpsc};
use towpath_deploy::{
    ApplyError, ApplyRequest, Environment, EnvironmentId, Finding, Hooks, Identity, JobHandle, JobLine,
    KubernetesOptions, KubernetesTarget, Occasion, ReleaseRecord, Target,
};
use towpath_manifest::{Object, ObjectId, Tree};
use towpath_testkit::{Cluster, FaultProxy, Namespace, Probe, skipped, until};
use towpath_types::{Digest, ReleaseId, SecretString};

/// How long a rollout of the small application may take at most.
pub const BOUND: Duration = Duration::from_secs(90);
const BINARY: &str = env!("CARGO_BIN_EXE_towpath-deploy-testapp");

pub struct World {
    pub namespace: Namespace,
    pub environment: Environment,
    pub secrets: Arc<Secrets>,
    pub target: KubernetesTarget,
    pub image: String,
    number: Mutex<i64>,
}

static IMAGE: OnceCell<String> = OnceCell::const_new();

/// Loads the image of the test application onto the node.
async fn image(cluster: &Cluster) -> String {
    IMAGE
        .get_or_init(|| async {
            let digest = Digest::of(&std::fs::read(BINARY).unwrap());
            let name = format!("towpath.test/app:{}", digest.short());
            cluster.load_image(&name, Path::new(BINARY)).await.unwrap();
            name
        })
        .await
        .clone()
}

/// Runs `test` in its own namespace. Says loudly if there is no cluster.
pub async fn in_cluster(name: &str, test: impl AsyncFnOnce(&mut World)) {
    let cluster = match Cluster::get().await {
        Ok(cluster) => cluster,
        Err(absent) => return skipped(name, &absent),
    };
    let _ = tracing_subscriber::fmt()
        .with_env_filter(std::env::var("RUST_LOG").unwrap_or_else(|_| "off".into()))
        .with_test_writer()
        .try_init();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let namespace = cluster.namespace(name).await.unwrap();
    let secrets = Arc::new(Secrets::default());
    let options = KubernetesOptions::new(
        Identity::Kubeconfig(Some(cluster.kubeconfig().to_path_buf())),
        secrets.clone(),
    );
    let mut world = World {
        environment: Environment {
            id: EnvironmentId::new("claims", "dev").unwrap(),
            kube_context: Cluster::KUBE_CONTEXT.into(),
            namespace: namespace.name().to_string(),
        },
        target: KubernetesTarget::new(options),
        image: image(&cluster).await,
        namespace,
        secrets,
        number: Mutex::new(0),
    };
    test(&mut world).await;
}

/// The objects in manifests, as the tree reads them.
pub fn objects(text: &str) -> Vec<Object> {
    let (tree, diagnostics) = Tree::read([(".k8s/live/dev/all.yaml", text)]);
    assert!(
        diagnostics.is_empty(),
        "{:?}",
        diagnostics.iter().map(|one| one.render(false)).collect::<Vec<_>>()
    );
    tree.environment("live", "dev").unwrap().objects.clone()
}

impl World {
    /// The objects in manifests, in the environment's namespace, with `IMAGE` replaced by the application's image.
    pub fn objects(&self, text: &str) -> Vec<Object> {
        let objects = objects(&text.replace("IMAGE", &self.image));
        objects
            .into_iter()
            .map(|object| object.in_namespace(&self.environment.namespace))
            .collect()
    }

    /// Options for a target that knows only a token and the address of a proxy, like another laptop.
    pub async fn target_through(&self, proxy: &FaultProxy) -> KubernetesOptions {
        let account = self.namespace.owner().await.unwrap();
        let identity = Identity::Token {
            server: proxy.address().into(),
            certificate_authority: None,
            token: SecretString::new(account.token),
        };
        KubernetesOptions::new(identity, self.secrets.clone())
    }

    pub async fn proxy(&self) -> FaultProxy {
        let cluster = self.namespace.cluster();
        let authority = cluster.certificate_authority().unwrap();
        FaultProxy::start(&cluster.server(), &authority).await.unwrap()
    }

    pub fn request(&self, objects: Vec<Object>) -> ApplyRequest {
        let mut number = self.number.lock().unwrap();
        *number += 1;
        let id = ReleaseId::from_u128(rand::random());
        ApplyRequest {
            environment: self.environment.clone(),
            occasion: Occasion::Release,
            record: ReleaseRecord {
                id,
                number: *number,
                state: towpath_types::RecordedState::Running,
                images: vec![self.image.parse().unwrap()],
                commit: Some("0123456789abcdef0123456789abcdef01234567".parse().unwrap()),
                by: "ann".into(),
                cause: "a test".into(),
                at: Timestamp::now(),
                stopped_at: None,
                message: None,
                repeats: 0,
                repeated_at: None,
                plan: json!({"objects": objects.len()}),
            },
            objects,
            prune: Vec::new(),
            hooks: Hooks::default(),
            deadline: BOUND,
            unschedulable: None,
        }
    }

    pub async fn apply(&self, objects: Vec<Object>) -> Result<Vec<String>, ApplyError> {
        carry_out(&self.target, self.request(objects)).await
    }

    pub async fn apply_and_prune(&self, objects: Vec<Object>, prune: &[ObjectId]) -> Result<Vec<String>, ApplyError> {
        let mut request = self.request(objects);
        request.prune = prune.to_vec();
        carry_out(&self.target, request).await
    }

    pub async fn findings(&self, objects: &[Object]) -> Vec<Finding> {
        self.target
            .preflight(&self.environment, objects, &[])
            .await
            .unwrap()
            .findings
    }

    /// The changes that applying would make, one line for each: `changed deployment/web`.
    pub async fn changes(&self, objects: &[Object]) -> Vec<String> {
        let preflight = self.target.preflight(&self.environment, objects, &[]).await.unwrap();
        let refused: Vec<String> = preflight.refused().map(ToString::to_string).collect();
        assert_eq!(refused, Vec::<String>::new());
        let changes = preflight.changes.unwrap();
        let changes = changes
            .iter()
            .filter(|change| change.kind != towpath_manifest::ChangeKind::Unchanged);
        changes
            .map(|change| format!("{:?} {}", change.kind, change.id).to_lowercase())
            .collect()
    }

    /// Waits until somebody deploys, which means that they have the lock.
    pub async fn until_begun(&self) {
        until("a deployment to begin", BOUND, async || {
            let current = self.target.current(&self.environment).await?;
            Ok(match current.and_then(|current| current.deploying) {
                Some(_) => Probe::Found(()),
                None => Probe::NotYet("nobody deploys".into()),
            })
        })
        .await
        .unwrap();
    }

    pub async fn get(&self, kind: &str, name: &str) -> Value {
        self.namespace.get(kind, name).await.unwrap()
    }
}

/// Carries a request out. Returns the progress messages.
pub async fn carry_out(target: &KubernetesTarget, request: ApplyRequest) -> Result<Vec<String>, ApplyError> {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let result = target.apply(request, sender).await;
    let mut said = Vec::new();
    while let Ok(line) = receiver.try_recv() {
        said.push(match line.object {
            Some(object) => format!("{object}: {}", line.message),
            None => line.message,
        });
    }
    result.map(|()| said)
}

/// The output of a job, with notes, and how it ended.
pub async fn finish(mut handle: JobHandle) -> (Vec<String>, towpath_deploy::JobEnd) {
    let mut lines = Vec::new();
    while let Some(line) = handle.output.recv().await {
        match line {
            JobLine::Output(bytes) => lines.extend(String::from_utf8_lossy(&bytes).lines().map(str::to_string)),
            JobLine::Note(note) => lines.push(format!("-- {note}")),
        }
    }
    (lines, handle.end.await.unwrap())
}

/// The application: a ConfigMap, a Deployment with two pods, a Service and a CronJob.
pub const APPLICATION: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: app-config}
data: {GREETING: hello}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  progressDeadlineSeconds: 60
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: web
          image: IMAGE
          env: [{name: VERSION, value: one}]
          envFrom: [{configMapRef: {name: app-config}}]
          ports: [{name: http, containerPort: 8080}]
          readinessProbe: {httpGet: {path: /ready, port: http}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http}]
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: sweep}
spec:
  schedule: "0 3 * * *"
  jobTemplate:
    spec:
      backoffLimit: 0
      template:
        spec:
          restartPolicy: Never
          containers: [{name: sweep, image: IMAGE, args: [exit, "0", swept]}]
"#;

/// The rules of an account without events, ReplicaSets, pods/log, namespaces, and anything cluster-wide.
pub fn least_privilege() -> Value {
    let verbs = json!(["get", "list", "watch", "create", "patch", "update", "delete"]);
    json!([
        {"apiGroups": [""], "resources": ["configmaps", "secrets", "services", "pods"], "verbs": verbs},
        {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": verbs},
        {"apiGroups": ["networking.k8s.io"], "resources": ["ingresses"], "verbs": verbs},
        {"apiGroups": ["batch"], "resources": ["jobs", "cronjobs"], "verbs": verbs},
    ])
}
