//! Finds parts of a configuration that compile but are probably mistakes.

mod checks;
mod refs;
mod secrets;

pub use checks::lint;
