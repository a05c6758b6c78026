//! An expression with a time zone.

use crate::{
    calendar,
    expression::{Expression, ExpressionError, Timing},
    zone::ZoneError,
};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use std::fmt;

/// The number of missed runs that [`Schedule::latest_since`] follows one by one.
const FOLLOWED: usize = 200;

/// When something is due. `Display` writes the expression.
#[derive(Clone, PartialEq)]
pub struct Schedule {
    expression: Expression,
    zone: TimeZone,
}

/// Why a schedule is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum ScheduleError {
    #[error(transparent)]
    Expression(#[from] ExpressionError),
    #[error(transparent)]
    TimeZone(#[from] ZoneError),
}

impl ScheduleError {
    /// The column in the expression, in characters from 1; `None` when the time zone is the problem.
    #[must_use]
    pub fn column(&self) -> Option<usize> {
        match self {
            Self::Expression(error) => Some(error.column()),
            Self::TimeZone(_) => None,
        }
    }
}

impl Schedule {
    /// Reads an expression. Its times of day are those of `time_zone` (`Europe/London`); without one, of UTC.
    ///
    /// # Errors
    /// When Kubernetes would refuse the expression, or there is no such time zone.
    pub fn parse(text: &str, time_zone: Option<&str>) -> Result<Self, ScheduleError> {
        let zone = match time_zone {
            Some(name) => crate::time_zone(name)?,
            None => TimeZone::UTC,
        };
        Ok(Self::parse_in(text, zone)?)
    }

    /// Reads an expression whose times of day are those of `zone`: the machine's own, for one.
    ///
    /// # Errors
    /// When Kubernetes would refuse the expression.
    pub fn parse_in(text: &str, zone: TimeZone) -> Result<Self, ExpressionError> {
        Ok(Self {
            expression: Expression::parse(text)?,
            zone,
        })
    }

    /// The first time after `after`. `None` when there is none within five years, such as for the 30th of February.
    #[must_use]
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        match self.expression.timing() {
            Timing::Calendar { fields, .. } => calendar::next(fields, &self.zone, after),
            Timing::Every(delay) => {
                let whole = Timestamp::from_second(calendar::floor(after)).ok()?;
                whole.checked_add(SignedDuration::try_from(*delay).ok()?).ok()
            }
        }
    }

    /// The last time up to and including `until`. `None` when there is none within five years, and for `@every`, which
    /// has no fixed times because it counts from its last run.
    #[must_use]
    pub fn latest(&self, until: Timestamp) -> Option<Timestamp> {
        match self.expression.timing() {
            Timing::Calendar { fields, .. } => calendar::latest(fields, &self.zone, until),
            Timing::Every(_) => None,
        }
    }

    /// The last due time after a run at `last`, up to and including `until`; `None` when nothing is due by then.
    #[must_use]
    pub fn latest_since(&self, last: Timestamp, until: Timestamp) -> Option<Timestamp> {
        let mut found = None;
        let mut at = last;
        for _ in 0..FOLLOWED {
            match self.next(at).filter(|next| *next <= until) {
                Some(next) => (found, at) = (Some(next), next),
                None => return found,
            }
        }
        match self.expression.timing() {
            Timing::Calendar { .. } => self.latest(until).max(found),
            Timing::Every(delay) => {
                let left = until.duration_since(at).as_secs();
                let delay = i64::try_from(delay.as_secs()).ok()?;
                at.checked_add(SignedDuration::from_secs(left - left % delay)).ok()
            }
        }
    }

    /// Whether it counts from its last run (`@every 1h`) instead of having fixed times.
    #[must_use]
    pub fn is_interval(&self) -> bool {
        matches!(self.expression.timing(), Timing::Every(_))
    }

    /// The name of the time zone, where it has one.
    #[must_use]
    pub fn time_zone_name(&self) -> Option<&str> {
        self.zone.iana_name()
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.expression.fmt(f)
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let zone = self.zone.iana_name().unwrap_or("a zone without a name");
        write!(f, "Schedule({} in {zone})", self.expression)
    }
}
