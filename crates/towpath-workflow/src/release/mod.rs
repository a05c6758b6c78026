//! The state machine of one release: one plan carried out, once, in one environment.
//!
//! ```text
//!  Planned --Approved--> Approved --ApplyBegan--> Applying --Applied--> Watching --Succeeded--> Succeeded
//!     |                     |                        |  |                  |
//!     '------Abandoned------+------------------------'  +------Failed------'
//!                                                       |
//!       with a release to go back to: Failing --RollbackBegan--> RollingBack --RolledBack--> RolledBack
//!                                                       |                |
//!                            without one: Failed <------+-RollbackFailed-'
//! ```
//!
//! - **Invariant:** a decision is an event that is committed before it is acted on: [`Event::ApplyBegan`] before the first
//!   object is written, [`Event::Failed`] and [`Event::RollbackBegan`] before the first object is put back. A process that
//!   is killed while it goes back therefore never applies the failed release a second time.
//! - **Invariant:** a release has one end, and no event but [`Event::Recorded`] after it.
//! - **Invariant:** an abandoned release has changed nothing.
//!
//! What the machine cannot see, whoever carries a release out has to keep to:
//!
//! - Commit every event for the state that you folded, and with the fence of your lease. A server that lost its lease then
//!   decides nothing.
//! - Hold the environment's own lock for every effect but [`Effect::Record`]: take it, load the state again, and go on only
//!   if the state is the one that you folded and the lease is still yours. Write nothing without the lock. A server that
//!   lost its lease then writes nothing once another one has gone on.
//! - Look at what is true in the environment before each effect: an earlier process may have done half of it, and
//!   somebody else may have deployed since.

mod event;
mod illegal;
mod state;

pub use event::{Effect, Event, OnFailure, Why};
pub use illegal::Illegal;
pub use state::{Approval, Environment, Failure, Release, State};
