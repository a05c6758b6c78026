//! The whole product from outside: a server that is a process, a real git, a real engine, a real browser.

#![allow(clippy::unwrap_used, clippy::panic)]

use fantoccini::{ClientBuilder, Locator};
use futures::FutureExt;
use serde_json::json;
use std::{future::Future, panic::AssertUnwindSafe, path::Path, time::Duration};
use towpath_container::{ContainerClient, ScratchImage, load_scratch_image, scratch};
use towpath_testkit::{
    Api, ChromeDriver, Gate, Job, Pipeline, Probe, REGISTRY_PASSWORD, REGISTRY_USER, Registry, Repository,
    ServerOptions, Towpath, Traffic, Workflow, engine_answers, program, remove_instance, skipped, until,
};

const PROJECT: &str = "app";
const BOUND: Duration = Duration::from_secs(120);

/// A server and a repository that is connected to it.
struct World {
    folder: tempfile::TempDir,
    server: Towpath,
    repository: Repository,
    api: Api,
}

impl World {
    async fn start(files: &[(&str, &str)], variables: Vec<(String, String)>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = ServerOptions {
            binary: env!("CARGO_BIN_EXE_towpath").into(),
            data_dir: folder.path().join("data"),
            listen: "127.0.0.1:0".into(),
            host_environment: Vec::new(),
            variables,
            log: folder.path().join("server.log"),
            kubeconfig: None,
        };
        let server = Towpath::start(options).await.unwrap();
        let repository = Repository::of_files(folder.path(), PROJECT, files).await.unwrap();
        let said = server.run(repository.directory(), &["init"], b"").await.unwrap();
        assert!(said.contains("added   git remote `towpath`"), "{said}");
        repository.commit("What towpath found").await.unwrap();
        let api = server.api().unwrap();
        Self {
            folder,
            server,
            repository,
            api,
        }
    }

    async fn towpath(&self, arguments: &[&str]) -> Result<String, String> {
        self.server
            .run(self.repository.directory(), arguments, b"")
            .await
            .map_err(|error| format!("{error:#}"))
    }

    async fn push(&self) -> (String, Pipeline) {
        let said = self.repository.push("HEAD").await.unwrap();
        let head = self.repository.head().await.unwrap();
        let pipelines = self.api.pipelines(PROJECT).await.unwrap();
        let pipeline = pipelines
            .into_iter()
            .find(|pipeline| pipeline.vcs.revision == head)
            .unwrap();
        assert!(
            said.contains(&format!("/projects/{PROJECT}/pipelines/{}", pipeline.number)),
            "{said}"
        );
        (said, pipeline)
    }

    async fn job(&self, workflow: &Workflow, job: &str, status: &str) -> Job {
        match self.api.job_until(PROJECT, workflow, job, &[status], BOUND).await {
            Ok(job) => job,
            Err(error) => panic!("{error:#}\nserver log:\n{}", self.server.log_tail(30)),
        }
    }

    async fn gate(&self, workflow: &Workflow, name: &str) -> Gate {
        match self.api.gate_of(PROJECT, workflow, name, BOUND).await {
            Ok(gate) => gate,
            Err(error) => panic!("{error:#}\nserver log:\n{}", self.server.log_tail(30)),
        }
    }

    async fn detail(&self, job: &Job) -> serde_json::Value {
        self.api
            .get(&format!("/api/towpath/jobs/{PROJECT}/{}", job.job_number.unwrap()))
            .await
            .unwrap()
    }

    async fn log(&self, job: &Job, step: u32) -> String {
        let arguments = ["logs".to_string(), job.job_number.unwrap().to_string()];
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let text = self.towpath(&arguments).await.unwrap();
        let steps: Vec<&str> = text.split("\n--- ").skip(1).collect();
        steps
            .get(step as usize)
            .map(|step| step.split_once('\n').map_or("", |(_, log)| log))
            .unwrap_or_default()
            .to_string()
    }
}

/// Runs `test` in a world of its own, and removes what it left in the engine, even if the test fails.
async fn in_world<F: Future<Output = ()>>(
    name: &str,
    files: &[(&str, &str)],
    test: impl FnOnce(std::sync::Arc<tokio::sync::Mutex<World>>) -> F,
) {
    in_world_with(name, files, Vec::new(), test).await;
}

/// Like [`in_world`], with extra variables for the server and commands.
async fn in_world_with<F: Future<Output = ()>>(
    name: &str,
    files: &[(&str, &str)],
    variables: Vec<(String, String)>,
    test: impl FnOnce(std::sync::Arc<tokio::sync::Mutex<World>>) -> F,
) {
    if let Err(absent) = engine_answers().await {
        return skipped(name, &absent);
    }
    let world = std::sync::Arc::new(tokio::sync::Mutex::new(World::start(files, variables).await));
    let result = AssertUnwindSafe(test(world.clone())).catch_unwind().await;
    let mut world = match world.try_lock() {
        Ok(world) => world,
        Err(_) => panic!("{name} still uses its world"),
    };
    let instance = Towpath::instance(world.server.data_dir()).unwrap();
    let stopped = world.server.stop().await;
    remove_instance(&instance).await.unwrap();
    if let Err(panic) = result {
        eprintln!("{name}: the server's log ends with\n{}", world.server.log_tail(60));
        std::panic::resume_unwind(panic);
    }
    stopped.unwrap();
}

/// Loads an image that contains only busybox, without pulling anything.
async fn busybox() -> Option<String> {
    let Ok(path) = program("busybox") else { return None };
    let file = |path: &str, content| scratch::ScratchFile {
        path: path.into(),
        mode: 0o755,
        content,
    };
    let image = ScratchImage {
        repository: "towpath-test/busybox".into(),
        files: vec![
            file("bin/busybox", scratch::FileContent::Copy(path.clone())),
            // One file under two names: busybox looks at its own name.
            file("bin/sh", scratch::FileContent::Copy(path)),
        ],
        environment: vec!["PATH=/bin".into()],
        ..ScratchImage::default()
    };
    let engine = ContainerClient::connect().await.unwrap();
    Some(load_scratch_image(&engine, image).await.unwrap().to_string())
}

const COUNT: &str = "i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); busybox sleep 0.01; done";

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_on_while_the_server_is_dead() {
    let Some(image) = busybox().await else {
        return skipped(
            "a_job_goes_on_while_the_server_is_dead",
            &program("busybox").unwrap_err(),
        );
    };
    let config = format!(
        "version: 2.1\njobs:\n  on-host:\n    machine: true\n    steps:\n      - run: {COUNT}\n  in-container:\n    docker:\n      - image: {image}\n    steps:\n      - run: {COUNT}\nworkflows:\n  w:\n    jobs: [on-host, in-container]\n"
    );
    in_world(
        "a_job_goes_on_while_the_server_is_dead",
        &[(".circleci/config.yml", &config)],
        |world| async move {
            let mut world = world.lock().await;
            let (_, pipeline) = world.push().await;
            let workflow = world.api.workflow_of(&pipeline, "w").await.unwrap();
            for name in ["on-host", "in-container"] {
                let job = world.job(&workflow, name, "running").await;
                until(format!("{name} to have printed something"), BOUND, async || {
                    let log = world.log(&job, 0).await;
                    Ok(if log.lines().count() > 10 {
                        Probe::Found(())
                    } else {
                        Probe::NotYet(log)
                    })
                })
                .await
                .unwrap();
            }
            world.server.kill().await.unwrap();
            world.server.start_again().await.unwrap();
            for name in ["on-host", "in-container"] {
                let job = world.job(&workflow, name, "success").await;
                let log = world.log(&job, 0).await;
                let lines: Vec<&str> = log.lines().filter(|line| line.starts_with("line ")).collect();
                let expected: Vec<String> = (0..300).map(|n| format!("line {n}")).collect();
                assert_eq!(lines, expected, "{name}: a gap, or a line twice");
            }
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_does_not_parse_is_said_with_its_place() {
    let config = "version: 2.1\njobs:\n  a:\n    machine: true\n    steps:\n      - run: [oops\n";
    in_world("a_configuration_that_does_not_parse", &[(".circleci/config.yml", config)], |world| async move {
        let world = world.lock().await;
        let (said, pipeline) = world.push().await;
        assert_eq!(pipeline.state, "errored");
        assert!(pipeline.errors[0].message.contains(".circleci/config.yml:"), "{:?}", pipeline.errors);
        assert!(said.contains(".circleci/config.yml:"), "the pusher is told too: {said}");
        // A job that needs an unsupported feature fails when it starts, and names the place in its configuration.
        let unhonoured = "version: 2.1\njobs:\n  a:\n    docker:\n      - image: x\n    steps:\n      - setup_remote_docker\nworkflows:\n  w:\n    jobs: [a]\n";
        world.repository.write(".circleci/config.yml", unhonoured).unwrap();
        world.repository.commit("Ask for what is not there").await.unwrap();
        let (_, pipeline) = world.push().await;
        let workflow = world.api.workflow_of(&pipeline, "w").await.unwrap();
        world.job(&workflow, "a", "infrastructure_fail").await;
        let text = world.towpath(&["pipelines"]).await.unwrap();
        assert!(text.contains(".circleci/config.yml:7:"), "{text}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_opens_once_and_not_after_a_cancellation() {
    let config = "version: 2.1\njobs:\n  after:\n    machine: true\n    steps:\n      - run: echo went on\nworkflows:\n  w:\n    jobs:\n      - hold:\n          type: approval\n      - after:\n          requires: [hold]\n";
    in_world(
        "a_gate_opens_once",
        &[(".circleci/config.yml", config)],
        |world| async move {
            let world = world.lock().await;
            let (_, pipeline) = world.push().await;
            let workflow = world.api.workflow_of(&pipeline, "w").await.unwrap();
            let gate = world.gate(&workflow, "hold").await;
            let said = world
                .towpath(&["approve", &gate.job.to_string(), "--yes"])
                .await
                .unwrap();
            assert!(said.contains("approved hold"), "{said}");
            world.job(&workflow, "after", "success").await;
            let again = world
                .towpath(&["approve", &gate.job.to_string(), "--yes"])
                .await
                .unwrap_err();
            assert!(again.contains("`hold` was already approved by"), "{again}");
            let again = world.towpath(&["approve", "hold", "--yes"]).await.unwrap_err();
            assert!(
                again.contains("gate `hold` of pipeline 1 does not wait: it was already approved by"),
                "{again}"
            );

            world.repository.write("more", "more").unwrap();
            world.repository.commit("More").await.unwrap();
            let (_, pipeline) = world.push().await;
            let workflow = world.api.workflow_of(&pipeline, "w").await.unwrap();
            let gate = world.gate(&workflow, "hold").await;
            world.towpath(&["cancel", &workflow.id]).await.unwrap();
            let late = world
                .towpath(&["approve", &gate.job.to_string(), "--yes"])
                .await
                .unwrap_err();
            assert!(late.contains("the workflow was canceled by"), "{late}");
            let after = world.api.jobs(&workflow.id).await.unwrap();
            assert!(after.iter().all(|job| job.status == "canceled"), "{after:?}");
        },
    )
    .await;
}

const GREETER: &str = "version: 2.1\ncommands:\n  greet:\n    parameters: {who: {type: string}}\n    steps:\n      - run: {name: Greet, command: 'echo VERSION << parameters.who >>'}\n";

#[tokio::test(flavor = "multi_thread")]
async fn orbs_come_from_the_repository_the_registry_or_another_server_and_stay_locked() {
    let config = "version: 2.1\norbs:\n  tools: acme/tools@1\n  near: acme/near@volatile\njobs:\n  all:\n    machine: true\n    steps:\n      - tools/greet: {who: you}\n      - near/greet: {who: me}\nworkflows:\n  w: {jobs: [all]}\n";
    let near = GREETER.replace("VERSION", "vendored");
    let files = [
        (".circleci/config.yml", config),
        (".circleci/orbs/acme/near@0.1.0.yml", near.as_str()),
    ];
    in_world("orbs_come_from_the_repository", &files, |world| async move {
        let world = world.lock().await;
        let orb = world.folder.path().join("orb.yml");
        let publish = async |text: &str, version: &str| {
            std::fs::write(&orb, text).unwrap();
            let reference = format!("acme/tools@{version}");
            world
                .towpath(&["orb", "publish", orb.to_str().unwrap(), &reference])
                .await
        };
        let offline = ["--orb-registry", "none"];
        let process = async || world.towpath(&[&["config", "process"], &offline[..]].concat()).await;

        let unknown = process().await.unwrap_err();
        assert!(
            unknown.contains("acme/tools@1") && unknown.contains(".circleci/config.yml:3:"),
            "{unknown}"
        );
        publish(&GREETER.replace("VERSION", "first"), "1.0.0").await.unwrap();
        let broken = publish("version: 2.1\ncommands: [\n", "1.0.1").await.unwrap_err();
        assert!(broken.contains("orb.yml:"), "{broken}");
        let again = publish(&GREETER.replace("VERSION", "other"), "1.0.0")
            .await
            .unwrap_err();
        assert!(again.contains("a release never changes"), "{again}");

        let (said, pipeline) = world.push().await;
        let workflow = world
            .api
            .workflow_of(&pipeline, "w")
            .await
            .unwrap_or_else(|error| panic!("{error}: {said}"));
        let job = world.job(&workflow, "all", "success").await;
        let logs = [world.log(&job, 0).await, world.log(&job, 1).await].concat();
        assert!(logs.contains("first you") && logs.contains("vendored me"), "{logs}");

        // A lock file pins the version, whatever is published later.
        world.towpath(&[&["orb", "lock"], &offline[..]].concat()).await.unwrap();
        publish(&GREETER.replace("VERSION", "second"), "1.1.0").await.unwrap();
        let locked = process().await.unwrap();
        assert!(
            locked.contains("# Orb 'acme/tools@1' resolved to 'acme/tools@1.0.0'"),
            "{locked}"
        );
        std::fs::remove_file(world.repository.directory().join(".circleci/orbs.lock")).unwrap();
        let newest = process().await.unwrap();
        assert!(
            newest.contains("resolved to 'acme/tools@1.1.0'") && newest.contains("second you"),
            "{newest}"
        );
        let listed = world.towpath(&["orb", "list", "acme"]).await.unwrap();
        assert_eq!(listed, "acme/tools  1.1.0\n");
        let source = world.towpath(&["orb", "source", "acme/tools@1.0"]).await.unwrap();
        assert_eq!(source, GREETER.replace("VERSION", "first"));

        // Another repository, without a server of its own, uses this server as the public registry.
        let mut elsewhere = tokio::process::Command::new(env!("CARGO_BIN_EXE_towpath"));
        elsewhere
            .args(["config", "process", "--orb-registry", world.server.base()])
            .env("TOWPATH_DATA_DIR", world.folder.path().join("no-server-here"))
            .env("TOWPATH_ORB_REGISTRY_TOKEN", world.server.token().unwrap().expose())
            .current_dir(world.repository.directory());
        let output = elsewhere.output().await.unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            newest,
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn circlecis_own_clients_are_answered() {
    let config =
        "version: 2.1\njobs:\n  build:\n    machine: true\n    steps: [checkout]\nworkflows:\n  w: {jobs: [build]}\n";
    in_world("circlecis_own_clients_are_answered", &[(".circleci/config.yml", config)], |world| async move {
        let world = world.lock().await;
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let post = async |path: &str, body: serde_json::Value, token: bool| {
            let mut request = http.post(format!("{}{path}", world.server.base())).json(&body);
            if token {
                // The older client sends the token alone.
                request = request.header("Authorization", world.server.token().unwrap().expose());
            }
            let answer = request.send().await.unwrap();
            (answer.status().as_u16(), answer.json::<serde_json::Value>().await.unwrap())
        };
        // Compiling costs processor time, so it requires a token. Test a double slash, a probe, and a mistake.
        assert_eq!(post("/api/v2/compile-config-with-defaults", json!({"config_yaml": config}), false).await.0, 401);
        let (status, answer) = post("/api/v2/compile-config-with-defaults", json!({"config_yaml": config}), true).await;
        assert_eq!((status, &answer["valid"]), (200, &json!(true)), "{answer}");
        assert!(answer["output-yaml"].as_str().unwrap().contains("build:"), "{answer}");
        assert_eq!(post("/api/v2/compile-config-with-defaults", json!({}), true).await.0, 400);
        let wrong = config.replace("checkout", "chekout");
        let body = json!({"data": {"attributes": {"config": wrong, "pipeline_values": {"pipeline.number": 7}}}});
        let (status, answer) = post("//api/v3/configs/compile", body, true).await;
        assert_eq!((status, &answer["data"]["attributes"]["outcome"]), (200, &json!("failed")), "{answer}");
        let title = answer["meta"]["messages"][0]["title"].as_str().unwrap();
        assert!(title.contains("chekout") && title.contains("config.yml:5:13"), "{title}");

        let graphql = async |query: &str, variables, token| {
            post("/graphql-unstable", json!({"query": query, "variables": variables}), token).await.1
        };
        let refused = graphql("mutation { createNamespace(name: \"acme\") { namespace { id } } }", json!({}), false).await;
        assert!(refused["message"].as_str().unwrap().contains("sign in"), "{refused}");
        let made = graphql("mutation($n: String!) { createNamespace(name: $n) { namespace { id } errors { message } } }", json!({"n": "acme"}), true).await;
        let id = made["data"]["createNamespace"]["namespace"]["id"].clone();
        let query = "mutation($id: UUID!) { createOrb(name: \"secret\", registryNamespaceId: $id, isPrivate: true) { orb { id } errors { message } } }";
        graphql(query, json!({"id": id}), true).await;
        let query = "mutation($y: String!) { publishOrb(orbName: \"secret\", namespaceName: \"acme\", orbYaml: $y, version: \"0.1.0\") { orb { version } errors { message } } }";
        let published = graphql(query, json!({"y": GREETER}), true).await;
        assert_eq!(published["data"]["publishOrb"]["orb"], json!({"version": "0.1.0"}), "{published}");
        let query = "query { orbVersion(orbVersionRef: \"acme/secret@0\") { version source } }";
        let seen = graphql(query, json!({}), true).await;
        assert_eq!(seen["data"]["orbVersion"]["source"], json!(GREETER), "{seen}");
        assert_eq!(graphql(query, json!({}), false).await["data"], json!(null));
        // The older client lists certified orbs by default. It also gets an owner's public orb.
        let query = "mutation($id: UUID!) { createOrb(name: \"open\", registryNamespaceId: $id) { orb { id } errors { message } } }";
        graphql(query, json!({"id": id}), true).await;
        let query = "query { orbs(first: 20, certifiedOnly: true) { edges { node { name } } } }";
        let listed = graphql(query, json!({}), true).await;
        assert_eq!(listed["data"]["orbs"]["edges"][0]["node"]["name"], json!("acme/open"), "{listed}");
        let mine = http.get(format!("{}/api/v2/me/collaborations", world.server.base()));
        let mine = mine.header("Circle-Token", world.server.token().unwrap().expose()).send().await.unwrap();
        let mine: serde_json::Value = mine.json().await.unwrap();
        assert_eq!(mine[0]["slug"], json!("towpath/local"), "{mine}");
        let broken = graphql("query {", json!({}), true).await;
        assert!(broken["errors"][0]["message"].as_str().unwrap().contains("cannot be read"), "{broken}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_steps_keep_and_pass_on_arrives() {
    let config = r#"version: 2.1
jobs:
  make:
    machine: true
    steps:
      - checkout
      - run: git log --oneline && mkdir -p out target && echo $CIRCLE_JOB > out/made && date +%N > target/cached
      - save_cache:
          key: v1-{{ .Branch }}-{{ checksum "lock" }}
          paths: [target]
      - persist_to_workspace:
          root: out
          paths: [made]
      - store_artifacts:
          path: out
      - run: |
          mkdir results
          echo '<testsuite><testcase name="good"/><testcase name="bad"><failure message="so bad"/></testcase></testsuite>' > results/r.xml
      - store_test_results:
          path: results
      - run: echo "the secret is $SECRET"
  use:
    machine: true
    steps:
      - checkout
      - restore_cache:
          keys: [v1-other, v1-main-]
      - attach_workspace:
          at: in
      - run: test "$(cat in/made)" = make && test -s target/cached
      - run: circleci-agent step halt
      - run: exit 1
workflows:
  w:
    jobs:
      - make:
          context: things
      - use:
          requires: [make]
"#;
    let files = [(".circleci/config.yml", config), ("lock", "1")];
    in_world("what_steps_keep_and_pass_on_arrives", &files, |world| async move {
        let world = world.lock().await;
        let set = world.server.run(
            world.repository.directory(),
            &["context", "set", "things", "SECRET"],
            b"hunter2hunter2",
        );
        set.await.unwrap();
        let (_, pipeline) = world.push().await;
        let workflow = world.api.workflow_of(&pipeline, "w").await.unwrap();
        let make = world.job(&workflow, "make", "success").await;
        let detail = world.detail(&make).await;
        assert_eq!(detail["tests"]["total"], 2, "{detail}");
        assert_eq!(detail["tests"]["failures"][0]["message"], "so bad");
        assert_eq!(detail["artifacts"][0]["path"], "out/made");
        let said = world
            .towpath(&["logs", &make.job_number.unwrap().to_string()])
            .await
            .unwrap();
        assert!(
            said.contains("the secret is ****") && !said.contains("hunter2"),
            "{said}"
        );
        let used = world.job(&workflow, "use", "success").await;
        let names: Vec<String> = world.detail(&used).await["steps"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| s["name"].to_string())
            .collect();
        assert!(
            !names.iter().any(|name| name.contains("exit 1")),
            "a step ran after the halt: {names:?}"
        );
    })
    .await;
}

const DOCKERFILE: &str = "FROM scratch\nCOPY busybox /bin/busybox\nCOPY www /www\nENTRYPOINT [\"/bin/busybox\", \"httpd\", \"-f\", \"-p\", \"8080\", \"-h\", \"/www\"]\n";

const DELIVERY: &str = r#"version: 2.1
jobs:
  build:
    machine: true
    environment:
      DOCKER_BUILDKIT: "0"
    steps:
      - checkout
      - run: |
          cp "$(command -v busybox)" busybox
          echo "$REGISTRY_PASSWORD" | docker login --username "$REGISTRY_USERNAME" --password-stdin "$REGISTRY"
          docker build --quiet --tag "$REGISTRY/app:app-$CIRCLE_SHA1" .
          docker push --quiet "$REGISTRY/app:app-$CIRCLE_SHA1"
  deploy-dev:
    machine: true
    steps:
      - run: towpath deploy dev
workflows:
  main:
    jobs:
      - build:
          context: app-registry
      - hold-dev:
          type: approval
          requires: [build]
      - deploy-dev:
          requires: [hold-dev]
"#;

const DEPLOYMENT: &str = r#"apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: 2
  progressDeadlineSeconds: 8
  strategy:
    type: RollingUpdate
    rollingUpdate:
      maxSurge: 1
      maxUnavailable: 0
  selector:
    matchLabels: {app: web}
  template:
    metadata:
      labels: {app: web}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
        - name: web
          image: app:app-latest
          ports:
            - {name: http, containerPort: 8080}
          readinessProbe:
            httpGet: {path: /index.html, port: http}
            periodSeconds: 1
          lifecycle:
            preStop:
              exec: {command: ["/bin/busybox", "sleep", "1"]}
"#;

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  selector: {app: web}\n  ports:\n    - {name: http, port: 80, targetPort: http}\n";
const INGRESS: &str = "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: web}\nspec:\n  rules:\n    - host: app.example.org\n      http:\n        paths:\n          - path: /\n            pathType: Prefix\n            backend: {service: {name: web, port: {name: http}}}\n";

fn delivery_files() -> Vec<(&'static str, &'static str)> {
    vec![
        (".circleci/config.yml", DELIVERY),
        ("Dockerfile", DOCKERFILE),
        ("www/index.html", "version 1\n"),
        (".k8s/live/dev/deployment.yaml", DEPLOYMENT),
        (".k8s/live/dev/service.yaml", SERVICE),
        (".k8s/live/dev/ingress.yaml", INGRESS),
    ]
}

async fn approve_in_a_browser(world: &World, driver: &ChromeDriver, gate: &Gate) {
    let browser = ClientBuilder::new(hyper_connector())
        .capabilities(ChromeDriver::capabilities())
        .connect(driver.url())
        .await
        .unwrap();
    let base = world.server.base();
    browser.goto(&format!("{base}/gates/{}", gate.job)).await.unwrap();
    assert_eq!(
        browser.current_url().await.unwrap().path(),
        "/login",
        "a stranger sees no gate"
    );
    let token = world.server.token().unwrap();
    browser
        .find(Locator::Id("token"))
        .await
        .unwrap()
        .send_keys(token.expose())
        .await
        .unwrap();
    browser
        .find(Locator::Css("button[type=submit]"))
        .await
        .unwrap()
        .click()
        .await
        .unwrap();
    // After signing in, the approver sees the requested page.
    let approve = browser.wait().at_most(BOUND).for_element(Locator::Id("approve")).await;
    approve.unwrap();
    let text = browser.find(Locator::Css("main")).await.unwrap().text().await.unwrap();
    assert!(text.contains("Approving would change dev"), "{text}");
    let plan = gate.plan.as_ref().unwrap();
    assert!(
        text.contains(plan.id.as_str()),
        "the page shows another plan than {}: {text}",
        plan.id
    );
    if let Some(picture) = std::env::var_os("TOWPATH_SCREENSHOT") {
        std::fs::write(picture, browser.screenshot().await.unwrap()).unwrap();
    }
    browser
        .find(Locator::Id("approve"))
        .await
        .unwrap()
        .click()
        .await
        .unwrap();
    let approved = browser
        .wait()
        .at_most(BOUND)
        .for_element(Locator::XPath("//main//p[contains(., 'Approved by')]"))
        .await;
    approved.unwrap();
    browser.close().await.unwrap();
}

fn hyper_connector() -> hyper_util::client::legacy::connect::HttpConnector {
    hyper_util::client::legacy::connect::HttpConnector::new()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_approved_in_the_browser_is_deployed_and_what_fails_goes_back() {
    let name = "what_is_approved_in_the_browser_is_deployed";
    if let Err(absent) = ChromeDriver::present() {
        return skipped(name, &absent);
    }
    in_world(name, &delivery_files(), |world| async move {
        let mut world = world.lock().await;
        let driver = ChromeDriver::start(world.folder.path()).await.unwrap();
        let (_, pipeline) = world.push().await;
        let workflow = world.api.workflow_of(&pipeline, "main").await.unwrap();
        let gate = world.gate(&workflow, "hold-dev").await;
        assert_eq!(gate.plan_error, None);
        approve_in_a_browser(&world, &driver, &gate).await;
        world.job(&workflow, "deploy-dev", "success").await;
        let address = address(&world).await;
        assert_eq!(get(&address).await, "version 1\n");

        // The server dies. The application's users notice nothing.
        let traffic = Traffic::start(&address, Duration::from_millis(20), |body| body.trim().to_string()).unwrap();
        world.server.kill().await.unwrap();
        world.server.start_again().await.unwrap();

        // A laptop rolls the next version out, and back again.
        world.repository.write("www/index.html", "version 2\n").unwrap();
        world
            .repository
            .write(
                "towpath.toml",
                "project = \"app\"\n[build]\nprepare = \"cp $(command -v busybox) busybox\"\n",
            )
            .unwrap();
        world.repository.write(".gitignore", "busybox\n").unwrap();
        world.repository.commit("Version 2").await.unwrap();
        let built = world.towpath(&["build"]).await.unwrap();
        assert!(built.contains(":app-latest\n"), "{built}");
        let plan = world.towpath(&["diff", "dev", "latest"]).await.unwrap_err();
        assert!(
            plan.contains("exit status: 2") && plan.contains("-      - image: "),
            "{plan}"
        );
        world.towpath(&["deploy", "dev", "latest"]).await.unwrap();
        assert_eq!(get(&address).await, "version 2\n");
        world.towpath(&["rollback", "dev"]).await.unwrap();
        assert_eq!(get(&address).await, "version 1\n");
        let report = traffic.stop().await;
        assert!(report.failures.is_empty(), "{}", report.summary());

        // The probe never passes: the rollout stops, the old version keeps serving, and the error has the new version's output.
        let never = DEPLOYMENT.replace("/index.html", "/nosuch.html");
        world.repository.write(".k8s/live/dev/deployment.yaml", &never).unwrap();
        let failed = world.towpath(&["deploy", "dev", "latest"]).await.unwrap_err();
        assert!(failed.contains("web") && failed.contains("runs again"), "{failed}");
        assert_eq!(get(&address).await, "version 1\n");

        for (arguments, expected) in [
            (
                ["deploy", "nosuch", "latest"],
                "there is no environment `nosuch`: there are dev",
            ),
            (["deploy", "dev", "no-such-tag"], "the registry has no image of"),
            (
                ["deploy", "nosuch", "no-such-tag"],
                "there is no environment `nosuch`: there are dev",
            ),
        ] {
            let error = world.towpath(&arguments).await.unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        world
            .repository
            .write(
                ".k8s/live/dev/odd.yaml",
                "apiVersion: example.org/v1\nkind: Oddity\nmetadata: {name: odd}\n",
            )
            .unwrap();
        let refused = world.towpath(&["deploy", "dev", "latest"]).await.unwrap_err();
        assert!(
            refused.contains("Oddity") && refused.contains(".k8s/live/dev/odd.yaml:"),
            "{refused}"
        );
        let history = world.towpath(&["history", "dev"]).await.unwrap();
        let ends = ["timed out", "failed"].map(|end| format!("release 4 {end}"));
        assert!(ends.iter().any(|end| history.contains(end)), "{history}");
    })
    .await;
}

/// Two images of one commit, a tag that moves after the build, and another branch at the same commit: Towpath deploys the image
/// that was tested. The log shows the words of the registry's own name unmasked.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_deployed_is_what_was_tried() {
    const CONFIG: &str = r#"version: 2.1
jobs:
  build:
    machine: true
    environment:
      DOCKER_BUILDKIT: "0"
    steps:
      - checkout
      - run: |
          echo "towpath pushes to $REGISTRY"
          cp "$(command -v busybox)" busybox
          echo "$REGISTRY_PASSWORD" | docker login --username "$REGISTRY_USERNAME" --password-stdin "$REGISTRY"
          image() {
            echo "$1 of $CIRCLE_BRANCH" > www/index.html
            docker build --quiet --tag "$REGISTRY/app:$2" .
            docker push --quiet "$REGISTRY/app:$2"
          }
          image "for tests" "test-$CIRCLE_SHA1"
          image "the application" app-latest
  move:
    machine: true
    steps:
      - run: |
          echo "$REGISTRY_PASSWORD" | docker login --username "$REGISTRY_USERNAME" --password-stdin "$REGISTRY"
          docker tag "$REGISTRY/app:test-$CIRCLE_SHA1" "$REGISTRY/app:app-latest"
          docker push --quiet "$REGISTRY/app:app-latest"
  smoke-test:
    docker:
      - image: $REGISTRY/app:app-latest
    steps:
      - run: {command: "busybox cat /www/index.html", shell: /bin/busybox sh -e}
  deploy-dev:
    machine: true
    steps:
      - run: towpath deploy dev
workflows:
  main:
    jobs:
      - build: {context: app-registry}
      - move: {context: app-registry, requires: [build]}
      - smoke-test: {context: app-registry, requires: [move]}
      - hold-dev: {type: approval, requires: [smoke-test]}
      - deploy-dev: {requires: [hold-dev]}
"#;
    let mut files = delivery_files();
    files[0].1 = CONFIG;
    in_world("what_is_deployed_is_what_was_tried", &files, |world| async move {
        let world = world.lock().await;
        let (_, pipeline) = world.push().await;
        let workflow = world.api.workflow_of(&pipeline, "main").await.unwrap();
        let built = world.job(&workflow, "build", "success").await;
        let log = world.log(&built, 1).await;
        assert!(
            log.contains(&format!(
                "towpath pushes to {}",
                world.server.base().trim_start_matches("http://")
            )),
            "{log}"
        );
        let tried = world.job(&workflow, "smoke-test", "success").await;
        assert_eq!(world.log(&tried, 0).await.trim(), "the application of main");
        let gate = world.gate(&workflow, "hold-dev").await;
        assert_eq!(gate.plan_error, None);
        world
            .towpath(&["approve", &gate.job.to_string(), "--yes"])
            .await
            .unwrap();
        world.job(&workflow, "deploy-dev", "success").await;
        assert_eq!(get(&address(&world).await).await, "the application of main\n");

        // Another branch at the same commit deploys its own.
        world.repository.push("HEAD:refs/heads/feature").await.unwrap();
        let pipelines = world.api.pipelines(PROJECT).await.unwrap();
        let feature = pipelines.into_iter().max_by_key(|pipeline| pipeline.number).unwrap();
        let workflow = world.api.workflow_of(&feature, "main").await.unwrap();
        let gate = world.gate(&workflow, "hold-dev").await;
        world
            .towpath(&["approve", &gate.job.to_string(), "--yes"])
            .await
            .unwrap();
        world.job(&workflow, "deploy-dev", "success").await;
        assert_eq!(get(&address(&world).await).await, "the application of feature\n");

        // A job that deploys something that no gate could show cannot run.
        let unclear = CONFIG.replace("towpath deploy dev", "towpath deploy --on-failure stop dev");
        world.repository.write(".circleci/config.yml", &unclear).unwrap();
        world.repository.commit("Unclear").await.unwrap();
        let (_, pipeline) = world.push().await;
        let workflow = world.api.workflow_of(&pipeline, "main").await.unwrap();
        let gate = world.job(&workflow, "hold-dev", "on_hold").await;
        world.api.approve_as_circleci(&workflow.id, &gate).await.unwrap();
        world.job(&workflow, "deploy-dev", "infrastructure_fail").await;
    })
    .await;
}

/// A repository whose main branch is `master`.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_main_branch_master_is_the_default() {
    in_world("without_a_main_branch", &delivery_files(), |world| async move {
        let world = world.lock().await;
        world.repository.push("HEAD:refs/heads/master").await.unwrap();
        let said = world.towpath(&["status", "dev"]).await.unwrap();
        assert!(said.contains("nothing was deployed here yet"), "{said}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn images_go_through_a_private_registry_with_what_docker_knows() {
    let name = "images_go_through_a_private_registry_with_what_docker_knows";
    let registry = match Registry::start_private().await.unwrap() {
        Ok(registry) => registry,
        Err(absent) => return skipped(name, &absent),
    };
    // Docker's configuration names a helper for the registry, as Amazon's does.
    let folder = tempfile::tempdir().unwrap();
    let config = serde_json::json!({"credHelpers": {registry.address(): "towpath-test"}});
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let helper = folder.path().join("docker-credential-towpath-test");
    let answers = |script: &str| {
        let text = folder.path().join("helper.txt");
        std::fs::write(&text, format!("#!/bin/sh\n{script}\n")).unwrap();
        // Install it with another program. Processes of other tests inherit this process's open files, and a file that is open
        // for writing cannot be run.
        let mut install = std::process::Command::new("install");
        assert!(install.arg("-m755").args([&text, &helper]).status().unwrap().success());
    };
    let knows = format!(
        r#"[ "$1 $(cat)" = "get {}" ] && printf '{{"Username": "{REGISTRY_USER}", "Secret": "{REGISTRY_PASSWORD}"}}'"#,
        registry.address()
    );
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let docker_config = folder.path().display().to_string();
    let variables = vec![("PATH".to_string(), path), ("DOCKER_CONFIG".to_string(), docker_config)];
    in_world_with(name, &delivery_files(), variables, |world| async move {
        let world = world.lock().await;
        let settings = format!(
            "project = \"app\"\nimage = \"{}/app\"\n[build]\nprepare = \"cp $(command -v busybox) busybox\"\n",
            registry.address()
        );
        world.repository.write("towpath.toml", &settings).unwrap();
        world.repository.write(".gitignore", "busybox\n").unwrap();
        world.repository.commit("Another registry").await.unwrap();

        // Real helpers read the request before they fail. One that does not may be gone before the request arrives.
        answers("cat >/dev/null; echo the session has expired >&2; echo hunter2hunter2; exit 1");
        let refused = world.towpath(&["build"]).await.unwrap_err();
        assert!(refused.contains("the session has expired"), "{refused}");
        assert!(!refused.contains("hunter2"), "{refused}");

        answers(&knows);
        let built = world.towpath(&["build"]).await.unwrap();
        assert!(
            built.contains(&format!("{}/app:app-latest\n", registry.address())),
            "{built}"
        );
        // The image comes from the registry and not from what was built here.
        let images = std::process::Command::new("docker")
            .args([
                "image",
                "ls",
                "--quiet",
                "--filter",
                &format!("reference={}/app", registry.address()),
            ])
            .output()
            .unwrap();
        let images = String::from_utf8(images.stdout).unwrap();
        for image in images.split_whitespace() {
            let removed = std::process::Command::new("docker")
                .args(["image", "rm", "--force", image])
                .output()
                .unwrap();
            assert!(removed.status.success(), "{removed:?}");
        }
        world.towpath(&["deploy", "dev", "latest"]).await.unwrap();
        assert_eq!(get(&address(&world).await).await, "version 1\n");

        // The same through a pipeline. This registry does not notify Towpath of pushes.
        world.repository.write("www/index.html", "version 2\n").unwrap();
        let config = DELIVERY
            .replace("$REGISTRY/", &format!("{}/", registry.address()))
            .replace("\"$REGISTRY\"", registry.address())
            .replace("$REGISTRY_USERNAME", REGISTRY_USER)
            .replace("$REGISTRY_PASSWORD", REGISTRY_PASSWORD);
        world.repository.write(".circleci/config.yml", &config).unwrap();
        world.repository.commit("Version 2").await.unwrap();
        let (_, pipeline) = world.push().await;
        let workflow = world.api.workflow_of(&pipeline, "main").await.unwrap();
        let gate = world.gate(&workflow, "hold-dev").await;
        assert_eq!(gate.plan_error, None);
        world
            .towpath(&["approve", &gate.job.to_string(), "--yes"])
            .await
            .unwrap();
        world.job(&workflow, "deploy-dev", "success").await;
        assert_eq!(get(&address(&world).await).await, "version 2\n");
    })
    .await;
}

async fn address(world: &World) -> String {
    let environment = world.api.environment(PROJECT, "dev").await.unwrap();
    format!("{}/index.html", environment.addresses.first().unwrap())
}

async fn get(address: &str) -> String {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .no_proxy()
        .build()
        .unwrap()
        .get(address)
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap()
}

#[tokio::test]
async fn a_port_in_use_and_a_directory_in_use_are_said() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let said = up(folder.path(), &address).await;
    assert!(
        said.contains(&format!("failed to listen at {address}: is something else there?")),
        "{said}"
    );
}

async fn up(data_dir: &Path, listen: &str) -> String {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_towpath"));
    command
        .args(["up", "--listen", listen, "--data-dir"])
        .arg(data_dir)
        .kill_on_drop(true);
    let output = tokio::time::timeout(BOUND, command.output()).await.unwrap().unwrap();
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn without_an_engine_the_remedy_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_towpath"));
    command
        .args(["up", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(folder.path())
        .env("DOCKER_HOST", "unix:///nowhere/docker.sock");
    let output = tokio::time::timeout(BOUND, command.kill_on_drop(true).output())
        .await
        .unwrap()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("there is no container engine in reach"),
        "{said}"
    );
}
