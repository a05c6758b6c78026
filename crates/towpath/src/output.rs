//! Standard output of commands. People run `towpath … | head`: when nobody reads any more, the command ends with the exit code
//! that a shell gives to SIGPIPE, where `println!` would panic.

use std::{
    fmt::Arguments,
    io::{self, ErrorKind, Write},
};
use towpath_types::visible;

/// What a shell reports for a process that SIGPIPE ended.
const SIGPIPE_CODE: i32 = 141;

/// Writes to standard output what people read. Nothing in it can steer their terminal. If writing fails, the process ends.
pub fn write(text: Arguments<'_>) {
    let text = text.to_string();
    write_raw(format_args!("{}", visible(&text)));
}

/// Writes to standard output as it is: what other programs read, what an application printed, and colours of our own.
pub fn write_raw(text: Arguments<'_>) {
    let mut out = io::stdout().lock();
    let Err(error) = out.write_fmt(text).and_then(|()| out.flush()) else {
        return;
    };
    if error.kind() == ErrorKind::BrokenPipe {
        // A deployment is not left half done because nobody reads any more.
        if crate::ending::is_at_work() {
            return;
        }
        std::process::exit(SIGPIPE_CODE);
    }
    eprintln!("error: failed to write to standard output\n  because: {error}");
    std::process::exit(1);
}

/// `print!` that no closed pipe makes panic, and that shows what would steer a terminal.
macro_rules! out {
    ($($part:tt)*) => { $crate::output::write(format_args!($($part)*)) };
}

/// [`out!`] for what is to stay as it is.
macro_rules! out_raw {
    ($($part:tt)*) => { $crate::output::write_raw(format_args!($($part)*)) };
}

/// `println!` that no closed pipe makes panic, and that shows what would steer a terminal.
macro_rules! outln {
    () => { out!("\n") };
    ($($part:tt)*) => { out!("{}\n", format_args!($($part)*)) };
}
