//! The rules of a release, one by one.

#![allow(clippy::unwrap_used)]

use jiff::Timestamp;
use towpath_types::{Digest, Outcome, ReleaseId, ReleaseStatus};
use towpath_workflow::release::{Effect, Environment, Event, Illegal, OnFailure, Release, Why};

const AT: Timestamp = Timestamp::UNIX_EPOCH;
const PARENT: ReleaseId = ReleaseId::from_u128(7);

fn plan() -> Digest {
    Digest::of(b"plan")
}

fn planned(parent: Option<ReleaseId>, on_failure: OnFailure) -> Release {
    let plan = plan();
    let (release, effect) = Release::create(Event::Planned {
        plan,
        parent,
        on_failure,
        at: AT,
    })
    .unwrap();
    assert_eq!(effect, None);
    release
}

fn approved() -> Event {
    Event::Approved {
        plan: plan(),
        by: "bob".into(),
        at: AT,
    }
}

fn failed(outcome: Outcome) -> Event {
    Event::Failed {
        outcome,
        message: "Deployment app: it does not start".into(),
        at: AT,
    }
}

fn abandoned(why: Why) -> Event {
    Event::Abandoned {
        why,
        message: "dev changed since this plan was made".into(),
        at: AT,
    }
}

const BEGAN: Event = Event::ApplyBegan { at: AT };
const APPLIED: Event = Event::Applied { at: AT };
const SUCCEEDED: Event = Event::Succeeded { at: AT };
const ROLLBACK_BEGAN: Event = Event::RollbackBegan { at: AT };
const ROLLED_BACK: Event = Event::RolledBack { at: AT };
const RECORDED: Event = Event::Recorded { at: AT };

/// Applies events and checks the effect of each.
fn play(release: &mut Release, script: &[(Event, Option<Effect>)]) {
    for (event, effect) in script {
        let answer = release.apply(event.clone());
        assert_eq!(answer.as_ref(), Ok(effect), "{event:?}");
        assert_eq!(release.outstanding(), *effect);
    }
}

fn refused(release: &mut Release, event: Event) -> Illegal {
    let before = release.clone();
    let illegal = release.apply(event).unwrap_err();
    assert_eq!(*release, before);
    illegal
}

fn ended(release: &Release) -> (ReleaseStatus, Option<Outcome>, Option<Environment>) {
    assert!(release.is_over());
    (release.status(), release.outcome(), release.environment())
}

#[test]
fn a_release_is_approved_applied_watched_and_recorded() {
    let mut release = planned(Some(PARENT), OnFailure::Rollback);
    play(
        &mut release,
        &[
            (approved(), Some(Effect::BeginApply)),
            (BEGAN, Some(Effect::Apply)),
            (APPLIED, Some(Effect::Watch)),
            (SUCCEEDED, Some(Effect::Record)),
        ],
    );
    let end = (
        ReleaseStatus::Succeeded,
        Some(Outcome::Succeeded),
        Some(Environment::AsRelease),
    );
    assert_eq!(ended(&release), end);
    play(&mut release, &[(RECORDED, None)]);
    assert_eq!(ended(&release), end);
    for event in [RECORDED, failed(Outcome::Failed), approved()] {
        assert_eq!(refused(&mut release, event), Illegal::Over(ReleaseStatus::Succeeded));
    }
    assert_eq!(release.message(), None);
}

#[test]
fn going_back_is_decided_before_it_begins() {
    let mut release = planned(Some(PARENT), OnFailure::Rollback);
    play(
        &mut release,
        &[
            (approved(), Some(Effect::BeginApply)),
            (BEGAN, Some(Effect::Apply)),
            (APPLIED, Some(Effect::Watch)),
            (failed(Outcome::TimedOut), Some(Effect::BeginRollback { to: PARENT })),
        ],
    );
    assert_eq!(release.status(), ReleaseStatus::RollingBack);
    for event in [
        BEGAN,
        APPLIED,
        SUCCEEDED,
        failed(Outcome::Failed),
        ROLLED_BACK,
        abandoned(Why::NewerDecision),
    ] {
        assert!(matches!(refused(&mut release, event), Illegal::WrongState { .. }));
    }
    play(
        &mut release,
        &[
            (ROLLBACK_BEGAN, Some(Effect::RollBack { to: PARENT })),
            (ROLLED_BACK, Some(Effect::Record)),
            (RECORDED, None),
        ],
    );
    assert_eq!(
        ended(&release),
        (
            ReleaseStatus::RolledBack,
            Some(Outcome::TimedOut),
            Some(Environment::AsBefore)
        )
    );
}

#[test]
fn what_cannot_or_must_not_go_back_is_left_between() {
    for (parent, on_failure) in [(None, OnFailure::Rollback), (Some(PARENT), OnFailure::Stop)] {
        let mut release = planned(parent, on_failure);
        play(
            &mut release,
            &[
                (approved(), Some(Effect::BeginApply)),
                (BEGAN, Some(Effect::Apply)),
                (failed(Outcome::Failed), Some(Effect::Record)),
            ],
        );
        assert_eq!(
            ended(&release),
            (ReleaseStatus::Failed, Some(Outcome::Failed), Some(Environment::Between))
        );
    }
}

#[test]
fn a_failed_way_back_is_left_between() {
    let mut release = planned(Some(PARENT), OnFailure::Rollback);
    let no_way_back = Event::RollbackFailed {
        message: "the cluster does not answer".into(),
        at: AT,
    };
    play(
        &mut release,
        &[
            (approved(), Some(Effect::BeginApply)),
            (BEGAN, Some(Effect::Apply)),
            (failed(Outcome::Failed), Some(Effect::BeginRollback { to: PARENT })),
            (ROLLBACK_BEGAN, Some(Effect::RollBack { to: PARENT })),
            (no_way_back, Some(Effect::Record)),
        ],
    );
    assert_eq!(
        ended(&release),
        (ReleaseStatus::Failed, Some(Outcome::Failed), Some(Environment::Between))
    );
    assert_eq!(
        release.message().unwrap(),
        "Deployment app: it does not start\nGoing back failed too: the cluster does not answer"
    );
}

#[test]
fn a_stale_plan_changes_nothing() {
    for begin in [vec![], vec![approved()], vec![approved(), BEGAN]] {
        let began = begin.len() == 2;
        let mut release = planned(Some(PARENT), OnFailure::Rollback);
        for event in begin {
            release.apply(event).unwrap();
        }
        let effect = began.then_some(Effect::Record);
        play(&mut release, &[(abandoned(Why::StalePlan), effect)]);
        assert_eq!(
            ended(&release),
            (
                ReleaseStatus::Abandoned,
                Some(Outcome::Rejected),
                Some(Environment::AsBefore)
            )
        );
        assert_eq!(release.message().unwrap(), "dev changed since this plan was made");
    }
}

#[test]
fn nobody_takes_back_what_was_begun() {
    let mut release = planned(Some(PARENT), OnFailure::Rollback);
    for event in [approved(), BEGAN] {
        release.apply(event).unwrap();
    }
    assert_eq!(
        refused(&mut release, abandoned(Why::Withdrawn)).to_string(),
        "the release is being applied, so it cannot be abandoned"
    );
    release.apply(APPLIED).unwrap();
    assert!(matches!(
        refused(&mut release, abandoned(Why::Refused)),
        Illegal::WrongState { .. }
    ));
}

#[test]
fn a_newer_deployment_is_left_alone() {
    let overtaken = Event::Overtaken {
        by: "eve".into(),
        at: AT,
    };
    let mut release = planned(Some(PARENT), OnFailure::Rollback);
    release.apply(approved()).unwrap();
    assert!(matches!(
        refused(&mut release, overtaken.clone()),
        Illegal::WrongState { .. }
    ));
    release.apply(BEGAN).unwrap();
    let mut failing = release.clone();
    play(&mut release, &[(overtaken.clone(), Some(Effect::Record))]);
    assert_eq!(
        ended(&release),
        (
            ReleaseStatus::Failed,
            Some(Outcome::Errored),
            Some(Environment::Between)
        )
    );
    failing.apply(failed(Outcome::Failed)).unwrap();
    play(&mut failing, &[(overtaken, Some(Effect::Record))]);
    assert_eq!(failing.outcome(), Some(Outcome::Failed));
    assert_eq!(
        failing.message().unwrap(),
        "Deployment app: it does not start\neve deployed to the environment since, so it was left to that."
    );
}

#[test]
fn only_what_was_shown_is_approved() {
    let mut release = planned(None, OnFailure::Rollback);
    let other = Event::Approved {
        plan: Digest::of(b"another plan"),
        by: "bob".into(),
        at: AT,
    };
    let text = refused(&mut release, other).to_string();
    assert!(text.contains(plan().short()), "{text}");
    assert!(matches!(refused(&mut release, BEGAN), Illegal::WrongState { .. }));
    release.apply(approved()).unwrap();
    assert_eq!(release.approval().unwrap().by, "bob");
    assert_eq!(
        refused(&mut release, approved()).to_string(),
        "the release is approved, so it cannot be approved"
    );
}

#[test]
fn a_failure_has_an_outcome_that_is_one() {
    let mut release = planned(None, OnFailure::Rollback);
    for event in [approved(), BEGAN] {
        release.apply(event).unwrap();
    }
    for outcome in [Outcome::Succeeded, Outcome::Skipped] {
        assert_eq!(refused(&mut release, failed(outcome)), Illegal::NotAFailure(outcome));
    }
    assert_eq!(Release::create(BEGAN).unwrap_err(), Illegal::Order);
    assert_eq!(Release::fold([]).unwrap_err(), Illegal::Order);
}
