//! How a Job ended.

use serde_json::Value;
use std::collections::BTreeMap;
use towpath_kube::{condition, container_statuses, text_at};
use towpath_types::Outcome;

/// The outcome of a Job and a sentence about it; `None` while it runs.
pub(in crate::kubernetes) fn end_of(job: &Value) -> Option<(Outcome, String)> {
    let holds = |kind: &str| condition(job, kind).filter(|condition| text_at(condition, "/status") == "True");
    if holds("Complete").is_some() {
        return Some((Outcome::Succeeded, String::new()));
    }
    let failed = holds("Failed")?;
    let (reason, message) = (text_at(failed, "/reason"), text_at(failed, "/message"));
    let outcome = match reason.as_str() {
        "DeadlineExceeded" => Outcome::TimedOut,
        _ => Outcome::Failed,
    };
    Some((outcome, format!("{message} ({reason})")))
}

/// When a Job failed.
pub(in crate::kubernetes) fn failed_at(job: &Value) -> Option<jiff::Timestamp> {
    let failed = condition(job, "Failed")?;
    text_at(failed, "/lastTransitionTime").parse().ok()
}

/// The exit code of the container that ended last.
pub(super) fn exit_code(pods: &[Value], outcome: Outcome) -> Option<i64> {
    let mut by_time: BTreeMap<String, i64> = BTreeMap::new();
    for status in pods.iter().flat_map(|pod| container_statuses(pod)) {
        for state in ["/state/terminated", "/lastState/terminated"] {
            if let Some(code) = status.pointer(&format!("{state}/exitCode")).and_then(Value::as_i64) {
                by_time.insert(text_at(status, &format!("{state}/finishedAt")), code);
            }
        }
    }
    match outcome {
        Outcome::Succeeded => Some(0),
        _ => by_time.into_values().next_back().filter(|code| *code != 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_job_ends_by_its_conditions() {
        let end = |conditions: Value| end_of(&json!({"status": {"conditions": conditions}}));
        assert_eq!(end(json!([])), None);
        assert_eq!(end(json!([{"type": "Complete", "status": "False"}])), None);
        assert_eq!(
            end(json!([{"type": "Complete", "status": "True"}])),
            Some((Outcome::Succeeded, String::new()))
        );
        assert_eq!(
            end(json!([{"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "message": "too slow"}])),
            Some((Outcome::TimedOut, "too slow (DeadlineExceeded)".to_string()))
        );
    }

    #[test]
    fn the_exit_code_is_that_of_the_last_container() {
        let terminated = |at: &str, code: i64| json!({"status": {"containerStatuses": [{"state": {"terminated": {"finishedAt": at, "exitCode": code}}}]}});
        let pods = [
            terminated("2026-01-01T00:00:02Z", 7),
            terminated("2026-01-01T00:00:01Z", 3),
        ];
        assert_eq!(exit_code(&pods, Outcome::Failed), Some(7));
        assert_eq!(exit_code(&[], Outcome::Failed), None);
        assert_eq!(exit_code(&[], Outcome::Succeeded), Some(0));
    }
}
