//! Waiting for rollouts: for all workloads of a deployment together, with an early end for those that waiting will not heal.

mod diagnosis;
mod stuck;
mod tolerance;
mod waiter;
mod watched;

pub use tolerance::Tolerance;
pub(super) use waiter::Waiter;
pub(super) use watched::Awaited;
