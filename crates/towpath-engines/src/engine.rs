//! The contract that every engine keeps.

use futures::future::BoxFuture;
use std::error::Error;
use towpath_container::{ContainerError, ErrorKind};
use towpath_protocol::Variable;
use towpath_types::{EngineName, ImageReference, NodeId, RegistryCredentials, SecretString};

/// The process limit of a job. A fork bomb stops its own job, not the machine. Browsers and compilers start thousands.
pub const MOST_PROCESSES: u64 = 16_384;

/// What an engine needs to make an environment.
#[derive(Debug, Clone)]
pub struct EnvironmentRequest {
    #[allow(missing_docs)]
    pub id: NodeId,
    /// The token with which the agent authenticates to the server.
    pub token: SecretString,
    #[allow(missing_docs)]
    pub kind: EnvironmentKind,
    /// `None` for no limits. The host engine only limits how many processes there are.
    pub limits: Option<Limits>,
}

/// Where steps run.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "one a job, and never in a collection")]
pub enum EnvironmentKind {
    /// In containers that share one network.
    Docker {
        /// The container in which the agent and the steps run.
        primary: Container,
        /// Service containers such as databases, which start together with the primary.
        services: Vec<Container>,
    },
    /// As processes of the host.
    Host {
        /// Whether they may use the machine's container engine, and with it everything on the machine.
        uses_engine: bool,
    },
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
    /// Overrides variables of the image's own environment.
    pub environment: Vec<Variable>,
    /// The credentials for pulling the image.
    pub credentials: Option<RegistryCredentials>,
}

impl Container {
    /// A container of `image` that overrides nothing.
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

/// The limits of one environment. An engine cannot share limits between containers, so each container gets all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Limits {
    /// Thousandths of a processor.
    pub cpu_millis: u64,
    pub memory_bytes: u64,
}

/// What an engine's machine has for all environments together. It cannot keep limits above that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Capacity {
    /// Thousandths of a processor.
    pub cpu_millis: u64,
    pub memory_bytes: u64,
}

/// The state of an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvironmentState {
    /// The environment does not exist, or no longer exists.
    Absent,
    /// The agent is running.
    Running,
    /// The agent has ended. The environment's files stay until `stop`.
    Exited {
        /// The agent's exit status, if known.
        code: Option<i64>,
        /// What the engine knows about the end, for people: an out-of-memory kill, the agent's last output. May be empty.
        detail: String,
    },
}

/// The last output of a service container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceLog {
    /// The service's name, or its image.
    pub name: String,
    /// The exit status, once the service has ended. A service that dies does not fail the job; its log says why it died.
    pub exit_code: Option<i64>,
    /// Standard output and error in order, not masked, at most the last megabyte.
    pub output: Vec<u8>,
}

/// Gives an agent a place to run and takes it away again.
///
/// # Contract
/// - `name` never changes. All engine values that find the same environments have the same name, after a restart and in other
///   processes, too. Two engines that do not find each other's environments have different names.
/// - `start` makes the environment and starts the agent in it. It does nothing if the environment exists already, running or
///   exited. The caller may repeat it after any failure or crash, and it then finishes what was begun. Two concurrent calls for
///   one id make one environment; two attempts of one node have two environments.
/// - The agent may call the server before `start` has returned. The server answers "not ready yet" until the caller says
///   otherwise, which it does once `start` has returned.
/// - `start` fails with [`EngineError::Refused`] when a retry cannot help (an image that does not exist), and with
///   [`EngineError::Failed`] when it might. After a failure, the caller calls `stop`, whatever was made.
/// - `state` of an environment that was never started is `Absent`. It never returns `Running` for an agent that has ended, and
///   never mistakes a process that reused the agent's process id for the agent.
/// - `stop` ends everything in the environment: it asks first, and kills after a grace period. Then it removes what the engine
///   made. It is safe to repeat, and safe for an id that was never started, is half made, or is unknown.
/// - `list` returns exactly the environments of this instance for which `stop` has something to do, in no order. So a restarted
///   server finds and stops environments that nobody knows any more.
/// - All methods may be called concurrently, for different environments and for the same one.
pub trait Engine: Send + Sync {
    /// The engine's kind and machine. Only an engine of the same name finds a job that was placed here.
    fn name(&self) -> &EngineName;

    /// The capacity of the engine's machine.
    fn capacity(&self) -> Capacity;

    /// Makes the environment and starts the agent in it.
    ///
    /// # Errors
    /// When the environment cannot be made. The message names what was attempted and what to do about it.
    fn start<'a>(&'a self, request: &'a EnvironmentRequest) -> BoxFuture<'a, Result<(), EngineError>>;

    /// Returns the state of the environment.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    fn state<'a>(&'a self, id: &'a NodeId) -> BoxFuture<'a, Result<EnvironmentState, EngineError>>;

    /// Ends and removes the environment.
    ///
    /// # Errors
    /// When the engine cannot be asked or does not obey. Call it again later.
    fn stop<'a>(&'a self, id: &'a NodeId) -> BoxFuture<'a, Result<(), EngineError>>;

    /// The environments that exist.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    fn list(&self) -> BoxFuture<'_, Result<Vec<NodeId>, EngineError>>;

    /// The last output of the environment's services. Empty without services, and once the environment is stopped.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    fn service_logs<'a>(&'a self, id: &'a NodeId) -> BoxFuture<'a, Result<Vec<ServiceLog>, EngineError>>;
}

/// Why an engine could not do what the caller asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A retry will fail as well: the request asks for something that does not exist.
    #[error("{message}")]
    Refused {
        /// What was requested, why it is not available, and what to do.
        message: String,
    },
    /// A retry may succeed.
    #[error("failed to {attempted}")]
    Failed {
        /// The operation and its object.
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
