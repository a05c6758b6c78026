//! Failures on demand, for tests.

use crate::StoreError;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Failures to inject into a [`crate::SqlStore`], and counts of its operations. Clones share them.
///
/// An *operation* is one call of a method of the store's traits that reads or writes, named after the method: `job`,
/// `pipelines`, `commit`, `claim`. `announce` and `changes` are not operations.
///
/// Every injected failure is [`StoreError::Unavailable`], which says that the operation may have had its effect.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Every operation fails before its effect.
    away: bool,
    next: Option<Fault>,
    counts: BTreeMap<&'static str, u64>,
    statements: BTreeSet<String>,
}

#[derive(Debug, Clone, Copy)]
struct Fault {
    /// The number of operations that succeed first.
    after: u64,
    effect: Effect,
    /// Whether every later operation fails, too.
    cut: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// The operation does not happen.
    Before,
    /// The operation happens; only its answer is lost.
    After,
}

/// What a counted operation should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Pass,
    FailBefore,
    FailAfter,
}

impl Faults {
    /// No failures; everything is counted.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes only the `n`th operation from now (counted from 1) fail without effect.
    pub fn fail_before(&self, n: u64) {
        self.plan(n, Effect::Before, false);
    }

    /// Makes only the `n`th operation from now (counted from 1) take effect but lose its answer.
    pub fn fail_after(&self, n: u64) {
        self.plan(n, Effect::After, false);
    }

    /// Cuts the power before the `n`th operation from now: it and all later ones fail without effect until
    /// [`Faults::restore`].
    pub fn cut_before(&self, n: u64) {
        self.plan(n, Effect::Before, true);
    }

    /// Cuts the power after the `n`th operation from now: it takes effect but fails, and all later ones fail without
    /// effect until [`Faults::restore`].
    pub fn cut_after(&self, n: u64) {
        self.plan(n, Effect::After, true);
    }

    /// Makes every operation fail without effect from now on.
    pub fn set_away(&self) {
        self.state().away = true;
    }

    /// Ends every failure, planned ones too. Keeps the counts.
    pub fn restore(&self) {
        let mut state = self.state();
        state.away = false;
        state.next = None;
    }

    /// Whether a planned failure is still to come.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.state().next.is_some()
    }

    /// How often each operation was asked for, failed ones included.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.state().counts.clone()
    }

    /// How often `operation` was asked for.
    #[must_use]
    pub fn count(&self, operation: &str) -> u64 {
        self.state().counts.get(operation).copied().unwrap_or(0)
    }

    /// How many operations were asked for.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.state().counts.values().sum()
    }

    /// Begins counting anew.
    pub fn reset_counts(&self) {
        self.state().counts.clear();
    }

    /// The distinct SQL texts that were run, for checks of their query plans.
    #[must_use]
    pub fn statements(&self) -> Vec<String> {
        self.state().statements.iter().cloned().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn plan(&self, n: u64, effect: Effect, cut: bool) {
        self.state().next = Some(Fault {
            after: n.saturating_sub(1),
            effect,
            cut,
        });
    }

    /// Counts an operation and says whether it fails.
    pub(crate) fn begin(&self, operation: &'static str) -> Verdict {
        let mut state = self.state();
        *state.counts.entry(operation).or_default() += 1;
        if state.away {
            return Verdict::FailBefore;
        }
        match state.next.as_mut() {
            None => Verdict::Pass,
            Some(fault) if fault.after > 0 => {
                fault.after -= 1;
                Verdict::Pass
            }
            Some(fault) => {
                let Fault { effect, cut, .. } = *fault;
                state.next = None;
                state.away = cut;
                match effect {
                    Effect::Before => Verdict::FailBefore,
                    Effect::After => Verdict::FailAfter,
                }
            }
        }
    }

    pub(crate) fn record(&self, sql: &str) {
        let mut state = self.state();
        if !state.statements.contains(sql) {
            state.statements.insert(sql.to_string());
        }
    }

    pub(crate) fn failure(database: &str) -> StoreError {
        StoreError::Unavailable {
            database: database.to_string(),
            source: "a test made it fail".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_operation_fails_and_the_others_pass() {
        let faults = Faults::new();
        faults.fail_before(2);
        let verdicts = [faults.begin("job"), faults.begin("job"), faults.begin("commit")];
        assert_eq!(verdicts, [Verdict::Pass, Verdict::FailBefore, Verdict::Pass]);
        assert_eq!((faults.count("job"), faults.total()), (2, 3));
        faults.fail_after(1);
        assert!(faults.is_pending());
        assert_eq!(faults.begin("job"), Verdict::FailAfter);
        assert!(!faults.is_pending());
        assert_eq!(faults.begin("job"), Verdict::Pass);
    }

    #[test]
    fn a_cut_lasts_until_the_power_is_back() {
        let faults = Faults::new();
        faults.cut_after(1);
        assert_eq!(faults.begin("commit"), Verdict::FailAfter);
        assert_eq!(faults.begin("commit"), Verdict::FailBefore);
        faults.restore();
        assert_eq!(faults.begin("commit"), Verdict::Pass);
    }
}
