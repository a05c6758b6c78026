//! Images: resolves tags, holds the built-in registry and a client for any registry, and builds with the container engine.
//!
//! - [`Images`] resolves tags. [`RegistryImages`] asks Towpath's own registry or any other; [`fake::FakeImages`] is in memory.
//!   One contract suite runs on both.
//! - [`registry`] is an OCI registry over a folder, served as an [`axum::Router`] at `/v2`. `docker push`, `docker pull` and
//!   `skopeo` use it like any other.
//! - [`client`] asks any registry for digests and tags, and moves tags without moving layers.
//! - [`mod@build`] builds an image from a Dockerfile and pushes it, through the engine's API.
//! - [`tags`] holds the rules for naming a commit's images.
//!
//! **Invariants.** Towpath passes images on by digest; a tag is a pointer for people. The registry serves no byte before it is
//! on the disk and matches its digest. It validates repository names, tags and digests before they become part of a path. A
//! password appears in no error, log line or `Debug`.
//!
//! This crate does not know who may do what (the caller gives the registry an [`registry::Authorize`]), what a pipeline is, or
//! what happens after a push (the caller may observe it).

pub mod build;
pub mod client;
pub mod fake;
pub mod registry;
pub mod tags;

mod authorities;
mod credentials;
mod images;
mod registry_images;

pub use authorities::AUTHORITIES_VARIABLE;
pub use build::{BuildError, BuildRequest, BuiltImage, PushError, build, push};
pub use client::{ClientError, RegistryClient, Retries};
pub use credentials::{CredentialsError, docker_credentials};
pub use images::{Images, ImagesError};
pub use registry::{Access, Action, Authorize, Registry, RegistryError, RepositoryName, TagName, Verdict, router};
pub use registry_images::RegistryImages;
pub use tags::{ImageTags, MAIN, commit_of_tag, resolve_tag_word, tags_of_commit};
