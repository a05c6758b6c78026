//! The contract of a target, kept by the local one on a real container engine.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use bollard::{Docker, query_parameters::ListContainersOptions};
use futures::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    future::Future,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::mpsc;
use towpath_deploy::{
    ApplyError, ApplyRequest, Clock, EnvironmentId, JobEnd, JobLine, LocalOptions, LocalTarget, RegistryCredentials,
    SecretSource, SourceError, Target, WorkloadStatus,
};
use towpath_images::{
    ScratchImage, load_scratch_image,
    scratch::{FileContent, ScratchFile},
};
use towpath_manifest::{Object, ObjectId};
use towpath_testkit::{Probe, Traffic, engine_answers, remove_instance, skipped, until};
use towpath_types::{Outcome, ReleaseId, SecretString};

const BOUND: Duration = Duration::from_secs(60);
const SECRET_VALUE: &str = "correct-horse-battery";
const APP: &str = env!("CARGO_BIN_EXE_towpath-deploy-testapp");

/// One Secret, `app-secrets`, with one key.
struct Secrets;

impl SecretSource for Secrets {
    fn keys<'a>(
        &'a self,
        _: &'a EnvironmentId,
        secret: &'a str,
    ) -> BoxFuture<'a, Result<Option<BTreeSet<String>>, SourceError>> {
        let found = (secret == "app-secrets").then(|| BTreeSet::from(["SESSION_KEY".to_string()]));
        async move { Ok(found) }.boxed()
    }

    fn values<'a>(
        &'a self,
        _: &'a EnvironmentId,
        secret: &'a str,
    ) -> BoxFuture<'a, Result<Option<BTreeMap<String, SecretString>>, SourceError>> {
        let found = (secret == "app-secrets")
            .then(|| BTreeMap::from([("SESSION_KEY".to_string(), SecretString::new(SECRET_VALUE.into()))]));
        async move { Ok(found) }.boxed()
    }

    fn pull_credentials<'a>(
        &'a self,
        _: &'a EnvironmentId,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Option<RegistryCredentials>, SourceError>> {
        async { Ok(None) }.boxed()
    }
}

/// A clock that stands until it is moved.
#[derive(Clone)]
struct Hand(Arc<Mutex<Timestamp>>);

impl Hand {
    fn at(text: &str) -> Self {
        Self(Arc::new(Mutex::new(text.parse().unwrap())))
    }

    fn move_to(&self, text: &str) {
        *self.0.lock().unwrap() = text.parse().unwrap();
    }
}

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

struct World {
    docker: Docker,
    instance: String,
    folder: tempfile::TempDir,
    image: String,
    clock: Hand,
    id: EnvironmentId,
    target: Option<LocalTarget>,
}

impl World {
    async fn new() -> Self {
        let docker = Docker::connect_with_defaults().unwrap();
        let image = ScratchImage {
            repository: "towpath-test/app".into(),
            files: vec![ScratchFile {
                path: "bin/app".into(),
                mode: 0o755,
                content: FileContent::Copy(PathBuf::from(APP)),
            }],
            folders: vec![("tmp".into(), 0o1777)],
            entrypoint: vec!["/bin/app".into()],
            ..ScratchImage::default()
        };
        let image = load_scratch_image(&docker, image).await.unwrap().to_string();
        let mut world = Self {
            docker,
            instance: uuid::Uuid::new_v4().simple().to_string()[..12].to_string(),
            folder: tempfile::tempdir().unwrap(),
            image,
            clock: Hand::at("2026-01-01T00:00:30Z"),
            id: EnvironmentId::new("app", "dev").unwrap(),
            target: None,
        };
        world.open().await;
        world
    }

    /// Opens the target, as the server does when it starts.
    async fn open(&mut self) {
        self.target = None;
        let options = LocalOptions {
            directory: self.folder.path().join("local"),
            instance: self.instance.clone(),
            binary: APP.into(),
            secrets: Arc::new(Secrets),
            clock: Arc::new(self.clock.clone()),
        };
        self.target = Some(LocalTarget::open(options).await.unwrap());
    }

    fn target(&self) -> &LocalTarget {
        self.target.as_ref().unwrap()
    }

    async fn apply(&self, objects: Vec<Object>) -> Result<(), ApplyError> {
        self.apply_and_prune(objects, Vec::new()).await
    }

    async fn apply_and_prune(&self, objects: Vec<Object>, prune: Vec<ObjectId>) -> Result<(), ApplyError> {
        let (progress, _lines) = mpsc::unbounded_channel();
        let request = ApplyRequest {
            environment: self.id.clone(),
            namespace: "app-dev".into(),
            release: ReleaseId::from_u128(uuid::Uuid::new_v4().as_u128()),
            objects,
            prune,
            deadline: BOUND,
        };
        self.target().apply(request, progress).await
    }

    /// The names of containers whose names contain `part`, with their ids; those that have ended too.
    async fn containers(&self, part: &str) -> BTreeMap<String, String> {
        let filters = HashMap::from([(
            "label".to_string(),
            vec![format!("dev.towpath.instance={}", self.instance)],
        )]);
        let options = ListContainersOptions {
            all: true,
            filters: Some(filters),
            ..ListContainersOptions::default()
        };
        let all = self.docker.list_containers(Some(options)).await.unwrap();
        all.into_iter()
            .map(|container| (container.names.unwrap().concat(), container.id.unwrap()))
            .filter(|(name, _)| name.contains(part))
            .collect()
    }

    async fn status(&self, kind: &str, name: &str) -> WorkloadStatus {
        let all = self.target().status(&self.id).await.unwrap();
        all.into_iter()
            .find(|status| (status.kind.as_str(), status.name.as_str()) == (kind, name))
            .unwrap()
    }

    async fn address(&self) -> String {
        self.status("Ingress", "web").await.addresses[0].clone()
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let answer = reqwest::get(format!("{}{path}", self.address().await)).await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    fn deployment(&self, name: &str, replicas: u32, environment: &[(&str, &str)]) -> Value {
        let environment: Vec<Value> = environment
            .iter()
            .map(|(name, value)| json!({"name": name, "value": value}))
            .collect();
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": name}},
                "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
                "progressDeadlineSeconds": 4,
                "template": {
                    "metadata": {"labels": {"app": name}},
                    "spec": {"terminationGracePeriodSeconds": 5, "containers": [{
                        "name": "app", "image": self.image, "env": environment,
                        "ports": [{"name": "http", "containerPort": 8080}],
                        "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 1},
                    }]},
                },
            },
        })
    }

    /// A Deployment of `web`, its Service, and the Ingress that leads there.
    fn web(&self, replicas: u32, environment: &[(&str, &str)]) -> Vec<Object> {
        vec![
            object(self.deployment("web", replicas, environment)),
            object(service("web")),
            object(json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "web"},
                "spec": {"rules": [{"host": "app.example.org", "http": {"paths": [
                    {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "web", "port": {"name": "http"}}}},
                ]}}]},
            })),
        ]
    }

    fn job(&self, name: &str, arguments: &[&str], more: Value) -> Object {
        let mut spec = json!({
            "backoffLimit": 0,
            "template": {"spec": {"restartPolicy": "Never", "containers": [
                {"name": "job", "image": self.image, "args": arguments, "env": [{"name": "EXIT_AFTER_MS", "value": "0"}]},
            ]}},
        });
        for (key, value) in more.as_object().unwrap() {
            match key.as_str() {
                "exit_after_ms" => spec["template"]["spec"]["containers"][0]["env"][0]["value"] = value.clone(),
                key => spec[key] = value.clone(),
            }
        }
        object(json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec}))
    }

    async fn run(&self, job: Object) -> (JobEnd, String) {
        let mut handle = self.target().run_job(&self.id, "app-dev", job).await.unwrap();
        let mut output = Vec::new();
        while let Some(line) = handle.output.recv().await {
            if let JobLine::Output(bytes) = line {
                output.extend_from_slice(&bytes);
            }
        }
        (handle.end.await.unwrap(), String::from_utf8(output).unwrap())
    }
}

fn object(value: Value) -> Object {
    Object::from_value(value, "objects.yaml").unwrap()
}

fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
    })
}

/// Runs `test` in a world of its own, and removes what it left in the engine, also when it fails.
async fn in_world<F: Future<Output = ()>>(name: &str, test: impl FnOnce(Arc<tokio::sync::RwLock<World>>) -> F) {
    if let Err(absent) = engine_answers().await {
        return skipped(name, &absent);
    }
    let world = Arc::new(tokio::sync::RwLock::new(World::new().await));
    let result = AssertUnwindSafe(test(world.clone())).catch_unwind().await;
    let mut world = world.try_write().expect("the test is over");
    world.target = None;
    remove_instance(&world.instance).await.unwrap();
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_is_adopted_and_nothing_is_started_twice() {
    in_world(
        "what_runs_is_adopted_and_nothing_is_started_twice",
        |world| async move {
            let mut world = world.write().await;
            world.apply(world.web(2, &[("VERSION", "one")])).await.unwrap();
            assert_eq!(world.get("/").await, (200, "one".into()));
            let first = world.containers("-pod-").await;
            assert_eq!(first.len(), 2, "{first:?}");
            let proxies = world.containers("-proxy-").await;

            world.apply(world.web(2, &[("VERSION", "one")])).await.unwrap();
            assert_eq!(
                world.containers("-pod-").await,
                first,
                "the same objects change nothing"
            );

            // The server dies: requests go on, and the next one finds what runs.
            let address = world.address().await;
            world.target = None;
            assert_eq!(reqwest::get(&address).await.unwrap().text().await.unwrap(), "one");
            world.open().await;
            world.apply(world.web(2, &[("VERSION", "one")])).await.unwrap();
            assert_eq!(world.containers("-pod-").await, first);
            assert_eq!(world.containers("-proxy-").await, proxies);
            assert_eq!(world.address().await, address);
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_keeps_its_bounds_and_loses_no_request() {
    in_world("a_rollout_keeps_its_bounds_and_loses_no_request", |world| async move {
        let world = world.read().await;
        world.apply(world.web(3, &[("VERSION", "one")])).await.unwrap();
        let address = world.address().await;
        let quick = Traffic::start(&address, Duration::from_millis(5), str::to_string).unwrap();
        // Longer than a pod takes to be replaced: what is in flight has to be waited for.
        let slow = Traffic::start(
            &format!("{address}/slow?700"),
            Duration::from_millis(100),
            str::to_string,
        )
        .unwrap();
        let rollout = world.apply(world.web(3, &[("VERSION", "two")]));
        tokio::pin!(rollout);
        let mut looks = 0;
        loop {
            tokio::select! {
                result = &mut rollout => break result.unwrap(),
                status = world.status("Deployment", "web") => {
                    looks += 1;
                    // Pods that leave are not counted, here as on a cluster.
                    assert!((3..=4).contains(&status.ready), "{status:?}");
                }
            }
        }
        assert!(looks > 3, "the rollout was looked at {looks} times");
        for (what, traffic) in [("quick", quick), ("slow", slow)] {
            let report = traffic.stop().await;
            assert!(report.failures.is_empty(), "{what}: {}", report.summary());
            assert!(
                report.answers.contains_key("one") && report.answers.contains_key("two"),
                "{what}: {report:?}"
            );
        }
        assert_eq!(world.get("/").await.1, "two");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_never_passes_stops_the_rollout_and_the_old_version_serves() {
    let name = "a_probe_that_never_passes_stops_the_rollout_and_the_old_version_serves";
    in_world(name, |world| async move {
        let world = world.read().await;
        world.apply(world.web(1, &[("VERSION", "one")])).await.unwrap();
        let broken = [
            ("VERSION", "two"),
            ("NOT_READY", "1"),
            ("SAY", "cannot reach the database"),
        ];
        let error = world.apply(world.web(1, &broken)).await.unwrap_err();
        assert!(
            matches!(error.outcome, Outcome::Failed | Outcome::TimedOut),
            "{error:?}"
        );
        assert!(
            error.to_string().contains("Deployment") && error.to_string().contains("web"),
            "{error}"
        );
        assert!(
            error.log.iter().any(|line| line.contains("cannot reach the database")),
            "{error:?}"
        );
        assert_eq!(world.get("/").await, (200, "one".into()));
        // The next release goes on from there.
        world.apply(world.web(1, &[("VERSION", "three")])).await.unwrap();
        assert_eq!(world.get("/").await.1, "three");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_resolve_claims_stay_and_what_left_is_pruned() {
    in_world(
        "names_resolve_claims_stay_and_what_left_is_pruned",
        |world| async move {
            let world = world.read().await;
            let with_volume = |version: &str| {
                let mut web = world.deployment("web", 1, &[("VERSION", version)]);
                let spec = &mut web["spec"]["template"]["spec"];
                spec["volumes"] = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]);
                spec["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
                let mut objects = world.web(1, &[]);
                objects[0] = object(web);
                objects.push(object(json!({
                    "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
                    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
                })));
                objects
            };
            let mut objects = with_volume("one");
            objects.push(object(world.deployment("api", 1, &[("VERSION", "the api")])));
            objects.push(object(service("api")));
            world.apply(objects).await.unwrap();
            for name in [
                "api:80",
                "api.app-dev:80",
                "api.app-dev.svc:80",
                "api.app-dev.svc.cluster.local:80",
            ] {
                assert_eq!(
                    world.get(&format!("/get?{name}")).await,
                    (200, "the api".into()),
                    "{name}"
                );
            }
            assert_eq!(world.get("/write?/data/note=kept").await.1, "written");

            let prune = [("apps/v1", "Deployment"), ("v1", "Service")].map(|(version, kind)| {
                object(json!({"apiVersion": version, "kind": kind, "metadata": {"name": "api"}})).id()
            });
            world.apply_and_prune(with_volume("two"), prune.into()).await.unwrap();
            assert_eq!(world.get("/").await.1, "two");
            assert_eq!(world.get("/file?/data/note").await, (200, "kept".into()));
            until("what was pruned to be gone", BOUND, async || {
                let left = world.containers("api").await;
                Ok(if left.is_empty() {
                    Probe::Found(())
                } else {
                    Probe::NotYet(format!("{left:?}"))
                })
            })
            .await
            .unwrap();
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_reaches_the_container_and_no_file() {
    in_world("a_secret_reaches_the_container_and_no_file", |world| async move {
        let world = world.read().await;
        let mut web = world.deployment("web", 1, &[]);
        web["spec"]["template"]["spec"]["containers"][0]["envFrom"] = json!([{"secretRef": {"name": "app-secrets"}}]);
        let mut objects = world.web(1, &[]);
        objects[0] = object(web.clone());
        world.apply(objects.clone()).await.unwrap();
        assert_eq!(world.get("/env?SESSION_KEY").await.1, SECRET_VALUE);
        let mut pending = vec![world.folder.path().to_path_buf()];
        let mut read = 0;
        while let Some(path) = pending.pop() {
            if path.is_dir() {
                pending.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            } else {
                read += 1;
                let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
                assert!(!text.contains(SECRET_VALUE), "{}", path.display());
            }
        }
        assert!(read > 0);

        web["spec"]["template"]["spec"]["containers"][0]["envFrom"] =
            json!([{"secretRef": {"name": "nobody-made-it"}}]);
        objects[0] = object(web);
        let error = world.apply(objects).await.unwrap_err();
        assert_eq!(error.outcome, Outcome::Rejected);
        assert!(
            error.to_string().contains("towpath secrets set dev nobody-made-it"),
            "{error}"
        );
        assert_eq!(world.get("/env?SESSION_KEY").await.1, SECRET_VALUE, "nothing changed");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_by_tcp_and_by_command_work_and_an_unhealthy_container_is_started_again() {
    let name = "probes_by_tcp_and_by_command_work_and_an_unhealthy_container_is_started_again";
    in_world(name, |world| async move {
        let world = world.read().await;
        let mut web = world.deployment("web", 1, &[("START_MS", "300")]);
        let container = &mut web["spec"]["template"]["spec"]["containers"][0];
        container["readinessProbe"] = json!({"tcpSocket": {"port": 8080}, "periodSeconds": 1});
        container["livenessProbe"] = json!({"exec": {"command": ["/bin/app", "exit", "0"]}, "periodSeconds": 1});
        world.apply(vec![object(web.clone())]).await.unwrap();
        assert_eq!(world.status("Deployment", "web").await.restarts, 0);

        let container = &mut web["spec"]["template"]["spec"]["containers"][0];
        container["livenessProbe"] = json!({
            "exec": {"command": ["/bin/app", "exit", "1"]}, "periodSeconds": 1, "failureThreshold": 2, "initialDelaySeconds": 3,
        });
        world.apply(vec![object(web)]).await.unwrap();
        until("a restart", BOUND, async || {
            let status = world.status("Deployment", "web").await;
            Ok(if status.restarts > 0 { Probe::Found(()) } else { Probe::NotYet(format!("{status:?}")) })
        })
        .await
        .unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_end_as_they_should() {
    in_world("jobs_end_as_they_should", |world| async move {
        let world = world.read().await;
        let (end, output) = world
            .run(world.job("good", &["exit", "0", "all migrated"], json!({})))
            .await;
        assert_eq!(
            (end.outcome, end.exit_code, output.as_str()),
            (Outcome::Succeeded, Some(0), "all migrated\n")
        );
        // The name is the run's identity: the same again follows, and starts nothing.
        let (end, output) = world.run(world.job("good", &["exit", "9", "again"], json!({}))).await;
        assert_eq!((end.outcome, output.as_str()), (Outcome::Succeeded, "all migrated\n"));

        let (end, output) = world
            .run(world.job("bad", &["exit", "7", "no such table"], json!({})))
            .await;
        assert_eq!((end.outcome, end.exit_code), (Outcome::Failed, Some(7)), "{end:?}");
        assert_eq!(output, "no such table\n");

        let slow = json!({"activeDeadlineSeconds": 1, "exit_after_ms": "60000"});
        let (end, _) = world.run(world.job("slow", &["exit", "0"], slow)).await;
        assert_eq!(end.outcome, Outcome::TimedOut, "{end:?}");

        let long = world.job("long", &["exit", "0"], json!({"exit_after_ms": "60000"}));
        let handle = world.target().run_job(&world.id, "app-dev", long).await.unwrap();
        world.target().cancel_job(&world.id, "long").await.unwrap();
        assert_eq!(handle.end.await.unwrap().outcome, Outcome::Canceled);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cron_jobs_runs_follow_the_clock_also_when_nobody_looked() {
    in_world("a_cron_jobs_runs_follow_the_clock_also_when_nobody_looked", |world| async move {
        let mut world = world.write().await;
        let template = json!({"spec": {"backoffLimit": 0, "template": {"spec": {"restartPolicy": "Never", "containers": [
            {"name": "job", "image": world.image, "args": ["exit", "0", "cleaned"]},
        ]}}}});
        let cron = object(json!({
            "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "clean"},
            "spec": {"schedule": "*/5 * * * *", "timeZone": "Etc/UTC", "startingDeadlineSeconds": 120, "jobTemplate": template},
        }));
        world.apply(vec![cron]).await.unwrap();
        let next = world.status("CronJob", "clean").await.message;
        assert!(next.contains("next run at 2026-01-01T00:05:00Z"), "{next}");
        let until_next = async |world: &World, next: &str| {
            until(format!("the run before {next}"), BOUND, async || {
                let message = world.status("CronJob", "clean").await.message;
                let done = message.contains("last run succeeded") && message.contains(&format!("next run at {next}"));
                Ok(if done { Probe::Found(message) } else { Probe::NotYet(message) })
            })
            .await
            .unwrap()
        };
        world.clock.move_to("2026-01-01T00:05:00Z");
        let first = until_next(&world, "2026-01-01T00:10:00Z").await;

        // Dead from then until 00:21: the runs of 00:10 and 00:15 are too late, the one of 00:20 is not.
        world.target = None;
        world.clock.move_to("2026-01-01T00:21:00Z");
        world.open().await;
        let second = until_next(&world, "2026-01-01T00:25:00Z").await;
        assert_ne!(first, second);
        let minutes = |text: &str| text.parse::<Timestamp>().unwrap().as_second() / 60;
        // A run's name tells when it was due.
        let runs: Vec<String> = world.containers("-pod-clean-").await.into_keys().collect();
        let of = |at: &str| runs.iter().filter(|name| name.contains(&format!("-clean-{}-", minutes(at)))).count();
        assert_eq!((of("2026-01-01T00:05:00Z"), of("2026-01-01T00:20:00Z"), runs.len()), (1, 1, 2), "{runs:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_said_before_anything_changes() {
    in_world(
        "what_cannot_be_done_is_said_before_anything_changes",
        |world| async move {
            let world = world.read().await;
            let mut odd = world.deployment("odd", 1, &[]);
            let spec = &mut odd["spec"]["template"]["spec"];
            spec["hostNetwork"] = json!(true);
            spec["containers"][0]["image"] = json!("127.0.0.1:1/nobody/built:this");
            spec["volumes"] = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "no-claim"}}]);
            let set = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"}, "spec": {}});
            let objects = vec![object(odd), object(set)];
            let findings = world.target().preflight(&world.id, &objects).await.unwrap();
            let said: Vec<String> = findings.iter().map(ToString::to_string).collect();
            for wanted in ["hostNetwork", "StatefulSet", "no-claim"] {
                assert!(
                    said.iter()
                        .any(|line| line.contains(wanted) && line.contains("objects.yaml")),
                    "{wanted}: {said:#?}"
                );
            }
            let error = world.apply(objects).await.unwrap_err();
            assert_eq!(error.outcome, Outcome::Rejected, "{error:?}");
            assert!(world.containers("").await.is_empty());
            assert!(
                world
                    .target()
                    .current(&world.id)
                    .await
                    .unwrap()
                    .is_none_or(|applied| applied.objects.is_empty())
            );
        },
    )
    .await;
}

#[test]
fn the_test_application_is_static() {
    // It runs in an empty image; a dynamic one would fail there with a message about a missing file.
    let header = std::fs::read(Path::new(APP)).unwrap();
    assert!(!header.windows(9).any(|part| part == b"/ld-linux"));
}
