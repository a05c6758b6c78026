//! What happened to a workflow, what follows, and what is refused.

use crate::{Definition, JobDefinition, JobKind, RequiredStatus};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use towpath_types::Outcome;

/// A moment for people.
const WHEN: &str = "%Y-%m-%d %H:%M:%S UTC";

/// Something that happened. Events are stored before anything acts on them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// The workflow was made. Always the first.
    Created {
        /// Its jobs.
        definition: Definition,
        /// Jobs that succeeded already, in the workflow that this one is a rerun of.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        succeeded: Vec<String>,
        /// When.
        at: Timestamp,
    },
    /// A job was handed to its engine.
    JobStarted {
        /// Which.
        job: String,
        /// When.
        at: Timestamp,
    },
    /// A job ended.
    JobFinished {
        /// Which.
        job: String,
        /// How.
        outcome: Outcome,
        /// Why, for a person.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
        /// When.
        at: Timestamp,
    },
    /// Somebody opened a gate.
    Approved {
        /// Which.
        job: String,
        /// Who.
        by: String,
        /// The id of the plan that they were shown.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        plan: Option<String>,
        /// When.
        at: Timestamp,
    },
    /// Somebody wants all of it to stop.
    CancelRequested {
        /// Who.
        by: String,
        /// When.
        at: Timestamp,
    },
}

/// Something to do. Each is safe twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Run this job: `JobStarted`, then `JobFinished`.
    StartJob {
        /// Which.
        job: String,
    },
    /// Stop this job: `JobFinished` follows.
    CancelJob {
        /// Which.
        job: String,
    },
    /// Ask people: `Approved` may follow.
    HoldJob {
        /// Which.
        job: String,
    },
    /// All of it has ended.
    Finished {
        /// How.
        outcome: Outcome,
    },
}

/// Why an event was refused. The text is for whoever asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Illegal {
    /// The first event, and only the first, makes a workflow.
    #[error("a workflow begins with its creation, once")]
    Order,
    /// There is no such job.
    #[error("the workflow has no job `{0}`")]
    UnknownJob(String),
    /// Only approval jobs can be approved.
    #[error("`{0}` is not an approval: it runs by itself")]
    NotAnApproval(String),
    /// The gate is open.
    #[error("`{job}` was already approved by {by} at {}", .at.strftime(WHEN))]
    AlreadyApproved {
        /// The gate.
        job: String,
        /// Who.
        by: String,
        /// When.
        at: Timestamp,
    },
    /// The gate cannot be opened yet.
    #[error("`{job}` cannot be approved yet: it waits for {}", .waits_for.join(", "))]
    NotOnHold {
        /// The gate.
        job: String,
        /// What it waits for.
        waits_for: Vec<String>,
    },
    /// The workflow was canceled.
    #[error("the workflow was canceled by {by} at {}", .at.strftime(WHEN))]
    Canceled {
        /// Who.
        by: String,
        /// When.
        at: Timestamp,
    },
    /// The gate will never open: what it requires ended otherwise.
    #[error("`{job}` is not needed any more: {why}")]
    NotNeeded {
        /// The gate.
        job: String,
        /// Why.
        why: String,
    },
    /// The workflow has ended.
    #[error("the workflow has already ended ({0})")]
    Ended(Outcome),
    /// The job is not where the event would have it.
    #[error("job `{job}` is {is}, so it cannot be {wanted}")]
    WrongState {
        /// The job.
        job: String,
        /// Where it is.
        is: &'static str,
        /// Where the event would have it.
        wanted: &'static str,
    },
}

/// Where a job is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum JobState {
    /// It waits for what it requires.
    Blocked,
    /// It should be started.
    Queued,
    /// It was started.
    Running {
        /// When.
        since: Timestamp,
    },
    /// It waits for a person.
    OnHold,
    /// It ended.
    Ended {
        /// How.
        outcome: Outcome,
        /// When.
        at: Timestamp,
        /// Why, for a person.
        message: Option<String>,
    },
}

/// One job of a workflow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Where it is.
    pub state: JobState,
    /// When it was started, if it was.
    pub started_at: Option<Timestamp>,
    /// Who approved it, when, and the plan that they were shown.
    pub approval: Option<Approval>,
}

/// An opened gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// Who.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// The id of the plan that they were shown.
    pub plan: Option<String>,
}

impl Job {
    /// Whether it was handed to its engine.
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
}

/// Where a workflow is, as a person says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Something runs, or is about to.
    Running,
    /// Something failed, and something else still runs.
    Failing,
    /// Only gates wait.
    OnHold,
    /// It ended.
    Ended(Outcome),
}

/// The state of one workflow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workflow {
    definition: Definition,
    jobs: BTreeMap<String, Job>,
    created_at: Timestamp,
    canceled: Option<(String, Timestamp)>,
    ended: Option<(Outcome, Timestamp)>,
}

impl Workflow {
    /// Makes a workflow from its first event.
    ///
    /// # Errors
    /// When the event is not [`Event::Created`].
    pub fn create(event: Event) -> Result<(Self, Vec<Effect>), Illegal> {
        let Event::Created {
            definition,
            succeeded,
            at,
        } = event
        else {
            return Err(Illegal::Order);
        };
        let job = |name: &String| Job {
            state: if succeeded.contains(name) {
                JobState::Ended {
                    outcome: Outcome::Succeeded,
                    at,
                    message: None,
                }
            } else {
                JobState::Blocked
            },
            started_at: None,
            approval: None,
        };
        let jobs = definition
            .jobs()
            .iter()
            .map(|known| (known.name.clone(), job(&known.name)))
            .collect();
        let mut workflow = Self {
            definition,
            jobs,
            created_at: at,
            canceled: None,
            ended: None,
        };
        let effects = workflow.settle(at);
        Ok((workflow, effects))
    }

    /// The state after `events`.
    ///
    /// # Errors
    /// When they do not follow from each other: such events were never stored by us.
    pub fn fold(events: impl IntoIterator<Item = Event>) -> Result<Self, Illegal> {
        let mut events = events.into_iter();
        let (mut workflow, _) = Self::create(events.next().ok_or(Illegal::Order)?)?;
        for event in events {
            workflow.apply(event)?;
        }
        Ok(workflow)
    }

    /// Its jobs and what they require.
    #[must_use]
    pub fn definition(&self) -> &Definition {
        &self.definition
    }

    /// The job called `name`.
    #[must_use]
    pub fn job(&self, name: &str) -> Option<&Job> {
        self.jobs.get(name)
    }

    /// When it was made.
    #[must_use]
    pub fn created_at(&self) -> Timestamp {
        self.created_at
    }

    /// When it ended, if it did.
    #[must_use]
    pub fn ended_at(&self) -> Option<Timestamp> {
        self.ended.map(|(_, at)| at)
    }

    /// Where it is.
    #[must_use]
    pub fn status(&self) -> Status {
        if let Some((outcome, _)) = self.ended {
            return Status::Ended(outcome);
        }
        let moves = |job: &Job| matches!(job.state, JobState::Running { .. } | JobState::Queued);
        let failed = |job: &Job| {
            job.outcome()
                .is_some_and(|outcome| matches!(outcome, Outcome::Failed | Outcome::Errored | Outcome::TimedOut))
        };
        match (self.jobs.values().any(moves), self.jobs.values().any(failed)) {
            (true, false) => Status::Running,
            (_, true) => Status::Failing,
            (false, false) => Status::OnHold,
        }
    }

    /// Applies an event: the only way in which the state changes.
    ///
    /// # Errors
    /// [`Illegal`], with the state as it was.
    pub fn apply(&mut self, event: Event) -> Result<Vec<Effect>, Illegal> {
        match event {
            Event::Created { .. } => Err(Illegal::Order),
            Event::JobStarted { job, at } => {
                self.expect(&job, "started", |state| matches!(state, JobState::Queued))?;
                self.change(&job, |job| {
                    job.state = JobState::Running { since: at };
                    job.started_at = Some(at);
                });
                Ok(Vec::new())
            }
            Event::JobFinished {
                job,
                outcome,
                message,
                at,
            } => {
                self.expect(&job, "finished", |state| {
                    matches!(state, JobState::Running { .. } | JobState::Queued)
                })?;
                self.change(&job, |job| job.state = JobState::Ended { outcome, at, message });
                Ok(self.settle(at))
            }
            Event::Approved { job, by, plan, at } => {
                self.expect_on_hold(&job)?;
                self.change(&job, |job| {
                    job.approval = Some(Approval { by, at, plan });
                    job.state = JobState::Ended {
                        outcome: Outcome::Succeeded,
                        at,
                        message: None,
                    };
                });
                Ok(self.settle(at))
            }
            Event::CancelRequested { by, at } => self.cancel(by, at),
        }
    }

    /// Every effect that no event has confirmed yet, from the state alone.
    #[must_use]
    pub fn outstanding(&self) -> Vec<Effect> {
        let mut effects = Vec::new();
        for known in self.definition.jobs() {
            let job = known.name.clone();
            match &self.jobs[&known.name].state {
                JobState::Queued => effects.push(Effect::StartJob { job }),
                JobState::Running { .. } if self.canceled.is_some() => effects.push(Effect::CancelJob { job }),
                JobState::Running { .. } => effects.push(Effect::StartJob { job }),
                JobState::OnHold => effects.push(Effect::HoldJob { job }),
                JobState::Blocked | JobState::Ended { .. } => {}
            }
        }
        effects
    }

    fn change(&mut self, name: &str, how: impl FnOnce(&mut Job)) {
        if let Some(job) = self.jobs.get_mut(name) {
            how(job);
        }
    }

    fn expect(&self, name: &str, wanted: &'static str, good: impl FnOnce(&JobState) -> bool) -> Result<(), Illegal> {
        let job = self
            .jobs
            .get(name)
            .ok_or_else(|| Illegal::UnknownJob(name.to_string()))?;
        if good(&job.state) {
            return Ok(());
        }
        let is = match &job.state {
            JobState::Blocked => "waiting for what it requires",
            JobState::Queued => "queued",
            JobState::Running { .. } => "running",
            JobState::OnHold => "on hold",
            JobState::Ended { outcome, .. } => outcome.as_str(),
        };
        Err(Illegal::WrongState {
            job: name.to_string(),
            is,
            wanted,
        })
    }

    fn expect_on_hold(&self, name: &str) -> Result<(), Illegal> {
        let (Some(known), Some(job)) = (self.definition.job(name), self.jobs.get(name)) else {
            return Err(Illegal::UnknownJob(name.to_string()));
        };
        if known.kind != JobKind::Approval {
            return Err(Illegal::NotAnApproval(name.to_string()));
        }
        if let Some(approval) = &job.approval {
            return Err(Illegal::AlreadyApproved {
                job: name.to_string(),
                by: approval.by.clone(),
                at: approval.at,
            });
        }
        if let Some((by, at)) = &self.canceled {
            return Err(Illegal::Canceled {
                by: by.clone(),
                at: *at,
            });
        }
        match &job.state {
            JobState::OnHold => Ok(()),
            JobState::Ended { message, .. } => Err(Illegal::NotNeeded {
                job: name.to_string(),
                why: message
                    .clone()
                    .unwrap_or_else(|| "it succeeded in an earlier run".into()),
            }),
            _ => Err(Illegal::NotOnHold {
                job: name.to_string(),
                waits_for: self.waits_for(known),
            }),
        }
    }

    fn waits_for(&self, known: &JobDefinition) -> Vec<String> {
        let open = |name: &&str| self.jobs.get(*name).is_some_and(|job| !job.is_over());
        known
            .requires
            .iter()
            .map(|requirement| requirement.job.as_str())
            .filter(open)
            .map(|name| format!("`{name}`"))
            .collect()
    }

    fn cancel(&mut self, by: String, at: Timestamp) -> Result<Vec<Effect>, Illegal> {
        if let Some((outcome, _)) = self.ended {
            return Err(Illegal::Ended(outcome));
        }
        if let Some((by, at)) = &self.canceled {
            return Err(Illegal::Canceled {
                by: by.clone(),
                at: *at,
            });
        }
        let message = format!("canceled by {by}");
        self.canceled = Some((by, at));
        let mut effects = Vec::new();
        for known in self.definition.jobs() {
            let Some(job) = self.jobs.get_mut(&known.name) else {
                continue;
            };
            match job.state {
                JobState::Running { .. } => effects.push(Effect::CancelJob {
                    job: known.name.clone(),
                }),
                JobState::Blocked | JobState::Queued | JobState::OnHold => {
                    job.state = JobState::Ended {
                        outcome: Outcome::Canceled,
                        at,
                        message: Some(message.clone()),
                    };
                }
                JobState::Ended { .. } => {}
            }
        }
        effects.extend(self.settle(at));
        Ok(effects)
    }

    /// Moves every job that can move, and ends the workflow when none can.
    fn settle(&mut self, at: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        // In this order one pass is enough: each job comes after what it requires.
        let names: Vec<String> = self.definition.in_order().map(|job| job.name.clone()).collect();
        for name in names {
            if self.jobs[&name].state != JobState::Blocked {
                continue;
            }
            let Some(known) = self.definition.job(&name) else {
                continue;
            };
            match self.readiness(known) {
                Readiness::Wait => {}
                Readiness::Never { because } => {
                    self.change(&name, |job| {
                        job.state = JobState::Ended {
                            outcome: Outcome::Skipped,
                            at,
                            message: Some(because),
                        };
                    });
                }
                Readiness::Now => match known.kind {
                    JobKind::Build { .. } => {
                        self.change(&name, |job| job.state = JobState::Queued);
                        effects.push(Effect::StartJob { job: name });
                    }
                    JobKind::Approval => {
                        self.change(&name, |job| job.state = JobState::OnHold);
                        effects.push(Effect::HoldJob { job: name });
                    }
                    JobKind::NoOp => self.change(&name, |job| {
                        job.state = JobState::Ended {
                            outcome: Outcome::Succeeded,
                            at,
                            message: None,
                        };
                    }),
                },
            }
        }
        if self.ended.is_none() && self.jobs.values().all(Job::is_over) {
            let outcome = self.verdict();
            self.ended = Some((outcome, at));
            effects.push(Effect::Finished { outcome });
        }
        effects
    }

    fn readiness(&self, known: &JobDefinition) -> Readiness {
        let mut ready = Readiness::Now;
        for requirement in &known.requires {
            match self.jobs.get(&requirement.job).and_then(Job::outcome) {
                None => ready = Readiness::Wait,
                Some(outcome) if requirement.statuses.contains(&RequiredStatus::of(outcome)) => {}
                Some(outcome) => {
                    let because = format!("`{}` {}", requirement.job, outcome.as_str().replace('_', " "));
                    return Readiness::Never { because };
                }
            }
        }
        ready
    }

    /// How the workflow ended, from how its jobs did. A failure that another job was there to catch is a failure still.
    fn verdict(&self) -> Outcome {
        let any = |wanted: Outcome| self.jobs.values().any(|job| job.outcome() == Some(wanted));
        if self.canceled.is_some() {
            return Outcome::Canceled;
        }
        [
            Outcome::Failed,
            Outcome::TimedOut,
            Outcome::Errored,
            Outcome::Rejected,
            Outcome::Canceled,
        ]
        .into_iter()
        .find(|outcome| any(*outcome))
        .unwrap_or(Outcome::Succeeded)
    }
}

enum Readiness {
    Now,
    Wait,
    Never { because: String },
}
