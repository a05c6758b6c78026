//! The client of a container engine: all of Towpath's requests to Docker, or to an engine with the same API, go through
//! here.
//!
//! Jobs run in containers, the local target runs an environment's pods in them, and images are built and pushed by the
//! same engine. All use [`ContainerClient`] and describe containers by [`ContainerSpec`]; no other crate names the
//! library that speaks to the engine.
//!
//! - `client` connects; `containers`, `exec`, `output`, `images`, `networks` and `volumes` cover one subject each;
//! - [`spec`] says what a container is made of;
//! - [`error`] distinguishes permanent failures from temporary ones;
//! - [`scratch`] makes images of single files, and [`archive`] writes the archives that an engine reads.
//!
//! **Invariant:** every request is safe to repeat. It is no error if something already exists, is already stopped or is
//! already gone.
//!
//! **Invariant:** when a removal returns, the object is gone, whoever removed it.
//!
//! It does not know what a job, a pod or a project is, and it chooses neither names nor labels.

pub mod archive;
mod client;
mod containers;
pub mod error;
mod exec;
mod images;
mod networks;
mod output;
pub mod scratch;
pub mod spec;
mod volumes;

pub use client::{ContainerClient, EngineInfo};
pub use containers::{ContainerState, ContainerSummary, Creation, Phase};
pub use error::{ContainerError, ErrorKind, PullError, PullFailure};
pub use exec::Executed;
pub use images::{BuildProgress, BuildSettings, PushProgress};
pub use output::Tail;
pub use scratch::{ScratchError, ScratchImage, load_scratch_image};
pub use spec::{ContainerSpec, Labels, Limits, LogLimit, Mount, MountSource, Network, PublishedPort};
