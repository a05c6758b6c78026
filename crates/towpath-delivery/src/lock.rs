//! Who may deploy to an environment now: people's locks and deployments in progress.

use crate::{error::DeliveryError, history::History};
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;
use towpath_deploy::{Applied, Environment, Hold, Target};
use towpath_store::{ReleaseRow, Store};
use towpath_types::{Actor, Clock, EnvironmentId, ReleaseStatus};

/// The statuses of a release in progress.
pub(crate) const UNDER_WAY: [ReleaseStatus; 5] = [
    ReleaseStatus::Planned,
    ReleaseStatus::Approved,
    ReleaseStatus::Applying,
    ReleaseStatus::Watching,
    ReleaseStatus::RollingBack,
];

/// The lock of an environment, unless it has expired.
pub(crate) fn hold_at(applied: Option<&Applied>, now: Timestamp) -> Option<&Hold> {
    applied?.hold.as_ref().filter(|hold| now < hold.until)
}

/// Returns an error when somebody other than `by` has locked the environment.
pub(crate) fn refuse_held(
    applied: Option<&Applied>,
    environment: &str,
    by: &str,
    now: Timestamp,
) -> Result<(), DeliveryError> {
    match hold_at(applied, now) {
        Some(hold) if hold.keeps_out(by, now) => Err(DeliveryError::conflict(format!(
            "{environment} is {hold}; {} ends that with `towpath unlock {environment}`",
            hold.by
        ))),
        _ => Ok(()),
    }
}

/// Returns an error while somebody deploys to the environment: a plan made meanwhile would compare with what is about
/// to be replaced.
pub(crate) fn refuse_under_way(
    applied: Option<&Applied>,
    open: Option<&ReleaseRow>,
    environment: &str,
) -> Result<(), DeliveryError> {
    const THEN: &str = "when that has ended, look at what is to change, and deploy then";
    if let Some(deploying) = applied.and_then(|applied| applied.deploying.as_ref()) {
        return Err(DeliveryError::conflict(format!(
            "{} is deploying to {environment} since {} ({}): {THEN}",
            deploying.by, deploying.since, deploying.what
        )));
    }
    match open {
        Some(row) => Err(DeliveryError::conflict(format!(
            "{} is deploying release {} to {environment} since {} ({}): {THEN}",
            row.actor, row.number, row.created_at, row.cause
        ))),
        None => Ok(()),
    }
}

/// Takes and releases the locks of environments.
#[derive(Clone)]
pub struct Locks {
    store: Arc<dyn Store>,
    target: Arc<dyn Target>,
    clock: Arc<dyn Clock>,
    history: History,
}

impl Locks {
    pub(crate) fn new(store: Arc<dyn Store>, target: Arc<dyn Target>, clock: Arc<dyn Clock>, history: History) -> Self {
        Self {
            store,
            target,
            clock,
            history,
        }
    }

    /// Keeps everybody but `actor` from deploying to an environment for as long as `lasts`.
    ///
    /// Look at the environment again afterwards ([`crate::Observer::observe`]): pages show what was last seen.
    ///
    /// # Errors
    /// `Conflict` when somebody else has locked it; `Invalid` when the lock would end before it begins.
    pub async fn lock(
        &self,
        id: &EnvironmentId,
        reason: &str,
        lasts: SignedDuration,
        actor: &Actor,
    ) -> Result<Hold, DeliveryError> {
        let place = self.history.place(id).await?;
        self.refuse_held(&place, actor).await?;
        let since = self.clock.now();
        let until = since
            .checked_add(lasts)
            .ok()
            .filter(|until| *until > since)
            .ok_or_else(|| DeliveryError::invalid("a lock has to end after it begins"))?;
        let hold = Hold {
            by: actor.name.clone(),
            reason: reason.to_string(),
            since,
            until,
        };
        self.target.set_hold(&place, Some(hold.clone())).await?;
        tracing::info!(environment = %id, by = %actor, %until, "environment locked");
        Ok(hold)
    }

    /// Lets everybody deploy again. Look at the environment again afterwards.
    ///
    /// # Errors
    /// `Conflict` when the lock is somebody else's, unless `force`.
    pub async fn unlock(&self, id: &EnvironmentId, force: bool, actor: &Actor) -> Result<(), DeliveryError> {
        let place = self.history.place(id).await?;
        if !force {
            self.refuse_held(&place, actor).await?;
        }
        self.target.set_hold(&place, None).await?;
        tracing::info!(environment = %id, by = %actor, force, "environment unlocked");
        Ok(())
    }

    /// Returns an error when somebody other than `actor` has locked the environment.
    pub(crate) async fn refuse_held(&self, place: &Environment, actor: &Actor) -> Result<(), DeliveryError> {
        let applied = self.target.current(place).await?;
        refuse_held(applied.as_ref(), place.id.environment(), &actor.name, self.clock.now())
    }

    /// Returns an error when somebody other than `actor` has locked the environment, or anybody deploys to it.
    pub(crate) async fn refuse_busy(&self, place: &Environment, actor: &Actor) -> Result<(), DeliveryError> {
        let applied = self.target.current(place).await?;
        let open = self.store.last_release(&place.id, &UNDER_WAY).await?;
        let environment = place.id.environment();
        refuse_held(applied.as_ref(), environment, &actor.name, self.clock.now())?;
        refuse_under_way(applied.as_ref(), open.as_ref(), environment)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::rows;
    use towpath_deploy::Deploying;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn applied() -> Applied {
        Applied {
            release: None,
            attempted: None,
            objects: Vec::new(),
            hold: None,
            deploying: None,
        }
    }

    #[test]
    fn a_lock_keeps_others_out_until_it_ends() {
        let locked = Applied {
            hold: Some(Hold {
                by: "ann".into(),
                reason: "looking".into(),
                since: at("2026-01-01T00:00:00Z"),
                until: at("2026-01-01T01:00:00Z"),
            }),
            ..applied()
        };
        let before = at("2026-01-01T00:30:00Z");
        let error = refuse_held(Some(&locked), "dev", "bob", before)
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "dev is locked by ann until 2026-01-01 01:00 UTC (looking); ann ends that with `towpath unlock dev`"
        );
        assert!(refuse_held(Some(&locked), "dev", "ann", before).is_ok());
        assert!(refuse_held(Some(&locked), "dev", "bob", at("2026-01-01T01:00:00Z")).is_ok());
        assert!(refuse_held(None, "dev", "bob", before).is_ok());
    }

    #[test]
    fn a_deployment_under_way_is_waited_for_whoever_carries_it_out() {
        let elsewhere = Applied {
            deploying: Some(Deploying {
                by: "ann".into(),
                what: "release 3: towpath deploy dev".into(),
                since: at("2026-01-01T00:00:00Z"),
                renewed: at("2026-01-01T00:00:00Z"),
            }),
            ..applied()
        };
        let error = refuse_under_way(Some(&elsewhere), None, "dev").unwrap_err().to_string();
        assert!(
            error.starts_with(
                "ann is deploying to dev since 2026-01-01T00:00:00Z (release 3: towpath deploy dev): when"
            ),
            "{error}"
        );
        let open = ReleaseRow {
            number: 7,
            status: ReleaseStatus::Applying,
            ..rows::release("claims", "dev")
        };
        let error = refuse_under_way(None, Some(&open), "dev").unwrap_err().to_string();
        assert!(error.starts_with("ann is deploying release 7 to dev since"), "{error}");
        assert!(refuse_under_way(Some(&applied()), None, "dev").is_ok());
    }
}
