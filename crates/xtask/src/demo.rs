//! The demo: the product's main job on this machine, from a push to a deployed application, a change, a rollback and a branch.
//!
//! It uses only what a user has: git, the command line and HTTP. Only cargo's downloads and its build directory are prepared in
//! advance; they are kept from one demo to the next.

use anyhow::{Context, Result, bail, ensure};
use std::{
    future::Future,
    io::{IsTerminal, Write},
    net::TcpListener,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};
use towpath_testkit::{
    Api, Cluster, Gate, PROJECT, Pipeline, Probe, Repository, ServerOptions, Towpath, Traffic, TrafficReport, Workflow,
    engine_answers, example_directory, host_environment_for_cargo, remove_images, remove_instance, until,
};

/// The server's port, unless it is taken.
const PORT: u16 = 7070;
/// How long to wait for anything. The slowest is the first compilation of the example.
const BOUND: Duration = Duration::from_secs(600);
const MAIN: &str = "test-build-deploy-main";

/// An example that a demo deploys.
#[derive(Debug, Clone, Copy)]
pub struct Example {
    /// Its folder in `examples`, which names the project.
    pub project: &'static str,
    /// The demo's own folder.
    pub folder: &'static str,
    /// The repositories of its images.
    pub repositories: &'static [&'static str],
}

/// The example of this demo.
const CLAIMS: Example = Example {
    project: PROJECT,
    folder: "demo",
    repositories: &[PROJECT],
};

/// Where the example's environments run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// On this machine's container engine.
    Local,
    /// In the cluster that `scripts/cluster` brings up.
    Kubernetes,
}

/// The namespaces of the example's environments. Whoever runs a cluster creates them for a team.
const NAMESPACES: [&str; 3] = ["claims-dev", "claims-staging", "claims-production"];

struct Demo {
    server: Towpath,
    repository: Repository,
    api: Api,
    parts: Vec<(String, Duration)>,
    to_first_line: Duration,
    traffic: Vec<(String, TrafficReport)>,
    commits: Vec<String>,
}

/// The demo's folder. It is outside any checkout, because cargo, in a job, would use a workspace around the job's folder.
pub fn folder(example: Example) -> Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    Ok(cache
        .context("neither XDG_CACHE_HOME nor HOME is set")?
        .join("towpath")
        .join(example.folder))
}

/// Removes what this demo left, except cargo's build directory.
pub async fn clean() -> Result<()> {
    clean_up(CLAIMS).await
}

/// Removes what the demo of an example left, except cargo's build directory.
pub async fn clean_up(example: Example) -> Result<()> {
    let folder = folder(example)?;
    let data = folder.join("data");
    stop_what_runs(&data)?;
    if let Some(instance) = Towpath::instance(&data) {
        let mut removed = remove_instance(&instance).await?;
        let address = std::fs::read_to_string(data.join("address")).unwrap_or_default();
        let registry = address.trim().trim_start_matches("http://");
        for repository in example.repositories {
            removed.images += remove_images(&format!("{registry}/{repository}"), 0).await?;
        }
        // The newest is of this build of Towpath and will be used again.
        removed.images += remove_images("towpath/proxy", 1).await?;
        // Go on even if the terminal is gone.
        let _ = writeln!(
            std::io::stdout(),
            "Removed {} containers, {} networks, {} volumes and {} images.",
            removed.containers,
            removed.networks,
            removed.volumes,
            removed.images
        );
    }
    for part in [data, folder.join("host-jobs"), folder.join("work")] {
        match std::fs::remove_dir_all(&part) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("failed to remove `{}`", part.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Kills the server of an earlier demo that was not ended properly.
fn stop_what_runs(data: &Path) -> Result<()> {
    let Ok(pid) = std::fs::read_to_string(data.join("lock")) else {
        return Ok(());
    };
    let pid = pid.trim();
    // Another process may have this number by now, but not with this folder among its arguments.
    let command_line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let is_ours = command_line
        .split(|byte| *byte == 0)
        .any(|argument| argument == data.as_os_str().as_bytes());
    if is_ours {
        let killed = Command::new("kill").args(["-KILL", pid]).status();
        ensure!(
            killed.context("failed to run kill")?.success(),
            "failed to end the server of an earlier demo, process {pid}"
        );
    }
    Ok(())
}

/// Runs the demo. In a terminal, the server keeps running until Ctrl-C.
pub async fn demo(target: Target) -> Result<()> {
    let began = Instant::now();
    let mut parts = Vec::new();
    let stays = std::io::stdout().is_terminal() && std::env::var("CI").is_err();
    let server = part(
        &mut parts,
        1,
        "find a container engine, fetch cargo's downloads, remove what an earlier run left",
        prepare(CLAIMS, target),
    )
    .await?;
    let server = part(&mut parts, 2, "`towpath up`", start(server)).await?;
    let repository = Repository::of_example(&folder(CLAIMS)?.join("work")).await?;
    let api = server.api()?;
    let mut demo = Demo {
        server,
        repository,
        api,
        parts,
        to_first_line: Duration::ZERO,
        traffic: Vec::new(),
        commits: Vec::new(),
    };
    let result = demo.journey().await;
    if let Err(error) = result {
        eprintln!("\nThe server's log ends with:\n{}", demo.server.log_tail(20));
        demo.server.stop().await?;
        clean().await?;
        return Err(error);
    }
    demo.summary(began.elapsed());
    if stays {
        println!("\nThe server keeps running. Press Ctrl-C to end it and to remove everything that the demo created.");
        until_told_to_end().await.context("failed to wait for Ctrl-C")?;
    }
    demo.server.stop().await?;
    clean().await
}

/// Waits for Ctrl-C, SIGTERM, or the end of the terminal.
async fn until_told_to_end() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut ended = signal(SignalKind::terminate())?;
    let mut hung_up = signal(SignalKind::hangup())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result?,
        _ = ended.recv() => {}
        _ = hung_up.recv() => {}
    }
    Ok(())
}

/// One step of a demo: says what it does, and how long it took.
pub async fn part<T>(
    parts: &mut Vec<(String, Duration)>,
    number: usize,
    what: &str,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    println!("\n{number}. {what}");
    let began = Instant::now();
    let result = work.await.with_context(|| format!("step {number} failed: {what}"))?;
    let took = began.elapsed();
    println!("   done in {:.1} s", took.as_secs_f64());
    parts.push((what.to_string(), took));
    Ok(result)
}

/// Prints lines of a step.
pub fn say(text: impl AsRef<str>) {
    for line in text.as_ref().lines() {
        println!("   {line}");
    }
}

/// Prepares the cluster: a namespace for each environment, and volumes for its data. Answers the kubeconfig.
async fn prepare_cluster(folder: &Path) -> Result<PathBuf> {
    let cluster = Cluster::get().await.map_err(|absent| anyhow::anyhow!(absent.0))?;
    for namespace in NAMESPACES {
        cluster
            .kubectl(&["delete", "namespace", namespace, "--ignore-not-found"])
            .await?;
        cluster.kubectl(&["create", "namespace", namespace]).await?;
        // The cluster does not create volumes by itself.
        let volume_folder = folder.join("volumes").join(namespace);
        match std::fs::remove_dir_all(&volume_folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        std::fs::create_dir_all(&volume_folder)
            .with_context(|| format!("failed to create `{}`", volume_folder.display()))?;
        let volume = serde_json::json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": namespace},
            "spec": {
                "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Retain",
                "hostPath": {"path": volume_folder, "type": "Directory"},
                "claimRef": {"namespace": namespace, "name": "claims-data"},
            },
        });
        cluster
            .kubectl(&["delete", "persistentvolume", namespace, "--ignore-not-found"])
            .await?;
        cluster
            .kubectl_with(&["apply", "--filename", "-"], &volume.to_string())
            .await?;
    }
    say(format!(
        "a cluster (kube context `{}`) with the namespaces {}",
        Cluster::KUBE_CONTEXT,
        NAMESPACES.join(", ")
    ));
    Ok(cluster.kubeconfig().to_path_buf())
}

/// Removes what an earlier demo of the example left, and makes ready what its server needs.
pub async fn prepare(example: Example, target: Target) -> Result<ServerOptions> {
    if let Err(absent) = engine_answers().await {
        bail!("{}", absent.0);
    }
    clean_up(example).await?;
    let folder = folder(example)?;
    std::fs::create_dir_all(folder.join("work")).with_context(|| format!("failed to create `{}`", folder.display()))?;
    let folder = folder
        .canonicalize()
        .with_context(|| format!("failed to find `{}`", folder.display()))?;
    // The jobs run offline, so fetch here, once, what cargo needs.
    let fetched = Command::new("cargo")
        .args(["fetch", "--locked"])
        .current_dir(example_directory(example.project))
        .status();
    ensure!(
        fetched.context("failed to run cargo")?.success(),
        "cargo failed to fetch the example's dependencies"
    );
    let kubeconfig = match target {
        Target::Local => None,
        Target::Kubernetes => Some(prepare_cluster(&folder).await?),
    };
    let this = std::env::current_exe().context("failed to find this program")?;
    let port = match TcpListener::bind(("127.0.0.1", PORT)) {
        Ok(_) => PORT,
        Err(_) => {
            say(format!("port {PORT} is taken; using another one"));
            0
        }
    };
    Ok(ServerOptions {
        binary: this.with_file_name("towpath"),
        data_dir: folder.join("data"),
        listen: format!("127.0.0.1:{port}"),
        host_environment: host_environment_for_cargo(&folder.join("cargo-build")),
        variables: Vec::new(),
        log: folder.join("server.log"),
        kubeconfig,
    })
}

/// Starts the server of a demo.
pub async fn start(options: ServerOptions) -> Result<Towpath> {
    match std::fs::remove_file(&options.log) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let server = Towpath::start(options).await?;
    say(format!("pages, git remote and registry: {}", server.base()));
    say(format!(
        "sign in with the token in {}",
        server.data_dir().join("token").display()
    ));
    Ok(server)
}

impl Demo {
    async fn journey(&mut self) -> Result<()> {
        let mut parts = std::mem::take(&mut self.parts);
        let result = self.walk(&mut parts).await;
        self.parts = parts;
        result
    }

    async fn walk(&mut self, parts: &mut Vec<(String, Duration)>) -> Result<()> {
        let pipeline = part(
            parts,
            3,
            "connect a repository with `towpath init`, and `git push`",
            self.connect_and_push(),
        )
        .await?;
        let workflow = self.api.workflow_of(&pipeline, MAIN).await?;
        let gate = part(
            parts,
            4,
            "test, build an image, run a smoke test in it, and hold",
            self.until_on_hold(&workflow),
        )
        .await?;
        part(parts, 5, "look at the registry", self.look_at_the_registry()).await?;
        part(
            parts,
            6,
            "the gate of dev: see what approving would change, approve, deploy",
            self.first_release(&workflow, &gate),
        )
        .await?;
        part(
            parts,
            7,
            "change one line, roll it out and back while clients send requests",
            self.change_and_go_back(),
        )
        .await?;
        part(
            parts,
            8,
            "push another branch: tests run at once, the rest waits behind gates",
            self.branch(),
        )
        .await?;
        part(parts, 9, "deploy from the laptop, without a pipeline", self.laptop()).await
    }

    async fn towpath(&self, arguments: &[&str], input: &str) -> Result<String> {
        println!("   $ towpath {}", arguments.join(" "));
        self.server
            .run(self.repository.directory(), arguments, input.as_bytes())
            .await
    }

    async fn connect_and_push(&mut self) -> Result<Pipeline> {
        say(self.towpath(&["init"], "").await?);
        self.repository.commit("Connect the repository to Towpath").await?;
        let pipeline = self.push("main").await?;
        // The push says where the environments are, and so where their Secrets are.
        for environment in ["dev", "staging", "production"] {
            let set = |secret, key| ["secrets", "set", environment, secret, key];
            // A Secret that a team sets by hand, and one that Terraform would have created.
            self.towpath(
                &set("claims-secrets", "SESSION_KEY"),
                &format!("only-for-{environment}"),
            )
            .await?;
            self.towpath(&set("claims-rds", "url"), "sqlite:///data/claims.db")
                .await?;
        }
        Ok(pipeline)
    }

    async fn push(&mut self, branch: &str) -> Result<Pipeline> {
        println!("   $ git push towpath {branch}");
        let began = Instant::now();
        let said = self.repository.push(branch).await?;
        say(said
            .lines()
            .filter_map(|line| Some(line.strip_prefix("remote: ")?.trim_end()))
            .filter(|line| !line.is_empty())
            .collect::<Vec<_>>()
            .join("\n"));
        let head = self.repository.head().await?;
        self.commits.push(head.clone());
        let pipeline = self.api.pipeline_of(PROJECT, branch, &head, BOUND).await?;
        if self.to_first_line.is_zero() {
            self.to_first_line = self.first_line(&pipeline, began).await?;
        }
        Ok(pipeline)
    }

    /// The time from the push to the first byte of the first job's log.
    async fn first_line(&self, pipeline: &Pipeline, began: Instant) -> Result<Duration> {
        let workflow = self.api.workflow_of(pipeline, MAIN).await?;
        until("the first line of the first job's log", BOUND, async || {
            let jobs = self.api.jobs(&workflow.id).await?;
            let Some(number) = jobs.iter().find_map(|job| job.job_number) else {
                return Ok(Probe::NotYet("no job has begun".into()));
            };
            let detail: serde_json::Value = self.api.get(&format!("/api/towpath/jobs/{PROJECT}/{number}")).await?;
            let bytes = detail.pointer("/steps/0/log_bytes").and_then(serde_json::Value::as_u64);
            Ok(match bytes {
                Some(bytes) if bytes > 0 => Probe::Found(began.elapsed()),
                _ => Probe::NotYet(detail.to_string()),
            })
        })
        .await
    }

    async fn until_on_hold(&self, workflow: &Workflow) -> Result<Gate> {
        for job in ["test", "build-app-container", "smoke-test"] {
            let began = Instant::now();
            let done = self.api.job_until(PROJECT, workflow, job, &["success"], BOUND).await?;
            say(format!(
                "{job}: {} ({:.1} s)",
                done.status,
                began.elapsed().as_secs_f64()
            ));
        }
        let gate = self.api.gate_of(PROJECT, workflow, "hold-dev", BOUND).await?;
        say(format!(
            "{} waits at {}/gates/{}",
            gate.name,
            self.server.base(),
            gate.job
        ));
        Ok(gate)
    }

    async fn look_at_the_registry(&self) -> Result<()> {
        let head = self.repository.head().await?;
        let tags = self.api.tags(PROJECT).await?;
        let commits = format!("app-{head}");
        let dated = tags
            .iter()
            .find(|tag| tag.starts_with("app-latest-"))
            .context("the registry has no tag app-latest-<timestamp>")?;
        let digest = self.api.digest(PROJECT, &commits).await?;
        for tag in [commits.as_str(), "app-latest", dated.as_str()] {
            let of_tag = self.api.digest(PROJECT, tag).await?;
            ensure!(of_tag == digest, "{tag} points to {of_tag}, not to {digest}");
            say(format!("{tag} -> {digest}"));
        }
        Ok(())
    }

    /// Shows a gate's plan, approves exactly that plan, and waits for the deployment.
    async fn approve(&self, workflow: &Workflow, gate: &Gate, deploys: &str) -> Result<()> {
        let plan = gate
            .plan
            .as_ref()
            .with_context(|| format!("the gate has no plan: {:?}", gate.plan_error))?;
        ensure!(
            plan.blockers.is_empty(),
            "the plan cannot be carried out: {:?}",
            plan.blockers
        );
        say(format!("plan {} for {}: {}", plan.id, plan.environment, plan.image));
        for change in &plan.changes {
            say(format!("  {} {} {}", change.action, change.kind, change.name));
            if change.action == "changed" {
                let lines = change.diff.lines().filter(|line| {
                    (line.starts_with('-') || line.starts_with('+'))
                        && !line.starts_with("---")
                        && !line.starts_with("+++")
                });
                say(lines.map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n"));
            }
        }
        let (gate, plan) = (gate.job.to_string(), plan.id.to_string());
        self.towpath(&["approve", &gate, "--plan", &plan], "").await?;
        self.api
            .job_until(PROJECT, workflow, deploys, &["success"], BOUND)
            .await
            .map(drop)
    }

    async fn first_release(&self, workflow: &Workflow, gate: &Gate) -> Result<()> {
        self.approve(workflow, gate, "deploy-dev").await?;
        say(self.towpath(&["status", "dev"], "").await?);
        let commit = self.runs().await?;
        ensure!(
            commit == self.repository.head().await?,
            "the application runs commit {commit}"
        );
        say(format!("{}/ping.json answers commit {commit}", self.address().await?));
        for (job, status) in [("hold-staging", "on_hold"), ("hold-production", "blocked")] {
            self.api.job_until(PROJECT, workflow, job, &[status], BOUND).await?;
            say(format!("{job}: {}", status.replace('_', " ")));
        }
        Ok(())
    }

    async fn address(&self) -> Result<String> {
        let environment = self.api.environment(PROJECT, "dev").await?;
        environment.addresses.first().cloned().context("dev has no address")
    }

    /// The commit that the application in dev reports.
    async fn runs(&self) -> Result<String> {
        let traffic = Traffic::start(
            &format!("{}/ping.json", self.address().await?),
            Duration::from_millis(50),
            commit_of,
        )?;
        let answered = until("the application to answer", BOUND, async || {
            let report = traffic.so_far();
            Ok(match report.answers.keys().next() {
                Some(commit) => Probe::Found(commit.clone()),
                None => Probe::NotYet(report.summary()),
            })
        })
        .await;
        traffic.stop().await;
        answered
    }

    async fn change_and_go_back(&mut self) -> Result<()> {
        let first = self.repository.head().await?;
        let config = ".k8s/live/dev/app-config.yaml";
        self.repository
            .replace(config, "Claims, the development copy", "Claims, with one line changed")?;
        self.repository.commit("Change the greeting in dev").await?;
        let pipeline = self.push("main").await?;
        let workflow = self.api.workflow_of(&pipeline, MAIN).await?;
        let gate = self.until_on_hold(&workflow).await?;
        let shown = gate
            .plan
            .iter()
            .flat_map(|plan| &plan.changes)
            .any(|change| change.diff.contains("with one line changed"));
        ensure!(shown, "the gate does not show the line that changed");
        let url = format!("{}/ping.json", self.address().await?);

        let traffic = Traffic::start(&url, Duration::from_millis(10), commit_of)?;
        self.approve(&workflow, &gate, "deploy-dev").await?;
        let second = self.repository.head().await?;
        self.count("rolling out", traffic, &[&first, &second]).await?;

        let traffic = Traffic::start(&url, Duration::from_millis(10), commit_of)?;
        say(self.towpath(&["rollback", "dev"], "").await?);
        self.count("rolling back", traffic, &[&second, &first]).await
    }

    async fn count(&mut self, what: &str, traffic: Traffic, commits: &[&str]) -> Result<()> {
        let report = traffic.stop().await;
        say(format!("{what}: {}", report.summary()));
        ensure!(
            report.failures.is_empty(),
            "requests failed while {what}: {}",
            report.summary()
        );
        for commit in commits {
            let seen = report.answers.get(*commit).copied().unwrap_or_default();
            ensure!(seen > 0, "{commit} answered no request while {what}");
        }
        self.traffic.push((what.to_string(), report));
        Ok(())
    }

    async fn branch(&mut self) -> Result<()> {
        self.repository
            .git(&["checkout", "--quiet", "-b", "feature/greeting"])
            .await?;
        self.repository
            .replace("README.md", "# Claims\n", "# Expense claims\n")?;
        self.repository.commit("Say what kind of claims these are").await?;
        let pipeline = self.push("feature/greeting").await?;
        let tests = self.api.workflow_of(&pipeline, "test-branch").await?;
        let rest = self.api.workflow_of(&pipeline, "build-deploy-branch").await?;
        self.api.job_until(PROJECT, &tests, "test", &["success"], BOUND).await?;
        say("test-branch: the tests passed");
        let build = self.api.gate_of(PROJECT, &rest, "hold-build", BOUND).await?;
        say("build-deploy-branch: waits for approval to build");
        self.towpath(&["approve", &build.job.to_string(), "--yes"], "").await?;
        for gate in ["hold-dev", "hold-staging"] {
            let gate = self.api.gate_of(PROJECT, &rest, gate, BOUND).await?;
            say(format!(
                "build-deploy-branch: {} offers {}",
                gate.name,
                gate.environment
                    .map(|id| id.environment().to_string())
                    .unwrap_or_default()
            ));
        }
        let jobs = self.api.jobs(&rest.id).await?;
        let production = jobs.iter().any(|job| job.name.contains("production"));
        ensure!(!production, "a branch is offered production: {jobs:?}");
        say("build-deploy-branch: production is not offered");
        Ok(())
    }

    async fn laptop(&self) -> Result<()> {
        say(self.towpath(&["job", "migrate", "dev"], "").await?);
        say(self.towpath(&["cronjob", "vacuum_db", "dev"], "").await?);
        for tag in [
            "feature/greeting-latest",
            self.commits.first().map_or("latest", String::as_str),
            "latest",
        ] {
            let said = self.towpath(&["deploy", "dev", tag], "").await?;
            say(said.lines().last().unwrap_or_default());
        }
        say(self.towpath(&["status", "dev"], "").await?);
        Ok(())
    }

    fn summary(&self, total: Duration) {
        println!("\nFrom push to deployed in {:.1} s:", total.as_secs_f64());
        for (number, (what, took)) in (1..).zip(&self.parts) {
            println!("  {number}. {:>6.1} s  {what}", took.as_secs_f64());
        }
        println!(
            "  from `git push` to the first line of the first job's log: {} ms",
            self.to_first_line.as_millis()
        );
        for (what, report) in &self.traffic {
            println!("  {what}: {}", report.summary());
        }
        if let Some(kilobytes) = self.server.resident_kilobytes() {
            println!("  the server's memory now: {} MiB", kilobytes >> 10);
        }
        println!("Look at:");
        println!(
            "  {}   (sign in with the token in {})",
            self.server.base(),
            self.server.data_dir().join("token").display()
        );
        println!(
            "  TOWPATH_DATA_DIR={} towpath status dev",
            self.server.data_dir().display()
        );
    }
}

/// The commit in an answer of the application's `/ping.json`.
fn commit_of(body: &str) -> String {
    let json: Result<serde_json::Value, _> = serde_json::from_str(body);
    json.ok()
        .and_then(|json| Some(json.get("commit")?.as_str()?.to_string()))
        .unwrap_or_else(|| body.to_string())
}
