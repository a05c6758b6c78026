//! The suite that checks the contract of [`Target`](crate::Target) on every implementation.
//!
//! A test supplies a [`Harness`] and calls [`check`]. The suite runs on the fake target in every `cargo test`, and on the real
//! targets where their surroundings exist, so that the fake cannot drift away from them. Where targets may differ,
//! [`Capabilities`] says what to expect.

mod capabilities;
mod harness;
mod suite;

pub use capabilities::{Capabilities, SecondApply};
pub use harness::Harness;
pub use suite::check;
