//! What a target remembers of an environment for a moment, to save requests.
//!
//! Nothing depends on it alone: whoever writes does so over the version that was read, and reads again after a conflict.

use super::{
    preflight::Report,
    record::{Records, StoredState},
};
use crate::target::Environment;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use towpath_manifest::Object;

/// How long records that were read count as current.
const RECORDS_FRESH: Duration = Duration::from_secs(1);
/// How long the check for a plan counts when that plan is carried out.
const PLAN_FRESH: Duration = Duration::from_secs(10);

/// A completed check, and the state that it was made against.
pub(super) struct CheckedPlan {
    pub stored: StoredState,
    pub report: Report,
    /// When the check began.
    at: Instant,
    /// The objects of the plan.
    objects: Vec<Object>,
}

impl CheckedPlan {
    pub(super) fn new(at: Instant, stored: StoredState, report: Report, objects: &[Object]) -> Self {
        Self {
            stored,
            report,
            at,
            objects: objects.to_vec(),
        }
    }
}

#[derive(Default)]
struct Entry {
    /// Counts this target's own writes. Records that were read before a write are not remembered after it.
    writes: u64,
    records: Option<(Instant, Arc<Records>)>,
    plan: Option<CheckedPlan>,
    /// The key for fingerprints: the recorded one, or the one that the first release will record.
    key: Option<Vec<u8>>,
}

/// The memory of a target.
#[derive(Default)]
pub(super) struct Memory(Arc<Mutex<HashMap<Environment, Entry>>>);

/// The number of writes at the time when a read began.
#[derive(Clone, Copy)]
pub(super) struct Writes(u64);

impl Memory {
    fn with<T>(&self, environment: &Environment, with: impl FnOnce(&mut Entry) -> T) -> T {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        with(entries.entry(environment.clone()).or_default())
    }

    /// The records of an environment if they are fresh, otherwise a token for [`Memory::set_records`].
    pub(super) fn records(&self, environment: &Environment) -> Result<Arc<Records>, Writes> {
        self.with(environment, |entry| match &entry.records {
            Some((at, records)) if at.elapsed() < RECORDS_FRESH => Ok(Arc::clone(records)),
            _ => Err(Writes(entry.writes)),
        })
    }

    /// Remembers records that were read from `at` on, unless this target has written since then.
    pub(super) fn set_records(&self, environment: &Environment, writes: Writes, at: Instant, records: Arc<Records>) {
        self.with(environment, |entry| {
            if entry.writes == writes.0 {
                entry.records = Some((at, records));
            }
        });
    }

    /// Forgets the records of an environment, because it is written to. Returns the check for the plan of `objects`, if it is
    /// fresh.
    pub(super) fn begin_write(&self, environment: &Environment, objects: &[Object]) -> Option<CheckedPlan> {
        let plan = self.with(environment, |entry| {
            entry.writes += 1;
            entry.records = None;
            entry.plan.take()
        });
        plan.filter(|plan| plan.at.elapsed() < PLAN_FRESH && plan.objects == objects)
    }

    /// Remembers the check for a plan while it is fresh; forgets the one before.
    pub(super) fn set_plan(&self, environment: &Environment, plan: Option<CheckedPlan>) {
        let is_some = plan.is_some();
        self.with(environment, |entry| entry.plan = plan);
        if !is_some {
            return;
        }
        let (entries, environment) = (Arc::downgrade(&self.0), environment.clone());
        // A plan can be large: free it as soon as it is of no use.
        tokio::spawn(async move {
            tokio::time::sleep(PLAN_FRESH).await;
            let Some(entries) = entries.upgrade() else { return };
            let mut entries = entries.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(entry) = entries.get_mut(&environment) else {
                return;
            };
            if entry.plan.as_ref().is_some_and(|plan| plan.at.elapsed() >= PLAN_FRESH) {
                entry.plan = None;
            }
        });
    }

    /// The key for an environment's fingerprints: the recorded one, or a new one that its first release will record.
    pub(super) fn key(&self, environment: &Environment, recorded: Option<Vec<u8>>) -> Vec<u8> {
        self.with(environment, |entry| {
            if recorded.is_some() {
                entry.key = recorded;
            }
            let new = || rand::random::<[u8; 32]>().to_vec();
            entry.key.get_or_insert_with(new).clone()
        })
    }

    /// Forgets everything about an environment that was deleted.
    pub(super) fn forget(&self, environment: &Environment) {
        self.with(environment, |entry| {
            *entry = Entry {
                writes: entry.writes + 1,
                ..Entry::default()
            }
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::target::EnvironmentId;

    fn environment() -> Environment {
        Environment {
            id: EnvironmentId::new("claims", "dev").unwrap(),
            kube_context: "live".into(),
            namespace: "dev".into(),
        }
    }

    #[test]
    fn records_that_were_read_before_a_write_are_not_remembered() {
        let (memory, environment) = (Memory::default(), environment());
        let Err(writes) = memory.records(&environment) else {
            unreachable!("nothing was remembered yet")
        };
        memory.set_records(&environment, writes, Instant::now(), Arc::default());
        assert!(memory.records(&environment).is_ok());
        memory.begin_write(&environment, &[]);
        assert!(memory.records(&environment).is_err());
        memory.set_records(&environment, writes, Instant::now(), Arc::default());
        assert!(memory.records(&environment).is_err());
    }

    #[tokio::test]
    async fn a_checked_plan_serves_once_and_only_for_its_objects() {
        let (memory, environment) = (Memory::default(), environment());
        let plan =
            |objects: &[Object]| CheckedPlan::new(Instant::now(), StoredState::default(), Report::default(), objects);
        let object = Object::from_value(
            serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}),
            "test",
        );
        let objects = [object.unwrap()];
        memory.set_plan(&environment, Some(plan(&objects)));
        assert!(memory.begin_write(&environment, &objects).is_some());
        assert!(memory.begin_write(&environment, &objects).is_none());
        memory.set_plan(&environment, Some(plan(&objects)));
        assert!(memory.begin_write(&environment, &[]).is_none());
    }

    #[test]
    fn the_recorded_key_replaces_a_new_one() {
        let (memory, environment) = (Memory::default(), environment());
        let new = memory.key(&environment, None);
        assert_eq!(memory.key(&environment, None), new);
        assert_eq!(memory.key(&environment, Some(vec![1])), [1]);
        assert_eq!(memory.key(&environment, None), [1]);
    }
}
