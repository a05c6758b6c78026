//! Builds an image from a Dockerfile with the container engine's own builder, and pushes it.
//!
//! The context is sent as the engine's command line would send it: without what `.dockerignore` names, as root's files, streamed.
//! Nothing of the engine's configuration is read; credentials are the caller's.

mod buildkit;
mod context;
mod dockerfile;
mod dockerignore;
mod progress;
mod push;

pub use dockerfile::{BuildError, BuildRequest, BuiltImage, build};
pub use push::{PushError, push};
