//! What the contract's tests run as an agent and as a service: it tells whoever holds the socket that it is there, and does as it
//! is told.
//!
//! `… agent` connects to `TOWPATH_AGENT_SOCKET`, says its token and a number of its own, and obeys: `exit CODE WORDS`, `deaf`
//! (SIGTERM is not heard any more), `stray` (a process in a session of its own, which holds the connection too), `env NAME`.
//! When the server is gone it goes on and looks for the next one. `… serve CODE WORDS` prints and ends; `… wait` never does.
#![allow(clippy::unwrap_used, missing_docs)]

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use std::{
    io::{BufRead, BufReader, Write},
    os::unix::{net::UnixStream, process::CommandExt},
    process::{Command, Stdio, exit},
    time::Duration,
};
use towpath_protocol::variable;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("agent") => agent(),
        Some("serve") => {
            println!("{}", arguments[3]);
            exit(arguments[2].parse().unwrap());
        }
        // `stray` is the one that an agent leaves behind.
        _ => loop {
            std::thread::park();
        },
    }
}

fn agent() {
    let own = std::fs::read_to_string("/proc/self/stat").unwrap();
    // Its number and when it was started: two agents never have both in common.
    let name = format!("{} {}", own.split(' ').next().unwrap(), own.split(' ').nth(21).unwrap());
    // As process 1 nothing has an effect that was not asked for.
    handle(Signal::SIGTERM, SigHandler::Handler(leave));
    let socket = std::env::var(variable::AGENT_SOCKET).unwrap();
    let token = std::env::var(variable::AGENT_TOKEN).unwrap();
    loop {
        let Ok(stream) = UnixStream::connect(&socket) else {
            std::thread::sleep(Duration::from_millis(20));
            continue;
        };
        let mut answers = stream.try_clone().unwrap();
        if writeln!(answers, "{token} {name}").is_err() {
            continue;
        }
        for order in BufReader::new(stream).lines() {
            let Ok(order) = order else { break };
            let (verb, rest) = order.split_once(' ').unwrap_or((&order, ""));
            let answer = match verb {
                "exit" => {
                    let (code, words) = rest.split_once(' ').unwrap();
                    eprintln!("{words}");
                    exit(code.parse().unwrap());
                }
                "deaf" => {
                    handle(Signal::SIGTERM, SigHandler::SigIgn);
                    "deaf".to_string()
                }
                "stray" => stray(),
                "env" => std::env::var(rest).unwrap_or_else(|_| "(unset)".into()),
                other => format!("what is {other}?"),
            };
            if writeln!(answers, "{answer}").is_err() {
                break;
            }
        }
    }
}

extern "C" fn leave(_: nix::libc::c_int) {
    exit(0);
}

#[allow(unsafe_code)]
fn handle(signal: Signal, handler: SigHandler) {
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler only ends the process.
    unsafe { sigaction(signal, &action) }.unwrap();
}

/// Starts a process that nothing leads to but what it inherited; its number.
#[allow(unsafe_code)]
fn stray() -> String {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg("stray")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // SAFETY: `setsid` is async-signal-safe.
    unsafe { command.pre_exec(|| nix::unistd::setsid().map(|_| ()).map_err(std::io::Error::from)) };
    command.spawn().unwrap().id().to_string()
}
