//! Decisions about releases, from known facts. Pure.

use crate::{error::DeliveryError, plan::Plan};
use towpath_deploy::{ApplyError, ReleaseRecord, WorkloadStatus};
use towpath_store::ReleaseRow;
use towpath_types::{Digest, JobId, Outcome, ReleaseId, ReleaseStatus};
use towpath_workflow::release::{Release, State};
use uuid::Uuid;

/// Why a plan is stale, if it is: another release runs than the one that it starts from. `left` says whether the
/// running release has the objects of the plan or of the release that the plan starts from.
pub(crate) fn stale(plan: &Plan, runs: Option<&ReleaseRow>, left: Left) -> Option<String> {
    if runs.map(|runs| runs.id) == plan.parent || left == Left::NothingElse {
        return None;
    }
    let runs = runs.map_or_else(|| "nothing".into(), |runs| format!("release {}", runs.number));
    Some(format!(
        "{} changed since this plan was made: {runs} runs there now. Look at a new plan",
        plan.environment()
    ))
}

/// What others have left in an environment since a plan was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// The objects of the previous release, or those of the plan.
    NothingElse,
    /// Other objects, or unknown ones.
    Other,
}

/// Whether a plan repeats the running release `runs`, so that carrying it out is not a new release.
pub(crate) fn is_repeat(plan: &Plan, runs: &ReleaseRow, running: &Plan) -> bool {
    plan.parent == Some(runs.id)
        && plan.changes_nothing()
        && (&plan.place, &plan.images, &plan.commit) == (&running.place, &running.images, &running.commit)
        && same_objects(plan, running)
}

/// Whether every workload is healthy.
pub(crate) fn is_well(workloads: &[WorkloadStatus]) -> bool {
    let rolls_out = |one: &&WorkloadStatus| towpath_manifest::Kind::of(&one.kind).rolls_out;
    workloads
        .iter()
        .filter(rolls_out)
        .all(|one| one.ready >= one.desired && one.message.is_empty())
}

/// Who deployed to the environment after the release `mine` began to change it, if anybody did. `runs` is the newest
/// release that succeeded; `recorded` is the environment's own record.
pub(crate) fn overtaken(mine: &ReleaseRow, runs: Option<&ReleaseRow>, recorded: &[ReleaseRecord]) -> Option<String> {
    if let Some(runs) = runs.filter(|runs| Some(runs.id) != mine.parent && runs.id != mine.id) {
        return Some(format!("release {} of {}", runs.number, runs.actor));
    }
    // A release may have another number in the environment's own record than here.
    let own = recorded.iter().find(|record| record.id == mine.id);
    let number = own.map_or(mine.number, |own| own.number);
    let later = recorded
        .iter()
        .find(|record| record.id != mine.id && record.number > number);
    later.map(|later| format!("release {} of {}", later.number, later.by))
}

/// Whether two plans have the same objects and hooks, regardless of their source places.
pub(crate) fn same_objects(one: &Plan, other: &Plan) -> bool {
    let values = |plan: &Plan| {
        plan.objects
            .iter()
            .chain(&plan.hooks.jobs)
            .map(|object| object.value.clone())
            .collect::<Vec<_>>()
    };
    values(one) == values(other)
}

/// The releases that an environment can roll back to, nearest first, and the one that counts as running. `rows` are its
/// releases, newest first. Between two releases, the previous one counts as running and can be rolled back to.
pub(crate) fn earlier<'a>(
    rows: &'a [ReleaseRow],
    is_between: bool,
    environment: &str,
) -> Result<(&'a ReleaseRow, Vec<&'a ReleaseRow>), DeliveryError> {
    let succeeded: Vec<&ReleaseRow> = rows
        .iter()
        .filter(|row| row.status == ReleaseStatus::Succeeded)
        .collect();
    let Some((current, before)) = succeeded.split_first() else {
        return Err(DeliveryError::conflict(format!(
            "nothing was deployed to `{environment}` yet"
        )));
    };
    Ok((*current, if is_between { succeeded } else { before.to_vec() }))
}

/// The error when there is no release to roll back to.
pub(crate) fn no_earlier(environment: &str, to: Option<i64>) -> DeliveryError {
    DeliveryError::conflict(match to {
        Some(number) => format!(
            "`{environment}` has no earlier release {number} that succeeded: `towpath history {environment}` lists them"
        ),
        None => format!("`{environment}` has no earlier release that differs from what runs"),
    })
}

/// The id of the release that an attempt of a job begins in an environment. It is deterministic, so repeated requests
/// by the job are one release.
pub(crate) fn release_of_attempt(job: JobId, attempt: u32, environment: &str) -> ReleaseId {
    let digest = Digest::of(format!("{job}/{attempt}/{environment}").as_bytes());
    let digits = u128::from_str_radix(&digest.hex()[..32], 16).unwrap_or_default();
    ReleaseId::from(uuid::Builder::from_custom_bytes(digits.to_be_bytes()).into_uuid())
}

/// A new release's id.
pub(crate) fn new_release() -> ReleaseId {
    ReleaseId::from(Uuid::now_v7())
}

/// Whether a job that asks to deploy again means its earlier release: yes, unless that one failed and this is another
/// attempt.
pub(crate) fn is_meant_again(before: &ReleaseRow, this_attempt: ReleaseId) -> bool {
    before.id == this_attempt || !before.status.is_over() || before.status == ReleaseStatus::Succeeded
}

/// Why a release failed, with the last lines of the container at fault.
pub(crate) fn failure_message(error: &ApplyError) -> String {
    let mut message = error.to_string();
    for line in &error.log {
        message.push_str("\n  | ");
        message.push_str(line);
    }
    message
}

/// The addition to the message when a failed release is not rolled back. `before` is the release that ran.
pub(crate) fn left_as_it_is(environment: &str, before: Option<i64>) -> String {
    match before {
        Some(number) => format!(
            "It was left like this: {environment} is between release {number} and this one. `towpath rollback {environment} {number}` \
             puts that back."
        ),
        None => "There was no release before this one to go back to.".into(),
    }
}

/// The release's row, updated from its state machine. `before` is the number of the release that it rolls back to.
pub(crate) fn row_of(row: &ReleaseRow, release: &Release, before: Option<i64>) -> ReleaseRow {
    let message = match (release.state(), release.message(), before) {
        (State::RolledBack, Some(message), Some(number)) => Some(format!("{message}\nRelease {number} runs again.")),
        (_, message, _) => message,
    };
    ReleaseRow {
        status: release.status(),
        outcome: release.outcome(),
        stopped_at: release.ended_at(),
        message,
        ..row.clone()
    }
}

/// Whether an apply was refused before it changed anything.
pub(crate) fn is_refusal(error: &ApplyError) -> bool {
    error.outcome == Outcome::Rejected
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{
        plans::{config_map, plan},
        rows,
    };

    fn release(number: i64, status: ReleaseStatus) -> ReleaseRow {
        ReleaseRow {
            id: ReleaseId::from_u128(u128::try_from(number).unwrap()),
            number,
            status,
            ..rows::release("claims", "dev")
        }
    }

    fn record(number: i64) -> ReleaseRecord {
        crate::history::record_of(&release(number, ReleaseStatus::Succeeded), &plan())
    }

    #[test]
    fn a_plan_is_stale_once_another_release_runs() {
        // The plan starts from release 1.
        let first = release(1, ReleaseStatus::Succeeded);
        assert_eq!(stale(&plan(), Some(&first), Left::Other), None);
        let second = release(2, ReleaseStatus::Succeeded);
        assert_eq!(
            stale(&plan(), Some(&second), Left::Other).as_deref(),
            Some("dev changed since this plan was made: release 2 runs there now. Look at a new plan")
        );
        assert_eq!(stale(&plan(), Some(&second), Left::NothingElse), None);
        assert_eq!(
            stale(&plan(), None, Left::Other).as_deref(),
            Some("dev changed since this plan was made: nothing runs there now. Look at a new plan")
        );
    }

    #[test]
    fn a_release_is_overtaken_by_whoever_deployed_since() {
        let mine = ReleaseRow {
            parent: Some(ReleaseId::from_u128(1)),
            ..release(2, ReleaseStatus::Applying)
        };
        let parent = release(1, ReleaseStatus::Succeeded);
        assert_eq!(overtaken(&mine, Some(&parent), &[record(1), record(2)]), None);
        assert_eq!(
            overtaken(&mine, Some(&release(3, ReleaseStatus::Succeeded)), &[]).as_deref(),
            Some("release 3 of ann")
        );
        // A failed release has changed the environment, too.
        assert_eq!(
            overtaken(&mine, Some(&parent), &[record(1), record(3)]).as_deref(),
            Some("release 3 of ann")
        );
        // The environment's own record gave our release the next number.
        let ours = ReleaseRecord { number: 4, ..record(2) };
        assert_eq!(overtaken(&mine, Some(&parent), &[record(3), ours]), None);
    }

    #[test]
    fn going_back_skips_what_runs_unless_the_environment_is_between_releases() {
        let rows = [
            release(4, ReleaseStatus::Failed),
            release(3, ReleaseStatus::Succeeded),
            release(2, ReleaseStatus::Abandoned),
            release(1, ReleaseStatus::Succeeded),
        ];
        let numbers = |is_between| {
            let (current, candidates) = earlier(&rows, is_between, "dev").unwrap();
            let candidates: Vec<i64> = candidates.iter().map(|row| row.number).collect();
            (current.number, candidates)
        };
        assert_eq!(numbers(false), (3, vec![1]));
        assert_eq!(numbers(true), (3, vec![3, 1]));
        let error = earlier(&rows[..1], false, "dev").unwrap_err().to_string();
        assert_eq!(error, "nothing was deployed to `dev` yet");
    }

    #[test]
    fn the_same_objects_are_the_same_wherever_they_are_written() {
        let mut moved = plan();
        moved.objects[0].place.line = 7;
        assert!(same_objects(&plan(), &moved));
        moved.objects = vec![config_map("web", "hello")];
        assert!(!same_objects(&plan(), &moved));
    }

    #[test]
    fn a_deployment_of_what_runs_is_no_release_of_its_own() {
        let runs = release(1, ReleaseStatus::Succeeded);
        let mut again = plan();
        assert!(!is_repeat(&again, &runs, &plan()), "it has changes");
        again.changes.clear();
        assert!(is_repeat(&again, &runs, &plan()));
        let other = |change: fn(&mut Plan)| {
            let mut other = again.clone();
            change(&mut other);
            is_repeat(&other, &runs, &plan())
        };
        assert!(!other(|plan| plan.parent = None));
        assert!(!other(|plan| plan.commit = None));
        assert!(!other(|plan| plan.images.clear()));
        assert!(!other(|plan| plan.objects = vec![config_map("web", "good evening")]));
    }

    #[test]
    fn what_does_not_run_well_is_watched_again() {
        let workload = |kind: &str, ready, message: &str| WorkloadStatus {
            kind: kind.into(),
            ready,
            desired: 2,
            message: message.into(),
            ..WorkloadStatus::default()
        };
        assert!(is_well(&[
            workload("Deployment", 2, ""),
            workload("CronJob", 0, "it failed")
        ]));
        assert!(!is_well(&[workload("Deployment", 1, "")]));
        assert!(!is_well(&[workload("Deployment", 2, "a pod is in a crash loop")]));
    }

    #[test]
    fn an_attempt_of_a_job_has_one_release() {
        let (job, other) = (JobId::from_u128(1), JobId::from_u128(2));
        let id = release_of_attempt(job, 1, "dev");
        assert_eq!(id, release_of_attempt(job, 1, "dev"));
        let ids = [
            id,
            release_of_attempt(job, 2, "dev"),
            release_of_attempt(job, 1, "qa"),
            release_of_attempt(other, 1, "dev"),
        ];
        assert_eq!(std::collections::BTreeSet::from(ids).len(), 4);
        let before = |status| ReleaseRow {
            id,
            ..release(1, status)
        };
        let again = ReleaseId::from_u128(9);
        assert!(is_meant_again(&before(ReleaseStatus::Failed), id));
        assert!(is_meant_again(&before(ReleaseStatus::Applying), again));
        assert!(is_meant_again(&before(ReleaseStatus::Succeeded), again));
        assert!(!is_meant_again(&before(ReleaseStatus::RolledBack), again));
    }

    #[test]
    fn a_failure_comes_with_the_last_lines_of_its_container() {
        let error = ApplyError {
            outcome: Outcome::Failed,
            object: None,
            hook: None,
            message: "it does not start".into(),
            log: vec!["boom".into(), "bye".into()],
            running: Vec::new(),
        };
        assert_eq!(failure_message(&error), "it does not start\n  | boom\n  | bye");
        assert!(left_as_it_is("dev", Some(3)).contains("`towpath rollback dev 3`"));
        assert_eq!(
            left_as_it_is("dev", None),
            "There was no release before this one to go back to."
        );
        let error = no_earlier("dev", Some(3)).to_string();
        assert!(
            error.contains("release 3") && error.contains("towpath history dev"),
            "{error}"
        );
    }
}
