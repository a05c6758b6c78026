//! The local target: a supervised subset of Kubernetes' manifests on one machine's container engine.
//!
//! One document for each environment says what should be. It is written before anything acts on it. Controllers read it and what
//! runs, and nudge, pass after pass; so after a restart at any moment they go on from what the engine has, not from what memory had.

mod apply;
mod container;
mod context;
mod controller;
mod cron;
mod environment;
mod frontend;
mod job;
mod model;
mod mounted;
mod names;
mod pod;
mod preflight;
mod probe;
mod rollout;
mod start_error;
mod status;
mod store;
mod target;
mod volume;

pub use target::{LocalOptions, LocalTarget};
