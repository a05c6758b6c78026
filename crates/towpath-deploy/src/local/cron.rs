//! When a CronJob's runs are due, and what becomes of those that were missed.
//!
//! Pure but for [`Clock`]: the loop that calls this lives in the environment's controller.
//! Source of the rules: <https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/>

use super::model::{ConcurrencyPolicy, CronJob};
use croner::{
    CivilDate, CivilDateTime, CivilTime, Cron, CronDateTime, Resolution, Weekday,
    errors::CronError,
    parser::{CronParser, Seconds, Year},
};
use jiff::{SignedDuration, Timestamp, ZonedDateTime, tz::AmbiguousOffset, tz::TimeZone};
use std::{cmp::Ordering, fmt, time::Duration};

/// Past this many missed runs, and without `startingDeadlineSeconds`, none is started: the clock is more likely to be
/// wrong than the runs to be wanted.
const TOO_MANY: usize = 100;

/// The time of day. Supplied, so that tests do not wait for midnight.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// A schedule in a time zone.
#[derive(Clone)]
pub(crate) struct Schedule {
    text: String,
    cron: Option<Cron>,
    zone: TimeZone,
}

/// Why a schedule cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScheduleError {
    #[error("`{0}` is no schedule of five fields (minute, hour, day, month, weekday) and no `@daily` or the like")]
    Pattern(String),
    #[error("`{0}` is no time zone of the IANA database on this machine, such as `Europe/London`")]
    Zone(String),
}

impl ScheduleError {
    pub(crate) fn is_zone(&self) -> bool {
        matches!(self, Self::Zone(_))
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schedule({} in {:?})", self.text, self.zone.iana_name())
    }
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text && self.zone == other.zone
    }
}

impl Schedule {
    /// `zone` defaults to this machine's, as it does to the controller's on a cluster.
    pub(crate) fn new(text: &str, zone: Option<&str>) -> Result<Self, ScheduleError> {
        let zone = match zone {
            Some(name) => TimeZone::get(name).map_err(|_| ScheduleError::Zone(name.to_string()))?,
            None => TimeZone::system(),
        };
        let cron = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .build()
            .parse(text)
            .map_err(|_| ScheduleError::Pattern(text.chars().take(60).collect()))?;
        Ok(Self {
            text: text.to_string(),
            cron: Some(cron),
            zone,
        })
    }

    /// What stands in for a schedule that was refused.
    pub(crate) fn never() -> Self {
        Self {
            text: String::new(),
            cron: None,
            zone: TimeZone::UTC,
        }
    }

    /// The first time after `after`.
    pub(crate) fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let at = Local(after.to_zoned_datetime(self.zone.clone()));
        let next = self.cron.as_ref()?.find_next_occurrence(&at, false).ok()?;
        Some(next.0.timestamp())
    }
}

/// croner speaks to dates through a trait; this is it for this version of jiff.
#[derive(Clone)]
struct Local(ZonedDateTime);

impl CronDateTime for Local {
    fn to_civil(&self) -> CivilDateTime {
        let at = self.0.datetime();
        CivilDateTime::new(
            CivilDate::from_parts_unchecked(
                at.year().into(),
                at.month().unsigned_abs().into(),
                at.day().unsigned_abs().into(),
            ),
            CivilTime::from_parts_unchecked(
                at.hour().unsigned_abs().into(),
                at.minute().unsigned_abs().into(),
                at.second().unsigned_abs().into(),
            ),
        )
    }

    fn civil_weekday(&self) -> Weekday {
        let day = self.0.weekday().to_sunday_zero_offset();
        Weekday::from_days_from_sunday(day.unsigned_abs().into())
    }

    fn resolve_civil(&self, civil: CivilDateTime) -> Result<Resolution<Self>, CronError> {
        let small = |part: u32| i8::try_from(part).map_err(|_| CronError::InvalidDate);
        let at = jiff::civil::DateTime::new(
            i16::try_from(civil.year()).map_err(|_| CronError::InvalidDate)?,
            small(civil.month())?,
            small(civil.day())?,
            small(civil.hour())?,
            small(civil.minute())?,
            small(civil.second())?,
            0,
        )
        .map_err(|_| CronError::InvalidDate)?;
        let ambiguous = self.0.time_zone().to_ambiguous_zoned_datetime(at);
        let found = |zoned: Result<ZonedDateTime, jiff::Error>| zoned.map(Self).map_err(|_| CronError::InvalidTime);
        Ok(match ambiguous.offset() {
            AmbiguousOffset::Unambiguous { .. } => Resolution::Single(found(ambiguous.unambiguous())?),
            AmbiguousOffset::Fold { .. } => {
                Resolution::Ambiguous(found(ambiguous.clone().earlier())?, found(ambiguous.later())?)
            }
            AmbiguousOffset::Gap { .. } => Resolution::Gap,
        })
    }

    fn checked_add_seconds(&self, seconds: i64) -> Option<Self> {
        self.0.checked_add(SignedDuration::from_secs(seconds)).ok().map(Self)
    }

    fn cmp_instant(&self, other: &Self) -> Ordering {
        self.0.timestamp().cmp(&other.0.timestamp())
    }
}

/// What is to be done about a CronJob now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing.
    Nothing,
    /// Start the run that was due at `at`.
    Start {
        /// When it was due.
        at: Timestamp,
        /// End the runs that are under way first.
        replace: bool,
    },
    /// A run is due and waits for the one under way.
    Held(Timestamp),
    /// Nothing is started, and what was missed is given up.
    TooManyMissed,
}

/// Decides about `cron`, whose last run (or, before there was one, whose beginning) was at `last`, while `active` runs are
/// under way.
///
/// Of several runs that were missed the latest is started. A run that is late by more than `startingDeadlineSeconds` is not.
pub(crate) fn due(cron: &CronJob, last: Timestamp, now: Timestamp, active: usize) -> Due {
    if cron.suspend {
        return Due::Nothing;
    }
    let late = |deadline: Duration| now.checked_sub(SignedDuration::try_from(deadline).ok()?).ok();
    let earliest = match cron.starting_deadline.and_then(late) {
        // A run that is late by exactly the deadline is still in time.
        Some(bound) => last.max(bound - SignedDuration::from_nanos(1)),
        None => last,
    };
    let mut missed = 0;
    let mut latest = None;
    let mut at = earliest;
    while let Some(next) = cron.schedule.next(at).filter(|next| *next <= now) {
        missed += 1;
        latest = Some(next);
        at = next;
        if missed > TOO_MANY {
            if cron.starting_deadline.is_none() {
                return Due::TooManyMissed;
            }
            // A long deadline and a short interval: the latest is found from the end.
            at = at.max(now - SignedDuration::from_mins(70));
        }
    }
    let Some(at) = latest else { return Due::Nothing };
    match cron.concurrency {
        ConcurrencyPolicy::Forbid if active > 0 => Due::Held(at),
        policy => Due::Start {
            at,
            replace: policy == ConcurrencyPolicy::Replace && active > 0,
        },
    }
}

/// The name of the Job for the run that was due at `at`: the same whoever starts it, so that none starts twice.
pub(crate) fn run_name(cron: &str, at: Timestamp) -> String {
    format!("{cron}-{}", at.as_second() / 60)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{super::model, *};
    use serde_json::{Value, json};
    use towpath_manifest::Object;

    fn cron_job(spec: Value) -> CronJob {
        let mut whole = json!({
            "schedule": "*/5 * * * *", "timeZone": "Etc/UTC",
            "jobTemplate": {"spec": {"template": {"spec": {
                "restartPolicy": "Never", "containers": [{"name": "job", "image": "app"}],
            }}}},
        });
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let value = json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "c"}, "spec": whole});
        match model::parse(&Object::from_value(value, "c.yaml").unwrap()) {
            (Some(model::Resource::CronJob(cron)), _) => *cron,
            (other, findings) => panic!("{other:?}: {findings:?}"),
        }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn check(spec: Value, last: &str, now: &str, active: usize, expected: Due) {
        assert_eq!(
            due(&cron_job(spec.clone()), at(last), at(now), active),
            expected,
            "{spec} {last} {now}"
        );
    }

    fn start(text: &str) -> Due {
        Due::Start {
            at: at(text),
            replace: false,
        }
    }

    #[test]
    fn a_run_is_due_at_its_minute_and_once() {
        check(
            json!({}),
            "2026-01-01T00:00:00Z",
            "2026-01-01T00:04:59Z",
            0,
            Due::Nothing,
        );
        check(
            json!({}),
            "2026-01-01T00:00:00Z",
            "2026-01-01T00:05:00Z",
            0,
            start("2026-01-01T00:05:00Z"),
        );
        check(
            json!({}),
            "2026-01-01T00:05:00Z",
            "2026-01-01T00:05:30Z",
            0,
            Due::Nothing,
        );
        check(
            json!({"suspend": true}),
            "2026-01-01T00:00:00Z",
            "2026-01-01T01:00:00Z",
            0,
            Due::Nothing,
        );
    }

    #[test]
    fn of_several_missed_runs_the_latest_is_started() {
        check(
            json!({}),
            "2026-01-01T00:00:00Z",
            "2026-01-01T00:17:00Z",
            0,
            start("2026-01-01T00:15:00Z"),
        );
    }

    #[test]
    fn a_run_that_is_too_late_is_not_started() {
        let deadline = json!({"startingDeadlineSeconds": 60});
        let last = "2026-01-01T00:00:00Z";
        check(
            deadline.clone(),
            last,
            "2026-01-01T00:06:00Z",
            0,
            start("2026-01-01T00:05:00Z"),
        );
        check(deadline.clone(), last, "2026-01-01T00:06:01Z", 0, Due::Nothing);
        check(deadline, last, "2026-01-09T00:05:30Z", 0, start("2026-01-09T00:05:00Z"));
    }

    #[test]
    fn more_than_a_hundred_missed_runs_are_given_up_without_a_deadline() {
        let last = "2026-01-01T00:00:00Z";
        check(
            json!({}),
            last,
            "2026-01-01T08:20:00Z",
            0,
            start("2026-01-01T08:20:00Z"),
        );
        check(json!({}), last, "2026-01-01T08:25:00Z", 0, Due::TooManyMissed);
        let deadline = json!({"startingDeadlineSeconds": 864_000});
        check(deadline, last, "2026-01-05T00:03:00Z", 0, start("2026-01-05T00:00:00Z"));
    }

    #[test]
    fn a_run_under_way_is_waited_for_joined_or_replaced() {
        let (last, now) = ("2026-01-01T00:00:00Z", "2026-01-01T00:05:00Z");
        check(json!({"concurrencyPolicy": "Allow"}), last, now, 1, start(now));
        check(json!({"concurrencyPolicy": "Forbid"}), last, now, 1, Due::Held(at(now)));
        check(json!({"concurrencyPolicy": "Forbid"}), last, now, 0, start(now));
        let replaced = Due::Start {
            at: at(now),
            replace: true,
        };
        check(json!({"concurrencyPolicy": "Replace"}), last, now, 1, replaced);
    }

    #[test]
    fn a_schedule_follows_its_time_zone_through_the_change_of_the_clock() {
        let nightly = json!({"schedule": "30 1 * * *", "timeZone": "Europe/London"});
        let schedule = cron_job(nightly).schedule;
        // In winter London is at UTC, in summer an hour before it; on 2026-03-29 the hour from 1 to 2 does not exist.
        let next = |after: &str| schedule.next(at(after)).unwrap();
        assert_eq!(next("2026-01-10T00:00:00Z"), at("2026-01-10T01:30:00Z"));
        assert_eq!(next("2026-07-10T00:00:00Z"), at("2026-07-10T00:30:00Z"));
        let over_the_gap = next("2026-03-28T02:00:00Z");
        assert!(
            over_the_gap > at("2026-03-28T23:59:00Z") && over_the_gap <= at("2026-03-30T00:30:00Z"),
            "{over_the_gap}"
        );
        // 2026-10-25: the hour from 1 to 2 comes twice, and the run once.
        let first = next("2026-10-24T12:00:00Z");
        assert_eq!(first, at("2026-10-25T00:30:00Z"));
        assert_eq!(next(&first.to_string()), at("2026-10-26T01:30:00Z"));
    }

    /// Whatever the moments at which somebody looks, no due time is started twice, and each start was due.
    #[test]
    fn no_run_is_started_twice_whenever_one_looks() {
        for seed in 1..200_i64 {
            let cron = cron_job(json!({"startingDeadlineSeconds": 30 + seed % 400}));
            let (mut now, mut last) = (at("2026-01-01T00:00:00Z"), at("2026-01-01T00:00:00Z"));
            let mut started: Vec<Timestamp> = Vec::new();
            for step in 1..80_i64 {
                now += SignedDuration::from_secs((seed * 7919 + step * step * 104_729) % 900);
                if let Due::Start { at, .. } = due(&cron, last, now, 0) {
                    assert!(at <= now && at.as_second() % 300 == 0);
                    assert!(started.last().is_none_or(|before| *before < at), "{at} twice");
                    started.push(at);
                    last = at;
                }
            }
            assert!(!started.is_empty());
        }
    }
}
