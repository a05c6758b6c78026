//! A fake engine in memory, for tests of code that uses an engine. The test scripts its answers.

use crate::engine::{Capacity, Engine, EngineError, EnvironmentRequest, EnvironmentState, ServiceLog};
use futures::{FutureExt, future::BoxFuture};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;
use towpath_types::{EngineName, NodeId};

/// The result of a `start` that would make an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scripted {
    /// The agent runs until the test ends it.
    Runs,
    /// The agent has already ended at the first look.
    Exits {
        #[allow(missing_docs)]
        code: Option<i64>,
        #[allow(missing_docs)]
        detail: String,
    },
    /// `start` succeeds, but the environment is already gone at the first look.
    Vanishes,
    /// `start` fails with a retryable error, and makes nothing.
    Fails(String),
    /// `start` fails with a permanent error, and makes nothing.
    Refuses(String),
    /// `start` fails with a retryable error, and leaves a half-made environment: `Absent`, but with something to stop.
    FailsHalfway(String),
}

/// How often each method was called.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Calls {
    pub start: usize,
    pub state: usize,
    pub stop: usize,
    pub list: usize,
    pub service_logs: usize,
}

/// An engine whose environments are entries in a map. It keeps the contract of [`Engine`]: the same suite runs on it and on the
/// real engines.
///
/// Clones share their state, so a test keeps one and passes another to the code under test. To simulate a restart of the
/// server, the test passes a clone to the new server, which finds what the old one left.
#[derive(Debug, Clone)]
pub struct ScriptedEngine {
    name: EngineName,
    capacity: Capacity,
    script: Arc<Mutex<Script>>,
    /// Counts changes, for tasks that wait for one.
    changes: watch::Sender<u64>,
    /// Starts wait while this is `true`.
    held: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Script {
    /// `None` for a half-made environment.
    environments: BTreeMap<NodeId, Option<EnvironmentState>>,
    services: BTreeMap<NodeId, Vec<ServiceLog>>,
    of_anyone: VecDeque<Scripted>,
    of_node: BTreeMap<NodeId, VecDeque<Scripted>>,
    outage: Option<String>,
    calls: Calls,
    started: Vec<EnvironmentRequest>,
    stopped: Vec<NodeId>,
}

impl Default for ScriptedEngine {
    fn default() -> Self {
        Self::new()
    }
}

impl ScriptedEngine {
    /// An engine without environments, called `scripted:test/1`, with 16 processors and 64 GiB.
    #[must_use]
    pub fn new() -> Self {
        Self {
            name: EngineName::new("scripted", "test", "1"),
            capacity: Capacity {
                cpu_millis: 16_000,
                memory_bytes: 64 << 30,
            },
            script: Arc::default(),
            changes: watch::Sender::new(0),
            held: watch::Sender::new(false),
        }
    }

    #[allow(missing_docs)]
    #[must_use]
    pub fn with_name(mut self, name: EngineName) -> Self {
        self.name = name;
        self
    }

    #[allow(missing_docs)]
    #[must_use]
    pub fn with_capacity(mut self, capacity: Capacity) -> Self {
        self.capacity = capacity;
        self
    }

    // What the test scripts.

    /// Scripts the next `start` of `id` that would make an environment. Further calls script the starts after it. Takes
    /// precedence over [`Self::next`].
    pub fn next_of(&self, id: NodeId, what: Scripted) {
        self.change(|script| script.of_node.entry(id).or_default().push_back(what));
    }

    /// Scripts the next `start` that would make an environment, whatever its id. Further calls script the starts after it.
    pub fn next(&self, what: Scripted) {
        self.change(|script| script.of_anyone.push_back(what));
    }

    /// Makes the next `count` starts fail with a retryable error.
    pub fn fail_starts(&self, count: usize, message: &str) {
        for _ in 0..count {
            self.next(Scripted::Fails(message.to_string()));
        }
    }

    /// Makes every call fail from now on, as if the engine's daemon were down. `None` ends the outage. Environments keep
    /// running.
    pub fn set_outage(&self, message: Option<&str>) {
        self.change(|script| script.outage = message.map(str::to_string));
    }

    /// Makes starts wait before they make anything, as if an image took long to pull, until a call with `false`.
    pub fn hold_starts(&self, hold: bool) {
        self.held.send_replace(hold);
    }

    // What happens without a call of the engine.

    /// Ends the agent of a running environment. Does nothing if it is not running.
    pub fn exit(&self, id: &NodeId, code: Option<i64>, detail: &str) {
        self.change(|script| {
            if let Some(Some(state @ EnvironmentState::Running)) = script.environments.get_mut(id) {
                *state = EnvironmentState::Exited {
                    code,
                    detail: detail.to_string(),
                };
            }
        });
    }

    /// Makes an environment disappear.
    pub fn vanish(&self, id: &NodeId) {
        self.change(|script| script.environments.remove(id));
    }

    /// Adds a running environment that no `start` made: an orphan of an earlier server.
    pub fn add_orphan(&self, id: NodeId) {
        self.change(|script| script.environments.insert(id, Some(EnvironmentState::Running)));
    }

    /// Sets the output of an environment's services.
    pub fn set_service_logs(&self, id: NodeId, logs: Vec<ServiceLog>) {
        self.change(|script| script.services.insert(id, logs));
    }

    // What happened.

    /// Every request that made an environment, in order. Leaves out repeated starts.
    #[must_use]
    pub fn started(&self) -> Vec<EnvironmentRequest> {
        self.script().started.clone()
    }

    /// Every environment that a `stop` ended, in order.
    #[must_use]
    pub fn stopped(&self) -> Vec<NodeId> {
        self.script().stopped.clone()
    }

    /// The environments that are running.
    #[must_use]
    pub fn running(&self) -> Vec<NodeId> {
        let script = self.script();
        let running = script.environments.iter();
        let running = running.filter(|(_, state)| **state == Some(EnvironmentState::Running));
        running.map(|(id, _)| *id).collect()
    }

    #[allow(missing_docs)]
    #[must_use]
    pub fn calls(&self) -> Calls {
        self.script().calls
    }

    /// Waits until `done` holds for this engine. It checks after each call and each change, without polling. It waits for ever,
    /// so wrap it in a timeout.
    pub async fn until(&self, done: impl Fn(&Self) -> bool) {
        let mut changes = self.changes.subscribe();
        while !done(self) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<R>(&self, change: impl FnOnce(&mut Script) -> R) {
        change(&mut self.script());
        self.changes.send_modify(|count| *count += 1);
    }

    /// Counts a call and answers it, unless there is an outage.
    fn call<R>(
        &self,
        attempted: &str,
        count: impl FnOnce(&mut Calls) -> &mut usize,
        answer: impl FnOnce(&mut Script) -> Result<R, EngineError>,
    ) -> Result<R, EngineError> {
        let answered = {
            let mut script = self.script();
            *count(&mut script.calls) += 1;
            match script.outage.clone() {
                Some(message) => Err(EngineError::failed(attempted)(message)),
                None => answer(&mut script),
            }
        };
        self.changes.send_modify(|count| *count += 1);
        answered
    }
}

impl Script {
    fn start(&mut self, request: &EnvironmentRequest) -> Result<(), EngineError> {
        if matches!(self.environments.get(&request.id), Some(Some(_))) {
            return Ok(());
        }
        let own = self.of_node.get_mut(&request.id).and_then(VecDeque::pop_front);
        let what = own.or_else(|| self.of_anyone.pop_front()).unwrap_or(Scripted::Runs);
        let failed = |message| EngineError::failed(format!("start {}", request.id))(message);
        let state = match what {
            Scripted::Runs => EnvironmentState::Running,
            Scripted::Exits { code, detail } => EnvironmentState::Exited { code, detail },
            Scripted::Vanishes => {
                self.environments.remove(&request.id);
                self.started.push(request.clone());
                return Ok(());
            }
            Scripted::Fails(message) => return Err(failed(message)),
            Scripted::Refuses(message) => return Err(EngineError::Refused { message }),
            Scripted::FailsHalfway(message) => {
                self.environments.insert(request.id, None);
                return Err(failed(message));
            }
        };
        self.environments.insert(request.id, Some(state));
        self.started.push(request.clone());
        Ok(())
    }

    fn stop(&mut self, id: &NodeId) {
        self.services.remove(id);
        if self.environments.remove(id).is_some() {
            self.stopped.push(*id);
        }
    }
}

impl Engine for ScriptedEngine {
    fn name(&self) -> &EngineName {
        &self.name
    }

    fn capacity(&self) -> Capacity {
        self.capacity
    }

    fn start<'a>(&'a self, request: &'a EnvironmentRequest) -> BoxFuture<'a, Result<(), EngineError>> {
        async move {
            // Count the call when it begins, so that a test sees a start that waits.
            self.call("start", |calls| &mut calls.start, |_| Ok(()))?;
            let mut held = self.held.subscribe();
            // The sender lives as long as `self`.
            let _ = held.wait_for(|held| !held).await;
            let started = self.script().start(request);
            self.changes.send_modify(|count| *count += 1);
            started
        }
        .boxed()
    }

    fn state<'a>(&'a self, id: &'a NodeId) -> BoxFuture<'a, Result<EnvironmentState, EngineError>> {
        let state = |script: &mut Script| {
            let state = script.environments.get(id).cloned().flatten();
            Ok(state.unwrap_or(EnvironmentState::Absent))
        };
        std::future::ready(self.call("look", |calls| &mut calls.state, state)).boxed()
    }

    fn stop<'a>(&'a self, id: &'a NodeId) -> BoxFuture<'a, Result<(), EngineError>> {
        let stop = |script: &mut Script| {
            script.stop(id);
            Ok(())
        };
        std::future::ready(self.call("stop", |calls| &mut calls.stop, stop)).boxed()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<NodeId>, EngineError>> {
        let list = |script: &mut Script| Ok(script.environments.keys().copied().collect());
        std::future::ready(self.call("list", |calls| &mut calls.list, list)).boxed()
    }

    fn service_logs<'a>(&'a self, id: &'a NodeId) -> BoxFuture<'a, Result<Vec<ServiceLog>, EngineError>> {
        let logs = |script: &mut Script| Ok(script.services.get(id).cloned().unwrap_or_default());
        std::future::ready(self.call("read logs", |calls| &mut calls.service_logs, logs)).boxed()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::engine::EnvironmentKind;
    use std::time::Duration;
    use towpath_types::{JobId, SecretString};

    fn request(node: u32) -> EnvironmentRequest {
        EnvironmentRequest {
            id: NodeId::first_attempt(JobId::from_u128(1), node),
            token: SecretString::new("token".into()),
            kind: EnvironmentKind::Host { uses_engine: false },
            limits: None,
        }
    }

    #[tokio::test]
    async fn starts_go_as_the_script_says() {
        let engine = ScriptedEngine::new();
        let (one, two) = (request(0), request(1));
        engine.fail_starts(2, "no route");
        engine.next_of(two.id, Scripted::Refuses("no such image".into()));
        engine.next_of(
            two.id,
            Scripted::Exits {
                code: Some(3),
                detail: "bye".into(),
            },
        );
        let refused = engine.start(&two).await.unwrap_err();
        assert!(matches!(refused, EngineError::Refused { .. }), "{refused}");
        for _ in 0..2 {
            assert!(matches!(engine.start(&one).await, Err(EngineError::Failed { .. })));
            assert_eq!(engine.list().await.unwrap(), []);
        }
        engine.start(&one).await.unwrap();
        engine.start(&two).await.unwrap();
        assert_eq!(engine.running(), [one.id]);
        let exited = EnvironmentState::Exited {
            code: Some(3),
            detail: "bye".into(),
        };
        assert_eq!(engine.state(&two.id).await.unwrap(), exited);
        let made: Vec<NodeId> = engine.started().iter().map(|request| request.id).collect();
        assert_eq!(made, [one.id, two.id]);
        let calls = Calls {
            start: 5,
            state: 1,
            list: 2,
            ..Calls::default()
        };
        assert_eq!(engine.calls(), calls);
    }

    #[tokio::test]
    async fn what_vanishes_or_is_half_made_is_absent() {
        let engine = ScriptedEngine::new();
        let (one, two) = (request(0), request(1));
        engine.next(Scripted::Vanishes);
        engine.next(Scripted::FailsHalfway("the disk is full".into()));
        engine.start(&one).await.unwrap();
        engine.start(&two).await.unwrap_err();
        for id in [one.id, two.id] {
            assert_eq!(engine.state(&id).await.unwrap(), EnvironmentState::Absent);
        }
        assert_eq!(engine.list().await.unwrap(), [two.id], "there is something to stop");
        engine.start(&two).await.unwrap();
        engine.vanish(&two.id);
        assert_eq!(engine.list().await.unwrap(), []);
        let orphan = request(7).id;
        engine.add_orphan(orphan);
        engine.stop(&orphan).await.unwrap();
        assert_eq!(engine.stopped(), [orphan]);
    }

    #[tokio::test]
    async fn an_outage_fails_every_call_and_ends_nothing() {
        let engine = ScriptedEngine::new();
        let one = request(0);
        engine.start(&one).await.unwrap();
        engine.set_outage(Some("the daemon is down"));
        assert!(matches!(engine.state(&one.id).await, Err(EngineError::Failed { .. })));
        assert!(engine.list().await.is_err() && engine.stop(&one.id).await.is_err());
        assert!(engine.start(&one).await.is_err() && engine.service_logs(&one.id).await.is_err());
        engine.set_outage(None);
        assert_eq!(engine.state(&one.id).await.unwrap(), EnvironmentState::Running);
    }

    #[tokio::test]
    async fn a_start_is_held_until_it_is_let_go() {
        let engine = ScriptedEngine::new();
        engine.hold_starts(true);
        let starting = tokio::spawn({
            let engine = engine.clone();
            async move { engine.start(&request(0)).await }
        });
        let bound = Duration::from_secs(10);
        let begun = engine.until(|engine| engine.calls().start == 1);
        tokio::time::timeout(bound, begun).await.expect("the start to begin");
        assert_eq!(engine.running(), []);
        engine.hold_starts(false);
        starting.await.unwrap().unwrap();
        let running = engine.until(|engine| engine.running() == [request(0).id]);
        tokio::time::timeout(bound, running).await.expect("it to run");
    }
}
