//! Reports to the server, in order, for as long as it takes.
//!
//! One task sends one request at a time: the reports in their order, and between them new bytes of the logs. The report that a
//! step has finished waits until the server has the step's whole log. A log that cannot be kept ends the job.

use crate::{
    client::{Client, ClientError},
    spool::Log,
    stderr::say,
};
use bytes::Bytes;
use hyper::StatusCode;
use std::{
    collections::{BTreeMap, VecDeque},
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::Instant,
};
use towpath_protocol::{Acknowledged, Report, SequencedReport, route};

/// The most bytes of a log in one request.
const BATCH_BYTES: u64 = 256 << 10;
/// While a log grows slowly, its first bytes are sent at once, and later ones are gathered for this long.
const GATHER: Duration = Duration::from_millis(40);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// The queue of what the server has to be told.
#[derive(Debug, Clone)]
pub(crate) struct Uplink {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    news: Arc<Notify>,
    /// Whether the server has received everything that was reported so far.
    is_told: watch::Sender<bool>,
    /// Why a log is incomplete, once one is.
    loss: watch::Sender<Option<String>>,
}

#[derive(Debug, Default)]
struct Queue {
    reports: VecDeque<Report>,
    logs: VecDeque<Arc<Log>>,
    closed: bool,
}

impl Uplink {
    /// Starts reporting. The task ends with `true` when it has reported everything after [`Uplink::close`], and with `false`
    /// when the server no longer knows the job.
    pub(crate) fn start(client: Client) -> (Self, JoinHandle<bool>) {
        let shared = Arc::new(Shared::default());
        let sender = Sender {
            client,
            shared: Arc::clone(&shared),
            sequence: 0,
            logs: BTreeMap::new(),
            turn: 0,
        };
        (Self { shared }, tokio::spawn(sender.run()))
    }

    /// Logs notify this when they grow.
    pub(crate) fn news(&self) -> Arc<Notify> {
        Arc::clone(&self.shared.news)
    }

    /// Reports that a step has begun, and sends its log from now on.
    pub(crate) fn begin(&self, started: Report, log: Arc<Log>) {
        let mut queue = self.shared.queue();
        queue.logs.push_back(log);
        queue.reports.push_back(started);
        self.shared.is_told.send_replace(false);
        drop(queue);
        self.shared.news.notify_one();
    }

    /// Reports anything else.
    pub(crate) fn report(&self, report: Report) {
        let mut queue = self.shared.queue();
        queue.reports.push_back(report);
        self.shared.is_told.send_replace(false);
        drop(queue);
        self.shared.news.notify_one();
    }

    /// Waits until a log becomes incomplete, and returns why.
    pub(crate) async fn loss(&self) -> String {
        let mut loss = self.shared.loss.subscribe();
        // This cannot fail: the sender lives as long as `self`.
        let why = loss.wait_for(Option::is_some).await.ok();
        why.and_then(|why| why.clone()).unwrap_or_default()
    }

    /// Waits until the server has received all reports so far, logs included. Returns why a log is incomplete, if one is.
    pub(crate) async fn told(&self) -> Option<String> {
        let mut is_told = self.shared.is_told.subscribe();
        let _ = is_told.wait_for(|is_told| *is_told).await;
        self.shared.loss.borrow().clone()
    }

    /// Says that there will be no more reports.
    pub(crate) fn close(&self) {
        self.shared.queue().closed = true;
        self.shared.news.notify_one();
    }
}

impl Shared {
    fn lose(&self, why: &str) {
        say(why);
        self.loss.send_if_modified(|known| {
            let is_first = known.is_none();
            known.get_or_insert_with(|| why.to_string());
            is_first
        });
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Sender {
    client: Client,
    shared: Arc<Shared>,
    sequence: u64,
    logs: BTreeMap<u32, Outgoing>,
    /// Logs take turns, so that a busy one does not hold the others back.
    turn: u32,
}

struct Outgoing {
    log: Arc<Log>,
    file: Option<File>,
    acknowledged: u64,
    /// The offset up to which the server has seen the log. The server may leave bytes at the end that could begin a secret, and
    /// takes them once more bytes follow.
    seen: u64,
    /// Whether the server knows that the step has begun.
    announced: bool,
    /// Whether the server refuses the rest of the log.
    refused: bool,
    /// Whether the loss of the rest of this log was reported.
    lost: bool,
    sent_at: Option<Instant>,
}

enum Next {
    Report(Report),
    Log(u32),
    /// Nothing is due now. Something is due at the given time, if there is one.
    Wait(Option<Instant>),
    Done,
}

impl Outgoing {
    fn is_drained(&self) -> bool {
        self.refused || (self.log.is_finished() && self.acknowledged >= self.log.length())
    }

    /// When to send the next bytes, if there are any.
    fn due(&self) -> Option<Instant> {
        let waiting = self.log.length().saturating_sub(self.acknowledged);
        let is_news = self.log.is_finished() || self.log.length() > self.seen;
        if !self.announced || self.refused || waiting == 0 || !is_news {
            return None;
        }
        match self.sent_at {
            Some(at) if waiting < BATCH_BYTES && !self.log.is_finished() => Some(at + GATHER),
            _ => Some(Instant::now()),
        }
    }

    fn read(&mut self) -> io::Result<Bytes> {
        let file = match self.file.take() {
            Some(file) => file,
            None => File::open(&self.log.path)?,
        };
        let length = self.log.length().saturating_sub(self.acknowledged).min(BATCH_BYTES);
        let mut batch = vec![0; usize::try_from(length).unwrap_or_default()];
        file.read_exact_at(&mut batch, self.acknowledged)?;
        self.file = Some(file);
        Ok(batch.into())
    }
}

impl Sender {
    async fn run(self) -> bool {
        let shared = Arc::clone(&self.shared);
        let all = self.tell().await;
        // Nothing more will be reported.
        shared.is_told.send_replace(true);
        all
    }

    async fn tell(mut self) -> bool {
        let gone = self.client.gone().clone();
        let mut pause = FIRST_PAUSE;
        loop {
            let told = match self.next() {
                Next::Done => return true,
                Next::Wait(until) => {
                    let news = Arc::clone(&self.shared.news);
                    tokio::select! {
                        () = news.notified() => {}
                        () = tokio::time::sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {}
                        () = gone.cancelled() => return false,
                    }
                    continue;
                }
                Next::Report(report) => self.tell_report(report).await,
                Next::Log(step) => self.tell_log(step).await,
            };
            match told {
                Ok(()) => pause = FIRST_PAUSE,
                Err(ClientError::Gone) => return false,
                Err(_) => {
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = gone.cancelled() => return false,
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    fn next(&mut self) -> Next {
        for outgoing in self.logs.values_mut().filter(|log| !log.lost) {
            if let Some(why) = outgoing.log.failure() {
                outgoing.lost = true;
                self.shared.lose(why);
            }
        }
        let mut queue = self.shared.queue();
        for log in queue.logs.drain(..) {
            let outgoing = Outgoing {
                log,
                file: None,
                acknowledged: 0,
                seen: 0,
                announced: false,
                refused: false,
                lost: false,
                sent_at: None,
            };
            self.logs.insert(outgoing.log.step, outgoing);
        }
        let waits = |step: &u32| self.logs.get(step).is_some_and(|log| !log.is_drained());
        match queue.reports.front() {
            Some(Report::StepFinished { step, .. }) if waits(step) => {}
            Some(report) => return Next::Report(report.clone()),
            None if queue.closed => return Next::Done,
            None => {}
        }
        let due: Vec<(Instant, u32)> = self
            .logs
            .iter()
            .filter_map(|(step, log)| Some((log.due()?, *step)))
            .collect();
        let now = Instant::now();
        let ready = |from: u32| {
            due.iter()
                .find(|(at, step)| *at <= now && *step >= from)
                .map(|(_, step)| *step)
        };
        match ready(self.turn).or_else(|| ready(0)) {
            Some(step) => {
                self.turn = step + 1;
                Next::Log(step)
            }
            None => Next::Wait(due.iter().map(|(at, _)| *at).min()),
        }
    }

    async fn tell_report(&mut self, report: Report) -> Result<(), ClientError> {
        let sequenced = SequencedReport {
            sequence: self.sequence,
            report,
        };
        let body = match serde_json::to_vec(&sequenced) {
            Ok(body) => body,
            Err(error) => return Err(ClientError::Away(error.to_string())),
        };
        match self
            .client
            .post_once::<serde_json::Value>(route::REPORTS, body.into())
            .await
        {
            Err(ClientError::Refused { status, message }) => {
                say(&format!(
                    "the server refused report {} ({status}): {message}",
                    self.sequence
                ));
            }
            answer => {
                answer?;
            }
        }
        self.sequence += 1;
        let mut queue = self.shared.queue();
        queue.reports.pop_front();
        self.shared.is_told.send_replace(queue.reports.is_empty());
        drop(queue);
        match sequenced.report {
            Report::StepStarted { step, .. } => {
                if let Some(log) = self.logs.get_mut(&step) {
                    log.announced = true;
                }
            }
            Report::StepFinished { step, .. } => {
                if let Some(done) = self.logs.remove(&step) {
                    // The file only takes up space. If it cannot be deleted, it goes with the environment.
                    let _ = fs::remove_file(&done.log.path);
                }
            }
            Report::JobFinished { .. } => {}
        }
        Ok(())
    }

    async fn tell_log(&mut self, step: u32) -> Result<(), ClientError> {
        let Some(outgoing) = self.logs.get_mut(&step) else {
            return Ok(());
        };
        // Read this before the length: a finished log no longer grows.
        let finished = outgoing.log.is_finished();
        let batch = match outgoing.read() {
            Ok(batch) => batch,
            Err(error) => {
                outgoing.refused = true;
                self.shared
                    .lose(&format!("the log of a step could not be read back: {error}"));
                return Ok(());
            }
        };
        let offset = outgoing.acknowledged;
        let end = offset + batch.len() as u64;
        let last = finished && end == outgoing.log.length();
        match self
            .client
            .post_once::<Acknowledged>(&route::logs(step, offset, last), batch)
            .await
        {
            Ok((status, Some(Acknowledged { acknowledged }))) => {
                // A smaller number than before means that the server lost bytes (409). The spool still has them.
                outgoing.acknowledged = acknowledged.min(outgoing.log.length());
                outgoing.seen = outgoing.acknowledged.max(end);
                outgoing.sent_at = Some(Instant::now());
                if status == StatusCode::CONFLICT {
                    outgoing.seen = outgoing.acknowledged;
                } else if acknowledged <= offset && last {
                    return Err(ClientError::Away("it took no byte of a log".to_string()));
                }
                Ok(())
            }
            Ok((status, None)) => Err(ClientError::Away(format!("it answered {status} to a log"))),
            Err(ClientError::Refused { message, .. }) => {
                outgoing.refused = true;
                // Nobody reads the file any more, and the disk may be full.
                outgoing.file = None;
                let _ = fs::remove_file(&outgoing.log.path);
                self.shared
                    .lose(&format!("the log of a step could not be kept: {message}"));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}
