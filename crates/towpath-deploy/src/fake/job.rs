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
    /// What it prints, and the notes about it.
    pub lines: Vec<JobLine>,
    /// How it ends; `None` if it runs until somebody stops it.
    pub end: Option<JobEnd>,
}

impl JobScript {
    /// Prints lines, and exits with a code.
    #[must_use]
    pub fn exits(lines: &[&str], exit_code: i64) -> Self {
        let (outcome, message) = match exit_code {
            0 => (Outcome::Succeeded, String::new()),
            _ => (Outcome::Failed, format!("exit code {exit_code}")),
        };
        Self {
            lines: lines.iter().map(|line| printed(line)).collect(),
            end: Some(JobEnd {
                outcome,
                exit_code: Some(exit_code),
                message,
            }),
        }
    }

    /// Prints lines, and runs until somebody stops it.
    #[must_use]
    pub fn endless(lines: &[&str]) -> Self {
        Self {
            end: None,
            ..Self::exits(lines, 0)
        }
    }
}

fn printed(line: &str) -> JobLine {
    JobLine::Output(Bytes::from(format!("{line}\n")))
}

impl Default for JobScript {
    /// Prints nothing and succeeds.
    fn default() -> Self {
        Self::exits(&[], 0)
    }
}

/// A run of a job.
pub(super) struct FakeJob {
    pub object: Object,
    /// The CronJob that it belongs to.
    pub cron_job: Option<String>,
    pub started: Timestamp,
    pub lines: Vec<JobLine>,
    /// How and when it ended.
    pub end: Option<(JobEnd, Timestamp)>,
    /// The handles that wait for its end. They also keep their streams of lines open.
    waiting: Vec<(mpsc::Sender<JobLine>, oneshot::Sender<JobEnd>)>,
}

impl FakeJob {
    pub(super) fn start(object: Object, cron_job: Option<String>, script: JobScript, now: Timestamp) -> Self {
        Self {
            object,
            cron_job,
            started: now,
            lines: script.lines,
            end: script.end.map(|end| (end, now)),
            waiting: Vec::new(),
        }
    }

    /// A handle that follows the run `name` from its start.
    pub(super) fn follow(&mut self, name: &str) -> JobHandle {
        let (output, lines) = mpsc::channel(self.lines.len().max(1));
        for line in &self.lines {
            // The channel is large enough for all lines.
            let _ = output.try_send(line.clone());
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

    /// What it printed, without the notes about it.
    pub(super) fn printed(&self) -> Vec<String> {
        let printed = self.lines.iter().filter_map(|line| match line {
            JobLine::Output(bytes) => Some(String::from_utf8_lossy(bytes).trim_end().to_string()),
            JobLine::Note(_) => None,
        });
        printed.collect()
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
