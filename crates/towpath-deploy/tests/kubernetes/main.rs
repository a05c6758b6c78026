//! The Kubernetes target on a real cluster.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod charts;
mod cluster;
mod contract;
mod deploy;
mod drift;
mod faults;
mod jobs;
mod live;
mod permissions;
mod preflight;
mod records;
mod rollouts;
