//! Version 1 of a workflow's events.

use super::outcome_v1::Outcome;
use crate::{DefinitionError, workflow};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Event {
    Created {
        jobs: Vec<JobDefinition>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        succeeded: Vec<String>,
        at: Timestamp,
    },
    JobClaimed {
        job: String,
        attempt: u32,
        by: String,
        at: Timestamp,
    },
    JobReleased {
        job: String,
        attempt: u32,
        reason: String,
        at: Timestamp,
    },
    JobStarted {
        job: String,
        attempt: u32,
        at: Timestamp,
    },
    JobFinished {
        job: String,
        attempt: u32,
        outcome: Outcome,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
        at: Timestamp,
    },
    RetryRequested {
        job: String,
        attempt: u32,
        by: String,
        at: Timestamp,
    },
    Approved {
        job: String,
        by: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        plan: Option<String>,
        at: Timestamp,
    },
    CancelRequested {
        by: String,
        at: Timestamp,
    },
    TimerFired {
        timer: TimerKind,
        job: String,
        attempt: u32,
        at: Timestamp,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum TimerKind {
    Retry,
    TimeLimit,
    StopGrace,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JobDefinition {
    name: String,
    kind: JobKind,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    requires: Vec<Requirement>,
    #[serde(default, skip_serializing_if = "is_zero")]
    retries: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    time_limit_seconds: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cannot_run: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum JobKind {
    Build { nodes: u32 },
    Approval,
    NoOp,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Requirement {
    job: String,
    statuses: Vec<RequiredStatus>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RequiredStatus {
    Success,
    Failed,
    Canceled,
    Unauthorized,
    NotRun,
}

// Serde requires a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl From<&workflow::Event> for Event {
    fn from(event: &workflow::Event) -> Self {
        match event.clone() {
            workflow::Event::Created {
                definition,
                succeeded,
                at,
            } => Self::Created {
                jobs: definition.jobs().iter().map(Into::into).collect(),
                succeeded,
                at,
            },
            workflow::Event::JobClaimed { job, attempt, by, at } => Self::JobClaimed { job, attempt, by, at },
            workflow::Event::JobReleased {
                job,
                attempt,
                reason,
                at,
            } => Self::JobReleased {
                job,
                attempt,
                reason,
                at,
            },
            workflow::Event::JobStarted { job, attempt, at } => Self::JobStarted { job, attempt, at },
            workflow::Event::JobFinished {
                job,
                attempt,
                outcome,
                message,
                at,
            } => Self::JobFinished {
                job,
                attempt,
                outcome: outcome.into(),
                message,
                at,
            },
            workflow::Event::RetryRequested { job, attempt, by, at } => Self::RetryRequested { job, attempt, by, at },
            workflow::Event::Approved { job, by, plan, at } => Self::Approved { job, by, plan, at },
            workflow::Event::CancelRequested { by, at } => Self::CancelRequested { by, at },
            workflow::Event::TimerFired { timer, at } => Self::TimerFired {
                timer: timer.kind.into(),
                job: timer.job,
                attempt: timer.attempt,
                at,
            },
        }
    }
}

impl TryFrom<Event> for workflow::Event {
    type Error = DefinitionError;
    fn try_from(event: Event) -> Result<Self, DefinitionError> {
        Ok(match event {
            Event::Created { jobs, succeeded, at } => Self::Created {
                definition: workflow::Definition::new(jobs.into_iter().map(Into::into).collect())?,
                succeeded,
                at,
            },
            Event::JobClaimed { job, attempt, by, at } => Self::JobClaimed { job, attempt, by, at },
            Event::JobReleased {
                job,
                attempt,
                reason,
                at,
            } => Self::JobReleased {
                job,
                attempt,
                reason,
                at,
            },
            Event::JobStarted { job, attempt, at } => Self::JobStarted { job, attempt, at },
            Event::JobFinished {
                job,
                attempt,
                outcome,
                message,
                at,
            } => Self::JobFinished {
                job,
                attempt,
                outcome: outcome.into(),
                message,
                at,
            },
            Event::RetryRequested { job, attempt, by, at } => Self::RetryRequested { job, attempt, by, at },
            Event::Approved { job, by, plan, at } => Self::Approved { job, by, plan, at },
            Event::CancelRequested { by, at } => Self::CancelRequested { by, at },
            Event::TimerFired {
                timer,
                job,
                attempt,
                at,
            } => Self::TimerFired {
                timer: workflow::Timer {
                    kind: timer.into(),
                    job,
                    attempt,
                },
                at,
            },
        })
    }
}

impl From<workflow::TimerKind> for TimerKind {
    fn from(kind: workflow::TimerKind) -> Self {
        match kind {
            workflow::TimerKind::Retry => Self::Retry,
            workflow::TimerKind::TimeLimit => Self::TimeLimit,
            workflow::TimerKind::StopGrace => Self::StopGrace,
        }
    }
}

impl From<TimerKind> for workflow::TimerKind {
    fn from(kind: TimerKind) -> Self {
        match kind {
            TimerKind::Retry => Self::Retry,
            TimerKind::TimeLimit => Self::TimeLimit,
            TimerKind::StopGrace => Self::StopGrace,
        }
    }
}

impl From<&workflow::JobDefinition> for JobDefinition {
    fn from(job: &workflow::JobDefinition) -> Self {
        let requirement = |requirement: &workflow::Requirement| Requirement {
            job: requirement.job.clone(),
            statuses: requirement.statuses.iter().map(|status| (*status).into()).collect(),
        };
        Self {
            name: job.name.clone(),
            kind: match job.kind {
                workflow::JobKind::Build { nodes } => JobKind::Build { nodes },
                workflow::JobKind::Approval => JobKind::Approval,
                workflow::JobKind::NoOp => JobKind::NoOp,
            },
            requires: job.requires.iter().map(requirement).collect(),
            retries: job.retries,
            time_limit_seconds: job.time_limit.map(|limit| limit.as_secs()),
            cannot_run: job.cannot_run.clone(),
        }
    }
}

impl From<JobDefinition> for workflow::JobDefinition {
    fn from(job: JobDefinition) -> Self {
        let requirement = |requirement: Requirement| workflow::Requirement {
            job: requirement.job,
            statuses: requirement.statuses.into_iter().map(Into::into).collect(),
        };
        Self {
            name: job.name,
            kind: match job.kind {
                JobKind::Build { nodes } => workflow::JobKind::Build { nodes },
                JobKind::Approval => workflow::JobKind::Approval,
                JobKind::NoOp => workflow::JobKind::NoOp,
            },
            requires: job.requires.into_iter().map(requirement).collect(),
            retries: job.retries,
            time_limit: job.time_limit_seconds.map(Duration::from_secs),
            cannot_run: job.cannot_run,
        }
    }
}

impl From<workflow::RequiredStatus> for RequiredStatus {
    fn from(status: workflow::RequiredStatus) -> Self {
        match status {
            workflow::RequiredStatus::Success => Self::Success,
            workflow::RequiredStatus::Failed => Self::Failed,
            workflow::RequiredStatus::Canceled => Self::Canceled,
            workflow::RequiredStatus::Unauthorized => Self::Unauthorized,
            workflow::RequiredStatus::NotRun => Self::NotRun,
        }
    }
}

impl From<RequiredStatus> for workflow::RequiredStatus {
    fn from(status: RequiredStatus) -> Self {
        match status {
            RequiredStatus::Success => Self::Success,
            RequiredStatus::Failed => Self::Failed,
            RequiredStatus::Canceled => Self::Canceled,
            RequiredStatus::Unauthorized => Self::Unauthorized,
            RequiredStatus::NotRun => Self::NotRun,
        }
    }
}
