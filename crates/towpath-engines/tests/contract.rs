//! One suite for every engine: the scripted fake, this machine, and a container engine. It keeps the fake from drifting.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "contract/host_users.rs"]
mod host_users;

use futures::{FutureExt, future::join_all};
use std::{
    collections::BTreeMap,
    future::Future,
    panic::AssertUnwindSafe,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::{UnixListener, UnixStream, unix::OwnedReadHalf, unix::OwnedWriteHalf},
    task::JoinHandle,
};
use towpath_container::{
    ContainerClient, ScratchImage, load_scratch_image,
    scratch::{FileContent, ScratchFile},
};
use towpath_engines::{
    Capacity, Container, DockerEngine, DockerOptions, Engine, EngineError, EnvironmentKind, EnvironmentRequest,
    EnvironmentState, HostEngine, HostOptions, HostUsers, MOST_PROCESSES, Scripted, ScriptedEngine,
};
use towpath_testkit::{Absent, Probe, engine_answers, remove_instance, skipped, until};
use towpath_types::{EngineName, JobId, NodeId, SecretString};

const BOUND: Duration = Duration::from_secs(40);
const AGENT: &str = env!("CARGO_BIN_EXE_towpath-engines-testagent");

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Scripted,
    /// On this machine, as the server's user.
    Host,
    /// On this machine, each job as a user of its own.
    OwnUser,
    Docker,
}

impl Kind {
    fn is_host(self) -> bool {
        matches!(self, Self::Host | Self::OwnUser)
    }
}

/// An agent that announced itself.
struct Agent {
    /// The same for every connection of one process.
    name: String,
    orders: OwnedWriteHalf,
    answers: Lines<BufReader<OwnedReadHalf>>,
}

impl Agent {
    async fn ask(&mut self, order: &str) -> String {
        self.orders.write_all(format!("{order}\n").as_bytes()).await.unwrap();
        self.answers.next_line().await.unwrap().unwrap()
    }
}

/// Keyed by token: every process that ever announced itself, and its newest connection.
#[derive(Default)]
struct Announced {
    names: BTreeMap<String, Vec<String>>,
    newest: BTreeMap<String, Agent>,
}

struct World {
    kind: Kind,
    folder: tempfile::TempDir,
    instance: String,
    image: String,
    scripted: ScriptedEngine,
    announced: Arc<Mutex<Announced>>,
    listening: Option<JoinHandle<()>>,
    engine: Option<Arc<dyn Engine>>,
}

/// Runs `test` on an engine of its own, and cleans up, even if the test fails.
async fn in_world<F: Future<Output = ()>>(
    name: &str,
    kind: Kind,
    test: impl FnOnce(Arc<tokio::sync::Mutex<World>>) -> F,
) {
    if kind == Kind::Docker
        && let Err(absent) = engine_answers().await
    {
        return skipped(name, &absent);
    }
    if kind == Kind::OwnUser && !HostUsers::are_possible() {
        return skipped(name, &Absent("only root can run jobs as others".into()));
    }
    let folder = tempfile::tempdir().unwrap();
    // Any user of a container has to get through here.
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let instance = folder
        .path()
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .trim_start_matches('.')
        .to_lowercase();
    let mut world = World {
        kind,
        image: String::new(),
        folder,
        instance,
        scripted: ScriptedEngine::new(),
        announced: Arc::default(),
        listening: None,
        engine: None,
    };
    if kind == Kind::Docker {
        world.image = load_image(&world.instance).await;
    }
    world.open().await;
    let world = Arc::new(tokio::sync::Mutex::new(world));
    let result = AssertUnwindSafe(test(world.clone())).catch_unwind().await;
    let mut world = Arc::try_unwrap(world)
        .ok()
        .expect("the test to be through with its world")
        .into_inner();
    let engine = world.engine().clone();
    for id in engine.list().await.unwrap() {
        engine.stop(&id).await.unwrap();
    }
    world.close();
    if kind == Kind::Docker {
        remove_instance(&world.instance).await.unwrap();
        let client = ContainerClient::connect().await.unwrap();
        client.remove_image(&world.image).await.unwrap();
    }
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

/// Loads an image that contains only the test's agent. Returns the image's name.
async fn load_image(instance: &str) -> String {
    let image = ScratchImage {
        repository: format!("towpath-test/{instance}"),
        files: vec![ScratchFile {
            path: "bin/testagent".into(),
            mode: 0o755,
            content: FileContent::Copy(AGENT.into()),
        }],
        entrypoint: vec!["/bin/testagent".into()],
        command: vec!["wait".into()],
        ..ScratchImage::default()
    };
    let client = ContainerClient::connect().await.unwrap();
    load_scratch_image(&client, image).await.unwrap().to_string()
}

const FEW_PROCESSES: u64 = 40;

impl World {
    /// The users of this world's jobs. Nobody else on this machine has them, and no other test.
    fn users(&self) -> HostUsers {
        let mut hasher = std::hash::DefaultHasher::new();
        std::hash::Hash::hash(&self.instance, &mut hasher);
        let world = u32::try_from(std::hash::Hasher::finish(&hasher) % 1_000_000).unwrap();
        HostUsers {
            first: 700_000_000 + world * 100,
            count: 100,
        }
    }

    /// Where the host engine of this instance keeps its jobs.
    fn jobs(&self, instance: &str) -> std::path::PathBuf {
        self.folder.path().join("jobs").join(instance)
    }

    fn host_options(&self, instance: &str) -> HostOptions {
        HostOptions {
            directory: self.jobs(instance),
            agent_binary: AGENT.into(),
            agent_socket: self.socket(),
            inherited: vec!["PATH".into()],
            users: (self.kind == Kind::OwnUser).then_some(self.users()),
            most_processes: match self.kind {
                Kind::OwnUser => FEW_PROCESSES,
                _ => MOST_PROCESSES,
            },
            engine_socket: Some(self.engine_socket()),
        }
    }

    /// What stands for the socket of this machine's container engine.
    fn engine_socket(&self) -> std::path::PathBuf {
        self.folder.path().join("engine.sock")
    }

    fn socket(&self) -> std::path::PathBuf {
        self.folder.path().join("socket").join("agents.sock")
    }

    /// Starts the server.
    async fn open(&mut self) {
        self.listen();
        self.engine = Some(self.new_engine(&self.instance).await);
    }

    /// An engine of the data directory `instance`, as another server would make it.
    async fn new_engine(&self, instance: &str) -> Arc<dyn Engine> {
        match self.kind {
            Kind::Scripted if instance == self.instance => Arc::new(self.scripted.clone()),
            Kind::Scripted => {
                let name = EngineName::new("scripted", "test", instance);
                Arc::new(ScriptedEngine::new().with_name(name))
            }
            Kind::Host | Kind::OwnUser => Arc::new(HostEngine::new(self.host_options(instance)).unwrap()),
            Kind::Docker => {
                let options = DockerOptions {
                    instance: instance.to_string(),
                    agent_binary: AGENT.into(),
                    agent_socket: self.socket(),
                };
                Arc::new(DockerEngine::connect(options).await.unwrap())
            }
        }
    }

    /// Kills the server: drops the engine's value and the socket.
    fn close(&mut self) {
        self.engine = None;
        if let Some(listening) = self.listening.take() {
            listening.abort();
        }
        self.announced.lock().unwrap().newest.clear();
    }

    fn listen(&mut self) {
        let socket = self.socket();
        std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).unwrap();
        std::fs::set_permissions(&socket, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let announced = self.announced.clone();
        self.listening = Some(tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(greet(stream, announced.clone()));
            }
        }));
    }

    fn engine(&self) -> &Arc<dyn Engine> {
        self.engine.as_ref().unwrap()
    }

    fn request(&self, id: NodeId) -> EnvironmentRequest {
        EnvironmentRequest {
            id,
            token: SecretString::new(token(&id)),
            kind: match self.kind {
                Kind::Docker => EnvironmentKind::Docker {
                    primary: Container::new(self.image.parse().unwrap()),
                    services: Vec::new(),
                },
                Kind::Host | Kind::OwnUser | Kind::Scripted => EnvironmentKind::Host { uses_engine: false },
            },
            limits: None,
        }
    }

    async fn start(&self, id: NodeId) {
        self.engine().start(&self.request(id)).await.unwrap();
    }

    async fn state(&self, id: NodeId) -> EnvironmentState {
        self.engine().state(&id).await.unwrap()
    }

    async fn list(&self) -> Vec<NodeId> {
        let mut list = self.engine().list().await.unwrap();
        list.sort();
        list
    }

    /// Waits for an agent of `id`, and returns how many were ever started.
    async fn agents(&self, id: NodeId) -> usize {
        if self.kind == Kind::Scripted {
            return self
                .scripted
                .started()
                .iter()
                .filter(|request| request.id == id)
                .count();
        }
        until(format!("the agent of {id} to announce itself"), BOUND, async || {
            let announced = self.announced.lock().unwrap();
            let here = announced.newest.contains_key(&token(&id));
            Ok(match announced.names.get(&token(&id)) {
                Some(names) if here => Probe::Found(names.len()),
                other => Probe::NotYet(format!("{other:?}")),
            })
        })
        .await
        .unwrap()
    }

    async fn agent(&self, id: NodeId) -> Agent {
        self.agents(id).await;
        self.announced.lock().unwrap().newest.remove(&token(&id)).unwrap()
    }

    /// Tells the agent of `id` to end.
    async fn exit(&self, id: NodeId, code: i64, words: &str) {
        if self.kind == Kind::Scripted {
            return self.scripted.exit(&id, Some(code), words);
        }
        let mut agent = self.agent(id).await;
        agent
            .orders
            .write_all(format!("exit {code} {words}\n").as_bytes())
            .await
            .unwrap();
    }

    async fn exited(&self, id: NodeId) -> (Option<i64>, String) {
        until(format!("{id} to have exited"), BOUND, async || {
            Ok(match self.state(id).await {
                EnvironmentState::Exited { code, detail } => Probe::Found((code, detail)),
                EnvironmentState::Absent => Probe::Never("it is absent".into()),
                state => Probe::NotYet(format!("{state:?}")),
            })
        })
        .await
        .unwrap()
    }
}

async fn greet(stream: UnixStream, announced: Arc<Mutex<Announced>>) {
    let (reader, orders) = stream.into_split();
    let mut answers = BufReader::new(reader).lines();
    let Ok(Some(line)) = answers.next_line().await else {
        return;
    };
    let (token, name) = line.split_once(' ').unwrap();
    let agent = Agent {
        name: name.to_string(),
        orders,
        answers,
    };
    let mut announced = announced.lock().unwrap();
    let names = announced.names.entry(token.to_string()).or_default();
    if !names.contains(&agent.name) {
        names.push(agent.name.clone());
    }
    announced.newest.insert(token.to_string(), agent);
}

fn token(id: &NodeId) -> String {
    format!("token-of-{id}")
}

fn new_id() -> NodeId {
    NodeId::first_attempt(JobId::from(uuid::Uuid::now_v7()), 0)
}

// The suite.

async fn what_was_never_started(world: &mut World) {
    let id = new_id();
    assert_eq!(world.state(id).await, EnvironmentState::Absent);
    world.engine().stop(&id).await.unwrap();
    assert_eq!(world.engine().service_logs(&id).await.unwrap(), []);
    assert_eq!(world.list().await, []);
}

async fn started_twice_is_started_once(world: &mut World) {
    let id = new_id();
    let request = world.request(id);
    let engine = world.engine().clone();
    for start in join_all((0..8).map(|_| engine.start(&request))).await {
        start.unwrap();
    }
    assert_eq!(world.state(id).await, EnvironmentState::Running);
    assert_eq!(world.agents(id).await, 1);
    world.start(id).await;
    assert_eq!(world.agents(id).await, 1);
    assert_eq!(world.list().await, [id]);
}

async fn what_has_exited_says_how_and_is_not_started_again(world: &mut World) {
    let id = new_id();
    world.start(id).await;
    world.exit(id, 7, "no such luck").await;
    let (code, detail) = world.exited(id).await;
    assert_eq!(code, Some(7));
    assert!(detail.contains("no such luck"), "{detail}");
    world.start(id).await;
    assert_eq!(world.exited(id).await, (Some(7), detail));
    assert_eq!(world.list().await, [id], "there is something to stop");
    for _ in 0..2 {
        world.engine().stop(&id).await.unwrap();
        assert_eq!(world.state(id).await, EnvironmentState::Absent);
    }
    assert_eq!(world.list().await, []);
}

async fn two_engine_values_make_one_environment(world: &mut World) {
    let id = new_id();
    let request = world.request(id);
    let other = world.new_engine(&world.instance).await;
    let engines = [
        world.engine().clone(),
        other.clone(),
        world.engine().clone(),
        other.clone(),
    ];
    for start in join_all(engines.iter().map(|engine| engine.start(&request))).await {
        start.unwrap();
    }
    assert_eq!(world.agents(id).await, 1);
    assert_eq!(other.list().await.unwrap(), [id]);
    assert_eq!(other.state(&id).await.unwrap(), EnvironmentState::Running);
    other.stop(&id).await.unwrap();
    assert_eq!(world.state(id).await, EnvironmentState::Absent);
    assert_eq!(world.list().await, []);
}

async fn two_attempts_are_two_environments(world: &mut World) {
    let first = new_id();
    let second = NodeId { attempt: 2, ..first };
    world.start(first).await;
    assert_eq!(world.agents(first).await, 1);
    world.exit(first, 5, "the first words").await;
    world.exited(first).await;
    // The first attempt's leftovers are still there, and do not belong to the second.
    assert_eq!(world.state(second).await, EnvironmentState::Absent);
    world.start(second).await;
    assert_eq!(world.agents(second).await, 1);
    assert_eq!(world.state(second).await, EnvironmentState::Running);
    let (code, detail) = world.exited(first).await;
    assert!(
        code == Some(5) && detail.contains("the first words"),
        "{code:?}: {detail}"
    );
    assert_eq!(world.list().await, [first, second]);
    world.engine().stop(&first).await.unwrap();
    assert_eq!(world.state(second).await, EnvironmentState::Running);
    assert_eq!(world.list().await, [second]);
    // Nor does starting the first again touch the second.
    world.start(first).await;
    assert_eq!(world.agents(second).await, 1);
    world.engine().stop(&second).await.unwrap();
    assert_eq!(world.list().await, [first]);
    assert_eq!(world.state(first).await, EnvironmentState::Running);
}

async fn list_names_exactly_what_is_there(world: &mut World) {
    let (runs, ends, stops) = (new_id(), new_id(), new_id());
    let later = NodeId {
        attempt: 3,
        node: 11,
        ..runs
    };
    for id in [runs, ends, stops, later] {
        world.start(id).await;
        assert_eq!(world.agents(id).await, 1);
    }
    world.exit(ends, 0, "done").await;
    world.exited(ends).await;
    world.engine().stop(&stops).await.unwrap();
    let mut there = [runs, ends, later];
    there.sort();
    assert_eq!(world.list().await, there);
    // An engine of another data directory on the same machine sees none of them, and stops none.
    let stranger = world.new_engine("stranger").await;
    assert_eq!(stranger.list().await.unwrap(), []);
    stranger.stop(&runs).await.unwrap();
    for _ in 0..2 {
        world.close();
        world.open().await;
        assert_eq!(world.list().await, there);
    }
    assert_eq!(world.state(runs).await, EnvironmentState::Running);
    world.engine().stop(&stops).await.unwrap();
    world.engine().stop(&new_id()).await.unwrap();
    assert_eq!(world.list().await, there, "stopping what is not there is of no effect");
    for id in there {
        world.engine().stop(&id).await.unwrap();
    }
    assert_eq!(world.list().await, []);
}

async fn its_name_says_which_engine_it_is(world: &mut World) {
    let name = world.engine().name().clone();
    let Capacity {
        cpu_millis,
        memory_bytes,
    } = world.engine().capacity();
    assert!(
        cpu_millis >= 1000 && memory_bytes > 64 << 20,
        "{cpu_millis} and {memory_bytes}"
    );
    world.close();
    world.open().await;
    assert_eq!(*world.engine().name(), name, "it is the same after a restart");
    assert_eq!(*world.new_engine(&world.instance).await.name(), name);
    let stranger = world.new_engine("stranger").await;
    assert_ne!(*stranger.name(), name, "another data directory's engine is another one");
    let kind = match world.kind.is_host() {
        true => "host:".to_string(),
        false => format!("{:?}:", world.kind).to_lowercase(),
    };
    assert!(name.as_str().starts_with(&kind), "{name}");
}

async fn stopping_one_leaves_the_others(world: &mut World) {
    let one = new_id();
    let two = NodeId { node: 1, ..one };
    let three = new_id();
    for id in [one, two, three] {
        world.start(id).await;
        assert_eq!(world.agents(id).await, 1);
    }
    let engine = world.engine().clone();
    for stop in join_all([engine.stop(&one), engine.stop(&one), engine.stop(&one)]).await {
        stop.unwrap();
    }
    assert_eq!(world.state(one).await, EnvironmentState::Absent);
    let mut left = [two, three];
    left.sort();
    assert_eq!(world.list().await, left);
    for id in left {
        assert_eq!(world.state(id).await, EnvironmentState::Running);
        assert_eq!(world.agents(id).await, 1);
    }
}

async fn agents_outlive_the_engines_value(world: &mut World) {
    let (stays, ends) = (new_id(), new_id());
    for id in [stays, ends] {
        world.start(id).await;
        assert_eq!(world.agents(id).await, 1);
    }
    let mut agent = if world.kind == Kind::Scripted {
        None
    } else {
        Some(world.agent(ends).await)
    };
    world.close();
    match &mut agent {
        // The agent ends while the server is dead.
        Some(agent) => agent.orders.write_all(b"exit 9 while nobody looked\n").await.unwrap(),
        None => world.scripted.exit(&ends, Some(9), "while nobody looked"),
    }
    world.open().await;
    let mut both = [stays, ends];
    both.sort();
    assert_eq!(world.list().await, both);
    assert_eq!(world.state(stays).await, EnvironmentState::Running);
    world.start(stays).await;
    assert_eq!(world.agents(stays).await, 1, "a second agent was started");
    let (code, detail) = world.exited(ends).await;
    assert!(detail.contains("while nobody looked"), "{detail}");
    assert!(code == Some(9) || (world.kind.is_host() && code.is_none()), "{code:?}");
    world.start(ends).await;
    world.exited(ends).await;
    world.engine().stop(&stays).await.unwrap();
    world.engine().stop(&ends).await.unwrap();
    assert_eq!(world.list().await, []);
}

async fn starts_and_stops_at_once_leave_one_or_none(world: &mut World) {
    let id = new_id();
    let request = world.request(id);
    let engine = world.engine().clone();
    // A container takes a second for what a process does in a few milliseconds.
    let rounds = if world.kind.is_host() { 100 } else { 4 };
    for _ in 0..rounds {
        let starts = join_all((0..4).map(|_| engine.start(&request)));
        let stops = join_all((0..4).map(|_| engine.stop(&id)));
        let (starts, stops) = tokio::join!(starts, stops);
        // A start may have come too late to finish. Then the caller may retry it.
        for error in starts.into_iter().filter_map(Result::err) {
            assert!(matches!(error, EngineError::Failed { .. }), "{error:?}");
        }
        for stop in stops {
            stop.unwrap();
        }
        engine.start(&request).await.unwrap();
        assert_ne!(world.state(id).await, EnvironmentState::Absent);
        if world.kind.is_host() {
            let alive = agents_alive(world.folder.path());
            assert!(alive.len() <= 1, "agents {alive:?} at once");
        }
    }
    engine.stop(&id).await.unwrap();
    assert_eq!(world.state(id).await, EnvironmentState::Absent);
    assert_eq!(world.list().await, []);
    assert_eq!(agents_alive(world.folder.path()), Vec::<i32>::new());
}

/// Processes of this machine whose state directory is under `folder`.
fn agents_alive(folder: &Path) -> Vec<i32> {
    let mark = format!(
        "{}={}/",
        towpath_protocol::variable::STATE_DIR,
        folder.canonicalize().unwrap().display()
    );
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment
                .split(|byte| *byte == 0)
                .any(|item| item.starts_with(mark.as_bytes()))
        })
        .filter(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
        })
        .collect()
}

async fn one_that_hears_no_signal_is_killed(world: &mut World) {
    let id = new_id();
    world.start(id).await;
    let mut agent = if world.kind == Kind::Scripted {
        None
    } else {
        let mut agent = world.agent(id).await;
        assert_eq!(agent.ask("deaf").await, "deaf");
        assert!(agent.ask("stray").await.parse::<u32>().is_ok());
        Some(agent)
    };
    world.engine().stop(&id).await.unwrap();
    assert_eq!(world.state(id).await, EnvironmentState::Absent);
    assert_eq!(world.list().await, []);
    assert_eq!(agents_alive(world.folder.path()), Vec::<i32>::new());
    if let Some(agent) = &mut agent {
        let rest = tokio::time::timeout(BOUND, agent.answers.next_line())
            .await
            .expect("its connection to end");
        assert!(matches!(rest, Ok(None) | Err(_)), "{rest:?}");
    }
}

async fn a_failed_start_is_followed_by_a_stop(world: &mut World) {
    let id = new_id();
    let mut request = world.request(id);
    request.kind = match world.kind {
        Kind::Docker => EnvironmentKind::Host { uses_engine: false },
        Kind::Host | Kind::OwnUser => EnvironmentKind::Docker {
            primary: Container::new("a:1".parse().unwrap()),
            services: vec![],
        },
        Kind::Scripted => {
            world.scripted.next(Scripted::Refuses("not here".into()));
            request.kind
        }
    };
    let refused = world.engine().start(&request).await.unwrap_err();
    assert!(matches!(refused, EngineError::Refused { .. }), "{refused:?}");
    assert_eq!(world.state(id).await, EnvironmentState::Absent);
    world.engine().stop(&id).await.unwrap();
    assert_eq!(world.list().await, []);
    // The same id can start successfully afterwards.
    world.start(id).await;
    assert_eq!(world.state(id).await, EnvironmentState::Running);
    assert_eq!(world.agents(id).await, 1);
}

macro_rules! suite {
    ($($case:ident),+ $(,)?) => {
        mod scripted { $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $case() { super::run(stringify!($case), super::Kind::Scripted, super::$case).await }
        )+ }
        mod host { $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $case() { super::run(stringify!($case), super::Kind::Host, super::$case).await }
        )+ }
        mod own_user { $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $case() { super::run(stringify!($case), super::Kind::OwnUser, super::$case).await }
        )+ }
        mod docker { $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $case() { super::run(stringify!($case), super::Kind::Docker, super::$case).await }
        )+ }
    };
}

async fn run(name: &str, kind: Kind, case: impl AsyncFnOnce(&mut World)) {
    in_world(name, kind, async |world| case(&mut *world.lock().await).await).await;
}

suite!(
    what_was_never_started,
    started_twice_is_started_once,
    two_engine_values_make_one_environment,
    two_attempts_are_two_environments,
    list_names_exactly_what_is_there,
    its_name_says_which_engine_it_is,
    what_has_exited_says_how_and_is_not_started_again,
    stopping_one_leaves_the_others,
    agents_outlive_the_engines_value,
    starts_and_stops_at_once_leave_one_or_none,
    one_that_hears_no_signal_is_killed,
    a_failed_start_is_followed_by_a_stop,
);

// What only one kind of engine has.

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_number_was_never_written_down_is_found() {
    for kind in [Kind::Host, Kind::OwnUser] {
        an_agent_is_found_without_its_number(kind).await;
    }
}

async fn an_agent_is_found_without_its_number(kind: Kind) {
    run("an_agent_whose_number", kind, async |world| {
        let id = new_id();
        world.start(id).await;
        let before = world.agent(id).await.name;
        world.close();
        // As if the server had died between starting the agent and writing down its process id.
        let jobs = world.jobs(&world.instance);
        std::fs::remove_file(jobs.join(id.to_string()).join("agent.pid")).unwrap();
        world.open().await;
        assert_eq!(world.list().await, [id]);
        world.start(id).await;
        let after = world.agent(id).await;
        assert_eq!(after.name, before);
        assert_eq!(world.agents_named(id), 1);
        assert_eq!(world.state(id).await, EnvironmentState::Running);
        drop(after);
    })
    .await;
}

impl World {
    fn agents_named(&self, id: NodeId) -> usize {
        self.announced.lock().unwrap().names[&token(&id)].len()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_on_this_machine_gets_nothing_of_the_servers_environment() {
    run("an_agent_on_this_machine", Kind::Host, async |world| {
        let id = new_id();
        world.start(id).await;
        let mut agent = world.agent(id).await;
        let own = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        let others: Vec<String> = own
            .filter(|name| !["PATH", "HOME", "TMPDIR", "USER", "LOGNAME"].contains(&name.as_str()))
            .collect();
        assert!(!others.is_empty(), "there is nothing that could be inherited");
        for name in others {
            assert_eq!(agent.ask(&format!("env {name}")).await, "(unset)", "{name}");
        }
        assert_eq!(agent.ask("env PATH").await, std::env::var("PATH").unwrap());
        let home = agent.ask("env HOME").await;
        assert!(home.contains(&id.to_string()), "{home}");
        let pid = agent.name.split(' ').next().unwrap();
        // Everybody may read the arguments, and root the environment and what is open.
        for file in ["cmdline", "environ"] {
            let text = std::fs::read(format!("/proc/{pid}/{file}")).unwrap();
            let text = String::from_utf8_lossy(&text);
            assert!(!text.contains("token-of"), "{file}: {text}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_services_print_is_kept_and_one_that_dies_is_only_said() {
    run("what_services_print", Kind::Docker, async |world| {
        let id = new_id();
        let mut request = world.request(id);
        let service = |name: &str, command: &[&str]| Container {
            name: Some(name.into()),
            command: Some(command.iter().map(|word| (*word).to_string()).collect()),
            ..Container::new(world.image.parse().unwrap())
        };
        if let EnvironmentKind::Docker { services, .. } = &mut request.kind {
            services.push(service("db", &["serve", "3", "the disk is full"]));
            services.push(service("queue", &["wait"]));
        }
        world.engine().start(&request).await.unwrap();
        assert_eq!(world.agents(id).await, 1);
        let logs = until("the first service to have died", BOUND, async || {
            let logs = world.engine().service_logs(&id).await?;
            Ok(if logs.iter().any(|log| log.exit_code.is_some()) {
                Probe::Found(logs)
            } else {
                Probe::NotYet(format!("{logs:?}"))
            })
        })
        .await
        .unwrap();
        let seen: Vec<_> = logs
            .iter()
            .map(|log| (log.name.as_str(), log.exit_code, log.output.as_slice()))
            .collect();
        assert_eq!(
            seen,
            [("db", Some(3), &b"the disk is full\n"[..]), ("queue", None, &b""[..])]
        );
        assert_eq!(world.state(id).await, EnvironmentState::Running);
        // A second start restarts none of them.
        world.engine().start(&request).await.unwrap();
        assert_eq!(world.engine().service_logs(&id).await.unwrap()[0].exit_code, Some(3));
        world.engine().stop(&id).await.unwrap();
        assert_eq!(world.engine().service_logs(&id).await.unwrap(), []);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_cannot_be_had_or_a_user_that_is_not_there() {
    run("an_image_that_cannot_be_had", Kind::Docker, async |world| {
        let id = new_id();
        let mut request = world.request(id);
        // Nobody listens at this address.
        request.kind = EnvironmentKind::Docker {
            primary: Container::new("127.0.0.1:1/app:1".parse().unwrap()),
            services: vec![],
        };
        let failed = world.engine().start(&request).await.unwrap_err();
        assert!(matches!(failed, EngineError::Failed { .. }), "{failed:?}");
        assert!(
            failed.to_string().contains("pull the image `127.0.0.1:1/app:1`"),
            "{failed}"
        );
        let mut request = world.request(id);
        if let EnvironmentKind::Docker { primary, .. } = &mut request.kind {
            primary.user = Some("nobody-of-that-name".into());
        }
        let refused = world.engine().start(&request).await.unwrap_err();
        assert!(matches!(refused, EngineError::Refused { .. }), "{refused:?}");
        assert!(refused.to_string().contains("nobody-of-that-name"), "{refused}");
        assert_eq!(world.state(id).await, EnvironmentState::Absent);
        assert_eq!(
            world.list().await,
            [id],
            "it is half made, so there is something to stop"
        );
        world.engine().stop(&id).await.unwrap();
        assert_eq!(world.list().await, []);
    })
    .await;
}
