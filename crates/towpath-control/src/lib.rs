//! What runs: triggers become pipelines, jobs are dispatched and looked after, timers fire, rows are kept fresh.
//!
//! All pending work is a row or a piece of leased work in the store, so when a server dies, another one continues.
//! `towpath-delivery` decides everything about environments.
//!
//! - **Invariant:** an event is stored before anything acts on it.
//! - **Invariant:** before acting, check what already exists, so that acting twice has the effect of acting once.
//! - **Invariant:** a query only reads rows.
//!
//! It knows nothing of HTTP.

mod agents;
mod approvals;
pub mod capacity;
mod conductor;
mod contexts;
mod handlers;
mod job;
mod loaded;
#[cfg(test)]
mod masking_tests;
mod orbs;
mod outside;
mod pipeline;
mod pollers;
mod progress;
mod projection;
#[cfg(test)]
mod push_tests;
mod pushes;
mod queries;
mod reconcile;
mod registry_door;
mod secrets;
mod sessions;
mod settings;
mod standing;
mod storage;
mod system;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod timers;
mod tokens;
mod trust;
mod views;
mod worker;
#[cfg(test)]
mod worker_tests;

pub use agents::{AgentDoor, LogAnswer};
pub use approvals::Approvals;
pub use conductor::Conductor;
pub use contexts::Contexts;
pub use job::{
    prepare::{Addresses, EngineUse},
    supervise::Engines,
};
pub use orbs::{CheckedText, NamespaceView, OrbVersionView, OrbView, Orbs, Segment, supply_orbs};
pub use outside::Outside;
pub use pipeline::triggers::{Announced, MOST_TAGS, Triggers};
pub use progress::{ProgressLogs, ProgressView};
pub use pushes::{Push, Pushes};
pub use queries::Queries;
pub use reconcile::Reconciler;
pub use sessions::{SESSION_LASTS, Sessions};
pub use settings::{HostJobs, ObjectSettings, Settings, TargetSettings};
pub use standing::{Standing, credential_ended};
pub use system::System;
pub use tokens::{Grant, Identity, TokenError, Tokens, presented};
pub use towpath_engines::HostUsers;
pub use views::{
    ArtifactView, Board, GateView, JobDetail, JobView, KeyView, PipelineView, ProjectView, RunView, SetAsideView,
    StepView, TestFailure, TestsView, WorkflowView,
};
pub use worker::{Done, Handler, ServerIdentity, Worker};
