//! Releases: plans that are carried out, one at a time in an environment.
//!
//! `request` decides what is released and begins it; `carry` carries it out, in whichever process has the lease; `decide`
//! holds the decisions of both, without IO. What may happen to a release is the state machine's in `towpath-workflow`.

mod carry;
pub(crate) mod decide;
mod request;
mod stream;

pub use request::Releases;
