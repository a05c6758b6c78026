//! How a Job ended.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use std::cmp::Ordering;
use towpath_kube::{condition, container_statuses, text_at};
use towpath_types::Outcome;

/// The exit codes of a program that SIGKILL or SIGTERM ended.
const STOPPED: [i64; 2] = [128 + 9, 128 + 15];

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
pub(in crate::kubernetes) fn failed_at(job: &Value) -> Option<Timestamp> {
    let failed = condition(job, "Failed")?;
    text_at(failed, "/lastTransitionTime").parse().ok()
}

/// Whether a pod has run to its end.
pub(super) fn has_ended(pod: &Value) -> bool {
    matches!(text_at(pod, "/status/phase").as_str(), "Failed" | "Succeeded")
}

/// The exit code of the container that ended last. Ignores a stopped container unless there is no other: when a pod fails, the
/// Job's controller stops the others.
pub(super) fn exit_code(pods: &[Value], outcome: Outcome) -> Option<i64> {
    if outcome == Outcome::Succeeded {
        return Some(0);
    }
    let mut last: Option<((bool, String), i64)> = None;
    for (pod, status) in pods
        .iter()
        .flat_map(|pod| container_statuses(pod).into_iter().map(move |status| (pod, status)))
    {
        for state in ["/state/terminated", "/lastState/terminated"] {
            let Some(code) = status.pointer(&format!("{state}/exitCode")).and_then(Value::as_i64) else {
                continue;
            };
            let at = text_at(status, &format!("{state}/finishedAt"));
            let rank = (!was_stopped(pod, &at, code), at);
            if code != 0 && last.as_ref().is_none_or(|(known, _)| *known <= rank) {
                last = Some((rank, code));
            }
        }
    }
    last.map(|(_, code)| code)
}

/// Whether a container that ended with `code` ended because its pod was deleted.
fn was_stopped(pod: &Value, ended: &str, code: i64) -> bool {
    let Ok(due) = text_at(pod, "/metadata/deletionTimestamp").parse::<Timestamp>() else {
        return false;
    };
    let grace = pod
        .pointer("/metadata/deletionGracePeriodSeconds")
        .and_then(Value::as_i64);
    let Ok(deleted) = due.checked_sub(SignedDuration::from_secs(grace.unwrap_or(0))) else {
        return false;
    };
    // The times are whole seconds.
    match ended.parse::<Timestamp>().map(|ended| ended.cmp(&deleted)) {
        Ok(Ordering::Greater) => true,
        Ok(Ordering::Equal) => STOPPED.contains(&code),
        Ok(Ordering::Less) | Err(_) => false,
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

    #[test]
    fn a_container_that_was_stopped_does_not_hide_the_one_that_failed() {
        let pod = |deleted: Option<(&str, i64)>, ended: &str, code: i64| {
            let mut pod = json!({"metadata": {}, "status": {"containerStatuses": [
                {"state": {"terminated": {"finishedAt": ended, "exitCode": code}}}]}});
            if let Some((due, grace)) = deleted {
                pod["metadata"] = json!({"deletionTimestamp": due, "deletionGracePeriodSeconds": grace});
            }
            pod
        };
        let code = |pods: &[Value]| exit_code(pods, Outcome::Failed);
        let failed = pod(None, "2026-01-01T00:00:05Z", 7);
        // Deleted at 00:00:06 with ten seconds of grace.
        let stopped = pod(Some(("2026-01-01T00:00:16Z", 10)), "2026-01-01T00:00:06Z", 143);
        assert_eq!(code(&[failed, stopped.clone()]), Some(7));
        assert_eq!(code(std::slice::from_ref(&stopped)), Some(143));
        // Deleted after its end, as `ttlSecondsAfterFinished` does.
        let cleared_away = pod(Some(("2026-01-01T00:00:09Z", 0)), "2026-01-01T00:00:09Z", 9);
        assert_eq!(code(&[cleared_away, stopped]), Some(9));
    }
}
