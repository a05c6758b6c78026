//! A small server that speaks the agents' protocol and misbehaves on command.
#![allow(clippy::unwrap_used, clippy::panic, dead_code)]

use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use std::{
    collections::{BTreeMap, VecDeque},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::{
    net::{UnixListener, UnixStream},
    process::{Child, Command},
    sync::watch,
    task::JoinHandle,
};
use towpath_protocol::{
    Acknowledged, CacheKeyValues, JobSpec, Orders, Report, RunStep, SequencedReport, Step, StepAction, StepWhen,
    Variable, WorkspaceLayer, WorkspaceLayers, variable,
};
use towpath_testkit::{Probe, until};
use towpath_types::{JobId, Outcome, SecretString};

pub const BOUND: Duration = Duration::from_secs(60);
pub const TOKEN: &str = "the-token-of-this-agent";
const NOBODY: u32 = 65_534;
pub const STEP_TOKEN: &str = "the-token-of-its-steps";

/// A fault of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The server processes the request, but its answer is lost.
    AnswerLost,
    /// The connection breaks before the server reads the request.
    RequestLost,
    /// The server answers with this status.
    Answered(u16),
    /// The server takes only the first half of a log's bytes.
    TakesLess,
    /// The server loses this many bytes of a log that it had acknowledged, as after a failure of its disk.
    Forgets(u64),
    /// The answer's body ends early.
    BreaksOff,
}

#[derive(Default)]
pub struct State {
    /// Keyed by step. Empty if `counts_only`.
    pub logs: BTreeMap<u32, Vec<u8>>,
    pub lengths: BTreeMap<u32, u64>,
    pub counts_only: bool,
    pub reports: Vec<Report>,
    pub next_sequence: u64,
    pub caches: Vec<(String, Vec<u8>)>,
    pub layers: Vec<(WorkspaceLayer, Vec<u8>)>,
    pub persisted: BTreeMap<u32, Vec<u8>>,
    pub artifacts: BTreeMap<String, Vec<u8>>,
    pub test_results: BTreeMap<String, Vec<u8>>,
    pub source: Vec<u8>,
    /// Keyed by the beginning of the path. Each request uses up one fault.
    pub faults: Vec<(String, VecDeque<Fault>)>,
    pub requests: Vec<String>,
    /// Violations of the protocol.
    pub breaches: Vec<String>,
}

pub struct Server {
    pub state: Arc<Mutex<State>>,
    cancel: watch::Sender<bool>,
    spec: Arc<JobSpec>,
    socket: PathBuf,
    listening: Option<JoinHandle<()>>,
}

/// A job and its server, in a folder of their own.
pub struct World {
    pub folder: tempfile::TempDir,
    pub server: Server,
}

/// How an agent ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stderr: String,
}

pub fn run(command: &str) -> Step {
    run_with(command, |_| {})
}

pub fn run_with(command: &str, change: impl FnOnce(&mut RunStep)) -> Step {
    let mut step = RunStep {
        command: command.into(),
        ..RunStep::default()
    };
    change(&mut step);
    Step {
        name: command.lines().next().unwrap_or_default().into(),
        when: StepWhen::OnSuccess,
        action: StepAction::Run(step),
    }
}

pub fn action(action: StepAction) -> Step {
    Step {
        name: "a step".into(),
        when: StepWhen::OnSuccess,
        action,
    }
}

pub fn when(when: StepWhen, mut step: Step) -> Step {
    step.when = when;
    step
}

pub fn set(name: &str, value: &str) -> Variable {
    Variable {
        name: name.into(),
        value: SecretString::new(value.into()),
    }
}

impl World {
    pub fn new(steps: Vec<Step>) -> Self {
        Self::with(steps, |_| {})
    }

    pub fn with(steps: Vec<Step>, change: impl FnOnce(&mut JobSpec)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut spec = JobSpec {
            id: JobId::from_u128(1),
            node_index: 0,
            node_total: 1,
            name: "test".into(),
            working_directory: "~/project".into(),
            shell: None,
            environment: Vec::new(),
            repositories: None,
            mask: Vec::new(),
            steps,
            cache_key_values: CacheKeyValues::default(),
            time_limit_seconds: None,
            log_limit_bytes: None,
            on_host: false,
            step_token: Some(SecretString::new(STEP_TOKEN.into())),
        };
        change(&mut spec);
        let mut server = Server {
            state: Arc::default(),
            cancel: watch::channel(false).0,
            spec: Arc::new(spec),
            socket: folder.path().join("agents.sock"),
            listening: None,
        };
        server.open();
        Self { folder, server }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.server.state.lock().unwrap()
    }

    pub fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    pub fn start(&self) -> Child {
        self.command().spawn().unwrap()
    }

    /// Starts the agent as an unprivileged user who cannot inspect every process, as in a container or on a host.
    pub fn start_without_power(&self) -> Child {
        let mut command = self.command();
        if nix::unistd::geteuid().is_root() {
            for path in [self.folder.path(), &self.home(), &self.server.socket] {
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
            }
            command.uid(NOBODY).gid(NOBODY);
        }
        command.spawn().unwrap()
    }

    fn command(&self) -> Command {
        std::fs::create_dir_all(self.home()).unwrap();
        // As on the machine itself: no process may find the token in the agent's environment.
        let (token, mut writer) = std::io::pipe().unwrap();
        std::io::Write::write_all(&mut writer, TOKEN.as_bytes()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_towpath-agent-testagent"));
        command
            .arg("agent")
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", self.home())
            .env("TMPDIR", self.folder.path())
            .env(variable::AGENT_SOCKET, &self.server.socket)
            .env(variable::STATE_DIR, self.folder.path().join("state"))
            .current_dir(self.folder.path())
            .stdin(token)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs the job to its end. The agent has to exit with 0.
    pub async fn run(&self) -> (Outcome, Option<String>) {
        let ended = end(self.start()).await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        self.finished()
    }

    /// The job's outcome and message, as reported.
    pub fn finished(&self) -> (Outcome, Option<String>) {
        let state = self.state();
        assert_eq!(state.breaches, Vec::<String>::new());
        match state.reports.last() {
            Some(Report::JobFinished { outcome, message, .. }) => (*outcome, message.clone()),
            other => panic!("the last report is {other:?}"),
        }
    }

    pub fn log(&self, step: u32) -> String {
        String::from_utf8(self.state().logs.get(&step).cloned().unwrap_or_default()).unwrap()
    }

    /// The steps in the order in which they ended.
    pub fn steps(&self) -> Vec<(u32, Outcome, Option<i32>, Option<String>)> {
        let state = self.state();
        let finished = state.reports.iter().filter_map(|report| match report {
            Report::StepFinished {
                step,
                exit_code,
                outcome,
                message,
                ..
            } => Some((*step, *outcome, *exit_code, message.clone())),
            _ => None,
        });
        finished.collect()
    }

    pub fn fault(&self, path: &str, faults: impl IntoIterator<Item = Fault>) {
        self.state()
            .faults
            .push((path.to_string(), faults.into_iter().collect()));
    }

    pub fn cancel(&self) {
        self.server.cancel.send_replace(true);
    }

    pub async fn log_until(&self, step: u32, wanted: &str) {
        until(format!("step {step} to print {wanted:?}"), BOUND, async || {
            let log = self.log(step);
            Ok(if log.contains(wanted) {
                Probe::Found(())
            } else {
                Probe::NotYet(log)
            })
        })
        .await
        .unwrap();
    }
}

pub async fn end(child: Child) -> Ended {
    let output = tokio::time::timeout(BOUND, child.wait_with_output())
        .await
        .expect("the agent to end")
        .unwrap();
    Ended {
        code: output.status.code(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// An answer to the agent.
type Answer = Response<BoxBody<Bytes, io::Error>>;

/// Drops the connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("lost")]
struct Lost;

impl Server {
    pub fn open(&mut self) {
        let _ = std::fs::remove_file(&self.socket);
        let listener = UnixListener::bind(&self.socket).unwrap();
        let (state, spec, cancel) = (self.state.clone(), self.spec.clone(), self.cancel.clone());
        self.listening = Some(tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(stream, state.clone(), spec.clone(), cancel.subscribe()));
            }
        }));
    }

    /// Stops the server, and drops every connection.
    pub fn close(&mut self) {
        if let Some(listening) = self.listening.take() {
            listening.abort();
        }
    }
}

async fn serve(stream: UnixStream, state: Arc<Mutex<State>>, spec: Arc<JobSpec>, cancel: watch::Receiver<bool>) {
    let service = service_fn(move |request| answer(request, state.clone(), spec.clone(), cancel.clone()));
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn say(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()).map_err(|never| match never {}).boxed());
    *response.status_mut() = status;
    response
}

fn json(status: StatusCode, value: &impl serde::Serialize) -> Answer {
    say(status, serde_json::to_vec(value).unwrap())
}

fn status(code: u16) -> Answer {
    say(StatusCode::from_u16(code).unwrap(), "as told")
}

async fn answer(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
    spec: Arc<JobSpec>,
    mut cancel: watch::Receiver<bool>,
) -> Result<Answer, Lost> {
    let path = request.uri().path().to_string();
    let fault = {
        let mut state = state.lock().unwrap();
        state.requests.push(format!("{} {}", request.method(), request.uri()));
        if request
            .headers()
            .get("authorization")
            .is_none_or(|given| given != &format!("Bearer {TOKEN}"))
        {
            state.breaches.push(format!("{path} came without the token"));
        }
        let mine = state
            .faults
            .iter_mut()
            .find(|(prefix, _)| path.starts_with(prefix.as_str()));
        mine.and_then(|(_, faults)| faults.pop_front())
    };
    match fault {
        Some(Fault::RequestLost) => return Err(Lost),
        Some(Fault::Answered(code)) => {
            let _ = request.into_body().collect().await;
            return Ok(status(code));
        }
        _ => {}
    }
    if path == "/agent/v1/orders" {
        let _ = tokio::time::timeout(Duration::from_secs(25), cancel.wait_for(|cancel| *cancel)).await;
        let cancel = *cancel.borrow();
        return Ok(json(StatusCode::OK, &Orders { cancel }));
    }
    if path == "/agent/v1/job" {
        return Ok(json(StatusCode::OK, &*spec));
    }
    let (head, body) = request.into_parts();
    // Ignore a request whose body ends early.
    let declared = body.size_hint().exact();
    let Ok(body) = body.collect().await else {
        return Err(Lost);
    };
    let body = body.to_bytes();
    assert!(declared.is_none_or(|declared| declared == body.len() as u64));
    let answer = carry_out(
        &head.method,
        &path,
        head.uri.query().unwrap_or_default(),
        &body,
        fault,
        &mut state.lock().unwrap(),
    );
    match fault {
        Some(Fault::AnswerLost) => Err(Lost),
        Some(Fault::BreaksOff) => {
            let whole = answer.into_body().collect().await.unwrap().to_bytes();
            let half = whole.slice(..whole.len() / 2);
            let pieces = [Ok(Frame::data(half)), Err(io::Error::other("broken off"))];
            Ok(Response::new(BodyExt::boxed(StreamBody::new(futures::stream::iter(
                pieces,
            )))))
        }
        _ => Ok(answer),
    }
}

fn query(query: &str, name: &str) -> Option<String> {
    let value = query
        .split('&')
        .find_map(|pair| pair.strip_prefix(&format!("{name}=")))?;
    let mut out = Vec::new();
    let mut bytes = value.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
            out.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
        } else {
            out.push(byte);
        }
    }
    Some(String::from_utf8(out).unwrap())
}

fn carry_out(method: &Method, path: &str, text: &str, body: &Bytes, fault: Option<Fault>, state: &mut State) -> Answer {
    let last = path.rsplit('/').next().unwrap_or_default();
    match (
        method.as_str(),
        path.trim_start_matches("/agent/v1/")
            .split('/')
            .next()
            .unwrap_or_default(),
    ) {
        ("POST", "logs") => {
            let step: u32 = last.parse().unwrap();
            let offset: u64 = query(text, "offset").unwrap().parse().unwrap();
            let last = query(text, "last").unwrap().parse().unwrap();
            take_log(state, step, offset, body, last, fault)
        }
        ("POST", "reports") => {
            let report: SequencedReport = serde_json::from_slice(body).unwrap();
            if report.sequence > state.next_sequence {
                state.breaches.push(format!(
                    "report {} came before {}",
                    report.sequence, state.next_sequence
                ));
            } else if report.sequence == state.next_sequence {
                state.next_sequence += 1;
                note_order(state, &report.report);
                state.reports.push(report.report);
            }
            status(204)
        }
        ("HEAD", "caches") => {
            let key = query(text, "key").unwrap();
            status(if state.caches.iter().any(|(known, _)| *known == key) {
                200
            } else {
                404
            })
        }
        ("GET", "caches") => {
            let prefix = query(text, "prefix").unwrap();
            match state.caches.iter().rev().find(|(key, _)| key.starts_with(&prefix)) {
                Some((key, archive)) => {
                    let mut found = say(StatusCode::OK, archive.clone());
                    found
                        .headers_mut()
                        .insert(towpath_protocol::CACHE_KEY_HEADER, key.parse().unwrap());
                    found
                }
                None => status(404),
            }
        }
        ("PUT", "caches") => {
            let key = query(text, "key").unwrap();
            if state.caches.iter().any(|(known, _)| *known == key) {
                return status(200);
            }
            state.caches.push((key, body.to_vec()));
            status(201)
        }
        ("GET", "workspace") if last == "workspace" => {
            let layers = state.layers.iter().map(|(layer, _)| layer.clone()).collect();
            json(StatusCode::OK, &WorkspaceLayers { layers })
        }
        ("GET", "workspace") => match state.layers.iter().find(|(layer, _)| layer.id == last) {
            Some((_, archive)) => say(StatusCode::OK, archive.clone()),
            None => status(404),
        },
        ("PUT", "workspace") => {
            state.persisted.insert(last.parse().unwrap(), body.to_vec());
            status(201)
        }
        ("PUT", "artifacts") => {
            state.artifacts.insert(query(text, "path").unwrap(), body.to_vec());
            status(201)
        }
        ("PUT", "test-results") => {
            state.test_results.insert(query(text, "path").unwrap(), body.to_vec());
            status(201)
        }
        ("GET", "source") => say(StatusCode::OK, state.source.clone()),
        _ => {
            state.breaches.push(format!("the protocol has no {method} {path}"));
            status(404)
        }
    }
}

/// The server knows a secret that begins with this byte.
const UNDECIDED: &[u8] = b"h";

fn take_log(state: &mut State, step: u32, offset: u64, body: &Bytes, last: bool, fault: Option<Fault>) -> Answer {
    let begun = state
        .reports
        .iter()
        .any(|report| matches!(report, Report::StepStarted { step: begun, .. } if *begun == step));
    let ended = state
        .reports
        .iter()
        .any(|report| matches!(report, Report::StepFinished { step: ended, .. } if *ended == step));
    if !begun || ended {
        state.breaches.push(format!(
            "bytes of step {step}, which has begun: {begun}, has ended: {ended}"
        ));
    }
    let length = state.lengths.entry(step).or_default();
    if let Some(Fault::Forgets(count)) = fault {
        *length = length.saturating_sub(count);
        let kept = usize::try_from(*length).unwrap();
        state.logs.entry(step).or_default().truncate(kept);
    }
    if offset > *length {
        return json(StatusCode::CONFLICT, &Acknowledged { acknowledged: *length });
    }
    let skip = usize::try_from(*length - offset).unwrap().min(body.len());
    let mut fresh = &body[skip..];
    if !last && fresh.ends_with(UNDECIDED) {
        fresh = &fresh[..fresh.len() - UNDECIDED.len()];
    }
    if fault == Some(Fault::TakesLess) {
        fresh = &fresh[..fresh.len() / 2];
    }
    *length += fresh.len() as u64;
    let acknowledged = *length;
    if !state.counts_only {
        state.logs.entry(step).or_default().extend_from_slice(fresh);
    }
    json(StatusCode::OK, &Acknowledged { acknowledged })
}

/// Notes violations of the order of reports.
fn note_order(state: &mut State, report: &Report) {
    let over = state
        .reports
        .iter()
        .any(|earlier| matches!(earlier, Report::JobFinished { .. }));
    if over {
        state.breaches.push(format!("{report:?} came after the end of the job"));
    }
    if let Report::StepFinished { step, .. } = report {
        let begun = |earlier: &Report| matches!(earlier, Report::StepStarted { step: begun, .. } if begun == step);
        if !state.reports.iter().any(begun) {
            state.breaches.push(format!("step {step} ended and had not begun"));
        }
    }
}

/// An entry: its name (written verbatim, even if it leads out of the archive), its kind, its link target, and its content.
pub type Entry<'a> = (&'a str, tar::EntryType, &'a str, &'a str);

/// A compressed archive.
pub fn archive(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, link, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content.as_bytes()).unwrap();
    }
    zstd::encode_all(builder.into_inner().unwrap().as_slice(), 1).unwrap()
}

pub fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
