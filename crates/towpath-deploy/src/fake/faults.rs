//! Counts the calls of a fake target, and decides which of them fail.

use crate::target::TargetError;

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

/// When a call is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Before it has an effect: the request was lost.
    Before,
    /// After an `apply` has applied half of its objects. For every other method the same as `Before`.
    Middle,
    /// After its effect: the answer was lost.
    After,
}

/// What stops a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault {
    pub moment: Moment,
    /// Whether the caller's process dies, and gets no answer at all.
    pub kills: bool,
}

struct Planned {
    /// `None` for calls of every method.
    method: Option<Method>,
    /// How many matching calls come before the one that is stopped.
    before: usize,
    fault: Fault,
}

#[derive(Default)]
pub(super) struct Faults {
    called: Vec<Method>,
    unreachable: Option<String>,
    planned: Vec<Planned>,
}

impl Faults {
    /// Records a call. Returns what stops it, if anything does.
    pub(super) fn begin(&mut self, method: Method) -> Option<Fault> {
        self.called.push(method);
        if self.unreachable.is_some() {
            return Some(Fault {
                moment: Moment::Before,
                kills: false,
            });
        }
        let mut stops = None;
        self.planned.retain_mut(|planned| {
            if planned.method.is_some_and(|planned| planned != method) {
                return true;
            }
            if planned.before > 0 {
                planned.before -= 1;
                return true;
            }
            stops = stops.or(Some(planned.fault));
            false
        });
        stops
    }

    pub(super) fn plan(&mut self, method: Option<Method>, before: usize, fault: Fault) {
        self.planned.push(Planned { method, before, fault });
    }

    pub(super) fn is_death_pending(&self) -> bool {
        self.planned.iter().any(|planned| planned.fault.kills)
    }

    pub(super) fn forget_death(&mut self) {
        self.planned.retain(|planned| !planned.fault.kills);
    }

    pub(super) fn set_unreachable(&mut self, why: Option<String>) {
        self.unreachable = why;
    }

    /// The calls so far, in order.
    pub(super) fn called(&self) -> &[Method] {
        &self.called
    }

    pub(super) fn reset_calls(&mut self) {
        self.called.clear();
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
    fn the_planned_call_is_stopped_once() {
        let fault = |moment, kills| Fault { moment, kills };
        let mut faults = Faults::default();
        faults.plan(Some(Method::Apply), 1, fault(Moment::After, false));
        faults.plan(None, 2, fault(Moment::Before, true));
        assert_eq!(faults.begin(Method::Current), None);
        assert_eq!(faults.begin(Method::Apply), None);
        assert!(faults.is_death_pending());
        assert_eq!(faults.begin(Method::Current), Some(fault(Moment::Before, true)));
        assert!(!faults.is_death_pending());
        assert_eq!(faults.begin(Method::Apply), Some(fault(Moment::After, false)));
        assert_eq!(faults.begin(Method::Apply), None);
        let (current, apply) = (Method::Current, Method::Apply);
        assert_eq!(faults.called(), [current, apply, current, apply, apply]);
    }
}
