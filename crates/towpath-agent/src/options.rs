//! What an engine tells the agent when it starts it.

use nix::unistd::dup2_stdin;
use std::{
    env,
    fs::File,
    io::{self, IsTerminal, Read},
    path::PathBuf,
};
use towpath_protocol::variable;
use towpath_types::SecretString;

/// More than any token has.
const LONGEST_TOKEN_BYTES: u64 = 4096;

/// Where the agent finds its server and keeps its state.
///
/// An engine passes nothing as arguments: everybody on the machine can read those.
#[derive(Debug, Clone)]
pub struct AgentOptions {
    /// [`variable::AGENT_SOCKET`].
    pub socket: PathBuf,
    /// [`variable::AGENT_TOKEN`], or without that variable what standard input holds.
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
    /// Neither the variable nor standard input holds it.
    #[error("standard input does not hold the agent's token: the agent is started by an engine, not by hand")]
    NoToken,
}

impl AgentOptions {
    /// Reads what the engine passed. Standard input is empty from then on.
    ///
    /// # Errors
    /// When something is missing.
    pub fn from_environment() -> Result<Self, OptionsError> {
        let read = |name: &'static str| {
            env::var_os(name)
                .filter(|value| !value.is_empty())
                .ok_or(OptionsError::Missing(name))
        };
        let token = match env::var_os(variable::AGENT_TOKEN) {
            Some(token) => token.into_string().ok(),
            None => token_on_standard_input().ok(),
        };
        let token = token.filter(|token| !token.is_empty());
        Ok(Self {
            socket: read(variable::AGENT_SOCKET)?.into(),
            token: SecretString::new(token.ok_or(OptionsError::NoToken)?),
            state_directory: read(variable::STATE_DIR)?.into(),
        })
    }
}

fn token_on_standard_input() -> io::Result<String> {
    let mut token = String::new();
    let input = io::stdin();
    // Whoever starts an agent by hand is told so, and not waited for.
    if !input.is_terminal() {
        input.lock().take(LONGEST_TOKEN_BYTES).read_to_string(&mut token)?;
        dup2_stdin(File::open("/dev/null")?)?;
    }
    Ok(token)
}
