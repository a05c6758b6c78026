//! When a schedule of cron is due.

use croner::{
    CivilDate, CivilDateTime, CivilTime, Cron, CronDateTime, Resolution, Weekday,
    errors::CronError,
    parser::{CronParser, Seconds, Year},
};
use jiff::{SignedDuration, Timestamp, ZonedDateTime, tz::AmbiguousOffset, tz::TimeZone};
use std::{cmp::Ordering, fmt};

/// A schedule in a time zone.
#[derive(Clone)]
pub struct Schedule {
    text: String,
    cron: Option<Cron>,
    zone: TimeZone,
}

/// Why a schedule cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    /// The text is no schedule.
    #[error("`{0}` is no schedule of five fields (minute, hour, day, month, weekday) and no `@daily` or the like")]
    Pattern(String),
    /// There is no such zone.
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
    ///
    /// # Errors
    /// When the text is no schedule, or there is no such zone.
    pub fn new(text: &str, zone: Option<&str>) -> Result<Self, ScheduleError> {
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
    #[must_use]
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let at = Local(after.to_zoned_datetime(self.zone.clone()));
        let next = self.cron.as_ref()?.find_next_occurrence(&at, false).ok()?;
        Some(next.0.timestamp())
    }

    /// The last time up to and including `until`.
    #[must_use]
    pub fn latest(&self, until: Timestamp) -> Option<Timestamp> {
        let at = Local(until.to_zoned_datetime(self.zone.clone()));
        let found = self.cron.as_ref()?.find_previous_occurrence(&at, true).ok()?;
        Some(found.0.timestamp())
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
