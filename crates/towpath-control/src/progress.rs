//! The log lines of releases and one-off runs: stored while they are carried out, and read by followers.
//!
//! **Invariant:** a reader that gets the end has got every line before it, unless the writing process died.
//!
//! Lines are in [`Objects`]; the end is in the row. Delivery commits the row without waiting for the lines to be
//! stored. So the writer marks the end of the lines, and after the end a reader waits for that mark for a while.

use crate::storage::{patiently, store_error};
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};
use tokio::{sync::mpsc, task::JoinHandle, time::Instant};
use towpath_delivery::{DeliveryError, Progress};
use towpath_store::{LogId, Objects, Store, StoreError, Topic};
use towpath_types::{Clock, Outcome, ReleaseId, RunId};

/// How long a read waits for a line.
const HELD: Duration = Duration::from_secs(20);
/// The most bytes that one answer reads.
const PIECE_BYTES: u64 = 1 << 20;
/// The most bytes to store of one log. A run may print without end.
const LARGEST_LOG_BYTES: u64 = 64 << 20;
/// Marks that nothing more comes: ASCII's end of transmission, on a line of its own.
const MARK: &str = "\u{4}";
/// How long after the end the mark may still come. After that, the writer counts as dead.
const MARK_WITHIN: SignedDuration = SignedDuration::from_secs(10);
/// How soon a reader looks for the mark again if it hears of no change.
const LOOK_FOR_MARK: Duration = Duration::from_millis(500);

/// The progress of a release or a run, from where the reader left off.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressView {
    /// Whole lines.
    pub lines: Vec<String>,
    /// The offset to pass for the next answer.
    pub next: u64,
    /// How it ended; set once it has ended and all lines were read.
    pub outcome: Option<Outcome>,
    /// The exit code of a run that ended.
    pub exit_code: Option<i64>,
}

/// The end of a release or a run.
#[derive(Debug, Clone, Copy)]
struct End {
    outcome: Outcome,
    exit_code: Option<i64>,
    at: Timestamp,
}

/// The lines of releases and runs. Clones share everything.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct ProgressLogs {
    pub store: Arc<dyn Store>,
    pub objects: Arc<dyn Objects>,
    pub clock: Arc<dyn Clock>,
}

impl ProgressLogs {
    /// The lines of a release from offset `from`. Waits for new lines; empty if none came within a long poll.
    ///
    /// # Errors
    /// `NotFound` when there is no such release; when the storage does not work.
    pub async fn of_release(&self, id: ReleaseId, from: u64) -> Result<ProgressView, DeliveryError> {
        let end = || async {
            let row = self.store.release(id).await.map_err(store_error)?;
            let row = row.ok_or_else(|| DeliveryError::not_found(format!("there is no release {id}")))?;
            let outcome = row.outcome.filter(|_| row.status.is_over());
            Ok(outcome.map(|outcome| End {
                outcome,
                exit_code: None,
                at: row.stopped_at.unwrap_or(row.created_at),
            }))
        };
        self.read(LogId::Release(id), Topic::lines_of_release(id), from, end)
            .await
    }

    /// The same for a one-off run.
    ///
    /// # Errors
    /// `NotFound` when there is no such run; when the storage does not work.
    pub async fn of_run(&self, id: RunId, from: u64) -> Result<ProgressView, DeliveryError> {
        let end = || async {
            let row = self.store.run(id).await.map_err(store_error)?;
            let row = row.ok_or_else(|| DeliveryError::not_found(format!("there is no run {id}")))?;
            Ok(row.outcome.map(|outcome| End {
                outcome,
                exit_code: row.exit_code,
                at: row.stopped_at.unwrap_or(row.created_at),
            }))
        };
        self.read(LogId::Run(id), Topic::Run(id), from, end).await
    }

    async fn read<F>(
        &self,
        log: LogId,
        topic: Topic,
        from: u64,
        end: impl Fn() -> F,
    ) -> Result<ProgressView, DeliveryError>
    where
        F: Future<Output = Result<Option<End>, DeliveryError>>,
    {
        // Subscribe before the first look, so that no change is missed.
        let mut changes = self.store.changes();
        let deadline = Instant::now() + HELD;
        loop {
            let end = end().await?;
            let piece = self
                .objects
                .read_log(log, from, PIECE_BYTES)
                .await
                .map_err(store_error)?;
            let part = Part::of(&piece);
            let is_complete = part.is_marked
                || end.is_some_and(|end| {
                    let is_late = self.clock.now().duration_since(end.at) > MARK_WITHIN;
                    is_late && (piece.len() as u64) < PIECE_BYTES
                });
            let end_heard = end.filter(|_| is_complete);
            let now = Instant::now();
            if !part.lines.is_empty() || end_heard.is_some() || now >= deadline {
                return Ok(ProgressView {
                    lines: part.lines,
                    next: from + part.taken,
                    outcome: end_heard.map(|end| end.outcome),
                    exit_code: end_heard.and_then(|end| end.exit_code),
                });
            }
            let until = match end {
                Some(_) => deadline.min(now + LOOK_FOR_MARK),
                None => deadline,
            };
            if let Ok(false) = tokio::time::timeout_at(until, changes.of(&topic)).await {
                return Err(DeliveryError::unavailable("Towpath is stopping; ask again"));
            }
        }
    }

    /// Appends the lines of a release to those already stored.
    ///
    /// # Errors
    /// When the storage does not work.
    pub(crate) async fn write_release(&self, id: ReleaseId) -> Result<LineWriter, DeliveryError> {
        let log = LogId::Release(id);
        let offset = self.objects.log_length(log).await.map_err(store_error)?;
        Ok(self.write(log, Topic::lines_of_release(id), offset))
    }

    /// Stores the lines of a run. After a restart a run is followed from its beginning again, so lines that are already
    /// stored are skipped.
    pub(crate) fn write_run(&self, id: RunId) -> LineWriter {
        self.write(LogId::Run(id), Topic::Run(id), 0)
    }

    fn write(&self, log: LogId, topic: Topic, offset: u64) -> LineWriter {
        let (lines, received) = mpsc::unbounded_channel();
        let writing = Writing {
            logs: self.clone(),
            log,
            topic,
            offset,
        };
        LineWriter {
            lines,
            done: tokio::spawn(writing.until_closed(received)),
        }
    }
}

/// The whole lines at the beginning of a piece of a log.
#[derive(Debug, Default, PartialEq, Eq)]
struct Part {
    lines: Vec<String>,
    /// The number of bytes that they take.
    taken: u64,
    /// Whether the end mark follows them.
    is_marked: bool,
}

impl Part {
    fn of(piece: &[u8]) -> Self {
        let whole = match piece.iter().rposition(|byte| *byte == b'\n') {
            Some(last) => last + 1,
            // A line longer than a piece is returned in parts.
            None if piece.len() as u64 >= PIECE_BYTES => piece.len(),
            None => 0,
        };
        let text = String::from_utf8_lossy(&piece[..whole]);
        let mut part = Self {
            taken: whole as u64,
            ..Self::default()
        };
        for line in text.lines() {
            match line {
                MARK => part.is_marked = true,
                line => part.lines.push(line.to_string()),
            }
        }
        part
    }
}

/// A message to a writer.
enum Told {
    Line(String),
    End,
}

/// Stores lines as they come. When dropped, it stores the lines that it was given, without the mark.
pub(crate) struct LineWriter {
    lines: mpsc::UnboundedSender<Told>,
    done: JoinHandle<()>,
}

impl Progress for LineWriter {
    fn line(&self, line: &str) {
        // The task accepts lines for as long as this sender exists.
        let _ = self.lines.send(Told::Line(line.to_string()));
    }
}

impl LineWriter {
    /// Waits until every line is stored. `is_over` says that no process will add more.
    pub(crate) async fn close(self, is_over: bool) {
        if is_over {
            let _ = self.lines.send(Told::End);
        }
        drop(self.lines);
        if let Err(error) = self.done.await {
            tracing::error!(%error, "storing lines ended early");
        }
    }
}

/// A writer's task.
struct Writing {
    logs: ProgressLogs,
    log: LogId,
    topic: Topic,
    offset: u64,
}

impl Writing {
    async fn until_closed(mut self, mut told: mpsc::UnboundedReceiver<Told>) {
        let mut is_cut = false;
        while let Some(first) = told.recv().await {
            let mut text = String::new();
            let mut next = Some(first);
            while let Some(one) = next {
                match one {
                    Told::Line(_) if is_cut => {}
                    Told::Line(line) => {
                        text.push_str(&line);
                        text.push('\n');
                        if self.offset + text.len() as u64 > LARGEST_LOG_BYTES {
                            is_cut = true;
                            text.push_str("-- more was printed than Towpath keeps\n");
                        }
                    }
                    Told::End => {
                        text.push_str(MARK);
                        text.push('\n');
                    }
                }
                next = if (text.len() as u64) < PIECE_BYTES {
                    told.try_recv().ok()
                } else {
                    None
                };
            }
            self.store(text.into()).await;
        }
    }

    async fn store(&mut self, bytes: Bytes) {
        let (log, end) = (self.log, self.offset + bytes.len() as u64);
        let append = || self.logs.objects.append_log(log, self.offset, bytes.clone());
        match patiently(self.logs.clock.as_ref(), "lines", append).await {
            // An earlier follower of the run may have stored more than this one has read again.
            Ok(_) => self.offset = end,
            Err(StoreError::LogGap { length }) => self.offset = length,
            Err(error) => {
                let error = towpath_types::with_causes(&error);
                tracing::error!(%log, error, "failed to store lines");
            }
        }
        self.logs.store.announce(std::slice::from_ref(&self.topic));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use towpath_delivery::SystemClock;
    use towpath_store::{Commit, Database, Expect, FolderObjects, RunRow, SqlStore, Write};
    use towpath_types::{Actor, EnvironmentId, RunKind};

    const BOUND: Duration = Duration::from_secs(10);

    struct World {
        logs: ProgressLogs,
        _folder: tempfile::TempDir,
    }

    async fn world() -> World {
        let folder = tempfile::tempdir().unwrap();
        World {
            logs: ProgressLogs {
                store: Arc::new(SqlStore::open(Database::SqliteMemory).await.unwrap()),
                objects: Arc::new(FolderObjects::open(folder.path()).unwrap()),
                clock: Arc::new(SystemClock),
            },
            _folder: folder,
        }
    }

    fn run(id: RunId) -> RunRow {
        RunRow {
            id,
            environment: EnvironmentId::new("claims", "dev").unwrap(),
            kind: RunKind::Job,
            name: "migrate".into(),
            object: "migrate-1".into(),
            image: String::new(),
            actor: Actor::job(),
            outcome: None,
            exit_code: None,
            message: None,
            created_at: Timestamp::now(),
            stopped_at: None,
            version: 0,
        }
    }

    async fn put(logs: &ProgressLogs, row: RunRow, expect: Expect) {
        logs.store
            .commit(Commit::new().with(Write::Run(row, expect)))
            .await
            .unwrap();
    }

    async fn end(logs: &ProgressLogs, id: RunId, at: Timestamp) {
        let ended = RunRow {
            outcome: Some(Outcome::Failed),
            exit_code: Some(3),
            stopped_at: Some(at),
            ..run(id)
        };
        put(logs, ended, Expect::Version(1)).await;
    }

    /// Reads everything up to the end.
    async fn read(logs: &ProgressLogs, id: RunId) -> (Vec<String>, ProgressView) {
        let mut lines = Vec::new();
        let mut from = 0;
        loop {
            let view = tokio::time::timeout(BOUND, logs.of_run(id, from)).await;
            let view = view.unwrap_or_else(|_| panic!("no end came after {lines:?}")).unwrap();
            lines.extend(view.lines.iter().cloned());
            from = view.next;
            if view.outcome.is_some() {
                return (lines, view);
            }
        }
    }

    #[test]
    fn lines_are_handed_on_whole() {
        let part = |text: &str| Part::of(text.as_bytes());
        let expect = |lines: &[&str], taken, is_marked| Part {
            lines: lines.iter().map(ToString::to_string).collect(),
            taken,
            is_marked,
        };
        assert_eq!(part(""), expect(&[], 0, false));
        assert_eq!(part("a\nb"), expect(&["a"], 2, false));
        assert_eq!(part("a\n\nb\n"), expect(&["a", "", "b"], 5, false));
        assert_eq!(part("a\n\u{4}\n"), expect(&["a"], 4, true));
        let long = "x".repeat(PIECE_BYTES as usize);
        assert_eq!(part(&long).lines, [long]);
    }

    #[tokio::test]
    async fn a_reader_gets_every_line_and_then_the_end() {
        let World { logs, _folder } = world().await;
        let id = RunId::from_u128(1);
        put(&logs, run(id), Expect::Absent).await;
        let reader = tokio::spawn({
            let logs = logs.clone();
            async move { read(&logs, id).await }
        });
        let writer = logs.write_run(id);
        writer.line("one");
        writer.line("two\nthree");
        // The row says that it ended before the last line is stored.
        end(&logs, id, Timestamp::now()).await;
        tokio::task::yield_now().await;
        writer.line("four");
        writer.close(true).await;
        let (lines, last) = reader.await.unwrap();
        assert_eq!(lines, ["one", "two", "three", "four"]);
        assert_eq!((last.outcome, last.exit_code), (Some(Outcome::Failed), Some(3)));
    }

    #[tokio::test]
    async fn a_run_that_is_followed_again_has_no_line_twice() {
        let World { logs, _folder } = world().await;
        let id = RunId::from_u128(2);
        put(&logs, run(id), Expect::Absent).await;
        let first = logs.write_run(id);
        first.line("one");
        first.line("two");
        first.close(false).await;
        let second = logs.write_run(id);
        second.line("one");
        second.line("two");
        second.line("three");
        end(&logs, id, Timestamp::now()).await;
        second.close(true).await;
        assert_eq!(read(&logs, id).await.0, ["one", "two", "three"]);
    }

    #[tokio::test]
    async fn a_writer_that_died_keeps_nobody_waiting_for_ever() {
        let World { logs, _folder } = world().await;
        let id = RunId::from_u128(3);
        put(&logs, run(id), Expect::Absent).await;
        let writer = logs.write_run(id);
        writer.line("one");
        writer.close(false).await;
        end(&logs, id, Timestamp::now() - SignedDuration::from_mins(1)).await;
        assert_eq!(read(&logs, id).await.0, ["one"]);
        let missing = logs.of_run(RunId::from_u128(4), 0).await.unwrap_err();
        assert_eq!(missing.kind(), towpath_delivery::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn a_release_that_is_taken_up_again_goes_on_behind_its_lines() {
        let World { logs, _folder } = world().await;
        let id = ReleaseId::from_u128(1);
        for line in ["one", "two"] {
            let writer = logs.write_release(id).await.unwrap();
            writer.line(line);
            writer.close(false).await;
        }
        let stored = logs.objects.read_log(LogId::Release(id), 0, 100).await.unwrap();
        assert_eq!(stored, "one\ntwo\n");
    }
}
