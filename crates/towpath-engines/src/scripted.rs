//! A fake for tests of what drives an engine: in memory, answering as the test says.

use crate::engine::{Engine, EngineError, EnvironmentId, EnvironmentRequest, EnvironmentState, ServiceLog};
use futures::{FutureExt, future::BoxFuture};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// An engine whose environments are entries in a map. Clones share it. It keeps the contract of [`Engine`]: the same suite
/// runs on it as on the real ones.
#[derive(Debug, Clone, Default)]
pub struct ScriptedEngine {
    script: Arc<Mutex<Script>>,
}

#[derive(Debug, Default)]
struct Script {
    environments: BTreeMap<EnvironmentId, EnvironmentState>,
    services: BTreeMap<EnvironmentId, Vec<ServiceLog>>,
    requests: Vec<EnvironmentRequest>,
    stopped: Vec<EnvironmentId>,
    refusals: VecDeque<EngineError>,
}

impl ScriptedEngine {
    /// An engine without environments.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the next `start` that would make an environment fail with `error`. Called again, the one after it, too.
    pub fn fail_next_start(&self, error: EngineError) {
        self.script().refusals.push_back(error);
    }

    /// Ends the agent of a running environment. Of no effect on one that is not running.
    pub fn exit(&self, id: &EnvironmentId, code: Option<i64>, detail: &str) {
        if let Some(state @ EnvironmentState::Running) = self.script().environments.get_mut(id) {
            *state = EnvironmentState::Exited {
                code,
                detail: detail.to_string(),
            };
        }
    }

    /// Takes an environment away behind everybody's back.
    pub fn vanish(&self, id: &EnvironmentId) {
        self.script().environments.remove(id);
    }

    /// What the services of an environment are to have printed.
    pub fn set_service_logs(&self, id: EnvironmentId, logs: Vec<ServiceLog>) {
        self.script().services.insert(id, logs);
    }

    /// Every request that made an environment, in order; a second `start` of the same one is not there.
    #[must_use]
    pub fn started(&self) -> Vec<EnvironmentRequest> {
        self.script().requests.clone()
    }

    /// Every environment that a `stop` ended, in order.
    #[must_use]
    pub fn stopped(&self) -> Vec<EnvironmentId> {
        self.script().stopped.clone()
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine for ScriptedEngine {
    fn start<'a>(&'a self, request: &'a EnvironmentRequest) -> BoxFuture<'a, Result<(), EngineError>> {
        async move {
            let mut script = self.script();
            if script.environments.contains_key(&request.id) {
                return Ok(());
            }
            if let Some(error) = script.refusals.pop_front() {
                return Err(error);
            }
            script.environments.insert(request.id, EnvironmentState::Running);
            script.requests.push(request.clone());
            Ok(())
        }
        .boxed()
    }

    fn state<'a>(&'a self, id: &'a EnvironmentId) -> BoxFuture<'a, Result<EnvironmentState, EngineError>> {
        async move {
            Ok(self
                .script()
                .environments
                .get(id)
                .cloned()
                .unwrap_or(EnvironmentState::Absent))
        }
        .boxed()
    }

    fn stop<'a>(&'a self, id: &'a EnvironmentId) -> BoxFuture<'a, Result<(), EngineError>> {
        async move {
            let mut script = self.script();
            script.services.remove(id);
            if script.environments.remove(id).is_some() {
                script.stopped.push(*id);
            }
            Ok(())
        }
        .boxed()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<EnvironmentId>, EngineError>> {
        async move { Ok(self.script().environments.keys().copied().collect()) }.boxed()
    }

    fn service_logs<'a>(&'a self, id: &'a EnvironmentId) -> BoxFuture<'a, Result<Vec<ServiceLog>, EngineError>> {
        async move { Ok(self.script().services.get(id).cloned().unwrap_or_default()) }.boxed()
    }
}
