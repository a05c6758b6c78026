//! Two state machines, `(state, event) -> (state, effects)`: one of a workflow, one of a release.
//!
//! Pure: no IO, no async, no clock, no randomness. Time arrives in events. This crate knows nothing of configurations,
//! engines, clusters or pages.
//!
//! - **Invariant:** the state is the fold of the events. Nothing but `apply` changes it.
//! - **Invariant:** an event that `apply` refuses leaves the state as it was.
//! - **Invariant:** `outstanding` lists every effect that no event has confirmed yet. After a crash anywhere between an
//!   event and the end of its effects, carry out the outstanding ones again; every effect is therefore safe twice.
//! - **Invariant:** `apply` returns the effects that the event made outstanding, the cancellation of timers that are no
//!   longer needed, and the end. Stored with the event as durable work, they are neither lost nor acted on too early.
//!
//! [`wire`] is the stored form of events.

pub mod release;
pub mod wire;
pub mod workflow;

pub use workflow::{
    Approval, AttemptEnd, Definition, DefinitionError, EarlierAttempt, Effect, Event, Illegal, Job, JobDefinition,
    JobKind, JobState, RequiredStatus, Requirement, Stop, StopReason, Timer, TimerError, TimerKind, Workflow,
};
