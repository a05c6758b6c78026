//! The Kubernetes target: applies objects to a cluster, waits until they run, and records the releases there.
//!
//! [`target`] implements the contract. [`preflight`] checks everything before anything changes; [`apply`] carries a request out
//! under the [`lock`], with [`rollout`] to wait for workloads and [`prune`] to remove what left the manifests. [`record`] keeps
//! the state and the releases in Secrets of the environment. [`live`] reads and sets the Secrets that pods read; [`keeper`]
//! decides who keeps each of them. [`deployers`] knows the other programs that deploy objects. [`drift`], [`status`], [`job`], [`cron`] and [`logs`] look at what
//! runs. Requests, watches and paths come from `towpath-kube`; facts about kinds come from the table in `towpath-manifest`.
//!
//! **Invariants.** The server checks everything before anything changes: a dry run of each object, and of one pod of each
//! workload that changes. ConfigMaps without admission controllers are the only exception. Objects are applied server-side as
//! the field manager `towpath`, so that a field that leaves a manifest leaves the cluster, and the fields of others stay. Only
//! one deployment of an environment runs at a time, whoever starts it, and a dead holder of the lock loses it. Each step can be
//! done twice, so that a second run after any failure converges. Of Secrets, a deployment writes those in its manifests, and the
//! one that pods pull images with: the values of all others are as the cluster has them.
//!
//! **It does not know** what a release consists of, or who may deploy.

mod apply;
mod comparable;
mod cron;
mod defaults;
mod deployers;
mod drift;
mod error;
mod fingerprint;
mod helm;
mod history;
mod inventory;
mod job;
mod keeper;
mod labels;
mod live;
mod lock;
mod logs;
mod memory;
mod options;
mod preflight;
mod process;
mod prune;
mod record;
mod rollout;
mod secrets;
mod status;
mod survey;
mod target;

pub use options::KubernetesOptions;
pub use rollout::Tolerance;
pub use target::KubernetesTarget;
pub use towpath_kube::{CA_VARIABLE, Identity, IdentityError, Patience, SERVER_VARIABLE, TOKEN_VARIABLE};
