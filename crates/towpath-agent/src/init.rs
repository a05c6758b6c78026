//! The duties of process 1 in a container: start the agent, forward signals to it, and reap orphans.

use crate::stderr::say;
use nix::{
    errno::Errno,
    sys::{
        signal::{SigSet, Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use std::{
    env,
    process::{Command, ExitCode},
};

/// Starts this program again with the same arguments and waits until it ends. Then the container ends too.
pub(crate) fn run() -> ExitCode {
    match supervise() {
        Ok(code) => ExitCode::from(code),
        Err(message) => {
            say(&message);
            ExitCode::FAILURE
        }
    }
}

fn supervise() -> Result<u8, String> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT] {
        signals.add(signal);
    }
    // Block signals before the child exists, so as not to miss its end. `Command` gives the child an empty mask.
    signals
        .thread_block()
        .map_err(|error| format!("failed to hold signals: {error}"))?;
    let itself = env::current_exe().map_err(|error| format!("failed to find its own binary: {error}"))?;
    let child = Command::new(&itself)
        .args(env::args_os().skip(1))
        .spawn()
        .map_err(|error| format!("failed to start `{}` again: {error}", itself.display()))?;
    let agent = i32::try_from(child.id())
        .map(Pid::from_raw)
        .map_err(|error| error.to_string())?;
    loop {
        match signals
            .wait()
            .map_err(|error| format!("failed to wait for signals: {error}"))?
        {
            Signal::SIGCHLD => {
                if let Some(code) = reap(agent) {
                    return Ok(code);
                }
            }
            // If the agent has just ended, its SIGCHLD comes next.
            signal => drop(kill(agent, signal)),
        }
    }
}

/// Reaps every process that has ended. Returns the agent's exit code if it is among them.
fn reap(agent: Pid) -> Option<u8> {
    let mut ended = None;
    loop {
        match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == agent => ended = Some(u8::try_from(code).unwrap_or(1)),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == agent => {
                ended = Some(u8::try_from(128 + signal as i32).unwrap_or(1));
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return ended,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return ended,
        }
    }
}
