//! The command line against a real cluster and a foreign registry, with no Towpath running.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use serde_json::Value;
use std::{
    process::{Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use towpath_testkit::{Cluster, FaultProxy, Namespace, Probe, Registry, Verdict, skipped, until};

const MANIFESTS: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: app-config}
data: {GREETING: hello}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: REPLICAS
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
        - name: web
          image: registry.example.com/claims:app-latest
          args: [httpd, -f, -p, "8080", -h, /]
          env: [{name: VERSION, value: one}]
          envFrom: [{configMapRef: {name: app-config}}]
          ports: [{name: http, containerPort: 8080}]
          readinessProbe: {tcpSocket: {port: http}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http}]
"#;

const CRON_JOB: &str = r#"
apiVersion: batch/v1
kind: CronJob
metadata: {name: vacuum-db}
spec:
  schedule: "0 3 * * *"
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: Never
          containers: [{name: vacuum, image: "claims", args: [echo, vacuumed]}]
"#;

const JOB: &str = r#"
apiVersion: batch/v1
kind: Job
metadata: {name: migrate}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers: [{name: migrate, image: "claims", args: [sh, -c, "echo migrated $VERSION; exit 3"], env: [{name: VERSION, value: two}]}]
"#;

struct Laptop {
    repository: tempfile::TempDir,
    server: String,
    authority: String,
    token: String,
    user: &'static str,
}

impl Laptop {
    fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_towpath"));
        command
            .args(arguments)
            .current_dir(self.repository.path())
            .env("TOWPATH_DATA_DIR", self.repository.path().join("no-towpath-here"))
            .env("TOWPATH_KUBE_SERVER", &self.server)
            .env("TOWPATH_KUBE_CA", &self.authority)
            .env("TOWPATH_KUBE_TOKEN", &self.token)
            .env("USER", self.user)
            .stdin(Stdio::null());
        command
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments);
        tokio::task::spawn_blocking(move || command.output())
            .await
            .unwrap()
            .unwrap()
    }

    /// Runs the command, which has to exit with `code`. Returns its output.
    async fn says(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        let all = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(
            output.status.code(),
            Some(code),
            "towpath {}: {all}",
            arguments.join(" ")
        );
        assert!(
            !all.contains(&self.token),
            "towpath {} shows the token",
            arguments.join(" ")
        );
        all
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.repository.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

fn busybox() -> Option<Vec<u8>> {
    std::fs::read("/bin/busybox").ok()
}

struct Parts {
    registry: Registry,
    cluster: Cluster,
}

async fn parts(test: &str) -> Option<Parts> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cluster = match Cluster::get().await {
        Ok(cluster) => cluster,
        Err(absent) => {
            skipped(test, &absent);
            return None;
        }
    };
    let registry = match Registry::start().await.unwrap() {
        Ok(registry) => registry,
        Err(absent) => {
            skipped(test, &absent);
            return None;
        }
    };
    let Some(program) = busybox() else {
        skipped(
            test,
            &towpath_testkit::Absent("busybox is not installed: run scripts/ensure-test-parts".into()),
        );
        return None;
    };
    registry
        .push(
            "claims",
            &["app-latest", "app-0123456789abcdef0123456789abcdef01234567"],
            "busybox",
            &program,
        )
        .unwrap();
    Some(Parts { registry, cluster })
}

fn laptop(
    parts: &Parts,
    namespaces: &[(&str, &Namespace)],
    server: &str,
    authority: &str,
    token: String,
    replicas: &str,
) -> Laptop {
    let laptop = Laptop {
        repository: tempfile::tempdir().unwrap(),
        server: server.into(),
        authority: authority.into(),
        token,
        user: "ann",
    };
    laptop.write(
        "towpath.toml",
        &format!(
            "project = \"claims\"\nimage = \"{}/claims\"\n",
            parts.registry.address()
        ),
    );
    for (environment, namespace) in namespaces {
        let text = MANIFESTS.replace("REPLICAS", replicas).replace(
            "{name: app-config}\ndata",
            &format!("{{name: app-config, namespace: {}}}\ndata", namespace.name()),
        );
        laptop.write(&format!(".k8s/live/{environment}/all.yaml"), &text);
    }
    laptop.write(".k8s/live/cron_jobs/vacuum_db.yaml", CRON_JOB);
    laptop.write(".k8s/live/jobs/migrate.yaml", JOB);
    laptop
}

#[tokio::test]
async fn two_laptops_without_a_server_deploy_to_one_cluster_and_agree() {
    let Some(parts) = parts("two_laptops").await else {
        return;
    };
    let dev = parts.cluster.namespace("laptop-dev").await.unwrap();
    let staging = parts.cluster.namespace("laptop-staging").await.unwrap();
    let authority = parts.cluster.certificate_authority().unwrap();
    let server = parts.cluster.server();
    // One account for both namespaces, because CI jobs do not have the cluster administrator's kubeconfig.
    let owner = dev.owner().await.unwrap();
    let binding = format!(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {{name: dev}}\nroleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: admin}}\nsubjects: [{{kind: Group, apiGroup: rbac.authorization.k8s.io, name: 'system:serviceaccounts:{}'}}]\n",
        dev.name()
    );
    staging.kubectl_apply(&binding).await.unwrap();
    let both = [("dev", &dev), ("staging", &staging)];
    let ann = laptop(&parts, &both, &server, &authority, owner.token.clone(), "2");
    let bob = Laptop {
        user: "bob",
        ..laptop(&parts, &both, &server, &authority, owner.token.clone(), "2")
    };

    let said = ann.says(2, &["diff", "dev"]).await;
    assert!(
        said.contains("created Deployment web") && said.contains("first release"),
        "{said}"
    );
    let said = ann.says(0, &["deploy", "dev", "latest"]).await;
    assert!(
        said.contains("Deployment/web: rolled out") && said.contains("release 1 of dev"),
        "{said}"
    );
    ann.says(0, &["diff", "dev"]).await;

    // Another laptop knows what runs, from the cluster alone.
    let history: Value = serde_json::from_slice(&bob.run(&["history", "dev", "--json"]).await.stdout).unwrap();
    assert_eq!(
        (history[0]["number"].as_i64(), history[0]["by"].as_str()),
        (Some(1), Some("ann")),
        "{history}"
    );
    bob.write(
        ".k8s/live/dev/all.yaml",
        &std::fs::read_to_string(bob.repository.path().join(".k8s/live/dev/all.yaml"))
            .unwrap()
            .replace("hello", "good day"),
    );
    let output = bob.run(&["diff", "dev", "--json"]).await;
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    let changed: Vec<&str> = plan["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| change["kind"].as_str().unwrap())
        .collect();
    assert_eq!(
        (output.status.code(), changed),
        (Some(2), vec!["ConfigMap", "Deployment"]),
        "{plan}"
    );
    let markdown = bob.says(2, &["diff", "dev", "--markdown"]).await;
    assert!(
        markdown.contains("```diff\n") && markdown.contains("+  GREETING: good day"),
        "{markdown}"
    );

    // A person's lock.
    ann.says(0, &["lock", "dev", "--reason", "looking at something", "--for", "10m"])
        .await;
    let said = bob.says(1, &["deploy", "dev"]).await;
    assert!(
        said.contains("dev is locked by ann until") && said.contains("looking at something"),
        "{said}"
    );
    assert!(bob.says(1, &["unlock", "dev"]).await.contains("towpath unlock dev"));
    assert!(bob.says(0, &["status", "dev"]).await.contains("locked by ann"));
    ann.says(0, &["unlock", "dev"]).await;
    let said = bob
        .says(0, &["deploy", "dev", "0123456789abcdef0123456789abcdef01234567"])
        .await;
    assert!(said.contains("release 2 of dev"), "{said}");

    // Promote the same digest to another environment.
    let said = ann.says(0, &["promote", "dev", "staging"]).await;
    assert!(said.contains("release 1 of staging"), "{said}");
    let history: Value = serde_json::from_slice(&ann.run(&["history", "staging", "--json"]).await.stdout).unwrap();
    assert_eq!(history[0]["cause"], "towpath promote dev staging");

    // Roll back, with and without a number.
    let said = ann.says(0, &["rollback", "dev"]).await;
    assert!(said.contains("release 3 of dev"), "{said}");
    assert_eq!(
        dev.get("configmap", "app-config").await.unwrap()["data"]["GREETING"],
        "hello"
    );

    // Jobs and cron jobs.
    let said = ann.says(3, &["job", "migrate", "dev"]).await;
    assert!(said.contains("migrated two"), "{said}");
    let said = ann.says(0, &["cronjob", "vacuum_db", "dev"]).await;
    assert!(said.contains("applied CronJob vacuum-db"), "{said}");
    let said = ann.says(0, &["cronjob", "run", "vacuum_db", "dev"]).await;
    assert!(said.contains("vacuumed"), "{said}");
    let said = ann.says(0, &["cronjob", "list", "dev"]).await;
    assert!(
        said.contains("vacuum-db at `0 3 * * *`") && said.contains("@sha256:") && !said.contains("last success never"),
        "{said}"
    );

    // Drift, and who caused it.
    assert!(
        ann.says(0, &["drift", "dev"])
            .await
            .contains("dev is as its release has it")
    );
    dev.kubectl(&["scale", "deployment", "web", "--replicas=1"])
        .await
        .unwrap();
    let said = ann.says(2, &["drift"]).await;
    assert!(
        said.contains("Deployment web") && said.contains("+  replicas: 1") && said.contains("staging is as"),
        "{said}"
    );

    // Requests for things that do not exist.
    assert!(
        ann.says(1, &["deploy", "nosuch"])
            .await
            .contains("there is no environment `nosuch`: there are dev, staging")
    );
    let said = ann.says(1, &["deploy", "dev", "no-such-tag"]).await;
    assert!(said.contains("no image") && said.contains("no-such-tag"), "{said}");
    ann.write("towpath.toml", &format!(
        "project = \"claims\"\nimage = \"{}/claims\"\n[[freeze]]\nenvironments = [\"dev\"]\nreason = \"holidays\"\nstarts = \"* * * * *\"\nlasts = \"1h\"\n",
        parts.registry.address()
    ));
    let said = ann.says(1, &["deploy", "dev"]).await;
    assert!(
        said.contains("dev is frozen until") && said.contains("holidays") && said.contains("--despite-freeze"),
        "{said}"
    );
    ann.says(0, &["deploy", "dev", "--despite-freeze", "it burns"]).await;
    assert!(
        ann.says(0, &["history", "dev"])
            .await
            .contains("despite a freeze: it burns")
    );

    // A failed rollout rolls back, or stops if told to.
    let broken = std::fs::read_to_string(ann.repository.path().join(".k8s/live/dev/all.yaml"))
        .unwrap()
        .replace("[httpd, -f,", "[nonsense, -f,");
    ann.write(".k8s/live/dev/all.yaml", &broken);
    let said = ann.says(1, &["deploy", "dev", "--despite-freeze", "x"]).await;
    assert!(
        said.contains("applet not found") && said.contains("runs again"),
        "{said}"
    );
    let said = ann
        .says(1, &["deploy", "dev", "--despite-freeze", "x", "--on-failure", "stop"])
        .await;
    assert!(said.contains("It was left like this"), "{said}");
    assert!(bob.says(0, &["status", "dev"]).await.contains("between release"));
    bob.says(0, &["rollback", "dev", "4"]).await;
    assert!(!bob.says(0, &["status", "dev"]).await.contains("between release"));
}

#[tokio::test]
async fn a_cluster_that_is_tried_again_and_again_is_said() {
    let Some(parts) = parts("patient").await else { return };
    let dev = parts.cluster.namespace("patient").await.unwrap();
    let authority = parts.cluster.certificate_authority().unwrap();
    let proxy = FaultProxy::start(&parts.cluster.server(), &authority).await.unwrap();
    let owner = dev.owner().await.unwrap();
    let laptop = laptop(&parts, &[("dev", &dev)], proxy.address(), "", owner.token, "0");
    let broken = serde_json::json!({"kind": "Status", "code": 500, "reason": "InternalError",
        "message": "failed calling webhook \"checks.example.com\": connection refused"});
    // The cluster fails for 8 seconds from the first request on, too long for the client to retry without a message.
    let began = std::sync::OnceLock::new();
    proxy.script(move |asked| {
        let is_broken = asked.path.contains("dryRun=All")
            && began.get_or_init(std::time::Instant::now).elapsed() < Duration::from_secs(8);
        match is_broken {
            true => Verdict::Answer(500, broken.to_string()),
            false => Verdict::Pass,
        }
    });
    let said = laptop.says(2, &["diff", "dev"]).await;
    let lines: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("retrying the cluster of the kube context"))
        .collect();
    assert_eq!(lines.len(), 1, "{said}");
    assert!(lines[0].contains("failed calling webhook"), "{said}");
}

/// Holds a process at its `call`th request, and kills it there.
async fn killed_at(laptop: &Laptop, proxy: &FaultProxy, call: usize) -> bool {
    let reached = Arc::new(AtomicBool::new(false));
    let seen = reached.clone();
    proxy.script(move |asked| {
        if asked.number < call {
            return Verdict::Pass;
        }
        seen.store(true, Ordering::SeqCst);
        Verdict::Delay(Duration::from_secs(600))
    });
    let mut child = laptop
        .command(&["deploy", "dev"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let was_reached = until(
        "the process to get there or to end",
        Duration::from_secs(60),
        async || {
            if reached.load(Ordering::SeqCst) {
                return Ok(Probe::Found(true));
            }
            Ok(match child.try_wait()? {
                Some(_) => Probe::Found(false),
                None => Probe::NotYet("under way".into()),
            })
        },
    )
    .await
    .unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    was_reached
}

#[tokio::test]
async fn a_deployment_killed_at_any_call_is_finished_by_the_next() {
    let Some(parts) = parts("killed").await else { return };
    let dev = parts.cluster.namespace("killed").await.unwrap();
    let authority = parts.cluster.certificate_authority().unwrap();
    let proxy = FaultProxy::start(&parts.cluster.server(), &authority).await.unwrap();
    let owner = dev.owner().await.unwrap();
    let laptop = laptop(&parts, &[("dev", &dev)], proxy.address(), "", owner.token, "0");
    let manifest = std::fs::read_to_string(laptop.repository.path().join(".k8s/live/dev/all.yaml")).unwrap();
    let mut call = 0;
    loop {
        laptop.write(
            ".k8s/live/dev/all.yaml",
            &manifest.replace("value: one", &format!("value: at-{call}")),
        );
        let was_killed = killed_at(&laptop, &proxy, call).await;
        proxy.script(|_| Verdict::Pass);
        if !was_killed {
            break;
        }
        let began = std::time::Instant::now();
        laptop.says(0, &["deploy", "dev"]).await;
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "a dead process was waited for, after call {call}"
        );
        let value = dev.get("deployment", "web").await.unwrap();
        let value = value.pointer("/spec/template/spec/containers/0/env/0/value").cloned();
        assert_eq!(value, Some(Value::from(format!("at-{call}"))), "after call {call}");
        laptop.says(0, &["diff", "dev"]).await;
        call += 1;
    }
    println!("killed at each of {call} calls; each second run came to the same end");
    assert!(call > 20, "{call}");
}

/// What a chart and an overlay outside of `.k8s/` need: the files, and what `init` says about them.
fn elsewhere(kind: &str) -> (Vec<(&'static str, String)>, &'static str, &'static str) {
    let web = MANIFESTS.replace("REPLICAS", "1");
    match kind {
        "helm" => (
            vec![
                (
                    "helm_deploy/shop/Chart.yaml",
                    "apiVersion: v2\nname: shop\nversion: 0.1.0\n".into(),
                ),
                ("helm_deploy/shop/values.yaml", "greeting: hello\n".into()),
                (
                    "helm_deploy/shop/templates/web.yaml",
                    web.replace("GREETING: hello", "GREETING: {{ .Values.greeting | quote }}"),
                ),
                ("helm_deploy/values-dev.yaml", "greeting: dev\n".into()),
                ("helm_deploy/values-production.yaml", "greeting: production\n".into()),
            ],
            "helm_deploy/shop: environments dev, production",
            "helm helm_deploy/shop with helm_deploy/values-dev.yaml",
        ),
        _ => (
            vec![
                ("deploy/bases/kustomization.yaml", "resources: [web.yaml]\n".into()),
                ("deploy/bases/web.yaml", web),
                (
                    "deploy/overlays/dev/kustomization.yaml",
                    "resources: [../../bases]\nreplicas: [{name: web, count: 1}]\n".into(),
                ),
                (
                    "deploy/overlays/production/kustomization.yaml",
                    "resources: [../../bases]\n".into(),
                ),
            ],
            "deploy/overlays: environments dev, production",
            "kustomize deploy/overlays/dev",
        ),
    }
}

#[tokio::test]
async fn charts_and_overlays_elsewhere_are_found_planned_and_deployed() {
    let Some(parts) = parts("charts_and_overlays_elsewhere_are_found_planned_and_deployed").await else {
        return;
    };
    let authority = parts.cluster.certificate_authority().unwrap();
    let server = parts.cluster.server();
    for kind in ["helm", "kustomize"] {
        let dev = parts.cluster.namespace(&format!("elsewhere-{kind}")).await.unwrap();
        let owner = dev.owner().await.unwrap();
        let ann = Laptop {
            repository: tempfile::tempdir().unwrap(),
            server: server.clone(),
            authority: authority.clone(),
            token: owner.token.clone(),
            user: "ann",
        };
        let (files, found, source) = elsewhere(kind);
        for (path, text) in &files {
            ann.write(path, text);
        }
        let git = std::process::Command::new("git")
            .args(["init", "-q"])
            .current_dir(ann.repository.path())
            .status();
        assert!(git.unwrap().success());
        let programs = parts.cluster.programs().to_path_buf();
        let says = async |code: i32, arguments: &[&str]| {
            let mut command = ann.command(arguments);
            let path = std::env::var("PATH").unwrap();
            command.env("PATH", format!("{}:{path}", programs.display()));
            let output = tokio::task::spawn_blocking(move || command.output())
                .await
                .unwrap()
                .unwrap();
            let all = [output.stdout, output.stderr].concat();
            let all = String::from_utf8_lossy(&all).into_owned();
            assert_eq!(output.status.code(), Some(code), "{arguments:?}: {all}");
            all
        };
        // No Towpath is up, so there is nothing to connect to. Everything before that is done.
        let said = says(3, &["init", "--project", "claims"]).await;
        assert!(said.contains(found) && said.contains(source), "{said}");
        let written = std::fs::read_to_string(ann.repository.path().join("towpath.toml")).unwrap();
        let image = format!("image = \"{}/claims\"", parts.registry.address());
        let lines = written.lines().map(|line| match line.starts_with("image = ") {
            true => image.as_str(),
            false => line,
        });
        let mut written = lines.collect::<Vec<_>>().join("\n");
        written.push_str(&format!("\n[environments.dev]\nnamespace = \"{}\"\n", dev.name()));
        ann.write("towpath.toml", &written);

        let said = says(0, &["env", "list"]).await;
        let namespace = format!("{}  (towpath.toml:", dev.name());
        assert!(said.contains(source) && said.contains(&namespace), "{said}");
        let said = says(2, &["diff", "dev"]).await;
        assert!(said.contains("created Deployment web"), "{said}");
        let said = says(0, &["deploy", "dev", "latest"]).await;
        assert!(said.contains("release 1 of dev"), "{said}");
        says(0, &["diff", "dev"]).await;
    }
}
