//! A Towpath server as a process.

use crate::{Api, Probe, until};
use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    ffi::OsStr,
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};
use tokio::{
    io::AsyncWriteExt,
    process::{Child, Command},
};
use towpath_types::SecretString;

/// How long a server may take until it answers.
const TO_START: Duration = Duration::from_secs(60);
/// How long a server may take to end after SIGTERM.
const TO_STOP: Duration = Duration::from_secs(30);

/// How to start a server.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// The `towpath` program.
    pub binary: PathBuf,
    /// Created if it is missing.
    pub data_dir: PathBuf,
    /// The address to listen on. `127.0.0.1:0` picks a free port.
    pub listen: String,
    /// Variables that the server passes on to jobs of machine executors, such as where this user's cargo is. If there are any,
    /// jobs run as this user.
    pub host_environment: Vec<(String, String)>,
    /// Variables for the server and for each command, in addition to this process's.
    pub variables: Vec<(String, String)>,
    /// The log file. The server appends to it.
    pub log: PathBuf,
    /// The kubeconfig of the environments' clusters. `None`: environments are on this machine's engine.
    pub kubeconfig: Option<PathBuf>,
}

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub struct Towpath {
    options: ServerOptions,
    base: String,
    child: Option<Child>,
}

/// The variables that cargo needs in a job, whose home is not this user's.
///
/// All jobs share `build_directory`, so that only the first one compiles the dependencies. Jobs of different commits must not
/// use it at the same time.
pub fn host_environment_for_cargo(build_directory: &Path) -> Vec<(String, String)> {
    let home = std::env::var("HOME").unwrap_or_default();
    let or = |name: &str, folder: &str| std::env::var(name).unwrap_or_else(|_| format!("{home}/{folder}"));
    vec![
        ("CARGO_HOME".into(), or("CARGO_HOME", ".cargo")),
        ("RUSTUP_HOME".into(), or("RUSTUP_HOME", ".rustup")),
        (
            "CARGO_BUILD_BUILD_DIR".into(),
            build_directory.to_string_lossy().into_owned(),
        ),
    ]
}

/// Where jobs of machine executors have their folders: beside the data directory, so that they go with it.
fn jobs_directory(options: &ServerOptions) -> PathBuf {
    options.data_dir.with_file_name("host-jobs")
}

/// The first of 1,000 user ids that only servers with this folder for jobs use.
fn first_user(options: &ServerOptions) -> u32 {
    let mut hasher = DefaultHasher::new();
    jobs_directory(options).hash(&mut hasher);
    100_000_000 + u32::try_from(hasher.finish() % 500_000).unwrap_or_default() * 1_000
}

/// Lets jobs with users of their own get to their folders. A temporary folder is its owner's alone.
fn make_way_for_jobs(options: &ServerOptions) -> Result<()> {
    options.data_dir.parent().map_or(Ok(()), let_everybody_pass)
}

/// Lets every user pass through the folder, as jobs of machine executors have to that use a file in it.
///
/// # Errors
/// When it is somebody else's folder.
pub fn let_everybody_pass(folder: &Path) -> Result<()> {
    let mode = fs::metadata(folder).map(|found| found.permissions().mode());
    mode.and_then(|mode| fs::set_permissions(folder, fs::Permissions::from_mode(mode | 0o011)))
        .with_context(|| format!("failed to let everybody pass through `{}`", folder.display()))
}

/// Makes an empty file that every user may write to, as jobs of machine executors have to.
///
/// # Errors
/// When it cannot be made.
pub fn file_for_everybody(path: &Path) -> Result<()> {
    let wrong = || format!("failed to make `{}`", path.display());
    File::create(path).with_context(wrong)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).with_context(wrong)
}

/// A free port outside of the range that the system assigns by itself. While a server that was killed is away, another
/// program's connection must not take its port.
///
/// # Errors
/// When none of them is free.
pub fn quiet_port() -> Result<u16> {
    static ASKED: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + u16::try_from(std::process::id() % 5_000)?;
    let is_free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    // Whoever asked before may not listen yet.
    let mut after = std::iter::repeat_with(|| first + ASKED.fetch_add(1, Ordering::Relaxed) % 5_000).take(5_000);
    let found = after.find(is_free);
    found.with_context(|| format!("no port of {first} and the 5,000 after it is free"))
}

impl Towpath {
    /// Starts a server and waits until it answers.
    ///
    /// # Errors
    /// When it ends, or does not answer in time. The message contains the end of its log.
    pub async fn start(options: ServerOptions) -> Result<Self> {
        fs::create_dir_all(&options.data_dir)
            .with_context(|| format!("failed to create `{}`", options.data_dir.display()))?;
        make_way_for_jobs(&options)?;
        let mut server = Self {
            base: String::new(),
            child: None,
            options,
        };
        server.spawn().await?;
        Ok(server)
    }

    async fn spawn(&mut self) -> Result<()> {
        let address = self.options.data_dir.join("address");
        match fs::remove_file(&address) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("failed to remove `{}`", address.display()));
            }
            _ => {}
        }
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.options.log)
            .with_context(|| format!("failed to open `{}`", self.options.log.display()))?;
        let mut command = Command::new(&self.options.binary);
        command
            .arg("up")
            .arg("--data-dir")
            .arg(&self.options.data_dir)
            .arg("--listen")
            .arg(&self.options.listen);
        match &self.options.kubeconfig {
            Some(file) => command.arg("--target").arg("kubernetes").env("KUBECONFIG", file),
            None => command.arg("--target").arg("local"),
        };
        command.env("TOWPATH_HOST_JOBS_DIR", jobs_directory(&self.options));
        command.env("TOWPATH_HOST_JOBS_FIRST_USER", first_user(&self.options).to_string());
        if !self.options.host_environment.is_empty() {
            // These variables lead to what belongs to whoever runs this, in a home that nobody else can enter.
            command.env("TOWPATH_HOST_JOBS_USER", "server");
        }
        command.envs(self.options.variables.iter().map(|(name, value)| (name, value)));
        for (name, value) in &self.options.host_environment {
            command.arg("--host-env").arg(name).env(name, value);
        }
        // Its output contains the owner's token; its log does not.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        // In a process group of its own, so that Ctrl-C in a terminal reaches only the process that will stop it.
        command.process_group(0).kill_on_drop(true);
        let child = command.spawn();
        self.child = Some(child.with_context(|| format!("failed to start `{}`", self.options.binary.display()))?);

        let http = crate::api::plain_client()?;
        let answered = until("Towpath to answer", TO_START, async || {
            let Some(child) = &mut self.child else {
                return Ok(Probe::Never("it was not started".into()));
            };
            if let Some(status) = child.try_wait().context("failed to check the server's process")? {
                return Ok(Probe::Never(format!("it ended with {status}")));
            }
            let Ok(base) = fs::read_to_string(&address) else {
                return Ok(Probe::NotYet("it does not listen yet".into()));
            };
            let base = base.trim().to_string();
            Ok(match http.get(format!("{base}/api/v2/me")).send().await {
                Ok(_) => Probe::Found(base),
                Err(error) => Probe::NotYet(format!("{error}")),
            })
        });
        let answered = answered.await;
        self.base =
            answered.with_context(|| format!("Towpath did not start; its log ends with:\n{}", self.log_tail(20)))?;
        Ok(())
    }

    /// `http://127.0.0.1:7070`.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// `127.0.0.1:7070`: the name of its registry in images.
    pub fn registry(&self) -> &str {
        self.base.trim_start_matches("http://")
    }

    /// [`ServerOptions::data_dir`].
    pub fn data_dir(&self) -> &Path {
        &self.options.data_dir
    }

    /// The owner's token.
    ///
    /// # Errors
    /// When the data directory has none.
    pub fn token(&self) -> Result<SecretString> {
        let path = self.options.data_dir.join("token");
        let token = fs::read_to_string(&path).with_context(|| format!("failed to read `{}`", path.display()))?;
        Ok(SecretString::new(token.trim().to_string()))
    }

    /// The random name of a data directory, which labels everything that its server creates in the container engine. `None` if
    /// there never was a server.
    pub fn instance(data_dir: &Path) -> Option<String> {
        let text = fs::read_to_string(data_dir.join("instance")).ok()?;
        Some(text.trim().to_string()).filter(|instance| !instance.is_empty())
    }

    /// A client of its HTTP API.
    ///
    /// # Errors
    /// When there is no token.
    pub fn api(&self) -> Result<Api> {
        Api::new(&self.base, self.token()?)
    }

    /// Runs `towpath` with `arguments` in `directory`, with `input` on its standard input, and answers its standard output.
    ///
    /// # Errors
    /// When it fails. The message contains its output.
    pub async fn run<S: AsRef<OsStr>>(&self, directory: &Path, arguments: &[S], input: &[u8]) -> Result<String> {
        let mut command = Command::new(&self.options.binary);
        command
            .args(arguments)
            .current_dir(directory)
            .envs(self.options.variables.iter().map(|(name, value)| (name, value)))
            .env("TOWPATH_DATA_DIR", &self.options.data_dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let shown: Vec<_> = arguments
            .iter()
            .map(|argument| argument.as_ref().to_string_lossy())
            .collect();
        let shown = format!("towpath {}", shown.join(" "));
        let mut child = command.spawn().with_context(|| format!("failed to run `{shown}`"))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A command that does not read its input may have ended. Its output counts.
            let _ = stdin.write_all(input).await;
        }
        let output = child
            .wait_with_output()
            .await
            .with_context(|| format!("failed to run `{shown}`"))?;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            bail!("`{shown}` ended with {}:\n{stdout}{stderr}", output.status);
        }
        Ok(stdout)
    }

    /// Kills the server as `kill -9` does.
    ///
    /// # Errors
    /// When it is not running.
    pub async fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the server is not running")?;
        child.kill().await.context("failed to kill the server")
    }

    /// Starts the server again on the same address, after [`Self::kill`] or [`Self::stop`].
    ///
    /// # Errors
    /// Like [`Self::start`].
    pub async fn start_again(&mut self) -> Result<()> {
        self.options.listen = self.registry().to_string();
        self.spawn().await
    }

    /// Asks the server to end and waits for that. Does nothing if it is not running.
    ///
    /// # Errors
    /// When it does not end in time. It is killed then.
    pub async fn stop(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        if let Some(id) = child.id() {
            kill(Pid::from_raw(id.cast_signed()), Signal::SIGTERM).context("failed to signal the server")?;
        }
        match tokio::time::timeout(TO_STOP, child.wait()).await {
            Ok(status) => status.map(drop).context("failed to wait for the server"),
            Err(_) => bail!(
                "the server did not end within {} s of SIGTERM\n{}",
                TO_STOP.as_secs(),
                self.log_tail(20)
            ),
        }
    }

    /// The server's resident memory in KiB.
    pub fn resident_kilobytes(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.as_ref()?.id()?)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.split_whitespace().next()?.parse().ok()
    }

    /// The last lines of the server's log.
    pub fn log_tail(&self, lines: usize) -> String {
        let text = fs::read(&self.options.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let from = text.lines().count().saturating_sub(lines);
        text.lines()
            .skip(from)
            .fold(String::new(), |all, line| all + "  " + line + "\n")
    }
}
