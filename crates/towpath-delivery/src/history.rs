//! The one place that reconciles an environment's own record of its releases with the store's rows.
//!
//! Every deployment, wherever it comes from, is recorded in the environment, and the store imports that record. Only
//! the process that carries a release out updates the row of a release in progress.

use crate::{
    error::DeliveryError,
    plan::{Plan, read_plan, wire},
    retry::until_stored,
};
use jiff::Timestamp;
use std::sync::Arc;
use towpath_deploy::{Environment, ReleaseRecord, Target};
use towpath_store::{Commit, Expect, PlanRow, ReleaseRow, Store, Write};
use towpath_types::{Actor, Clock, Digest, EnvironmentId, Outcome, RecordedState, ReleaseStatus};

/// How many releases `history` shows.
pub const HISTORY: u32 = 50;

/// A release as the environment itself records it. `plan` is its plan's wire form.
pub(crate) fn record_of(row: &ReleaseRow, plan: &Plan) -> ReleaseRecord {
    ReleaseRecord {
        id: row.id,
        number: row.number,
        state: row.recorded_state(),
        images: plan.images.values().cloned().collect(),
        commit: row.commit.clone(),
        by: row.actor.name.clone(),
        cause: row.cause.clone(),
        at: row.created_at,
        stopped_at: row.stopped_at,
        message: row.message.clone(),
        repeats: row.repeats,
        repeated_at: row.repeated_at,
        plan: wire::write(plan),
    }
}

/// One release to store: the row with its expectation, and its plan if that may be new.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Lesson {
    row: ReleaseRow,
    expect: Expect,
    plan: Option<PlanRow>,
}

impl Lesson {
    fn writes(self) -> impl Iterator<Item = Write> {
        let plan = self.plan.map(Write::Plan);
        plan.into_iter().chain([Write::Release(self.row, self.expect)])
    }
}

/// What the store has to import from one record; `known` is the store's row of that release.
///
/// # Errors
/// When the record was written by a newer Towpath.
pub(crate) fn lesson(
    record: &ReleaseRecord,
    known: Option<&ReleaseRow>,
    environment: &EnvironmentId,
    now: Timestamp,
) -> Result<Option<Lesson>, DeliveryError> {
    let RecordedState::Ended(outcome) = record.state else {
        return Ok(None);
    };
    let status = match outcome {
        Outcome::Succeeded => ReleaseStatus::Succeeded,
        Outcome::Rejected => ReleaseStatus::Abandoned,
        Outcome::Failed | Outcome::Errored | Outcome::TimedOut | Outcome::Canceled | Outcome::Skipped => {
            ReleaseStatus::Failed
        }
    };
    if let Some(known) = known {
        let is_same =
            known.outcome == Some(outcome) && known.number == record.number && known.repeats >= record.repeats;
        if !known.status.is_over() || is_same {
            return Ok(None);
        }
        let mut row = known.clone();
        row.number = record.number;
        if record.repeats > known.repeats {
            (row.repeats, row.repeated_at) = (record.repeats, record.repeated_at);
        }
        // After a rollback both say failed, but only the store knows that the previous release runs again.
        if row.outcome != Some(outcome) {
            row.status = status;
            row.outcome = Some(outcome);
            row.stopped_at = record.stopped_at;
            row.message.clone_from(&record.message);
        }
        return Ok(Some(Lesson {
            expect: Expect::Version(known.version),
            row,
            plan: None,
        }));
    }
    let plan = read_plan(record.plan.clone()).map_err(|error| {
        DeliveryError::conflict(format!(
            "the record of release {} of {environment} cannot be read: {}",
            record.number,
            towpath_types::with_causes(&error)
        ))
    })?;
    let row = ReleaseRow {
        id: record.id,
        environment: environment.clone(),
        number: record.number,
        status,
        outcome: Some(outcome),
        images: plan.images.clone(),
        commit: record.commit.clone(),
        actor: Actor::process(&record.by),
        cause: record.cause.clone(),
        plan: plan.digest(),
        parent: plan.parent,
        job: None,
        created_at: record.at,
        stopped_at: record.stopped_at,
        message: record.message.clone(),
        repeats: record.repeats,
        repeated_at: record.repeated_at,
        version: 0,
    };
    Ok(Some(Lesson {
        expect: Expect::Absent,
        row,
        plan: Some(plan.row(now)),
    }))
}

/// Reads the releases of environments, and imports what environments record themselves into the store's rows.
#[derive(Clone)]
pub struct History {
    store: Arc<dyn Store>,
    target: Arc<dyn Target>,
    clock: Arc<dyn Clock>,
}

impl History {
    pub(crate) fn new(store: Arc<dyn Store>, target: Arc<dyn Target>, clock: Arc<dyn Clock>) -> Self {
        Self { store, target, clock }
    }

    /// Imports the releases that others recorded in an environment. Returns the environment's own record.
    ///
    /// # Errors
    /// `Unavailable` when the environment does not answer; `Conflict` when a newer Towpath recorded a release there.
    pub async fn learn(&self, place: &Environment) -> Result<Vec<ReleaseRecord>, DeliveryError> {
        let recorded = self.target.releases(place).await?;
        if recorded.is_empty() {
            return Ok(recorded);
        }
        until_stored!(async {
            let newest = self.store.releases(&place.id, HISTORY).await?;
            let now = self.clock.now();
            let mut commit = Commit::new();
            for record in &recorded {
                let known = match newest.iter().find(|known| known.id == record.id) {
                    Some(known) => Some(known.clone()),
                    None => self.store.release(record.id).await?,
                };
                let lesson = lesson(record, known.as_ref(), &place.id, now)?;
                lesson
                    .into_iter()
                    .flat_map(Lesson::writes)
                    .for_each(|write| commit.write(write));
            }
            if !commit.is_empty() {
                self.store.commit(commit).await?;
            }
            Ok(())
        })?;
        Ok(recorded)
    }

    /// The release that runs in an environment: the newest that succeeded.
    pub(crate) async fn last(&self, id: &EnvironmentId) -> Result<Option<ReleaseRow>, DeliveryError> {
        Ok(self.store.last_release(id, &[ReleaseStatus::Succeeded]).await?)
    }

    /// The plan that a release carried out.
    ///
    /// # Errors
    /// `Internal` when the store does not have it, or has other content under its digest.
    pub(crate) async fn plan_of(&self, row: &ReleaseRow) -> Result<Plan, DeliveryError> {
        let broken = |why: String| {
            DeliveryError::internal(format!(
                "the plan of release {} of {} cannot be used: {why}",
                row.number, row.environment
            ))
        };
        let stored = self.stored_plan(&row.plan).await;
        let stored = stored.map_err(|error| match error.is_of_store() {
            true => error,
            false => broken(error.to_string()),
        })?;
        stored.ok_or_else(|| broken("it is not in Towpath's storage".into()))
    }

    /// The plan stored under a digest, verified against the digest, so that a release carries out exactly what somebody
    /// agreed to.
    ///
    /// # Errors
    /// `Internal` when the stored content does not match.
    pub(crate) async fn stored_plan(&self, digest: &Digest) -> Result<Option<Plan>, DeliveryError> {
        let Some(stored) = self.store.plan(digest).await? else {
            return Ok(None);
        };
        if wire::digest(&stored.plan) != *digest {
            return Err(DeliveryError::internal("what is stored is not what its name says"));
        }
        let plan = read_plan(stored.plan);
        plan.map(Some)
            .map_err(|error| DeliveryError::internal(towpath_types::with_causes(&error)))
    }

    /// Where an environment is: where its last release was carried out or begun, or else where the default branch's
    /// manifests put it.
    ///
    /// # Errors
    /// `NotFound` when the project has no such environment, `Invalid` when several kube contexts have one.
    pub async fn place(&self, id: &EnvironmentId) -> Result<Environment, DeliveryError> {
        for statuses in [&[ReleaseStatus::Succeeded][..], &[]] {
            if let Some(row) = self.store.last_release(id, statuses).await? {
                return Ok(self.plan_of(&row).await?.place);
            }
        }
        let Some(row) = self.store.environment(id).await?.filter(|row| row.listed) else {
            return Err(self.no_environment(id).await?);
        };
        if !row.ambiguous.is_empty() {
            return Err(crate::manifests::ambiguous(id.environment(), &row.ambiguous));
        }
        Ok(Environment {
            id: row.id,
            kube_context: row.kube_context,
            namespace: row.namespace,
        })
    }

    /// Like [`History::place`], but also accepts an environment without releases and manifests in which something was
    /// begun.
    pub(crate) async fn place_or_row(&self, id: &EnvironmentId) -> Result<Environment, DeliveryError> {
        let error = match self.place(id).await {
            Err(error) if !error.is_of_store() => error,
            other => return other,
        };
        let row = self.store.environment(id).await?;
        let row = row.filter(|row| row.ambiguous.is_empty() && !row.kube_context.is_empty());
        row.map(|row| Environment {
            id: row.id,
            kube_context: row.kube_context,
            namespace: row.namespace,
        })
        .ok_or(error)
    }

    async fn no_environment(&self, id: &EnvironmentId) -> Result<DeliveryError, DeliveryError> {
        let (project, environment) = (id.project(), id.environment());
        let name = crate::repository::project_name(project)?;
        let is_known =
            self.store.project(&name).await?.is_some() || !self.store.environments(Some(&name)).await?.is_empty();
        Ok(DeliveryError::not_found(match is_known {
            true => format!("project `{project}` has no environment `{environment}`"),
            false => format!("there is no project `{project}`"),
        }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{plans::plan, rows};

    fn known(status: ReleaseStatus, outcome: Option<Outcome>) -> ReleaseRow {
        ReleaseRow {
            status,
            outcome,
            images: plan().images,
            plan: plan().digest(),
            parent: plan().parent,
            version: 7,
            ..rows::release("claims", "dev")
        }
    }

    fn recorded(state: &str) -> ReleaseRecord {
        ReleaseRecord {
            state: state.parse().unwrap(),
            message: Some("why".into()),
            ..record_of(&known(ReleaseStatus::Applying, None), &plan())
        }
    }

    fn learn(record: &ReleaseRecord, known: Option<&ReleaseRow>) -> Option<Lesson> {
        lesson(record, known, &plan().place.id, rows::start()).unwrap()
    }

    #[test]
    fn a_release_of_somebody_else_becomes_a_row_with_its_plan() {
        let learned = learn(&recorded("succeeded"), None).unwrap();
        assert_eq!(learned.expect, Expect::Absent);
        assert_eq!(
            learned.plan.as_ref().map(|plan| plan.digest.clone()),
            Some(plan().digest())
        );
        assert_eq!(
            learned.row,
            ReleaseRow {
                status: ReleaseStatus::Succeeded,
                outcome: Some(Outcome::Succeeded),
                actor: Actor::process("ann"),
                message: Some("why".into()),
                version: 0,
                ..known(ReleaseStatus::Succeeded, None)
            }
        );
        let failed = learn(&recorded("timed_out"), None).unwrap().row;
        assert_eq!(
            (failed.status, failed.outcome),
            (ReleaseStatus::Failed, Some(Outcome::TimedOut))
        );
    }

    #[test]
    fn a_release_under_way_is_written_by_whoever_carries_it_out() {
        assert_eq!(learn(&recorded("running"), None), None);
        let here = known(ReleaseStatus::Applying, None);
        assert_eq!(learn(&recorded("succeeded"), Some(&here)), None);
    }

    #[test]
    fn a_release_that_was_gone_back_from_stays_that() {
        let here = known(ReleaseStatus::RolledBack, Some(Outcome::Failed));
        assert_eq!(learn(&recorded("failed"), Some(&here)), None);
        let renumbered = ReleaseRecord {
            number: 9,
            ..recorded("failed")
        };
        let learned = learn(&renumbered, Some(&here)).unwrap();
        assert_eq!(
            (learned.row, learned.expect, learned.plan),
            (ReleaseRow { number: 9, ..here }, Expect::Version(7), None)
        );
    }

    #[test]
    fn the_environments_word_about_an_end_counts() {
        let here = ReleaseRow {
            actor: rows::ann(),
            ..known(ReleaseStatus::Failed, Some(Outcome::Errored))
        };
        let row = learn(&recorded("succeeded"), Some(&here)).unwrap().row;
        assert_eq!(
            (row.status, row.outcome, row.actor, row.plan),
            (
                ReleaseStatus::Succeeded,
                Some(Outcome::Succeeded),
                rows::ann(),
                plan().digest()
            )
        );
    }

    #[test]
    fn a_repeat_that_somebody_else_counted_is_learned() {
        let here = known(ReleaseStatus::Succeeded, Some(Outcome::Succeeded));
        let repeated = ReleaseRecord {
            repeats: 2,
            repeated_at: Some(rows::start()),
            ..recorded("succeeded")
        };
        let row = learn(&repeated, Some(&here)).unwrap().row;
        assert_eq!((row.repeats, row.repeated_at), (2, Some(rows::start())));
        assert_eq!(row.message, here.message);
        assert_eq!(learn(&repeated, Some(&row)), None);
    }

    #[test]
    fn a_record_that_cannot_be_read_is_named() {
        let refused = |record: &ReleaseRecord| {
            let error = lesson(record, None, &plan().place.id, rows::start()).unwrap_err();
            error.to_string()
        };
        let mut newer = recorded("succeeded");
        newer.plan["version"] = serde_json::json!(2);
        assert!(
            refused(&newer)
                .contains("the record of release 1 of claims/dev cannot be read: a newer Towpath wrote the plan"),
            "{}",
            refused(&newer)
        );
    }

    #[test]
    fn a_record_says_how_a_release_ended_in_one_word() {
        let state = |status, outcome| record_of(&known(status, outcome), &plan()).state.to_string();
        assert_eq!(state(ReleaseStatus::RollingBack, None), "running");
        assert_eq!(state(ReleaseStatus::RolledBack, Some(Outcome::TimedOut)), "timed_out");
    }
}
