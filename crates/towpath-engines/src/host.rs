//! A job's environment as processes of this machine, each job in a private directory.
//!
//! If the server runs as root, each job has a user of its own. Only this user passes through the job's directory, to
//! directories in it that are the user's. What the engine itself writes there (the agent's process id, its exit status, the
//! user) is the server's, so that no job can make the engine believe anything. The user finds an agent whose pid file was
//! never written, and it ends everything that a job left running.
//!
//! Without a user of its own, the state directory in a process's environment marks it as part of a job. Every process that a
//! step starts inherits the mark, whatever session it moves itself to. The agent closes its environment to readers, so the
//! engine also starts it under the mark as its name.

use crate::{
    engine::{Capacity, Engine, EngineError, EnvironmentKind, EnvironmentRequest, EnvironmentState, ServiceLog},
    machine,
    process::{self, Process},
    users::{self, Confinement, HostUsers, USER_NAME},
};
use futures::{FutureExt, future::BoxFuture};
use nix::{
    fcntl::{Flock, FlockArg},
    sys::signal::Signal,
};
use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown},
        process::{CommandExt, ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};
use towpath_protocol::variable;
use towpath_types::{EngineName, NodeId, SecretString};

/// How long a stopped agent has to end its steps before the engine kills everything. The agent gives its steps less time.
const GRACE: Duration = Duration::from_secs(15);
/// How long killed processes may take to disappear.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// How long it may take to write down the status of a child that has just ended.
const REAP_LIMIT: Duration = Duration::from_secs(5);
/// The names of directories that are being removed begin with this.
const REMOVED: &str = ".removed-";
/// The agent's binary, where the one that the server runs cannot be reached by every user.
const AGENT_COPY: &str = ".agent";
/// What says in a job's directory which user it has.
const USER_FILE: &str = "user";
/// The directories of a job that are its own.
const OWN: [&str; 3] = ["home", "tmp", "state"];
/// The lists of accounts and of groups, each with the name under which a job's directory has its own one.
const ACCOUNTS: (&str, &str) = ("/etc/passwd", "passwd");
const GROUPS: (&str, &str) = ("/etc/group", "group");
/// The most bytes of a dead agent's own output that the engine passes on.
const AGENT_LOG_BYTES: u64 = 4 << 10;

/// The surroundings of a [`HostEngine`].
#[derive(Debug, Clone)]
pub struct HostOptions {
    /// The parent of the jobs' private directories. No engine of another data directory may use it. Engines that share `users`
    /// have their directories beside each other.
    pub directory: PathBuf,
    #[allow(missing_docs)]
    pub agent_binary: PathBuf,
    /// The server's socket for agents.
    pub agent_socket: PathBuf,
    /// The names of the host's environment variables that jobs inherit, such as `PATH`. Nothing else of the host's environment
    /// reaches them.
    pub inherited: Vec<String>,
    /// The users that jobs run as. `None`: the server's own. Only root can run jobs as others.
    pub users: Option<HostUsers>,
    /// The most processes and threads that a job may have at once. If jobs have no users of their own, everything that the
    /// server's user runs counts, and if that is root, nothing limits them.
    pub most_processes: u64,
    /// The container engine's socket. Its group may use it, and so may a job that uses the engine.
    pub engine_socket: Option<PathBuf>,
}

/// An engine that runs agents as processes, in sessions of their own, so that they outlive a `kill -9` of the server.
#[derive(Debug, Clone)]
pub struct HostEngine {
    options: HostOptions,
    name: EngineName,
    capacity: Capacity,
    /// Whether jobs get namespaces of their own.
    separates: bool,
    children: Arc<Children>,
}

impl HostEngine {
    /// An engine that keeps its jobs under `options.directory`, which it creates if missing.
    ///
    /// # Errors
    /// When the directory cannot be created, or the jobs' users cannot reach it.
    pub fn new(mut options: HostOptions) -> Result<Self, EngineError> {
        let attempted = format!("make the directory for jobs `{}`", options.directory.display());
        let removed = prepare_directory(&options.directory).map_err(EngineError::failed(attempted))?;
        options.directory = removed.directory;
        for path in removed.left {
            if let Err(error) = remove_tree(&path) {
                tracing::warn!(path = %path.display(), %error, "failed to remove what a job left; remove it by hand");
            }
        }
        let separates = match options.users {
            None => false,
            Some(users) => admit(users, &mut options)?,
        };
        Ok(Self {
            separates,
            name: EngineName::new("host", &machine::id(), &options.directory.display().to_string()),
            capacity: machine::capacity(),
            options,
            children: Arc::default(),
        })
    }

    fn job_directory(&self, id: &NodeId) -> JobDirectory {
        JobDirectory(self.options.directory.join(id.to_string()))
    }

    fn start_blocking(&self, request: &EnvironmentRequest) -> Result<(), EngineError> {
        let EnvironmentKind::Host { uses_engine } = request.kind else {
            return Err(EngineError::Refused {
                message: "this job asks for an image, and this engine runs processes of the machine only".to_string(),
            });
        };
        let job_directory = self.job_directory(&request.id);
        let attempted = || format!("start an agent in `{}`", job_directory.0.display());
        // A concurrent stop removes the directory, and its lock with it.
        let _lock = loop {
            job_directory.make().map_err(EngineError::failed(attempted()))?;
            if let Some(lock) = job_directory.lock().map_err(EngineError::failed(attempted()))? {
                break lock;
            }
        };
        if job_directory
            .agent()
            .map_err(EngineError::failed(attempted()))?
            .is_some()
        {
            return Ok(());
        }
        // The server may have crashed between starting an agent and writing down its process id.
        let processes = job_directory.processes().map_err(EngineError::failed(attempted()))?;
        let orphan = processes.into_iter().find(Process::is_agent);
        let process = match orphan {
            Some(process) => process,
            None => {
                let user = self.furnish(&job_directory).map_err(EngineError::failed(attempted()))?;
                let confinement = self.confinement(&job_directory, user, uses_engine);
                let confinement = confinement.map_err(EngineError::failed(attempted()))?;
                self.spawn(request, &job_directory, user, confinement)?
            }
        };
        job_directory
            .write_agent(&process)
            .map_err(EngineError::failed(attempted()))
    }

    /// Makes the job's own directories, and chooses its user if it gets one.
    fn furnish(&self, job_directory: &JobDirectory) -> io::Result<Option<u32>> {
        if let Some(users) = self.options.users
            && job_directory.user()?.is_none()
        {
            let parent = self.options.directory.parent().unwrap_or(&self.options.directory);
            let _lock = users::lock_choice(parent)?;
            let job = job_directory
                .0
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            job_directory.write_user(users.choose(&job, &taken(parent))?)?;
        }
        let user = job_directory.user()?;
        job_directory.make_own(user)?;
        Ok(user)
    }

    fn confinement(
        &self,
        job_directory: &JobDirectory,
        user: Option<u32>,
        uses_engine: bool,
    ) -> io::Result<Confinement> {
        let confinement = Confinement::new(self.options.most_processes);
        let Some(id) = user else { return Ok(confinement) };
        let socket = self.options.engine_socket.as_deref().filter(|_| uses_engine);
        let confinement = confinement.user(id, socket.and_then(users::group_of_socket).into_iter().collect());
        if !self.separates {
            return Ok(confinement);
        }
        let own = |(of_machine, name): (&'static str, &str), text: &dyn Fn(&[u8]) -> Vec<u8>| {
            let before = match fs::read(of_machine) {
                // The machine has no such file, so there is nothing to replace.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                read => read?,
            };
            let path = job_directory.0.join(name);
            fs::write(&path, text(&before))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
            io::Result::Ok(Some((path, Path::new(of_machine))))
        };
        let accounts = own(ACCOUNTS, &|before| users::accounts(id, &job_directory.home(), before))?;
        let groups = own(GROUPS, &|before| users::groups(id, before))?;
        let overlays: Vec<(PathBuf, &Path)> = accounts.into_iter().chain(groups).collect();
        let overlays: Vec<(&Path, &Path)> = overlays.iter().map(|(own, seen)| (own.as_path(), *seen)).collect();
        confinement.namespaces(&overlays)
    }

    fn spawn(
        &self,
        request: &EnvironmentRequest,
        job_directory: &JobDirectory,
        user: Option<u32>,
        confinement: Confinement,
    ) -> Result<Process, EngineError> {
        let attempted = || format!("start the agent `{}`", self.options.agent_binary.display());
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(job_directory.log())
            .map_err(EngineError::failed(format!("open `{}`", job_directory.log().display())))?;
        let errors = log.try_clone().map_err(EngineError::failed(attempted()))?;
        let inherited = self.options.inherited.iter();
        let inherited = inherited.filter_map(|name| Some((name, std::env::var_os(name)?)));
        let mut command = Command::new(&self.options.agent_binary);
        command
            .arg0(job_directory.state())
            .arg("agent")
            .env_clear()
            .envs(inherited)
            .env("HOME", job_directory.home())
            .env("TMPDIR", job_directory.tmp())
            .env(variable::AGENT_SOCKET, &self.options.agent_socket)
            .env(variable::STATE_DIR, job_directory.state())
            .current_dir(job_directory.home())
            .stdin(token_on_pipe(&request.token).map_err(EngineError::failed(attempted()))?)
            .stdout(log)
            .stderr(errors);
        if user.is_some() {
            command.env("USER", USER_NAME).env("LOGNAME", USER_NAME);
        }
        confinement.apply(&mut command);
        let child = command.spawn().map_err(EngineError::failed(attempted()))?;
        // The kernel's process ids are at most 2^22. Only this process reaps the child, so the child keeps its id until then.
        let pid = i32::try_from(child.id()).unwrap_or(i32::MAX);
        let process = Process::of(pid).map_err(EngineError::failed(attempted()))?;
        self.children.reap(&process, child, job_directory.exit(&process));
        Ok(process)
    }

    fn state_blocking(&self, id: &NodeId) -> Result<EnvironmentState, EngineError> {
        let job_directory = self.job_directory(id);
        let attempted = || format!("read the state of `{}`", job_directory.0.display());
        let Some(process) = job_directory.agent().map_err(EngineError::failed(attempted()))? else {
            return Ok(EnvironmentState::Absent);
        };
        if process.is_running() {
            return Ok(EnvironmentState::Running);
        }
        self.children.wait_for(&process, REAP_LIMIT);
        let code = fs::read_to_string(job_directory.exit(&process))
            .ok()
            .and_then(|text| text.parse().ok());
        let detail = last_bytes(&job_directory.log(), AGENT_LOG_BYTES).unwrap_or_default();
        Ok(EnvironmentState::Exited {
            code,
            detail: String::from_utf8_lossy(&detail).trim().to_string(),
        })
    }

    fn stop_blocking(&self, id: &NodeId) -> Result<(), EngineError> {
        let job_directory = self.job_directory(id);
        let attempted = || format!("stop the job in `{}`", job_directory.0.display());
        let _lock = loop {
            if !job_directory.0.exists() {
                return Ok(());
            }
            if let Some(lock) = job_directory.lock().map_err(EngineError::failed(attempted()))? {
                break lock;
            }
        };
        if let Some(agent) = job_directory.agent().map_err(EngineError::failed(attempted()))? {
            agent
                .signal(Signal::SIGTERM)
                .map_err(EngineError::failed(attempted()))?;
            agent.wait(GRACE);
        }
        job_directory.kill_all().map_err(EngineError::failed(attempted()))?;
        if let Some(user) = job_directory.user().map_err(EngineError::failed(attempted()))? {
            users::remove_leftovers(user);
            // Its user may get another job before everything here is removed.
            fs::set_permissions(&job_directory.0, fs::Permissions::from_mode(0o700))
                .map_err(EngineError::failed(attempted()))?;
        }
        // Rename the directory in one step: whoever starts the job again makes a new directory, and this removal does not touch
        // it. Use a fresh name each time, so that a stop of the new directory does not move it to where this one is still being
        // removed.
        let aside = self
            .options
            .directory
            .join(format!("{REMOVED}{id}.{}", uuid::Uuid::now_v7()));
        fs::rename(&job_directory.0, &aside).map_err(EngineError::failed(attempted()))?;
        remove_tree(&aside).map_err(EngineError::failed(format!("remove `{}`", aside.display())))
    }

    fn list_blocking(&self) -> Result<Vec<NodeId>, EngineError> {
        let attempted = || format!("list the jobs in `{}`", self.options.directory.display());
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.options.directory).map_err(EngineError::failed(attempted()))? {
            let name = entry.map_err(EngineError::failed(attempted()))?.file_name();
            let id = name.to_str().and_then(|name| name.parse::<NodeId>().ok());
            match id {
                Some(id) => found.push(id),
                None if name.as_bytes().starts_with(REMOVED.as_bytes()) => {}
                None if name.as_bytes().starts_with(AGENT_COPY.as_bytes()) => {}
                None => tracing::warn!(
                    directory = %self.options.directory.display(),
                    name = %name.display(),
                    "this directory for jobs holds something that is no job; move it away"
                ),
            }
        }
        Ok(found)
    }

    /// Runs `work` on a thread that may block, because files and processes block and the runtime's own threads must not.
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
    fn name(&self) -> &EngineName {
        &self.name
    }

    fn capacity(&self) -> Capacity {
        self.capacity
    }

    fn start<'a>(&'a self, request: &'a EnvironmentRequest) -> BoxFuture<'a, Result<(), EngineError>> {
        let request = request.clone();
        self.blocking("start a job on this machine", move |engine| {
            engine.start_blocking(&request)
        })
    }

    fn state<'a>(&'a self, id: &'a NodeId) -> BoxFuture<'a, Result<EnvironmentState, EngineError>> {
        let id = *id;
        self.blocking("read the state of a job on this machine", move |engine| {
            engine.state_blocking(&id)
        })
    }

    fn stop<'a>(&'a self, id: &'a NodeId) -> BoxFuture<'a, Result<(), EngineError>> {
        let id = *id;
        self.blocking("stop a job on this machine", move |engine| engine.stop_blocking(&id))
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<NodeId>, EngineError>> {
        self.blocking("list the jobs on this machine", Self::list_blocking)
    }

    fn service_logs<'a>(&'a self, _id: &'a NodeId) -> BoxFuture<'a, Result<Vec<ServiceLog>, EngineError>> {
        async { Ok(Vec::new()) }.boxed()
    }
}

/// A pipe that holds the agent's token and ends behind it. The token is in it before the agent starts, so a server that dies
/// leaves no agent without one. Root can read the environment of every process, and a pipe that was read is empty.
fn token_on_pipe(token: &SecretString) -> io::Result<Stdio> {
    let (reader, mut writer) = io::pipe()?;
    // Far less than a pipe holds, so this does not wait for the reader.
    writer.write_all(token.expose().as_bytes())?;
    Ok(Stdio::from(reader))
}

/// The agents that this process started and has to reap.
///
/// While this process lives, an agent is its child, and this process writes the agent's exit status to a file. After a restart,
/// the agent is a child of the init process, and nobody learns its status.
#[derive(Debug, Default)]
struct Children {
    /// Keyed by [`Process::mark`].
    unreaped: Mutex<BTreeSet<String>>,
    reaped: Condvar,
}

impl Children {
    /// Waits for the child's end on a thread of its own, and writes its status to `file`.
    fn reap(self: &Arc<Self>, process: &Process, mut child: Child, file: PathBuf) {
        let mark = process.mark();
        self.unreaped
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(mark.clone());
        let children = Arc::clone(self);
        std::thread::spawn(move || {
            let status = child.wait().ok();
            let code = status.and_then(|status| status.code().or(status.signal().map(|signal| 128 + signal)));
            if let Some(code) = code
                && let Err(error) = write_whole(&file, code.to_string().as_bytes())
                // A stop removes the directory.
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(path = %file.display(), %error, "failed to write down how an agent ended");
            }
            children
                .unreaped
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&mark);
            children.reaped.notify_all();
        });
    }

    /// Waits until the exit status of an ended agent is written. Returns at once if the agent is not a child of this process.
    fn wait_for(&self, process: &Process, limit: Duration) {
        let mark = process.mark();
        let unreaped = self.unreaped.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .reaped
            .wait_timeout_while(unreaped, limit, |unreaped| unreaped.contains(&mark));
        drop(waited);
    }
}

/// One job's private directory.
struct JobDirectory(PathBuf);

impl JobDirectory {
    fn make(&self) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0)
    }

    /// Makes what belongs to the job itself: to its user, if it has one. The user may pass through the directory around it.
    fn make_own(&self, user: Option<u32>) -> io::Result<()> {
        for directory in OWN.map(|name| self.0.join(name)) {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
            chown(directory, user, user)?;
        }
        if let Some(user) = user {
            chown(&self.0, None, Some(user))?;
            fs::set_permissions(&self.0, fs::Permissions::from_mode(0o710))?;
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

    /// The file for the exit status of exactly this agent: a directory of the same name may have had another agent.
    fn exit(&self, agent: &Process) -> PathBuf {
        self.0.join(format!("agent.exit.{}", agent.mark()))
    }

    /// The user of its own that the job runs as.
    fn user(&self) -> io::Result<Option<u32>> {
        user_in(&self.0)
    }

    fn write_user(&self, user: u32) -> io::Result<()> {
        write_whole(&self.0.join(USER_FILE), user.to_string().as_bytes())
    }

    fn pid_file(&self) -> PathBuf {
        self.0.join("agent.pid")
    }

    /// Locks the directory while its agent changes, so that one caller of any process starts or stops at a time. `None` if the
    /// directory is gone, or was replaced while this caller waited.
    fn lock(&self) -> io::Result<Option<Flock<File>>> {
        let path = self.0.join("lock");
        let file = match OpenOptions::new().create(true).write(true).truncate(false).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let opened = file.metadata()?.ino();
        let lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| io::Error::from(errno))?;
        let is_same = fs::metadata(&path).is_ok_and(|now| now.ino() == opened);
        Ok(is_same.then_some(lock))
    }

    /// The agent that was started here, if one was.
    fn agent(&self) -> io::Result<Option<Process>> {
        match fs::read(self.pid_file()) {
            // The file is complete or absent. If it cannot be read, do not guess.
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(io::Error::from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write_agent(&self, process: &Process) -> io::Result<()> {
        write_whole(&self.pid_file(), &serde_json::to_vec(process)?)
    }

    /// Every process of the job, the agent included: those of its user, or else those that carry this directory's mark.
    fn processes(&self) -> io::Result<Vec<Process>> {
        if let Some(user) = self.user()? {
            return Ok(process::of_user(user));
        }
        let mut mark = OsString::from(format!("{}=", variable::STATE_DIR));
        mark.push(self.state());
        Ok(process::marked(mark.as_bytes(), self.state().as_os_str().as_bytes()))
    }

    /// Kills every process of the job, including those that start meanwhile.
    fn kill_all(&self) -> io::Result<()> {
        let deadline = Instant::now() + KILL_LIMIT;
        loop {
            let left = self.processes()?;
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                let pids: Vec<i32> = left.iter().map(|process| process.pid).collect();
                let seconds = KILL_LIMIT.as_secs();
                return Err(io::Error::other(format!(
                    "processes {pids:?} are still there {seconds} s after being killed"
                )));
            }
            if let Some(user) = self.user()? {
                users::kill_all(user)?;
            }
            for process in &left {
                process.signal(Signal::SIGKILL)?;
            }
            for process in &left {
                process.wait(deadline.saturating_duration_since(Instant::now()));
            }
        }
    }
}

/// A directory for jobs, and the directories that an earlier server was removing when it was killed.
struct Prepared {
    directory: PathBuf,
    left: Vec<PathBuf>,
}

/// Creates the directory. Its canonical path is the mark of processes, so it must not depend on how the path is written.
fn prepare_directory(directory: &Path) -> io::Result<Prepared> {
    fs::create_dir_all(directory)?;
    let directory = fs::canonicalize(directory)?;
    let mut left = Vec::new();
    for entry in fs::read_dir(&directory)? {
        let entry = entry?;
        if entry.file_name().as_bytes().starts_with(REMOVED.as_bytes()) {
            left.push(entry.path());
        }
    }
    Ok(Prepared { directory, left })
}

/// Prepares the directory for jobs of other users, and checks that they can work there. Returns whether they can have
/// namespaces of their own.
fn admit(users: HostUsers, options: &mut HostOptions) -> Result<bool, EngineError> {
    let directory = &options.directory;
    let refused = |message: String| EngineError::Refused { message };
    if !HostUsers::are_possible() {
        let message = "only root can run jobs as users of their own".to_string();
        return Err(refused(message));
    }
    if directory
        .as_os_str()
        .as_bytes()
        .iter()
        .any(|byte| b":\n".contains(byte))
    {
        let message = format!(
            "`{}` contains a colon or a line end, so no home can be there",
            directory.display()
        );
        return Err(refused(message));
    }
    let attempted = || format!("prepare `{}` for jobs", directory.display());
    let parent = directory.parent().unwrap_or(directory);
    users::let_everybody_pass(parent).map_err(EngineError::failed(attempted()))?;
    // No job has to know which others there are.
    fs::set_permissions(directory, fs::Permissions::from_mode(0o711)).map_err(EngineError::failed(attempted()))?;
    let binary = fs::canonicalize(&options.agent_binary).map_err(EngineError::failed(attempted()))?;
    if !users::everybody_may_run(&binary) {
        let copy = directory.join(AGENT_COPY);
        users::copy_program(&binary, &copy).map_err(EngineError::failed(attempted()))?;
        options.agent_binary = copy;
    }
    users::can_be(users.first).map_err(EngineError::failed(format!(
        "become the user {}, as jobs do: this server lacks the right to (the capabilities SETUID and SETGID), or the id is not \
         mapped here; choose another one with --host-jobs-first-user, or let jobs be the server's user with \
         --host-jobs-user server",
        users.first
    )))?;
    users::can_reach(users.first, directory, &options.agent_binary).map_err(EngineError::failed(format!(
        "reach `{}` as the user {}: jobs run as users of their own, so everybody has to be able to pass through the folders \
         around it; choose another folder with --host-jobs-dir",
        directory.display(),
        users.first
    )))?;
    warn_of_closed_folders(&options.inherited);
    let separates = users::can_separate();
    if let Err(error) = &separates {
        tracing::warn!(
            %error,
            "jobs on this machine get no namespaces of their own: programs that look up their user's name, such as ssh, fail"
        );
    }
    Ok(separates.is_ok())
}

/// Says which folders that inherited variables name are closed to jobs, such as a `PATH` below root's home.
fn warn_of_closed_folders(inherited: &[String]) {
    let values = inherited.iter().filter_map(std::env::var_os);
    let folders = values.flat_map(|value| std::env::split_paths(&value).collect::<Vec<_>>());
    let closed: BTreeSet<PathBuf> = folders
        .filter(|path| path.is_absolute() && path.exists() && !users::everybody_may_pass(path))
        .collect();
    if !closed.is_empty() {
        let closed: Vec<_> = closed.iter().map(|path| path.to_string_lossy()).collect();
        tracing::warn!(
            folders = closed.join(", "),
            "jobs on this machine get variables that name these folders, but their users cannot reach them: install for every \
             user what jobs need, or let jobs be the server's user with --host-jobs-user server"
        );
    }
}

/// The users of all jobs of the engines whose directories are in `parent`.
fn taken(parent: &Path) -> BTreeSet<u32> {
    let entries = |directory: &Path| fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    let places = entries(parent).flat_map(|engine| entries(&engine.path()));
    places
        .filter_map(|job_directory| user_in(&job_directory.path()).ok()?)
        .collect()
}

/// The user that is written down in a job's directory.
fn user_in(job_directory: &Path) -> io::Result<Option<u32>> {
    match fs::read_to_string(job_directory.join(USER_FILE)) {
        Ok(text) => text.parse().map(Some).map_err(io::Error::other),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a file so that readers see all of it or none.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut new = path.as_os_str().to_os_string();
    new.push(".new");
    fs::write(&new, bytes)?;
    fs::rename(new, path)
}

/// The last complete lines of a file, at most `limit` bytes. Half a line may be half a secret.
fn last_bytes(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(limit)))?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    if length > limit {
        let line_end = bytes
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(bytes.len(), |at| at + 1);
        bytes.drain(..line_end);
    }
    Ok(bytes)
}

/// How often to retry removing a directory while somebody adds files to it.
const REMOVE_TRIES: u32 = 10;

/// Removes a directory, even if a job took away its own write permission, as Go's module cache does.
///
/// A caller that waits for a job's lock creates the lock file. If the directory is renamed at that moment, the file can still
/// appear in it. So this empties a directory again if it is not empty.
fn remove_tree(path: &Path) -> io::Result<()> {
    let mut tries = 0;
    loop {
        match fs::remove_dir_all(path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => break,
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && tries < REMOVE_TRIES => tries += 1,
            Err(error) => return Err(error),
        }
    }
    let mut pending = vec![path.to_path_buf()];
    while let Some(directory) = pending.pop() {
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            // Do not follow links: their targets do not belong to the job.
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
