//! How much memory a server takes, and how many jobs one, two and three servers run in a second, with and without kills.
//!
//! This is not a test. It prints tables in which each figure stands beside a floor or a goal.

use anyhow::{Context, Result, bail, ensure};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use towpath_testkit::{Pipeline, Postgres, Probe, Repository, ServerOptions, Towpath, file_for_everybody, until};

const PROJECT: &str = "app";
/// How many pipelines are run between two looks at the memory.
const PIPELINES: usize = 1_000;
/// The number of jobs in a workflow whose speed is measured.
const JOBS: usize = 300;
/// How many jobs run while servers are killed.
const JOBS_OF_KILLS: usize = 1_000;
/// How many numbered lines each of the killed servers' jobs prints.
const LINES: usize = 20;
/// A server is killed this long after the one before came back.
const BETWEEN_KILLS: Duration = Duration::from_secs(3);
/// The goal for idle memory and for growth, in mebibytes.
const IDLE_GOAL: f64 = 40.0;
const GROWTH_GOAL: f64 = 20.0;
/// How long anything may take.
const BOUND: Duration = Duration::from_secs(900);

/// Some servers on one database, and a repository that was pushed to them.
struct Servers {
    folder: tempfile::TempDir,
    servers: Vec<Towpath>,
    head: String,
}

impl Servers {
    async fn start(
        towpath: &Path,
        names: &[&str],
        database: Option<&str>,
        config: impl Fn(&Path) -> String,
    ) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut servers = Vec::new();
        for name in names {
            let mut variables = Vec::new();
            if let Some(database) = database {
                variables.push(("TOWPATH_DATABASE".to_string(), database.to_string()));
                variables.push(("TOWPATH_NAME".to_string(), (*name).to_string()));
            }
            servers.push(
                Towpath::start(ServerOptions {
                    binary: towpath.to_path_buf(),
                    data_dir: folder.path().join("data"),
                    listen: "127.0.0.1:0".into(),
                    host_environment: Vec::new(),
                    variables,
                    log: folder.path().join(format!("{name}.log")),
                    kubeconfig: None,
                })
                .await?,
            );
        }
        file_for_everybody(&folder.path().join("ran"))?;
        let config = config(folder.path());
        let files = [(".circleci/config.yml", config.as_str())];
        let repository = Repository::of_files(folder.path(), PROJECT, &files).await?;
        let first = servers.first().context("there is no server")?;
        first.run(repository.directory(), &["init"], b"").await?;
        repository.push("HEAD").await?;
        let head = repository.head().await?;
        Ok(Self { folder, servers, head })
    }

    fn ran(&self) -> usize {
        std::fs::read_to_string(self.folder.path().join("ran")).map_or(0, |text| text.lines().count())
    }

    async fn pipeline(&self) -> Result<Pipeline> {
        let pipelines = self
            .servers
            .first()
            .context("there is no server")?
            .api()?
            .pipelines(PROJECT)
            .await?;
        let pushed = pipelines
            .into_iter()
            .find(|pipeline| pipeline.vcs.revision == self.head);
        pushed.context("the push has no pipeline")
    }

    /// Waits until the workflow has succeeded.
    async fn succeed(&self) -> Result<()> {
        let api = self.servers.last().context("there is no server")?.api()?;
        let workflow = api.workflow_of(&self.pipeline().await?, "w").await?;
        until("the end of the workflow", BOUND, async || {
            // A server that was killed just now does not answer.
            let Ok(workflow) = api.workflow(&workflow.id).await else {
                return Ok(Probe::NotYet("no answer".into()));
            };
            Ok(match workflow.status.as_str() {
                "success" => Probe::Found(()),
                "running" => Probe::NotYet("running".into()),
                other => Probe::Never(other.to_string()),
            })
        })
        .await
    }

    async fn stop(mut self) -> Result<()> {
        for server in &mut self.servers {
            server.stop().await?;
        }
        Ok(())
    }
}

/// Writes a workflow of concurrent jobs. Each job writes its name to `ran` in the folder, and prints `lines` numbered lines.
fn jobs_at_once(folder: &Path, count: usize, lines: usize) -> String {
    let ran = folder.join("ran");
    let mut jobs = String::from("version: 2.1\njobs:\n");
    let mut workflow = String::from("workflows:\n  w:\n    jobs:\n");
    for job in 0..count {
        let _ = write!(
            jobs,
            "  job-{job}:\n    machine: true\n    steps:\n      - run: |\n          echo job-{job} >> {}\n          for n in $(seq 1 \
             {lines}); do echo \"line $n\"; done\n",
            ran.display()
        );
        let _ = writeln!(workflow, "      - job-{job}");
    }
    jobs + &workflow
}

/// Prints the tables.
pub async fn bench() -> Result<()> {
    let towpath = std::env::current_exe()
        .context("failed to find this program")?
        .with_file_name("towpath");
    memory(&towpath).await?;
    throughput(&towpath).await?;
    kills(&towpath).await
}

fn mebibytes(server: &Towpath) -> Result<f64> {
    let kibibytes = server.resident_kilobytes().context("the server is gone")?;
    // The value is at most some millions, which a double holds exactly.
    Ok(f64::from(u32::try_from(kibibytes)?) / 1024.0)
}

async fn memory(towpath: &Path) -> Result<()> {
    let one_job = |_: &Path| {
        "version: 2.1\njobs:\n  j: {machine: true, steps: [{run: 'true'}]}\nworkflows:\n  w: {jobs: [j]}\n".to_string()
    };
    let empty = tempfile::tempdir()?;
    let mut idle = Towpath::start(ServerOptions {
        binary: towpath.to_path_buf(),
        data_dir: empty.path().join("data"),
        listen: "127.0.0.1:0".into(),
        host_environment: Vec::new(),
        variables: Vec::new(),
        log: empty.path().join("log"),
        kubeconfig: None,
    })
    .await?;
    let empty = mebibytes(&idle)?;
    idle.stop().await?;

    let servers = Servers::start(towpath, &["only"], None, one_job).await?;
    servers.succeed().await?;
    let [server] = servers.servers.as_slice() else {
        bail!("there is more than one server");
    };
    let before = mebibytes(server)?;
    let api = server.api()?;
    let began = Instant::now();
    for _ in 0..PIPELINES {
        let path = format!("/api/v2/project/towpath/local/{PROJECT}/pipeline");
        api.post(&path, serde_json::json!({})).await?;
    }
    let newest = api
        .pipelines(PROJECT)
        .await?
        .into_iter()
        .next()
        .context("there is no pipeline")?;
    until("the last pipeline to end", BOUND, async || {
        let workflows = api.workflows(&newest.id).await?;
        Ok(match workflows.first().map(|workflow| workflow.status.as_str()) {
            Some("success") => Probe::Found(()),
            other => Probe::NotYet(other.unwrap_or("no workflow yet").to_string()),
        })
    })
    .await?;
    let time = began.elapsed();
    let after = mebibytes(server)?;
    println!("\nMemory of `towpath up` (SQLite), resident, in MiB");
    println!(
        "  idle and empty                  {empty:>7.1}   {:.2} of the goal of {IDLE_GOAL}",
        empty / IDLE_GOAL
    );
    println!("  after one pipeline              {before:>7.1}");
    println!(
        "  after {PIPELINES} more pipelines       {after:>7.1}   {:.2} of the goal of {GROWTH_GOAL} more than before; they took {:.1} s",
        (after - before) / GROWTH_GOAL,
        time.as_secs_f64()
    );
    servers.stop().await
}

/// The least that this many jobs cost: one shell for each job, two at a time.
fn floor() -> Result<Duration> {
    let began = Instant::now();
    let numbers: String = (0..JOBS).map(|job| format!("{job}\n")).collect();
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("numbers"), numbers)?;
    let input = std::fs::File::open(folder.path().join("numbers"))?;
    let status = Command::new("xargs")
        .args([
            "-P",
            "2",
            "-n",
            "1",
            "bash",
            "-c",
            "echo job >/dev/null; echo \"line 1\"",
        ])
        .stdin(input)
        .stdout(Stdio::null())
        .status()
        .context("failed to run xargs")?;
    ensure!(status.success(), "xargs failed");
    Ok(began.elapsed())
}

async fn throughput(towpath: &Path) -> Result<()> {
    println!("\n{JOBS} jobs of one step in one workflow");
    let floor = floor()?;
    println!(
        "  a shell for each, without Towpath (floor) {:>8.2} s",
        floor.as_secs_f64()
    );
    let postgres = Postgres::start_durable()?.map_err(|absent| anyhow::anyhow!(absent.0))?;
    let mut sqlite = None;
    for (what, count) in [
        ("SQLite, 1 server", 0),
        ("PostgreSQL, 1 server", 1),
        ("PostgreSQL, 2 servers", 2),
        ("PostgreSQL, 3 servers", 3),
    ] {
        let names: Vec<&str> = ["first", "second", "third"].into_iter().take(count.max(1)).collect();
        let database = (count > 0).then(|| postgres.database()).transpose()?;
        let began = Instant::now();
        let servers = Servers::start(towpath, &names, database.as_deref(), |folder| {
            jobs_at_once(folder, JOBS, 1)
        })
        .await?;
        let started = began.elapsed();
        let began = Instant::now();
        servers.succeed().await?;
        let time = began.elapsed();
        servers.stop().await?;
        let base = *sqlite.get_or_insert(time);
        println!(
            "  {what:<40}  {:>8.2} s  {:>6.1} jobs/s  {:>5.2} of SQLite's time  {:>6.1} x the floor  (start and push: {:.1} s)",
            time.as_secs_f64(),
            JOBS as f64 / time.as_secs_f64(),
            time.as_secs_f64() / base.as_secs_f64(),
            time.as_secs_f64() / floor.as_secs_f64(),
            started.as_secs_f64(),
        );
    }
    Ok(())
}

async fn kills(towpath: &Path) -> Result<()> {
    let postgres = Postgres::start_durable()?.map_err(|absent| anyhow::anyhow!(absent.0))?;
    let database = postgres.database()?;
    let names = ["first", "second"];
    let mut servers = Servers::start(towpath, &names, Some(&database), |folder| {
        jobs_at_once(folder, JOBS_OF_KILLS, LINES)
    })
    .await?;
    let began = Instant::now();
    let mut kills = 0;
    while servers.ran() < JOBS_OF_KILLS {
        ensure!(began.elapsed() < BOUND, "only {} jobs ran", servers.ran());
        let server = servers.servers.get_mut(kills % names.len()).context("no server")?;
        server.kill().await?;
        server.start_again().await?;
        kills += 1;
        tokio::time::sleep(BETWEEN_KILLS).await;
    }
    servers.succeed().await?;
    let time = began.elapsed();
    let text = std::fs::read_to_string(servers.folder.path().join("ran"))?;
    let mut times = BTreeMap::<&str, usize>::new();
    for line in text.lines() {
        *times.entry(line).or_default() += 1;
    }
    let twice = times.values().filter(|count| **count > 1).count();
    let api = servers.servers.last().context("there is no server")?.api()?;
    let workflow = api.workflow_of(&servers.pipeline().await?, "w").await?;
    let mut lost = 0;
    for job in api.jobs(&workflow.id).await? {
        let log = api.log(PROJECT, job.job_number.context("a job never ran")?).await?;
        let printed = log.lines().filter(|line| line.starts_with("line ")).count();
        lost += LINES.abs_diff(printed);
    }
    println!(
        "\n{JOBS_OF_KILLS} jobs on two servers on one PostgreSQL, either killed every {} s",
        BETWEEN_KILLS.as_secs()
    );
    println!(
        "  {kills} kills in {:.1} s; jobs that ran: {}, twice: {twice}; lines lost or doubled: {lost} of {}",
        time.as_secs_f64(),
        times.len(),
        JOBS_OF_KILLS * LINES
    );
    servers.stop().await
}
