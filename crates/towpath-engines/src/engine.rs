//! The contract that every engine keeps.

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::{error::Error, fmt, str::FromStr};
use towpath_protocol::Variable;
use towpath_types::{ImageReference, JobId, SecretString};

/// Which environment: one node of one job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EnvironmentId {
    /// The job.
    pub job: JobId,
    /// The node, from 0.
    pub node: u32,
}

impl fmt::Display for EnvironmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.job, self.node)
    }
}

impl FromStr for EnvironmentId {
    type Err = String;
    /// Reads what `Display` writes.
    fn from_str(text: &str) -> Result<Self, String> {
        text.split_once('.')
            .and_then(|(job, node)| {
                Some(Self {
                    job: job.parse().ok()?,
                    node: node.parse().ok()?,
                })
            })
            .ok_or_else(|| format!("`{text}` is not an environment's id (a job's id, a dot and a node's index)"))
    }
}

/// What an environment is made from.
#[derive(Debug, Clone)]
pub struct EnvironmentRequest {
    /// Which one.
    pub id: EnvironmentId,
    /// What the agent in it shows to the server.
    pub token: SecretString,
    /// What kind of place.
    pub kind: EnvironmentKind,
    /// What it may use of the machine. The host engine does not enforce limits.
    pub limits: Option<Limits>,
}

/// Where steps run.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "one a job, and never in a collection")]
pub enum EnvironmentKind {
    /// In containers that share one network namespace.
    Docker {
        /// The agent and the steps run in this one.
        primary: Container,
        /// Databases and the like, started with it.
        services: Vec<Container>,
    },
    /// As processes of the host.
    Host,
}

/// One container of a job.
///
/// Source: <https://circleci.com/docs/reference/configuration-reference/#docker>
#[derive(Debug, Clone)]
pub struct Container {
    /// What it runs.
    pub image: ImageReference,
    /// The host name under which the others reach it, besides `localhost`.
    pub name: Option<String>,
    /// Replaces the image's entrypoint. Of no effect on the primary, whose entrypoint is the agent.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's command. Of no effect on the primary.
    pub command: Option<Vec<String>>,
    /// Replaces the image's user.
    pub user: Option<String>,
    /// Over the image's own environment.
    pub environment: Vec<Variable>,
    /// For pulling the image, when it needs any.
    pub credentials: Option<RegistryCredentials>,
}

impl Container {
    /// A container of `image` with everything as the image says.
    #[must_use]
    pub fn new(image: ImageReference) -> Self {
        Self {
            image,
            name: None,
            entrypoint: None,
            command: None,
            user: None,
            environment: Vec::new(),
            credentials: None,
        }
    }
}

/// A registry's user.
#[derive(Debug, Clone)]
pub struct RegistryCredentials {
    /// Its name.
    pub username: String,
    /// Its password.
    pub password: SecretString,
}

/// What one environment may use, all its containers together as far as the engine can tell: each container gets them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Processors, in thousandths of one.
    pub cpu_millis: u64,
    /// Memory in bytes.
    pub memory_bytes: u64,
}

/// What has become of an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvironmentState {
    /// There is none, or no longer.
    Absent,
    /// The agent runs.
    Running,
    /// The agent has ended; what it left behind is still there until `stop`.
    Exited {
        /// Its exit status, where it is known.
        code: Option<i64>,
        /// What the engine knows about it, for people: an out-of-memory kill, the agent's last words. May be empty.
        detail: String,
    },
}

/// The last output of a service container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceLog {
    /// The service's name, or its image.
    pub name: String,
    /// Its exit status once it has ended. A service that dies does not fail the job; its log says why.
    pub exit_code: Option<i64>,
    /// Standard output and error in order, not masked, at most the last megabyte.
    pub output: Vec<u8>,
}

/// Gives an agent a place to run and takes it away again.
///
/// # Contract
/// - `start` makes the environment and starts the agent in it, or does nothing when it is there already, running or
///   exited. It may be called again after any failure or a crash of the caller and then finishes what was begun. Two calls
///   for one id at once make one environment.
/// - The agent may speak to the server before `start` has returned; the server answers "not ready yet" until the caller
///   says otherwise, which it does once `start` has returned.
/// - `start` fails with [`EngineError::Refused`] when trying again cannot help (an image that does not exist), and with
///   [`EngineError::Failed`] when it might. After a failure `stop` is due, whatever was made.
/// - `state` of what was never started is `Absent`. It never reports `Running` for a place whose agent has ended, and a
///   reused process id is never taken for the agent.
/// - `stop` ends everything in the environment, asking first and killing after a grace period, and removes what the
///   engine made for it. Safe twice, and for what was never started or only half made.
/// - `list` names every environment of this instance that `stop` would have something to do for, in no order, so that one
///   nobody knows any more is stopped after a restart.
/// - All may be called at once, from many tasks, for different environments and for the same one.
pub trait Engine: Send + Sync {
    /// Makes the environment and starts the agent in it.
    ///
    /// # Errors
    /// When the environment cannot be made; the message names what was attempted and what to do about it.
    fn start<'a>(&'a self, request: &'a EnvironmentRequest) -> BoxFuture<'a, Result<(), EngineError>>;

    /// What has become of the environment.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    fn state<'a>(&'a self, id: &'a EnvironmentId) -> BoxFuture<'a, Result<EnvironmentState, EngineError>>;

    /// Ends and removes the environment.
    ///
    /// # Errors
    /// When the engine cannot be asked or does not obey; call it again later.
    fn stop<'a>(&'a self, id: &'a EnvironmentId) -> BoxFuture<'a, Result<(), EngineError>>;

    /// The environments that are there.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    fn list(&self) -> BoxFuture<'_, Result<Vec<EnvironmentId>, EngineError>>;

    /// What the environment's services printed last. Empty without services, and once stopped.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    fn service_logs<'a>(&'a self, id: &'a EnvironmentId) -> BoxFuture<'a, Result<Vec<ServiceLog>, EngineError>>;
}

/// Why an engine could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// It will not work next time either: the request asks for something that is not there.
    #[error("{message}")]
    Refused {
        /// What was asked, why it cannot be had, and what to do.
        message: String,
    },
    /// It may work next time.
    #[error("failed to {attempted}")]
    Failed {
        /// What was attempted on what.
        attempted: String,
        /// What came in the way.
        source: Box<dyn Error + Send + Sync>,
    },
}

impl EngineError {
    pub(crate) fn failed<E: Into<Box<dyn Error + Send + Sync>>>(
        attempted: impl Into<String>,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Failed {
            attempted: attempted.into(),
            source: source.into(),
        }
    }
}
