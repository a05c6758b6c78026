//! How long a rollout may be in trouble.

use std::time::Duration;

/// How long a state that rarely heals may last before the rollout is given up.
#[derive(Debug, Clone, Copy)]
pub struct Tolerance {
    /// A node cannot pull the image. Does not apply if the registry says that the image does not exist: that ends it at once.
    pub pull: Duration,
    /// No node can take the pod. A cluster with an autoscaler needs minutes, which a project's file can set.
    pub unschedulable: Duration,
    /// A container cannot be created: a ConfigMap, a Secret or a program does not exist.
    pub creation: Duration,
    /// The server refuses the pods: quota, admission, a service account that does not exist.
    pub refusal: Duration,
    /// How often a container may restart.
    pub restarts: i64,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self {
            pull: Duration::from_secs(30),
            unschedulable: Duration::from_secs(90),
            creation: Duration::from_secs(10),
            refusal: Duration::from_secs(15),
            restarts: 2,
        }
    }
}

impl Tolerance {
    /// Replaces the limit for unschedulable pods, if one is configured.
    pub(in crate::kubernetes) fn with_unschedulable(self, unschedulable: Option<Duration>) -> Self {
        Self {
            unschedulable: unschedulable.unwrap_or(self.unschedulable),
            ..self
        }
    }
}
