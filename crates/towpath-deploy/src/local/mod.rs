//! The local target: a supervised subset of Kubernetes' manifests on one machine's container engine.
//!
//! One document for each environment holds the wanted state. It is written before anything acts on it. In each pass, the
//! controllers compare it with what runs and take the next steps. So after a restart at any moment they continue from the
//! engine's state, not from memory.

mod apply;
mod container;
mod controller;
mod cron;
mod environment;
mod frontend;
mod job;
mod local_environment;
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
