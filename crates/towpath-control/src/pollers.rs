//! Keeps the rows that pages read up to date: gates' plans, environments, projects. Also carries out releases and runs.
//!
//! Each is recurring work. Only this module asks clusters, registries and git; pages never do.

use crate::{
    progress::ProgressLogs,
    storage::store_error,
    worker::{Done, Handler},
};
use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use std::{str::FromStr, sync::Arc};
use tokio_util::sync::CancellationToken;
use towpath_delivery::{Delivery, DeliveryError, ErrorKind};
use towpath_store::{Commit, Guard, Lease, Sighting, Store, Work, WorkKey, WorkKind, Write};
use towpath_types::{Clock, EnvironmentId};

/// How often to refresh a waiting gate's plan when nothing changed.
const GATE_EVERY: SignedDuration = SignedDuration::from_mins(5);
/// How often to retry a gate whose plan could not be made.
const GATE_AGAIN: SignedDuration = SignedDuration::from_secs(30);
/// How often to look at an environment.
const ENVIRONMENT_EVERY: SignedDuration = SignedDuration::from_secs(15);
/// How often to look for drift.
const DRIFT_EVERY: SignedDuration = SignedDuration::from_mins(5);
/// How often to retry an unreachable environment.
const UNREACHABLE_EVERY: SignedDuration = SignedDuration::from_secs(30);
/// How often to read a project's environments when nothing was pushed.
const PROJECT_EVERY: SignedDuration = SignedDuration::from_hours(1);

fn key<T: FromStr>(lease: &Lease, what: &str) -> Result<T, DeliveryError> {
    let key = &lease.work.key.key;
    key.parse()
        .map_err(|_| DeliveryError::internal(format!("`{}` is not {what}", key.escape_debug())))
}

/// Makes gates' plans.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct GatePoller {
    pub delivery: Arc<Delivery>,
    pub clock: Arc<dyn Clock>,
}

impl Handler for GatePoller {
    fn handle<'a>(&'a self, lease: &'a Lease, _: &'a CancellationToken) -> BoxFuture<'a, Result<Done, DeliveryError>> {
        Box::pin(async move {
            let gate = match self.delivery.gates.refresh(key(lease, "a job's id")?).await {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Done::Finished),
                other => other?,
            };
            if !gate.waiting || gate.environment.is_none() {
                return Ok(Done::Finished);
            }
            let pause = if gate.plan.is_some() { GATE_EVERY } else { GATE_AGAIN };
            Ok(Done::Again(self.clock.now() + pause))
        })
    }
}

/// Looks at environments.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct EnvironmentPoller {
    pub delivery: Arc<Delivery>,
    pub clock: Arc<dyn Clock>,
}

impl Handler for EnvironmentPoller {
    fn handle<'a>(&'a self, lease: &'a Lease, _: &'a CancellationToken) -> BoxFuture<'a, Result<Done, DeliveryError>> {
        Box::pin(async move {
            let id: EnvironmentId = key(lease, "an environment")?;
            let row = match self.delivery.observer.observe(&id).await {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Done::Finished),
                other => other?,
            };
            let now = self.clock.now();
            let next = match row.sighting {
                Sighting::Seen { .. } => ENVIRONMENT_EVERY,
                Sighting::Unknown { .. } | Sighting::Never => UNREACHABLE_EVERY,
            };
            let drift_is_old = row.drift_at.is_none_or(|at| now.duration_since(at) >= DRIFT_EVERY);
            if row.release.is_some() && drift_is_old && matches!(row.sighting, Sighting::Seen { .. }) {
                match self.delivery.observer.look_for_drift(&id).await {
                    Ok(view) if view.objects.is_empty() => {}
                    Ok(view) => {
                        tracing::warn!(environment = %id, objects = view.objects.len(), "an environment has drifted");
                    }
                    // What was seen is stored. The next look checks for drift again.
                    Err(error) => tracing::warn!(environment = %id, error = error.chain(), "failed to look for drift"),
                }
            }
            Ok(Done::Again(now + next))
        })
    }
}

/// Reads which environments each project has.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct ProjectPoller {
    pub store: Arc<dyn Store>,
    pub delivery: Arc<Delivery>,
    pub clock: Arc<dyn Clock>,
}

impl Handler for ProjectPoller {
    fn handle<'a>(&'a self, lease: &'a Lease, _: &'a CancellationToken) -> BoxFuture<'a, Result<Done, DeliveryError>> {
        Box::pin(async move {
            let project = key(lease, "a project's name")?;
            self.delivery.discoverer.discover(&project).await?;
            let now = self.clock.now();
            let mut commit = Commit::new();
            for environment in self.store.environments(Some(&project)).await.map_err(store_error)? {
                commit.write(Write::Work(environment_work(&environment.id, now)));
            }
            self.store.commit(commit).await.map_err(store_error)?;
            Ok(Done::Again(now + PROJECT_EVERY))
        })
    }
}

/// Carries releases out.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct ReleaseCarrier {
    pub store: Arc<dyn Store>,
    pub delivery: Arc<Delivery>,
    pub progress: ProgressLogs,
    pub clock: Arc<dyn Clock>,
}

impl Handler for ReleaseCarrier {
    fn handle<'a>(&'a self, lease: &'a Lease, _: &'a CancellationToken) -> BoxFuture<'a, Result<Done, DeliveryError>> {
        Box::pin(async move {
            let id = key(lease, "a release's id")?;
            let lines = self.progress.write_release(id).await?;
            let carried = self.delivery.releases.carry_out(&Guard::from(lease), id, &lines).await;
            lines
                .close(carried.as_ref().is_ok_and(|release| release.status.is_over()))
                .await;
            self.look_again(&carried?.environment).await?;
            Ok(Done::Committed)
        })
    }

    // A release that does not end blocks every release behind it.
    fn give_up<'a>(
        &'a self,
        lease: &'a Lease,
        error: &'a DeliveryError,
    ) -> BoxFuture<'a, Result<Option<Done>, DeliveryError>> {
        Box::pin(async move {
            let id = key(lease, "a release's id")?;
            let guard = Guard::from(lease);
            let reason = format!("given up after several tries: {}", error.chain());
            let release = self.delivery.releases.give_up(&guard, id, &reason).await?;
            self.progress.write_release(id).await?.close(true).await;
            self.look_again(&release.environment).await?;
            Ok(Some(Done::Committed))
        })
    }
}

impl ReleaseCarrier {
    /// Looks at an environment after it changed, and refreshes the plans of the gates that lead there.
    async fn look_again(&self, environment: &EnvironmentId) -> Result<(), DeliveryError> {
        let now = self.clock.now();
        let mut commit = Commit::new().with(Write::Work(environment_work(environment, now)));
        for gate in self.store.gates_of(environment).await.map_err(store_error)? {
            commit.write(Write::Work(Work {
                project: Some(gate.project.clone()),
                ..Work::new(WorkKey::new(WorkKind::Gate, gate.job), now)
            }));
        }
        self.store.commit(commit).await.map(drop).map_err(store_error)
    }
}

/// Follows one-off runs to their end.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct RunFollower {
    pub delivery: Arc<Delivery>,
    pub progress: ProgressLogs,
}

impl Handler for RunFollower {
    fn handle<'a>(&'a self, lease: &'a Lease, _: &'a CancellationToken) -> BoxFuture<'a, Result<Done, DeliveryError>> {
        Box::pin(async move {
            let id = key(lease, "a run's id")?;
            let lines = self.progress.write_run(id);
            let followed = self.delivery.runs.follow(&Guard::from(lease), id, &lines).await;
            lines
                .close(followed.as_ref().is_ok_and(|run| run.outcome.is_some()))
                .await;
            followed?;
            Ok(Done::Committed)
        })
    }

    fn give_up<'a>(
        &'a self,
        lease: &'a Lease,
        error: &'a DeliveryError,
    ) -> BoxFuture<'a, Result<Option<Done>, DeliveryError>> {
        Box::pin(async move {
            let id = key(lease, "a run's id")?;
            let guard = Guard::from(lease);
            self.delivery.runs.give_up(&guard, id, &error.chain()).await?;
            self.progress.write_run(id).close(true).await;
            Ok(Some(Done::Committed))
        })
    }
}

fn environment_work(id: &EnvironmentId, now: Timestamp) -> Work {
    Work {
        project: id.project().parse().ok(),
        ..Work::new(WorkKey::new(WorkKind::Environment, id.slug()), now)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::World;
    use std::{collections::BTreeMap, time::Duration};
    use towpath_store::{Expect, ReleaseRow};
    use towpath_types::{Actor, Digest, Outcome, ReleaseId, ReleaseStatus, Via};
    use towpath_workflow::{
        release::{Event, OnFailure},
        wire::write_release_event,
    };

    #[tokio::test]
    async fn a_release_that_fails_again_and_again_ends_and_stops_nothing_behind_it() {
        let world = World::new().await;
        let (id, at) = (ReleaseId::from_u128(1), world.clock.now());
        let plan = Digest::of(b"a plan that was lost");
        let row = ReleaseRow {
            id,
            environment: EnvironmentId::new("claims", "dev").unwrap(),
            number: 0,
            status: ReleaseStatus::Applying,
            outcome: None,
            images: BTreeMap::new(),
            commit: None,
            actor: Actor::owner("ada", Via::Page),
            cause: "a test".into(),
            plan: plan.clone(),
            parent: None,
            job: None,
            created_at: at,
            stopped_at: None,
            message: None,
            repeats: 0,
            repeated_at: None,
            version: 0,
        };
        let events = [
            Event::Planned {
                plan: plan.clone(),
                parent: None,
                on_failure: OnFailure::Rollback,
                at,
            },
            Event::Approved {
                plan,
                by: "ada".into(),
                at,
            },
            Event::ApplyBegan { at },
        ];
        let key = WorkKey::new(WorkKind::Release, id);
        let commit = Commit::new()
            .with(Write::Release(row, Expect::Absent))
            .with(Write::Events {
                stream: format!("release/{id}"),
                expected: 0,
                events: events.iter().map(write_release_event).collect(),
            })
            .with(Write::Work(Work::new(key.clone(), at)));
        world.store.commit(commit).await.unwrap();
        let carrier = world.release_carrier();
        let leases = world.store.claim(&[key], "a-server", at, Duration::from_secs(60)).await;
        let lease = leases.unwrap().remove(0);
        let error = carrier.handle(&lease, &CancellationToken::new()).await.unwrap_err();
        assert_eq!(world.store.open_releases().await.unwrap().len(), 1, "it is tried again");
        assert_eq!(carrier.give_up(&lease, &error).await.unwrap(), Some(Done::Committed));
        let row = world.store.release(id).await.unwrap().unwrap();
        assert_eq!(
            (row.status, row.outcome),
            (ReleaseStatus::Failed, Some(Outcome::Errored))
        );
        assert!(row.message.unwrap().contains("given up after several tries"));
        assert_eq!(world.store.open_releases().await.unwrap(), []);
    }
}
