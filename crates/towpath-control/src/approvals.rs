//! Opening gates.

use crate::{
    conductor::{Also, Conductor},
    storage::store_error,
};
use std::sync::Arc;
use towpath_delivery::{Delivery, DeliveryError};
use towpath_store::{Store, Write};
use towpath_types::{Actor, Clock, Digest, JobId, JobKind};
use towpath_workflow::Event;

/// Opens gates. Clones share everything.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct Approvals {
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    pub conductor: Conductor,
    pub delivery: Arc<Delivery>,
}

impl Approvals {
    /// Opens a gate. `shown` is the digest of the plan that `actor` was shown; a gate that leads to an environment does not
    /// open without one.
    ///
    /// # Errors
    /// `Conflict` when the plan is no longer that one or cannot be carried out, or the gate does not wait, was approved or
    /// was canceled.
    pub async fn approve(&self, job: JobId, shown: Option<&Digest>, actor: &Actor) -> Result<(), DeliveryError> {
        let row = self.store.job(job).await.map_err(store_error)?;
        let row = row
            .filter(|row| row.kind == JobKind::Approval)
            .ok_or_else(|| DeliveryError::not_found(format!("there is no gate {job}")))?;
        let loaded = self.conductor.load(row.workflow).await?;
        let event = |plan: Option<String>| Event::Approved {
            job: row.name.clone(),
            by: actor.name.clone(),
            plan,
            at: self.clock.now(),
        };
        // Check this before making a plan, so that a late approver hears that first.
        let mut state = loaded.state.clone();
        if let Err(illegal) = state.apply(event(None)) {
            return Err(DeliveryError::conflict(illegal.to_string()));
        }
        let (plan, writes) = match &row.environment {
            None => (None, Vec::new()),
            Some(_) => {
                let mut approval = self.delivery.gates.decide_approval(job, shown, actor).await?;
                // The conductor closes the gate's row itself, as it does whenever a gate ends.
                approval.writes.retain(|write| !matches!(write, Write::Gate(..)));
                (approval.plan.map(|plan| plan.to_string()), approval.writes)
            }
        };
        let also = Also {
            writes,
            ..Also::default()
        };
        self.conductor.apply(row.workflow, event(plan), also).await?;
        Ok(())
    }
}
