//! Where a job runs: in containers, on this machine itself, or in a scripted fake.
//!
//! An engine gives an agent a place to run and takes it away again. It knows nothing of steps, logs, outcomes or retries: the
//! agent inside does the work and talks to the server by [`towpath_protocol`], and the control decides when to start and stop.
//! An engine keeps its state where a `kill -9` of the server does not reach it (names and labels of containers, files of
//! processes), so that [`Engine::list`] finds everything after a restart.
//!
//! **Invariant:** each [`NodeId`](towpath_types::NodeId) has at most one environment, ever. The id is part of the environment's
//! names, so a second start makes no second environment, and a later attempt never meets what an earlier one left.
//!
//! **Invariant:** an engine marks everything that it makes with its instance, and touches nothing without the mark.

mod docker;
mod engine;
mod host;
mod machine;
mod process;
mod scripted;
mod users;

pub use docker::{DockerEngine, DockerOptions};
pub use engine::{
    Capacity, Container, Engine, EngineError, EnvironmentKind, EnvironmentRequest, EnvironmentState, Limits,
    MOST_PROCESSES, ServiceLog,
};
pub use host::{HostEngine, HostOptions};
pub use scripted::{Calls, Scripted, ScriptedEngine};
pub use users::HostUsers;
