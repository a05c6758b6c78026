//! The contract that every engine keeps.

use futures::future::BoxFuture;
use std::error::Error;
use towpath_container::{ContainerError, ErrorKind};
use towpath_protocol::Variable;
use towpath_types::{EngineName, ImageReference, NodeId, RegistryCredentials, SecretString};

/// What an environment is made from.
#[derive(Debug, Clone)]
pub struct EnvironmentRequest {
    #[allow(missing_docs)]
    pub id: NodeId,
    /// What the agent shows to the server.
    pub token: SecretString,
    #[allow(missing_docs)]
    pub kind: EnvironmentKind,
    /// `None` for as much as there is. The host engine does not enforce limits.
    pub limits: Option<Limits>,
}

/// Where steps run.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "one a job, and never in a collection")]
pub enum EnvironmentKind {
    /// In containers that share one network.
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
    #[allow(missing_docs)]
    pub image: ImageReference,
    /// The host name under which the other containers reach it, besides `localhost`.
    pub name: Option<String>,
    /// Replaces the image's entrypoint. Ignored for the primary, whose entrypoint is the agent.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's command. Ignored for the primary.
    pub command: Option<Vec<String>>,
    /// Replaces the image's user.
    pub user: Option<String>,
    /// Over the image's own environment.
    pub environment: Vec<Variable>,
    /// For pulling the image.
    pub credentials: Option<RegistryCredentials>,
}

impl Container {
    /// A container of `image` with everything as the image has it.
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

/// What one environment may use. An engine cannot share limits between containers, so each container has all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Limits {
    /// Thousandths of a processor.
    pub cpu_millis: u64,
    pub memory_bytes: u64,
}

/// What an engine's machine has for all environments together. Limits above it cannot be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Capacity {
    /// Thousandths of a processor.
    pub cpu_millis: u64,
    pub memory_bytes: u64,
}

/// What has become of an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvironmentState {
    /// There is none, or no longer.
    Absent,
    /// The agent runs.
    Running,
    /// The agent has ended. What it left behind is there until `stop`.
    Exited {
        /// Its exit status, where it is known.
        code: Option<i64>,
        /// What the engine knows about the end, for people: an out-of-memory kill, the agent's last words. May be empty.
        detail: String,
    },
}

/// The last output of a service container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceLog {
    /// The service's name, or its image.
    pub name: String,
    /// Its exit status once it has ended. A service that dies does not fail the job; its log says why it died.
    pub exit_code: Option<i64>,
    /// Standard output and error in order, not masked, at most the last megabyte.
    pub output: Vec<u8>,
}

/// Gives an agent a place to run and takes it away again.
///
/// # Contract
/// - `name` never changes, and is the same for every engine value that finds the same environments: one made anew after a
///   restart, and one in another process. Two engines that do not find each other's environments have different names.
/// - `start` makes the environment and starts the agent in it. It does nothing when the environment is there already, running or
///   exited. It may be called again after any failure or a crash of the caller, and then finishes what was begun. Two calls for
///   one id at once make one environment; two attempts of one node have two.
/// - The agent may speak to the server before `start` has returned. The server answers "not ready yet" until the caller says
///   otherwise, which it does once `start` has returned.
/// - `start` fails with [`EngineError::Refused`] when trying again cannot help (an image that does not exist), and with
///   [`EngineError::Failed`] when it might. After a failure, call `stop`, whatever was made.
/// - `state` of what was never started is `Absent`. It never answers `Running` for a place whose agent has ended, and never takes
///   a process that got the agent's old number for the agent.
/// - `stop` ends everything in the environment, first by asking and after a grace period by killing, and removes what the engine
///   made for it. It is safe twice, and for an id that was never started, is only half made, or is unknown.
/// - `list` names exactly the environments of this instance that `stop` would have something to do for, in no order. So one that
///   nobody knows any more is found and stopped after a restart.
/// - Everything may be called at once, from many tasks, for different environments and for the same one.
pub trait Engine: Send + Sync {
    /// Which engine on which machine. A job that was placed here is found again by an engine of the same name only.
    fn name(&self) -> &EngineName;

    /// What the engine's machine has.
    fn capacity(&self) -> Capacity;

    /// Makes the environment and starts the agent in it.
    ///
    /// # Errors
    /// When the environment cannot be made. The message names what was attempted and what to do about it.
    fn start<'a>(&'a self, request: &'a EnvironmentRequest) -> BoxFuture<'a, Result<(), EngineError>>;

    /// What has become of the environment.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    fn state<'a>(&'a self, id: &'a NodeId) -> BoxFuture<'a, Result<EnvironmentState, EngineError>>;

    /// Ends and removes the environment.
    ///
    /// # Errors
    /// When the engine cannot be asked or does not obey. Call it again later.
    fn stop<'a>(&'a self, id: &'a NodeId) -> BoxFuture<'a, Result<(), EngineError>>;

    /// The environments that are there.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    fn list(&self) -> BoxFuture<'_, Result<Vec<NodeId>, EngineError>>;

    /// What the environment's services printed last. Empty without services, and once the environment is stopped.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    fn service_logs<'a>(&'a self, id: &'a NodeId) -> BoxFuture<'a, Result<Vec<ServiceLog>, EngineError>>;
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
        #[allow(missing_docs)]
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

impl From<ContainerError> for EngineError {
    fn from(error: ContainerError) -> Self {
        match error.kind() {
            ErrorKind::Impossible => Self::Refused {
                message: format!("the container engine cannot {}: {}", error.attempted(), error.said()),
            },
            ErrorKind::Unreachable | ErrorKind::Failed => {
                let (attempted, source) = error.into_parts();
                Self::Failed { attempted, source }
            }
        }
    }
}
