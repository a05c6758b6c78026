//! Counts the calls of a fake target, and decides which of them fail.

use crate::target::TargetError;
use std::collections::BTreeMap;

/// The methods of [`Target`](crate::Target).
#[allow(missing_docs)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    Preflight,
    Fingerprints,
    Releases,
    Current,
    Apply,
    CountRepeat,
    Status,
    Drift,
    SetHold,
    CronJobs,
    RunJob,
    FollowJob,
    StartCronJob,
    CancelJob,
    Logs,
    DeleteEnvironment,
}

/// When a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Before it has an effect: the request was lost.
    Before,
    /// After its effect: the answer was lost.
    After,
}

struct Planned {
    /// `None` for calls of every method.
    method: Option<Method>,
    /// How many matching calls come before the one that fails.
    before: u64,
    moment: Moment,
}

#[derive(Default)]
pub(super) struct Faults {
    calls: BTreeMap<Method, u64>,
    unreachable: Option<String>,
    planned: Vec<Planned>,
}

impl Faults {
    /// Counts a call. Returns when it fails, if it does.
    pub(super) fn begin(&mut self, method: Method) -> Option<Moment> {
        *self.calls.entry(method).or_default() += 1;
        if self.unreachable.is_some() {
            return Some(Moment::Before);
        }
        let mut fails = None;
        self.planned.retain_mut(|planned| {
            if planned.method.is_some_and(|planned| planned != method) {
                return true;
            }
            if planned.before > 0 {
                planned.before -= 1;
                return true;
            }
            fails = fails.or(Some(planned.moment));
            false
        });
        fails
    }

    pub(super) fn plan(&mut self, method: Option<Method>, before: u64, moment: Moment) {
        self.planned.push(Planned { method, before, moment });
    }

    pub(super) fn set_unreachable(&mut self, why: Option<String>) {
        self.unreachable = why;
    }

    pub(super) fn calls(&self, method: Method) -> u64 {
        self.calls.get(&method).copied().unwrap_or(0)
    }

    pub(super) fn total(&self) -> u64 {
        self.calls.values().sum()
    }

    pub(super) fn reset_calls(&mut self) {
        self.calls.clear();
    }

    /// The error of a call that fails.
    pub(super) fn error(&self, method: Method) -> TargetError {
        let why = self.unreachable.as_deref().unwrap_or("injected fault");
        TargetError::failed(format!("call {method:?} of the fake target"))(why.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_planned_call_fails_once() {
        let mut faults = Faults::default();
        faults.plan(Some(Method::Apply), 1, Moment::After);
        faults.plan(None, 2, Moment::Before);
        assert_eq!(faults.begin(Method::Current), None);
        assert_eq!(faults.begin(Method::Apply), None);
        assert_eq!(faults.begin(Method::Current), Some(Moment::Before));
        assert_eq!(faults.begin(Method::Apply), Some(Moment::After));
        assert_eq!(faults.begin(Method::Apply), None);
        assert_eq!((faults.calls(Method::Apply), faults.total()), (3, 5));
    }
}
