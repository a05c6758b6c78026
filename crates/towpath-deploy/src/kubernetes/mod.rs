//! The Kubernetes target: objects applied to a cluster, watched until they run, and recorded there.
//!
//! **Invariants.** Everything is asked of the server before anything is changed: a dry run of each object, and of one pod
//! of each workload that changes; of many ConfigMaps only where somebody else has a say in them. Objects are applied server-side as the field manager `towpath`, so that a field that
//! leaves a manifest leaves the cluster, and what others own stays theirs. Only one deployment of an environment is under
//! way at a time, whoever begins it; a holder of the lock that dies loses it. Each step is safe to do twice, so that a
//! second run after any failure converges.
//!
//! **It does not know** what a release is made of, or who may deploy.

mod api;
mod apply;
mod drift;
mod examine;
mod fields;
mod follow;
mod foresee;
mod identity;
mod job;
mod kinds;
mod lock;
mod process;
mod record;
mod rollout;
mod target;

pub use api::Patience;
pub use identity::{CA_VARIABLE, Identity, IdentityError, SERVER_VARIABLE, TOKEN_VARIABLE};
pub use rollout::Tolerance;
pub use target::{KubernetesOptions, KubernetesTarget};
