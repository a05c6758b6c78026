//! Histories of workflows.

use crate::{random::Random, simulate};
use jiff::Timestamp;
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::AddAssign,
    time::Duration,
};
use towpath_types::{JobStatus, Outcome, WorkflowStatus};
use towpath_workflow::{
    AttemptEnd, Definition, EarlierAttempt, Effect, Event, Illegal, Job, JobDefinition, JobKind, JobState,
    RequiredStatus, Requirement, StopReason, Timer, TimerKind, Workflow, wire,
};

const ENDS: [Outcome; 6] = [
    Outcome::Succeeded,
    Outcome::Succeeded,
    Outcome::Failed,
    Outcome::Errored,
    Outcome::Canceled,
    Outcome::Rejected,
];

/// What happened in histories.
#[derive(Default, Debug)]
struct Seen {
    events: u64,
    refused: u64,
    power_cuts: u64,
    failed_commits: u64,
    lost_acknowledgements: u64,
    stale_reports: u64,
    attempts: u64,
    timers_fired: u64,
    timers_that_changed_nothing: u64,
    gates_opened: u64,
    canceled: u64,
}

impl AddAssign for Seen {
    fn add_assign(&mut self, other: Self) {
        self.events += other.events;
        self.refused += other.refused;
        self.power_cuts += other.power_cuts;
        self.failed_commits += other.failed_commits;
        self.lost_acknowledgements += other.lost_acknowledgements;
        self.stale_reports += other.stale_reports;
        self.attempts += other.attempts;
        self.timers_fired += other.timers_fired;
        self.timers_that_changed_nothing += other.timers_that_changed_nothing;
        self.gates_opened += other.gates_opened;
        self.canceled += other.canceled;
    }
}

fn definition(random: &mut Random) -> Definition {
    let count = 1 + random.below(5);
    let jobs = (0..count)
        .map(|at| {
            let kind = match random.below(7) {
                0 => JobKind::Approval,
                1 => JobKind::NoOp,
                _ => JobKind::Build { nodes: 1 },
            };
            let mut requires = Vec::new();
            for earlier in 0..at {
                if !random.one_in(3) {
                    continue;
                }
                let statuses = match random.below(5) {
                    0 => RequiredStatus::TERMINAL.to_vec(),
                    1 => vec![RequiredStatus::Failed],
                    2 => vec![RequiredStatus::Success, RequiredStatus::NotRun],
                    _ => vec![RequiredStatus::Success],
                };
                requires.push(Requirement {
                    job: format!("j{earlier}"),
                    statuses,
                });
            }
            let mut job = JobDefinition::new(format!("j{at}"), kind, requires);
            if matches!(kind, JobKind::Build { .. }) {
                job.retries = u32::try_from(random.below(3)).unwrap();
                job.time_limit = random.one_in(3).then(|| Duration::from_secs(30));
            }
            if random.one_in(12) {
                job.cannot_run = Some("it needs a machine".into());
            }
            job
        })
        .collect();
    Definition::new(jobs).unwrap()
}

/// The name and the attempt.
type Key = (String, u32);

/// The environment of an attempt on a server.
struct Environment {
    /// Whether it ignores a request to stop.
    is_stubborn: bool,
    told_to_stop: bool,
    ended: Option<Outcome>,
}

struct World {
    random: Random,
    seen: Seen,
    /// No more faults happen.
    is_fair: bool,
    /// Whether stored events go through JSON.
    in_json: bool,
    stored: Vec<Event>,
    /// What the server has in memory.
    workflow: Workflow,
    /// Effects that are not carried out yet.
    wishes: Vec<Effect>,
    /// Stored with the events or only in memory: a power cut may or may not lose them.
    timers: BTreeMap<Timer, Timestamp>,
    /// Old timers, which may fire again.
    old_timers: Vec<Timer>,
    /// Reports in transit.
    messages: Vec<Event>,
    /// Claims for which the server has not started anything yet.
    claims: Vec<Key>,
    environments: BTreeMap<Key, Environment>,
    clock: i64,
    // Observations for checking the rules.
    ever_claimed: BTreeSet<Key>,
    ever_started: BTreeSet<Key>,
    ever_ended: BTreeSet<Key>,
    automatic_retries: BTreeMap<String, u32>,
    canceled: bool,
    ends: u32,
}

/// Why nothing was committed.
#[derive(Debug)]
enum NotCommitted {
    Illegal(Illegal),
    /// The store did not answer; the event may or may not be stored.
    Unknown,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let definition = definition(&mut random);
        let succeeded = if random.one_in(8) {
            vec!["j0".to_string()]
        } else {
            Vec::new()
        };
        let event = Event::Created {
            definition,
            succeeded,
            at: Timestamp::UNIX_EPOCH,
        };
        let (workflow, effects) = Workflow::create(event.clone()).unwrap();
        let mut world = Self {
            in_json: seed.is_multiple_of(64),
            random,
            seen: Seen::default(),
            is_fair: false,
            stored: vec![event],
            workflow,
            wishes: Vec::new(),
            timers: BTreeMap::new(),
            old_timers: Vec::new(),
            messages: Vec::new(),
            claims: Vec::new(),
            environments: BTreeMap::new(),
            clock: 1_000_000,
            ever_claimed: BTreeSet::new(),
            ever_started: BTreeSet::new(),
            ever_ended: BTreeSet::new(),
            automatic_retries: BTreeMap::new(),
            canceled: false,
            ends: 0,
        };
        for (known, job) in world.workflow.jobs() {
            if job.is_over() {
                world.ever_ended.insert((known.name.clone(), job.attempt));
            }
        }
        world.assert_rules();
        world.take(effects);
        world
    }

    fn now(&mut self) -> Timestamp {
        self.clock += 1;
        Timestamp::from_second(self.clock).unwrap()
    }

    /// Remembers effects, as a server does after committing their event.
    fn take(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::SetTimer { timer, at } => {
                    self.timers.insert(timer, at);
                }
                Effect::CancelTimer { timer } => {
                    self.timers.remove(&timer);
                    self.old_timers.push(timer);
                }
                Effect::Finished { .. } => {}
                other => self.wishes.push(other),
            }
        }
    }

    fn commit(&mut self, event: Event) -> Result<(), NotCommitted> {
        let mut next = self.workflow.clone();
        let effects = match next.apply(event.clone()) {
            Ok(effects) => effects,
            Err(illegal) => {
                assert_eq!(next, self.workflow, "{event:?} was refused and changed the state");
                self.seen.refused += 1;
                if let Illegal::StaleAttempt { .. } = illegal {
                    self.seen.stale_reports += 1;
                    self.remove_stale_environment(&event);
                }
                return Err(NotCommitted::Illegal(illegal));
            }
        };
        let fate = if self.is_fair { 9 } else { self.random.below(24) };
        if fate == 0 {
            self.seen.failed_commits += 1;
            return Err(NotCommitted::Unknown);
        }
        let before = std::mem::replace(&mut self.workflow, next);
        self.observe(&before, &event, &effects);
        // Events without a change need not be stored.
        if before != self.workflow || self.random.one_in(2) {
            self.stored.push(event);
        }
        match fate {
            1 => {
                // The server believes that the commit failed, and loads again.
                self.seen.lost_acknowledgements += 1;
                self.load();
                Err(NotCommitted::Unknown)
            }
            2 => {
                self.cut_the_power();
                Err(NotCommitted::Unknown)
            }
            _ => {
                self.take(effects);
                Ok(())
            }
        }
    }

    /// A sender that learns that its attempt is stale removes what it runs for it.
    fn remove_stale_environment(&mut self, event: &Event) {
        if let Event::JobStarted { job, attempt, .. } | Event::JobFinished { job, attempt, .. } = event {
            self.environments.remove(&(job.clone(), *attempt));
        }
    }

    fn load(&mut self) {
        let events = if self.in_json {
            let json = |event: &Event| {
                let text = serde_json::to_string(&wire::write_workflow_event(event)).unwrap();
                wire::read_workflow_event(serde_json::from_str(&text).unwrap()).unwrap()
            };
            self.stored.iter().map(json).collect()
        } else {
            self.stored.clone()
        };
        let folded = Workflow::fold(events).unwrap();
        assert_eq!(folded, self.workflow, "the same events gave another state");
        self.workflow = folded;
        let outstanding = self.workflow.outstanding();
        self.take(outstanding);
    }

    /// Drops all memory and restarts from the stored events. Environments and some messages survive.
    fn cut_the_power(&mut self) {
        self.seen.power_cuts += 1;
        self.wishes.clear();
        self.claims.clear();
        if self.random.one_in(2) {
            self.timers.clear();
        }
        if self.random.one_in(4) {
            self.messages.clear();
        }
        self.load();
    }

    // The rules.

    /// Checks the rules for every state.
    fn assert_rules(&self) {
        let outstanding = self.workflow.outstanding();
        let timers: BTreeMap<Timer, Timestamp> = self.workflow.timers().collect();
        let has = |effect: Effect| outstanding.contains(&effect);
        for (known, job) in self.workflow.jobs() {
            let (name, attempt) = (known.name.clone(), job.attempt);
            let timer = |kind| {
                timers.get(&Timer {
                    kind,
                    job: name.clone(),
                    attempt,
                })
            };
            match &job.state {
                JobState::Blocked => {}
                JobState::Queued => assert!(has(Effect::QueueJob {
                    job: name.clone(),
                    attempt
                })),
                JobState::OnHold { .. } => assert!(has(Effect::HoldJob { job: name.clone() })),
                JobState::BackingOff { until } => assert_eq!(timer(TimerKind::Retry), Some(until)),
                JobState::Claimed { stop, .. } | JobState::Running { stop, .. } => match stop {
                    Some(stop) => {
                        assert!(has(Effect::StopJob {
                            job: name.clone(),
                            attempt
                        }));
                        assert_eq!(timer(TimerKind::StopGrace), Some(&stop.deadline));
                    }
                    None => assert_eq!(
                        timer(TimerKind::TimeLimit).is_some(),
                        known.time_limit.is_some() && job.has_started()
                    ),
                },
                JobState::Ended { .. } => {}
            }
            for earlier in &job.earlier {
                if matches!(earlier.end, AttemptEnd::GivenUp { .. }) && !job.is_over() {
                    let attempt = earlier.attempt;
                    assert!(has(Effect::StopJob {
                        job: name.clone(),
                        attempt
                    }));
                }
            }
            if !job.is_over() && job.state != JobState::Blocked {
                assert!(
                    !self.canceled || job.stop().is_some(),
                    "{name} goes on after the cancellation"
                );
                assert!(known.cannot_run.is_none(), "{name} cannot run and is {:?}", job.state);
                self.assert_requirements(known, job);
            }
            let before: Vec<u32> = job.earlier.iter().map(|earlier| earlier.attempt).collect();
            assert!(before.into_iter().eq(1..attempt), "attempts of {name} are missing");
        }
        for effect in &outstanding {
            if let Effect::SetTimer { timer, at } = effect {
                assert_eq!(timers.get(timer), Some(at));
            }
        }
        assert_eq!(
            timers.len(),
            outstanding
                .iter()
                .filter(|effect| matches!(effect, Effect::SetTimer { .. }))
                .count()
        );
        if let WorkflowStatus::Ended(_) = self.workflow.status() {
            assert!(outstanding.is_empty(), "outstanding at the end: {outstanding:?}");
        }
    }

    fn assert_requirements(&self, known: &JobDefinition, job: &Job) {
        for requirement in &known.requires {
            let outcome = self.workflow.job(&requirement.job).unwrap().outcome();
            let is_met = outcome.is_some_and(|outcome| requirement.statuses.contains(&RequiredStatus::of(outcome)));
            assert!(
                is_met,
                "{} is {:?} although {} is {outcome:?}",
                known.name, job.state, requirement.job
            );
        }
    }

    /// Checks the rules for a transition.
    fn observe(&mut self, before: &Workflow, event: &Event, effects: &[Effect]) {
        self.seen.events += 1;
        let after = self.workflow.clone();
        assert!(
            before.ended_at().is_none() || *before == after,
            "{event:?} changed an ended workflow"
        );
        if after.ended_at().is_some() && before.ended_at().is_none() {
            self.ends += 1;
        }
        let finished = effects
            .iter()
            .filter(|effect| matches!(effect, Effect::Finished { .. }))
            .count();
        assert_eq!(finished == 1, after.ended_at().is_some() && before.ended_at().is_none());
        let (was, is) = (before.outstanding(), after.outstanding());
        for effect in is.iter().filter(|effect| !was.contains(effect)) {
            assert!(effects.contains(effect), "{event:?} did not ask for {effect:?}");
        }
        let timers: BTreeMap<Timer, Timestamp> = before.timers().collect();
        for timer in timers.keys() {
            let is_over = after.timers().all(|(left, _)| left != *timer);
            let cancel = Effect::CancelTimer { timer: timer.clone() };
            assert_eq!(effects.contains(&cancel), is_over, "{event:?}: {timer}");
        }
        match event {
            Event::JobClaimed { job, attempt, .. }
            | Event::JobReleased { job, attempt, .. }
            | Event::JobStarted { job, attempt, .. }
            | Event::JobFinished { job, attempt, .. }
            | Event::RetryRequested { job, attempt, .. } => {
                assert_eq!(before.job(job).unwrap().attempt, *attempt, "{event:?} is stale");
                if let Event::RetryRequested { .. } = event {
                    self.automatic_retries.remove(job);
                }
            }
            Event::TimerFired { timer, at } => {
                self.seen.timers_fired += 1;
                let due = timers.get(timer);
                if due.is_none_or(|due| at < due) {
                    self.seen.timers_that_changed_nothing += 1;
                    assert_eq!(*before, after, "{event:?} was not due and changed the state");
                    let answer = match due {
                        Some(due) => Effect::SetTimer {
                            timer: timer.clone(),
                            at: *due,
                        },
                        None => Effect::CancelTimer { timer: timer.clone() },
                    };
                    assert_eq!(effects, [answer]);
                } else {
                    assert_ne!(*before, after, "{event:?} was due and changed nothing");
                }
            }
            Event::CancelRequested { .. } => {
                self.seen.canceled += 1;
                self.canceled = true;
            }
            Event::Created { .. } | Event::Approved { .. } => {}
        }
        for ((known, was), (_, is)) in before.jobs().zip(after.jobs()) {
            self.observe_job(known, was, is, event);
        }
        self.assert_rules();
    }

    fn observe_job(&mut self, known: &JobDefinition, was: &Job, is: &Job, event: &Event) {
        let name = &known.name;
        let key = |attempt| (name.clone(), attempt);
        if is.attempt == was.attempt {
            if was.is_over() {
                assert_eq!(was, is, "{event:?} changed an attempt that had ended");
            } else if is.is_over() {
                assert!(
                    self.ever_ended.insert(key(is.attempt)),
                    "attempt {} of {name} ended twice",
                    is.attempt
                );
            }
        } else {
            assert_eq!(is.attempt, was.attempt + 1, "{name} skipped an attempt");
            self.seen.attempts += 1;
            if !was.is_over() {
                assert!(
                    self.ever_ended.insert(key(was.attempt)),
                    "attempt {} of {name} ended twice",
                    was.attempt
                );
            }
            // A retried job begins at once; the jobs that waited for it wait again.
            let is_named = match event {
                Event::RetryRequested { job, .. } => {
                    let is_good = matches!(was.outcome(), Some(Outcome::Succeeded | Outcome::Skipped));
                    assert!(
                        job != name || !is_good,
                        "{name} is run again although it was {:?}",
                        was.state
                    );
                    job == name
                }
                Event::JobReleased { job, .. } | Event::JobFinished { job, .. } => job == name,
                _ => false,
            };
            assert!(
                is_named || is.state == JobState::Blocked,
                "{event:?} began an attempt of {name}"
            );
        }
        if is.state == JobState::Blocked && was.state != JobState::Blocked {
            let has_run = |earlier: &EarlierAttempt| {
                earlier.claimed_by.is_some() && !matches!(earlier.end, AttemptEnd::Released { .. })
            };
            let has_acted = was.claimed_by.is_some() || was.approval.is_some() || was.earlier.iter().any(has_run);
            assert!(!has_acted, "{event:?} takes back {name}, which is {was:?}");
        }
        if is.status() == JobStatus::Claimed && was.status() != JobStatus::Claimed {
            assert!(
                self.ever_claimed.insert(key(is.attempt)),
                "attempt {} of {name} was claimed twice",
                is.attempt
            );
        }
        if is.approval != was.approval {
            assert!(was.approval.is_none(), "the gate {name} was opened twice");
            self.seen.gates_opened += 1;
        }
        if let JobState::BackingOff { .. } = is.state
            && is.attempt != was.attempt
        {
            let retries = self.automatic_retries.entry(name.clone()).or_default();
            *retries += 1;
            assert!(*retries <= known.retries, "{name} was retried {retries} times");
        }
        if is.status() == JobStatus::Running {
            assert!(
                self.ever_claimed.contains(&key(is.attempt)),
                "{name} runs and nobody claimed it"
            );
        }
        if let Some(stop) = was.stop() {
            let goes_on = is.stop() == Some(stop) || is.is_over();
            assert!(
                goes_on && is.attempt == was.attempt,
                "{event:?} keeps {name} from stopping"
            );
        }
        match event {
            Event::JobReleased { job, .. } if job == name => {
                assert_eq!(
                    was.status(),
                    JobStatus::Claimed,
                    "{name} was released after it was started"
                );
            }
            Event::JobFinished { job, outcome, .. } if job == name && !is.is_over() => {
                assert_eq!(*outcome, Outcome::Errored, "{name} is tried again");
            }
            Event::Approved { job, .. } if job == name => {
                assert_eq!(
                    was.status(),
                    JobStatus::OnHold,
                    "the gate {name} was opened out of turn"
                );
            }
            _ => {}
        }
        let Some(outcome) = is.outcome().filter(|_| !was.is_over()) else {
            return;
        };
        let is_by_timer = matches!(event, Event::TimerFired { .. });
        match was.stop().map(|stop| &stop.reason) {
            Some(StopReason::TimeLimit(_)) => assert_eq!(outcome, Outcome::TimedOut, "{name}: {event:?}"),
            Some(StopReason::Canceled { .. }) if is_by_timer => assert_eq!(outcome, Outcome::Canceled),
            Some(StopReason::Canceled { .. }) => {}
            None => assert!(!is_by_timer || !was.is_under_way(), "{name} was ended by a timer"),
        }
        assert!(
            outcome != Outcome::Skipped || was.claimed_by.is_none(),
            "{name} ran and was skipped"
        );
        if let Event::JobFinished { job, .. } = event
            && job == name
            && outcome == Outcome::Errored
            && was.stop().is_none()
        {
            let retries = self.automatic_retries.get(name).copied().unwrap_or_default();
            assert_eq!(retries, known.retries, "{name} was not tried again");
        }
    }

    // What happens outside.

    fn carry_out(&mut self, effect: &Effect) {
        match effect {
            Effect::QueueJob { job, attempt } => {
                let at = self.now();
                let claim = Event::JobClaimed {
                    job: job.clone(),
                    attempt: *attempt,
                    by: "server-1".into(),
                    at,
                };
                if self.commit(claim).is_ok() {
                    self.claims.push((job.clone(), *attempt));
                }
            }
            Effect::StopJob { job, attempt } => {
                if let Some(environment) = self.environments.get_mut(&(job.clone(), *attempt)) {
                    environment.told_to_stop = true;
                }
            }
            Effect::HoldJob { .. } | Effect::SetTimer { .. } | Effect::CancelTimer { .. } | Effect::Finished { .. } => {
            }
        }
    }

    /// It reads the state once more, in order not to start what should stop; the state may be stale by then.
    fn start(&mut self, key: Key) {
        assert!(self.ever_started.insert(key.clone()), "{key:?} was started twice");
        // It reads the state once more, so as not to start what is to stop; the state may be old by then.
        let is_stubborn = self.random.one_in(3);
        let told_to_stop = self.workflow.job(&key.0).unwrap().stop().is_some();
        self.environments.insert(
            key.clone(),
            Environment {
                is_stubborn,
                told_to_stop,
                ended: None,
            },
        );
        let at = self.now();
        let (job, attempt) = key;
        self.messages.push(Event::JobStarted { job, attempt, at });
    }

    fn end(&mut self, key: &Key) {
        let outcome = self.random.pick(&ENDS);
        let Some(environment) = self.environments.get_mut(key) else {
            return;
        };
        let outcome = *environment.ended.get_or_insert(outcome);
        self.report_end(key, outcome);
    }

    fn report_end(&mut self, (job, attempt): &Key, outcome: Outcome) {
        let at = self.now();
        self.messages.push(Event::JobFinished {
            job: job.clone(),
            attempt: *attempt,
            outcome,
            message: None,
            at,
        });
    }

    /// The attempts that are claimed or running, as the state has them.
    fn under_way(&self) -> Vec<Key> {
        self.workflow
            .under_way()
            .map(|(known, job)| (known.name.clone(), job.attempt))
            .collect()
    }

    fn is_looked_after(&self, key: &Key) -> bool {
        self.claims.contains(key) || self.environments.contains_key(key)
    }

    /// Somebody finds an attempt without a supervisor; in chaos they may be wrong.
    fn look_after(&mut self, key: Key) {
        if self.is_fair && self.is_looked_after(&key) {
            return;
        }
        let at = self.now();
        let (job, attempt) = key;
        let was_started = self.workflow.job(&job).unwrap().has_started();
        let event = match self.random.below(3) {
            // In chaos, somebody believes that a server is dead although its job has long begun.
            _ if !was_started || (!self.is_fair && self.random.one_in(4)) => Event::JobReleased {
                job,
                attempt,
                reason: "server-1 is gone".into(),
                at,
            },
            0 if !self.is_fair => Event::RetryRequested {
                job,
                attempt,
                by: "towpath".into(),
                at,
            },
            _ => Event::JobFinished {
                job,
                attempt,
                outcome: Outcome::Errored,
                message: Some("its environment is gone".into()),
                at,
            },
        };
        let _ = self.commit(event);
    }

    /// Somebody presses a button, whether it makes sense or not.
    fn somebody(&mut self) {
        let at = self.now();
        let jobs = self.workflow.definition().jobs().len();
        let job = format!("j{}", self.random.below(jobs + 1));
        let event = match self.random.below(11) {
            10 => {
                // An unjustified report.
                let attempt = self.workflow.job(&job).map_or(1, |job| job.attempt);
                Event::JobStarted { job, attempt, at }
            }
            0 => Event::CancelRequested { by: "ada".into(), at },
            1..5 => {
                let current = self.workflow.job(&job).map_or(1, |job| job.attempt);
                let attempt = if self.random.one_in(5) {
                    current.saturating_sub(1)
                } else {
                    current
                };
                let by = "ada".into();
                Event::RetryRequested { job, attempt, by, at }
            }
            _ => Event::Approved {
                job,
                by: "bob".into(),
                plan: None,
                at,
            },
        };
        let expected = match &event {
            Event::CancelRequested { .. } => self.workflow.ended_at().is_none() && !self.canceled,
            Event::Approved { job, .. } => {
                matches!(
                    self.workflow.job(job).map(|job| &job.state),
                    Some(JobState::OnHold { .. })
                )
            }
            _ => {
                let _ = self.commit(event);
                return;
            }
        };
        match self.commit(event) {
            Ok(()) => assert!(expected),
            Err(NotCommitted::Illegal(illegal)) => assert!(!expected, "{illegal}"),
            Err(NotCommitted::Unknown) => {}
        }
    }

    fn deliver(&mut self, at: usize) {
        let event = self.messages[at].clone();
        let ended = match &event {
            Event::JobFinished { job, attempt, .. } => Some((job.clone(), *attempt)),
            _ => None,
        };
        let is_known = self
            .commit(event)
            .map_or_else(|error| matches!(error, NotCommitted::Illegal(_)), |()| true);
        if let Some(key) = ended.filter(|_| is_known) {
            self.environments.remove(&key);
        }
        // A power cut may have lost it. In chaos it may arrive twice.
        if at < self.messages.len() && (self.is_fair || (is_known && !self.random.one_in(4))) {
            self.messages.swap_remove(at);
        }
    }

    fn fire(&mut self, timer: Timer) {
        let at = self.now();
        let fired = self.commit(Event::TimerFired { timer, at });
        assert!(
            !matches!(fired, Err(NotCommitted::Illegal(_))),
            "a timer was refused: {fired:?}"
        );
    }

    fn step(&mut self) {
        match self.random.below(16) {
            0..3 if !self.wishes.is_empty() => {
                let at = self.random.below(self.wishes.len());
                let effect = self.wishes.swap_remove(at);
                self.carry_out(&effect);
            }
            3..5 if !self.claims.is_empty() => {
                let at = self.random.below(self.claims.len());
                let key = self.claims.swap_remove(at);
                self.start(key);
            }
            5..8 if !self.messages.is_empty() => {
                let at = self.random.below(self.messages.len());
                if self.random.one_in(8) {
                    self.messages.swap_remove(at);
                } else {
                    self.deliver(at);
                }
            }
            8 | 9 if !self.environments.is_empty() => {
                let at = self.random.below(self.environments.len());
                let key = self.environments.keys().nth(at).unwrap().clone();
                if self.random.one_in(6) {
                    // Its machine disappears silently.
                    self.environments.remove(&key);
                } else if self.random.one_in(16) {
                    // A buggy agent.
                    self.report_end(&key, Outcome::Skipped);
                } else {
                    self.end(&key);
                }
            }
            10 => {
                let under_way = self.under_way();
                if !under_way.is_empty() {
                    let key = under_way[self.random.below(under_way.len())].clone();
                    if !self.is_looked_after(&key) || self.random.one_in(8) {
                        self.look_after(key);
                    }
                }
            }
            11 => self.somebody(),
            12 if !self.timers.is_empty() => {
                let at = self.random.below(self.timers.len());
                let (timer, due) = self
                    .timers
                    .iter()
                    .nth(at)
                    .map(|(timer, due)| (timer.clone(), *due))
                    .unwrap();
                // Some clocks run fast.
                if self.random.one_in(2) {
                    self.clock = self.clock.max(due.as_second());
                }
                self.fire(timer);
            }
            13 if !self.old_timers.is_empty() => {
                let at = self.random.below(self.old_timers.len());
                self.fire(self.old_timers[at].clone());
            }
            14 => match self.random.below(4) {
                0 => self.clock += 100_000,
                1 => self.clock -= 50_000,
                _ => self.clock += 20,
            },
            15 if self.random.one_in(3) => self.cut_the_power(),
            _ => {}
        }
    }

    /// One round without faults.
    fn fair_round(&mut self) {
        let events = self.stored.len();
        while !self.messages.is_empty() {
            self.deliver(0);
        }
        for effect in std::mem::take(&mut self.wishes) {
            self.carry_out(&effect);
        }
        for key in std::mem::take(&mut self.claims) {
            self.start(key);
        }
        for key in self.environments.keys().cloned().collect::<Vec<_>>() {
            let environment = &self.environments[&key];
            if !environment.told_to_stop || !environment.is_stubborn {
                self.end(&key);
            }
        }
        for key in self.under_way() {
            self.look_after(key);
        }
        let names: Vec<String> = self
            .workflow
            .definition()
            .jobs()
            .iter()
            .map(|job| job.name.clone())
            .collect();
        for name in names {
            if let JobState::OnHold { .. } = self.workflow.job(&name).unwrap().state {
                let at = self.now();
                let approved = self.commit(Event::Approved {
                    job: name,
                    by: "bob".into(),
                    plan: None,
                    at,
                });
                assert!(approved.is_ok(), "{approved:?}");
            }
        }
        // Time passes when nothing else happens.
        if self.stored.len() == events
            && self.messages.is_empty()
            && let Some((timer, due)) = self.timers.iter().min_by_key(|(_, due)| **due)
        {
            let timer = timer.clone();
            self.clock = self.clock.max(due.as_second());
            self.fire(timer);
        }
    }
}

fn history(seed: u64) -> Seen {
    let mut world = World::new(seed);
    for _ in 0..world.random.below(70) {
        world.step();
    }
    world.is_fair = true;
    // As after every start, everything outstanding is requested again.
    world.cut_the_power();
    let mut rounds = 0;
    while world.workflow.ended_at().is_none() {
        rounds += 1;
        assert!(rounds < 200, "it does not end: {:?}", world.workflow);
        world.fair_round();
    }
    assert!(world.ends <= 1);
    let ended = world.workflow.clone();
    for timer in world.timers.keys().cloned().collect::<Vec<_>>() {
        world.fire(timer);
    }
    assert!(world.timers.is_empty(), "timers are left: {:?}", world.timers);
    for event in std::mem::take(&mut world.messages) {
        let late = world.commit(event);
        assert!(
            matches!(late, Err(NotCommitted::Illegal(_))),
            "an event was taken after the end"
        );
    }
    for _ in 0..3 {
        world.somebody();
    }
    assert_eq!(world.workflow, ended);
    for (known, job) in ended.jobs() {
        for attempt in 1..=job.attempt {
            assert!(
                world.ever_ended.contains(&(known.name.clone(), attempt)),
                "attempt {attempt} of {} has no end",
                known.name
            );
        }
    }
    world.cut_the_power();
    world.seen
}

#[test]
fn every_workflow_ends_once() {
    simulate("workflows", history);
}
