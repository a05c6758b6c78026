//! The state that serves one open port, for every protocol.

use super::backends::Backends;
use std::{sync::Arc, time::Duration};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long a request waits for a ready backend.
pub(super) const WAIT_FOR_BACKEND: Duration = Duration::from_secs(5);

/// One open port.
#[derive(Clone)]
pub(super) struct Port {
    pub number: u16,
    pub backends: Arc<Backends>,
    /// Tracks every connection, so that the proxy ends after them.
    pub connections: TaskTracker,
    pub stop: CancellationToken,
}
