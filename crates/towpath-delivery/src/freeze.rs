//! Freezes: periods without deployments to an environment.

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use std::fmt;
use towpath_schedule::Schedule;

/// A period without deployments: once, with `from` and `until`, or repeatedly, with `starts` and `lasts`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Freeze {
    /// The environments that it applies to; `production` if empty.
    #[serde(default)]
    pub environments: Vec<String>,
    /// The reason, for people who have to wait.
    #[serde(default)]
    pub reason: String,
    /// When it begins: `2026-12-20T00:00:00Z`.
    pub from: Option<Timestamp>,
    /// When it ends, exclusive.
    pub until: Option<Timestamp>,
    /// When each repetition begins, as a cron expression: `0 16 * * FRI`.
    pub starts: Option<String>,
    /// The length of each repetition: `64h`.
    pub lasts: Option<String>,
    /// The time zone of `starts`: `Europe/London`. The default is UTC.
    pub time_zone: Option<String>,
}

impl Freeze {
    /// The end of the freeze if it applies to `environment` at `now`; otherwise `None`.
    #[must_use]
    pub fn ends(&self, environment: &str, now: Timestamp) -> Option<Timestamp> {
        let applies = match self.environments.as_slice() {
            [] => environment == "production",
            named => named.iter().any(|name| name == environment),
        };
        if !applies {
            return None;
        }
        if let (Some(from), Some(until)) = (self.from, self.until) {
            return (from <= now && now < until).then_some(until);
        }
        let (schedule, lasts) = self.repeats().ok()??;
        let until = schedule.latest(now)?.checked_add(lasts).ok()?;
        (now < until).then_some(until)
    }

    /// The schedule and the length of a freeze that repeats; `None` for one that does not.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub(crate) fn repeats(&self) -> Result<Option<(Schedule, SignedDuration)>, String> {
        match (self.from, self.until, &self.starts, &self.lasts) {
            (Some(from), Some(until), None, None) if from < until => Ok(None),
            (None, None, Some(starts), Some(lasts)) => {
                let schedule = Schedule::parse(starts, Some(self.time_zone.as_deref().unwrap_or("UTC")));
                let schedule = schedule.map_err(|error| error.to_string())?;
                let lasts: SignedDuration = lasts
                    .parse()
                    .map_err(|_| format!("`{}` is not a length of time such as `64h`", lasts.escape_debug()))?;
                Ok(Some((schedule, lasts)))
            }
            _ => Err("a freeze has either `from` and a later `until`, or `starts` and `lasts`".into()),
        }
    }
}

/// An environment that is frozen now. `Display` writes the message for whoever wants to deploy.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Frozen {
    pub environment: String,
    pub until: Timestamp,
    /// The reason; empty if nobody gave one.
    pub reason: String,
}

impl fmt::Display for Frozen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is frozen until {}", self.environment, self.until)?;
        if !self.reason.is_empty() {
            write!(f, " ({})", self.reason)?;
        }
        Ok(())
    }
}

/// The freeze of `environment` at `now`; of several, the one that ends last.
#[must_use]
pub fn frozen(freezes: &[Freeze], environment: &str, now: Timestamp) -> Option<Frozen> {
    let ends = freezes
        .iter()
        .filter_map(|freeze| Some((freeze.ends(environment, now)?, freeze)));
    let (until, freeze) = ends.max_by_key(|(ends, _)| *ends)?;
    Some(Frozen {
        environment: environment.to_string(),
        until,
        reason: freeze.reason.clone(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn once(from: &str, until: &str, reason: &str) -> Freeze {
        Freeze {
            from: Some(at(from)),
            until: Some(at(until)),
            reason: reason.into(),
            ..Freeze::default()
        }
    }

    #[test]
    fn a_freeze_applies_from_its_beginning_until_its_end() {
        let holidays = once("2026-12-20T00:00:00Z", "2027-01-04T08:00:00Z", "");
        assert_eq!(holidays.ends("production", at("2026-12-19T23:59:59Z")), None);
        assert_eq!(
            holidays.ends("production", at("2026-12-20T00:00:00Z")),
            Some(at("2027-01-04T08:00:00Z"))
        );
        assert_eq!(holidays.ends("production", at("2027-01-04T08:00:00Z")), None);
        assert_eq!(holidays.ends("staging", at("2026-12-25T00:00:00Z")), None);
    }

    #[test]
    fn a_repeating_freeze_follows_its_time_zone() {
        let weekends = Freeze {
            environments: vec!["dev".into()],
            starts: Some("0 16 * * FRI".into()),
            lasts: Some("64h".into()),
            time_zone: Some("Europe/London".into()),
            ..Freeze::default()
        };
        // A Friday in British Summer Time.
        assert_eq!(weekends.ends("dev", at("2026-07-03T14:59:00Z")), None);
        assert_eq!(
            weekends.ends("dev", at("2026-07-03T15:00:00Z")),
            Some(at("2026-07-06T07:00:00Z"))
        );
        assert_eq!(weekends.ends("dev", at("2026-07-06T07:00:00Z")), None);
    }

    #[test]
    fn of_two_freezes_the_longer_one_is_named() {
        let freezes = [
            once("2026-12-20T00:00:00Z", "2027-01-04T08:00:00Z", "holidays"),
            once("2026-12-24T00:00:00Z", "2026-12-27T00:00:00Z", "Christmas"),
        ];
        let during_both = frozen(&freezes, "production", at("2026-12-25T12:00:00Z"));
        assert_eq!(
            during_both.map(|frozen| frozen.to_string()).as_deref(),
            Some("production is frozen until 2027-01-04T08:00:00Z (holidays)")
        );
        assert_eq!(frozen(&freezes, "dev", at("2026-12-25T12:00:00Z")), None);
    }
}
