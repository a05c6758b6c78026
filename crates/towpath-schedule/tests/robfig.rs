//! Compares thousands of expressions with the results of the library that Kubernetes uses.
//!
//! `robfig/main.go` writes the cases. They cover zones whose clocks change at midnight, by half an hour or by two
//! hours, where the library's steps decide what it finds.
#![allow(clippy::unwrap_used)]

use jiff::Timestamp;
use serde::Deserialize;
use towpath_schedule::Schedule;

#[derive(Deserialize)]
struct Case {
    expression: String,
    zone: Option<String>,
    accepted: bool,
    #[serde(default)]
    after: i64,
    #[serde(default)]
    next: Vec<i64>,
}

#[test]
fn every_case_is_as_in_kubernetes() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("robfig/cases.json")).unwrap();
    assert_eq!(cases.len(), 3000);
    let (mut wrong, mut runs) = (Vec::new(), 0);
    for case in &cases {
        let Case { expression, zone, .. } = case;
        let schedule = match Schedule::parse(expression, zone.as_deref()) {
            Ok(schedule) => schedule,
            Err(error) => {
                if case.accepted {
                    wrong.push(format!("`{expression}` is refused: {error}"));
                }
                continue;
            }
        };
        if !case.accepted {
            wrong.push(format!("`{expression}` is accepted"));
            continue;
        }
        assert_eq!(schedule.to_string(), *expression);
        let first = Timestamp::from_second(case.after).unwrap();
        let next: Vec<i64> = std::iter::successors(schedule.next(first), |at| schedule.next(*at))
            .take(4)
            .map(Timestamp::as_second)
            .collect();
        runs += next.len();
        if next != case.next {
            wrong.push(format!(
                "`{expression}` in {zone:?} after {first}: {next:?} and not {:?}",
                case.next
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of 3000:\n{}", wrong.len(), wrong.join("\n"));
    assert!(runs > 6000, "only {runs} runs were compared");
}
