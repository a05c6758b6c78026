//! Histories of releases.
//!
//! Several servers carry out one release: each believes that it has the lease until it learns otherwise. The store
//! accepts a commit only against the state that the server folded and with the fence of the newest lease; the
//! environment accepts a write only from its newest lock holder. That is the contract of the release module, and it
//! implies the rules below.

use crate::{random::Random, simulate};
use jiff::Timestamp;
use std::ops::AddAssign;
use towpath_types::{Digest, Outcome, ReleaseId, ReleaseStatus};
use towpath_workflow::{
    release::{Effect, Environment, Event, Illegal, OnFailure, Release, State, Why},
    wire,
};

const OBJECTS: usize = 3;
const PARENT: ReleaseId = ReleaseId::from_u128(7);

/// What happened in histories.
#[derive(Default, Debug)]
struct Seen {
    events: u64,
    power_cuts: u64,
    cuts_while_going_back: u64,
    failed_commits: u64,
    lost_acknowledgements: u64,
    conflicts: u64,
    fenced_writes: u64,
    deployments_by_others: u64,
    succeeded: u64,
    failed: u64,
    rolled_back: u64,
    abandoned: u64,
}

impl AddAssign for Seen {
    fn add_assign(&mut self, other: Self) {
        self.events += other.events;
        self.power_cuts += other.power_cuts;
        self.cuts_while_going_back += other.cuts_while_going_back;
        self.failed_commits += other.failed_commits;
        self.lost_acknowledgements += other.lost_acknowledgements;
        self.conflicts += other.conflicts;
        self.fenced_writes += other.fenced_writes;
        self.deployments_by_others += other.deployments_by_others;
        self.succeeded += other.succeeded;
        self.failed += other.failed;
        self.rolled_back += other.rolled_back;
        self.abandoned += other.abandoned;
    }
}

/// The writer of the object's version in the environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    Before,
    Ours,
    Others,
}

/// The environment, as all servers see it.
struct Cluster {
    objects: [Version; OBJECTS],
    /// The release that began last, recorded before the first object is written.
    attempted: Version,
    /// Whether an object of ours was ever written.
    was_changed: bool,
    /// The lock's newest holder.
    lock: u64,
    record: Option<ReleaseStatus>,
}

/// One server that carries the release out.
struct Server {
    release: Release,
    /// How many events it has folded.
    version: usize,
    /// Its lease's fence.
    fence: u64,
    /// Its lock of the environment.
    lock: u64,
    /// The next object to write.
    next: usize,
    /// The effect in progress; `None` when it looks at its state next.
    effect: Option<Effect>,
}

struct World {
    random: Random,
    seen: Seen,
    is_fair: bool,
    in_json: bool,
    stored: Vec<Event>,
    /// The fold of the stored events: the truth that servers may lag behind.
    release: Release,
    /// The newest lease's fence.
    fence: u64,
    servers: Vec<Server>,
    cluster: Cluster,
    /// Whether somebody else's deployment is still to come.
    others: bool,
    clock: i64,
    ends: u32,
}

enum NotCommitted {
    /// Another server committed first, or has the lease.
    Refused,
    Unknown,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let event = Event::Planned {
            plan: Digest::of(b"plan"),
            parent: (!random.one_in(4)).then_some(PARENT),
            on_failure: if random.one_in(4) {
                OnFailure::Stop
            } else {
                OnFailure::Rollback
            },
            at: Timestamp::UNIX_EPOCH,
        };
        let (release, effect) = Release::create(event.clone()).unwrap();
        assert_eq!(effect, None);
        Self {
            others: random.one_in(3),
            in_json: seed.is_multiple_of(64),
            random,
            seen: Seen::default(),
            is_fair: false,
            stored: vec![event],
            release,
            fence: 0,
            servers: Vec::new(),
            cluster: Cluster {
                objects: [Version::Before; OBJECTS],
                attempted: Version::Before,
                was_changed: false,
                lock: 0,
                record: None,
            },
            clock: 1_000_000,
            ends: 0,
        }
    }

    fn now(&mut self) -> Timestamp {
        if !self.is_fair && self.random.one_in(8) {
            self.clock += [100_000, -50_000][self.random.below(2)];
        }
        self.clock += 1;
        Timestamp::from_second(self.clock).unwrap()
    }

    fn fold(&self) -> Release {
        let events = if self.in_json {
            let json = |event: &Event| {
                let text = serde_json::to_string(&wire::write_release_event(event)).unwrap();
                wire::read_release_event(serde_json::from_str(&text).unwrap()).unwrap()
            };
            self.stored.iter().map(json).collect()
        } else {
            self.stored.clone()
        };
        let folded = Release::fold(events).unwrap();
        assert_eq!(folded, self.release, "the same events gave another state");
        folded
    }

    /// A server takes the lease; the previous holder may not know yet.
    fn take_lease(&mut self) {
        self.fence += 1;
        let server = Server {
            release: self.fold(),
            version: self.stored.len(),
            fence: self.fence,
            lock: 0,
            next: 0,
            effect: None,
        };
        self.servers.push(server);
    }

    fn cut_the_power(&mut self) {
        self.seen.power_cuts += 1;
        if let State::Failing { .. } | State::RollingBack { .. } = self.release.state() {
            self.seen.cuts_while_going_back += 1;
        }
        self.servers.clear();
    }

    /// Stores an event that was decided against the state after `version` events.
    fn commit(&mut self, event: Event, version: usize, fence: Option<u64>) -> Result<(), NotCommitted> {
        if version != self.stored.len() || fence.is_some_and(|fence| fence != self.fence) {
            self.seen.conflicts += 1;
            return Err(NotCommitted::Refused);
        }
        let mut next = self.release.clone();
        let effect = match next.apply(event.clone()) {
            Ok(effect) => effect,
            Err(illegal) => panic!("{event:?} of {:?}: {illegal}", self.release),
        };
        assert_eq!(effect, next.outstanding());
        let fate = if self.is_fair { 9 } else { self.random.below(16) };
        if fate == 0 {
            self.seen.failed_commits += 1;
            return Err(NotCommitted::Unknown);
        }
        let before = std::mem::replace(&mut self.release, next);
        self.stored.push(event.clone());
        self.observe(&before, &event);
        match fate {
            1 => {
                self.seen.lost_acknowledgements += 1;
                Err(NotCommitted::Unknown)
            }
            2 => {
                self.cut_the_power();
                Err(NotCommitted::Unknown)
            }
            _ => Ok(()),
        }
    }

    /// Checks the rules for a transition.
    fn observe(&mut self, before: &Release, event: &Event) {
        self.seen.events += 1;
        let after = &self.release;
        assert_eq!(after.is_over(), after.status().is_over());
        assert_eq!(after.is_over(), after.outcome().is_some());
        if before.is_over() {
            assert_eq!(before.state(), after.state(), "{event:?} changed an ended release");
            return;
        }
        if let Event::Failed { .. } = event {
            let goes_back = after.on_failure() == OnFailure::Rollback && after.parent().is_some();
            assert_eq!(goes_back, !after.is_over(), "{event:?} of {before:?}");
        }
        let Some(environment) = after.environment() else {
            assert!(after.outstanding().is_some() || after.state() == State::Planned);
            return;
        };
        self.ends += 1;
        let all = |version| self.cluster.objects.iter().all(|object| *object == version);
        let is_others = self.cluster.attempted == Version::Others;
        match environment {
            Environment::AsBefore => {
                assert!(
                    is_others || all(Version::Before),
                    "{event:?}: {:?}",
                    self.cluster.objects
                );
            }
            Environment::AsRelease => assert!(is_others || all(Version::Ours), "{event:?}: {:?}", self.cluster.objects),
            Environment::Between => assert!(before.began_at().is_some()),
        }
        match after.status() {
            ReleaseStatus::Succeeded => {
                self.seen.succeeded += 1;
                assert!(
                    matches!(event, Event::Succeeded { .. }),
                    "{event:?} ended it, and nobody watched"
                );
            }
            ReleaseStatus::Failed => self.seen.failed += 1,
            ReleaseStatus::RolledBack => self.seen.rolled_back += 1,
            _ => {
                self.seen.abandoned += 1;
                assert!(!self.cluster.was_changed, "it was abandoned and has changed something");
            }
        }
    }

    fn take_lock(&mut self, server: &mut Server) {
        self.cluster.lock += 1;
        server.lock = self.cluster.lock;
        server.next = 0;
    }

    /// Writes an object, if the server still has the lock.
    fn write(&mut self, server: &Server, version: Version) -> bool {
        if server.lock != self.cluster.lock {
            self.seen.fenced_writes += 1;
            return false;
        }
        if version == Version::Ours {
            let began = |event: &Event| matches!(event, Event::ApplyBegan { .. });
            let went_back = |event: &Event| matches!(event, Event::Failed { .. } | Event::RollbackBegan { .. });
            assert!(self.stored.iter().any(began), "it applies before that was committed");
            assert!(!self.stored.iter().any(went_back), "it applies a release that failed");
            assert!(!self.release.is_over(), "it applies a release that has ended");
            self.cluster.attempted = Version::Ours;
            self.cluster.was_changed = true;
        } else {
            let began = |event: &Event| matches!(event, Event::RollbackBegan { .. });
            assert!(self.stored.iter().any(began), "it goes back before that was committed");
        }
        self.cluster.objects[server.next] = version;
        true
    }

    /// The event for a release that another deployment overtook or preceded.
    fn yield_to_others(&mut self) -> Event {
        let at = self.now();
        if self.cluster.was_changed {
            Event::Overtaken { by: "eve".into(), at }
        } else {
            let why = Why::NewerDecision;
            let message = "eve deployed".into();
            Event::Abandoned { why, message, at }
        }
    }

    /// One step of one server. `None` if it dies or starts again.
    fn work(&mut self, mut server: Server) -> Option<Server> {
        let Some(effect) = server.effect.clone() else {
            let effect = server.release.outstanding()?;
            if effect != Effect::Record {
                self.take_lock(&mut server);
                // Loaded again under the lock: another server may have continued meanwhile.
                if server.version != self.stored.len() || server.fence != self.fence {
                    return None;
                }
            }
            server.effect = Some(effect);
            return Some(server);
        };
        let at = self.now();
        let is_others = self.cluster.attempted == Version::Others;
        let goes_wrong = !self.is_fair && self.random.one_in(8);
        let event = match effect {
            Effect::Record => {
                assert!(server.release.is_over());
                self.cluster.record = Some(server.release.status());
                Event::Recorded { at }
            }
            Effect::BeginApply if is_others => Event::Abandoned {
                why: Why::StalePlan,
                message: "the environment changed".into(),
                at,
            },
            _ if is_others => self.yield_to_others(),
            Effect::BeginApply if goes_wrong => Event::Abandoned {
                why: self.random.pick(&[Why::Refused, Why::Unable]),
                message: "refused".into(),
                at,
            },
            Effect::BeginApply => Event::ApplyBegan { at },
            Effect::Apply if goes_wrong => self.failed(at),
            Effect::Apply if server.next < OBJECTS => {
                let is_written = self.write(&server, Version::Ours);
                server.next += 1;
                return is_written.then_some(server);
            }
            Effect::Apply => Event::Applied { at },
            Effect::Watch if goes_wrong || self.random.one_in(3) => self.failed(at),
            Effect::Watch => Event::Succeeded { at },
            Effect::BeginRollback { to } => {
                assert_eq!(to, PARENT);
                Event::RollbackBegan { at }
            }
            Effect::RollBack { .. } if goes_wrong => Event::RollbackFailed {
                message: "no".into(),
                at,
            },
            Effect::RollBack { .. } if server.next < OBJECTS => {
                let is_written = self.write(&server, Version::Before);
                server.next += 1;
                return is_written.then_some(server);
            }
            Effect::RollBack { .. } => Event::RolledBack { at },
        };
        self.decide(server, event)
    }

    /// Reports a failure from the actual state of the environment, not from what this server did.
    fn failed(&mut self, at: Timestamp) -> Event {
        if !self.cluster.was_changed {
            let message = "refused".into();
            return Event::Abandoned {
                why: Why::Refused,
                message,
                at,
            };
        }
        Event::Failed {
            outcome: self
                .random
                .pick(&[Outcome::Failed, Outcome::TimedOut, Outcome::Errored, Outcome::Rejected]),
            message: "it does not start".into(),
            at,
        }
    }

    /// Commits what a server decided.
    fn decide(&mut self, mut server: Server, event: Event) -> Option<Server> {
        match self.commit(event.clone(), server.version, Some(server.fence)) {
            Ok(()) => {
                server.release.apply(event).unwrap();
                server.version += 1;
                server.effect = None;
                Some(server)
            }
            // It loads again if it still has the lease.
            Err(NotCommitted::Unknown) if server.fence == self.fence && !self.random.one_in(3) => {
                server.release = self.fold();
                server.version = self.stored.len();
                server.effect = None;
                Some(server)
            }
            Err(NotCommitted::Unknown | NotCommitted::Refused) => None,
        }
    }

    fn others_deploy(&mut self) {
        self.seen.deployments_by_others += 1;
        self.others = false;
        self.cluster.lock += 1;
        self.cluster.attempted = Version::Others;
        self.cluster.objects = [Version::Others; OBJECTS];
    }

    /// Somebody presses a button, whether it makes sense or not.
    fn somebody(&mut self) {
        let at = self.now();
        let plan = Digest::of(if self.random.one_in(4) {
            b"plan of yesterday"
        } else {
            b"plan"
        });
        let event = match self.random.below(8) {
            0 => Event::Abandoned {
                why: Why::Withdrawn,
                message: "ada took it back".into(),
                at,
            },
            _ => Event::Approved {
                plan,
                by: "bob".into(),
                at,
            },
        };
        let is_planned = self.release.state() == State::Planned;
        let expected = match &event {
            Event::Approved { plan, .. } => is_planned && plan == self.release.plan(),
            _ => is_planned || self.release.state() == State::Approved,
        };
        let mut next = self.release.clone();
        match next.apply(event.clone()) {
            Ok(_) => {
                assert!(expected, "{event:?} was taken from {:?}", self.release);
                let version = self.stored.len();
                let _ = self.commit(event, version, None);
            }
            Err(illegal) => {
                assert!(!expected, "{illegal}");
                assert_eq!(next, self.release, "{event:?} was refused and changed the state");
            }
        }
    }

    /// An old report arrives again, for the state that it was made for. The store's comparison rejects it, and an event
    /// that the machine refuses leaves the state unchanged.
    fn doubled_message(&mut self) {
        let at = self.random.below(self.stored.len());
        let event = self.stored[at].clone();
        let refused = self.commit(event.clone(), at, None);
        assert!(matches!(refused, Err(NotCommitted::Refused)));
        let mut next = self.release.clone();
        if let Err(illegal) = next.apply(event) {
            assert_eq!(next, self.release, "what was refused ({illegal}) changed the state");
            let is_over = matches!(illegal, Illegal::Over(_));
            assert_eq!(is_over, self.release.is_over());
        }
    }

    fn step(&mut self) {
        match self.random.below(16) {
            0..9 if !self.servers.is_empty() => {
                let at = self.random.below(self.servers.len());
                let server = self.servers.swap_remove(at);
                if let Some(server) = self.work(server) {
                    self.servers.push(server);
                }
            }
            9 if self.random.one_in(3) || self.servers.is_empty() => self.take_lease(),
            10 => self.cut_the_power(),
            11 | 12 => self.somebody(),
            13 => self.doubled_message(),
            14 if self.others && self.random.one_in(3) => self.others_deploy(),
            _ if self.servers.is_empty() => self.take_lease(),
            _ => {}
        }
    }
}

fn history(seed: u64) -> Seen {
    let mut world = World::new(seed);
    for _ in 0..world.random.below(60) {
        world.step();
    }
    world.is_fair = true;
    world.cut_the_power();
    let mut rounds = 0;
    while !world.release.is_over() || world.release.outstanding().is_some() {
        rounds += 1;
        assert!(rounds < 200, "it does not end: {:?}", world.release);
        if world.release.state() == State::Planned {
            let at = world.now();
            let version = world.stored.len();
            let plan = Digest::of(b"plan");
            let by = "bob".into();
            assert!(world.commit(Event::Approved { plan, by, at }, version, None).is_ok());
        }
        match world.servers.pop() {
            Some(server) => {
                let server = world.work(server);
                world.servers.extend(server);
            }
            None => world.take_lease(),
        }
    }
    assert_eq!(world.ends, 1, "it ended {} times", world.ends);
    let began = world.release.began_at().is_some();
    assert_eq!(world.cluster.record, began.then_some(world.release.status()));
    assert_eq!(world.fold().outstanding(), None);
    for _ in 0..3 {
        world.somebody();
        world.doubled_message();
    }
    world.seen
}

#[test]
fn every_release_ends_once() {
    simulate("releases", history);
}
