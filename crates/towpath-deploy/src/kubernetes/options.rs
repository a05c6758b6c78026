//! The settings of a Kubernetes target.

use super::rollout::Tolerance;
use crate::target::PullCredentials;
use std::{sync::Arc, time::Duration};
use towpath_kube::{Identity, Patience};

/// The settings of a Kubernetes target.
pub struct KubernetesOptions {
    /// Where clusters and credentials come from.
    pub identity: Identity,
    /// The source of the credentials that pods pull images with.
    pub credentials: Arc<dyn PullCredentials>,
    /// How long requests may take.
    pub patience: Patience,
    /// How long a rollout may be in a state that rarely heals.
    pub tolerance: Tolerance,
    /// How long a deployment may give no sign of life before it counts as dead.
    pub lock_expiry: Duration,
    /// How long a deployment waits for another one to end.
    pub lock_wait: Duration,
}

impl KubernetesOptions {
    /// Uses the default times: a dead deployment loses its lock after 30 s, and a deployment waits 10 minutes for its turn.
    #[must_use]
    pub fn new(identity: Identity, credentials: Arc<dyn PullCredentials>) -> Self {
        Self {
            identity,
            credentials,
            patience: Patience::default(),
            tolerance: Tolerance::default(),
            lock_expiry: Duration::from_secs(30),
            lock_wait: Duration::from_secs(600),
        }
    }
}
