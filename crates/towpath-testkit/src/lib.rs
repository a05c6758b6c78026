//! Real parts for tests and for the demonstration: a server that is a process, a repository that git made, an engine, a
//! browser, and people who keep asking an application whether it is there.
//!
//! Everything here looks at Towpath from outside, as a user does: it starts the binary, talks HTTP and runs git. It
//! knows none of the product's crates but `towpath-types`, so that what it sees is what anybody would see.
//!
//! Nothing here sleeps for a guessed time. [`until`] asks again until there is an answer, with a bound, and its error
//! says what was seen last.

mod api;
mod browser;
mod cluster;
mod engine;
mod fault_proxy;
mod parts;
mod registry;
mod repository;
mod server;
mod traffic;
mod wait;

pub use api::{
    Api, Change, Environment, Gate, GateJob, Job, Message, Pipeline, Plan, PlanCommit, Release, Vcs, Workflow, Workload,
};
pub use browser::ChromeDriver;
pub use cluster::{Account, Cluster, Namespace, image_archive};
pub use engine::{Removed, remove_images, remove_instance};
pub use fault_proxy::{Asked, FaultProxy, Verdict};
pub use parts::{Absent, engine_answers, program, skipped};
pub use registry::{REGISTRY_PASSWORD, REGISTRY_USER, Registry};
pub use repository::{PROJECT, Repository, example_directory};
pub use server::{ServerOptions, Towpath, host_environment_for_cargo};
pub use traffic::{Failure, Traffic, TrafficReport};
pub use wait::{Probe, until};
