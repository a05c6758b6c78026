//! Looks at environments and stores the result, so that pages can read rows.

use crate::{
    environment::{DriftView, Seen, drift_view, unseen, write_drift, write_seen},
    error::DeliveryError,
    history::History,
    retry::until_stored,
};
use serde_json::Value;
use std::sync::Arc;
use towpath_deploy::{Environment, Target};
use towpath_store::{Commit, EnvironmentRow, Expect, Sighting, Store, Write};
use towpath_types::{Clock, EnvironmentId, ReleaseId};

/// Looks at environments.
#[derive(Clone)]
pub struct Observer {
    store: Arc<dyn Store>,
    target: Arc<dyn Target>,
    clock: Arc<dyn Clock>,
    history: History,
}

impl Observer {
    pub(crate) fn new(store: Arc<dyn Store>, target: Arc<dyn Target>, clock: Arc<dyn Clock>, history: History) -> Self {
        Self {
            store,
            target,
            clock,
            history,
        }
    }

    /// Looks at an environment, imports the releases that others recorded there, and stores what it sees. An
    /// environment that does not answer becomes unknown, with the time and the reason; its row keeps what was seen
    /// before.
    ///
    /// # Errors
    /// `NotFound` when there is no such environment; when the store does not work. Never because the environment does
    /// not answer.
    pub async fn observe(&self, id: &EnvironmentId) -> Result<EnvironmentRow, DeliveryError> {
        let looked = self.look(id).await;
        let looked = match looked {
            Err(error) if error.is_of_store() => return Err(error),
            looked => looked,
        };
        until_stored!(async {
            let known = self.store.environment(id).await?;
            let expect = known
                .as_ref()
                .map_or(Expect::Absent, |row| Expect::Version(row.version));
            let mut row = match (known, &looked) {
                (Some(row), _) => row,
                (None, Ok(looked)) => unseen(&looked.place),
                // Without a row there is nothing to mark as unknown.
                (None, Err(error)) => return Err(DeliveryError::new(error.kind(), error.chain())),
            };
            let now = self.clock.now();
            match &looked {
                Ok(looked) => {
                    row.sighting = Sighting::Seen { at: now };
                    row.seen = write_seen(&looked.seen);
                    // Drift from one release says nothing about the next.
                    if row.release != looked.release {
                        row.drift = Value::Null;
                        row.drift_at = None;
                    }
                    row.release = looked.release;
                }
                Err(error) => {
                    let since = match row.sighting {
                        Sighting::Unknown { since, .. } => since,
                        Sighting::Never | Sighting::Seen { .. } => now,
                    };
                    let because = error.chain();
                    tracing::warn!(environment = %id, because, "an environment does not answer");
                    row.sighting = Sighting::Unknown { since, because };
                }
            }
            let commit = Commit::new().with(Write::Environment(row.clone(), expect));
            self.store.commit(commit).await?;
            row.version += 1;
            Ok(row)
        })
    }

    async fn look(&self, id: &EnvironmentId) -> Result<Looked, DeliveryError> {
        let place = self.history.place(id).await?;
        self.history.learn(&place).await?;
        let workloads = self.target.status(&place).await?;
        let applied = self.target.current(&place).await?;
        let cron_jobs = self.target.cron_jobs(&place).await?;
        let release = self.history.last(id).await?.map(|release| release.id);
        Ok(Looked {
            place,
            seen: Seen::of(workloads, applied, cron_jobs),
            release,
        })
    }

    /// Finds the differences between the environment and its release, and stores them.
    ///
    /// # Errors
    /// `Conflict` when nothing was deployed there; `Unavailable` when it does not answer.
    pub async fn look_for_drift(&self, id: &EnvironmentId) -> Result<DriftView, DeliveryError> {
        let place = self.history.place(id).await?;
        // Somebody may have deployed there from a laptop meanwhile.
        self.history.learn(&place).await?;
        let nothing = || {
            DeliveryError::conflict(format!(
                "nothing was deployed to `{}` yet, so nothing can differ",
                id.environment()
            ))
        };
        let release = self.history.last(id).await?.ok_or_else(nothing)?;
        let objects = self.history.plan_of(&release).await?.objects;
        let drift = self.target.drift(&place, &objects).await?;
        let view = drift_view(drift, self.clock.now());
        until_stored!(async {
            let known = self.store.environment(id).await?;
            let expect = known
                .as_ref()
                .map_or(Expect::Absent, |row| Expect::Version(row.version));
            let mut row = known.unwrap_or_else(|| unseen(&place));
            row.drift = write_drift(&view);
            row.drift_at = Some(view.at);
            row.release = Some(release.id);
            self.store
                .commit(Commit::new().with(Write::Environment(row, expect)))
                .await?;
            Ok(())
        })?;
        if !view.objects.is_empty() {
            let objects: Vec<String> = view
                .objects
                .iter()
                .map(|one| format!("{}/{}", one.kind, one.name))
                .collect();
            tracing::warn!(environment = %id, objects = objects.join(", "), "an environment has drifted");
        }
        Ok(view)
    }
}

/// The result of one look.
struct Looked {
    place: Environment,
    seen: Seen,
    /// The release that runs there.
    release: Option<ReleaseId>,
}
