//! Exit codes, which scripts rely on.
//!
//! | code | meaning |
//! | --- | --- |
//! | 0 | done; for `diff`: nothing would change |
//! | 1 | what was asked for failed: the deployment, the build, the server's answer |
//! | 2 | for `diff`: something would change |
//! | 3 | no Towpath in reach |
//! | 64 | the command line is wrong |
//! | other | of `job`: the job's own exit code |

use std::process::ExitCode;
use towpath_types::visible;

/// Something would change (`diff`).
pub const CHANGES: u8 = 2;
/// The command line is wrong. `EX_USAGE` cannot be mistaken for a result of `diff`.
///
/// Source: <https://man7.org/linux/man-pages/man3/sysexits.h.3head.html>
pub const USAGE: u8 = 64;
/// No Towpath in reach.
pub const UNREACHABLE: u8 = 3;

/// An error that decides the exit code.
#[derive(Debug)]
pub struct Coded {
    /// The exit code.
    pub code: u8,
    /// The message.
    pub message: String,
}

impl std::fmt::Display for Coded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Coded {}

/// Prints `error` with its causes and returns its code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    // A server's answer may quote untrusted text.
    eprintln!("error: {}", visible(&error.to_string()));
    for cause in error.chain().skip(1) {
        eprintln!("  because: {}", visible(&cause.to_string()));
    }
    let code = error.downcast_ref::<Coded>().map_or(1, |coded| coded.code);
    ExitCode::from(code)
}
