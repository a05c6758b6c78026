//! Kubernetes objects without a cluster: the tree of manifests, the layout for Kustomize and Helm, the table of kinds,
//! images, what workloads read, differences between objects, and readiness.
//!
//! **Invariants.** Everything is pure: no IO (the caller passes paths and texts), no async, no clock. Every object knows the
//! place of each of its fields, so that an error can point at it. The value of a Secret is in no diff, hash, message or
//! `Debug` output: where values have to be compared, the caller passes keyed fingerprints.
//!
//! This crate deliberately does not know how an object reaches a cluster or an engine, which fields a target supports, and
//! where Secrets come from.

mod config_hash;
mod diff;
mod file;
mod hooks;
mod images;
mod kinds;
mod layout;
mod object;
mod order;
mod ports;
mod readiness;
mod reads;
mod remote;
mod rendered;
mod settings;
mod templates;
mod tree;
mod variables;

pub use config_hash::{CONFIG_HASH, Fingerprints, config_hash, with_config_hash};
pub use diff::{Change, ChangeKind, DiffLine, Fingerprint, Hunk, diff, normalise};
pub use file::{ManifestContent, ManifestFile};
pub use hooks::{Hook, HookEvent, HookOccasion, hooks_at, is_applied_hook};
pub use images::{
    Container, Fit, ImageRule, NotPinned, ReplacedImage, containers, pull_secrets, with_images, with_pull_secret,
};
pub use kinds::{KINDS, Kind, OTHER, Wave};
pub use layout::{
    DOT_K8S, EnvironmentLayout, Layout, ListedPath, Named, Origin, Reading, RenderedBy, RenderedEnvironment, Source,
    Sourced, Wanted, is_kustomization, is_yaml, needs_every_file,
};
pub use object::{NotAnObject, Object, ObjectId};
pub use order::sort_for_apply;
pub use ports::{BackendService, MissingPort, backend_services, missing_backend, missing_ports};
pub use readiness::{Readiness, pod};
pub use reads::{Existing, Finding, Read, SourceKind, Via, missing, names_read, reads};
pub use remote::{RemoteReference, remote_references};
pub use rendered::RenderedFiles;
pub use settings::{DeclaredBy, DeclaredEnvironment, DeclaredSource, LayoutSettings, Written};
pub use templates::{Dependence, UnstableCall, at_another_time, unstable_calls};
pub use towpath_yaml::{Diagnostic, Place, SourceFile, Span};
pub use tree::{Environment, KubeContext, Tree};
pub use variables::{UnfitVariable, unfit_variables};
