//! The state of a release, and how events change it.

use super::{
    event::{Effect, Event, OnFailure, Why},
    illegal::Illegal,
};
use jiff::Timestamp;
use towpath_types::{Digest, Outcome, ReleaseId, ReleaseStatus};

/// The state of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum State {
    /// Its plan is recorded and waits for approval.
    Planned,
    /// Somebody agreed to the plan. Nothing has changed yet.
    Approved,
    /// Its objects are being written.
    Applying,
    /// Every object is written; rollouts are being watched.
    Watching,
    /// It failed, and the release `to` will be restored. The rollback has not begun.
    Failing { to: ReleaseId },
    /// The release `to` is being restored.
    RollingBack { to: ReleaseId },
    /// It succeeded.
    Succeeded,
    /// It failed and was left in place: there was nothing to roll back to, no rollback was wanted, the rollback failed
    /// too, or somebody else has deployed since.
    Failed,
    /// It failed, and the previous release runs again.
    RolledBack,
    /// It was not carried out.
    Abandoned { why: Why },
}

/// The state in which an ended release left the environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Environment {
    /// As it was before the release.
    AsBefore,
    /// As in the release.
    AsRelease,
    /// The release may be partly applied.
    Between,
}

/// Who agreed to the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Approval {
    pub by: String,
    pub at: Timestamp,
}

/// How the release failed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Failure {
    pub outcome: Outcome,
    pub message: String,
}

/// The state of one release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    plan: Digest,
    parent: Option<ReleaseId>,
    on_failure: OnFailure,
    state: State,
    planned_at: Timestamp,
    approval: Option<Approval>,
    began_at: Option<Timestamp>,
    failure: Option<Failure>,
    /// What happened after the failure, or instead of the release; sentences.
    remarks: Vec<String>,
    ended_at: Option<Timestamp>,
    is_recorded: bool,
}

impl Release {
    /// Makes a release from its first event.
    ///
    /// # Errors
    /// [`Illegal::Order`] when the event is not [`Event::Planned`].
    pub fn create(event: Event) -> Result<(Self, Option<Effect>), Illegal> {
        let Event::Planned {
            plan,
            parent,
            on_failure,
            at,
        } = event
        else {
            return Err(Illegal::Order);
        };
        let release = Self {
            plan,
            parent,
            on_failure,
            state: State::Planned,
            planned_at: at,
            approval: None,
            began_at: None,
            failure: None,
            remarks: Vec::new(),
            ended_at: None,
            is_recorded: false,
        };
        let effect = release.outstanding();
        Ok((release, effect))
    }

    /// The state after `events`.
    ///
    /// # Errors
    /// [`Illegal`] when an event does not follow from the ones before it. Towpath never stores such events.
    pub fn fold(events: impl IntoIterator<Item = Event>) -> Result<Self, Illegal> {
        let mut events = events.into_iter();
        let (mut release, _) = Self::create(events.next().ok_or(Illegal::Order)?)?;
        for event in events {
            release.apply(event)?;
        }
        Ok(release)
    }

    /// The digest of its plan.
    #[must_use]
    pub fn plan(&self) -> &Digest {
        &self.plan
    }

    /// The release that the plan starts from.
    #[must_use]
    pub fn parent(&self) -> Option<ReleaseId> {
        self.parent
    }

    /// What to do when it fails.
    #[must_use]
    pub fn on_failure(&self) -> OnFailure {
        self.on_failure
    }

    /// The current state.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// When its plan was recorded.
    #[must_use]
    pub fn planned_at(&self) -> Timestamp {
        self.planned_at
    }

    /// Who agreed to the plan, if somebody did.
    #[must_use]
    pub fn approval(&self) -> Option<&Approval> {
        self.approval.as_ref()
    }

    /// When it began to change the environment, if it did.
    #[must_use]
    pub fn began_at(&self) -> Option<Timestamp> {
        self.began_at
    }

    /// When it ended, if it did.
    #[must_use]
    pub fn ended_at(&self) -> Option<Timestamp> {
        self.ended_at
    }

    /// How it failed, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// Why it did not succeed, for people; several lines if the rollback has something to report.
    #[must_use]
    pub fn message(&self) -> Option<String> {
        let failure = self.failure.iter().map(|failure| failure.message.as_str());
        let lines: Vec<&str> = failure.chain(self.remarks.iter().map(String::as_str)).collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
    }

    /// The state in one word. A release that is about to roll back counts as rolling back.
    #[must_use]
    pub fn status(&self) -> ReleaseStatus {
        match self.state {
            State::Planned => ReleaseStatus::Planned,
            State::Approved => ReleaseStatus::Approved,
            State::Applying => ReleaseStatus::Applying,
            State::Watching => ReleaseStatus::Watching,
            State::Failing { .. } | State::RollingBack { .. } => ReleaseStatus::RollingBack,
            State::Succeeded => ReleaseStatus::Succeeded,
            State::Failed => ReleaseStatus::Failed,
            State::RolledBack => ReleaseStatus::RolledBack,
            State::Abandoned { .. } => ReleaseStatus::Abandoned,
        }
    }

    /// How it ended, if it did. A failure counts as that failure, whether it was undone or not.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        match self.state {
            State::Succeeded => Some(Outcome::Succeeded),
            State::Failed | State::RolledBack => {
                Some(self.failure.as_ref().map_or(Outcome::Errored, |one| one.outcome))
            }
            State::Abandoned { why } => Some(why.outcome()),
            State::Planned
            | State::Approved
            | State::Applying
            | State::Watching
            | State::Failing { .. }
            | State::RollingBack { .. } => None,
        }
    }

    /// The state in which it left the environment, if it ended.
    #[must_use]
    pub fn environment(&self) -> Option<Environment> {
        match self.state {
            State::Succeeded => Some(Environment::AsRelease),
            State::Failed => Some(Environment::Between),
            State::RolledBack | State::Abandoned { .. } => Some(Environment::AsBefore),
            State::Planned
            | State::Approved
            | State::Applying
            | State::Watching
            | State::Failing { .. }
            | State::RollingBack { .. } => None,
        }
    }

    /// Whether it ended. The end may still have to be recorded: see [`Release::outstanding`].
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.ended_at.is_some()
    }

    /// Applies an event: the only way to change the state. Returns the next effect to carry out.
    ///
    /// # Errors
    /// [`Illegal`]; the state is unchanged.
    pub fn apply(&mut self, event: Event) -> Result<Option<Effect>, Illegal> {
        let (next, at) = self.decide(&event)?;
        self.state = next;
        match event {
            Event::Approved { by, .. } => self.approval = Some(Approval { by, at }),
            Event::ApplyBegan { .. } => self.began_at = Some(at),
            Event::Failed { outcome, message, .. } => self.failure = Some(Failure { outcome, message }),
            Event::RollbackFailed { message, .. } => {
                self.remarks.push(format!("Going back failed too: {message}"));
            }
            Event::Overtaken { by, .. } => {
                let remark = format!("{by} deployed to the environment since, so it was left to that.");
                match self.failure {
                    Some(_) => self.remarks.push(remark),
                    None => {
                        self.failure = Some(Failure {
                            outcome: Outcome::Errored,
                            message: remark,
                        });
                    }
                }
            }
            Event::Abandoned { message, .. } => self.remarks.push(message),
            Event::Recorded { .. } => self.is_recorded = true,
            Event::Planned { .. }
            | Event::Applied { .. }
            | Event::Succeeded { .. }
            | Event::RollbackBegan { .. }
            | Event::RolledBack { .. } => {}
        }
        if self.environment().is_some() && self.ended_at.is_none() {
            self.ended_at = Some(at);
        }
        Ok(self.outstanding())
    }

    /// The state after `event`, and when it happened.
    fn decide(&self, event: &Event) -> Result<(State, Timestamp), Illegal> {
        let wrong = |wanted| Illegal::WrongState {
            is: self.is_where(),
            wanted,
        };
        if self.is_over() {
            return match event {
                Event::Recorded { at } if self.outstanding() == Some(Effect::Record) => Ok((self.state, *at)),
                _ => Err(Illegal::Over(self.status())),
            };
        }
        match (event, self.state) {
            (Event::Planned { .. }, _) => Err(Illegal::Order),
            (Event::Approved { plan, at, .. }, State::Planned) => {
                if *plan == self.plan {
                    return Ok((State::Approved, *at));
                }
                Err(Illegal::OtherPlan {
                    plan: self.plan.clone(),
                    approved: plan.clone(),
                })
            }
            (Event::ApplyBegan { at }, State::Approved) => Ok((State::Applying, *at)),
            (Event::Applied { at }, State::Applying) => Ok((State::Watching, *at)),
            (Event::Succeeded { at }, State::Watching) => Ok((State::Succeeded, *at)),
            (Event::Failed { outcome, at, .. }, State::Applying | State::Watching) => match outcome {
                Outcome::Failed | Outcome::Errored | Outcome::TimedOut | Outcome::Canceled | Outcome::Rejected => {
                    Ok((self.after_failure(), *at))
                }
                Outcome::Succeeded | Outcome::Skipped => Err(Illegal::NotAFailure(*outcome)),
            },
            (Event::RollbackBegan { at }, State::Failing { to }) => Ok((State::RollingBack { to }, *at)),
            (Event::RolledBack { at }, State::RollingBack { .. }) => Ok((State::RolledBack, *at)),
            (Event::RollbackFailed { at, .. }, State::RollingBack { .. }) => Ok((State::Failed, *at)),
            (
                Event::Overtaken { at, .. },
                State::Applying | State::Watching | State::Failing { .. } | State::RollingBack { .. },
            ) => Ok((State::Failed, *at)),
            (Event::Abandoned { why, at, .. }, State::Planned | State::Approved) => {
                Ok((State::Abandoned { why: *why }, *at))
            }
            // Only the process that carries it out can find that nothing was changed.
            (
                Event::Abandoned {
                    why: why @ (Why::StalePlan | Why::NewerDecision | Why::Refused | Why::Unable),
                    at,
                    ..
                },
                State::Applying,
            ) => Ok((State::Abandoned { why: *why }, *at)),
            (Event::Approved { .. }, _) => Err(wrong("approved")),
            (Event::ApplyBegan { .. } | Event::Applied { .. }, _) => Err(wrong("applied")),
            (Event::Succeeded { .. }, _) => Err(wrong("succeeded")),
            (Event::Failed { .. }, _) => Err(wrong("failed")),
            (Event::RollbackBegan { .. } | Event::RolledBack { .. } | Event::RollbackFailed { .. }, _) => {
                Err(wrong("rolled back"))
            }
            (Event::Overtaken { .. }, _) => Err(wrong("overtaken")),
            (Event::Abandoned { .. }, _) => Err(wrong("abandoned")),
            (Event::Recorded { .. }, _) => Err(wrong("recorded")),
        }
    }

    fn after_failure(&self) -> State {
        match (self.on_failure, self.parent) {
            (OnFailure::Rollback, Some(to)) => State::Failing { to },
            (OnFailure::Rollback, None) | (OnFailure::Stop, _) => State::Failed,
        }
    }

    /// The effect to carry out, from the state alone: after each event, and again after a restart.
    #[must_use]
    pub fn outstanding(&self) -> Option<Effect> {
        match self.state {
            State::Planned => None,
            State::Approved => Some(Effect::BeginApply),
            State::Applying => Some(Effect::Apply),
            State::Watching => Some(Effect::Watch),
            State::Failing { to } => Some(Effect::BeginRollback { to }),
            State::RollingBack { to } => Some(Effect::RollBack { to }),
            State::Succeeded | State::Failed | State::RolledBack | State::Abandoned { .. } => {
                // The environment has no record of a release that never began.
                (self.began_at.is_some() && !self.is_recorded).then_some(Effect::Record)
            }
        }
    }

    /// The state, in the words of a refusal.
    fn is_where(&self) -> &'static str {
        match self.state {
            State::Planned => "planned",
            State::Approved => "approved",
            State::Applying => "being applied",
            State::Watching => "being watched",
            State::Failing { .. } => "about to be rolled back",
            State::RollingBack { .. } => "being rolled back",
            State::Succeeded => "succeeded",
            State::Failed => "failed",
            State::RolledBack => "rolled back",
            State::Abandoned { .. } => "abandoned",
        }
    }
}
