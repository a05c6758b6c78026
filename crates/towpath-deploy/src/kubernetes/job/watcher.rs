//! Watches a Job to its end.

use super::{
    end::{end_of, exit_code, has_ended},
    output::{LogReader, Output, StartedContainer},
    podless::Podless,
    starter::Started,
};
use crate::kubernetes::rollout::Tolerance;
use crate::target::{Environment, JobEnd, JobHandle, JobLine};
use serde_json::Value;
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
    time::{Duration, Instant, sleep},
};
use towpath_kube::{Client, Gone, Informer, Resource, Select, container_statuses, text_at};
use towpath_manifest::{Kind, Readiness, pod};
use towpath_types::{Mask, Outcome};

/// How often to check the Job when no pod changes.
const TICK: Duration = Duration::from_secs(1);
/// How far a watch may be behind.
const LAG: Duration = Duration::from_secs(3);
/// How often to check whether it has caught up.
const CHECK: Duration = Duration::from_millis(50);

/// Watches Jobs of an environment.
pub(in crate::kubernetes) struct Watcher {
    pub client: Arc<Client>,
    pub environment: Environment,
    pub tolerance: Tolerance,
    /// Masks the values of the Secrets that the Job reads.
    pub mask: Mask,
}

impl Watcher {
    /// Watches the run `run` in a task of its own.
    pub(in crate::kubernetes) fn watch(self, run: &str, started: Started) -> JobHandle {
        let (output, lines) = mpsc::channel(256);
        let (ended, end) = oneshot::channel();
        tokio::spawn(async move {
            let outcome = self.to_the_end(&started, &output).await;
            drop(output);
            // It is fine if nobody waits.
            let _ = ended.send(outcome);
        });
        JobHandle {
            name: run.to_string(),
            output: lines,
            end,
        }
    }

    async fn to_the_end(&self, started: &Started, output: &mpsc::Sender<JobLine>) -> JobEnd {
        for note in &started.notes {
            let _ = output.send(JobLine::Note(note.clone())).await;
        }
        let namespace = &self.environment.namespace;
        let changed = Arc::new(Notify::new());
        // Select by the uid of the Job: pods of an earlier run may still exist.
        let of_job = Select::Labels(format!("batch.kubernetes.io/controller-uid={}", started.uid));
        let watch = |kind: &Kind, select: Select| {
            let path = Resource::of(kind).collection(namespace);
            Informer::start(Arc::clone(&self.client), path, select, Gone::Kept, Arc::clone(&changed))
        };
        // `ttlSecondsAfterFinished` may delete the Job and its pods at once. Only a watch sees their last states.
        let pods = watch(&Kind::POD, of_job.clone());
        let jobs = watch(&Kind::JOB, Select::Name(started.name.clone()));
        let mut containers = Containers {
            reader: LogReader {
                client: Arc::clone(&self.client),
                namespace: namespace.clone(),
                mask: self.mask.clone(),
            },
            output: output.clone(),
            has_several_pods: Arc::new(AtomicBool::new(started.has_several_pods)),
            known: BTreeSet::new(),
            reading: JoinSet::new(),
        };
        let mut in_trouble: HashMap<String, Instant> = HashMap::new();
        let mut podless = Podless::new(Arc::clone(&self.client), self.environment.clone(), self.tolerance);
        let mut told_of_logs = false;
        let path = Resource::of(&Kind::JOB).object(namespace, &started.name);
        loop {
            let seen = pods.filter(|_| true);
            containers.read_new(&seen).await;
            if let Some(why) = pods.denied()
                && !told_of_logs
            {
                told_of_logs = true;
                let note =
                    format!("cannot show its output: permission to list `pods` and get `pods/log` is missing ({why})");
                let _ = output.send(JobLine::Note(note)).await;
            }
            let job = match self.client.find(&path).await {
                Ok(Some(job)) if text_at(&job, "/metadata/uid") == started.uid => job,
                Ok(_) => match last_state(&jobs, &started.uid).await {
                    Some(job) if end_of(&job).is_some() => job,
                    _ => {
                        containers.reading.shutdown().await;
                        return end(Outcome::Canceled, None, "the Job was deleted".into());
                    }
                },
                Err(error) => return end(Outcome::Errored, None, error.to_string()),
            };
            if let Some((outcome, message)) = end_of(&job) {
                if pods.denied().is_some() {
                    return end(outcome, None, message);
                }
                let last = self.last_pods(&pods, &of_job, &job).await;
                containers.read_new_silently(&last);
                while containers.reading.join_next().await.is_some() {}
                return end(outcome, exit_code(&last, outcome), message);
            }
            let mut why = self.why_stuck(&seen, &mut in_trouble);
            if why.is_none() {
                let check = podless.check(&job, &pods).await;
                if let Some(note) = check.note {
                    let _ = output.send(JobLine::Note(self.mask.text(&note))).await;
                }
                why = check.give_up;
            }
            if let Some(why) = why {
                // Otherwise it would start when its problem is solved, long after everybody has left.
                let deleted = self.client.delete(&path, Some(&started.uid)).await;
                containers.reading.shutdown().await;
                let why = match deleted {
                    Ok(()) => format!("{why}. The Job was deleted"),
                    Err(error) => format!("{why}. The Job still exists: {error}"),
                };
                return end(Outcome::Failed, None, self.mask.text(&why));
            }
            tokio::select! {
                () = changed.notified() => {}
                () = sleep(TICK) => {}
            }
        }
    }

    /// The pods of a Job that has ended, each in its last state. The last one may have started and ended since the last event.
    async fn last_pods(&self, pods: &Informer, of_job: &Select, job: &Value) -> Vec<Value> {
        let path = Resource::of(&Kind::POD).collection(&self.environment.namespace);
        let count = |pointer: &str| job.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
        let ended = count("/status/failed") + count("/status/succeeded");
        let deadline = Instant::now() + LAG;
        loop {
            let listed = self.client.list(&path, of_job).await;
            let listed = listed.map(|(pods, _)| pods).unwrap_or_default();
            let watched = pods.filter(|_| true);
            let is_listed = |pod: &Value| listed.iter().any(|listed| uid_of(listed) == uid_of(pod));
            // The watch has yet to say how they ended.
            let lags = watched.iter().any(|pod| !is_listed(pod));
            let states = pods.gone().into_iter().chain(watched).chain(listed);
            let last: BTreeMap<String, Value> = states.map(|pod| (uid_of(&pod), pod)).collect();
            let last: Vec<Value> = last.into_values().collect();
            let known = last.iter().filter(|pod| has_ended(pod)).count() as u64;
            if (!lags && known >= ended) || Instant::now() >= deadline {
                return last;
            }
            sleep(CHECK).await;
        }
    }

    /// Why the pods of the Job will not start, if their trouble has lasted too long.
    fn why_stuck(&self, pods: &[Value], in_trouble: &mut HashMap<String, Instant>) -> Option<String> {
        for value in pods {
            let Readiness::Failed(why) = pod(value) else { continue };
            if has_ended(value) {
                continue;
            }
            let reasons: Vec<String> = container_statuses(value)
                .iter()
                .map(|status| text_at(status, "/state/waiting/reason"))
                .filter(|reason| !reason.is_empty())
                .collect();
            let has = |reason: &str| reasons.iter().any(|known| known == reason);
            // The Job's own `backoffLimit` decides how often it may crash.
            if has("CrashLoopBackOff") {
                continue;
            }
            let limit = if has("ImagePullBackOff") || has("ErrImagePull") {
                self.tolerance.pull
            } else if reasons.is_empty() {
                self.tolerance.unschedulable
            } else {
                self.tolerance.creation
            };
            let since = *in_trouble
                .entry(text_at(value, "/metadata/uid"))
                .or_insert_with(Instant::now);
            if since.elapsed() >= limit {
                return Some(why);
            }
        }
        None
    }
}

/// The state of a Job when it was deleted, if it was watched until then.
async fn last_state(jobs: &Informer, uid: &str) -> Option<Value> {
    let deadline = Instant::now() + LAG;
    jobs.settled(LAG).await;
    loop {
        let gone = jobs.gone().into_iter().find(|job| uid_of(job) == uid);
        // It is gone, but the watch does not know yet.
        let lags = !jobs.filter(|job| uid_of(job) == uid).is_empty();
        if gone.is_some() || !lags || Instant::now() >= deadline {
            return gone;
        }
        sleep(CHECK).await;
    }
}

fn uid_of(object: &Value) -> String {
    text_at(object, "/metadata/uid")
}

fn end(outcome: Outcome, exit_code: Option<i64>, message: String) -> JobEnd {
    JobEnd {
        outcome,
        exit_code,
        message,
    }
}

/// The containers of a Job whose output is read.
struct Containers {
    reader: LogReader,
    output: mpsc::Sender<JobLine>,
    has_several_pods: Arc<AtomicBool>,
    /// Pod, container and restart of each container that has started.
    known: BTreeSet<(String, String, i64)>,
    reading: JoinSet<()>,
}

impl Containers {
    /// Starts to read the output of containers that have started since the last call. Notes restarts.
    async fn read_new(&mut self, pods: &[Value]) {
        // Kubernetes may replace a pod while it still runs.
        let running = pods.iter().filter(|pod| text_at(pod, "/status/phase") == "Running");
        if running.count() > 1 {
            self.has_several_pods.store(true, Ordering::Relaxed);
        }
        for container in self.started_since(pods) {
            if container.restart > 0 {
                let note = format!("`{}` restarts ({})", container.name, container.restart);
                let _ = self.output.send(JobLine::Note(note)).await;
            }
            self.read(container);
        }
    }

    /// Like [`Containers::read_new`], without notes.
    fn read_new_silently(&mut self, pods: &[Value]) {
        for container in self.started_since(pods) {
            self.read(container);
        }
    }

    fn read(&mut self, container: StartedContainer) {
        let output = Output {
            lines: self.output.clone(),
            has_several_pods: Arc::clone(&self.has_several_pods),
            pod: container.pod.clone(),
            is_at_line_start: true,
        };
        self.reading.spawn(self.reader.clone().read(container, output));
    }

    /// The containers that have started since the last call.
    fn started_since(&mut self, pods: &[Value]) -> Vec<StartedContainer> {
        let mut pods: Vec<&Value> = pods.iter().collect();
        pods.sort_by_key(|pod| {
            (
                text_at(pod, "/metadata/creationTimestamp"),
                text_at(pod, "/metadata/name"),
            )
        });
        let mut new = Vec::new();
        for value in pods {
            let pod = text_at(value, "/metadata/name");
            for status in container_statuses(value) {
                let is = |state: &str| status.pointer(&format!("/state/{state}")).is_some();
                if !is("running") && !is("terminated") {
                    continue;
                }
                let restart = status.get("restartCount").and_then(Value::as_i64).unwrap_or(0);
                let name = text_at(status, "/name");
                if self.known.insert((pod.clone(), name.clone(), restart)) {
                    new.push(StartedContainer {
                        pod: pod.clone(),
                        name,
                        restart,
                        has_ended: is("terminated"),
                    });
                }
            }
        }
        new
    }
}
