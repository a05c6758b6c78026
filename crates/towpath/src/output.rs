//! Standard output of commands. People run `towpath … | head`. When the reader is gone, the command ends with the exit code of
//! SIGPIPE in a shell, where `println!` would panic.

use std::{
    fmt::Arguments,
    io::{self, ErrorKind, Write},
};
use towpath_types::visible;

/// The exit code that a shell reports for a process that SIGPIPE ended.
const SIGPIPE_CODE: i32 = 141;

/// Writes text for people to standard output. Escapes everything that could control their terminal. Ends the process if writing
/// fails.
pub fn write(text: Arguments<'_>) {
    let text = text.to_string();
    write_raw(format_args!("{}", visible(&text)));
}

/// Writes to standard output unescaped: data for other programs, an application's output, and our own colours.
pub fn write_raw(text: Arguments<'_>) {
    let mut out = io::stdout().lock();
    let Err(error) = out.write_fmt(text).and_then(|()| out.flush()) else {
        return;
    };
    if error.kind() == ErrorKind::BrokenPipe {
        // Do not leave a deployment half done because the reader is gone.
        if crate::ending::is_at_work() {
            return;
        }
        std::process::exit(SIGPIPE_CODE);
    }
    eprintln!("error: failed to write to standard output\n  because: {error}");
    std::process::exit(1);
}

/// Like `print!`, but does not panic when the pipe is closed, and escapes what could control a terminal.
macro_rules! out {
    ($($part:tt)*) => { $crate::output::write(format_args!($($part)*)) };
}

/// Like [`out!`], without escaping.
macro_rules! out_raw {
    ($($part:tt)*) => { $crate::output::write_raw(format_args!($($part)*)) };
}

/// Like `println!`, but does not panic when the pipe is closed, and escapes what could control a terminal.
macro_rules! outln {
    () => { out!("\n") };
    ($($part:tt)*) => { out!("{}\n", format_args!($($part)*)) };
}
