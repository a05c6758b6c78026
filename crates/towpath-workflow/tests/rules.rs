//! The rules one by one.

#![allow(clippy::unwrap_used)]

use jiff::Timestamp;
use towpath_types::Outcome;
use towpath_workflow::{
    Definition, Effect, Event, JobDefinition, JobKind, RequiredStatus, Requirement, Status, Workflow,
};

const AT: Timestamp = Timestamp::UNIX_EPOCH;

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
    JobDefinition {
        name: name.into(),
        kind,
        requires,
    }
}

const BUILD: JobKind = JobKind::Build { nodes: 1 };

fn make(jobs: Vec<JobDefinition>) -> (Workflow, Vec<Effect>) {
    let definition = Definition::new(jobs).unwrap();
    Workflow::create(Event::Created {
        definition,
        succeeded: Vec::new(),
        at: AT,
    })
    .unwrap()
}

/// Applies events written as `name:outcome`, `+name` (approve), `!` (cancel); returns the effects of the last.
fn play(workflow: &mut Workflow, script: &str) -> Vec<Effect> {
    let mut last = Vec::new();
    for word in script.split_whitespace() {
        let event = if word == "!" {
            Event::CancelRequested {
                by: "ada".into(),
                at: AT,
            }
        } else if let Some(job) = word.strip_prefix('+') {
            Event::Approved {
                job: job.into(),
                by: "bob".into(),
                plan: Some("p1".into()),
                at: AT,
            }
        } else {
            let (job, outcome) = word.split_once(':').unwrap();
            let outcome = match outcome {
                "ok" => Outcome::Succeeded,
                "failed" => Outcome::Failed,
                "errored" => Outcome::Errored,
                "canceled" => Outcome::Canceled,
                "start" => {
                    last = workflow
                        .apply(Event::JobStarted {
                            job: job.into(),
                            at: AT,
                        })
                        .unwrap();
                    continue;
                }
                other => panic!("{other}"),
            };
            Event::JobFinished {
                job: job.into(),
                outcome,
                message: None,
                at: AT,
            }
        };
        last = workflow
            .apply(event)
            .unwrap_or_else(|illegal| panic!("{word}: {illegal}"));
    }
    last
}

fn refusal(workflow: &mut Workflow, event: Event) -> String {
    let before = workflow.clone();
    let text = workflow.apply(event).unwrap_err().to_string();
    assert_eq!(*workflow, before);
    text
}

fn approve(job: &str) -> Event {
    Event::Approved {
        job: job.into(),
        by: "eve".into(),
        plan: None,
        at: AT,
    }
}

fn start(job: &str) -> Effect {
    Effect::StartJob { job: job.into() }
}

#[test]
fn a_chain_with_a_gate_runs_in_order() {
    let (mut workflow, effects) = make(vec![
        job("test", BUILD, &[]),
        job("hold", JobKind::Approval, &["test"]),
        job("deploy", BUILD, &["hold"]),
    ]);
    assert_eq!(effects, [start("test")]);
    assert_eq!(workflow.status(), Status::Running);
    assert_eq!(
        play(&mut workflow, "test:start test:ok"),
        [Effect::HoldJob { job: "hold".into() }]
    );
    assert_eq!(workflow.status(), Status::OnHold);
    assert_eq!(play(&mut workflow, "+hold"), [start("deploy")]);
    assert_eq!(
        workflow.job("hold").unwrap().approval.as_ref().unwrap().plan.as_deref(),
        Some("p1")
    );
    assert_eq!(
        play(&mut workflow, "deploy:start deploy:ok"),
        [Effect::Finished {
            outcome: Outcome::Succeeded
        }]
    );
    assert_eq!(workflow.status(), Status::Ended(Outcome::Succeeded));
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
        play(&mut workflow, "smoke:start smoke:failed"),
        [start("tell"), start("clean")]
    );
    assert_eq!(workflow.job("deploy").unwrap().outcome(), Some(Outcome::Skipped));
    assert_eq!(workflow.status(), Status::Failing);
    assert_eq!(
        refusal(&mut workflow, approve("hold")),
        "`hold` is not needed any more: `smoke` failed"
    );
    assert_eq!(
        play(&mut workflow, "tell:ok clean:ok"),
        [Effect::Finished {
            outcome: Outcome::Failed
        }]
    );
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
    play(&mut workflow, "test:ok +hold");
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
    assert_eq!(
        play(&mut workflow, "a:start b:start b:ok !"),
        [Effect::CancelJob { job: "a".into() }]
    );
    assert_eq!(workflow.outstanding(), [Effect::CancelJob { job: "a".into() }]);
    assert_eq!(
        refusal(&mut workflow, approve("hold")),
        "the workflow was canceled by ada at 1970-01-01 00:00:00 UTC"
    );
    // A job that ends well on its way out does not bring the workflow back.
    assert_eq!(
        play(&mut workflow, "a:ok"),
        [Effect::Finished {
            outcome: Outcome::Canceled
        }]
    );
    let again = Event::CancelRequested {
        by: "ada".into(),
        at: AT,
    };
    assert_eq!(
        refusal(&mut workflow, again),
        "the workflow has already ended (canceled)"
    );
}

#[test]
fn a_rerun_keeps_what_succeeded() {
    let definition = Definition::new(vec![job("test", BUILD, &[]), job("build", BUILD, &["test"])]).unwrap();
    let event = Event::Created {
        definition,
        succeeded: vec!["test".into()],
        at: AT,
    };
    let (workflow, effects) = Workflow::create(event).unwrap();
    assert_eq!(effects, [start("build")]);
    assert_eq!(workflow.job("test").unwrap().outcome(), Some(Outcome::Succeeded));
}

#[test]
fn nothing_to_do_ends_at_once() {
    let (workflow, effects) = make(vec![job("a", JobKind::NoOp, &[]), job("b", JobKind::NoOp, &["a"])]);
    assert_eq!(
        effects,
        [Effect::Finished {
            outcome: Outcome::Succeeded
        }]
    );
    assert_eq!(workflow.status(), Status::Ended(Outcome::Succeeded));
    assert_eq!(workflow.outstanding(), []);
}
