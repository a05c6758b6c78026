//! Kubernetes objects without a cluster: the tree of manifests, which of them Kustomize and Helm render, images, what workloads read, the order of application,
//! what would change, and whether an object is ready.
//!
//! **Invariants.** Pure: no IO (the caller gives paths and texts), no async, no clock. Every object knows the place of
//! each of its fields, so that whoever refuses one can say where it is written. A Secret's value is in no diff, no
//! hash, no message and no `Debug`: where values are compared, the caller brings keyed fingerprints.
//!
//! What it deliberately does not know: how an object gets to a cluster or an engine, which fields a target supports,
//! and where Secrets come from.

mod config_hash;
mod diff;
mod images;
mod layout;
mod object;
mod order;
mod ports;
mod readiness;
mod reads;
mod rendered;
mod tree;

pub use config_hash::{CONFIG_HASH, Fingerprints, config_hash, with_config_hash};
pub use diff::{Change, ChangeKind, DiffLine, Fingerprint, Hunk, diff, normalise};
pub use images::{
    Container, ImageRule, NotPinned, ReplacedImage, containers, pull_secrets, with_image, with_pull_secret,
};
pub use layout::{Layout, RenderedBy, RenderedEnvironment, is_yaml, needs_every_file};
pub use object::{NotAnObject, Object, ObjectId, is_namespaced, pod_template_pointer};
pub use order::sort_for_apply;
pub use ports::{BackendService, MissingPort, backend_services, missing_backend, missing_ports};
pub use readiness::{Readiness, daemon_set, deployment, job, pod, readiness, stateful_set};
pub use reads::{Existing, Finding, Read, SourceKind, Via, missing, reads};
pub use rendered::RenderedFiles;
pub use towpath_yaml::{Diagnostic, Place};
pub use tree::{Environment, KubeContext, Tree};
