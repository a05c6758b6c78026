//! Version 1 of a release's events.

use super::outcome_v1::Outcome;
use crate::release;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use towpath_types::{Digest, ReleaseId};

#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Event {
    Planned {
        plan: Digest,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parent: Option<ReleaseId>,
        on_failure: OnFailure,
        at: Timestamp,
    },
    Approved {
        plan: Digest,
        by: String,
        at: Timestamp,
    },
    ApplyBegan {
        at: Timestamp,
    },
    Applied {
        at: Timestamp,
    },
    Succeeded {
        at: Timestamp,
    },
    Failed {
        outcome: Outcome,
        message: String,
        at: Timestamp,
    },
    RollbackBegan {
        at: Timestamp,
    },
    RolledBack {
        at: Timestamp,
    },
    RollbackFailed {
        message: String,
        at: Timestamp,
    },
    Overtaken {
        by: String,
        at: Timestamp,
    },
    Abandoned {
        why: Why,
        message: String,
        at: Timestamp,
    },
    Recorded {
        at: Timestamp,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum OnFailure {
    Rollback,
    Stop,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Why {
    StalePlan,
    NewerDecision,
    Refused,
    Withdrawn,
    Unable,
}

impl From<&release::Event> for Event {
    fn from(event: &release::Event) -> Self {
        match event.clone() {
            release::Event::Planned {
                plan,
                parent,
                on_failure,
                at,
            } => Self::Planned {
                plan,
                parent,
                on_failure: match on_failure {
                    release::OnFailure::Rollback => OnFailure::Rollback,
                    release::OnFailure::Stop => OnFailure::Stop,
                },
                at,
            },
            release::Event::Approved { plan, by, at } => Self::Approved { plan, by, at },
            release::Event::ApplyBegan { at } => Self::ApplyBegan { at },
            release::Event::Applied { at } => Self::Applied { at },
            release::Event::Succeeded { at } => Self::Succeeded { at },
            release::Event::Failed { outcome, message, at } => Self::Failed {
                outcome: outcome.into(),
                message,
                at,
            },
            release::Event::RollbackBegan { at } => Self::RollbackBegan { at },
            release::Event::RolledBack { at } => Self::RolledBack { at },
            release::Event::RollbackFailed { message, at } => Self::RollbackFailed { message, at },
            release::Event::Overtaken { by, at } => Self::Overtaken { by, at },
            release::Event::Abandoned { why, message, at } => Self::Abandoned {
                why: match why {
                    release::Why::StalePlan => Why::StalePlan,
                    release::Why::NewerDecision => Why::NewerDecision,
                    release::Why::Refused => Why::Refused,
                    release::Why::Withdrawn => Why::Withdrawn,
                    release::Why::Unable => Why::Unable,
                },
                message,
                at,
            },
            release::Event::Recorded { at } => Self::Recorded { at },
        }
    }
}

impl From<Event> for release::Event {
    fn from(event: Event) -> Self {
        match event {
            Event::Planned {
                plan,
                parent,
                on_failure,
                at,
            } => Self::Planned {
                plan,
                parent,
                on_failure: match on_failure {
                    OnFailure::Rollback => release::OnFailure::Rollback,
                    OnFailure::Stop => release::OnFailure::Stop,
                },
                at,
            },
            Event::Approved { plan, by, at } => Self::Approved { plan, by, at },
            Event::ApplyBegan { at } => Self::ApplyBegan { at },
            Event::Applied { at } => Self::Applied { at },
            Event::Succeeded { at } => Self::Succeeded { at },
            Event::Failed { outcome, message, at } => Self::Failed {
                outcome: outcome.into(),
                message,
                at,
            },
            Event::RollbackBegan { at } => Self::RollbackBegan { at },
            Event::RolledBack { at } => Self::RolledBack { at },
            Event::RollbackFailed { message, at } => Self::RollbackFailed { message, at },
            Event::Overtaken { by, at } => Self::Overtaken { by, at },
            Event::Abandoned { why, message, at } => Self::Abandoned {
                why: match why {
                    Why::StalePlan => release::Why::StalePlan,
                    Why::NewerDecision => release::Why::NewerDecision,
                    Why::Refused => release::Why::Refused,
                    Why::Withdrawn => release::Why::Withdrawn,
                    Why::Unable => release::Why::Unable,
                },
                message,
                at,
            },
            Event::Recorded { at } => Self::Recorded { at },
        }
    }
}
