//! The client of a container engine: whatever Towpath asks of Docker, or of an engine that speaks its API, goes through here.
//!
//! Jobs run in containers, the local target runs an environment's pods in them, and images are built and pushed by the same
//! engine. All use [`ContainerClient`] and describe containers by [`ContainerSpec`]; no other crate names the library that
//! speaks to the engine.
//!
//! - `client` connects; `containers`, `exec`, `output`, `images`, `networks` and `volumes` have a subject each;
//! - [`spec`] says what a container is made of;
//! - [`error`] tells what can never work from what may work next time;
//! - [`scratch`] makes images of single files, and [`archive`] writes the archives that an engine reads.
//!
//! **Invariant:** every request is safe to repeat. What is there already, stopped already or gone already is no error.
//!
//! **Invariant:** what this crate calls removed is gone when the call returns, whoever removed it.
//!
//! It does not know what a job, a pod or a project is, and it neither chooses names nor labels.

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
