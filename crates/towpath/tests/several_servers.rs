//! Several servers on one PostgreSQL and one data directory. They run as processes that are killed, and lose their database,
//! while jobs run, people push, and gates are opened.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use towpath_testkit::{
    Api, Pipeline, Postgres, Probe, Repository, ServerOptions, Towpath, engine_answers, file_for_everybody, quiet_port,
    skipped, until,
};

const PROJECT: &str = "app";
const JOBS: usize = 60;
/// How many numbered lines each job prints.
const LINES: usize = 25;
const BOUND: Duration = Duration::from_secs(120);

/// Servers on one database, and a repository whose workflow has many concurrent jobs. Each job writes its name to the file
/// `ran` when it runs, and prints numbered lines.
struct World {
    folder: tempfile::TempDir,
    postgres: Postgres,
    servers: Vec<Towpath>,
    /// The pipeline of the first push.
    pipeline: Pipeline,
}

impl World {
    /// Starts one server for each name and pushes. Returns the repository, too; `None` if the machine lacks a requirement.
    async fn start(test: &str, names: &[&str], pause_between_lines: &str) -> Option<(Self, Repository)> {
        if let Err(absent) = engine_answers().await {
            skipped(test, &absent);
            return None;
        }
        let postgres = match Postgres::start().unwrap() {
            Ok(postgres) => postgres,
            Err(absent) => {
                skipped(test, &absent);
                return None;
            }
        };
        let database = postgres.database().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut servers = Vec::new();
        for name in names {
            let options = ServerOptions {
                binary: env!("CARGO_BIN_EXE_towpath").into(),
                data_dir: folder.path().join("data"),
                listen: format!("127.0.0.1:{}", quiet_port().unwrap()),
                host_environment: Vec::new(),
                variables: vec![
                    ("TOWPATH_DATABASE".into(), database.clone()),
                    ("TOWPATH_NAME".into(), (*name).into()),
                ],
                log: folder.path().join(format!("{name}.log")),
                kubeconfig: None,
            };
            servers.push(Towpath::start(options).await.unwrap());
        }
        file_for_everybody(&folder.path().join("ran")).unwrap();
        let config = config(&folder.path().join("ran"), pause_between_lines);
        let files = [(".circleci/config.yml", config.as_str())];
        let repository = Repository::of_files(folder.path(), PROJECT, &files).await.unwrap();
        let said = servers[0].run(repository.directory(), &["init"], b"").await.unwrap();
        assert!(said.contains("added   git remote `towpath`"), "{said}");
        repository.push("HEAD").await.unwrap();
        let head = repository.head().await.unwrap();
        let pipelines = servers[0].api().unwrap().pipelines(PROJECT).await.unwrap();
        let pipeline = pipelines
            .into_iter()
            .find(|pipeline| pipeline.vcs.revision == head)
            .unwrap();
        let world = Self {
            folder,
            postgres,
            servers,
            pipeline,
        };
        Some((world, repository))
    }

    fn ran(&self) -> PathBuf {
        self.folder.path().join("ran")
    }

    async fn until_ran(&self, wanted: usize) {
        let ran = self.ran();
        let under_way = until(format!("{wanted} jobs that ran"), BOUND, async || {
            Ok(match lines(&ran).len() {
                count if count >= wanted => Probe::Found(()),
                count => Probe::NotYet(format!("{count} ran")),
            })
        });
        under_way.await.unwrap();
    }

    /// Waits for the end of the workflow. Checks that each job ran once, succeeded, and kept every line that it printed.
    async fn check(mut self) {
        let api = self.servers.last().unwrap().api().unwrap();
        let workflow = api.workflow_of(&self.pipeline, "w").await.unwrap();
        let ran = self.ran();
        let ended = until("the end of the workflow", BOUND, async || {
            let status = api.workflow(&workflow.id).await?.status;
            Ok(match status.as_str() {
                "success" => Probe::Found(()),
                "running" => Probe::NotYet(format!("running, {} ran", lines(&ran).len())),
                other => Probe::Never(other.to_string()),
            })
        });
        let ended = ended.await;
        let said: Vec<String> = self.servers.iter().map(|server| server.log_tail(10)).collect();
        assert!(ended.is_ok(), "{ended:?}\n{}", said.join("\n"));
        let all = lines(&ran);
        let once: BTreeSet<&String> = all.iter().collect();
        assert_eq!((all.len(), once.len()), (JOBS, JOBS), "a job ran twice, or not at all");
        for job in api.jobs(&workflow.id).await.unwrap() {
            let log = api.log(PROJECT, job.job_number.unwrap()).await.unwrap();
            let printed: Vec<&str> = log.lines().filter(|line| line.starts_with("line ")).collect();
            let wanted: Vec<String> = (1..=LINES).map(|line| format!("line {line} of {}", job.name)).collect();
            assert_eq!(printed, wanted, "the log of {}", job.name);
        }
        for server in &mut self.servers {
            server.stop().await.unwrap();
        }
    }
}

fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_string).collect()
}

fn config(ran: &Path, pause_between_lines: &str) -> String {
    let mut jobs = String::from("version: 2.1\njobs:\n");
    let mut workflow = String::from("workflows:\n  w:\n    jobs:\n");
    for job in 0..JOBS {
        let print =
            format!("for n in $(seq 1 {LINES}); do echo \"line $n of job-{job}\"; sleep {pause_between_lines}; done");
        writeln!(
            jobs,
            "  job-{job}:\n    machine: true\n    steps:\n      - run: |\n          echo job-{job} >> {}\n          {print}",
            ran.display()
        )
        .unwrap();
        writeln!(workflow, "      - job-{job}").unwrap();
    }
    jobs + &workflow
}

/// How many branches are pushed at most.
const PUSHES: usize = 24;
/// How long one push or one call may take.
const PATIENCE: Duration = Duration::from_secs(40);
/// How often somebody looks for gates that wait.
const LOOK: Duration = Duration::from_millis(100);

/// People who push branches and open gates while servers are killed. They go to whichever server answers.
struct People {
    repository: Repository,
    data: PathBuf,
    /// The branches whose gate is open: the job behind it adds a line.
    opened: PathBuf,
    apis: Vec<Api>,
    /// The address of the repository at each server.
    remotes: Vec<String>,
    /// The next server to ask.
    turn: AtomicUsize,
    tried: AtomicUsize,
    /// Each branch whose push was acknowledged, and its commit.
    pushed: Mutex<BTreeMap<String, String>>,
    /// The workflows whose approval was acknowledged.
    approved: Mutex<BTreeSet<String>>,
    is_over: AtomicBool,
}

impl People {
    /// Commits a configuration with a gate, and a job behind it.
    async fn of(world: &World, repository: Repository) -> Self {
        let data = world.folder.path().join("data");
        let opened = world.folder.path().join("opened");
        file_for_everybody(&opened).unwrap();
        // What `towpath init` tells git for one server, for each of them.
        let token = data.join("token");
        let helper = format!(
            "!f() {{ echo username=towpath; echo \"password=$(cat '{}')\"; }}; f",
            token.display()
        );
        for server in &world.servers {
            let key = format!("credential.{}.helper", server.base());
            repository.git(&["config", &key, &helper]).await.unwrap();
        }
        let config = format!(
            "version: 2.1\njobs:\n  open:\n    machine: true\n    steps:\n      - run: echo \"$CIRCLE_BRANCH\" >> {}\n\
             workflows:\n  w:\n    jobs:\n      - hold: {{type: approval}}\n      - open: {{requires: [hold]}}\n",
            opened.display()
        );
        repository.write(".circleci/config.yml", &config).unwrap();
        repository.commit("Wait at a gate").await.unwrap();
        let servers = world.servers.iter();
        Self {
            repository,
            data,
            opened,
            apis: servers.clone().map(|server| server.api().unwrap()).collect(),
            remotes: servers
                .map(|server| format!("{}/git/{PROJECT}.git", server.base()))
                .collect(),
            turn: AtomicUsize::new(0),
            tried: AtomicUsize::new(0),
            pushed: Mutex::default(),
            approved: Mutex::default(),
            is_over: AtomicBool::new(false),
        }
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// The number of the server whose turn it is.
    fn next(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed) % self.apis.len()
    }

    /// Pushes new branches, each until a server has acknowledged it.
    async fn push(&self) {
        while !self.is_over() {
            let number = self.tried.fetch_add(1, Ordering::Relaxed);
            if number >= PUSHES {
                return;
            }
            let branch = format!("branch-{number}");
            let made = ["commit-tree", "HEAD^{tree}", "-p", "HEAD", "-m", &branch];
            let commit = self.repository.git(&made).await.unwrap().trim().to_string();
            let refspec = format!("{commit}:refs/heads/{branch}");
            // One server is away at a time.
            for _ in 0..self.remotes.len() {
                let arguments = ["push", "--quiet", &self.remotes[self.next()], &refspec];
                let push = tokio::time::timeout(PATIENCE, self.repository.git(&arguments));
                if let Ok(Ok(_)) = push.await {
                    self.pushed.lock().unwrap().insert(branch, commit);
                    break;
                }
            }
        }
    }

    async fn approve(&self) {
        while !self.is_over() {
            // What fails is tried again at the next server.
            let _ = tokio::time::timeout(PATIENCE, self.approve_once()).await;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Opens each gate that waits, at two servers at once.
    async fn approve_once(&self) -> anyhow::Result<()> {
        let api = &self.apis[self.next()];
        for pipeline in self.pipelines(api).await? {
            for workflow in api.workflows(&pipeline.id).await? {
                if self.approved.lock().unwrap().contains(&workflow.id) {
                    continue;
                }
                for job in api.jobs(&workflow.id).await? {
                    if job.status != "on_hold" {
                        continue;
                    }
                    let [one, other] = [self.next(), self.next()].map(|number| &self.apis[number]);
                    let told = tokio::join!(
                        one.approve_as_circleci(&workflow.id, &job),
                        other.approve_as_circleci(&workflow.id, &job)
                    );
                    if told.0.is_ok() || told.1.is_ok() {
                        self.approved.lock().unwrap().insert(workflow.id.clone());
                    }
                }
            }
        }
        Ok(())
    }

    /// The pipelines of the branches that were pushed.
    async fn pipelines(&self, api: &Api) -> anyhow::Result<Vec<Pipeline>> {
        let mut pipelines = api.all_pipelines(PROJECT).await?;
        pipelines.retain(|pipeline| pipeline.vcs.branch.as_deref().is_some_and(|branch| branch != "main"));
        Ok(pipelines)
    }

    /// Checks that each push that was acknowledged, or that moved its ref, has one pipeline, that each approval that was
    /// acknowledged opened its gate, and that every gate opens once. Opens the gates that are left.
    async fn check(self) {
        let api = &self.apis[0];
        let repository = self.data.join("git").join(format!("{PROJECT}.git"));
        let format = "--format=%(refname:lstrip=2) %(objectname)";
        let refs = [
            "--git-dir",
            repository.to_str().unwrap(),
            "for-each-ref",
            format,
            "refs/heads/branch-*",
        ];
        let refs = self.repository.git(&refs).await.unwrap();
        let refs = refs.lines().filter_map(|line| line.split_once(' '));
        let moved: BTreeMap<String, String> = refs.map(|(branch, commit)| (branch.into(), commit.into())).collect();
        let pushed = self.pushed.lock().unwrap().clone();
        for (branch, commit) in &pushed {
            assert_eq!(moved.get(branch), Some(commit), "git lost the push of {branch}");
        }
        let approved = self.approved.lock().unwrap().clone();
        for workflow in &approved {
            let jobs = api.jobs(workflow).await.unwrap();
            let hold = jobs.iter().find(|job| job.name == "hold").unwrap();
            assert_eq!(hold.status, "success", "an approval of {workflow} was acknowledged");
        }
        println!(
            "{} of {} pushes and {} approvals were acknowledged while servers were killed",
            pushed.len(),
            self.tried.load(Ordering::Relaxed).min(PUSHES),
            approved.len()
        );
        assert!(pushed.len() > 3 && !approved.is_empty(), "too little happened");

        let ended = until("a pipeline of each push, and its end", BOUND, async || {
            self.approve_once().await?;
            let pipelines = self.pipelines(api).await?;
            let is_of = |pipeline: &Pipeline, branch: &str| pipeline.vcs.branch.as_deref() == Some(branch);
            for branch in moved.keys() {
                if !pipelines.iter().any(|pipeline| is_of(pipeline, branch)) {
                    return Ok(Probe::NotYet(format!("{branch} has none")));
                }
            }
            for pipeline in &pipelines {
                for workflow in api.workflows(&pipeline.id).await? {
                    if workflow.status != "success" {
                        return Ok(Probe::NotYet(format!(
                            "{:?} is {}",
                            pipeline.vcs.branch, workflow.status
                        )));
                    }
                }
            }
            Ok(Probe::Found(pipelines))
        });
        let mut of_branch: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pipeline in ended.await.unwrap() {
            let branch = pipeline.vcs.branch.unwrap();
            of_branch.entry(branch).or_default().push(pipeline.vcs.revision);
        }
        let wanted = moved.into_iter().map(|(branch, commit)| (branch, vec![commit]));
        let wanted: BTreeMap<String, Vec<String>> = wanted.collect();
        assert_eq!(of_branch, wanted, "one pipeline of each push");
        let mut opened = lines(&self.opened);
        opened.sort();
        assert_eq!(opened, Vec::from_iter(wanted.into_keys()), "every gate opens once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_job_runs_once_and_no_line_is_lost_while_servers_are_killed() {
    let name = "every_job_runs_once_and_no_line_is_lost_while_servers_are_killed";
    let Some((mut world, repository)) = World::start(name, &["first", "second", "third"], "0.01").await else {
        return;
    };
    let people = People::of(&world, repository).await;
    let kills = async {
        for index in 0..world.servers.len() {
            world.until_ran(JOBS / 5 * (index + 1)).await;
            let server = &mut world.servers[index];
            server.kill().await.unwrap();
            server.start_again().await.unwrap();
        }
        people.is_over.store(true, Ordering::Relaxed);
    };
    let pushes = futures::future::join_all([(); 4].map(|()| people.push()));
    tokio::join!(kills, pushes, people.approve());
    people.check().await;
    world.check().await;
}

/// How many seconds the database is away.
const OUTAGE: &str = "TOWPATH_TEST_OUTAGE_SECONDS";

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_crashes_and_comes_back_ends_no_job_and_loses_no_line() {
    let name = "a_database_that_crashes_and_comes_back_ends_no_job_and_loses_no_line";
    let outage = std::env::var(OUTAGE).map_or(5, |seconds| seconds.parse().unwrap());
    let Some((world, _)) = World::start(name, &["first", "second"], "0.02").await else {
        return;
    };
    world.until_ran(JOBS / 4).await;
    world.postgres.crash().unwrap();
    // This sleep is the outage itself, not a wait for a condition.
    tokio::time::sleep(Duration::from_secs(outage)).await;
    world.postgres.resume().unwrap();
    world.check().await;
}
