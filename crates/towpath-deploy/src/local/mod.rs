//! The local target: Kubernetes' manifests on one machine's container engine, a supervised subset.
//!
//! What is to be is one document for each environment, written before anything acts on it. Controllers read it and what
//! runs, and nudge, pass after pass; so a restart at any moment goes on where the engine is, not where memory was.

mod context;
mod controller;
mod cron;
mod engine;
mod frontend;
mod image;
mod job;
mod model;
mod names;
mod pod;
mod probe;
mod rollout;
mod store;
mod target;

pub use cron::{Clock, SystemClock};
pub use target::{LocalOptions, LocalTarget};
