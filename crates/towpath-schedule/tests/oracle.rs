//! Compares `next` and `latest` with an oracle that checks every minute.
//!
//! The zones change their clocks by whole hours and not at midnight: there, Kubernetes uses the first minute that
//! matches. `robfig.rs` covers the other zones.
#![allow(clippy::unwrap_used)]

use jiff::{SignedDuration, Timestamp, civil::DateTime, tz::TimeZone};
use proptest::prelude::*;
use towpath_schedule::{Expression, Schedule, time_zone};

const ZONES: &[&str] = &[
    "UTC",
    "Europe/Berlin",
    "Europe/London",
    "America/New_York",
    "America/St_Johns",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Australia/Sydney",
];

/// Days on which some clocks change, and an ordinary one.
const DAYS: &[&str] = &[
    "2026-03-29T00:00:00Z",
    "2026-10-25T00:00:00Z",
    "2026-03-08T00:00:00Z",
    "2026-11-01T00:00:00Z",
    "2026-04-04T12:00:00Z",
    "2026-10-03T12:00:00Z",
    "2024-02-28T12:00:00Z",
    "2026-12-31T12:00:00Z",
];

/// The oracle has its own parser, only for the form that [`one_of`] writes.
fn holds(field: &str, value: i8, least: i8) -> bool {
    field.split(',').any(|item| match item.split_once('/') {
        Some(("*", step)) => (value - least) % step.parse::<i8>().unwrap() == 0,
        Some(_) => unreachable!("{item}"),
        None => match item.split_once('-') {
            Some((from, to)) => (from.parse().unwrap()..=to.parse().unwrap()).contains(&value),
            None => item == "*" || item.parse::<i8>().unwrap() == value,
        },
    })
}

fn matches(fields: &[String; 5], at: DateTime) -> bool {
    let [minute, hour, day, month, weekday] = fields;
    let by_day = holds(day, at.day(), 1);
    let by_weekday = holds(weekday, at.weekday().to_sunday_zero_offset(), 0);
    let both = day == "*" || weekday == "*";
    holds(minute, at.minute(), 0)
        && holds(hour, at.hour(), 0)
        && holds(month, at.month(), 1)
        && if both {
            by_day && by_weekday
        } else {
            by_day || by_weekday
        }
}

fn minute_of(at: Timestamp) -> i64 {
    at.as_second().div_euclid(60)
}

fn at_minute(minute: i64) -> Timestamp {
    Timestamp::from_second(minute * 60).unwrap()
}

/// The matching minutes from `from` to `to`.
fn all(fields: &[String; 5], zone: &TimeZone, from: Timestamp, to: Timestamp) -> Vec<Timestamp> {
    let minutes = minute_of(from)..=minute_of(to);
    let found = minutes.map(at_minute).filter(|at| *at >= from && *at <= to);
    found.filter(|at| matches(fields, zone.to_datetime(*at))).collect()
}

fn one_of(least: i8, most: i8) -> impl Strategy<Value = String> {
    let value = move || least..=most;
    prop_oneof![
        4 => Just("*".to_string()),
        3 => value().prop_map(|value| value.to_string()),
        1 => prop::collection::vec(value(), 2..4).prop_map(|all| {
            let all: Vec<String> = all.iter().map(i8::to_string).collect();
            all.join(",")
        }),
        1 => (value(), value()).prop_map(|(one, two)| format!("{}-{}", one.min(two), one.max(two))),
        1 => (2_i8..=most).prop_map(|step| format!("*/{step}")),
    ]
}

/// Five fields; the hours are mostly those of clock changes.
fn fields() -> impl Strategy<Value = [String; 5]> {
    let hour = prop_oneof![
        2 => (0_i8..=3).prop_map(|hour| hour.to_string()),
        1 => Just("1-3".to_string()),
        2 => one_of(0, 23),
    ];
    let rarely = |strategy: BoxedStrategy<String>| prop_oneof![3 => Just("*".to_string()), 1 => strategy];
    (
        one_of(0, 59),
        hour,
        rarely(one_of(1, 31).boxed()),
        rarely(one_of(1, 12).boxed()),
        rarely(one_of(0, 6).boxed()),
    )
        .prop_map(|(minute, hour, day, month, weekday)| [minute, hour, day, month, weekday])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn next_and_latest_are_what_a_look_at_every_minute_finds(
        fields in fields(),
        zone in 0..ZONES.len(),
        day in 0..DAYS.len(),
        // Within two days of the change, with fractions of a second.
        begin in -172_800_000..172_800_000_i64,
    ) {
        let zone = time_zone(ZONES[zone]).unwrap();
        let schedule = Schedule::parse(&fields.join(" "), zone.iana_name()).unwrap();
        let day: Timestamp = DAYS[day].parse().unwrap();
        let now = day + SignedDuration::from_millis(begin);
        let span = SignedDuration::from_hours(9 * 24);

        let later = all(&fields, &zone, now + SignedDuration::from_nanos(1), now + span);
        let next: Vec<Timestamp> = std::iter::successors(schedule.next(now), |at| schedule.next(*at))
            .take_while(|at| *at <= now + span)
            .take(500)
            .collect();
        prop_assert_eq!(&next[..], &later[..later.len().min(500)], "{:?} after {}", schedule, now);

        let earlier = all(&fields, &zone, now - span, now);
        match (schedule.latest(now), earlier.last()) {
            (latest, Some(expect)) => prop_assert_eq!(latest, Some(*expect), "{:?} until {}", schedule, now),
            (Some(latest), None) => prop_assert!(latest < now - span, "{:?} until {}: {}", schedule, now, latest),
            (None, None) => prop_assert!(schedule.next(now).is_none()),
        }
        // The result does not depend on when the last run was or how many runs were missed.
        let before = now - span;
        prop_assert_eq!(schedule.latest_since(before, now), earlier.last().copied().filter(|at| *at > before));
    }

    #[test]
    fn any_text_is_read_without_a_panic(text in "[-*?/,0-9a-zA-Z@#+. =\t]{0,40}|.{0,20}", after in any::<i32>()) {
        let after = Timestamp::from_second(i64::from(after)).unwrap();
        match Schedule::parse(&text, Some("Africa/Cairo")) {
            Ok(schedule) => {
                prop_assert_eq!(Expression::parse(&schedule.to_string()), Expression::parse(&text));
                let next = schedule.next(after);
                prop_assert!(next.is_none_or(|next| next > after));
                prop_assert!(schedule.latest(after).is_none_or(|latest| latest <= after));
                prop_assert!(schedule.next(Timestamp::MAX).is_none());
                prop_assert!(schedule.latest(Timestamp::MIN).is_none());
            }
            Err(error) => {
                let column = error.column().unwrap();
                prop_assert!(column >= 1 && column <= text.chars().count() + 1, "{}", error);
            }
        }
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn times(schedule: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    let schedule = Schedule::parse(schedule, Some(zone)).unwrap();
    let times = std::iter::successors(schedule.next(at(after)), |at| schedule.next(*at));
    times.take(count).map(|at| at.to_string()).collect()
}

#[test]
fn a_time_in_a_gap_does_not_take_place() {
    // The clock skips half past two on the 29th.
    let runs = times("30 2 * * *", "Europe/Berlin", "2026-03-28T00:00:00Z", 3);
    assert_eq!(
        runs,
        ["2026-03-28T01:30:00Z", "2026-03-30T00:30:00Z", "2026-03-31T00:30:00Z"]
    );
    // An expression for that day only runs a year later.
    let runs = times("30 2 29 3 *", "Europe/Berlin", "2026-03-01T00:00:00Z", 2);
    assert_eq!(runs, ["2027-03-29T00:30:00Z", "2028-03-29T00:30:00Z"]);
    let schedule = Schedule::parse("30 2 29 3 *", Some("Europe/Berlin")).unwrap();
    assert_eq!(
        schedule.latest(at("2026-12-31T00:00:00Z")),
        Some(at("2025-03-29T01:30:00Z"))
    );
    // Hourly and more frequent schedules continue without a gap.
    let runs = times("0 * * * *", "Europe/Berlin", "2026-03-28T23:30:00Z", 3);
    assert_eq!(
        runs,
        ["2026-03-29T00:00:00Z", "2026-03-29T01:00:00Z", "2026-03-29T02:00:00Z"]
    );
}

#[test]
fn a_time_that_comes_twice_takes_place_twice() {
    let runs = times("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 3);
    assert_eq!(
        runs,
        ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-26T01:30:00Z"]
    );
    let schedule = Schedule::parse("30 2 * * *", Some("Europe/Berlin")).unwrap();
    assert_eq!(
        schedule.latest(at("2026-10-25T01:00:00Z")),
        Some(at("2026-10-25T00:30:00Z"))
    );
    assert_eq!(
        schedule.latest(at("2026-10-25T01:30:00Z")),
        Some(at("2026-10-25T01:30:00Z"))
    );
}

#[test]
fn a_day_that_did_not_come_is_passed() {
    // Samoa skipped the 30th of December 2011.
    let runs = times("0 0 30,31 * *", "Pacific/Apia", "2011-12-01T00:00:00Z", 2);
    assert_eq!(runs, ["2011-12-30T10:00:00Z", "2012-01-29T10:00:00Z"]);
    let runs = times("0 0 30 12 *", "Pacific/Apia", "2011-12-01T00:00:00Z", 1);
    assert_eq!(runs, ["2012-12-29T10:00:00Z"]);
}

#[test]
fn the_29th_of_february_is_found_and_the_30th_is_not() {
    let runs = times("0 0 29 2 *", "UTC", "2026-02-03T00:00:00Z", 2);
    assert_eq!(runs, ["2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"]);
    let never = Schedule::parse("0 0 30 2 *", None).unwrap();
    assert_eq!(never.next(at("2026-01-01T00:00:00Z")), None);
    assert_eq!(never.latest(at("2026-01-01T00:00:00Z")), None);
    assert_eq!(
        never.latest_since(at("2020-01-01T00:00:00Z"), at("2026-01-01T00:00:00Z")),
        None
    );
}

#[test]
fn an_interval_counts_from_its_last_run() {
    let every = Schedule::parse("@every 90m", None).unwrap();
    assert!(every.is_interval() && !Schedule::parse("@hourly", None).unwrap().is_interval());
    let last = at("2026-01-01T00:00:00.75Z");
    assert_eq!(every.next(last), Some(at("2026-01-01T01:30:00Z")));
    assert_eq!(every.latest(last), None);
    assert_eq!(every.latest_since(last, at("2026-01-01T01:29:59Z")), None);
    assert_eq!(
        every.latest_since(last, at("2026-01-01T04:00:00Z")),
        Some(at("2026-01-01T03:00:00Z"))
    );
    // Also years later: 1,461 days are 23,376 times ninety minutes.
    assert_eq!(
        every.latest_since(last, at("2030-01-01T01:00:00Z")),
        Some(at("2030-01-01T00:00:00Z"))
    );
}

#[test]
fn an_error_says_whether_it_is_the_time_zone() {
    let error = Schedule::parse("0 25 * * *", Some("Europe/Berlin")).unwrap_err();
    assert_eq!(error.column(), Some(3));
    assert_eq!(
        error.to_string(),
        "`0 25 * * *` is not a cron expression: `25` is not an hour, which is 0 to 23 (column 3)"
    );
    let error = Schedule::parse("0 5 * * *", Some("Mars/Base")).unwrap_err();
    assert_eq!(error.column(), None);
    assert!(error.to_string().contains("`Mars/Base` is not a time zone"), "{error}");
}
