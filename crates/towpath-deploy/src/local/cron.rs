//! Decides when a CronJob's runs are due, and what happens to missed runs. Pure: the environment's controller calls it.
//!
//! Source of the rules: <https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/>

use super::model::{ConcurrencyPolicy, CronJob};
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// If more runs than this were missed and there is no `startingDeadlineSeconds`, none is started: the clock was most likely
/// wrong.
const TOO_MANY: usize = 100;

/// The next action for a CronJob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    /// Start the run that was due at `at`. If `replace`, first end the running ones.
    Start {
        at: Timestamp,
        replace: bool,
    },
    /// A run is due and waits for the running one.
    Held(Timestamp),
    /// Start nothing, and give up the missed runs.
    TooManyMissed,
}

/// Decides about `cron` while `active` runs are running. `last` is when its last run was due. Before the first run, it is when
/// the CronJob was created.
///
/// Of several missed runs, only the latest is started, and only if it is not later than `startingDeadlineSeconds`.
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
    let Some(at) = cron.schedule.latest_since(last, now).filter(|at| *at > earliest) else {
        return Due::Nothing;
    };
    if cron.starting_deadline.is_none() {
        let missed = std::iter::successors(cron.schedule.next(earliest), |at| cron.schedule.next(*at));
        if missed.take_while(|missed| *missed <= now).take(TOO_MANY + 1).count() > TOO_MANY {
            return Due::TooManyMissed;
        }
    }
    match cron.concurrency {
        ConcurrencyPolicy::Forbid if active > 0 => Due::Held(at),
        policy => Due::Start {
            at,
            replace: policy == ConcurrencyPolicy::Replace && active > 0,
        },
    }
}

/// The name of the Job for the run that was due at `at`. Everybody who starts the run uses the same name, so no run starts
/// twice.
pub(crate) fn run_name(cron: &str, at: Timestamp) -> String {
    format!("{cron}-{}", at.as_second() / 60)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::local::model::Job;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use towpath_schedule::Schedule;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn cron(schedule: &str, zone: Option<&str>) -> CronJob {
        let nothing = serde_json::json!({"spec": {"containers": [{"name": "a", "image": "a"}]}});
        CronJob {
            schedule: Schedule::parse(schedule, zone).unwrap(),
            concurrency: ConcurrencyPolicy::Allow,
            starting_deadline: None,
            suspend: false,
            keep_successful: 3,
            keep_failed: 1,
            job_template: serde_json::Value::Null,
            job: Job {
                backoff_limit: 0,
                active_deadline: None,
                ttl: None,
                pod: crate::local::model::parse_template(&nothing).unwrap(),
            },
        }
    }

    #[test]
    fn a_schedule_without_a_date_starts_nothing() {
        let never = cron("0 0 30 2 *", None);
        assert_eq!(
            due(&never, at("2026-01-01T00:00:00Z"), at("2027-01-01T00:00:00Z"), 0),
            Due::Nothing
        );
    }

    #[test]
    fn an_interval_counts_from_the_last_run() {
        let every = CronJob {
            starting_deadline: Some(Duration::from_secs(60)),
            ..cron("@every 10m", None)
        };
        let last = at("2026-03-02T09:03:00Z");
        assert_eq!(due(&every, last, at("2026-03-02T09:12:59Z"), 0), Due::Nothing);
        let start = Due::Start {
            at: at("2026-03-02T09:13:00Z"),
            replace: false,
        };
        assert_eq!(due(&every, last, at("2026-03-02T09:13:01Z"), 0), start);
        assert_eq!(due(&every, last, at("2026-03-02T09:14:01Z"), 0), Due::Nothing);
    }

    #[test]
    fn what_is_due() {
        let hourly = cron("0 * * * *", None);
        let last = at("2026-03-02T09:00:00Z");
        let start = |when: &str| Due::Start {
            at: at(when),
            replace: false,
        };
        let check = |cron: &CronJob, now: &str, active: usize, expect: Due| {
            assert_eq!(
                due(cron, last, at(now), active),
                expect,
                "{now} with {active} under way"
            );
        };
        check(&hourly, "2026-03-02T09:59:59.999Z", 0, Due::Nothing);
        check(&hourly, "2026-03-02T10:00:00Z", 0, start("2026-03-02T10:00:00Z"));
        check(&hourly, "2026-03-02T10:00:00Z", 3, start("2026-03-02T10:00:00Z"));
        // Of several missed runs, start only the latest.
        check(&hourly, "2026-03-02T13:30:00Z", 0, start("2026-03-02T13:00:00Z"));
        // Setting the clock back starts nothing.
        check(&hourly, "2026-03-02T07:30:00Z", 0, Due::Nothing);
        // A hundred runs may be missed, but no more.
        check(&hourly, "2026-03-06T13:30:00Z", 0, start("2026-03-06T13:00:00Z"));
        check(&hourly, "2026-03-06T14:00:00Z", 0, Due::TooManyMissed);
        // With a deadline, the number of missed runs does not matter.
        let in_time = CronJob {
            starting_deadline: Some(Duration::from_secs(600)),
            ..hourly.clone()
        };
        check(&in_time, "2026-03-02T10:10:00Z", 0, start("2026-03-02T10:00:00Z"));
        check(&in_time, "2026-03-02T10:10:01Z", 0, Due::Nothing);
        check(&in_time, "2026-04-02T10:05:00Z", 0, start("2026-04-02T10:00:00Z"));
        let patient = CronJob {
            starting_deadline: Some(Duration::from_secs(3600 * 24 * 365)),
            ..cron("0 0 * * *", None)
        };
        check(&patient, "2026-12-02T10:05:00Z", 0, start("2026-12-02T00:00:00Z"));
        let endless = CronJob {
            starting_deadline: Some(Duration::MAX),
            ..hourly.clone()
        };
        check(&endless, "2026-12-02T10:05:00Z", 0, start("2026-12-02T10:00:00Z"));

        let forbid = CronJob {
            concurrency: ConcurrencyPolicy::Forbid,
            ..hourly.clone()
        };
        check(
            &forbid,
            "2026-03-02T11:30:00Z",
            1,
            Due::Held(at("2026-03-02T11:00:00Z")),
        );
        check(&forbid, "2026-03-02T11:30:00Z", 0, start("2026-03-02T11:00:00Z"));
        let replace = CronJob {
            concurrency: ConcurrencyPolicy::Replace,
            ..hourly.clone()
        };
        check(
            &replace,
            "2026-03-02T10:30:00Z",
            1,
            Due::Start {
                at: at("2026-03-02T10:00:00Z"),
                replace: true,
            },
        );
        check(&replace, "2026-03-02T10:30:00Z", 0, start("2026-03-02T10:00:00Z"));
        check(
            &CronJob {
                suspend: true,
                ..hourly
            },
            "2026-03-02T10:30:00Z",
            0,
            Due::Nothing,
        );
    }

    const SCHEDULES: &[&str] = &[
        "* * * * *",
        "*/7 * * * *",
        "15 * * * *",
        "30 2 * * *",
        "0,30 1-3 * * *",
        "0 0 * * 1",
        "0 0 1 * *",
        "5 4 29 2 *",
        "*/10 2 * 3,10 0",
    ];
    const ZONES: &[&str] = &[
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "Asia/Kolkata",
        "Australia/Lord_Howe",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// Whatever the clock does and however long the server is away: no run starts twice, starts too late, or starts without
        /// being in the schedule.
        #[test]
        fn never_two_runs_for_one_due_time(
            schedule in 0..SCHEDULES.len(),
            zone in 0..ZONES.len(),
            // Around both changes between winter and summer time.
            autumn in any::<bool>(),
            policy in 0..3_u8,
            deadline in prop::option::of(0..100_000_u64),
            // How far the clock moves, possibly backwards, and whether the running runs have ended by then.
            steps in prop::collection::vec((-4000..90_000_i64, any::<bool>()), 1..60),
        ) {
            let mut cron = cron(SCHEDULES[schedule], Some(ZONES[zone]));
            cron.starting_deadline = deadline.map(Duration::from_secs);
            cron.concurrency = [ConcurrencyPolicy::Allow, ConcurrencyPolicy::Forbid, ConcurrencyPolicy::Replace][usize::from(policy)];
            let mut now = at(if autumn { "2026-10-23T00:00:00Z" } else { "2026-03-27T00:00:00Z" });
            let (mut last, mut active) = (now, 0);
            let (mut started, mut names) = (Vec::<Timestamp>::new(), BTreeSet::new());
            for (seconds, ended) in steps {
                now += SignedDuration::from_secs(seconds);
                if ended {
                    active = 0;
                }
                match due(&cron, last, now, active) {
                    Due::Nothing => {}
                    Due::Held(when) => {
                        prop_assert!(cron.concurrency == ConcurrencyPolicy::Forbid && active > 0);
                        prop_assert!(when > last && when <= now);
                    }
                    Due::TooManyMissed => {
                        prop_assert!(cron.starting_deadline.is_none());
                        last = now;
                    }
                    Due::Start { replace: true, .. } => {
                        prop_assert!(cron.concurrency == ConcurrencyPolicy::Replace && active > 0);
                        active = 0;
                    }
                    Due::Start { at: when, replace: false } => {
                        prop_assert!(when <= now, "{when} is not due at {now}");
                        prop_assert!(started.last().is_none_or(|before| *before < when), "{when} after {started:?}");
                        prop_assert!(names.insert(run_name("tick", when)), "the name of {when} was taken");
                        // The run is in the schedule, and no later run is due.
                        prop_assert_eq!(cron.schedule.next(when - SignedDuration::from_secs(1)), Some(when));
                        prop_assert!(cron.schedule.next(when).is_none_or(|next| next > now));
                        if let Some(deadline) = deadline {
                            prop_assert!(now.duration_since(when) <= SignedDuration::from_secs(i64::try_from(deadline).unwrap()));
                        }
                        if cron.concurrency != ConcurrencyPolicy::Allow {
                            prop_assert_eq!(active, 0);
                        }
                        started.push(when);
                        (last, active) = (when, active + 1);
                    }
                }
            }
        }
    }
}
