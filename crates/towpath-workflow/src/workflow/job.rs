//! Where one job is.

use jiff::Timestamp;
use std::time::Duration;
use towpath_types::{JobStatus, Outcome};

/// Where a job is. `since` is when it came there.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum JobState {
    /// It waits for what it requires.
    Blocked,
    /// Its attempt waits for a server.
    Queued,
    /// A server took the attempt, and prepares its environment.
    Claimed {
        since: Timestamp,
        /// Why it is to stop, if it is.
        stop: Option<Stop>,
    },
    /// The attempt's environment is up.
    Running {
        since: Timestamp,
        /// Why it is to stop, if it is.
        stop: Option<Stop>,
    },
    /// The attempt before ended in an infrastructure error; this one is queued at `until`.
    BackingOff { until: Timestamp },
    /// It waits for a person.
    OnHold { since: Timestamp },
    /// It ended.
    Ended {
        outcome: Outcome,
        at: Timestamp,
        /// Why, for a person.
        message: Option<String>,
    },
}

/// An attempt that was told to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// Why.
    pub reason: StopReason,
    /// When the machine ends the job, should it not have ended by then.
    pub deadline: Timestamp,
}

/// Why an attempt was told to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum StopReason {
    /// Somebody canceled the workflow.
    Canceled { by: String },
    /// It ran longer than its `time_limit`.
    TimeLimit(Duration),
}

/// One job of a workflow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Where its current attempt is.
    pub state: JobState,
    /// The current attempt, from 1. A job that waits, or that never runs, has one too.
    pub attempt: u32,
    /// When the current attempt came into the queue, if it did.
    pub queued_at: Option<Timestamp>,
    /// The server that claimed the current attempt, if one did.
    pub claimed_by: Option<String>,
    /// When the current attempt's environment came up, if it did.
    pub started_at: Option<Timestamp>,
    /// Who opened it, if it is a gate that was opened.
    pub approval: Option<Approval>,
    /// The attempts before, oldest first.
    pub earlier: Vec<EarlierAttempt>,
    /// Automatic retries since somebody last asked for an attempt.
    pub(crate) retries: u32,
    /// Whether it succeeded in the workflow that this one is a rerun of.
    pub(crate) is_kept: bool,
}

/// An opened gate.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Approval {
    pub by: String,
    pub at: Timestamp,
    /// The whole digest of the plan that they were shown.
    pub plan: Option<String>,
}

/// An attempt that another one followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EarlierAttempt {
    /// Its number, from 1.
    pub attempt: u32,
    /// The server that claimed it; `None` for a job that ended without one.
    pub claimed_by: Option<String>,
    /// When its environment came up, if it did.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Timestamp,
    /// How it ended.
    pub end: AttemptEnd,
}

/// How an earlier attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum AttemptEnd {
    /// By a report, or by the machine.
    Ended { outcome: Outcome, message: Option<String> },
    /// Its server was gone before it started anything.
    Released { reason: String },
    /// It was lost, and `by` asked for another one. It may still run somewhere.
    GivenUp { by: String },
}

impl Job {
    /// A job in its first attempt.
    pub(crate) fn new(state: JobState, is_kept: bool) -> Self {
        Self {
            state,
            attempt: 1,
            queued_at: None,
            claimed_by: None,
            started_at: None,
            approval: None,
            earlier: Vec::new(),
            retries: 0,
            is_kept,
        }
    }

    /// Whether the current attempt's environment came up.
    #[must_use]
    pub fn has_started(&self) -> bool {
        self.started_at.is_some()
    }

    /// How it ended, if it did.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        match self.state {
            JobState::Ended { outcome, .. } => Some(outcome),
            _ => None,
        }
    }

    /// Whether it ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.outcome().is_some()
    }

    /// Whether a server has the current attempt: it was claimed and has not ended.
    #[must_use]
    pub fn is_under_way(&self) -> bool {
        matches!(self.state, JobState::Claimed { .. } | JobState::Running { .. })
    }

    /// Why the current attempt is to stop, if it was told to and has not ended.
    #[must_use]
    pub fn stop(&self) -> Option<&Stop> {
        match &self.state {
            JobState::Claimed { stop, .. } | JobState::Running { stop, .. } => stop.as_ref(),
            _ => None,
        }
    }

    /// Where it is, in one word. A job that backs off counts as queued.
    #[must_use]
    pub fn status(&self) -> JobStatus {
        match &self.state {
            JobState::Blocked => JobStatus::Blocked,
            JobState::Queued | JobState::BackingOff { .. } => JobStatus::Queued,
            JobState::Claimed { .. } => JobStatus::Claimed,
            JobState::Running { .. } => JobStatus::Running,
            JobState::OnHold { .. } => JobStatus::OnHold,
            JobState::Ended { outcome, .. } => JobStatus::Ended(*outcome),
        }
    }

    /// The attempts that were given up and may still run somewhere.
    pub(crate) fn given_up(&self) -> impl Iterator<Item = u32> {
        self.earlier
            .iter()
            .filter(|earlier| matches!(earlier.end, AttemptEnd::GivenUp { .. }))
            .map(|earlier| earlier.attempt)
    }

    /// Whether anything was done for it that cannot be taken back: an attempt that may have run, an approval.
    pub(crate) fn has_acted(&self) -> bool {
        let ran = |earlier: &EarlierAttempt| {
            earlier.claimed_by.is_some() && !matches!(earlier.end, AttemptEnd::Released { .. })
        };
        self.claimed_by.is_some() || self.approval.is_some() || self.earlier.iter().any(ran)
    }

    /// Puts the current attempt into the queue.
    pub(crate) fn queue(&mut self, at: Timestamp) {
        self.queued_at = Some(at);
        self.state = JobState::Queued;
    }

    /// Makes it wait for what it requires.
    pub(crate) fn block(&mut self) {
        self.queued_at = None;
        self.state = JobState::Blocked;
    }

    /// Puts the current attempt among the earlier ones. The next one waits for what it requires until it is told
    /// otherwise.
    pub(crate) fn next_attempt(&mut self, end: AttemptEnd, at: Timestamp) {
        self.earlier.push(EarlierAttempt {
            attempt: self.attempt,
            claimed_by: self.claimed_by.take(),
            started_at: self.started_at.take(),
            ended_at: at,
            end,
        });
        self.attempt += 1;
        self.block();
    }

    /// Where it is, as a refusal says it.
    pub(crate) fn is_where(&self) -> &'static str {
        if self.stop().is_some() {
            return "stopping";
        }
        match &self.state {
            JobState::Blocked => "waiting for what it requires",
            JobState::Queued => "queued",
            JobState::Claimed { .. } => "claimed",
            JobState::Running { .. } => "running",
            JobState::BackingOff { .. } => "waiting to be tried again",
            JobState::OnHold { .. } => "on hold",
            JobState::Ended { outcome, .. } => match outcome {
                Outcome::TimedOut => "timed out",
                other => other.as_str(),
            },
        }
    }
}
