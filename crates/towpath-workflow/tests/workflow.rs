//! The rules of a workflow, one by one.

#![allow(clippy::unwrap_used)]

use jiff::Timestamp;
use std::time::Duration;
use towpath_types::{JobStatus, Outcome, WorkflowStatus};
use towpath_workflow::{
    AttemptEnd, Definition, Effect, Event, Illegal, JobDefinition, JobKind, JobState, RequiredStatus, Requirement,
    Timer, TimerKind, Workflow,
};

const BUILD: JobKind = JobKind::Build { nodes: 1 };

/// A moment, in seconds.
fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn job(name: &str, kind: JobKind, requires: &[&str]) -> JobDefinition {
    let requires = requires
        .iter()
        .map(|text| match text.split_once('=') {
            Some((job, "failed")) => Requirement {
                job: job.into(),
                statuses: vec![RequiredStatus::Failed],
            },
            Some((job, _)) => Requirement {
                job: job.into(),
                statuses: RequiredStatus::TERMINAL.to_vec(),
            },
            None => Requirement::success(*text),
        })
        .collect();
    JobDefinition::new(name, kind, requires)
}

fn retried(name: &str, retries: u32) -> JobDefinition {
    JobDefinition {
        retries,
        ..job(name, BUILD, &[])
    }
}

fn limited(name: &str, seconds: u64) -> JobDefinition {
    JobDefinition {
        time_limit: Some(Duration::from_secs(seconds)),
        ..job(name, BUILD, &[])
    }
}

fn make(jobs: Vec<JobDefinition>) -> (Workflow, Vec<Effect>) {
    Workflow::create(Event::Created {
        definition: Definition::new(jobs).unwrap(),
        succeeded: Vec::new(),
        at: at(0),
    })
    .unwrap()
}

fn claim(job: &str, attempt: u32) -> Event {
    Event::JobClaimed {
        job: job.into(),
        attempt,
        by: "server-1".into(),
        at: at(0),
    }
}

fn started(job: &str, attempt: u32, second: i64) -> Event {
    Event::JobStarted {
        job: job.into(),
        attempt,
        at: at(second),
    }
}

fn finished(job: &str, attempt: u32, outcome: Outcome, second: i64) -> Event {
    Event::JobFinished {
        job: job.into(),
        attempt,
        outcome,
        message: None,
        at: at(second),
    }
}

fn released(job: &str, attempt: u32) -> Event {
    Event::JobReleased {
        job: job.into(),
        attempt,
        reason: "server-1 is gone".into(),
        at: at(0),
    }
}

fn retry(job: &str, attempt: u32) -> Event {
    Event::RetryRequested {
        job: job.into(),
        attempt,
        by: "ada".into(),
        at: at(0),
    }
}

fn approve(job: &str) -> Event {
    Event::Approved {
        job: job.into(),
        by: "bob".into(),
        plan: Some("sha256:p1".into()),
        at: at(0),
    }
}

fn cancel(second: i64) -> Event {
    Event::CancelRequested {
        by: "ada".into(),
        at: at(second),
    }
}

fn timer(kind: TimerKind, job: &str, attempt: u32) -> Timer {
    Timer {
        kind,
        job: job.into(),
        attempt,
    }
}

fn fired(timer: &Timer, second: i64) -> Event {
    Event::TimerFired {
        timer: timer.clone(),
        at: at(second),
    }
}

/// Runs jobs to their ends, written as `name:outcome`, in their current attempts. Returns the effects of the last event.
fn play(workflow: &mut Workflow, script: &str) -> Vec<Effect> {
    let mut last = Vec::new();
    for word in script.split_whitespace() {
        let (job, outcome) = word.split_once(':').unwrap();
        let attempt = workflow.job(job).unwrap().attempt;
        let outcome = match outcome {
            "ok" => Outcome::Succeeded,
            "failed" => Outcome::Failed,
            "errored" => Outcome::Errored,
            other => panic!("{other}"),
        };
        workflow.apply(claim(job, attempt)).unwrap();
        workflow.apply(started(job, attempt, 0)).unwrap();
        last = workflow.apply(finished(job, attempt, outcome, 0)).unwrap();
    }
    last
}

fn refused(workflow: &mut Workflow, event: Event) -> Illegal {
    let before = workflow.clone();
    let illegal = workflow.apply(event).unwrap_err();
    assert_eq!(*workflow, before);
    illegal
}

fn refusal(workflow: &mut Workflow, event: Event) -> String {
    refused(workflow, event).to_string()
}

fn queue(job: &str, attempt: u32) -> Effect {
    Effect::QueueJob {
        job: job.into(),
        attempt,
    }
}

fn stop(job: &str, attempt: u32) -> Effect {
    Effect::StopJob {
        job: job.into(),
        attempt,
    }
}

fn hold(job: &str) -> Effect {
    Effect::HoldJob { job: job.into() }
}

fn set(timer: &Timer, second: i64) -> Effect {
    Effect::SetTimer {
        timer: timer.clone(),
        at: at(second),
    }
}

fn forget(timer: &Timer) -> Effect {
    Effect::CancelTimer { timer: timer.clone() }
}

fn finish(outcome: Outcome) -> Effect {
    Effect::Finished { outcome }
}

fn message(workflow: &Workflow, job: &str) -> String {
    match &workflow.job(job).unwrap().state {
        JobState::Ended { message, .. } => message.clone().unwrap_or_default(),
        other => panic!("{job} is {other:?}"),
    }
}

#[test]
fn a_chain_with_a_gate_runs_in_order() {
    let (mut workflow, effects) = make(vec![
        job("test", BUILD, &[]),
        job("hold", JobKind::Approval, &["test"]),
        job("deploy", BUILD, &["hold"]),
    ]);
    assert_eq!(effects, [queue("test", 1)]);
    assert_eq!(workflow.status(), WorkflowStatus::Running);
    assert_eq!(workflow.apply(claim("test", 1)), Ok(vec![]));
    assert_eq!(workflow.job("test").unwrap().status(), JobStatus::Claimed);
    assert_eq!(workflow.outstanding(), []);
    assert_eq!(workflow.apply(started("test", 1, 5)), Ok(vec![]));
    assert_eq!(workflow.job("test").unwrap().started_at, Some(at(5)));
    assert_eq!(
        workflow.apply(finished("test", 1, Outcome::Succeeded, 9)),
        Ok(vec![hold("hold")])
    );
    assert_eq!(workflow.status(), WorkflowStatus::OnHold);
    assert_eq!(workflow.apply(approve("hold")), Ok(vec![queue("deploy", 1)]));
    let approval = workflow.job("hold").unwrap().approval.clone().unwrap();
    assert_eq!(approval.plan.as_deref(), Some("sha256:p1"));
    assert_eq!(play(&mut workflow, "deploy:ok"), [finish(Outcome::Succeeded)]);
    assert_eq!(workflow.status(), WorkflowStatus::Ended(Outcome::Succeeded));
}

#[test]
fn a_failure_holds_everything_behind_it_unless_it_is_asked_for() {
    let (mut workflow, _) = make(vec![
        job("smoke", BUILD, &[]),
        job("hold", JobKind::Approval, &["smoke"]),
        job("deploy", BUILD, &["hold"]),
        job("tell", BUILD, &["smoke=failed"]),
        job("clean", BUILD, &["deploy=terminal"]),
    ]);
    assert_eq!(
        play(&mut workflow, "smoke:failed"),
        [queue("clean", 1), queue("tell", 1)]
    );
    assert_eq!(workflow.job("deploy").unwrap().outcome(), Some(Outcome::Skipped));
    assert_eq!(workflow.status(), WorkflowStatus::Failing);
    assert_eq!(
        refusal(&mut workflow, approve("hold")),
        "`hold` is not needed any more: `smoke` failed"
    );
    assert_eq!(play(&mut workflow, "tell:ok clean:ok"), [finish(Outcome::Failed)]);
}

#[test]
fn a_gate_opens_once_and_only_when_it_is_its_turn() {
    let (mut workflow, _) = make(vec![
        job("test", BUILD, &[]),
        job("lint", BUILD, &[]),
        job("hold", JobKind::Approval, &["test", "lint"]),
        job("deploy", BUILD, &["hold"]),
    ]);
    play(&mut workflow, "lint:ok");
    assert_eq!(
        refusal(&mut workflow, approve("hold")),
        "`hold` cannot be approved yet: it waits for `test`"
    );
    assert_eq!(
        refusal(&mut workflow, approve("test")),
        "`test` is not an approval: it runs by itself"
    );
    assert_eq!(
        refusal(&mut workflow, approve("nosuch")),
        "the workflow has no job `nosuch`"
    );
    play(&mut workflow, "test:ok");
    workflow.apply(approve("hold")).unwrap();
    assert_eq!(
        refusal(&mut workflow, approve("hold")),
        "`hold` was already approved by bob at 1970-01-01 00:00:00 UTC"
    );
}

#[test]
fn cancel_stops_what_runs_and_ends_what_waits() {
    let (mut workflow, _) = make(vec![
        job("a", BUILD, &[]),
        job("b", BUILD, &[]),
        job("hold", JobKind::Approval, &[]),
        job("c", BUILD, &["a"]),
    ]);
    workflow.apply(claim("a", 1)).unwrap();
    workflow.apply(started("a", 1, 0)).unwrap();
    let grace = timer(TimerKind::StopGrace, "a", 1);
    assert_eq!(workflow.apply(cancel(100)), Ok(vec![stop("a", 1), set(&grace, 160)]));
    assert_eq!(workflow.outstanding(), [stop("a", 1), set(&grace, 160)]);
    assert_eq!(message(&workflow, "b"), "canceled by ada");
    assert_eq!(
        refusal(&mut workflow, approve("hold")),
        "the workflow was canceled by ada at 1970-01-01 00:01:40 UTC"
    );
    assert_eq!(
        refusal(&mut workflow, cancel(101)),
        "the workflow was canceled by ada at 1970-01-01 00:01:40 UTC"
    );
    assert_eq!(
        refusal(&mut workflow, retry("a", 1)),
        "the workflow was canceled by ada at 1970-01-01 00:01:40 UTC"
    );
    // A job that succeeds while it is stopping does not revive the workflow.
    assert_eq!(
        workflow.apply(finished("a", 1, Outcome::Succeeded, 110)),
        Ok(vec![forget(&grace), finish(Outcome::Canceled)])
    );
    assert_eq!(workflow.job("a").unwrap().outcome(), Some(Outcome::Succeeded));
    assert_eq!(
        refusal(&mut workflow, cancel(200)),
        "the workflow has already ended (canceled)"
    );
}

#[test]
fn a_canceled_job_that_does_not_stop_is_ended() {
    let (mut workflow, _) = make(vec![job("a", BUILD, &[])]);
    workflow.apply(claim("a", 1)).unwrap();
    workflow.apply(cancel(100)).unwrap();
    // It starts before its server learnt of the stop: tell it again.
    assert_eq!(workflow.apply(started("a", 1, 101)), Ok(vec![stop("a", 1)]));
    let grace = timer(TimerKind::StopGrace, "a", 1);
    // This clock runs fast.
    assert_eq!(workflow.apply(fired(&grace, 159)), Ok(vec![set(&grace, 160)]));
    assert_eq!(
        workflow.apply(fired(&grace, 160)),
        Ok(vec![forget(&grace), finish(Outcome::Canceled)])
    );
    assert_eq!(message(&workflow, "a"), "canceled by ada; it did not stop within 1m");
    assert_eq!(
        refusal(&mut workflow, finished("a", 1, Outcome::Canceled, 170)),
        "`a` is canceled, so it cannot be finished"
    );
}

#[test]
fn a_canceled_job_whose_server_is_gone_ends() {
    let (mut workflow, _) = make(vec![job("a", BUILD, &[])]);
    workflow.apply(claim("a", 1)).unwrap();
    workflow.apply(cancel(100)).unwrap();
    let effects = workflow.apply(released("a", 1)).unwrap();
    assert_eq!(effects.last(), Some(&finish(Outcome::Canceled)));
    assert_eq!(message(&workflow, "a"), "canceled by ada; server-1 is gone");
}

#[test]
fn a_released_attempt_is_queued_as_the_next() {
    let (mut workflow, _) = make(vec![job("a", BUILD, &[])]);
    assert_eq!(
        refusal(&mut workflow, started("a", 1, 0)),
        "`a` is queued, so it cannot be started"
    );
    workflow.apply(claim("a", 1)).unwrap();
    assert_eq!(
        refusal(&mut workflow, claim("a", 1)),
        "`a` is claimed, so it cannot be claimed"
    );
    assert_eq!(workflow.apply(released("a", 1)), Ok(vec![queue("a", 2)]));
    // The server was not gone after all.
    let stale = Illegal::StaleAttempt {
        job: "a".into(),
        attempt: 1,
        current: 2,
    };
    for late in [
        started("a", 1, 3),
        finished("a", 1, Outcome::Failed, 4),
        released("a", 1),
        claim("a", 1),
    ] {
        assert_eq!(refused(&mut workflow, late), stale);
    }
    assert_eq!(
        stale.to_string(),
        "`a` is in attempt 2: what is reported of attempt 1 changes nothing"
    );
    workflow.apply(claim("a", 2)).unwrap();
    workflow.apply(started("a", 2, 0)).unwrap();
    assert_eq!(
        refusal(&mut workflow, released("a", 2)),
        "`a` is running, so it cannot be released"
    );
    let earlier = &workflow.job("a").unwrap().earlier[0];
    assert_eq!(earlier.claimed_by.as_deref(), Some("server-1"));
    assert_eq!(
        earlier.end,
        AttemptEnd::Released {
            reason: "server-1 is gone".into()
        }
    );
}

#[test]
fn an_infrastructure_error_is_tried_again_after_a_delay() {
    let (mut workflow, _) = make(vec![retried("a", 2)]);
    let first = timer(TimerKind::Retry, "a", 2);
    assert_eq!(play(&mut workflow, "a:errored"), [set(&first, 5)]);
    assert_eq!(workflow.status(), WorkflowStatus::Running);
    assert_eq!(workflow.job("a").unwrap().status(), JobStatus::Queued);
    assert_eq!(
        refusal(&mut workflow, claim("a", 2)),
        "`a` is waiting to be tried again, so it cannot be claimed"
    );
    assert_eq!(
        workflow.apply(fired(&first, 5)),
        Ok(vec![forget(&first), queue("a", 2)])
    );
    // The first delay's timer fires again, and so does one of a job that never existed.
    assert_eq!(workflow.apply(fired(&first, 6)), Ok(vec![forget(&first)]));
    let unknown = timer(TimerKind::Retry, "nosuch", 1);
    assert_eq!(workflow.apply(fired(&unknown, 6)), Ok(vec![forget(&unknown)]));
    assert_eq!(
        play(&mut workflow, "a:errored"),
        [set(&timer(TimerKind::Retry, "a", 3), 10)]
    );
    // Somebody does not want to wait. The automatic retries are counted from zero again.
    let second = timer(TimerKind::Retry, "a", 3);
    assert_eq!(workflow.apply(retry("a", 3)), Ok(vec![forget(&second), queue("a", 3)]));
    for attempt in 4..6 {
        play(&mut workflow, "a:errored");
        workflow
            .apply(fired(&timer(TimerKind::Retry, "a", attempt), 1000))
            .unwrap();
    }
    assert_eq!(play(&mut workflow, "a:errored"), [finish(Outcome::Errored)]);
    assert_eq!(workflow.job("a").unwrap().attempt, 5);
}

#[test]
fn only_an_infrastructure_error_is_tried_again() {
    let (mut workflow, _) = make(vec![retried("a", 2)]);
    assert_eq!(play(&mut workflow, "a:failed"), [finish(Outcome::Failed)]);
}

#[test]
fn a_job_that_takes_too_long_is_stopped_and_timed_out() {
    let (mut workflow, _) = make(vec![limited("a", 3600), job("b", BUILD, &["a=failed"])]);
    workflow.apply(claim("a", 1)).unwrap();
    let limit = timer(TimerKind::TimeLimit, "a", 1);
    assert_eq!(workflow.apply(started("a", 1, 100)), Ok(vec![set(&limit, 3700)]));
    assert_eq!(workflow.apply(fired(&limit, 50)), Ok(vec![set(&limit, 3700)]));
    let grace = timer(TimerKind::StopGrace, "a", 1);
    assert_eq!(
        workflow.apply(fired(&limit, 3705)),
        Ok(vec![forget(&limit), stop("a", 1), set(&grace, 3765)])
    );
    assert_eq!(
        refusal(&mut workflow, retry("a", 1)),
        "`a` is stopping, so it cannot be run again"
    );
    let end = Event::JobFinished {
        job: "a".into(),
        attempt: 1,
        outcome: Outcome::Errored,
        message: Some("killed".into()),
        at: at(3710),
    };
    assert_eq!(workflow.apply(end), Ok(vec![forget(&grace), queue("b", 1)]));
    assert_eq!(workflow.job("a").unwrap().outcome(), Some(Outcome::TimedOut));
    assert_eq!(
        message(&workflow, "a"),
        "it ran longer than its time limit of 1h; killed"
    );
    assert_eq!(play(&mut workflow, "b:ok"), [finish(Outcome::TimedOut)]);
}

#[test]
fn a_job_that_takes_too_long_and_does_not_stop_is_ended() {
    let (mut workflow, _) = make(vec![limited("a", 10)]);
    workflow.apply(claim("a", 1)).unwrap();
    workflow.apply(started("a", 1, 0)).unwrap();
    workflow.apply(fired(&timer(TimerKind::TimeLimit, "a", 1), 10)).unwrap();
    // It is already stopping: the first reason stays.
    assert_eq!(workflow.apply(cancel(20)), Ok(vec![]));
    workflow.apply(fired(&timer(TimerKind::StopGrace, "a", 1), 70)).unwrap();
    assert_eq!(
        message(&workflow, "a"),
        "it ran longer than its time limit of 10s; it did not stop within 1m"
    );
    assert_eq!(workflow.status(), WorkflowStatus::Ended(Outcome::Canceled));
    assert_eq!(workflow.job("a").unwrap().outcome(), Some(Outcome::TimedOut));
}

#[test]
fn the_end_of_a_job_forgets_its_time_limit() {
    let (mut workflow, _) = make(vec![limited("a", 10)]);
    assert_eq!(
        play(&mut workflow, "a:ok"),
        [forget(&timer(TimerKind::TimeLimit, "a", 1)), finish(Outcome::Succeeded)]
    );
}

#[test]
fn a_time_limit_beyond_the_end_of_time_never_comes() {
    let (mut workflow, _) = make(vec![limited("a", u64::MAX)]);
    workflow.apply(claim("a", 1)).unwrap();
    let effects = workflow.apply(started("a", 1, 0)).unwrap();
    let timer = timer(TimerKind::TimeLimit, "a", 1);
    let at = Timestamp::MAX;
    assert_eq!(effects, [Effect::SetTimer { timer, at }]);
}

#[test]
fn a_lost_attempt_is_given_up_for_the_next() {
    let (mut workflow, _) = make(vec![job("a", BUILD, &[])]);
    workflow.apply(claim("a", 1)).unwrap();
    workflow.apply(started("a", 1, 0)).unwrap();
    assert_eq!(workflow.apply(retry("a", 1)), Ok(vec![queue("a", 2), stop("a", 1)]));
    // Pressed twice: the second request names the attempt that is already lost.
    assert!(matches!(
        refused(&mut workflow, retry("a", 1)),
        Illegal::StaleAttempt { .. }
    ));
    workflow.apply(claim("a", 2)).unwrap();
    assert_eq!(workflow.outstanding(), [stop("a", 1)]);
    assert!(matches!(
        refused(&mut workflow, finished("a", 1, Outcome::Failed, 3)),
        Illegal::StaleAttempt { .. }
    ));
    assert_eq!(
        workflow.apply(finished("a", 2, Outcome::Succeeded, 4)),
        Ok(vec![finish(Outcome::Succeeded)])
    );
    assert_eq!(workflow.outstanding(), []);
}

#[test]
fn what_waited_for_a_failed_job_waits_again_when_it_is_retried() {
    let (mut workflow, _) = make(vec![
        job("test", BUILD, &[]),
        job("lint", BUILD, &[]),
        job("hold", JobKind::Approval, &["test"]),
        job("deploy", BUILD, &["hold"]),
        job("both", BUILD, &["test", "lint"]),
        job("nothing", JobKind::NoOp, &["test=terminal"]),
        job("tell", BUILD, &["test=failed"]),
        job("ask", JobKind::Approval, &["test=failed"]),
        job("slow", BUILD, &[]),
    ]);
    play(&mut workflow, "lint:failed test:failed");
    let attempt = |workflow: &Workflow, name: &str| workflow.job(name).unwrap().attempt;
    // A server claimed it and died before it did anything.
    workflow.apply(claim("tell", 1)).unwrap();
    workflow.apply(released("tell", 1)).unwrap();
    assert_eq!(workflow.job("tell").unwrap().status(), JobStatus::Queued);
    assert_eq!(workflow.apply(retry("test", 1)), Ok(vec![queue("test", 2)]));
    for name in ["hold", "deploy", "nothing", "tell", "ask"] {
        assert_eq!(workflow.job(name).unwrap().status(), JobStatus::Blocked, "{name}");
    }
    // `both` is also skipped because of `lint`, so nothing changed for it.
    assert_eq!(workflow.job("both").unwrap().outcome(), Some(Outcome::Skipped));
    assert_eq!((attempt(&workflow, "both"), attempt(&workflow, "hold")), (1, 2));
    // Jobs that had not ended stay in their attempts.
    assert_eq!((attempt(&workflow, "tell"), attempt(&workflow, "ask")), (2, 1));
    assert_eq!(play(&mut workflow, "test:ok"), [hold("hold")]);
    assert_eq!(workflow.job("tell").unwrap().outcome(), Some(Outcome::Skipped));
    assert_eq!(workflow.apply(approve("hold")), Ok(vec![queue("deploy", 2)]));
    play(&mut workflow, "deploy:ok");
    assert_eq!(play(&mut workflow, "slow:ok"), [finish(Outcome::Failed)]);
    assert_eq!(
        refusal(&mut workflow, retry("lint", 1)),
        "the workflow has already ended (failed)"
    );
}

#[test]
fn what_others_have_acted_on_is_not_run_again() {
    let mut cannot = job("never", BUILD, &[]);
    cannot.cannot_run = Some("it needs a Mac".into());
    let (mut workflow, _) = make(vec![
        job("test", BUILD, &[]),
        job("tell", BUILD, &["test=failed"]),
        job("ask", JobKind::Approval, &["test=failed"]),
        job("slow", BUILD, &[]),
        job("nothing", JobKind::NoOp, &[]),
        job("skipped", BUILD, &["nothing=failed"]),
        cannot,
    ]);
    play(&mut workflow, "test:failed");
    workflow.apply(claim("tell", 1)).unwrap();
    workflow.apply(approve("ask")).unwrap();
    assert_eq!(
        refusal(&mut workflow, retry("test", 1)),
        "`test` cannot run again: `tell`, `ask` went on after it; rerun the workflow instead"
    );
    for (job, why) in [
        ("nothing", "it runs nothing"),
        ("ask", "it runs nothing"),
        ("skipped", "it never ran; run again what it waited for"),
        ("never", "it needs a Mac"),
    ] {
        assert_eq!(
            refusal(&mut workflow, retry(job, 1)),
            format!("`{job}` cannot run again: {why}")
        );
    }
    assert_eq!(
        refusal(&mut workflow, retry("slow", 1)),
        "`slow` is queued, so it cannot be run again"
    );
    play(&mut workflow, "slow:ok");
    assert_eq!(
        refusal(&mut workflow, retry("slow", 1)),
        "`slow` cannot run again: it succeeded"
    );
}

#[test]
fn what_a_lost_attempt_did_is_not_forgotten() {
    let (mut workflow, _) = make(vec![
        job("test", BUILD, &[]),
        job("tell", BUILD, &["test=failed"]),
        job("slow", BUILD, &[]),
    ]);
    play(&mut workflow, "test:failed");
    workflow.apply(claim("tell", 1)).unwrap();
    workflow.apply(started("tell", 1, 0)).unwrap();
    assert_eq!(
        workflow.apply(retry("tell", 1)),
        Ok(vec![queue("tell", 2), stop("tell", 1)])
    );
    assert_eq!(
        refusal(&mut workflow, retry("test", 1)),
        "`test` cannot run again: `tell` went on after it; rerun the workflow instead"
    );
}

#[test]
fn a_job_that_cannot_run_fails_when_it_is_reached() {
    let mac = JobDefinition {
        cannot_run: Some("`macos` cannot be run here".into()),
        ..job("mac", BUILD, &["test"])
    };
    let (mut workflow, effects) = make(vec![job("test", BUILD, &[]), mac, job("tell", BUILD, &["mac=failed"])]);
    assert_eq!(effects, [queue("test", 1)]);
    assert_eq!(workflow.job("mac").unwrap().status(), JobStatus::Blocked);
    assert_eq!(play(&mut workflow, "test:ok"), [queue("tell", 1)]);
    assert_eq!(workflow.job("mac").unwrap().outcome(), Some(Outcome::Errored));
    assert_eq!(message(&workflow, "mac"), "`macos` cannot be run here");
}

#[test]
fn a_job_that_was_claimed_cannot_have_been_skipped() {
    let (mut workflow, _) = make(vec![job("a", BUILD, &[])]);
    workflow.apply(claim("a", 1)).unwrap();
    assert_eq!(
        refusal(&mut workflow, finished("a", 1, Outcome::Skipped, 1)),
        "`a` was claimed, so it cannot have been skipped"
    );
}

#[test]
fn a_rerun_keeps_what_succeeded() {
    let definition = Definition::new(vec![job("test", BUILD, &[]), job("build", BUILD, &["test"])]).unwrap();
    let event = |succeeded: &str| Event::Created {
        definition: definition.clone(),
        succeeded: vec![succeeded.into()],
        at: at(0),
    };
    let (mut workflow, effects) = Workflow::create(event("test")).unwrap();
    assert_eq!(effects, [queue("build", 1)]);
    assert_eq!(workflow.job("test").unwrap().outcome(), Some(Outcome::Succeeded));
    assert_eq!(refused(&mut workflow, event("test")), Illegal::Order);
    assert_eq!(
        Workflow::create(event("nosuch")).unwrap_err(),
        Illegal::UnknownJob("nosuch".into())
    );
    assert_eq!(Workflow::create(cancel(0)).unwrap_err(), Illegal::Order);
}

#[test]
fn nothing_to_do_ends_at_once() {
    let (workflow, effects) = make(vec![job("a", JobKind::NoOp, &[]), job("b", JobKind::NoOp, &["a"])]);
    assert_eq!(effects, [finish(Outcome::Succeeded)]);
    assert_eq!(workflow.status(), WorkflowStatus::Ended(Outcome::Succeeded));
    assert_eq!(workflow.outstanding(), []);
}
