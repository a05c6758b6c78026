//! What an engine tells the agent through its environment.

use std::{env, ffi::OsString, path::PathBuf};
use towpath_protocol::variable;
use towpath_types::SecretString;

/// Where the agent finds its server and keeps its state.
///
/// An engine passes these in the environment, never as arguments: everybody on the machine can read those.
#[derive(Debug, Clone)]
pub struct AgentOptions {
    /// [`variable::AGENT_SOCKET`].
    pub socket: PathBuf,
    /// [`variable::AGENT_TOKEN`].
    pub token: SecretString,
    /// [`variable::STATE_DIR`]; the agent creates it if it is missing.
    pub state_directory: PathBuf,
}

/// The environment does not hold the agent's options.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// The variable is not set, is empty, or is not UTF-8.
    #[error("the environment variable {0} is not set: the agent is started by an engine, not by hand")]
    Missing(&'static str),
}

impl AgentOptions {
    /// Reads the variables that the engine set.
    ///
    /// # Errors
    /// When a variable is missing.
    pub fn from_environment() -> Result<Self, OptionsError> {
        let read = |name: &'static str| {
            env::var_os(name)
                .filter(|value| !value.is_empty())
                .ok_or(OptionsError::Missing(name))
        };
        let token: OsString = read(variable::AGENT_TOKEN)?;
        Ok(Self {
            socket: read(variable::AGENT_SOCKET)?.into(),
            token: SecretString::new(
                token
                    .into_string()
                    .map_err(|_| OptionsError::Missing(variable::AGENT_TOKEN))?,
            ),
            state_directory: read(variable::STATE_DIR)?.into(),
        })
    }
}
