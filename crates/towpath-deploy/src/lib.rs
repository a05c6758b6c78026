//! Targets: where an environment's objects are carried to, and the proxy in front of what runs there.
//!
//! [`Target`] is the contract that the conductor deploys by. Its implementation here is [`local::LocalTarget`]: the same
//! Kubernetes manifests on one machine's container engine, a supervised subset. What that subset does not support is
//! refused by kind, field and place; nothing of a manifest is parsed and then ignored.
//!
//! [`proxy`] is the reverse proxy that stands in front of a Service or an Ingress. It runs as a process of its own, in a
//! container of its own, so that requests keep flowing while the server is dead.
//!
//! **Invariants.** Only this crate writes to a target. A pod gets its stop signal only after each proxy in front of it has
//! said that it sends nothing more there. Containers have deterministic names, so the engine itself refuses to start
//! something twice, and what runs is adopted when the server comes back. Secrets' values are asked for when a container is
//! made; they are written to no disk and appear in no error.
//!
//! **It does not know** what a release is made of, where its manifests come from, who may deploy, or where secrets are kept.

pub mod contract;
pub mod fake;
pub mod kubernetes;
mod lines;
pub mod local;
pub mod proxy;
pub mod render;
mod target;

pub use kubernetes::{Identity, KubernetesOptions, KubernetesTarget};
pub use local::{LocalOptions, LocalTarget};
pub use target::{
    Applied, ApplyError, ApplyRequest, CronFailure, CronJobStatus, Deploying, Drift, Environment, Finding, Hold,
    JOB_LABEL, JobEnd, JobHandle, JobLine, Occasion, PULL_SECRET, Preflight, Progress, ReleaseRecord, SecretSource,
    Severity, SourceError, Target, TargetError, Volumes, WorkloadStatus, Writer,
};
pub use towpath_types::{EnvironmentId, EnvironmentIdError};
