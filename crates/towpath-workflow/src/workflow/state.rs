//! The state of a workflow, and how events change it.

use super::{
    definition::{Definition, JobDefinition, JobKind, RequiredStatus},
    event::{Effect, Event},
    illegal::Illegal,
    job::{Approval, AttemptEnd, Job, JobState, Stop, StopReason},
    timer::{STOP_GRACE, Timer, TimerKind, after, back_off},
};
use jiff::{SignedDuration, Timestamp};
use std::{collections::BTreeSet, time::Duration};
use towpath_types::{Outcome, WorkflowStatus};

/// The state of one workflow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workflow {
    definition: Definition,
    /// In the order of the definition.
    jobs: Vec<Job>,
    created_at: Timestamp,
    canceled: Option<Cancel>,
    ended: Option<(Outcome, Timestamp)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Cancel {
    by: String,
    at: Timestamp,
}

impl Workflow {
    /// Makes a workflow from its first event.
    ///
    /// # Errors
    /// [`Illegal::Order`] when the event is not [`Event::Created`], [`Illegal::UnknownJob`] when a job that succeeded
    /// before is not in the definition.
    pub fn create(event: Event) -> Result<(Self, Vec<Effect>), Illegal> {
        let Event::Created {
            definition,
            succeeded,
            at,
        } = event
        else {
            return Err(Illegal::Order);
        };
        if let Some(unknown) = succeeded.iter().find(|name| definition.job(name).is_none()) {
            return Err(Illegal::UnknownJob(unknown.clone()));
        }
        let job = |known: &JobDefinition| {
            if succeeded.contains(&known.name) {
                Job::new(ended(Outcome::Succeeded, at, None), true)
            } else {
                Job::new(JobState::Blocked, false)
            }
        };
        let mut workflow = Self {
            jobs: definition.jobs().iter().map(job).collect(),
            definition,
            created_at: at,
            canceled: None,
            ended: None,
        };
        workflow.settle(at);
        let mut effects = workflow.outstanding();
        effects.extend(workflow.ended.map(|(outcome, _)| Effect::Finished { outcome }));
        Ok((workflow, effects))
    }

    /// The state after `events`.
    ///
    /// # Errors
    /// [`Illegal`] when an event does not follow from the ones before it. Towpath never stores such events.
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
        self.definition.position(name).map(|position| &self.jobs[position])
    }

    /// Every job with its definition, in the order of the configuration.
    pub fn jobs(&self) -> impl Iterator<Item = (&JobDefinition, &Job)> {
        self.definition.jobs().iter().zip(&self.jobs)
    }

    /// The jobs that a server has claimed. No effect covers them: a server that finds the claimant gone takes them
    /// over, or reports [`Event::JobReleased`] or [`Event::RetryRequested`].
    pub fn under_way(&self) -> impl Iterator<Item = (&JobDefinition, &Job)> {
        self.jobs().filter(|(_, job)| job.is_under_way())
    }

    /// The pending timers with their due times.
    pub fn timers(&self) -> impl Iterator<Item = (Timer, Timestamp)> {
        self.jobs().filter_map(|(known, job)| timer_of(known, job))
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

    /// The status in one word.
    #[must_use]
    pub fn status(&self) -> WorkflowStatus {
        if let Some((outcome, _)) = self.ended {
            return WorkflowStatus::Ended(outcome);
        }
        if self
            .jobs
            .iter()
            .any(|job| job.outcome().is_some_and(Outcome::is_failure))
        {
            return WorkflowStatus::Failing;
        }
        let moves = |job: &Job| match job.state {
            JobState::Queued | JobState::Claimed { .. } | JobState::Running { .. } | JobState::BackingOff { .. } => {
                true
            }
            JobState::Blocked | JobState::OnHold { .. } | JobState::Ended { .. } => false,
        };
        if self.jobs.iter().any(moves) {
            WorkflowStatus::Running
        } else {
            WorkflowStatus::OnHold
        }
    }

    /// Applies an event: the only way to change the state.
    ///
    /// A [`Event::TimerFired`] that is early, or that nothing waits for, changes nothing and returns
    /// [`Effect::SetTimer`] or [`Effect::CancelTimer`]. It need not be stored.
    ///
    /// # Errors
    /// [`Illegal`]; the state is unchanged.
    pub fn apply(&mut self, event: Event) -> Result<Vec<Effect>, Illegal> {
        let before = self.outstanding();
        let was_over = self.ended.is_some();
        let mut again = Vec::new();
        match event {
            Event::Created { .. } => return Err(Illegal::Order),
            Event::JobClaimed { job, attempt, by, at } => self.claim(&job, attempt, by, at)?,
            Event::JobReleased {
                job,
                attempt,
                reason,
                at,
            } => self.release(&job, attempt, reason, at)?,
            Event::JobStarted { job, attempt, at } => {
                // It may have been told to stop before it started.
                if self.start(&job, attempt, at)? {
                    again.push(Effect::StopJob { job, attempt });
                }
            }
            Event::JobFinished {
                job,
                attempt,
                outcome,
                message,
                at,
            } => self.finish(&job, attempt, outcome, message, at)?,
            Event::RetryRequested { job, attempt, by, at } => self.retry(&job, attempt, by, at)?,
            Event::Approved { job, by, plan, at } => self.approve(&job, Approval { by, at, plan })?,
            Event::CancelRequested { by, at } => self.cancel(by, at)?,
            Event::TimerFired { timer, at } => match self.position_waiting_for(&timer) {
                None => again.push(Effect::CancelTimer { timer }),
                Some((_, due)) if at < due => again.push(Effect::SetTimer { timer, at: due }),
                Some((position, _)) => self.expire(position, timer.kind, at),
            },
        }
        again.extend(self.follows_from(&before));
        if let Some((outcome, _)) = self.ended.filter(|_| !was_over) {
            again.push(Effect::Finished { outcome });
        }
        Ok(again)
    }

    /// Every effect that no event has confirmed yet, from the state alone.
    #[must_use]
    pub fn outstanding(&self) -> Vec<Effect> {
        let mut effects = Vec::new();
        for (known, job) in self.jobs() {
            let name = || known.name.clone();
            if !job.is_over() {
                effects.extend(job.given_up().map(|attempt| Effect::StopJob { job: name(), attempt }));
            }
            match &job.state {
                JobState::Queued => effects.push(Effect::QueueJob {
                    job: name(),
                    attempt: job.attempt,
                }),
                JobState::Claimed { stop: Some(_), .. } | JobState::Running { stop: Some(_), .. } => {
                    effects.push(Effect::StopJob {
                        job: name(),
                        attempt: job.attempt,
                    });
                }
                JobState::OnHold { .. } => effects.push(Effect::HoldJob { job: name() }),
                JobState::Blocked
                | JobState::Claimed { stop: None, .. }
                | JobState::Running { stop: None, .. }
                | JobState::BackingOff { .. }
                | JobState::Ended { .. } => {}
            }
            if let Some((timer, at)) = timer_of(known, job) {
                effects.push(Effect::SetTimer { timer, at });
            }
        }
        effects
    }

    /// The effects that are outstanding now and were not in `before`, and the cancellation of timers that nothing waits
    /// for any more.
    fn follows_from(&self, before: &[Effect]) -> Vec<Effect> {
        let outstanding = self.outstanding();
        let awaited: BTreeSet<&Effect> = outstanding.iter().collect();
        let mut effects: Vec<Effect> = before
            .iter()
            .filter(|effect| !awaited.contains(effect))
            .filter_map(|effect| match effect {
                Effect::SetTimer { timer, .. } => Some(Effect::CancelTimer { timer: timer.clone() }),
                _ => None,
            })
            .collect();
        let known: BTreeSet<&Effect> = before.iter().collect();
        effects.extend(awaited.into_iter().filter(|effect| !known.contains(effect)).cloned());
        effects
    }

    /// The index of a job whose current attempt is `attempt`.
    fn current(&self, name: &str, attempt: u32) -> Result<usize, Illegal> {
        let position = self.position(name)?;
        let current = self.jobs[position].attempt;
        if attempt == current {
            return Ok(position);
        }
        Err(Illegal::StaleAttempt {
            job: name.to_string(),
            attempt,
            current,
        })
    }

    fn position(&self, name: &str) -> Result<usize, Illegal> {
        let unknown = || Illegal::UnknownJob(name.to_string());
        self.definition.position(name).ok_or_else(unknown)
    }

    fn wrong_state(&self, position: usize, wanted: &'static str) -> Illegal {
        Illegal::WrongState {
            job: self.definition.jobs()[position].name.clone(),
            is: self.jobs[position].is_where(),
            wanted,
        }
    }

    fn refuse_canceled(&self) -> Result<(), Illegal> {
        match &self.canceled {
            None => Ok(()),
            Some(Cancel { by, at }) => Err(Illegal::Canceled {
                by: by.clone(),
                at: *at,
            }),
        }
    }

    fn claim(&mut self, name: &str, attempt: u32, by: String, at: Timestamp) -> Result<(), Illegal> {
        let position = self.current(name, attempt)?;
        let JobState::Queued = self.jobs[position].state else {
            return Err(self.wrong_state(position, "claimed"));
        };
        let job = &mut self.jobs[position];
        job.claimed_by = Some(by);
        job.state = JobState::Claimed { since: at, stop: None };
        Ok(())
    }

    fn release(&mut self, name: &str, attempt: u32, reason: String, at: Timestamp) -> Result<(), Illegal> {
        let position = self.current(name, attempt)?;
        let JobState::Claimed { stop, .. } = &self.jobs[position].state else {
            return Err(self.wrong_state(position, "released"));
        };
        match stop.clone() {
            Some(stop) => {
                let (outcome, message) = ended_for(&stop.reason, reason);
                self.jobs[position].state = ended(outcome, at, message);
                self.settle(at);
            }
            None => {
                self.jobs[position].next_attempt(AttemptEnd::Released { reason }, at);
                self.jobs[position].queue(at);
            }
        }
        Ok(())
    }

    /// Starts an attempt. Returns whether the job was told to stop before.
    fn start(&mut self, name: &str, attempt: u32, at: Timestamp) -> Result<bool, Illegal> {
        let position = self.current(name, attempt)?;
        let JobState::Claimed { stop, .. } = &self.jobs[position].state else {
            return Err(self.wrong_state(position, "started"));
        };
        let stop = stop.clone();
        let stops = stop.is_some();
        let job = &mut self.jobs[position];
        job.started_at = Some(at);
        job.state = JobState::Running { since: at, stop };
        Ok(stops)
    }

    fn finish(
        &mut self,
        name: &str,
        attempt: u32,
        outcome: Outcome,
        message: Option<String>,
        at: Timestamp,
    ) -> Result<(), Illegal> {
        let position = self.current(name, attempt)?;
        let (JobState::Claimed { stop, .. } | JobState::Running { stop, .. }) = &self.jobs[position].state else {
            return Err(self.wrong_state(position, "finished"));
        };
        if outcome == Outcome::Skipped {
            return Err(Illegal::NotAnEnd {
                job: name.to_string(),
                outcome,
            });
        }
        let stop = stop.clone();
        let (outcome, message) = match &stop {
            Some(stop) => stopped(&stop.reason, outcome, message),
            None => (outcome, message),
        };
        let allowed = self.definition.jobs()[position].retries;
        let job = &mut self.jobs[position];
        if outcome == Outcome::Errored && stop.is_none() && job.retries < allowed {
            job.retries += 1;
            let until = after(at, back_off(job.retries));
            job.next_attempt(AttemptEnd::Ended { outcome, message }, at);
            job.state = JobState::BackingOff { until };
            return Ok(());
        }
        job.state = ended(outcome, at, message);
        self.settle(at);
        Ok(())
    }

    fn retry(&mut self, name: &str, attempt: u32, by: String, at: Timestamp) -> Result<(), Illegal> {
        if let Some((outcome, _)) = self.ended {
            return Err(Illegal::Ended(outcome));
        }
        self.refuse_canceled()?;
        let position = self.current(name, attempt)?;
        match &self.jobs[position].state {
            JobState::Claimed { stop: None, .. } | JobState::Running { stop: None, .. } => {
                self.jobs[position].next_attempt(AttemptEnd::GivenUp { by }, at);
            }
            JobState::BackingOff { .. } => {}
            JobState::Ended { outcome, message, .. } => {
                let end = AttemptEnd::Ended {
                    outcome: *outcome,
                    message: message.clone(),
                };
                if let Some(why) = never_again(&self.definition.jobs()[position], *outcome) {
                    return Err(Illegal::NotRetriable {
                        job: name.to_string(),
                        why,
                    });
                }
                self.jobs = self.with_another_attempt(position, end, at)?;
            }
            JobState::Blocked
            | JobState::Queued
            | JobState::Claimed { stop: Some(_), .. }
            | JobState::Running { stop: Some(_), .. }
            | JobState::OnHold { .. } => return Err(self.wrong_state(position, "run again")),
        }
        self.jobs[position].retries = 0;
        self.jobs[position].queue(at);
        Ok(())
    }

    /// The jobs after an ended one gets another attempt. Jobs behind it that have done nothing yet are blocked again.
    fn with_another_attempt(&self, position: usize, end: AttemptEnd, at: Timestamp) -> Result<Vec<Job>, Illegal> {
        let mut jobs = self.jobs.clone();
        jobs[position].next_attempt(end, at);
        // Jobs that had ended and are open again.
        let mut reopened = BTreeSet::from([self.definition.jobs()[position].name.as_str()]);
        let mut followers = Vec::new();
        for behind in self.definition.order().iter().copied() {
            let known = &self.definition.jobs()[behind];
            let is_concerned = known
                .requires
                .iter()
                .any(|requirement| reopened.contains(requirement.job.as_str()));
            if !is_concerned || jobs[behind].is_kept {
                continue;
            }
            if jobs[behind].has_acted() {
                followers.push(format!("`{}`", known.name));
                continue;
            }
            match readiness(&self.definition, &jobs, known) {
                Readiness::Wait => {
                    let job = &mut jobs[behind];
                    match &job.state {
                        JobState::Ended { outcome, message, .. } => {
                            let end = AttemptEnd::Ended {
                                outcome: *outcome,
                                message: message.clone(),
                            };
                            job.next_attempt(end, at);
                            reopened.insert(&known.name);
                        }
                        _ => job.block(),
                    }
                }
                // It was skipped, and still is because of another job.
                Readiness::Now | Readiness::Never { .. } => {}
            }
        }
        if followers.is_empty() {
            return Ok(jobs);
        }
        Err(Illegal::Followed {
            job: self.definition.jobs()[position].name.clone(),
            by: followers,
        })
    }

    fn approve(&mut self, name: &str, approval: Approval) -> Result<(), Illegal> {
        let position = self.position(name)?;
        let (known, job) = (&self.definition.jobs()[position], &self.jobs[position]);
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
        self.refuse_canceled()?;
        match &job.state {
            JobState::OnHold { .. } => {}
            JobState::Ended { message, .. } => {
                return Err(Illegal::NotNeeded {
                    job: name.to_string(),
                    why: message
                        .clone()
                        .unwrap_or_else(|| "it succeeded in an earlier run".into()),
                });
            }
            _ => {
                return Err(Illegal::NotOnHold {
                    job: name.to_string(),
                    waits_for: self.waits_for(known),
                });
            }
        }
        let at = approval.at;
        let job = &mut self.jobs[position];
        job.approval = Some(approval);
        job.state = ended(Outcome::Succeeded, at, None);
        self.settle(at);
        Ok(())
    }

    fn waits_for(&self, known: &JobDefinition) -> Vec<String> {
        let is_open = |name: &&str| self.job(name).is_some_and(|job| !job.is_over());
        known
            .requires
            .iter()
            .map(|requirement| requirement.job.as_str())
            .filter(is_open)
            .map(|name| format!("`{name}`"))
            .collect()
    }

    fn cancel(&mut self, by: String, at: Timestamp) -> Result<(), Illegal> {
        if let Some((outcome, _)) = self.ended {
            return Err(Illegal::Ended(outcome));
        }
        self.refuse_canceled()?;
        for job in &mut self.jobs {
            match &mut job.state {
                JobState::Claimed { stop, .. } | JobState::Running { stop, .. } => {
                    stop.get_or_insert_with(|| Stop {
                        reason: StopReason::Canceled { by: by.clone() },
                        deadline: after(at, STOP_GRACE),
                    });
                }
                JobState::Blocked | JobState::Queued | JobState::OnHold { .. } | JobState::BackingOff { .. } => {
                    job.state = ended(Outcome::Canceled, at, Some(format!("canceled by {by}")));
                }
                JobState::Ended { .. } => {}
            }
        }
        self.canceled = Some(Cancel { by, at });
        self.settle(at);
        Ok(())
    }

    /// The index of the job that waits for `timer`, and the timer's due time.
    fn position_waiting_for(&self, timer: &Timer) -> Option<(usize, Timestamp)> {
        let position = self.definition.position(&timer.job)?;
        let (awaited, due) = timer_of(&self.definition.jobs()[position], &self.jobs[position])?;
        (awaited == *timer).then_some((position, due))
    }

    /// Handles the due timer of `kind` that the job waits for.
    fn expire(&mut self, position: usize, kind: TimerKind, at: Timestamp) {
        let limit = self.definition.jobs()[position].time_limit;
        let job = &mut self.jobs[position];
        match kind {
            TimerKind::Retry => job.queue(at),
            TimerKind::TimeLimit => {
                if let JobState::Running { stop, .. } = &mut job.state {
                    *stop = limit.map(|limit| Stop {
                        reason: StopReason::TimeLimit(limit),
                        deadline: after(at, STOP_GRACE),
                    });
                }
            }
            TimerKind::StopGrace => {
                if let Some(stop) = job.stop() {
                    let late = format!("it did not stop within {}", for_people(STOP_GRACE));
                    let (outcome, message) = ended_for(&stop.reason, late);
                    job.state = ended(outcome, at, message);
                    self.settle(at);
                }
            }
        }
    }

    /// Moves every job that can move, and ends the workflow when no job can.
    fn settle(&mut self, at: Timestamp) {
        // One pass is enough: each job comes after the jobs that it requires.
        for position in self.definition.order().iter().copied() {
            if self.jobs[position].state != JobState::Blocked {
                continue;
            }
            let known = &self.definition.jobs()[position];
            let ready = readiness(&self.definition, &self.jobs, known);
            let job = &mut self.jobs[position];
            match (ready, &known.cannot_run, known.kind) {
                (Readiness::Wait, _, _) => {}
                (Readiness::Never { because }, _, _) => job.state = ended(Outcome::Skipped, at, Some(because)),
                (Readiness::Now, Some(why), _) => job.state = ended(Outcome::Errored, at, Some(why.clone())),
                (Readiness::Now, None, JobKind::Build { .. }) => job.queue(at),
                (Readiness::Now, None, JobKind::Approval) => job.state = JobState::OnHold { since: at },
                (Readiness::Now, None, JobKind::NoOp) => job.state = ended(Outcome::Succeeded, at, None),
            }
        }
        if self.ended.is_none() && self.jobs.iter().all(Job::is_over) {
            self.ended = Some((self.verdict(), at));
        }
    }

    /// The workflow's outcome from those of its jobs. A failure counts even if another job handled it.
    fn verdict(&self) -> Outcome {
        if self.canceled.is_some() {
            return Outcome::Canceled;
        }
        let any = |wanted: Outcome| self.jobs.iter().any(|job| job.outcome() == Some(wanted));
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

/// Whether a job can begin.
enum Readiness {
    Now,
    Wait,
    Never { because: String },
}

fn readiness(definition: &Definition, jobs: &[Job], known: &JobDefinition) -> Readiness {
    let mut ready = Readiness::Now;
    for requirement in &known.requires {
        let required = definition.position(&requirement.job).map(|position| &jobs[position]);
        match required.and_then(Job::outcome) {
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

/// The timer that a job waits for, and its due time. The due time depends only on how the attempt entered its state, so
/// it does not change while the attempt waits.
fn timer_of(known: &JobDefinition, job: &Job) -> Option<(Timer, Timestamp)> {
    let (kind, due) = match &job.state {
        JobState::BackingOff { until } => (TimerKind::Retry, *until),
        JobState::Claimed { stop: Some(stop), .. } | JobState::Running { stop: Some(stop), .. } => {
            (TimerKind::StopGrace, stop.deadline)
        }
        JobState::Running { since, stop: None } => (TimerKind::TimeLimit, after(*since, known.time_limit?)),
        JobState::Blocked
        | JobState::Queued
        | JobState::Claimed { stop: None, .. }
        | JobState::OnHold { .. }
        | JobState::Ended { .. } => return None,
    };
    let timer = Timer {
        kind,
        job: known.name.clone(),
        attempt: job.attempt,
    };
    Some((timer, due))
}

/// The outcome of an attempt that was told to stop and did not report its end.
fn ended_for(reason: &StopReason, why: String) -> (Outcome, Option<String>) {
    match reason {
        StopReason::Canceled { by } => (Outcome::Canceled, Some(format!("canceled by {by}; {why}"))),
        StopReason::TimeLimit(_) => stopped(reason, Outcome::TimedOut, Some(why)),
    }
}

/// The outcome of an attempt that was told to stop, from the one that it reported.
fn stopped(reason: &StopReason, outcome: Outcome, message: Option<String>) -> (Outcome, Option<String>) {
    match reason {
        // An attempt that succeeds while it is stopping has succeeded.
        StopReason::Canceled { .. } => (outcome, message),
        StopReason::TimeLimit(limit) => {
            let mut text = format!("it ran longer than its time limit of {}", for_people(*limit));
            if let Some(message) = message {
                text.push_str("; ");
                text.push_str(&message);
            }
            (Outcome::TimedOut, Some(text))
        }
    }
}

/// Why a job that ended with `outcome` cannot have another attempt, if so.
fn never_again(known: &JobDefinition, outcome: Outcome) -> Option<String> {
    if let Some(why) = &known.cannot_run {
        return Some(why.clone());
    }
    match known.kind {
        JobKind::Approval | JobKind::NoOp => return Some("it runs nothing".into()),
        JobKind::Build { .. } => {}
    }
    match outcome {
        Outcome::Succeeded => Some("it succeeded".into()),
        Outcome::Skipped => Some("it never ran; run again what it waited for".into()),
        Outcome::Failed | Outcome::Errored | Outcome::TimedOut | Outcome::Canceled | Outcome::Rejected => None,
    }
}

fn ended(outcome: Outcome, at: Timestamp, message: Option<String>) -> JobState {
    JobState::Ended { outcome, at, message }
}

/// Formats a duration: `1h 30m`.
fn for_people(duration: Duration) -> String {
    SignedDuration::try_from(duration)
        .map_or_else(|_| format!("{} s", duration.as_secs()), |known| format!("{known:#}"))
}
