//! Jobs: attempts until one succeeds or there have been enough, and what they print.

use super::{
    context::{Boxed, Context},
    engine::StartError,
    model::{self, Job, Resource},
    names,
    pod::{self, Owner, Pod, pause_before},
    store::JobRecord,
};
use crate::target::{JobEnd, JobHandle, JobLine, TargetError};
use bytes::Bytes;
use futures::{FutureExt, StreamExt, future, stream::FuturesUnordered};
use jiff::{SignedDuration, Timestamp};
use std::{sync::Arc, time::Duration};
use tokio::sync::{Mutex, mpsc, oneshot};
use towpath_types::{Mask, Masker, Outcome};

/// How long a Job that is stopped waits for containers that are being made; pulling an image may take longer.
const LONGEST_MAKING: Duration = Duration::from_secs(10);
/// The longest pause between two attempts.
///
/// Source: <https://kubernetes.io/docs/concepts/workloads/controllers/job/#pod-backoff-failure-policy>
const LONGEST_PAUSE: Duration = Duration::from_secs(360);
/// How often a start that fails for a reason that may pass is tried.
const START_ATTEMPTS: u32 = 8;
/// How long a Job that nobody owns, and that does not say, is kept after its end.
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

/// When a Job that has ended is to be removed, unless a CronJob's history decides.
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

/// Carries the Job `name` to its end. Whatever was done of it before is found and gone on with.
pub(crate) async fn run(context: Arc<Context>, name: String) {
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
                "its manifest can no longer be read".into(),
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
        // What the engine was asked to make comes, whether or not somebody waits for it: it is to be there to be removed.
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

/// One attempt; the first exit code that is not 0, or 0.
/// `making` is held while its containers are made.
async fn try_once(context: &Context, pod: &Pod, record: &JobRecord, making: &Mutex<()>) -> Result<i64, String> {
    if let Some(at) = record.not_before {
        context.sleep_until(at).await;
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
        // Removed by somebody else: what it would have said is not known, so it did not succeed.
        Ok(code.unwrap_or(137))
    })
}

async fn deadline(context: &Context, job: &Job, record: &JobRecord) {
    let Some(limit) = job.active_deadline else {
        return future::pending().await;
    };
    match record.began.checked_add(limit) {
        Ok(at) => context.sleep_until(at).await,
        // Past the end of the calendar.
        Err(_) => future::pending().await,
    }
}

async fn canceled(context: &Context, name: &str) {
    let mut changed = context.changed.subscribe();
    while !context.store.read().jobs.get(name).is_none_or(|record| record.canceled) {
        if changed.changed().await.is_err() {
            future::pending::<()>().await;
        }
    }
}

async fn next_attempt(context: &Context, name: &str, attempt: u32, pause: Duration) {
    let now = context.clock.now();
    persist(context, |document| {
        if let Some(record) = document.jobs.get_mut(name) {
            record.attempt = attempt + 1;
            record.not_before = now.checked_add(pause).ok();
        }
    })
    .await;
}

async fn end(context: &Context, name: &str, outcome: Outcome, exit_code: Option<i64>, message: String) {
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

/// A full disk must not turn an end into a second attempt: this is tried until it is written.
async fn persist(context: &Context, change: impl Fn(&mut super::store::Document)) {
    while let Err(error) = context.store.update(&change).await {
        tracing::error!(error = error.chain(), "cannot store what became of a job, trying again");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    context.notify();
}

/// Removes a Job with all of its attempts.
pub(crate) async fn forget(context: &Context, name: &str) -> Result<(), TargetError> {
    let labels = [
        (names::INSTANCE, context.names.instance.as_str()),
        (names::ENVIRONMENT, &context.names.slug),
        (names::JOB, name),
    ];
    let containers = context.engine.list(&labels).await?;
    for pod in super::engine::names_by_label(&containers, names::POD).keys() {
        context.clear(pod).await?;
    }
    context.store.update(|document| document.jobs.remove(name)).await?;
    context.notify();
    Ok(())
}

/// Follows the Job `name` from its first attempt's first line to its end.
pub(crate) fn follow(context: Arc<Context>, name: &str) -> JobHandle {
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

async fn tell(context: &Arc<Context>, name: &str, lines: &mpsc::Sender<JobLine>) -> JobEnd {
    let gone = || JobEnd {
        outcome: Outcome::Canceled,
        exit_code: None,
        message: "the Job was removed".into(),
    };
    let mut changed = context.changed.subscribe();
    let mut told = None;
    for attempt in 0.. {
        // The attempt's containers are there, or will not come any more.
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
                there = matches!(seen, Ok(Some(seen)) if !seen.never_started);
            }
            if there {
                let mask = context.mask(&job.pod).await;
                relay(context, &pod, &job, &mask, lines).await;
                break mask;
            }
            // A container's start is no change of the store, so it is looked for again soon.
            let _ = tokio::time::timeout(Duration::from_millis(200), changed.changed()).await;
            if lines.is_closed() {
                return gone();
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

/// Sends what the containers of one attempt print until they have ended.
async fn relay(context: &Arc<Context>, pod: &str, job: &Job, mask: &Mask, lines: &mpsc::Sender<JobLine>) {
    let several = job.pod.containers.len() > 1;
    let mut all: FuturesUnordered<Boxed<()>> = FuturesUnordered::new();
    for container in &job.pod.containers {
        let prefix = if several {
            format!("[{}] ", container.name)
        } else {
            String::new()
        };
        let name = context.names.container(pod, &container.name);
        let pieces = context.engine.logs(&name, None, true);
        let (mut cutter, lines) = (LineCutter::new(mask, prefix), lines.clone());
        all.push(
            async move {
                let mut pieces = std::pin::pin!(pieces);
                while let Some(Ok(piece)) = pieces.next().await {
                    if let Some(out) = cutter.push(piece.as_ref())
                        && lines.send(JobLine::Output(out)).await.is_err()
                    {
                        return;
                    }
                }
                if let Some(out) = cutter.finish() {
                    let _ = lines.send(JobLine::Output(out)).await;
                }
            }
            .boxed(),
        );
    }
    while all.next().await.is_some() {}
}

/// Masks a stream and hands it on in whole lines.
pub(crate) struct LineCutter {
    masker: Masker,
    prefix: String,
    rest: Vec<u8>,
}

/// A line longer than this is handed on in pieces.
const LONGEST_LINE: usize = 64 << 10;

impl LineCutter {
    pub(crate) fn new(mask: &Mask, prefix: String) -> Self {
        Self {
            masker: mask.masker(),
            prefix,
            rest: Vec::new(),
        }
    }

    /// Takes a piece; the whole lines that it completes.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Option<Bytes> {
        self.masker.push(piece, &mut self.rest);
        let end = match self.rest.iter().rposition(|byte| *byte == b'\n') {
            Some(at) => at + 1,
            None if self.rest.len() > LONGEST_LINE => self.rest.len(),
            None => return None,
        };
        let whole: Vec<u8> = self.rest.drain(..end).collect();
        Some(self.prefixed(whole))
    }

    /// What is left when the stream has ended.
    pub(crate) fn finish(mut self) -> Option<Bytes> {
        self.masker.flush(&mut self.rest);
        let rest = std::mem::take(&mut self.rest);
        (!rest.is_empty()).then(|| self.prefixed(rest))
    }

    fn prefixed(&self, lines: Vec<u8>) -> Bytes {
        if self.prefix.is_empty() {
            return lines.into();
        }
        let mut out = Vec::with_capacity(lines.len() + self.prefix.len());
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            out.extend_from_slice(self.prefix.as_bytes());
            out.extend_from_slice(line);
        }
        out.into()
    }
}
