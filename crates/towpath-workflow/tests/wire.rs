//! Stored events stay readable for ever.
//!
//! The JSON here is what version 1 wrote. Do not change it: an incompatible change needs a new version.

#![allow(clippy::unwrap_used)]

use jiff::Timestamp;
use serde_json::{Value, json};
use std::time::Duration;
use towpath_types::{Digest, Outcome, ReleaseId};
use towpath_workflow::{
    Definition, Event, JobDefinition, JobKind, RequiredStatus, Requirement, Timer, TimerKind, release,
    wire::{WireError, read_release_event, read_workflow_event, write_release_event, write_workflow_event},
};

const OUTCOMES: [(Outcome, &str); 7] = [
    (Outcome::Succeeded, "succeeded"),
    (Outcome::Failed, "failed"),
    (Outcome::Errored, "errored"),
    (Outcome::TimedOut, "timed_out"),
    (Outcome::Canceled, "canceled"),
    (Outcome::Skipped, "skipped"),
    (Outcome::Rejected, "rejected"),
];

fn at() -> Timestamp {
    "2026-11-30T12:00:00.000000001Z".parse().unwrap()
}

fn stored(event: &str) -> Value {
    serde_json::from_str(&format!("{{\"version\":1,\"event\":{event}}}")).unwrap()
}

fn workflow(event: &Event, text: &str) {
    assert_eq!(write_workflow_event(event), stored(text));
    assert_eq!(read_workflow_event(stored(text)).unwrap(), *event);
}

fn release(event: &release::Event, text: &str) {
    assert_eq!(write_release_event(event), stored(text));
    assert_eq!(read_release_event(stored(text)).unwrap(), *event);
}

#[test]
fn version_1_of_a_workflows_creation() {
    let mut test = JobDefinition::new("test", JobKind::Build { nodes: 4 }, vec![]);
    test.retries = 2;
    test.time_limit = Some(Duration::from_secs(3600));
    let mut mac = JobDefinition::new("mac", JobKind::Build { nodes: 1 }, vec![Requirement::success("test")]);
    mac.cannot_run = Some("`macos` cannot be run here".into());
    let statuses = RequiredStatus::TERMINAL.to_vec();
    let any = Requirement {
        job: "mac".into(),
        statuses,
    };
    let hold = JobDefinition::new("hold", JobKind::Approval, vec![any]);
    let done = JobDefinition::new("done", JobKind::NoOp, vec![]);
    workflow(
        &Event::Created {
            definition: Definition::new(vec![test, mac, hold, done]).unwrap(),
            succeeded: vec!["done".into()],
            at: at(),
        },
        r#"{
            "type": "created",
            "jobs": [
                {"name": "test", "kind": {"build": {"nodes": 4}}, "retries": 2, "time_limit_seconds": 3600},
                {
                    "name": "mac", "kind": {"build": {"nodes": 1}},
                    "requires": [{"job": "test", "statuses": ["success"]}],
                    "cannot_run": "`macos` cannot be run here"
                },
                {
                    "name": "hold", "kind": "approval",
                    "requires": [
                        {"job": "mac", "statuses": ["success", "failed", "canceled", "unauthorized", "not_run"]}
                    ]
                },
                {"name": "done", "kind": "no_op"}
            ],
            "succeeded": ["done"],
            "at": "2026-11-30T12:00:00.000000001Z"
        }"#,
    );
}

#[test]
fn version_1_of_a_workflows_events() {
    let (job, attempt) = ("test".to_string(), 2);
    workflow(
        &Event::JobClaimed {
            job: job.clone(),
            attempt,
            by: "server-1".into(),
            at: at(),
        },
        r#"{"type": "job_claimed", "job": "test", "attempt": 2, "by": "server-1", "at": "2026-11-30T12:00:00.000000001Z"}"#,
    );
    workflow(
        &Event::JobReleased {
            job: job.clone(),
            attempt,
            reason: "server-1 is gone".into(),
            at: at(),
        },
        r#"{"type": "job_released", "job": "test", "attempt": 2, "reason": "server-1 is gone", "at": "2026-11-30T12:00:00.000000001Z"}"#,
    );
    workflow(
        &Event::JobStarted {
            job: job.clone(),
            attempt,
            at: at(),
        },
        r#"{"type": "job_started", "job": "test", "attempt": 2, "at": "2026-11-30T12:00:00.000000001Z"}"#,
    );
    for (outcome, word) in OUTCOMES {
        workflow(
            &Event::JobFinished {
                job: job.clone(),
                attempt,
                outcome,
                message: None,
                at: at(),
            },
            &r#"{"type": "job_finished", "job": "test", "attempt": 2, "outcome": "WORD", "at": "2026-11-30T12:00:00.000000001Z"}"#
                .replace("WORD", word),
        );
    }
    workflow(
        &Event::JobFinished {
            job: job.clone(),
            attempt,
            outcome: Outcome::Failed,
            message: Some("exit code 1".into()),
            at: at(),
        },
        r#"{"type": "job_finished", "job": "test", "attempt": 2, "outcome": "failed", "message": "exit code 1", "at": "2026-11-30T12:00:00.000000001Z"}"#,
    );
    workflow(
        &Event::RetryRequested {
            job: job.clone(),
            attempt,
            by: "ada".into(),
            at: at(),
        },
        r#"{"type": "retry_requested", "job": "test", "attempt": 2, "by": "ada", "at": "2026-11-30T12:00:00.000000001Z"}"#,
    );
    workflow(
        &Event::Approved {
            job: "hold".into(),
            by: "ada".into(),
            plan: Some("sha256:00".into()),
            at: at(),
        },
        r#"{"type": "approved", "job": "hold", "by": "ada", "plan": "sha256:00", "at": "2026-11-30T12:00:00.000000001Z"}"#,
    );
    workflow(
        &Event::Approved {
            job: "hold".into(),
            by: "ada".into(),
            plan: None,
            at: at(),
        },
        r#"{"type": "approved", "job": "hold", "by": "ada", "at": "2026-11-30T12:00:00.000000001Z"}"#,
    );
    workflow(
        &Event::CancelRequested {
            by: "ada".into(),
            at: at(),
        },
        r#"{"type": "cancel_requested", "by": "ada", "at": "2026-11-30T12:00:00.000000001Z"}"#,
    );
    for (kind, word) in [
        (TimerKind::Retry, "retry"),
        (TimerKind::TimeLimit, "time_limit"),
        (TimerKind::StopGrace, "stop_grace"),
    ] {
        let timer = Timer {
            kind,
            job: job.clone(),
            attempt,
        };
        workflow(
            &Event::TimerFired { timer, at: at() },
            &r#"{"type": "timer_fired", "timer": "WORD", "job": "test", "attempt": 2, "at": "2026-11-30T12:00:00.000000001Z"}"#
                .replace("WORD", word),
        );
    }
}

#[test]
fn version_1_of_a_releases_events() {
    let plan: Digest = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
    let digest = plan.to_string();
    release(
        &release::Event::Planned {
            plan: plan.clone(),
            parent: Some(ReleaseId::from_u128(1)),
            on_failure: release::OnFailure::Rollback,
            at: at(),
        },
        &r#"{"type": "planned", "plan": "DIGEST", "parent": "00000000-0000-0000-0000-000000000001", "on_failure": "rollback", "at": "2026-11-30T12:00:00.000000001Z"}"#
            .replace("DIGEST", &digest),
    );
    release(
        &release::Event::Planned {
            plan: plan.clone(),
            parent: None,
            on_failure: release::OnFailure::Stop,
            at: at(),
        },
        &r#"{"type": "planned", "plan": "DIGEST", "on_failure": "stop", "at": "2026-11-30T12:00:00.000000001Z"}"#
            .replace("DIGEST", &digest),
    );
    release(
        &release::Event::Approved {
            plan,
            by: "ada".into(),
            at: at(),
        },
        &r#"{"type": "approved", "plan": "DIGEST", "by": "ada", "at": "2026-11-30T12:00:00.000000001Z"}"#
            .replace("DIGEST", &digest),
    );
    for (event, word) in [
        (release::Event::ApplyBegan { at: at() }, "apply_began"),
        (release::Event::Applied { at: at() }, "applied"),
        (release::Event::Succeeded { at: at() }, "succeeded"),
        (release::Event::RollbackBegan { at: at() }, "rollback_began"),
        (release::Event::RolledBack { at: at() }, "rolled_back"),
        (release::Event::Recorded { at: at() }, "recorded"),
    ] {
        release(
            &event,
            &r#"{"type": "WORD", "at": "2026-11-30T12:00:00.000000001Z"}"#.replace("WORD", word),
        );
    }
    for (outcome, word) in OUTCOMES {
        let message = "no".into();
        release(
            &release::Event::Failed {
                outcome,
                message,
                at: at(),
            },
            &r#"{"type": "failed", "outcome": "WORD", "message": "no", "at": "2026-11-30T12:00:00.000000001Z"}"#
                .replace("WORD", word),
        );
    }
    release(
        &release::Event::RollbackFailed {
            message: "no".into(),
            at: at(),
        },
        r#"{"type": "rollback_failed", "message": "no", "at": "2026-11-30T12:00:00.000000001Z"}"#,
    );
    release(
        &release::Event::Overtaken {
            by: "eve".into(),
            at: at(),
        },
        r#"{"type": "overtaken", "by": "eve", "at": "2026-11-30T12:00:00.000000001Z"}"#,
    );
    for (why, word) in [
        (release::Why::StalePlan, "stale_plan"),
        (release::Why::NewerDecision, "newer_decision"),
        (release::Why::Refused, "refused"),
        (release::Why::Withdrawn, "withdrawn"),
        (release::Why::Unable, "unable"),
    ] {
        let message = "no".into();
        release(
            &release::Event::Abandoned { why, message, at: at() },
            &r#"{"type": "abandoned", "why": "WORD", "message": "no", "at": "2026-11-30T12:00:00.000000001Z"}"#
                .replace("WORD", word),
        );
    }
}

#[test]
fn nothing_is_read_and_then_ignored() {
    let event = json!({"type": "cancel_requested", "by": "ada", "at": "2026-11-30T12:00:00Z"});
    let read = |stored: Value| read_workflow_event(stored).unwrap_err();
    let newer = read(json!({"version": 2, "something": "else"}));
    assert!(matches!(newer, WireError::Version(2)), "{newer}");
    assert_eq!(
        newer.to_string(),
        "a stored event has version 2: a newer Towpath wrote it, and this one reads up to version 1"
    );
    let mut more = event.clone();
    more["because"] = "why not".into();
    let job = json!({"name": "a", "kind": {"build": {"nodes": 1, "size": "large"}}});
    let created = json!({"type": "created", "jobs": [job], "at": "2026-11-30T12:00:00Z"});
    for bad in [
        event.clone(),
        json!({"version": 1, "event": event, "more": true}),
        json!({"version": 1, "event": more}),
        json!({"version": 1, "event": created}),
        json!({"version": 1, "event": {"type": "nosuch"}}),
        json!({"version": 1}),
        json!(null),
    ] {
        let error = read(bad.clone());
        assert!(matches!(error, WireError::Form(_)), "{bad}: {error}");
    }
}

#[test]
fn a_stored_definition_is_checked_again() {
    let job = json!({"name": "a", "kind": {"build": {"nodes": 0}}});
    let stored = json!({"version": 1, "event": {"type": "created", "jobs": [job], "at": "2026-11-30T12:00:00Z"}});
    let error = read_workflow_event(stored).unwrap_err();
    assert!(matches!(error, WireError::Definition(_)), "{error}");
}
