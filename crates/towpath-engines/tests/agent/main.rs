//! The agent and the service of the contract's tests. It announces itself to whoever holds the socket, and obeys orders.
//!
//! `… agent` connects to `TOWPATH_AGENT_SOCKET`, sends its token and a name of its own, and obeys: `exit CODE WORDS`, `deaf`
//! (ignores SIGTERM from then on), `stray` (starts a process in a new session, which also holds the connection), `env NAME`.
//! When the server goes away, it keeps running and looks for the next one. `… serve CODE WORDS` prints and ends; `… wait` never
//! ends.
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
        // `stray` is a process that an agent leaves behind.
        _ => loop {
            std::thread::park();
        },
    }
}

fn agent() {
    let own = std::fs::read_to_string("/proc/self/stat").unwrap();
    // Its process id and its start time: two agents never share both.
    let name = format!("{} {}", own.split(' ').next().unwrap(), own.split(' ').nth(21).unwrap());
    // Process 1 ignores signals without a handler.
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

/// Starts a process whose only link to the job is what it inherited. Returns its process id.
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
