//! `run`: a command in a new shell.

use crate::{
    shell,
    spool::Spool,
    step::{RunningJob, StepEnd, go_duration},
};
use nix::{
    errno::Errno,
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use std::{
    ffi::{OsStr, OsString},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::ExitStatusExt,
    },
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe,
    process::{Child, Command},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use towpath_protocol::RunStep;
use towpath_types::Outcome;

/// How long a step has between SIGTERM and SIGKILL. Shorter than the grace period that engines give the agent.
const GRACE: Duration = Duration::from_secs(5);
const BUFFER_BYTES: usize = 64 << 10;
/// The most bytes that an unprivileged process's pipe can hold, and so the most that a shell can leave in it.
const PIPE_BYTES: usize = 1 << 20;
/// The limit for a step that may be silent for ever.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Runs the command. After a failure, runs it again as often as the step allows.
pub(crate) async fn run(
    job: &RunningJob,
    index: u32,
    step: &RunStep,
    spool: &mut Spool,
    stop: &CancellationToken,
) -> StepEnd {
    let reruns = if step.background { 0 } else { step.max_auto_reruns };
    for rerun in 1..=reruns {
        let end = attempt(job, index, step, spool, stop).await;
        if end.outcome != Outcome::Failed || end.exit_code.is_none() {
            return end;
        }
        spool.line(format!(
            "{}; running it again ({rerun} of {reruns})",
            end.message.as_deref().unwrap_or("The command failed")
        ));
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(step.auto_rerun_delay_seconds)) => {}
            () = stop.cancelled() => return StepEnd::new(Outcome::Canceled, None),
        }
    }
    attempt(job, index, step, spool, stop).await
}

async fn attempt(job: &RunningJob, index: u32, step: &RunStep, spool: &mut Spool, stop: &CancellationToken) -> StepEnd {
    let silence = if step.background {
        NEVER
    } else {
        Duration::from_secs(step.no_output_timeout_seconds.max(1)).min(NEVER)
    };
    match start(job, index, step) {
        Ok((child, output)) => {
            Attending {
                child,
                output: Some(output),
                spool,
                silence,
            }
            .until_end(stop)
            .await
        }
        Err(message) => StepEnd::failed(message),
    }
}

fn start(job: &RunningJob, index: u32, step: &RunStep) -> Result<(Child, pipe::Receiver), String> {
    let surroundings = &job.surroundings;
    let environment = surroundings.step_environment(&step.environment);
    let directory: PathBuf = match &step.working_directory {
        Some(written) => surroundings.path(written),
        None => surroundings.working_directory.clone(),
    };
    if !directory.is_dir() {
        return Err(format!(
            "the working directory `{}` does not exist",
            directory.display()
        ));
    }
    let path = environment
        .get(OsStr::new("PATH"))
        .map_or(OsStr::new(""), OsString::as_os_str);
    let wanted = step.shell.as_deref().or(job.spec.shell.as_deref());
    let line = shell::command_line(wanted, path, &directory).map_err(|error| error.to_string())?;
    let script = surroundings
        .write_script(index, &step.command)
        .map_err(|error| format!("failed to write the script: {error}"))?;
    let failed = |error: io::Error| format!("failed to start `{}`: {error}", line.join(" "));
    // One pipe for both outputs, so that they stay in the order in which they were written.
    let (reader, writer) = io::pipe().map_err(failed)?;
    let errors = writer.try_clone().map_err(failed)?;
    let child = Command::new(&line[0])
        .args(&line[1..])
        .arg(script)
        .env_clear()
        .envs(environment)
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(errors)
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    let output = pipe::Receiver::from_owned_fd(OwnedFd::from(reader)).map_err(failed)?;
    Ok((child, output))
}

/// A running command and its output.
struct Attending<'a> {
    child: Child,
    output: Option<pipe::Receiver>,
    spool: &'a mut Spool,
    silence: Duration,
}

impl Attending<'_> {
    async fn until_end(mut self, stop: &CancellationToken) -> StepEnd {
        let group = self.child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut heard = Instant::now();
        // Set when the command is asked to end: the result to report, and when to kill it.
        let mut ending: Option<(StepEnd, Instant)> = None;
        let status = loop {
            let kill_at = ending.as_ref().map(|(_, at)| *at);
            let output = &mut self.output;
            let read = async {
                match output {
                    Some(output) => output.read(&mut buffer).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                read = read => match read {
                    Ok(0) | Err(_) => self.output = None,
                    Ok(count) => {
                        heard = Instant::now();
                        self.spool.write(&buffer[..count]);
                    }
                },
                status = self.child.wait() => break status,
                () = stop.cancelled(), if ending.is_none() => {
                    ending = Some((StepEnd::new(Outcome::Canceled, None), Instant::now() + GRACE));
                    signal(group, Signal::SIGTERM);
                }
                () = tokio::time::sleep_until(heard + self.silence), if ending.is_none() => {
                    let message = format!(
                        "Too long with no output (exceeded {}): context deadline exceeded",
                        go_duration(self.silence)
                    );
                    ending = Some((StepEnd::new(Outcome::TimedOut, Some(message)), Instant::now() + GRACE));
                    signal(group, Signal::SIGTERM);
                }
                () = tokio::time::sleep_until(kill_at.unwrap_or(heard)), if kill_at.is_some() => {
                    signal(group, Signal::SIGKILL);
                    ending = ending.map(|(end, _)| (end, Instant::now() + NEVER));
                }
            }
        };
        if ending.is_some() {
            // Kill what did not end with the shell.
            signal(group, Signal::SIGKILL);
        }
        self.drain(&mut buffer);
        match ending {
            Some((end, _)) => end,
            None => match status {
                Ok(status) => end_of(status),
                Err(error) => StepEnd::new(
                    Outcome::Errored,
                    Some(format!("failed to wait for the command: {error}")),
                ),
            },
        }
    }

    /// Reads what the shell left in the pipe. A process that the shell left behind may hold the pipe open. Then it keeps
    /// reading, so that the process can keep writing, but discards the output, which no longer belongs to any step.
    fn drain(&mut self, buffer: &mut [u8]) {
        let Some(mut output) = self.output.take() else {
            return;
        };
        if let Rest::Ended = take_what_is_there(&output, buffer, |bytes| self.spool.write(bytes)) {
            return;
        }
        tokio::spawn(async move {
            let mut discarded = vec![0; BUFFER_BYTES];
            while output.read(&mut discarded).await.is_ok_and(|count| count > 0) {}
        });
    }
}

/// The state of a pipe after it was emptied.
#[derive(Debug, PartialEq, Eq)]
enum Rest {
    /// No process holds the other end, or the pipe is broken.
    Ended,
    /// A process may still write to it.
    Open,
}

/// Passes what is in the pipe now to `sink`, without waiting for more.
///
/// Asks the kernel directly. The runtime's `try_read` knows only what its driver has reported. Without this, the last output of
/// a command that writes and ends at once would often be missed.
fn take_what_is_there(output: impl AsFd, buffer: &mut [u8], mut sink: impl FnMut(&[u8])) -> Rest {
    let mut taken = 0;
    while taken < PIPE_BYTES {
        match nix::unistd::read(output.as_fd(), buffer) {
            Ok(0) => return Rest::Ended,
            Ok(count) => {
                sink(&buffer[..count]);
                taken += count;
            }
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Rest::Open,
            Err(_) => return Rest::Ended,
        }
    }
    Rest::Open
}

fn signal(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        match killpg(group, signal) {
            // No process is left, or the rest belong to another user (sudo) and end with the environment.
            Ok(()) | Err(Errno::ESRCH | Errno::EPERM) => {}
            Err(error) => crate::stderr::say(&format!("failed to send {signal} to a step: {error}")),
        }
    }
}

fn end_of(status: ExitStatus) -> StepEnd {
    match (status.code(), status.signal()) {
        (Some(0), _) => StepEnd {
            outcome: Outcome::Succeeded,
            exit_code: Some(0),
            message: None,
        },
        (Some(code), _) => StepEnd {
            outcome: Outcome::Failed,
            exit_code: Some(code),
            message: Some(format!("Exited with code exit status {code}")),
        },
        (None, number) => {
            let number = number.unwrap_or_default();
            let name = match Signal::try_from(number) {
                Ok(Signal::SIGKILL) => "killed".to_string(),
                Ok(Signal::SIGTERM) => "terminated".to_string(),
                Ok(signal) => signal.as_str().to_string(),
                Err(_) => number.to_string(),
            };
            StepEnd {
                outcome: Outcome::Failed,
                exit_code: Some(128 + number),
                message: Some(format!("Received \"{name}\" signal")),
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::Write;

    /// The test never awaits, so the runtime's driver hears of nothing, as if a command wrote and ended between two polls.
    #[tokio::test]
    async fn the_last_output_is_taken_even_if_the_runtime_has_not_heard_of_it() {
        let (reader, mut writer) = io::pipe().unwrap();
        let output = pipe::Receiver::from_owned_fd(OwnedFd::from(reader)).unwrap();
        let (mut taken, mut buffer) = (Vec::new(), [0; 7]);
        writer.write_all(b"of the step\n").unwrap();
        let mut take = |buffer: &mut [u8]| take_what_is_there(&output, buffer, |bytes| taken.extend_from_slice(bytes));
        assert_eq!(take(&mut buffer), Rest::Open);
        writer.write_all(b"and more\n").unwrap();
        drop(writer);
        assert_eq!(take(&mut buffer), Rest::Ended);
        assert_eq!(taken, b"of the step\nand more\n");
    }
}
