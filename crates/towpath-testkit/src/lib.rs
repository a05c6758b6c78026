//! Real parts for tests and for the demo: a server process, a git repository, a container engine, a browser, a cluster, and
//! clients that send requests to an application without a pause.
//!
//! All of it looks at Towpath from outside, as a user does: it starts the binary, talks HTTP and runs git. Of the product's
//! crates it uses only `towpath-types`, so that it sees what everybody sees.
//!
//! A test inside of a crate has [`clock`]: a clock that it moves, and the contract of clocks.
//!
//! Nothing here sleeps for a guessed time. [`until`] polls with a bound, and its error says what it saw last.

mod api;
mod browser;
pub mod clock;
mod cluster;
mod engine;
mod fault_proxy;
mod parts;
mod postgres;
mod registry;
mod repository;
mod s3;
mod server;
mod tls;
mod traffic;
mod wait;

pub use api::{
    Api, Change, Environment, Gate, Job, Message, Pipeline, Plan, PlanCommit, Release, Vcs, Workflow, Workload,
};
pub use browser::ChromeDriver;
pub use cluster::{Account, Cluster, Namespace, image_archive};
pub use engine::{Removed, pods, remove_images, remove_instance};
pub use fault_proxy::{Asked, FaultProxy, Verdict};
pub use parts::{Absent, engine_answers, program, skipped};
pub use postgres::{POSTGRES_PASSWORD, Postgres};
pub use registry::{REGISTRY_PASSWORD, REGISTRY_USER, Registry};
pub use repository::{PROJECT, Repository, example_directory};
pub use s3::S3Server;
pub use server::{
    ServerOptions, Towpath, file_for_everybody, host_environment_for_cargo, let_everybody_pass, quiet_port,
};
pub use tls::TlsServer;
pub use traffic::{Failure, Traffic, TrafficReport};
pub use wait::{Probe, until};
