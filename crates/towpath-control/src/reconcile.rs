//! Compares what should run with what the engines report, after a start and periodically, and fixes the difference.
//!
//! The worker takes up what should run and does not: its lease ends. The reconciler stops what runs and should not. It
//! also ends jobs that no server can take over, because the only server with their engine is gone for good.

use crate::{
    conductor::{Also, Conductor, NotApplied},
    job::supervise::Engines,
    storage::store_error,
};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use towpath_delivery::DeliveryError;
use towpath_store::{JobRow, Store, WorkKey, WorkKind, Write};
use towpath_types::{Clock, JobStatus, NodeId, Outcome};
use towpath_workflow::Event;

/// How often engines and rows are compared.
const EVERY: Duration = Duration::from_secs(30);
/// How long the only server with an engine may be gone before its jobs are failed.
pub const LOST_AFTER: Duration = Duration::from_secs(600);

/// What to do with an environment that an engine reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It belongs to the current attempt of an unfinished job.
    Wanted,
    /// Nothing needs it any more.
    Orphan,
}

/// Decides from its job's row whether the environment `id` on the engine called `engine` is wanted. Pure.
fn judge(id: NodeId, engine: &str, job: Option<&JobRow>) -> Verdict {
    let wanted = job.is_some_and(|job| {
        job.attempt == id.attempt
            && matches!(job.status, JobStatus::Claimed | JobStatus::Running)
            && job.engine.as_deref() == Some(engine)
    });
    if wanted { Verdict::Wanted } else { Verdict::Orphan }
}

/// Fixes differences between rows and engines.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct Reconciler {
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    pub conductor: Conductor,
    pub engines: Engines,
}

impl Reconciler {
    /// Compares periodically until `shutdown`.
    pub async fn run(&self, shutdown: CancellationToken) {
        loop {
            if let Err(error) = self.pass().await {
                tracing::warn!(
                    error = error.chain(),
                    "failed to compare what runs with what should run"
                );
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.clock.sleep(EVERY) => {}
            }
        }
    }

    /// Compares once.
    ///
    /// # Errors
    /// When an engine or the storage does not answer. Everything else was fixed.
    pub async fn pass(&self) -> Result<(), DeliveryError> {
        let mut failed = None;
        for engine in self.engines.all() {
            let there = match engine.list().await {
                Ok(there) => there,
                Err(error) => {
                    // Look at the other engine nevertheless.
                    failed = Some(DeliveryError::unavailable("an engine cannot say what runs").caused_by(error));
                    continue;
                }
            };
            for id in there {
                let job = self.store.job(id.job).await.map_err(store_error)?;
                if judge(id, engine.name().as_str(), job.as_ref()) == Verdict::Wanted {
                    continue;
                }
                tracing::info!(environment = %id, engine = engine.name().as_str(), "nobody wants this environment any more; stopping it");
                if let Err(error) = engine.stop(&id).await {
                    tracing::warn!(environment = %id, %error, "failed to stop it; trying again in the next pass");
                }
            }
        }
        self.give_lost_jobs_up().await?;
        failed.map_or(Ok(()), Err)
    }

    /// Ends the jobs whose engine no server has had for [`LOST_AFTER`].
    async fn give_lost_jobs_up(&self) -> Result<(), DeliveryError> {
        let now = self.clock.now();
        let patience = jiff::SignedDuration::try_from(LOST_AFTER).unwrap_or(jiff::SignedDuration::from_secs(600));
        let servers = self.store.servers(jiff::Timestamp::MIN).await.map_err(store_error)?;
        let (seen, gone): (Vec<_>, Vec<_>) = servers.iter().partition(|server| server.seen_at >= now - patience);
        let own = self.engines.all().map(|engine| engine.name().as_str());
        let theirs = seen.iter().flat_map(|server| &server.engines).map(String::as_str);
        let known: BTreeSet<&str> = own.chain(theirs).collect();
        for row in self.store.active_jobs().await.map_err(store_error)? {
            let Some(engine) = row.engine.as_deref().filter(|engine| !known.contains(engine)) else {
                continue;
            };
            let key = WorkKey::new(WorkKind::Job, row.id);
            let event = Event::JobFinished {
                job: row.name.clone(),
                attempt: row.attempt,
                outcome: Outcome::Errored,
                message: Some(format!(
                    "the server with the engine {engine}, which ran this job, has been gone for {} minutes",
                    LOST_AFTER.as_secs() / 60
                )),
                at: now,
            };
            let also = Also {
                writes: vec![Write::CancelWork(key)],
                ..Also::default()
            };
            tracing::warn!(job = %row.id, engine, "the job's server is gone; giving the job up");
            match self.conductor.apply(row.workflow, event, also).await {
                Ok(_) | Err(NotApplied::Illegal(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        for server in gone {
            self.store.remove_server(&server.id).await.map_err(store_error)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::job_row;
    use towpath_types::JobId;

    #[test]
    fn only_the_current_attempt_on_its_own_engine_is_wanted() {
        let job = JobId::from_u128(1);
        let id = |attempt| NodeId { job, attempt, node: 0 };
        let row = |attempt, status, engine: Option<&str>| JobRow {
            attempt,
            status,
            engine: engine.map(str::to_string),
            ..job_row(job)
        };
        let check = |id, row: Option<&JobRow>, expected| assert_eq!(judge(id, "here", row), expected, "{row:?}");
        check(id(1), None, Verdict::Orphan);
        check(id(1), Some(&row(1, JobStatus::Running, Some("here"))), Verdict::Wanted);
        check(id(1), Some(&row(1, JobStatus::Claimed, Some("here"))), Verdict::Wanted);
        check(id(1), Some(&row(2, JobStatus::Running, Some("here"))), Verdict::Orphan);
        check(id(1), Some(&row(1, JobStatus::Running, Some("there"))), Verdict::Orphan);
        check(
            id(1),
            Some(&row(1, JobStatus::Ended(Outcome::Failed), Some("here"))),
            Verdict::Orphan,
        );
        check(id(1), Some(&row(1, JobStatus::Queued, None)), Verdict::Orphan);
    }
}
