//! Jobs of a fake target.

use crate::target::{JobEnd, JobHandle, JobLine};
use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use towpath_manifest::Object;
use towpath_types::Outcome;

/// What a run of a job does.
#[derive(Debug, Clone)]
pub struct JobScript {
    /// The lines that it prints.
    pub lines: Vec<String>,
    /// Its exit code; `None` if it runs until somebody stops it.
    pub exit_code: Option<i64>,
}

impl Default for JobScript {
    /// Prints nothing and succeeds.
    fn default() -> Self {
        Self {
            lines: Vec::new(),
            exit_code: Some(0),
        }
    }
}

/// A run of a job.
pub(super) struct FakeJob {
    pub object: Object,
    /// The CronJob that it belongs to.
    pub cron_job: Option<String>,
    pub started: Timestamp,
    pub lines: Vec<String>,
    /// How and when it ended.
    pub end: Option<(JobEnd, Timestamp)>,
    /// The handles that wait for its end. They also keep their streams of lines open.
    waiting: Vec<(mpsc::Sender<JobLine>, oneshot::Sender<JobEnd>)>,
}

impl FakeJob {
    pub(super) fn start(object: Object, cron_job: Option<String>, script: JobScript, now: Timestamp) -> Self {
        let end = script.exit_code.map(|exit_code| {
            let outcome = match exit_code {
                0 => Outcome::Succeeded,
                _ => Outcome::Failed,
            };
            let message = match exit_code {
                0 => String::new(),
                _ => format!("exit code {exit_code}"),
            };
            let end = JobEnd {
                outcome,
                exit_code: Some(exit_code),
                message,
            };
            (end, now)
        });
        Self {
            object,
            cron_job,
            started: now,
            lines: script.lines,
            end,
            waiting: Vec::new(),
        }
    }

    /// A handle that follows the run `name` from its start.
    pub(super) fn follow(&mut self, name: &str) -> JobHandle {
        let (output, lines) = mpsc::channel(self.lines.len().max(1));
        for line in &self.lines {
            // The channel is large enough for all lines.
            let _ = output.try_send(JobLine::Output(Bytes::from(format!("{line}\n"))));
        }
        let (ended, end) = oneshot::channel();
        match &self.end {
            Some((end, _)) => drop(ended.send(end.clone())),
            None => self.waiting.push((output, ended)),
        }
        JobHandle {
            name: name.to_string(),
            output: lines,
            end,
        }
    }

    pub(super) fn cancel(&mut self, now: Timestamp) {
        if self.end.is_some() {
            return;
        }
        let end = JobEnd {
            outcome: Outcome::Canceled,
            exit_code: None,
            message: "the Job was deleted".into(),
        };
        for (output, ended) in self.waiting.drain(..) {
            drop(output);
            // It is fine if nobody waits.
            let _ = ended.send(end.clone());
        }
        self.end = Some((end, now));
    }
}
