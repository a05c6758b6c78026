//! Where a pipeline, a workflow, a job, a step or a release stands.
//!
//! Each status is written to storage as one word ([`as_str`](JobStatus::as_str)) and read back with `FromStr`. CircleCI's
//! words for the same things are the API's business and are not known here.

use crate::Outcome;
use std::{fmt, str::FromStr};

/// A stored word that no status has: damaged data, or written by a newer version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{word}` is not {what}")]
pub struct StatusError {
    word: String,
    what: &'static str,
}

/// Implements `as_str`, `Display` and `FromStr` for an enum of plain words, some of which may hold an [`Outcome`].
macro_rules! words {
    ($name:ident, $what:literal, { $($word:literal => $variant:ident),* $(,)? } $(, ended: $ended:ident)?) => {
        impl $name {
            /// The word in storage.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                    $(Self::$ended(outcome) => outcome.as_str(),)?
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = StatusError;
            fn from_str(word: &str) -> Result<Self, StatusError> {
                $(if word == $word { return Ok(Self::$variant); })*
                $(if let Ok(outcome) = word.parse() { return Ok(Self::$ended(outcome)); })?
                Err(StatusError { word: word.chars().take(40).collect(), what: $what })
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let word = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                word.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

words!(Outcome, "an outcome", {
    "succeeded" => Succeeded,
    "failed" => Failed,
    "errored" => Errored,
    "timed_out" => TimedOut,
    "canceled" => Canceled,
    "skipped" => Skipped,
    "rejected" => Rejected,
});

/// Where a trigger stands: a push, a call of the API, a rerun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TriggerStatus {
    /// A push that was recorded before git was told yes. Whether git accepted it is not known yet.
    Announced,
    /// Recorded, and it is certain that it happened.
    Received,
    /// It made its pipeline.
    Done,
    /// It makes no pipeline: the push was not completed, or the reason beside it says why.
    Dropped,
}
words!(TriggerStatus, "a trigger's status", {
    "announced" => Announced,
    "received" => Received,
    "done" => Done,
    "dropped" => Dropped,
});

/// Where a pipeline stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PipelineStatus {
    /// It compiled, and its workflows, if any, exist.
    Created,
    /// Its configuration does not compile, or there is none.
    Errored,
}
words!(PipelineStatus, "a pipeline's status", { "created" => Created, "errored" => Errored });

/// Where a workflow stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WorkflowStatus {
    /// A job runs, or is about to.
    Running,
    /// A job failed, and others still run or wait.
    Failing,
    /// Only approvals are left to wait for.
    OnHold,
    /// It ended.
    Ended(Outcome),
}
words!(WorkflowStatus, "a workflow's status", {
    "running" => Running,
    "failing" => Failing,
    "on_hold" => OnHold,
}, ended: Ended);

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobStatus {
    /// It waits for the jobs that it requires.
    Blocked,
    /// It waits for a person.
    OnHold,
    /// It waits for a server with room for it.
    Queued,
    /// A server took it and prepares its environment.
    Claimed,
    /// Its environment is up.
    Running,
    /// It ended.
    Ended(Outcome),
}
words!(JobStatus, "a job's status", {
    "blocked" => Blocked,
    "on_hold" => OnHold,
    "queued" => Queued,
    "claimed" => Claimed,
    "running" => Running,
}, ended: Ended);

/// What kind of job it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobKind {
    /// It runs steps.
    Build,
    /// It waits until somebody approves it.
    Approval,
    /// It does nothing and succeeds.
    NoOp,
}
words!(JobKind, "a kind of job", { "build" => Build, "approval" => Approval, "no_op" => NoOp });

/// What a one-off run executes. The words are the kinds of Kubernetes' objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RunKind {
    /// A Job: it runs once, on request.
    Job,
    /// A CronJob: it runs on its schedule, and on request.
    CronJob,
}
words!(RunKind, "a kind of run", { "Job" => Job, "CronJob" => CronJob });

/// Where a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StepStatus {
    /// Its command runs.
    Running,
    /// It ended.
    Ended(Outcome),
}
words!(StepStatus, "a step's status", { "running" => Running }, ended: Ended);

/// How a test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TestResult {
    /// It passed.
    Success,
    /// It failed, or could not run.
    Failure,
    /// It was left out.
    Skipped,
}
words!(TestResult, "a test's result", { "success" => Success, "failure" => Failure, "skipped" => Skipped });

/// Where a release stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReleaseStatus {
    /// Its plan is recorded.
    Planned,
    /// Somebody who may do so agreed to the plan.
    Approved,
    /// Its objects are being applied.
    Applying,
    /// All objects are applied; rollouts are being watched.
    Watching,
    /// It runs.
    Succeeded,
    /// What it applied does not run, and was left as it is.
    Failed,
    /// The release before it is being put back.
    RollingBack,
    /// The release before it runs again.
    RolledBack,
    /// Nothing was changed: the environment is not as the plan expected, or the plan was refused.
    Abandoned,
}
words!(ReleaseStatus, "a release's status", {
    "planned" => Planned,
    "approved" => Approved,
    "applying" => Applying,
    "watching" => Watching,
    "succeeded" => Succeeded,
    "failed" => Failed,
    "rolling_back" => RollingBack,
    "rolled_back" => RolledBack,
    "abandoned" => Abandoned,
});

/// Where a release stands in the record that its environment keeps of it: that record does not know how far a release has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecordedState {
    /// It is being carried out, or its process died.
    Running,
    /// It ended.
    Ended(Outcome),
}
words!(RecordedState, "a recorded release's state", { "running" => Running }, ended: Ended);

impl ReleaseStatus {
    /// Whether nothing more happens to the release.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(
            self,
            Self::Succeeded | Self::Failed | Self::RolledBack | Self::Abandoned
        )
    }
}

impl JobStatus {
    /// How it ended, if it did.
    #[must_use]
    pub fn outcome(self) -> Option<Outcome> {
        match self {
            Self::Ended(outcome) => Some(outcome),
            _ => None,
        }
    }
}

impl WorkflowStatus {
    /// How it ended, if it did.
    #[must_use]
    pub fn outcome(self) -> Option<Outcome> {
        match self {
            Self::Ended(outcome) => Some(outcome),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const OUTCOMES: [Outcome; 7] = [
        Outcome::Succeeded,
        Outcome::Failed,
        Outcome::Errored,
        Outcome::TimedOut,
        Outcome::Canceled,
        Outcome::Skipped,
        Outcome::Rejected,
    ];

    #[test]
    fn every_status_is_read_back_from_its_word() {
        fn check<T: FromStr<Err = StatusError> + PartialEq + fmt::Debug + fmt::Display + Copy>(all: &[T]) {
            let mut words = std::collections::BTreeSet::new();
            for status in all {
                assert_eq!(status.to_string().parse::<T>().as_ref(), Ok(status));
                assert!(words.insert(status.to_string()), "{status} twice");
            }
            assert!("nosuch".parse::<T>().is_err());
        }
        check(&OUTCOMES);
        let jobs = [
            JobStatus::Blocked,
            JobStatus::OnHold,
            JobStatus::Queued,
            JobStatus::Claimed,
            JobStatus::Running,
        ];
        check(&[jobs.to_vec(), OUTCOMES.map(JobStatus::Ended).to_vec()].concat());
        let workflows = [WorkflowStatus::Running, WorkflowStatus::Failing, WorkflowStatus::OnHold];
        check(&[workflows.to_vec(), OUTCOMES.map(WorkflowStatus::Ended).to_vec()].concat());
        check(&[PipelineStatus::Created, PipelineStatus::Errored]);
        check(&[JobKind::Build, JobKind::Approval, JobKind::NoOp]);
        check(&[RunKind::Job, RunKind::CronJob]);
        check(
            &[
                vec![RecordedState::Running],
                OUTCOMES.map(RecordedState::Ended).to_vec(),
            ]
            .concat(),
        );
    }

    #[test]
    fn json_holds_the_word() {
        let json = serde_json::to_string(&JobStatus::Ended(Outcome::TimedOut)).unwrap();
        assert_eq!(json, "\"timed_out\"");
        assert_eq!(
            serde_json::from_str::<JobStatus>(&json).unwrap(),
            JobStatus::Ended(Outcome::TimedOut)
        );
        assert!(serde_json::from_str::<JobStatus>("\"nosuch\"").is_err());
    }
}
