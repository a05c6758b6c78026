//! The agent and the service of the contract's tests. It announces itself to whoever holds the socket, and obeys orders.
//!
//! `… agent` connects to `TOWPATH_AGENT_SOCKET`, sends its token and a name of its own, and obeys: `exit CODE WORDS`, `deaf`
//! (ignores SIGTERM from then on), `stray` (starts a process in a new session, which also holds the connection), `hidden` (a
//! `stray` without an environment), `bomb` (as many processes as it may), `env NAME`, `ids`, `name` (of its user),
//! `read PATH`, `write PATH`, `connect PATH`, `signal PID`.
//! When the server goes away, it keeps running and looks for the next one. `… serve CODE WORDS` prints and ends; `… wait` never
//! ends.
#![allow(clippy::unwrap_used, missing_docs)]

use nix::{
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction},
    unistd::{Pid, getgid, getgroups, getresuid},
};
use std::{
    io::{BufRead, BufReader, Write},
    os::unix::{net::UnixStream, process::CommandExt},
    path::Path,
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
    let token = std::env::var(variable::AGENT_TOKEN)
        .or_else(|_| std::io::read_to_string(std::io::stdin()))
        .unwrap();
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
                "stray" => stray(false).map_or_else(|error| error.to_string(), |pid| pid.to_string()),
                "hidden" => stray(true).map_or_else(|error| error.to_string(), |pid| pid.to_string()),
                "bomb" => bomb(),
                "ids" => ids(),
                "name" => {
                    let output = Command::new("id").arg("-un").output().unwrap();
                    String::from_utf8(output.stdout).unwrap().trim().to_string()
                }
                "read" => done(match Path::new(rest).is_dir() {
                    true => std::fs::read_dir(rest).map(drop),
                    false => std::fs::read(rest).map(drop),
                }),
                "write" => done(std::fs::write(rest, "x")),
                "connect" => done(UnixStream::connect(rest).map(drop)),
                "signal" => done(kill(Pid::from_raw(rest.parse().unwrap()), None).map_err(Into::into)),
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

fn done(result: std::io::Result<()>) -> String {
    result.map_or_else(|error| error.kind().to_string(), |()| "done".to_string())
}

/// Its real, effective and saved user, its group, and its other groups.
fn ids() -> String {
    let users = getresuid().unwrap();
    let groups: Vec<String> = getgroups().unwrap().iter().map(ToString::to_string).collect();
    let groups = match groups.is_empty() {
        true => getgid().to_string(),
        false => groups.join(" "),
    };
    let closed = nix::sys::prctl::get_no_new_privs().unwrap();
    let (real, effective, saved) = (users.real, users.effective, users.saved);
    let group = getgid();
    format!("{real} {effective} {saved} {group}, in groups: {groups}, no new privileges: {closed}")
}

fn bomb() -> String {
    let mut started = 0;
    loop {
        match stray(true) {
            Ok(_) => started += 1,
            Err(error) => return format!("{started} {error}"),
        }
        assert!(started < 1000, "nothing stops it");
    }
}

/// Starts a process whose only link to the job is what it inherited: nothing, if it is `hidden`. Returns its process id.
#[allow(unsafe_code)]
fn stray(hidden: bool) -> std::io::Result<u32> {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg("stray")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if hidden {
        command.env_clear();
    }
    // SAFETY: `setsid` is async-signal-safe.
    unsafe { command.pre_exec(|| nix::unistd::setsid().map(|_| ()).map_err(std::io::Error::from)) };
    Ok(command.spawn()?.id())
}
