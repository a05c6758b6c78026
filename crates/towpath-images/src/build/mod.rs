//! Builds an image from a Dockerfile with the container engine's own builder, and pushes it.
//!
//! Towpath sends the context as the engine's command line would: streamed, owned by root, and without what `.dockerignore`
//! excludes. It reads nothing of the engine's configuration; the caller supplies the credentials.

mod buildkit;
mod context;
mod dockerfile;
mod dockerignore;
mod progress;
mod push;

pub use dockerfile::{BuildError, BuildRequest, BuiltImage, build};
pub use push::{PushError, push};
