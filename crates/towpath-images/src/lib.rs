//! Images: the built-in registry, a client for any registry, and builds through the container engine.
//!
//! - [`registry`] is an OCI registry over a folder, served as an [`axum::Router`] at `/v2`. `docker push`, `docker pull` and
//!   `skopeo` speak to it as to any other.
//! - [`client`] asks any registry for digests and tags, and moves tags without moving layers.
//! - [`mod@build`] builds an image from a Dockerfile and pushes it, through the engine's API.
//! - [`tags`] are the rules by which a commit's images are named.
//! - [`scratch`] loads an image made of one static binary into an engine, without a Dockerfile.
//!
//! **Invariants.** An image travels by digest; a tag is a pointer for people. No byte becomes visible in the registry
//! before it was compared with its digest and is on the disk. Repository names, tags and digests are validated types
//! before they touch a file system. A password reaches no error, log line or `Debug`.
//!
//! The crate deliberately does not know who may do what (the caller gives the registry an [`registry::Authorize`]),
//! what a pipeline is, or what happens after a push (the caller may observe it).

pub mod build;
pub mod client;
pub mod registry;
pub mod scratch;
pub mod tags;
mod tar_stream;

mod credentials;

pub use build::{BuildError, BuildRequest, BuiltImage, PushError, build, push};
pub use client::{ClientError, RegistryClient, Retries};
pub use credentials::{Credentials, CredentialsError};
pub use registry::{Access, Action, Authorize, Registry, RegistryError, RepositoryName, TagName, Verdict, router};
pub use scratch::{ScratchError, ScratchImage, load_scratch_image};
pub use tags::{ImageTags, MAIN, resolve_tag_word};
