//! The state machine of one workflow.
//!
//! How a job moves:
//!
//! | from | when | to |
//! | --- | --- | --- |
//! | `Blocked` | everything that it requires ended as it has to | `Queued`; an approval: `OnHold`; a no-op, and a job that cannot run: `Ended` |
//! | `Blocked` | something ended otherwise | `Ended`, as skipped |
//! | `Queued` | `JobClaimed` | `Claimed` |
//! | `Claimed` | `JobStarted` | `Running` |
//! | `Claimed` | `JobReleased` | `Queued`, next attempt |
//! | `Claimed`, `Running` | `JobFinished` | `Ended`; after an infrastructure error with retries left: `BackingOff`, next attempt |
//! | `Claimed`, `Running` | `RetryRequested` | `Queued`, next attempt: this one is lost |
//! | `Claimed`, `Running` | told to stop, and `StopGrace` is over | `Ended` |
//! | `BackingOff` | the `Retry` timer, or `RetryRequested` | `Queued` |
//! | `OnHold` | `Approved` | `Ended` |
//! | `Ended` | `RetryRequested` | `Queued`, next attempt; what waited for it and has done nothing yet: `Blocked` |
//! | any but `Ended` | `CancelRequested` | `Ended`; `Claimed` and `Running` are told to stop first |
//!
//! - **Invariant:** an attempt is claimed at most once and ends exactly once. A claimed attempt never returns to the
//!   queue: the next attempt does. A report about another attempt than the current one fails with
//!   [`Illegal::StaleAttempt`]: its sender then removes what it runs for the old attempt.
//! - **Invariant:** the outcomes that a job requires do not change while the job is queued, on hold, claimed or
//!   running.
//! - **Invariant:** a job has at most one pending [`Timer`], and a timer's due time never changes.
//! - **Invariant:** a workflow that has ended takes no event, has no outstanding effect and no pending timer.

mod definition;
mod event;
mod illegal;
mod job;
mod state;
mod timer;

pub use definition::{Definition, DefinitionError, JobDefinition, JobKind, RequiredStatus, Requirement};
pub use event::{Effect, Event};
pub use illegal::Illegal;
pub use job::{Approval, AttemptEnd, EarlierAttempt, Job, JobState, Stop, StopReason};
pub use state::Workflow;
pub use timer::{STOP_GRACE, Timer, TimerError, TimerKind, back_off};
