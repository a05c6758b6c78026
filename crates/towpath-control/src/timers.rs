//! Feeds due timers to their workflows as events.

use crate::{
    conductor::{Also, Conductor, NotApplied},
    projection::read_timer_key,
    worker::{Done, Handler},
};
use futures::future::BoxFuture;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use towpath_delivery::DeliveryError;
use towpath_store::{Guard, Lease, Write};
use towpath_types::Clock;
use towpath_workflow::Event;

/// Feeds due timers to their workflows.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct Timers {
    pub conductor: Conductor,
    pub clock: Arc<dyn Clock>,
}

impl Handler for Timers {
    fn handle<'a>(&'a self, lease: &'a Lease, _: &'a CancellationToken) -> BoxFuture<'a, Result<Done, DeliveryError>> {
        Box::pin(async move {
            let key = &lease.work.key.key;
            let (workflow, timer) = read_timer_key(key)
                .ok_or_else(|| DeliveryError::internal(format!("`{}` is not a timer", key.escape_debug())))?;
            let event = Event::TimerFired {
                timer,
                at: self.clock.now(),
            };
            let also = Also {
                writes: vec![Write::WorkDone(Guard::from(lease))],
                guard: Some(Guard::from(lease)),
                placement: None,
            };
            match self.conductor.apply_patiently(workflow, event, also).await {
                Ok(_) => Ok(Done::Committed),
                // The timer belongs to something that is over.
                Err(NotApplied::Illegal(_)) => Ok(Done::Finished),
                Err(other) => Err(other.into()),
            }
        })
    }
}
