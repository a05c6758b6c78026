//! The timers of a workflow.

use jiff::Timestamp;
use std::{fmt, str::FromStr, time::Duration};

/// How long a job that was told to stop may take before the state machine ends it.
///
/// It is longer than the time that an agent gives a job's processes before it kills them, so that the agent's own
/// report comes first.
pub const STOP_GRACE: Duration = Duration::from_secs(60);

/// The delay before the first automatic retry; it doubles with each retry.
const FIRST_BACK_OFF: Duration = Duration::from_secs(5);
/// The longest delay before an automatic retry.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(300);

/// The delay before the `retry`th automatic retry of a job, counted from 1.
#[must_use]
pub fn back_off(retry: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(retry.saturating_sub(1));
    FIRST_BACK_OFF.saturating_mul(doubled).min(LONGEST_BACK_OFF)
}

/// `delay` after `at`, or the largest timestamp.
pub(crate) fn after(at: Timestamp, delay: Duration) -> Timestamp {
    at.checked_add(delay).unwrap_or(Timestamp::MAX)
}

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TimerKind {
    /// Queues the attempt when the delay after an infrastructure error is over.
    Retry,
    /// Tells the attempt to stop when the job's `time_limit` is over.
    TimeLimit,
    /// Ends the attempt if it has not ended [`STOP_GRACE`] after it was told to stop.
    StopGrace,
}

impl TimerKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::TimeLimit => "time_limit",
            Self::StopGrace => "stop_grace",
        }
    }
}

/// Names a timer of one workflow.
///
/// Its text, `time_limit/2/deploy`, is its key in storage.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub struct Timer {
    pub kind: TimerKind,
    pub job: String,
    pub attempt: u32,
}

/// Why a text names no timer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` does not name a timer (`<kind>/<attempt>/<job>`)")]
pub struct TimerError(String);

impl fmt::Display for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.kind.as_str(), self.attempt, self.job)
    }
}

impl FromStr for Timer {
    type Err = TimerError;
    fn from_str(text: &str) -> Result<Self, TimerError> {
        let error = || TimerError(text.chars().take(80).collect());
        // The job comes last, because its name may contain a slash.
        let (kind, rest) = text.split_once('/').ok_or_else(error)?;
        let (attempt, job) = rest.split_once('/').ok_or_else(error)?;
        let kind = match kind {
            "retry" => TimerKind::Retry,
            "time_limit" => TimerKind::TimeLimit,
            "stop_grace" => TimerKind::StopGrace,
            _ => return Err(error()),
        };
        Ok(Self {
            kind,
            job: job.to_string(),
            attempt: attempt.parse().map_err(|_| error())?,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn delays_double_up_to_a_limit() {
        let delays = [1, 2, 3, 6, 7, 8, u32::MAX].map(|retry| back_off(retry).as_secs());
        assert_eq!(delays, [5, 10, 20, 160, 300, 300, 300]);
    }

    #[test]
    fn a_timer_is_read_back_from_its_text() {
        for kind in [TimerKind::Retry, TimerKind::TimeLimit, TimerKind::StopGrace] {
            let timer = Timer {
                kind,
                job: "team/deploy 1/2".into(),
                attempt: 3,
            };
            assert_eq!(timer.to_string().parse::<Timer>().unwrap(), timer);
        }
        for bad in ["", "retry", "retry/1", "nosuch/1/a", "retry/x/a", "retry/-1/a"] {
            assert!(bad.parse::<Timer>().is_err(), "{bad}");
        }
    }
}
