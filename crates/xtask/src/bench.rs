//! How fast deployments are, compared with a script and with other tools, on the test cluster, in one run.
//!
//! This is not a test. It prints tables in which each figure stands beside a peer or a lower bound from the same run.

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use futures::StreamExt;
use std::{
    io::BufRead as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use towpath_testkit::{Asked, Cluster, FaultProxy, Namespace, Registry, Verdict};

/// How often each measurement is repeated. The median counts.
const RUNS: usize = 5;
/// The same for the large application.
const LARGE_RUNS: usize = 3;
const CONFIG_MAPS: usize = 500;
const DEPLOYMENTS: usize = 100;

struct Bench {
    cluster: Cluster,
    registry: Registry,
    proxy: FaultProxy,
    towpath: PathBuf,
    folder: tempfile::TempDir,
}

/// The cost of one run of a program.
#[derive(Debug, Clone, Copy, Default)]
struct Took {
    time: Duration,
    /// The time until the last object was applied, by the program's output.
    applied: Duration,
    /// The peak memory.
    kibibytes: u64,
}

/// Runs everything and prints the tables.
pub async fn bench() -> Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cluster = Cluster::get().await.map_err(|absent| anyhow::anyhow!(absent.0))?;
    let registry = Registry::start().await?.map_err(|absent| anyhow::anyhow!(absent.0))?;
    let program = std::fs::read("/bin/busybox").context("busybox is not installed: run scripts/ensure-test-parts")?;
    registry.push("claims", &["app-latest"], "busybox", &program)?;
    let proxy = FaultProxy::start(&cluster.server(), &cluster.certificate_authority()?).await?;
    let this = std::env::current_exe().context("failed to find this program")?;
    let bench = Bench {
        cluster,
        registry,
        proxy,
        towpath: this.with_file_name("towpath"),
        folder: tempfile::tempdir()?,
    };
    bench.small().await?;
    bench.large().await
}

/// What is done to the large application, in this order.
const STEPS: [&str; 3] = ["first", "unchanged", "all changed"];

/// The cost of each step, in each run.
#[derive(Default)]
struct Steps([Vec<Took>; STEPS.len()]);

impl Steps {
    fn note(&mut self, step: usize, took: Took) {
        self.0[step].push(took);
    }

    fn time(&self, step: usize) -> Duration {
        median(self.0[step].iter().map(|took| took.time).collect())
    }

    fn applied(&self, step: usize) -> Duration {
        median(self.0[step].iter().map(|took| took.applied).collect())
    }

    fn mebibytes(&self, step: usize) -> u64 {
        self.0[step].iter().map(|took| took.kibibytes >> 10).max().unwrap_or(0)
    }
}

impl Took {
    /// Adds the time that was spent waiting afterwards.
    fn then(self, waited: Duration) -> Self {
        Self {
            time: self.time + waited,
            ..self
        }
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Runs a program, which has to succeed, and measures it.
fn timed(command: &mut Command) -> Result<Took> {
    let what = format!("{command:?}");
    let began = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("failed to run {what}"))?;
    let stderr = child.stderr.take().context("it has no standard error")?;
    let said = std::thread::spawn(move || last_applied(stderr, began));
    let stdout = child.stdout.take().context("it has no standard output")?;
    let printed = std::thread::spawn(move || last_applied(stdout, began));
    let status = format!("/proc/{}/status", child.id());
    let mut kibibytes = 0;
    let ended = loop {
        if let Ok(text) = std::fs::read_to_string(&status) {
            let peak = text
                .lines()
                .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
            kibibytes = peak.and_then(|peak| peak.trim().parse().ok()).unwrap_or(kibibytes);
        }
        if let Some(ended) = child.try_wait()? {
            break ended;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let time = began.elapsed();
    let lost = |_| anyhow::anyhow!("failed to read the output of {what}");
    let ((said, one), (_, other)) = (said.join().map_err(lost)?, printed.join().map_err(lost)?);
    ensure!(ended.success(), "{what} failed: {said}");
    Ok(Took {
        time,
        applied: one.max(other).unwrap_or(time),
        kibibytes,
    })
}

/// A program's output, and when it last said that an object was applied.
fn last_applied(from: impl std::io::Read, began: Instant) -> (String, Option<Duration>) {
    let (mut all, mut last) = (String::new(), None);
    for line in std::io::BufReader::new(from).lines().map_while(Result::ok) {
        if line.ends_with(": created") || line.ends_with(": changed") {
            last = Some(began.elapsed());
        }
        all.push_str(&line);
        all.push('\n');
    }
    (all, last)
}

impl Bench {
    /// Runs `towpath deploy dev` in `folder`, as on a laptop without a server.
    async fn deploy(&self, folder: &Path, server: &str, token: &str) -> Result<Took> {
        let mut command = Command::new(&self.towpath);
        command
            .args(["deploy", "dev", "latest"])
            .current_dir(folder)
            .env("TOWPATH_DATA_DIR", folder.join("none"))
            .env("TOWPATH_KUBE_SERVER", server)
            .env("TOWPATH_KUBE_CA", self.cluster.certificate_authority()?)
            .env("TOWPATH_KUBE_TOKEN", token);
        // Do not block this thread: the proxy runs in this process.
        tokio::task::spawn_blocking(move || timed(&mut command)).await?
    }

    fn kubectl(&self, namespace: &str, script: &str, folder: &Path) -> Command {
        let mut command = Command::new("bash");
        let path = format!(
            "{}:{}",
            self.cluster.programs().display(),
            std::env::var("PATH").unwrap_or_default()
        );
        command
            .args(["-euo", "pipefail", "-c", script])
            .current_dir(folder)
            .env("KUBECONFIG", self.cluster.kubeconfig())
            .env("PATH", path)
            .env("NAMESPACE", namespace)
            .env("IMAGE", format!("{}/claims:app-latest", self.registry.address()));
        command
    }

    fn project(&self, folder: &Path, namespace: &Namespace, files: &[(String, String)]) -> Result<()> {
        let manifests = folder.join(".k8s/live/dev");
        std::fs::create_dir_all(&manifests)?;
        let text = format!(
            "project = \"claims\"\nimage = \"{}/claims\"\nnamespace = \"{}\"\n",
            self.registry.address(),
            namespace.name()
        );
        std::fs::write(folder.join("towpath.toml"), text)?;
        for (name, text) in files {
            std::fs::write(manifests.join(name), text)?;
        }
        Ok(())
    }

    /// Deploys the example's application without pods, so as to measure only the deployment: with the script's own calls, and
    /// with Towpath, which also checks, shows, waits and records.
    async fn small(&self) -> Result<()> {
        let files: Vec<(String, String)> = SMALL
            .iter()
            .map(|(name, text)| ((*name).to_string(), (*text).to_string()))
            .collect();
        let (mut by_script, mut by_towpath) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
        let (mut asked, mut memory) = ((0, 0), 0);
        for run in 0..RUNS {
            let hand = self.cluster.namespace("bench-hand").await?;
            let folder = self.folder.path().join(format!("hand-{run}"));
            self.project(&folder, &hand, &files)?;
            let folder = folder.join(".k8s/live/dev");
            by_script
                .0
                .push(timed(&mut self.kubectl(hand.name(), SCRIPT, &folder))?.time);
            by_script
                .1
                .push(timed(&mut self.kubectl(hand.name(), SCRIPT, &folder))?.time);

            let ours = self.cluster.namespace("bench-ours").await?;
            let token = ours.owner().await?.token;
            let folder = self.folder.path().join(format!("ours-{run}"));
            self.project(&folder, &ours, &files)?;
            let server = self.cluster.server();
            by_towpath.0.push(self.deploy(&folder, &server, &token).await?.time);
            let again = self.deploy(&folder, &server, &token).await?;
            by_towpath.1.push(again.time);
            memory = again.kibibytes;
            if run == RUNS - 1 {
                self.proxy.script(|_| Verdict::Pass);
                self.deploy(&folder, self.proxy.address(), &token).await?;
                asked.1 = self.proxy.asked().len();
                let fresh = self.cluster.namespace("bench-count").await?;
                let token = fresh.owner().await?.token;
                self.project(&folder, &fresh, &files)?;
                self.proxy.script(|_| Verdict::Pass);
                self.deploy(&folder, self.proxy.address(), &token).await?;
                asked.0 = self.proxy.asked().len();
            }
        }
        println!("\nA small application ({} objects), median of {RUNS}:", files.len());
        println!("| | the script's `kubectl` calls | `towpath deploy` | ratio | goal | requests |");
        println!("| --- | --- | --- | --- | --- | --- |");
        for (what, script, towpath, goal, requests) in [
            ("first", by_script.0, by_towpath.0, 0.2, asked.0),
            ("unchanged", by_script.1, by_towpath.1, 0.1, asked.1),
        ] {
            let (script, towpath) = (median(script), median(towpath));
            println!(
                "| {what} | {:.3} s | {:.3} s | {:.3} | {goal} | {requests} |",
                script.as_secs_f64(),
                towpath.as_secs_f64(),
                towpath.as_secs_f64() / script.as_secs_f64()
            );
        }
        println!("Peak memory: {} MiB", memory >> 10);
        Ok(())
    }

    /// Deploys many objects, with pods on simulated nodes: the first time, with nothing changed, and with everything changed.
    /// Each tool starts after the cluster has finished the work that the one before caused.
    async fn large(&self) -> Result<()> {
        let contents = [large_files("one"), large_files("one"), large_files("two")];
        let (mut towpath, mut kubectl, mut helm) = (Steps::default(), Steps::default(), Steps::default());
        let (mut kubectl_whole, mut helm_whole) = (Steps::default(), Steps::default());
        // Deleting the namespaces would disturb the measurements.
        let mut kept = Vec::new();
        for run in 0..LARGE_RUNS {
            let ours = self.cluster.namespace("bench-many").await?;
            // Like the other tools' accounts, this one may read the whole cluster, and so can see that nothing else changes
            // ConfigMaps.
            let token = ours.observer().await?.token;
            let folder = self.folder.path().join(format!("many-{run}"));
            for (step, files) in contents.iter().enumerate() {
                self.project(&folder, &ours, files)?;
                towpath.note(step, self.deploy(&folder, &self.cluster.server(), &token).await?);
            }

            let hand = self.cluster.namespace("bench-apply").await?;
            let folder = self.folder.path().join(format!("apply-{run}"));
            for (step, files) in contents.iter().enumerate() {
                self.project(&folder, &hand, files)?;
                let script = "kubectl --namespace \"$NAMESPACE\" apply --server-side --filename .k8s/live/dev";
                let applied = timed(&mut self.kubectl(hand.name(), script, &folder))?;
                let waited = self.until_all_runs(&hand).await?;
                kubectl.note(step, applied);
                kubectl_whole.note(step, applied.then(waited));
            }

            let charted = self.cluster.namespace("bench-helm").await?;
            let folder = self.folder.path().join(format!("helm-{run}"));
            for (step, files) in contents.iter().enumerate() {
                let templates = folder.join("chart/templates");
                std::fs::create_dir_all(&templates)?;
                let chart = "apiVersion: v2\nname: many\nversion: 0.1.0\n";
                std::fs::write(folder.join("chart/Chart.yaml"), chart)?;
                for (name, text) in files {
                    std::fs::write(templates.join(name), text)?;
                }
                let script = "helm --namespace \"$NAMESPACE\" upgrade --install many chart";
                let applied = timed(&mut self.kubectl(charted.name(), script, &folder))?;
                let waited = self.until_all_runs(&charted).await?;
                helm.note(step, applied);
                helm_whole.note(step, applied.then(waited));
            }
            kept.extend([ours, hand, charted]);
        }
        // Once more through a proxy, to record the requests. Then replay them as fast as a bare client can.
        let counted = self.cluster.namespace("bench-counted").await?;
        let token = counted.observer().await?.token;
        let folder = self.folder.path().join("counted");
        let (mut requests, mut floors) = (Vec::new(), Steps::default());
        for (step, files) in contents.iter().enumerate() {
            self.project(&folder, &counted, files)?;
            self.proxy.script(|_| Verdict::Pass);
            self.deploy(&folder, self.proxy.address(), &token).await?;
            requests.push(self.proxy.asked());
            for run in 0..LARGE_RUNS {
                // Each series needs a namespace of its own, to find the same state as before.
                let bare = self.cluster.namespace(&format!("bench-bare-{run}")).await?;
                let token = bare.observer().await?.token;
                let mut time = Duration::ZERO;
                for asked in &requests {
                    time = self.replay(asked, counted.name(), bare.name(), &token).await?;
                    self.until_all_runs(&bare).await?;
                }
                floors.note(
                    step,
                    Took {
                        time,
                        ..Took::default()
                    },
                );
                kept.push(bare);
            }
        }

        let seconds = |duration: Duration| format!("{:.2} s", duration.as_secs_f64());
        let ratio = |one: Duration, other: Duration| format!("{:.2}", one.as_secs_f64() / other.as_secs_f64());
        println!(
            "\n{CONFIG_MAPS} ConfigMaps and {DEPLOYMENTS} Deployments, median of {LARGE_RUNS}. `towpath deploy` checks first, and ends when everything \
             runs. The others check nothing, and end when everything is applied:"
        );
        println!(
            "| | `towpath deploy` | `kubectl apply --server-side` | `helm upgrade` | its requests from a bare HTTP/2 client | ratio to kubectl | to helm | to the bare client | requests | peak memory |"
        );
        println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
        for (step, name) in STEPS.iter().enumerate() {
            let (ours, hand, chart) = (towpath.time(step), kubectl.time(step), helm.time(step));
            let floor = floors.time(step);
            println!(
                "| {name} | {} | {} | {} | {} | {} | {} | {} | {} | {} MiB |",
                seconds(ours),
                seconds(hand),
                seconds(chart),
                seconds(floor),
                ratio(ours, hand),
                ratio(ours, chart),
                ratio(ours, floor),
                requests.get(step).map_or(0, Vec::len),
                towpath.mebibytes(step),
            );
        }
        println!("\nThe same, each until the same point:");
        println!(
            "| | everything applied: towpath | kubectl | helm | ratio to kubectl | to helm | everything runs: towpath | kubectl | helm | ratio to kubectl | to helm |"
        );
        println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
        for (step, name) in STEPS.iter().enumerate() {
            let (ours, hand, chart) = (towpath.applied(step), kubectl.time(step), helm.time(step));
            let (whole, hand_whole, chart_whole) =
                (towpath.time(step), kubectl_whole.time(step), helm_whole.time(step));
            println!(
                "| {name} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                seconds(ours),
                seconds(hand),
                seconds(chart),
                ratio(ours, hand),
                ratio(ours, chart),
                seconds(whole),
                seconds(hand_whole),
                seconds(chart_whole),
                ratio(whole, hand_whole),
                ratio(whole, chart_whole),
            );
        }
        Ok(())
    }

    /// Waits until every Deployment of a namespace has rolled out, by polling, and answers how long that took.
    async fn until_all_runs(&self, namespace: &Namespace) -> Result<Duration> {
        let began = Instant::now();
        loop {
            let arguments = [
                "--namespace",
                namespace.name(),
                "get",
                "deployments",
                "--output",
                "json",
            ];
            let list: serde_json::Value = serde_json::from_str(&self.cluster.kubectl(&arguments).await?)?;
            let rolled_out = |one: &serde_json::Value| {
                let number = |pointer: &str| one.pointer(pointer).and_then(serde_json::Value::as_i64).unwrap_or(0);
                let wanted = number("/spec/replicas");
                number("/status/observedGeneration") >= number("/metadata/generation")
                    && ["updatedReplicas", "replicas", "availableReplicas"]
                        .iter()
                        .all(|count| number(&format!("/status/{count}")) == wanted)
            };
            let items = list.get("items").and_then(serde_json::Value::as_array);
            if items.is_some_and(|items| items.iter().all(rolled_out)) {
                return Ok(began.elapsed());
            }
            ensure!(
                began.elapsed() < Duration::from_secs(120),
                "the Deployments did not roll out within 120 s"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Sends the same requests to another namespace from a client that does nothing else, with as much concurrency as ours.
    async fn replay(&self, asked: &[Asked], from: &str, to: &str, token: &str) -> Result<Duration> {
        let authority = reqwest::Certificate::from_pem(self.cluster.certificate_authority()?.as_bytes())?;
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([authority])
            .http2_prior_knowledge()
            .build()?;
        let server = self.cluster.server();
        let mut requests = Vec::new();
        for one in asked.iter().filter(|one| !one.path.contains("watch=1")) {
            let body = String::from_utf8_lossy(&one.body).replace(from, to);
            let request = client
                .request(one.method.parse()?, format!("{server}{}", one.path.replace(from, to)))
                .bearer_auth(token)
                .header("content-type", &one.content_type)
                .body(Bytes::from(body))
                .build()?;
            requests.push(request);
        }
        let began = Instant::now();
        let answers = futures::stream::iter(requests).map(|request| async {
            let answer = client.execute(request).await?;
            answer.bytes().await.map(drop)
        });
        let failed = answers
            .buffer_unordered(16)
            .filter(|answer| futures::future::ready(answer.is_err()))
            .count()
            .await;
        if failed > 0 {
            bail!("{failed} requests of the bare client failed");
        }
        Ok(began.elapsed())
    }
}

/// A script as teams have it: it applies everything, changed or not, one file after the other.
const SCRIPT: &str = r#"
k() { kubectl --namespace "$NAMESPACE" "$@"; }
k apply -f app-config.yaml
k set image -f deployment.yaml web="$IMAGE" --local -o yaml | k apply -f -
k set image -f deployment-worker.yaml worker="$IMAGE" --local -o yaml | k apply -f -
k set image -f archive_stale.yaml job="$IMAGE" --local -o yaml | k apply -f -
k set image -f vacuum_db.yaml job="$IMAGE" --local -o yaml | k apply -f -
k apply -f service.yaml
k apply -f ingress.yaml
k annotate --overwrite deployment/web kubernetes.io/change-cause="$IMAGE"
k annotate --overwrite deployment/worker kubernetes.io/change-cause="$IMAGE"
k rollout status deployment/web
k rollout status deployment/worker
"#;

const SMALL: [(&str, &str); 7] = [
    (
        "app-config.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: app-config}\ndata: {GREETING: hello, LEVEL: info}\n",
    ),
    ("deployment.yaml", DEPLOYMENT),
    (
        "deployment-worker.yaml",
        r#"apiVersion: apps/v1
kind: Deployment
metadata: {name: worker}
spec:
  replicas: 0
  selector: {matchLabels: {app: worker}}
  template:
    metadata: {labels: {app: worker}}
    spec:
      containers:
        - name: worker
          image: claims:app-latest
          args: [sleep, "1000"]
          envFrom: [{configMapRef: {name: app-config}}]
"#,
    ),
    (
        "service.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  selector: {app: web}\n  ports: [{name: http, port: 80, targetPort: http}]\n",
    ),
    (
        "ingress.yaml",
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: web}\nspec:\n  rules:\n    - host: claims.example.com\n      http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {name: http}}}}]}\n",
    ),
    (
        "archive_stale.yaml",
        "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: archive-stale}\nspec:\n  schedule: \"0 3 * * *\"\n  jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: job, image: claims, args: [\"true\"]}]}}}}\n",
    ),
    (
        "vacuum_db.yaml",
        "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: vacuum-db}\nspec:\n  schedule: \"0 4 * * *\"\n  jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: job, image: claims, args: [\"true\"]}]}}}}\n",
    ),
];

const DEPLOYMENT: &str = r#"apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 0
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - name: web
          image: claims:app-latest
          args: [sleep, "1000"]
          ports: [{name: http, containerPort: 8080}]
          envFrom: [{configMapRef: {name: app-config}}]
"#;

/// The manifests of the large application: ConfigMaps, and Deployments whose pods run on simulated nodes.
fn large_files(value: &str) -> Vec<(String, String)> {
    let config = |index: usize| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: config-{index}}}\ndata: {{VALUE: \"{value} {index}\", OTHER: some text}}\n"
        )
    };
    let deployment = |index: usize| {
        format!(
            r#"apiVersion: apps/v1
kind: Deployment
metadata: {{name: app-{index}}}
spec:
  replicas: 1
  selector: {{matchLabels: {{app: app-{index}}}}}
  template:
    metadata: {{labels: {{app: app-{index}}}}}
    spec:
      nodeSelector: {{type: kwok}}
      tolerations: [{{key: kwok.x-k8s.io/node, operator: Exists}}]
      containers:
        - name: app
          image: claims:app-latest
          args: [sleep, "1000"]
          env: [{{name: VALUE, value: "{value}"}}]
          envFrom: [{{configMapRef: {{name: config-{index}}}}}]
"#
        )
    };
    let configs = (0..CONFIG_MAPS).map(|index| (format!("config-{index}.yaml"), config(index)));
    let deployments = (0..DEPLOYMENTS).map(|index| (format!("app-{index}.yaml"), deployment(index)));
    configs.chain(deployments).collect()
}
