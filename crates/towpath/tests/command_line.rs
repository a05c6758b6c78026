//! The command line without a server.

#![allow(clippy::unwrap_used)]

use std::process::{Command, Stdio};

fn towpath(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_towpath"));
    command.args(arguments).stdin(Stdio::null());
    command
}

#[test]
fn a_reader_that_has_gone_ends_a_command_quietly() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let config = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../examples/claims/.circleci/config.yml"
    );
    let output = towpath(&["config", "process", config])
        .stdout(writer)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(141));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
