//! Standard output of commands. `towpath … | head` is a usual thing to do: when nobody reads any more, the command ends
//! like any other, by the exit code that a shell gives to SIGPIPE, where `println!` would panic.

use std::{
    fmt::Arguments,
    io::{self, ErrorKind, Write},
};

/// What a shell reports for a process that SIGPIPE ended.
const SIGPIPE_CODE: i32 = 141;

/// Writes to standard output; the end of the process when that cannot be.
pub fn write(text: Arguments<'_>) {
    let mut out = io::stdout().lock();
    let Err(error) = out.write_fmt(text).and_then(|()| out.flush()) else {
        return;
    };
    if error.kind() == ErrorKind::BrokenPipe {
        // A deployment is not left half done because nobody listens any more.
        if crate::direct::is_at_work() {
            return;
        }
        std::process::exit(SIGPIPE_CODE);
    }
    eprintln!("error: failed to write to standard output\n  because: {error}");
    crate::direct::clean_up();
    std::process::exit(1);
}

/// `print!` that no closed pipe makes panic.
macro_rules! out {
    ($($part:tt)*) => { $crate::output::write(format_args!($($part)*)) };
}

/// `println!` that no closed pipe makes panic.
macro_rules! outln {
    () => { out!("\n") };
    ($($part:tt)*) => { out!("{}\n", format_args!($($part)*)) };
}
