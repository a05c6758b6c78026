//! The forge on the `git` program: bare repositories in a folder.

mod adapter;
mod hooks;
mod http;
mod program;
mod read;
mod repositories;
mod source;

pub use http::Service;
pub use repositories::GitForge;
