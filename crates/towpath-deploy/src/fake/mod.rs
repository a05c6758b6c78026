//! A target in memory, for tests of everything that deploys.
//!
//! [`FakeTarget`] keeps the contract of [`Target`](crate::Target), which the suite in [`crate::contract`] checks, as it does
//! for the real targets. A test scripts what a real target would find out (findings, failing rollouts, the output of jobs),
//! makes it unreachable or lets single calls fail, counts its calls, and looks at what was applied.
//!
//! [`FakeSecrets`] keeps Secrets as a cluster does.
//!
//! It is always compiled, not hidden behind a feature: features of development builds would compile this crate and everything
//! above it twice. A program that does not name it does not contain it.

mod environment;
mod faults;
mod job;
mod secrets;
mod target;

pub use environment::FakeHelm;
pub use faults::{Method, Moment};
pub use job::JobScript;
pub use secrets::FakeSecrets;
pub use target::{FakeTarget, Pause};
