//! The state of one job.

use jiff::Timestamp;
use std::time::Duration;
use towpath_types::{JobStatus, Outcome};

/// The state of a job. `since` is when it entered the state.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum JobState {
    /// It waits for the jobs that it requires.
    Blocked,
    /// Its attempt waits for a server.
    Queued,
    /// A server claimed the attempt, and is preparing its environment.
    Claimed {
        since: Timestamp,
        /// Set when the attempt was told to stop.
        stop: Option<Stop>,
    },
    /// The attempt's environment is up.
    Running {
        since: Timestamp,
        /// Set when the attempt was told to stop.
        stop: Option<Stop>,
    },
    /// The previous attempt ended in an infrastructure error; this one enters the queue at `until`.
    BackingOff { until: Timestamp },
    /// It waits for a person.
    OnHold { since: Timestamp },
    /// It ended.
    Ended {
        outcome: Outcome,
        at: Timestamp,
        /// The reason, for a person.
        message: Option<String>,
    },
}

/// An attempt that was told to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// The reason.
    pub reason: StopReason,
    /// When the state machine ends the job, if it has not ended by then.
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
    /// The state of the current attempt.
    pub state: JobState,
    /// The number of the current attempt, from 1, also for a job that waits or never runs.
    pub attempt: u32,
    /// When the current attempt entered the queue, if it did.
    pub queued_at: Option<Timestamp>,
    /// The server that claimed the current attempt, if one did.
    pub claimed_by: Option<String>,
    /// When the current attempt's environment came up, if it did.
    pub started_at: Option<Timestamp>,
    /// Who opened the gate, for a gate that was opened.
    pub approval: Option<Approval>,
    /// The previous attempts, oldest first.
    pub earlier: Vec<EarlierAttempt>,
    /// Automatic retries since somebody last asked for an attempt.
    pub(crate) retries: u32,
    /// Whether it succeeded in the original workflow of this rerun.
    pub(crate) is_kept: bool,
}

/// An opened gate.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Approval {
    pub by: String,
    pub at: Timestamp,
    /// The full digest of the plan that they saw.
    pub plan: Option<String>,
}

/// An attempt before the current one.
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
    /// By a report, or by the state machine.
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

    /// The state in one word. A job that backs off counts as queued.
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

    /// Whether anything irreversible was done for it: an attempt that may have run, or an approval.
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

    /// Makes it wait for the jobs that it requires.
    pub(crate) fn block(&mut self) {
        self.queued_at = None;
        self.state = JobState::Blocked;
    }

    /// Moves the current attempt to the earlier ones. The next one is blocked until its state changes.
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

    /// The state, in the words of a refusal.
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
