//! Targets apply an environment's objects, and the proxy is in front of what runs there.
//!
//! [`Target`] is the contract that the conductor deploys by. Its implementation here is [`local::LocalTarget`]: the same
//! Kubernetes manifests on one machine's container engine, a supervised subset. The target refuses what the subset does not
//! support by kind, field and place. It never parses a field of a manifest and then ignores it.
//!
//! [`proxy`] is the reverse proxy in front of a Service or an Ingress. It runs as a process of its own, in a container of its
//! own, so that requests keep flowing while the server is dead.
//!
//! **Invariants.** Only this crate writes to a target. A pod gets its stop signal only after each proxy in front of it has
//! reported that it sends nothing more there. Containers have deterministic names, so the engine itself refuses to start a
//! container twice, and a server that comes back adopts what runs. The target reads the values of Secrets when it makes a
//! container; no disk and no error contains them.
//!
//! **It does not know** what a release is made of, where its manifests come from, who may deploy, or how the local target's
//! Secrets are kept.

pub mod contract;
pub mod fake;
mod hooks;
pub mod kubernetes;
mod lines;
mod live;
pub mod local;
pub mod proxy;
pub mod render;
mod target;
mod wire;

pub use hooks::clean_up_hooks;
pub use kubernetes::{Identity, KubernetesOptions, KubernetesTarget};
pub use live::{Keeper, Kept, KeyChange, LiveKey, LiveSecret, LiveSecrets};
pub use local::{LocalOptions, LocalTarget};
pub use target::{
    Applied, ApplyError, ApplyRequest, CronFailure, CronJobStatus, Deploying, Drift, Environment, Finding, HelmRelease,
    Hold, Hooks, JOB_LABEL, JobEnd, JobHandle, JobLine, Occasion, OtherObject, PULL_SECRET, Preflight, Progress,
    PullCredentials, ReleaseRecord, SecretSource, Severity, SourceError, Survey, Surveyed, Target, TargetError,
    Volumes, WorkloadStatus, Writer,
};
pub use towpath_types::{EnvironmentId, EnvironmentIdError};
