//! One job: its stored form, what it needs to run, and its supervision until it ends.

pub(crate) mod junit;
pub(crate) mod prepare;
pub(crate) mod resource_class;
pub(crate) mod stored;
pub(crate) mod supervise;
pub(crate) mod translate;
pub(crate) mod variables;

/// The step number for Towpath's own warnings about a job, after all real steps.
pub(crate) const WARNING_STEP: u32 = 1_000_000;
