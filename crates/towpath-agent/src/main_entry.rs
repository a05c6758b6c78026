//! From the process's environment to a running job.

use crate::{client::Client, init, job};
use std::{env, ffi::OsString, io, path::PathBuf, process::ExitCode};
use towpath_protocol::variable;
use towpath_types::SecretString;

/// Where an agent's server and state are, as an engine told it. Never by argument: those are for everybody to read.
#[derive(Debug, Clone)]
pub struct AgentOptions {
    /// [`variable::AGENT_SOCKET`].
    pub socket: PathBuf,
    /// [`variable::JOB_TOKEN`].
    pub token: SecretString,
    /// [`variable::STATE_DIR`]; made if absent.
    pub state_directory: PathBuf,
}

/// Why there are no options.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// A variable is not set, or not text.
    #[error("the environment variable {0} is not set; an engine starts agents, not a person")]
    Missing(&'static str),
}

impl AgentOptions {
    /// Reads the environment that an engine made.
    ///
    /// # Errors
    /// When a variable is missing.
    pub fn from_environment() -> Result<Self, OptionsError> {
        let read = |name: &'static str| {
            env::var_os(name)
                .filter(|value| !value.is_empty())
                .ok_or(OptionsError::Missing(name))
        };
        let token: OsString = read(variable::JOB_TOKEN)?;
        Ok(Self {
            socket: read(variable::AGENT_SOCKET)?.into(),
            token: SecretString::new(
                token
                    .into_string()
                    .map_err(|_| OptionsError::Missing(variable::JOB_TOKEN))?,
            ),
            state_directory: read(variable::STATE_DIR)?.into(),
        })
    }
}

/// Runs one job, whole. The binary calls it for `towpath agent`, before it has started any thread.
///
/// As process 1 it starts itself again and only reaps and forwards signals. Its own words go to standard error. It exits
/// with 0 when the job's end was told (however the job ended), 1 when the agent could not work, 3 when the server no longer
/// knows the job.
#[must_use]
pub fn main(options: AgentOptions) -> ExitCode {
    if std::process::id() == 1 {
        return init::run();
    }
    let worked = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| format!("failed to start the agent: {error}"))
        .and_then(|runtime| {
            let done = runtime.block_on(async {
                let client = Client::new(options.socket.clone(), options.token.clone());
                job::run(client, &options).await
            });
            // A process that kept a pipe of a step open is not waited for.
            runtime.shutdown_background();
            done
        });
    match worked {
        Ok(job::Told::Yes) => ExitCode::SUCCESS,
        Ok(job::Told::NobodyAsks) => {
            say("the server no longer knows this job; what ran was stopped");
            ExitCode::from(3)
        }
        Err(message) => {
            say(&message);
            ExitCode::FAILURE
        }
    }
}

/// Says something to whoever reads the agent's own output. That it cannot be said is no reason to stop.
pub(crate) fn say(message: &str) {
    use io::Write;
    let _ = writeln!(io::stderr().lock(), "towpath agent: {message}");
}
