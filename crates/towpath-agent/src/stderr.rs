//! The agent's own words. Steps print to their logs; the agent itself prints to standard error.

use std::io::{self, Write};

/// Prints one line. A write that fails is ignored: the job matters more than what the agent says about it.
pub(crate) fn say(message: &str) {
    let _ = writeln!(io::stderr().lock(), "towpath agent: {message}");
}
