//! Releases: plans that are carried out, one at a time in an environment.
//!
//! `request` decides what to release and begins it; `carry` carries it out, in the process that has the lease; `decide`
//! holds the decisions of both, without IO. The state machine in `towpath-workflow` defines the life of a release.

mod carry;
pub(crate) mod decide;
mod request;
mod stream;

pub use request::Releases;
