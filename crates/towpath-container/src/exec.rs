//! Commands in running containers.

use crate::{client::ContainerClient, error::ContainerError};
use bollard::{
    Docker,
    exec::{CreateExecOptions, StartExecResults},
};
use futures::StreamExt;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// How much of a command's output to keep, in bytes.
const OUTPUT: usize = 4096;

/// A command that ran to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executed {
    /// -1 when the engine does not say.
    pub exit_code: i64,
    /// The first 4 KiB of its output, standard output and error in order, trimmed.
    pub output: String,
}

/// A running command. Dropping it early kills its process. Engines have no request for that, so this kills it as a
/// process of this machine, where it is one.
struct Running {
    docker: Docker,
    exec: Option<String>,
}

impl Running {
    fn end(mut self) {
        self.exec = None;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let (Some(exec), Ok(runtime)) = (self.exec.take(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        let docker = self.docker.clone();
        runtime.spawn(async move {
            let Ok(known) = docker.inspect_exec(&exec).await else {
                return;
            };
            let pid = known.pid.filter(|_| known.running == Some(true));
            let pid = pid.and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 1);
            if let Some(pid) = pid {
                // Nothing to do if this is not permitted or the process has just ended.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        });
    }
}

impl ContainerClient {
    /// Runs a command in a container. Dropping the future kills the command.
    ///
    /// # Errors
    /// When the container does not run, or has no such program.
    pub async fn execute(&self, container: &str, command: &[String]) -> Result<Executed, ContainerError> {
        let program = command.first().map_or("", String::as_str);
        let attempted = || format!("run `{program}` in the container `{container}`");
        let options = CreateExecOptions {
            cmd: Some(command.to_vec()),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..CreateExecOptions::default()
        };
        let exec = self.docker.create_exec(container, options).await;
        let exec = exec.map_err(ContainerError::of(attempted()))?;
        let running = Running {
            docker: self.docker.clone(),
            exec: Some(exec.id.clone()),
        };
        let mut printed = Vec::new();
        let started = self.docker.start_exec(&exec.id, None).await;
        if let StartExecResults::Attached { mut output, .. } = started.map_err(ContainerError::of(attempted()))? {
            while let Some(piece) = output.next().await {
                let piece = piece.map_err(ContainerError::of(attempted()))?;
                let room = OUTPUT.saturating_sub(printed.len());
                printed.extend(piece.as_ref().iter().take(room));
            }
        }
        let ended = self.docker.inspect_exec(&exec.id).await;
        let ended = ended.map_err(ContainerError::of(attempted()))?;
        running.end();
        Ok(Executed {
            exit_code: ended.exit_code.unwrap_or(-1),
            output: String::from_utf8_lossy(&printed).trim().to_string(),
        })
    }
}
