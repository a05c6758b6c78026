//! One job: what is stored of it, what it needs to run, and looking after it until it ends.

pub(crate) mod junit;
pub(crate) mod prepare;
pub(crate) mod resource_class;
pub(crate) mod stored;
pub(crate) mod supervise;
pub(crate) mod translate;
pub(crate) mod variables;

/// Under which step Towpath's own warnings about a job stand: behind all others.
pub(crate) const WARNING_STEP: u32 = 1_000_000;
