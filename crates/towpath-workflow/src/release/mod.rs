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
//! - **Invariant:** a decision is an event that is committed before it is acted on: [`Event::ApplyBegan`] before the
//!   first object is written, [`Event::Failed`] and [`Event::RollbackBegan`] before the first object is put back. So a
//!   process that is killed during a rollback never applies the failed release a second time.
//! - **Invariant:** a release has one end, and no event but [`Event::Recorded`] after it.
//! - **Invariant:** an abandoned release has changed nothing.
//!
//! The machine cannot enforce these rules, so whoever carries out a release must:
//!
//! - Commit every event against the state that you folded, and with the fence of your lease. Then a server that lost
//!   its lease decides nothing.
//! - Hold the environment's own lock for every effect but [`Effect::Record`]: take it, load the state again, and
//!   continue only if the state is the one that you folded and you still have the lease. Write nothing without the
//!   lock. Then a server that lost its lease writes nothing once another one has continued.
//! - Check the actual state of the environment before each effect: an earlier process may have done half of it, and
//!   somebody else may have deployed since.

mod event;
mod illegal;
mod state;

pub use event::{Effect, Event, OnFailure, Why};
pub use illegal::Illegal;
pub use state::{Approval, Environment, Failure, Release, State};
