//! Jobs: runs attempts until one succeeds or the limit is reached, and streams their output.

use super::{
    container, environment,
    local_environment::LocalEnvironment,
    model::{self, Job, Resource},
    names,
    pod::{self, Owner, Pod, pause_before},
    start_error::StartError,
    store::{Document, JobRecord},
};
use crate::{
    lines::{LineCutter, whole_lines},
    target::{JobEnd, JobHandle, JobLine, TargetError},
};
use futures::{StreamExt, future};
use jiff::{SignedDuration, Timestamp};
use std::{sync::Arc, time::Duration};
use tokio::sync::{Mutex, mpsc, oneshot};
use towpath_container::{Phase, Tail};
use towpath_types::{Mask, Outcome};

/// How long a stopped Job waits for containers that are still being created. Pulling an image may take longer.
const LONGEST_MAKING: Duration = Duration::from_secs(10);
/// The longest pause between two attempts.
///
/// Source: <https://kubernetes.io/docs/concepts/workloads/controllers/job/#pod-backoff-failure-policy>
const LONGEST_PAUSE: Duration = Duration::from_secs(360);
/// How many times to try a start that fails for a temporary reason.
const START_ATTEMPTS: u32 = 8;
/// How long to keep an ended Job that has no CronJob and no `ttlSecondsAfterFinished`.
const KEPT: Duration = Duration::from_secs(24 * 3600);

pub(crate) fn pod_name(job: &str, attempt: u32) -> String {
    format!("{job}-{attempt}")
}

fn job_of(record: &JobRecord) -> Option<Job> {
    match model::parse(&record.object).0 {
        Some(Resource::Job(job)) => Some(*job),
        _ => None,
    }
}

/// When to remove an ended Job; `None` if it has not ended, or if its CronJob's history limits decide.
pub(crate) fn removal(record: &JobRecord) -> Option<Timestamp> {
    let (_, ended) = record.end.as_ref()?;
    let ttl = job_of(record).and_then(|job| job.ttl);
    let ttl = match (ttl, &record.cron) {
        (Some(ttl), _) => ttl,
        (None, None) => KEPT,
        (None, Some(_)) => return None,
    };
    ended.checked_add(SignedDuration::try_from(ttl).ok()?).ok()
}

/// Runs the Job `name` to its end, from its recorded progress.
pub(crate) async fn run(context: Arc<LocalEnvironment>, name: String) {
    loop {
        let document = context.store.read();
        let Some(record) = document.jobs.get(&name).filter(|record| record.end.is_none()) else {
            return;
        };
        let Some(job) = job_of(record) else {
            end(
                &context,
                &name,
                Outcome::Errored,
                None,
                "its manifest cannot be read any more".into(),
            )
            .await;
            return;
        };
        let attempt = record.attempt;
        let pod = Pod::new(
            pod_name(&name, attempt),
            Owner::Job { name: name.clone() },
            job.pod.clone(),
        );
        let making = Mutex::new(());
        let attempted = try_once(&context, &pod, record, &making);
        tokio::pin!(attempted);
        let stop = tokio::select! {
            tried = &mut attempted => match tried {
                Ok(0) => {
                    end(&context, &name, Outcome::Succeeded, Some(0), "succeeded".into()).await;
                    return;
                }
                Ok(code) if attempt >= job.backoff_limit => {
                    let tries = attempt + 1;
                    let message = format!("exited with code {code}; that was attempt {tries} of {tries}");
                    end(&context, &name, Outcome::Failed, Some(code), message).await;
                    return;
                }
                Ok(code) => {
                    let pause = context.backoff.saturating_mul(1 << attempt.min(10)).min(LONGEST_PAUSE);
                    tracing::info!(environment = %context.id, job = name, code, "a job's attempt failed");
                    next_attempt(&context, &name, attempt, pause).await;
                    continue;
                }
                Err(message) => {
                    end(&context, &name, Outcome::Errored, None, message).await;
                    return;
                }
            },
            () = deadline(&context, &job, record) => {
                let seconds = job.active_deadline.unwrap_or_default().as_secs();
                (Outcome::TimedOut, format!("its `activeDeadlineSeconds` of {seconds} s passed"))
            }
            () = canceled(&context, &name) => (Outcome::Canceled, "canceled".to_string()),
        };
        // The engine finishes a creation even if nobody waits for it. The container has to exist before it can be removed.
        let made = async {
            tokio::select! {
                _ = &mut attempted => {}
                _ = making.lock() => {}
            }
        };
        let _ = tokio::time::timeout(LONGEST_MAKING, made).await;
        pod.let_go();
        pod::stop(&context, &pod, job.pod.grace).await;
        end(&context, &name, stop.0, None, stop.1).await;
        return;
    }
}

/// Makes one attempt. Returns the first exit code that is not 0, or 0. Holds `making` while it creates containers.
async fn try_once(
    context: &LocalEnvironment,
    pod: &Pod,
    record: &JobRecord,
    making: &Mutex<()>,
) -> Result<i64, String> {
    if let Some(at) = record.not_before {
        context.clock.sleep_until(at).await;
    }
    let mut failures = 0;
    loop {
        let brought_up = {
            let _making = making.lock().await;
            pod::bring_up(context, pod).await
        };
        if !matches!(brought_up, Err(StartError::Passing(_))) && failures > 0 {
            context.hinder(&pod.name, None);
        }
        match brought_up {
            Ok(_) => break,
            Err(StartError::Terminal(message)) => return Err(message),
            Err(StartError::Passing(message)) => {
                failures += 1;
                if failures >= START_ATTEMPTS {
                    context.hinder(&pod.name, None);
                    return Err(message);
                }
                context.hinder(&pod.name, Some(message));
                tokio::time::sleep(pause_before(failures + 1, context.backoff)).await;
            }
        }
    }
    let ends = pod.template.containers.iter().map(|container| {
        let name = context.names.container(&pod.name, &container.name);
        async move { context.engine.wait(&name).await }
    });
    let codes = future::join_all(ends).await;
    codes.into_iter().find(|code| *code != Some(0)).map_or(Ok(0), |code| {
        // Somebody removed the container, so its exit code is unknown. That does not count as a success.
        Ok(code.unwrap_or(137))
    })
}

async fn deadline(context: &LocalEnvironment, job: &Job, record: &JobRecord) {
    let Some(limit) = job.active_deadline else {
        return future::pending().await;
    };
    match record.began.checked_add(limit) {
        Ok(at) => context.clock.sleep_until(at).await,
        // The deadline is beyond the end of the calendar.
        Err(_) => future::pending().await,
    }
}

async fn canceled(context: &LocalEnvironment, name: &str) {
    let mut changed = context.changed.subscribe();
    while !context.store.read().jobs.get(name).is_none_or(|record| record.canceled) {
        if changed.changed().await.is_err() {
            future::pending::<()>().await;
        }
    }
}

async fn next_attempt(context: &LocalEnvironment, name: &str, attempt: u32, pause: Duration) {
    let now = context.clock.now();
    persist(context, |document| {
        if let Some(record) = document.jobs.get_mut(name) {
            record.attempt = attempt + 1;
            record.not_before = now.checked_add(pause).ok();
        }
    })
    .await;
}

async fn end(context: &LocalEnvironment, name: &str, outcome: Outcome, exit_code: Option<i64>, message: String) {
    let now = context.clock.now();
    tracing::info!(environment = %context.id, job = name, %outcome, message, "a job ended");
    let end = JobEnd {
        outcome,
        exit_code,
        message,
    };
    persist(context, |document| {
        if let Some(record) = document.jobs.get_mut(name) {
            record.end = Some((end.clone(), now));
        }
    })
    .await;
}

/// Retries until the change is written: a full disk must not turn an end into a second attempt.
async fn persist(context: &LocalEnvironment, change: impl Fn(&mut Document)) {
    while let Err(error) = context.store.update(&change).await {
        tracing::error!(
            error = error.chain(),
            "failed to store what became of a Job; trying again"
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    context.notify();
}

/// Removes a Job with all its attempts.
pub(crate) async fn forget(context: &LocalEnvironment, name: &str) -> Result<(), TargetError> {
    let labels = [
        (names::INSTANCE, context.names.instance.as_str()),
        (names::ENVIRONMENT, &context.names.slug),
        (names::JOB, name),
    ];
    let containers = context.engine.list(&labels).await?;
    for pod in names::by_label(&containers, names::POD).keys() {
        container::clear(context, pod).await?;
    }
    context.store.update(|document| document.jobs.remove(name)).await?;
    context.notify();
    Ok(())
}

/// Follows the Job `name` from the first line of its first attempt to its end.
pub(crate) fn follow(context: Arc<LocalEnvironment>, name: &str) -> JobHandle {
    let (lines, output) = mpsc::channel(256);
    let (ended, end) = oneshot::channel();
    let job = name.to_string();
    tokio::spawn(async move {
        let end = tell(&context, &job, &lines).await;
        drop(lines);
        let _ = ended.send(end);
    });
    JobHandle {
        name: name.to_string(),
        output,
        end,
    }
}

async fn tell(context: &Arc<LocalEnvironment>, name: &str, lines: &mpsc::Sender<JobLine>) -> JobEnd {
    let gone = || JobEnd {
        outcome: Outcome::Canceled,
        exit_code: None,
        message: "the Job was removed".into(),
    };
    let mut changed = context.changed.subscribe();
    let mut told = None;
    for attempt in 0.. {
        // Wait until the attempt's containers exist, or will never exist.
        let mask = loop {
            changed.mark_unchanged();
            let document = context.store.read();
            let Some(record) = document.jobs.get(name) else {
                return gone();
            };
            let Some(job) = job_of(record) else { return gone() };
            let pod = pod_name(name, attempt);
            let mut there = record.attempt > attempt || record.end.is_some();
            let hindrance = context.hindrance(&pod);
            if hindrance != told {
                if let Some(why) = &hindrance {
                    let note = format!("it has not started yet, and is tried again: {why}");
                    let _ = lines.send(JobLine::Note(note)).await;
                }
                told = hindrance;
            }
            if let Some(first) = job.pod.containers.first()
                && !there
            {
                let seen = context
                    .engine
                    .inspect(&context.names.container(&pod, &first.name))
                    .await;
                there = matches!(seen, Ok(Some(seen)) if seen.phase != Phase::Created);
            }
            if there {
                let mask = environment::mask(context, &job.pod).await;
                relay(context, &pod, &job, &mask, lines).await;
                break mask;
            }
            tokio::select! {
                changed = changed.changed() => {
                    if changed.is_err() {
                        return gone();
                    }
                }
                // Nobody listens any more.
                () = lines.closed() => return gone(),
            }
        };
        loop {
            changed.mark_unchanged();
            let document = context.store.read();
            let Some(record) = document.jobs.get(name) else {
                return gone();
            };
            if record.attempt > attempt {
                let pause = record
                    .not_before
                    .map(|at| at.duration_since(context.clock.now()).as_secs().max(0));
                let note = format!(
                    "attempt {} failed; the next begins in {} s",
                    attempt + 1,
                    pause.unwrap_or(0)
                );
                let _ = lines.send(JobLine::Note(note)).await;
                break;
            }
            if let Some((end, _)) = &record.end {
                return JobEnd {
                    message: mask.text(&end.message),
                    ..end.clone()
                };
            }
            if changed.changed().await.is_err() {
                return gone();
            }
        }
    }
    gone()
}

/// Sends the output of one attempt's containers until they have ended.
async fn relay(context: &LocalEnvironment, pod: &str, job: &Job, mask: &Mask, lines: &mpsc::Sender<JobLine>) {
    let several = job.pod.containers.len() > 1;
    let outputs = job.pod.containers.iter().map(|container| {
        let prefix = if several {
            format!("[{}] ", container.name)
        } else {
            String::new()
        };
        let name = context.names.container(pod, &container.name);
        let pieces = context.engine.output(&name, Tail::All, true);
        whole_lines(pieces, LineCutter::new(mask, prefix))
    });
    let mut all = futures::stream::select_all(outputs);
    while let Some(out) = all.next().await {
        // Nobody listens any more.
        if lines.send(JobLine::Output(out)).await.is_err() {
            return;
        }
    }
}
