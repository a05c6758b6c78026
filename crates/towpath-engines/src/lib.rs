//! Where a job's environment comes from: a container engine, the host itself, and a scripted fake.
//!
//! An engine gives an agent a place to run and takes it away again. It knows nothing of steps, logs, outcomes or retries:
//! the agent inside does the work and talks to the server by [`towpath_protocol`]; the control decides when to start and
//! stop. What an engine keeps of its own lives where a `kill -9` of the server does not reach (the container engine's
//! labels and names, a pid file), so that [`Engine::list`] finds it after a restart.
//!
//! **Invariant:** one environment per [`EnvironmentId`], ever: names are deterministic, so starting twice never makes two.
//!
//! **Invariant:** everything made carries the instance's label, and nothing without it is ever touched.

mod docker;
mod engine;
mod host;
mod scripted;

pub use docker::{DockerEngine, DockerOptions};
pub use engine::{
    Container, Engine, EngineError, EnvironmentId, EnvironmentKind, EnvironmentRequest, EnvironmentState, Limits,
    RegistryCredentials, ServiceLog,
};
pub use host::{HostEngine, HostOptions};
pub use scripted::ScriptedEngine;
