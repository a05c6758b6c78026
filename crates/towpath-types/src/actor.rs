//! Who does something, from where, and by which right.

use serde::{Deserialize, Serialize};
use std::fmt;

/// From where somebody acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// A page in a browser.
    Page,
    /// The HTTP API.
    Api,
    /// The `towpath` command line.
    CommandLine,
    /// A push to the git remote.
    GitPush,
    /// A step of a job.
    Job,
    /// Towpath itself: a timer, a reconciler, a retry.
    Server,
}

/// By which right somebody acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Right {
    /// The owner's token, or a browser session that it opened.
    Owner,
    /// A job's own token, which is worth what its configuration and its gates allow.
    Job,
    /// The server's own decision.
    Server,
    /// The identity of whoever started the process, where no server is up: the environment decides what it may do.
    Process,
}

/// Who acts, from where, by which right.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Actor {
    /// What people read: a user's name, `the pipeline`, `towpath`.
    pub name: String,
    /// From where.
    pub via: Via,
    /// By which right.
    pub right: Right,
}

impl Actor {
    /// A person with the owner's token.
    #[must_use]
    pub fn owner(name: impl Into<String>, via: Via) -> Self {
        Self {
            name: name.into(),
            via,
            right: Right::Owner,
        }
    }

    /// A step of a job.
    #[must_use]
    pub fn job() -> Self {
        Self {
            name: "the pipeline".into(),
            via: Via::Job,
            right: Right::Job,
        }
    }

    /// Towpath itself.
    #[must_use]
    pub fn server() -> Self {
        Self {
            name: "towpath".into(),
            via: Via::Server,
            right: Right::Server,
        }
    }

    /// Whoever runs the command line without a server.
    #[must_use]
    pub fn process(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            via: Via::CommandLine,
            right: Right::Process,
        }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
