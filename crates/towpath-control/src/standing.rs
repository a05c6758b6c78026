//! What a node's credentials allow now. They expire with the node's lease: when the node or its job ends, or when
//! another attempt begins. A step's credentials already expire when the job is to stop.

use crate::{
    storage::{patiently, store_error},
    tokens::Grant,
};
use towpath_delivery::DeliveryError;
use towpath_store::{JobRow, NodeRow, Store, StoreError, Topic};
use towpath_types::{Clock, NodeId};

/// The progress of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It runs.
    GoesOn,
    /// It runs and is to stop. Its agent may still report the end; its steps may request nothing more.
    Stops,
    /// It has reported its end, and its job has not ended. The agent may send the last report again.
    Reported,
    /// There is no such node, or it is obsolete.
    Over,
}

impl Standing {
    /// Reads the standing from the store.
    ///
    /// # Errors
    /// When the storage does not work.
    pub async fn of(store: &dyn Store, node: NodeId) -> Result<Self, DeliveryError> {
        Self::read(store, node).await.map_err(store_error)
    }

    async fn read(store: &dyn Store, node: NodeId) -> Result<Self, StoreError> {
        let job = store.job(node.job).await?;
        let nodes = store.nodes(node.job, node.attempt).await?;
        Ok(Self::from_rows(node, job.as_ref(), &nodes))
    }

    /// Derives the standing from rows. Pure.
    fn from_rows(node: NodeId, job: Option<&JobRow>, nodes: &[NodeRow]) -> Self {
        let Some(job) = job.filter(|job| job.runs(node.attempt) && node.node < job.nodes.max(1)) else {
            return Self::Over;
        };
        let has_ended = |row: &NodeRow| row.node == node.node && row.outcome.is_some();
        if nodes.iter().any(has_ended) {
            Self::Reported
        } else if job.stop_requested {
            Self::Stops
        } else {
            Self::GoesOn
        }
    }
}

/// Waits until a job's credential ends. Any other grant is not a job's, and never ends here.
pub async fn credential_ended(store: &dyn Store, clock: &dyn Clock, grant: &Grant) {
    let job = match grant {
        Grant::Agent(node) | Grant::Step(node) => node.job,
        Grant::JobImages { job, .. } => *job,
        Grant::Owner | Grant::Pull { .. } | Grant::Hook { .. } => std::future::pending().await,
    };
    // Subscribe before the first look, so that no end is missed.
    let mut changes = store.changes();
    loop {
        match patiently(clock, "a job", || has_ended(store, grant)).await {
            Ok(false) => {}
            Ok(true) => return,
            Err(error) => {
                let error = towpath_types::with_causes(&error);
                tracing::error!(%job, error, "failed to look whether a job still runs; its answers end");
                return;
            }
        }
        if !changes.of(&Topic::Job(job)).await {
            return;
        }
    }
}

async fn has_ended(store: &dyn Store, grant: &Grant) -> Result<bool, StoreError> {
    Ok(match grant {
        // The agent may send its last report again.
        Grant::Agent(node) => Standing::read(store, *node).await? == Standing::Over,
        Grant::Step(node) => Standing::read(store, *node).await? != Standing::GoesOn,
        Grant::JobImages { job, attempt, .. } => !store.job(*job).await?.is_some_and(|row| row.goes_on(*attempt)),
        Grant::Owner | Grant::Pull { .. } | Grant::Hook { .. } => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::job_row;
    use towpath_types::{JobId, JobStatus, Outcome};

    #[test]
    fn a_nodes_credentials_die_with_its_lease() {
        let id = JobId::from_u128(1);
        let running = JobRow {
            status: JobStatus::Running,
            nodes: 2,
            attempt: 2,
            ..job_row(id)
        };
        let node = NodeId {
            job: id,
            attempt: 2,
            node: 1,
        };
        let ended = |node: u32| NodeRow {
            job: id,
            attempt: 2,
            node,
            reports: 1,
            outcome: Some(Outcome::Succeeded),
            message: None,
            stopped_at: None,
        };
        let check = |job: &JobRow, nodes: &[NodeRow], expected: Standing| {
            assert_eq!(Standing::from_rows(node, Some(job), nodes), expected, "{job:?}");
        };
        check(&running, &[], Standing::GoesOn);
        check(&running, &[ended(0)], Standing::GoesOn);
        check(&running, &[ended(0), ended(1)], Standing::Reported);
        let with = |change: fn(&mut JobRow)| {
            let mut row = running.clone();
            change(&mut row);
            row
        };
        check(&with(|row| row.status = JobStatus::Claimed), &[], Standing::GoesOn);
        check(&with(|row| row.stop_requested = true), &[], Standing::Stops);
        check(&with(|row| row.attempt = 3), &[], Standing::Over);
        check(&with(|row| row.nodes = 1), &[], Standing::Over);
        for over in [
            JobStatus::Queued,
            JobStatus::Blocked,
            JobStatus::Ended(Outcome::Succeeded),
            JobStatus::Ended(Outcome::Canceled),
        ] {
            let row = JobRow {
                status: over,
                ..running.clone()
            };
            check(&row, &[], Standing::Over);
        }
        assert_eq!(Standing::from_rows(node, None, &[]), Standing::Over);
    }
}
