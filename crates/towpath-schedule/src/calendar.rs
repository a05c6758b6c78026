//! Finds the next and the last calendar time that matches an expression.

use crate::expression::Field;
use jiff::{
    SignedDuration, Timestamp,
    civil::{Date, DateTime},
    tz::TimeZone,
};

/// The search stops after this many years, as in the library that Kubernetes uses. So it always finds the 29th of
/// February, except around a year like 2100 that has none.
const YEARS: i16 = 5;
const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

fn is_set(mask: u64, value: i8) -> bool {
    u32::try_from(value).is_ok_and(|value| mask & (1 << value) != 0)
}

/// Whether the day of the month and the day of the week allow `date`.
fn allows_day(fields: &[Field; 5], date: Date) -> bool {
    let [_, _, day, _, weekday] = fields;
    let by_day = is_set(day.mask, date.day());
    let by_weekday = is_set(weekday.mask, date.weekday().to_sunday_zero_offset());
    if day.is_any || weekday.is_any {
        by_day && by_weekday
    } else {
        by_day || by_weekday
    }
}

/// Walks forward through time, advancing one field at a time until all match.
///
/// Where the clock changes, the order of steps decides the result. It is the library's: months and days are calendar
/// steps, hours and minutes are time steps. A day without a midnight, or a change by half an hour, can make it skip a
/// time that would have matched.
///
/// Source: `SpecSchedule.Next` in <https://github.com/robfig/cron/blob/v3.0.1/spec.go>
struct Walk<'a> {
    zone: &'a TimeZone,
    /// Seconds since 1970.
    at: i64,
    local: DateTime,
    /// Whether the first step has already reset the smaller fields. That happens only once.
    is_aligned: bool,
}

impl<'a> Walk<'a> {
    fn from(zone: &'a TimeZone, at: i64) -> Option<Self> {
        let local = zone.to_datetime(Timestamp::from_second(at).ok()?);
        Some(Self {
            zone,
            at,
            local,
            is_aligned: false,
        })
    }

    fn go_to(&mut self, at: i64) -> Option<()> {
        self.local = self.zone.to_datetime(Timestamp::from_second(at).ok()?);
        self.at = at;
        Some(())
    }

    /// Goes to the time that Go's `time.Date` gives for a local time. For a time of day that occurs twice, that is one
    /// of the two; for one that a clock change skips, it is an hour earlier or later.
    ///
    /// Source: <https://pkg.go.dev/time#Date>; which of the two is in its code.
    fn go_to_local(&mut self, local: DateTime) -> Option<()> {
        let as_utc = TimeZone::UTC.to_timestamp(local).ok()?.as_second();
        let offset_at = |second: i64| {
            let at = Timestamp::from_second(second).ok()?;
            Some(i64::from(self.zone.to_offset(at).seconds()))
        };
        let guess = as_utc - offset_at(as_utc)?;
        self.go_to(as_utc - offset_at(guess)?)
    }

    fn align(&mut self, to: impl FnOnce(&mut Self) -> Option<()>) -> Option<()> {
        if self.is_aligned {
            return Some(());
        }
        self.is_aligned = true;
        to(self)
    }

    fn next_month(&mut self) -> Option<()> {
        self.align(|walk| walk.go_to_local(walk.local.date().first_of_month().at(0, 0, 0, 0)))?;
        // If the first of the month has no midnight, this may be the day before; and the 31st of a shorter month is one
        // of the first days of the next month.
        let days = i64::from(self.local.day()) - 1;
        let first = self.local.date().last_of_month().tomorrow().ok()?;
        let date = first.checked_add(SignedDuration::from_hours(24 * days)).ok()?;
        self.go_to_local(date.to_datetime(self.local.time()))
    }

    fn next_day(&mut self) -> Option<()> {
        self.align(|walk| walk.go_to_local(walk.local.date().at(0, 0, 0, 0)))?;
        let before = self.at;
        let date = self.local.date().tomorrow().ok()?;
        self.go_to_local(date.to_datetime(self.local.time()))?;
        // A day may begin after midnight.
        match i64::from(self.local.hour()) {
            0 => {}
            hour if hour > 12 => self.go_to(self.at + (24 - hour) * HOUR)?,
            hour => self.go_to(self.at - hour * HOUR)?,
        }
        // A whole skipped day (in Samoa, in 2011) leads back to the day before; there the library loops for ever.
        if self.at <= before {
            self.go_to(before + DAY)?;
        }
        Some(())
    }

    fn next_hour(&mut self) -> Option<()> {
        self.align(|walk| walk.go_to_local(walk.local.date().at(walk.local.hour(), 0, 0, 0)))?;
        self.go_to(self.at + HOUR)
    }

    fn next_minute(&mut self) -> Option<()> {
        self.align(|walk| walk.go_to(walk.at - walk.at.rem_euclid(MINUTE)))?;
        self.go_to(self.at + MINUTE)
    }

    /// Goes to the first second of the next minute.
    fn next_full_minute(&mut self) -> Option<()> {
        self.is_aligned = true;
        self.go_to(self.at + MINUTE - i64::from(self.local.second()))
    }
}

/// The first time after `after` that matches; `None` when none does within five years.
pub(crate) fn next(fields: &[Field; 5], zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
    let [minute, hour, _, month, _] = fields;
    let mut walk = Walk::from(zone, floor(after) + 1)?;
    let last_year = walk.local.year().checked_add(YEARS)?;
    'again: while walk.local.year() <= last_year {
        while !is_set(month.mask, walk.local.month()) {
            walk.next_month()?;
            if walk.local.month() == 1 {
                continue 'again;
            }
        }
        while !allows_day(fields, walk.local.date()) {
            walk.next_day()?;
            if walk.local.day() == 1 {
                continue 'again;
            }
        }
        while !is_set(hour.mask, walk.local.hour()) {
            walk.next_hour()?;
            if walk.local.hour() == 0 {
                continue 'again;
            }
        }
        while !is_set(minute.mask, walk.local.minute()) {
            walk.next_minute()?;
            if walk.local.minute() == 0 {
                continue 'again;
            }
        }
        if walk.local.second() != 0 {
            walk.next_full_minute()?;
            continue 'again;
        }
        return Timestamp::from_second(walk.at).ok();
    }
    None
}

/// The last time up to and including `until` that matches; `None` when none does within five years.
pub(crate) fn latest(fields: &[Field; 5], zone: &TimeZone, until: Timestamp) -> Option<Timestamp> {
    let today = zone.to_datetime(until).date();
    let first_year = today.year().checked_sub(YEARS)?;
    // If the clock goes back across midnight, the beginning of the next day has already passed.
    let mut date = today.tomorrow().ok()?;
    while date.year() >= first_year {
        let found = latest_on(fields, zone, date, until);
        if found.is_some() {
            let before = latest_on(fields, zone, date.yesterday().ok()?, until);
            return found.max(before);
        }
        date = date.yesterday().ok()?;
    }
    None
}

/// The last matching time on a local date up to `until`.
fn latest_on(fields: &[Field; 5], zone: &TimeZone, date: Date, until: Timestamp) -> Option<Timestamp> {
    let [minute, hour, _, month, _] = fields;
    if !is_set(month.mask, date.month()) || !allows_day(fields, date) {
        return None;
    }
    let hours = (0..24).filter(|value| is_set(hour.mask, *value));
    let times = hours.flat_map(|hour| {
        let minutes = (0..60).filter(|value| is_set(minute.mask, *value));
        minutes.map(move |minute| date.at(hour, minute, 0, 0))
    });
    times
        .flat_map(|local| instants(zone, local))
        .filter(|at| *at <= until)
        .max()
}

/// The instants at which clocks show `local`: two, one or none.
fn instants(zone: &TimeZone, local: DateTime) -> impl Iterator<Item = Timestamp> {
    let ambiguous = zone.to_ambiguous_timestamp(local);
    let both = [ambiguous.earlier(), ambiguous.later()].map(Result::ok);
    // In a gap, neither instant shows that time of day.
    let real = both.map(|at| at.filter(|at| zone.to_datetime(*at) == local));
    real.into_iter().flatten()
}

/// Whole seconds since 1970, rounded down.
pub(crate) fn floor(at: Timestamp) -> i64 {
    let second = at.as_nanosecond().div_euclid(1_000_000_000);
    i64::try_from(second).unwrap_or(i64::MIN)
}
