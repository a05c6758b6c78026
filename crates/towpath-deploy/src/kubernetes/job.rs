//! One-off jobs: started, followed through all their pods to the end.

use super::{
    api::{Api, ApiError, escape},
    follow::Follower,
    kinds::Kind,
    record::Records,
    rollout::{Tolerance, container_statuses, text},
};
use crate::target::{Environment, JOB_LABEL, JobEnd, JobHandle, JobLine, ReleaseRecord, TargetError};
use bytes::Bytes;
use futures::StreamExt;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    task::JoinSet,
    time::{Duration, Instant},
};
use towpath_manifest::{Object, Readiness, containers, pod};
use towpath_types::{Mask, Outcome};

/// How long to rest before a broken stream of lines is taken up again.
const REST: Duration = Duration::from_millis(500);

pub(super) fn jobs() -> Kind {
    Kind::known("batch/v1", "Job", "jobs")
}

fn pods() -> Kind {
    Kind::known("v1", "Pod", "pods")
}

fn events() -> Kind {
    Kind::known("v1", "Event", "events")
}

/// What following a job needs.
#[derive(Clone)]
pub(super) struct Runner {
    pub api: Arc<Api>,
    pub environment: Environment,
    pub tolerance: Tolerance,
    pub mask: Mask,
}

/// The annotation that tells one run of a job from the next.
const RUN: &str = "towpath.dev/run";
/// How long is waited for an ended run to be gone.
const CLEARED: Duration = Duration::from_secs(30);
/// How long a Job may be without a pod before that is worth a word, and how often it is asked why there is none.
const PODLESS: Duration = Duration::from_secs(2);

/// A Job that was made.
pub(super) struct Running {
    name: String,
    uid: String,
    /// Whether it runs several pods.
    several: bool,
    /// What is to be said of it before anything else.
    pub notes: Vec<String>,
}

/// The Job that is the run `run`.
pub(super) async fn find_run(api: &Api, environment: &Environment, run: &str) -> Result<Option<Value>, ApiError> {
    let (found, _) = api.list(&jobs().collection(&environment.namespace), None).await?;
    Ok(found.into_iter().find(|job| run_of(job) == run))
}

fn run_of(job: &Value) -> &str {
    let run = job
        .pointer("/metadata/annotations")
        .and_then(|annotations| annotations.get(RUN));
    run.and_then(Value::as_str).unwrap_or_default()
}

impl Runner {
    /// Makes the Job of the run `run`, unless it is there; refuses while another of its kind runs, and clears those away
    /// that ended. A job has the same name in each run, so that of two who start it at once one makes it.
    pub(super) async fn start(&self, run: &str, mut job: Object) -> Result<Running, TargetError> {
        if job.value.pointer("/spec/suspend").and_then(Value::as_bool) == Some(true) {
            let place = job.place_of("/spec/suspend");
            return Err(TargetError::Refused(format!(
                "{place}: the Job is suspended (`suspend: true`), so it would never start"
            )));
        }
        let failed = |error: ApiError| TargetError::failed(format!("run the Job `{run}`"))(error);
        let base = Some(label_of(&job.value))
            .filter(|base| !base.is_empty())
            .map(str::to_string);
        let name = base.clone().unwrap_or_else(|| run.to_string());
        job.value["metadata"]["name"] = Value::from(name.as_str());
        job.value["metadata"]["annotations"][RUN] = Value::from(run);
        let path = jobs().object(&self.environment.namespace, &name);
        let running = |made: &Value| Running {
            name: name.clone(),
            uid: text(made, "/metadata/uid"),
            several: runs_several(made),
            notes: Vec::new(),
        };
        if let Some(there) = self.api.find(&path).await.map_err(failed)?
            && run_of(&there) == run
        {
            return Ok(running(&there));
        }
        let notes = match &base {
            Some(base) => self.clear(base, &path).await?,
            None => Vec::new(),
        };
        let collection = format!(
            "{}?fieldValidation=Strict",
            jobs().collection(&self.environment.namespace)
        );
        match self.api.create(&collection, &job.value).await {
            Ok(made) => Ok(Running {
                notes,
                ..running(&made)
            }),
            Err(error) if error.is_conflict() => match self.api.find(&path).await.map_err(failed)? {
                // Made by a request whose answer was lost.
                Some(there) if run_of(&there) == run => Ok(running(&there)),
                Some(there) => Err(runs_already(&name, &there)),
                None => Err(failed(error)),
            },
            Err(error) if matches!(error.code(), Some(400 | 403 | 404 | 422)) => {
                Err(TargetError::Refused(error.to_string()))
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Deletes the ended runs of a job, and an ended Job of its name that somebody else made; waits until `path` is free.
    /// Answers what is to be said of it.
    ///
    /// # Errors
    /// `Refused` when a run, or another's Job of that name, is still running or does not go.
    async fn clear(&self, base: &str, path: &str) -> Result<Vec<String>, TargetError> {
        let failed = |error: ApiError| TargetError::failed(format!("look for earlier runs of `{base}`"))(error);
        let collection = jobs().collection(&self.environment.namespace);
        let selector = format!("{JOB_LABEL}={base}");
        let (runs, _) = self.api.list(&collection, Some(&selector)).await.map_err(failed)?;
        for run in runs {
            if end_of(&run).is_none() {
                return Err(runs_already(base, &run));
            }
            self.remove(&run).await.map_err(failed)?;
        }
        let mut notes = Vec::new();
        let deadline = Instant::now() + CLEARED;
        loop {
            let Some(there) = self.api.find(path).await.map_err(failed)? else {
                return Ok(notes);
            };
            let is_going = !text(&there, "/metadata/deletionTimestamp").is_empty();
            if !is_going && end_of(&there).is_none() {
                return Err(runs_already(base, &there));
            }
            if !is_going {
                // What another environment or a controller keeps is not ours to replace.
                if let Some(owner) = owner_of(&there, &self.environment) {
                    return Err(TargetError::Refused(format!(
                        "there is a Job `{base}` already, which is {owner}'s: give the job another name, or the environment another namespace"
                    )));
                }
                // Without our label it was not among the runs: `kubectl apply` made it, say.
                if label_of(&there) != base && notes.is_empty() {
                    notes.push(format!(
                        "replaced Job `{base}`, which somebody else made and which had ended"
                    ));
                }
                self.remove(&there).await.map_err(failed)?;
            }
            if Instant::now() >= deadline {
                return Err(TargetError::Refused(format!(
                    "the Job `{base}`, which has ended, does not go: what do its finalizers wait for?"
                )));
            }
            // What had no finalizers is gone already.
            if is_going {
                tokio::time::sleep(REST).await;
            }
        }
    }

    /// Deletes this very Job.
    async fn remove(&self, job: &Value) -> Result<(), ApiError> {
        let path = jobs().object(&self.environment.namespace, &text(job, "/metadata/name"));
        let uid = text(job, "/metadata/uid");
        match self.api.delete(&path, Some(&uid)).await {
            // Another of its name was made meanwhile, which whoever looks next sees.
            Err(error) if error.is_conflict() => Ok(()),
            other => other,
        }
    }

    /// Follows the run `run` to its end.
    pub(super) fn follow(self, run: &str, started: Running) -> JobHandle {
        let (output, lines) = mpsc::channel(256);
        let (ended, end) = oneshot::channel();
        tokio::spawn(async move {
            let outcome = self.watch(&started, &output).await;
            drop(output);
            // Nobody waiting is fine.
            let _ = ended.send(outcome);
        });
        JobHandle {
            name: run.to_string(),
            output: lines,
            end,
        }
    }

    async fn watch(&self, started: &Running, output: &mpsc::Sender<JobLine>) -> JobEnd {
        for note in &started.notes {
            let _ = output.send(JobLine::Note(note.clone())).await;
        }
        let changed = Arc::new(Notify::new());
        let namespace = &self.environment.namespace;
        let start = |path: String, selector: String| {
            Follower::start(Arc::clone(&self.api), path, Some(selector), Arc::clone(&changed))
        };
        // A Job's controller puts its identity on its pods; an earlier run's may still be there.
        let of_job = format!("batch.kubernetes.io/controller-uid={}", started.uid);
        let pods = start(pods().collection(namespace), of_job.clone());
        let mut printing: JoinSet<()> = JoinSet::new();
        let mut begun: BTreeSet<(String, String, i64)> = BTreeSet::new();
        let mut lasting: HashMap<String, Instant> = HashMap::new();
        let mut podless = Podless::default();
        let several = Arc::new(AtomicBool::new(started.several));
        let lines_of = |one: &Started| Lines {
            pod: one.pod.clone(),
            several: Arc::clone(&several),
            begins: true,
            output: output.clone(),
        };
        let mut told_of_logs = false;
        let path = jobs().object(namespace, &started.name);
        loop {
            let seen = pods.filter(|_| true);
            // A pod may be replaced while it still runs.
            let running = seen.iter().filter(|pod| text(pod, "/status/phase") == "Running");
            if running.count() > 1 {
                several.store(true, Ordering::Relaxed);
            }
            for one in self.started(&seen, &mut begun) {
                if one.restart > 0 {
                    let _ = output
                        .send(JobLine::Note(format!(
                            "`{}` starts again ({})",
                            one.container, one.restart
                        )))
                        .await;
                }
                let lines = lines_of(&one);
                printing.spawn(self.clone().print(one, lines));
            }
            if let Some(why) = pods.denied()
                && !told_of_logs
            {
                told_of_logs = true;
                let note = format!(
                    "what it prints cannot be shown: permission to list `pods` and get `pods/log` would bring that ({why})"
                );
                let _ = output.send(JobLine::Note(note)).await;
            }
            let job = match self.api.find(&path).await {
                Ok(Some(job)) if text(&job, "/metadata/uid") == started.uid => job,
                Ok(_) => {
                    printing.shutdown().await;
                    return end(Outcome::Canceled, None, "the Job was deleted".into());
                }
                Err(error) => return end(Outcome::Errored, None, error.to_string()),
            };
            if let Some((outcome, message)) = end_of(&job) {
                // The last pod may have started and ended between two looks.
                if pods.denied().is_none() {
                    let last = self
                        .api
                        .list(&super::job::pods().collection(namespace), Some(&of_job))
                        .await;
                    let last = last.map(|(pods, _)| pods).unwrap_or_default();
                    for one in self.started(&last, &mut begun) {
                        let lines = lines_of(&one);
                        printing.spawn(self.clone().print(one, lines));
                    }
                    while printing.join_next().await.is_some() {}
                    return end(outcome, exit_code(&last, outcome), message);
                }
                return end(outcome, None, message);
            }
            let why = match self.stuck(&seen, &mut lasting) {
                Some(why) => Some(why),
                None => self.without_pod(&job, &pods, &mut podless, output).await,
            };
            if let Some(why) = why {
                // It would start whenever its reason is gone, long after everybody has left.
                let deleted = self.api.delete(&path, Some(&started.uid)).await;
                printing.shutdown().await;
                let why = match deleted {
                    Ok(()) => format!("{why}. The Job was deleted"),
                    Err(error) => format!("{why}. The Job is still there: {error}"),
                };
                return end(Outcome::Failed, None, self.mask.text(&why));
            }
            tokio::select! {
                () = changed.notified() => {}
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
        }
    }

    /// The containers of `pods` that have started since the last look.
    fn started(&self, pods: &[Value], begun: &mut BTreeSet<(String, String, i64)>) -> Vec<Started> {
        let mut pods: Vec<&Value> = pods.iter().collect();
        pods.sort_by_key(|pod| (text(pod, "/metadata/creationTimestamp"), text(pod, "/metadata/name")));
        let mut started = Vec::new();
        for pod in pods {
            let name = text(pod, "/metadata/name");
            for status in container_statuses(pod) {
                let state = |state: &str| status.pointer(&format!("/state/{state}")).is_some();
                if !state("running") && !state("terminated") {
                    continue;
                }
                let restart = status.get("restartCount").and_then(Value::as_i64).unwrap_or(0);
                let container = text(status, "/name");
                if begun.insert((name.clone(), container.clone(), restart)) {
                    started.push(Started {
                        pod: name.clone(),
                        container,
                        restart,
                        ended: state("terminated"),
                    });
                }
            }
        }
        started
    }

    /// Prints what a container prints, line by line, to its end; a broken connection is taken up where it broke.
    async fn print(self, one: Started, mut lines: Lines) {
        let path = pods().object(&self.environment.namespace, &one.pod);
        let base = format!(
            "{path}/log?container={}&timestamps=true&follow=true",
            escape(&one.container)
        );
        // The time of the last line that came, and how many lines had it.
        let (mut last, mut of_last) = (String::new(), 0_usize);
        let mut masker = self.mask.masker();
        loop {
            let path = match last.as_str() {
                "" => base.clone(),
                last => format!("{base}&sinceTime={}", escape(last)),
            };
            let mut pieces = match self.api.open(&path).await {
                Ok(pieces) => pieces,
                Err(error) => {
                    if !error.is_missing() {
                        let note = format!("what `{}` prints cannot be shown: {error}", one.container);
                        let _ = lines.output.send(JobLine::Note(note)).await;
                    }
                    break;
                }
            };
            let mut skip = of_last;
            let mut rest: Vec<u8> = Vec::new();
            let mut broke = false;
            while let Some(piece) = pieces.next().await {
                let Ok(piece) = piece else {
                    broke = true;
                    break;
                };
                rest.extend_from_slice(&piece);
                let mut out = Vec::new();
                while let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = rest.drain(..=at).collect();
                    let Some((time, words)) = split_time(&line) else {
                        continue;
                    };
                    if time < last.as_str() {
                        continue;
                    }
                    if time == last && skip > 0 {
                        skip -= 1;
                        continue;
                    }
                    if time == last {
                        of_last += 1;
                    } else {
                        (last, of_last, skip) = (time.to_string(), 1, 0);
                    }
                    masker.push(words, &mut out);
                }
                if !lines.send(out).await {
                    return;
                }
            }
            // What was printed last may have no line break.
            if let Some((time, words)) = split_time(&rest)
                && !broke
                && time > last.as_str()
            {
                let mut out = Vec::new();
                masker.push(words, &mut out);
                masker.push(b"\n", &mut out);
                lines.send(out).await;
            }
            if !broke || one.ended {
                break;
            }
            tokio::time::sleep(REST).await;
        }
        let mut out = Vec::new();
        masker.flush(&mut out);
        lines.send(out).await;
    }

    /// Why the job's pods will not start, once that has lasted.
    fn stuck(&self, pods: &[Value], lasting: &mut HashMap<String, Instant>) -> Option<String> {
        for value in pods {
            let Readiness::Failed(why) = pod(value) else { continue };
            if matches!(text(value, "/status/phase").as_str(), "Failed" | "Succeeded") {
                continue;
            }
            let reasons: Vec<String> = container_statuses(value)
                .iter()
                .map(|status| text(status, "/state/waiting/reason"))
                .filter(|reason| !reason.is_empty())
                .collect();
            let is = |reason: &str| reasons.iter().any(|known| known == reason);
            // Its own `backoffLimit` decides how often it may crash.
            if is("CrashLoopBackOff") {
                continue;
            }
            let bound = if is("ImagePullBackOff") || is("ErrImagePull") {
                self.tolerance.pull
            } else if reasons.is_empty() {
                self.tolerance.unschedulable
            } else {
                self.tolerance.creation
            };
            let since = *lasting.entry(text(value, "/metadata/uid")).or_insert_with(Instant::now);
            if since.elapsed() >= bound {
                return Some(why);
            }
        }
        None
    }

    /// Why no pod can be made for the job, once that has lasted: a Job itself says nothing of pods that are refused, its
    /// events do.
    async fn without_pod(
        &self,
        job: &Value,
        pods: &Follower,
        podless: &mut Podless,
        output: &mpsc::Sender<JobLine>,
    ) -> Option<String> {
        // Until they were read, nothing is known of them.
        if !pods.is_read() && pods.denied().is_none() {
            return None;
        }
        let seen = pods.filter(|_| true);
        let count = |field: &str| {
            let count = job.pointer(&format!("/status/{field}")).and_then(Value::as_i64);
            count.unwrap_or(0)
        };
        let has_ended = |pod: &Value| matches!(text(pod, "/status/phase").as_str(), "Failed" | "Succeeded");
        let has_pod = count("active") > 0 || count("terminating") > 0 || seen.iter().any(|pod| !has_ended(pod));
        let is_suspended = job.pointer("/spec/suspend").and_then(Value::as_bool) == Some(true);
        if has_pod || is_suspended {
            podless.since = None;
            podless.refused = None;
            // A queue of jobs suspends what it has no room for yet.
            if is_suspended && !podless.told {
                podless.told = true;
                let note = "it is suspended, and starts when whoever suspended it lets it go on";
                let _ = output.send(JobLine::Note(note.into())).await;
            }
            return None;
        }
        let since = *podless.since.get_or_insert_with(Instant::now);
        if since.elapsed() < PODLESS {
            return None;
        }
        let had_pods = !seen.is_empty() || count("failed") > 0 || count("succeeded") > 0;
        // Without the pods that it had, what was refused now cannot be told from what was refused before them.
        let is_between = had_pods && seen.is_empty();
        let can_ask = !(podless.is_denied || is_between);
        if can_ask && podless.asked.is_none_or(|asked| asked.elapsed() >= PODLESS) {
            podless.asked = Some(Instant::now());
            match self.refusal(&text(job, "/metadata/uid"), &seen).await {
                Ok(Some(why)) => {
                    let first = podless.refused.take().map_or_else(Instant::now, |(first, _)| first);
                    podless.refused = Some((first, why));
                }
                Ok(None) => podless.refused = None,
                Err(error) => podless.is_denied = error.is_forbidden(),
            }
        }
        let bound = self.tolerance.refusal;
        let (note, given_up) = match &podless.refused {
            Some((first, why)) => (
                format!("it waits for a pod, which cannot be made: {why}"),
                (first.elapsed() >= bound).then(|| format!("its pods cannot be made: {why}")),
            ),
            // Between two attempts there is none for a while.
            None if had_pods => return None,
            None if podless.is_denied => (
                "it waits for a pod".to_string(),
                (since.elapsed() >= bound).then(|| {
                    format!(
                        "no pod was made for it within {} s: a quota that is used up, an admission rule, or a service account that \
                         is not there, say (permission to list `events` would tell)",
                        bound.as_secs()
                    )
                }),
            ),
            None => (
                "it waits for a pod".to_string(),
                // No word of a refusal either: whoever makes pods may be busy.
                (since.elapsed() >= self.tolerance.unschedulable).then(|| {
                    format!(
                        "no pod was made for it within {} s, and no event says why: are the cluster's controllers at work?",
                        self.tolerance.unschedulable.as_secs()
                    )
                }),
            ),
        };
        if !podless.told {
            podless.told = true;
            let _ = output.send(JobLine::Note(self.mask.text(&note))).await;
        }
        given_up
    }

    /// What the newest event says of a pod that could not be made for the job `uid`, unless one of `pods` was made since.
    async fn refusal(&self, uid: &str, pods: &[Value]) -> Result<Option<String>, ApiError> {
        let newest = pods.iter().map(|pod| text(pod, "/metadata/creationTimestamp")).max();
        let newest = newest.unwrap_or_default();
        let selector = escape(&format!("involvedObject.uid={uid},reason=FailedCreate"));
        let collection = events().collection(&self.environment.namespace);
        let path = format!("{collection}?fieldSelector={selector}&limit=50");
        let answer = self.api.get(&path).await?;
        let found = answer.get("items").and_then(Value::as_array);
        let mut found: Vec<(String, String)> = found
            .into_iter()
            .flatten()
            .map(|event| (text(event, "/lastTimestamp"), text(event, "/message")))
            .filter(|(at, _)| newest.is_empty() || *at > newest)
            .collect();
        found.sort();
        Ok(found.pop().map(|(_, message)| message))
    }
}

/// For how long a job has been without a pod, and what is known of the reason.
#[derive(Default)]
struct Podless {
    since: Option<Instant>,
    /// When events were asked for last.
    asked: Option<Instant>,
    /// Whether events may not be read.
    is_denied: bool,
    /// Since when pods are known to be refused, and why.
    refused: Option<(Instant, String)>,
    /// Whether a line said that it waits.
    told: bool,
}

/// Where the lines of one container go.
struct Lines {
    pod: String,
    /// Whether the job runs, or ran, several pods at once, so that each line has to say whose it is.
    several: Arc<AtomicBool>,
    /// Whether a line begins with what comes next.
    begins: bool,
    output: mpsc::Sender<JobLine>,
}

impl Lines {
    /// Sends what was printed; `false` when nobody listens any more.
    async fn send(&mut self, out: Vec<u8>) -> bool {
        if out.is_empty() {
            return true;
        }
        let out = match self.several.load(Ordering::Relaxed) {
            true => behind(&self.pod, &out, self.begins),
            false => out,
        };
        self.begins = out.ends_with(b"\n");
        self.output.send(JobLine::Output(Bytes::from(out))).await.is_ok()
    }
}

/// `out` with the pod's name before each line that begins in it; its first byte begins one when `begins`.
fn behind(pod: &str, out: &[u8], mut begins: bool) -> Vec<u8> {
    let mut lines = Vec::with_capacity(out.len() + pod.len() + 3);
    for piece in out.split_inclusive(|byte| *byte == b'\n') {
        if begins {
            lines.extend_from_slice(format!("[{pod}] ").as_bytes());
        }
        lines.extend_from_slice(piece);
        begins = piece.ends_with(b"\n");
    }
    lines
}

/// Whether a Job runs several pods: at once, or one after the other, when the last lines of one may come after the first of
/// the next.
fn runs_several(job: &Value) -> bool {
    ["/spec/parallelism", "/spec/completions"]
        .iter()
        .any(|field| job.pointer(field).and_then(Value::as_i64).unwrap_or(1) > 1)
}

/// Who keeps a Job: another environment, by its labels, or a controller.
fn owner_of(job: &Value, environment: &Environment) -> Option<String> {
    let label = |label: &str| job.pointer("/metadata/labels")?.get(label)?.as_str();
    let (project, name) = (label("towpath.dev/project"), label("towpath.dev/environment"));
    if let (Some(project), Some(name)) = (project, name)
        && (project, name) != (environment.id.project(), environment.id.environment())
    {
        return Some(format!("{project}/{name}"));
    }
    let owners = job.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    let owner = owners.into_iter().flatten().next()?;
    Some(format!("{} `{}`", text(owner, "/kind"), text(owner, "/name")))
}

/// The label by which runs of one job are known.
fn label_of(job: &Value) -> &str {
    let label = job.pointer("/metadata/labels").and_then(|labels| labels.get(JOB_LABEL));
    label.and_then(Value::as_str).unwrap_or_default()
}

fn runs_already(base: &str, run: &Value) -> TargetError {
    TargetError::Refused(format!(
        "`{base}` is running already, as `{}` since {}: wait for its end, or delete that Job",
        text(run, "/metadata/name"),
        text(run, "/metadata/creationTimestamp")
    ))
}

/// A container that has begun to print.
struct Started {
    pod: String,
    container: String,
    restart: i64,
    ended: bool,
}

/// The time (RFC 3339) and the words of a line, which keep their line break.
fn split_time(line: &[u8]) -> Option<(&str, &[u8])> {
    let at = line.iter().position(|byte| *byte == b' ')?;
    let (time, words) = line.split_at(at);
    Some((std::str::from_utf8(time).ok()?, &words[1..]))
}

fn end(outcome: Outcome, exit_code: Option<i64>, message: String) -> JobEnd {
    JobEnd {
        outcome,
        exit_code,
        message,
    }
}

/// How a Job ended, if it did.
pub(super) fn end_of(job: &Value) -> Option<(Outcome, String)> {
    let conditions = job.pointer("/status/conditions").and_then(Value::as_array)?;
    let holds = |kind: &str| {
        conditions
            .iter()
            .find(|condition| text(condition, "/type") == kind && text(condition, "/status") == "True")
    };
    if holds("Complete").is_some() {
        return Some((Outcome::Succeeded, String::new()));
    }
    let failed = holds("Failed")?;
    let (reason, message) = (text(failed, "/reason"), text(failed, "/message"));
    let outcome = match reason.as_str() {
        "DeadlineExceeded" => Outcome::TimedOut,
        _ => Outcome::Failed,
    };
    Some((outcome, format!("{message} ({reason})")))
}

/// When a Job failed, if it did.
pub(super) fn failed_at(job: &Value) -> Option<jiff::Timestamp> {
    let conditions = job.pointer("/status/conditions").and_then(Value::as_array)?;
    let failed = conditions
        .iter()
        .find(|condition| text(condition, "/type") == "Failed")?;
    text(failed, "/lastTransitionTime").parse().ok()
}

/// The exit code of the container that ended last.
fn exit_code(pods: &[Value], outcome: Outcome) -> Option<i64> {
    let mut ends: BTreeMap<String, i64> = BTreeMap::new();
    for status in pods.iter().flat_map(|pod| container_statuses(pod)) {
        for state in ["/state/terminated", "/lastState/terminated"] {
            if let Some(code) = status.pointer(&format!("{state}/exitCode")).and_then(Value::as_i64) {
                ends.insert(text(status, &format!("{state}/finishedAt")), code);
            }
        }
    }
    match outcome {
        Outcome::Succeeded => Some(0),
        _ => ends.into_values().next_back().filter(|code| *code != 0),
    }
}

/// The Job that a CronJob makes, under a name of its own: made as `template` says, a CronJob's manifest, and belonging to
/// `cron_job`, as it is in the cluster.
///
/// Source: <https://github.com/kubernetes/kubectl/blob/master/pkg/cmd/create/create_job.go> (`--from`)
pub(super) fn of_cron_job(cron_job: &Value, template: &Value, run: &str) -> Option<Object> {
    let template = template.pointer("/spec/jobTemplate")?;
    let mut metadata = template.get("metadata").cloned().unwrap_or_else(|| json!({}));
    metadata["name"] = Value::from(run);
    metadata["namespace"] = cron_job.pointer("/metadata/namespace")?.clone();
    metadata["annotations"]["cronjob.kubernetes.io/instantiate"] = Value::from("manual");
    metadata["ownerReferences"] = json!([{
        "apiVersion": "batch/v1", "kind": "CronJob", "controller": true,
        "name": cron_job.pointer("/metadata/name")?, "uid": cron_job.pointer("/metadata/uid")?,
    }]);
    let value = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": template.get("spec")?});
    Object::from_value(value, "the cluster").ok()
}

/// The number and the manifest of the CronJob `name` of the release that succeeded last; `None` when it has none.
pub(super) fn of_release(records: &Records, name: &str) -> Option<(i64, Object)> {
    let succeeded = Outcome::Succeeded.as_str();
    let last = |release: &&ReleaseRecord| Some(release.id) == records.loaded.state.succeeded;
    let release = records.releases.iter().find(last);
    // A state that an earlier version wrote does not name it.
    let release = release.or_else(|| records.releases.iter().find(|release| release.state == succeeded))?;
    let objects = release.plan.get("objects").and_then(Value::as_array)?;
    let is_it = |object: &Object| object.kind == "CronJob" && object.name == name;
    let found = objects
        .iter()
        .filter_map(|object| serde_json::from_value::<Object>(object.clone()).ok())
        .find(is_it)?;
    Some((release.number, found))
}

/// What is to be said of a run of release `number` whose images are not those that the cluster's CronJob has.
pub(super) fn other_images(number: i64, job: &Object, of_cluster: &Object) -> Option<String> {
    let images =
        |job: &Object| -> Vec<String> { containers(job).into_iter().map(|container| container.image).collect() };
    let (ours, theirs) = (images(job), images(of_cluster));
    (ours != theirs).then(|| {
        format!(
            "this runs what release {number} has, {}; the CronJob in the cluster has {}",
            ours.join(", "),
            theirs.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_says_whose_it_is() {
        let said = |out: &str, begins| String::from_utf8_lossy(&behind("p", out.as_bytes(), begins)).into_owned();
        assert_eq!(said("a\nb\n", true), "[p] a\n[p] b\n");
        assert_eq!(said("rest\nb", false), "rest\n[p] b");
        assert_eq!(said("\n\n", true), "[p] \n[p] \n");
    }
}
