//! Random workflows in a random world, with the power cut after any effect of any of them.
//!
//! The world carries effects out and reports events; at each of its steps the state may be lost and folded again from
//! what was stored, and the outstanding effects reissued. Whatever the order, every history ends in one terminal state,
//! and nothing runs that should not.

#![allow(clippy::unwrap_used)]

use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use towpath_types::Outcome;
use towpath_workflow::{
    Definition, Effect, Event, Illegal, JobDefinition, JobKind, JobState, RequiredStatus, Requirement, Status, Workflow,
};

/// SplitMix64: small, seeded, the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap()
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

const ENDS: [Outcome; 5] = [
    Outcome::Succeeded,
    Outcome::Failed,
    Outcome::Errored,
    Outcome::TimedOut,
    Outcome::Canceled,
];

fn definition(random: &mut Random) -> Definition {
    let count = 1 + random.below(7);
    let jobs = (0..count)
        .map(|at| {
            let kind = match random.below(6) {
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
                    2 => vec![RequiredStatus::Success, RequiredStatus::Canceled],
                    _ => vec![RequiredStatus::Success],
                };
                requires.push(Requirement {
                    job: format!("j{earlier}"),
                    statuses,
                });
            }
            JobDefinition {
                name: format!("j{at}"),
                kind,
                requires,
            }
        })
        .collect();
    Definition::new(jobs).unwrap()
}

/// The world outside: what was stored, and what runs.
struct World {
    stored: Vec<Event>,
    workflow: Workflow,
    /// Effects that were answered and not yet carried out.
    wishes: Vec<Effect>,
    /// Jobs whose environment is there.
    running: BTreeSet<String>,
    /// How often each job was handed to its engine anew.
    starts: BTreeMap<String, u32>,
    cancel_ordered: BTreeSet<String>,
    canceled: bool,
    finished: u32,
    clock: i64,
}

impl World {
    fn new(definition: Definition) -> Self {
        let event = Event::Created {
            definition,
            succeeded: Vec::new(),
            at: Timestamp::UNIX_EPOCH,
        };
        let (workflow, wishes) = Workflow::create(event.clone()).unwrap();
        let mut world = Self {
            stored: vec![event],
            workflow,
            wishes: Vec::new(),
            running: BTreeSet::new(),
            starts: BTreeMap::new(),
            cancel_ordered: BTreeSet::new(),
            canceled: false,
            finished: 0,
            clock: 0,
        };
        world.wish(wishes);
        world
    }

    fn now(&mut self) -> Timestamp {
        self.clock += 1;
        Timestamp::from_second(self.clock).unwrap()
    }

    fn wish(&mut self, effects: Vec<Effect>) {
        let ends = effects
            .iter()
            .filter(|effect| matches!(effect, Effect::Finished { .. }))
            .count();
        self.finished += u32::try_from(ends).unwrap();
        self.wishes.extend(effects);
    }

    fn apply(&mut self, event: Event) -> Result<(), Illegal> {
        let before = self.workflow.clone();
        match self.workflow.apply(event.clone()) {
            Ok(effects) => {
                self.stored.push(event);
                self.wish(effects);
                Ok(())
            }
            Err(illegal) => {
                assert_eq!(self.workflow, before, "a refused event changed the state");
                Err(illegal)
            }
        }
    }

    fn cut_the_power(&mut self) {
        let folded = Workflow::fold(self.stored.clone()).unwrap();
        assert_eq!(folded, self.workflow, "the same events gave another state");
        let text = serde_json::to_string(&self.stored).unwrap();
        assert_eq!(serde_json::from_str::<Vec<Event>>(&text).unwrap(), self.stored);
        self.workflow = folded;
        self.wishes = self.workflow.outstanding();
    }

    fn carry_out(&mut self, effect: &Effect) {
        match effect {
            Effect::StartJob { job } => {
                // A state that moved on since the wish: looked at, and left alone, as the conductor does.
                if matches!(self.workflow.job(job).unwrap().state, JobState::Queued) {
                    self.assert_may_start(job);
                    let at = self.now();
                    self.apply(Event::JobStarted { job: job.clone(), at }).unwrap();
                }
                if matches!(self.workflow.job(job).unwrap().state, JobState::Running { .. })
                    && self.running.insert(job.clone())
                {
                    *self.starts.entry(job.clone()).or_default() += 1;
                }
            }
            Effect::CancelJob { job } => {
                self.cancel_ordered.insert(job.clone());
            }
            Effect::HoldJob { .. } | Effect::Finished { .. } => {}
        }
    }

    fn assert_may_start(&self, name: &str) {
        assert!(!self.canceled, "{name} starts after the cancellation");
        for requirement in &self.workflow.definition().job(name).unwrap().requires {
            let outcome = self.workflow.job(&requirement.job).unwrap().outcome();
            let met = outcome.is_some_and(|outcome| requirement.statuses.contains(&RequiredStatus::of(outcome)));
            assert!(met, "{name} starts although {} is {outcome:?}", requirement.job);
        }
    }

    fn end_a_job(&mut self, random: &mut Random) {
        let started: Vec<String> = self.running.iter().cloned().collect();
        let Some(job) = started.get(random.below(started.len())) else {
            return;
        };
        let outcome = if self.cancel_ordered.contains(job) {
            Outcome::Canceled
        } else {
            ENDS[random.below(ENDS.len())]
        };
        let at = self.now();
        self.apply(Event::JobFinished {
            job: job.clone(),
            outcome,
            message: None,
            at,
        })
        .unwrap();
        self.running.remove(job);
    }

    /// Somebody presses a button, whether it makes sense or not.
    fn somebody(&mut self, random: &mut Random) {
        let at = self.now();
        if random.one_in(12) {
            let ended = self.workflow.ended_at().is_some();
            let result = self.apply(Event::CancelRequested { by: "ada".into(), at });
            assert_eq!(result.is_ok(), !ended && !self.canceled, "{result:?}");
            self.canceled |= result.is_ok();
            return;
        }
        let names: Vec<String> = self
            .workflow
            .definition()
            .jobs()
            .iter()
            .map(|job| job.name.clone())
            .collect();
        let job = names[random.below(names.len())].clone();
        let held = self.workflow.job(&job).unwrap().state == JobState::OnHold;
        let result = self.apply(Event::Approved {
            job,
            by: "bob".into(),
            plan: None,
            at,
        });
        assert_eq!(result.is_ok(), held, "{result:?}");
    }
}

fn history(seed: u64) {
    let mut random = Random(seed);
    let mut world = World::new(definition(&mut random));
    let jobs = world.workflow.definition().jobs().len();
    let mut quiet = 0;
    while world.workflow.ended_at().is_none() {
        quiet += 1;
        assert!(quiet < 4_000, "it does not end: {:?}", world.workflow);
        match random.below(4) {
            0 if !world.wishes.is_empty() => {
                let at = random.below(world.wishes.len());
                let effect = world.wishes.swap_remove(at);
                world.carry_out(&effect);
                if random.one_in(4) {
                    world.cut_the_power();
                }
            }
            1 => world.end_a_job(&mut random),
            2 => world.somebody(&mut random),
            // Without this a lost wish is never asked for again: what every start does.
            _ if random.one_in(3) => world.cut_the_power(),
            _ => {}
        }
    }
    world.cut_the_power();
    assert!(
        world.wishes.is_empty(),
        "something is outstanding at the end: {:?}",
        world.wishes
    );
    assert_eq!(world.finished, 1, "it ended {} times", world.finished);
    assert!(matches!(world.workflow.status(), Status::Ended(_)));
    assert!(world.running.is_empty(), "something still runs: {:?}", world.running);
    assert!(
        world.starts.values().all(|times| *times == 1),
        "started twice: {:?}",
        world.starts
    );
    let at = world.now();
    for job in 0..jobs {
        let late = Event::JobFinished {
            job: format!("j{job}"),
            outcome: Outcome::Succeeded,
            message: None,
            at,
        };
        assert!(world.apply(late).is_err(), "an event was taken after the end");
    }
}

#[test]
fn every_history_ends_once() {
    let default = if cfg!(debug_assertions) { 40_000 } else { 1_000_000 };
    let count: u64 = std::env::var("TOWPATH_HISTORIES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default);
    for seed in 0..count {
        if let Err(panic) = std::panic::catch_unwind(|| history(seed)) {
            eprintln!("history with seed {seed} of {count}");
            std::panic::resume_unwind(panic);
        }
    }
    println!("{count} histories");
}
