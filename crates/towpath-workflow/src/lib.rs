//! The state machine of one workflow: `(state, event) -> (state, effects)`.
//!
//! Pure: no IO, no async, no clock, no randomness; time arrives in events. It knows nothing of configurations, engines,
//! environments or pages.
//!
//! - **Invariant:** a workflow's state is the fold of its events; nothing else changes it than [`Workflow::apply`].
//! - **Invariant:** what `apply` refuses leaves the state as it was.
//! - **Invariant:** [`Workflow::outstanding`] is every effect that no event has confirmed yet, so a crash anywhere between
//!   an event and the end of its effects is repaired by carrying out the outstanding ones again. Every effect must
//!   therefore be safe twice.

mod definition;
mod state;

pub use definition::{Definition, DefinitionError, JobDefinition, JobKind, RequiredStatus, Requirement};
pub use state::{Effect, Event, Illegal, Job, JobState, Status, Workflow};
