//! A job's environment as processes of this machine, each job in a private directory.
//!
//! What marks a process as a job's is the state directory in its environment: every process that a step starts inherits
//! it, wherever it moves itself. It is how an agent is found again whose pid file was never written, and how what a job
//! left running is ended with it.

use crate::engine::{
    Engine, EngineError, EnvironmentId, EnvironmentKind, EnvironmentRequest, EnvironmentState, ServiceLog,
};
use futures::{FutureExt, future::BoxFuture};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};
use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt},
        process::ExitStatusExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use towpath_protocol::variable;

/// How long a stopped agent has to end its steps before everything is killed. The agent gives steps less.
const GRACE: Duration = Duration::from_secs(15);
/// How long killed processes may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// What the name of a directory begins with that is being removed.
const REMOVED: &str = ".removed-";
/// How much of a dead agent's own output is handed on.
const AGENT_LOG_BYTES: u64 = 4 << 10;

/// What a [`HostEngine`] needs to know of its surroundings.
#[derive(Debug, Clone)]
pub struct HostOptions {
    /// The jobs' private directories are made under this one. No other engine may use it.
    pub directory: PathBuf,
    /// The agent's binary.
    pub agent_binary: PathBuf,
    /// The server's socket for agents.
    pub agent_socket: PathBuf,
    /// The names of the host's environment variables that jobs inherit, such as `PATH`. Nothing else of it reaches them.
    pub inherited: Vec<String>,
}

/// An engine that runs agents as processes, in sessions of their own, so that they outlive a `kill -9` of the server.
#[derive(Debug, Clone)]
pub struct HostEngine {
    options: HostOptions,
}

/// A process that cannot be taken for another one that got its number later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Process {
    pid: i32,
    /// In clock ticks since boot.
    start_time: u64,
    boot_id: String,
}

impl HostEngine {
    /// An engine that keeps its jobs under `options.directory`, made if absent.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn new(mut options: HostOptions) -> Result<Self, EngineError> {
        let shown = options.directory.display().to_string();
        let attempted = || format!("make the directory for jobs `{shown}`");
        fs::create_dir_all(&options.directory).map_err(EngineError::failed(attempted()))?;
        // The path is the mark that processes are known by, so it must be the same whoever writes it down.
        options.directory = fs::canonicalize(&options.directory).map_err(EngineError::failed(attempted()))?;
        // What an earlier server was removing when it was killed.
        for entry in fs::read_dir(&options.directory)
            .map_err(EngineError::failed(attempted()))?
            .flatten()
        {
            if entry.file_name().as_bytes().starts_with(REMOVED.as_bytes())
                && let Err(error) = remove_tree(&entry.path())
            {
                tracing::warn!(path = %entry.path().display(), %error, "cannot remove what a job left");
            }
        }
        Ok(Self { options })
    }

    fn place(&self, id: &EnvironmentId) -> Place {
        Place(self.options.directory.join(id.to_string()))
    }

    fn start_blocking(&self, request: &EnvironmentRequest) -> Result<(), EngineError> {
        if !matches!(request.kind, EnvironmentKind::Host) {
            return Err(EngineError::Refused {
                message: "this machine's own processes are no containers; this job asks for an image".to_string(),
            });
        }
        let place = self.place(&request.id);
        let attempted = || format!("start an agent in `{}`", place.0.display());
        // A stop that goes on meanwhile removes the directory, and its lock with it.
        let _lock = loop {
            place.make().map_err(EngineError::failed(attempted()))?;
            if let Some(lock) = place.lock().map_err(EngineError::failed(attempted()))? {
                break lock;
            }
        };
        if place.process().map_err(EngineError::failed(attempted()))?.is_some() {
            return Ok(());
        }
        // A crash may have come between starting an agent and writing down its number.
        let orphan = place.processes().into_iter().find(|pid| is_agent(*pid));
        let process = match orphan {
            Some(pid) => Process::of(pid).map_err(EngineError::failed(attempted()))?,
            None => self.spawn(request, &place)?,
        };
        place.write_process(&process).map_err(EngineError::failed(attempted()))
    }

    fn spawn(&self, request: &EnvironmentRequest, place: &Place) -> Result<Process, EngineError> {
        let attempted = || format!("start the agent `{}`", self.options.agent_binary.display());
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(place.log())
            .map_err(EngineError::failed(format!("open `{}`", place.log().display())))?;
        let errors = log.try_clone().map_err(EngineError::failed(attempted()))?;
        let inherited = self
            .options
            .inherited
            .iter()
            .filter_map(|name| Some((name, std::env::var_os(name)?)));
        let mut command = Command::new(&self.options.agent_binary);
        command
            .arg("agent")
            .env_clear()
            .envs(inherited)
            .env("HOME", place.home())
            .env("TMPDIR", place.tmp())
            .env(variable::AGENT_SOCKET, &self.options.agent_socket)
            .env(variable::JOB_TOKEN, request.token.expose())
            .env(variable::STATE_DIR, place.state())
            .current_dir(place.home())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors);
        in_own_session(&mut command);
        let mut child = command.spawn().map_err(EngineError::failed(attempted()))?;
        let process = Process::of(pid_of(&child)).map_err(EngineError::failed(attempted()))?;
        // While this server lives, the agent is its child and has to be reaped by it; its status is written down for
        // whoever asks. After a restart the agent is the init process's child and its status is not known.
        let exit = place.exit();
        std::thread::spawn(move || {
            if let Ok(status) = child.wait() {
                let code = status.code().or(status.signal().map(|signal| 128 + signal));
                if let Some(code) = code
                    && let Err(error) = fs::write(&exit, code.to_string())
                    && error.kind() != io::ErrorKind::NotFound
                {
                    tracing::warn!(path = %exit.display(), %error, "failed to write down how an agent ended");
                }
            }
        });
        Ok(process)
    }

    fn state_blocking(&self, id: &EnvironmentId) -> Result<EnvironmentState, EngineError> {
        let place = self.place(id);
        let attempted = || format!("read the state of `{}`", place.0.display());
        let Some(process) = place.process().map_err(EngineError::failed(attempted()))? else {
            return Ok(EnvironmentState::Absent);
        };
        if process.is_running() {
            return Ok(EnvironmentState::Running);
        }
        // The one who reaps it writes its status down a moment later; after a restart nobody does.
        wait_until(Duration::from_millis(100), || place.exit().exists());
        let code = fs::read_to_string(place.exit()).ok().and_then(|text| text.parse().ok());
        let detail = last_bytes(&place.log(), AGENT_LOG_BYTES).unwrap_or_default();
        Ok(EnvironmentState::Exited {
            code,
            detail: String::from_utf8_lossy(&detail).trim().to_string(),
        })
    }

    fn stop_blocking(&self, id: &EnvironmentId) -> Result<(), EngineError> {
        let place = self.place(id);
        let attempted = || format!("stop the job in `{}`", place.0.display());
        let _lock = loop {
            if !place.0.exists() {
                return Ok(());
            }
            if let Some(lock) = place.lock().map_err(EngineError::failed(attempted()))? {
                break lock;
            }
        };
        if let Some(process) = place.process().map_err(EngineError::failed(attempted()))?
            && process.is_running()
        {
            signal(process.pid, Signal::SIGTERM).map_err(EngineError::failed(attempted()))?;
            wait_until(GRACE, || !process.is_running());
        }
        // Again and again: what is being killed may be starting others.
        let gone = wait_until(KILL_LIMIT, || {
            let left = place.processes();
            for pid in &left {
                // It may be gone already, which is what is wanted.
                let _ = signal(*pid, Signal::SIGKILL);
            }
            left.is_empty()
        });
        if !gone {
            return Err(EngineError::failed(attempted())(format!(
                "processes {:?} are still there {} s after being killed",
                place.processes(),
                KILL_LIMIT.as_secs()
            )));
        }
        // Out of the way in one step: who comes next makes a new one, and nothing of that is removed.
        let aside = self.options.directory.join(format!("{REMOVED}{id}"));
        remove_tree(&aside).map_err(EngineError::failed(format!("remove `{}`", aside.display())))?;
        fs::rename(&place.0, &aside).map_err(EngineError::failed(attempted()))?;
        remove_tree(&aside).map_err(EngineError::failed(format!("remove `{}`", aside.display())))
    }

    fn list_blocking(&self) -> Result<Vec<EnvironmentId>, EngineError> {
        let attempted = || format!("list the jobs in `{}`", self.options.directory.display());
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.options.directory).map_err(EngineError::failed(attempted()))? {
            let entry = entry.map_err(EngineError::failed(attempted()))?;
            found.extend(
                entry
                    .file_name()
                    .to_str()
                    .and_then(|name| name.parse::<EnvironmentId>().ok()),
            );
        }
        Ok(found)
    }

    /// Files and processes block; the runtime's own threads are not for that.
    fn blocking<'a, T: Send + 'static>(
        &self,
        attempted: &'static str,
        work: impl FnOnce(&Self) -> Result<T, EngineError> + Send + 'static,
    ) -> BoxFuture<'a, Result<T, EngineError>> {
        let engine = self.clone();
        async move {
            tokio::task::spawn_blocking(move || work(&engine))
                .await
                .unwrap_or_else(|error| Err(EngineError::failed(attempted)(error)))
        }
        .boxed()
    }
}

impl Engine for HostEngine {
    fn start<'a>(&'a self, request: &'a EnvironmentRequest) -> BoxFuture<'a, Result<(), EngineError>> {
        let request = request.clone();
        self.blocking("start a job on this machine", move |engine| {
            engine.start_blocking(&request)
        })
    }

    fn state<'a>(&'a self, id: &'a EnvironmentId) -> BoxFuture<'a, Result<EnvironmentState, EngineError>> {
        let id = *id;
        self.blocking("read the state of a job on this machine", move |engine| {
            engine.state_blocking(&id)
        })
    }

    fn stop<'a>(&'a self, id: &'a EnvironmentId) -> BoxFuture<'a, Result<(), EngineError>> {
        let id = *id;
        self.blocking("stop a job on this machine", move |engine| engine.stop_blocking(&id))
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<EnvironmentId>, EngineError>> {
        self.blocking("list the jobs on this machine", Self::list_blocking)
    }

    fn service_logs<'a>(&'a self, _id: &'a EnvironmentId) -> BoxFuture<'a, Result<Vec<ServiceLog>, EngineError>> {
        async { Ok(Vec::new()) }.boxed()
    }
}

/// One job's private directory.
struct Place(PathBuf);

impl Place {
    fn make(&self) -> io::Result<()> {
        fs::create_dir_all(&self.0)?;
        fs::set_permissions(&self.0, fs::Permissions::from_mode(0o700))?;
        for directory in [self.home(), self.tmp(), self.state()] {
            fs::create_dir_all(directory)?;
        }
        Ok(())
    }

    fn home(&self) -> PathBuf {
        self.0.join("home")
    }

    fn tmp(&self) -> PathBuf {
        self.0.join("tmp")
    }

    fn state(&self) -> PathBuf {
        self.0.join("state")
    }

    fn log(&self) -> PathBuf {
        self.0.join("agent.log")
    }

    fn exit(&self) -> PathBuf {
        self.0.join("agent.exit")
    }

    fn pid(&self) -> PathBuf {
        self.0.join("agent.pid")
    }

    /// Held while the directory's owner changes: one starts or stops at a time, of any process. `None` when the directory is
    /// gone, or is another one by the time that it is this one's turn.
    fn lock(&self) -> io::Result<Option<Flock<File>>> {
        let path = self.0.join("lock");
        let file = match OpenOptions::new().create(true).write(true).truncate(false).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let opened = file.metadata()?.ino();
        let lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| io::Error::from(errno))?;
        let same = fs::metadata(&path).is_ok_and(|now| now.ino() == opened);
        Ok(same.then_some(lock))
    }

    fn process(&self) -> io::Result<Option<Process>> {
        match fs::read(self.pid()) {
            // It is written whole or not at all, so what cannot be read is not ours to guess about.
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(io::Error::from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write_process(&self, process: &Process) -> io::Result<()> {
        let new = self.0.join("agent.pid.new");
        fs::write(&new, serde_json::to_vec(process)?)?;
        fs::rename(new, self.pid())
    }

    /// Every process that carries this directory's mark, the agent's too.
    fn processes(&self) -> Vec<i32> {
        let mut mark = OsString::from(format!("{}=", variable::STATE_DIR));
        mark.push(self.state());
        let Ok(entries) = fs::read_dir("/proc") else {
            return Vec::new();
        };
        entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
            .filter(|pid| {
                // Other users' processes cannot be read; they are not ours.
                fs::read(format!("/proc/{pid}/environ"))
                    .is_ok_and(|environment| environment.split(|b| *b == 0).any(|item| item == mark.as_bytes()))
            })
            .filter(|pid| stat(*pid).is_some_and(|(state, _)| state != 'Z'))
            .collect()
    }
}

impl Process {
    fn of(pid: i32) -> io::Result<Self> {
        let (_, start_time) = stat(pid).ok_or_else(|| io::Error::other(format!("process {pid} is gone already")))?;
        Ok(Self {
            pid,
            start_time,
            boot_id: boot_id()?,
        })
    }

    fn is_running(&self) -> bool {
        boot_id().is_ok_and(|boot| boot == self.boot_id)
            && stat(self.pid).is_some_and(|(state, start)| start == self.start_time && !matches!(state, 'Z' | 'X'))
    }
}

/// A process's state letter and start time.
///
/// Source: <https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html>. The name in parentheses may hold anything.
fn stat(pid: i32) -> Option<(char, u64)> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&text);
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_string())
}

/// Whether a process was started as `… agent` and leads its session, as only agents do that an engine started.
fn is_agent(pid: i32) -> bool {
    let leads = nix::unistd::getsid(Some(Pid::from_raw(pid))) == Ok(Pid::from_raw(pid));
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    leads && command.split(|b| *b == 0).nth(1) == Some(b"agent")
}

fn pid_of(child: &std::process::Child) -> i32 {
    // The kernel's process ids are at most 2^22.
    i32::try_from(child.id()).unwrap_or(i32::MAX)
}

#[allow(unsafe_code)]
fn in_own_session(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    // SAFETY: between fork and exec only `setsid` runs, which is async-signal-safe and touches no memory of ours.
    unsafe {
        command.pre_exec(|| nix::unistd::setsid().map(|_| ()).map_err(io::Error::from));
    }
}

fn signal(pid: i32, signal: Signal) -> io::Result<()> {
    match kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn wait_until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !done() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

fn last_bytes(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(limit)))?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Removes a directory even where a job took its own right to write away (Go's module cache does).
fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
        Err(error) => return Err(error),
    }
    let mut pending = vec![path.to_path_buf()];
    while let Some(directory) = pending.pop() {
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            // Not following links: what they point at is not the job's.
            if entry.file_type()?.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    fs::remove_dir_all(path)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_process_id_is_not_the_agent() {
        let own = Process::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(own.is_running());
        assert!(
            !Process {
                start_time: own.start_time + 1,
                ..own.clone()
            }
            .is_running()
        );
        assert!(
            !Process {
                boot_id: "another".into(),
                ..own
            }
            .is_running()
        );
    }

    #[test]
    fn a_tree_without_write_permission_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let tree = root.path().join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::write(tree.join("a/b/file"), "x").unwrap();
        fs::set_permissions(tree.join("a/b"), fs::Permissions::from_mode(0o500)).unwrap();
        fs::set_permissions(tree.join("a"), fs::Permissions::from_mode(0o500)).unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
        remove_tree(&tree).unwrap();
    }
}
