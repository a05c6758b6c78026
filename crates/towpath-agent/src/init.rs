//! What process 1 of a container has to do: start the agent, hand signals on to it, and reap whom nobody else reaps.

use crate::main_entry::say;
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

/// Starts this program again with the same arguments and stays until it has ended. When it ends, so does the container.
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
    // Before the child exists, so that its end is not missed. A child's own mask is empty: `Command` sees to that.
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
            // It may have ended in this moment; then its SIGCHLD is next.
            signal => drop(kill(agent, signal)),
        }
    }
}

/// Reaps everybody who has ended; the agent's status if it was among them.
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
