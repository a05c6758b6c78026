//! What people ask of an environment beside deploying to it: who may, what has drifted, how its cron jobs are doing.

use crate::{
    Control, ControlError,
    releases::{Release, length, target_error},
    views::{DriftView, DriftedObject},
};
use jiff::{SignedDuration, Timestamp};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use towpath_deploy::{CronJobStatus, Drift, Environment, Hold};
use towpath_manifest::ChangeKind;

/// How often drift is looked for.
const LOOK_FOR_DRIFT: Duration = Duration::from_secs(300);

impl Control {
    /// Keeps everybody but `by` from deploying to an environment for `lasts`.
    ///
    /// # Errors
    /// `Conflict` when somebody else does so already.
    pub async fn lock(
        &self,
        project: &str,
        environment: &str,
        reason: &str,
        lasts: SignedDuration,
        by: &str,
    ) -> Result<Hold, ControlError> {
        let place = self.place(project, environment).await?;
        self.refuse_held(&place, by).await?;
        let since = Timestamp::now();
        let until = since
            .checked_add(lasts)
            .ok()
            .filter(|until| *until > since)
            .ok_or_else(|| ControlError::invalid("a lock ends some time after it began"))?;
        let hold = Hold {
            by: by.to_string(),
            reason: reason.to_string(),
            since,
            until,
        };
        self.target
            .set_hold(&place, Some(hold.clone()))
            .await
            .map_err(target_error)?;
        tracing::info!(project, environment, by, %until, "environment locked");
        Ok(hold)
    }

    /// Lets everybody deploy again.
    ///
    /// # Errors
    /// `Conflict` when the lock is somebody else's, unless `force`.
    pub async fn unlock(&self, project: &str, environment: &str, force: bool, by: &str) -> Result<(), ControlError> {
        let place = self.place(project, environment).await?;
        if !force {
            self.refuse_held(&place, by).await?;
        }
        self.target.set_hold(&place, None).await.map_err(target_error)?;
        tracing::info!(project, environment, by, force, "environment unlocked");
        Ok(())
    }

    /// The lock of an environment, unless it has ended.
    pub(crate) async fn hold(&self, place: &Environment) -> Result<Option<Hold>, ControlError> {
        let applied = self.target.current(place).await.map_err(target_error)?;
        let hold = applied.and_then(|applied| applied.hold);
        Ok(hold.filter(|hold| Timestamp::now() < hold.until))
    }

    /// An error when somebody else than `by` has locked the environment.
    pub(crate) async fn refuse_held(&self, place: &Environment, by: &str) -> Result<(), ControlError> {
        match self.hold(place).await? {
            Some(hold) if hold.keeps_out(by, Timestamp::now()) => {
                let name = place.id.environment();
                Err(ControlError::conflict(format!(
                    "{name} is {hold}; {} ends it with `towpath unlock {name}`",
                    hold.by
                )))
            }
            _ => Ok(()),
        }
    }

    /// What is not as the environment's release has it.
    ///
    /// # Errors
    /// `Conflict` when nothing was deployed there.
    pub async fn drift(&self, project: &str, environment: &str) -> Result<DriftView, ControlError> {
        let place = self.place(project, environment).await?;
        self.learn_releases(&place).await?;
        let release = self.last_release(&place.id.slug()).await?;
        let nothing = || {
            ControlError::conflict(format!(
                "nothing was deployed to `{environment}` yet, so nothing can differ"
            ))
        };
        let release = release.ok_or_else(nothing)?;
        self.look_for_drift(&place, &release).await
    }

    async fn look_for_drift(&self, place: &Environment, release: &Release) -> Result<DriftView, ControlError> {
        let objects = release.plan()?.objects;
        let drift = self.target.drift(place, &objects).await.map_err(target_error)?;
        let view = DriftView {
            at: Timestamp::now(),
            objects: drift.into_iter().map(drifted).collect(),
        };
        self.releases.remember_drift(&place.id.slug(), view.clone());
        Ok(view)
    }

    /// Looks for drift now and then, until `shutdown`.
    pub(crate) async fn watch_drift_until(&self, shutdown: &CancellationToken) {
        let mut times = tokio::time::interval(LOOK_FOR_DRIFT);
        while shutdown.run_until_cancelled(times.tick()).await.is_some() {
            let looked = shutdown.run_until_cancelled(self.look_everywhere()).await;
            if let Some(Err(error)) = looked {
                tracing::warn!(error = error.chain(), "failed to look for drift");
            }
        }
    }

    async fn look_everywhere(&self) -> Result<(), ControlError> {
        for place in self.every_environment().await? {
            // A laptop may have deployed there meanwhile.
            if let Err(error) = self.learn_releases(&place).await {
                tracing::warn!(environment = %place, error = error.chain(), "failed to look for drift");
                continue;
            }
            let Some(release) = self.last_release(&place.id.slug()).await? else {
                continue;
            };
            match self.look_for_drift(&place, &release).await {
                Ok(view) if !view.objects.is_empty() => {
                    let objects: Vec<String> = view
                        .objects
                        .iter()
                        .map(|one| format!("{}/{}", one.kind, one.name))
                        .collect();
                    tracing::warn!(environment = %place, objects = objects.join(", "), "an environment has drifted");
                }
                Ok(_) => {}
                // The others are looked at all the same.
                Err(error) => tracing::warn!(environment = %place, error = error.chain(), "failed to look for drift"),
            }
        }
        Ok(())
    }

    /// The cron jobs of an environment, and how their runs went.
    ///
    /// # Errors
    /// `NotFound` when the project has no such environment.
    pub async fn cron_jobs(&self, project: &str, environment: &str) -> Result<Vec<CronJobStatus>, ControlError> {
        let place = self.place(project, environment).await?;
        self.target.cron_jobs(&place).await.map_err(target_error)
    }

    /// Runs a cron job now, as the environment's release has it; its lines and its end come by `progress`.
    ///
    /// # Errors
    /// When the environment has no such cron job, or it cannot run.
    pub async fn run_cron_job(
        self: &Arc<Self>,
        project: &str,
        environment: &str,
        name: &str,
        by: &str,
    ) -> Result<String, ControlError> {
        let place = self.place(project, environment).await?;
        // People know a cron job by its file, too: `vacuum_db` for `vacuum-db`.
        let known = self.target.cron_jobs(&place).await.map_err(target_error)?;
        let plain = name.replace('_', "-");
        let found = known.iter().find(|known| known.name == name).or_else(|| {
            known
                .iter()
                .find(|known| known.name == plain || known.name.ends_with(&format!("-{plain}")))
        });
        let Some(found) = found else {
            let known: BTreeSet<&str> = known.iter().map(|known| known.name.as_str()).collect();
            let known = if known.is_empty() {
                "it has none".to_string()
            } else {
                format!("it has {}", Vec::from_iter(known).join(", "))
            };
            return Err(ControlError::not_found(format!(
                "`{environment}` runs no cron job `{name}`: {known}"
            )));
        };
        self.refuse_held(&place, by).await?;
        tracing::info!(project, environment, name = found.name, by, "cron job run by hand");
        // As for the release that brought it.
        self.learn_releases(&place).await?;
        let release = self.last_release(&place.id.slug()).await?;
        let wait = release.and_then(|release| release.plan().ok()).map(|plan| plan.wait);
        let unschedulable = length(wait.unwrap_or_default().unschedulable);
        let handle = self
            .target
            .start_cron_job(&place, &found.name, unschedulable)
            .await
            .map_err(target_error)?;
        Ok(self.follow_job(handle))
    }
}

fn drifted(drift: Drift) -> DriftedObject {
    DriftedObject {
        action: match drift.change.kind {
            ChangeKind::Deleted => "deleted",
            _ => "changed",
        }
        .into(),
        diff: drift.change.to_string(),
        kind: drift.change.id.kind,
        name: drift.change.id.name,
        writers: drift.writers,
    }
}
