//! HTTP: pages, CircleCI's API, the git remote, the registry, and the agents' socket.
//!
//! It translates and authorises, and decides nothing: every handler is a call of [`Control`] and an answer.
//!
//! - **Invariant:** nothing is answered to a request without a token, a session, or a job's token, but the sign-in page, the
//!   stylesheet, and what a configuration or an orb that the request itself brings along compiles to.
//! - **Invariant:** a request by cookie that changes something comes from our own pages; a request for another host's name
//!   is refused.
//! - **Invariant:** an error's cause goes to the log, and only its message leaves.

mod agent;
mod answer;
mod api;
mod api_v2;
mod auth;
mod compile;
mod git;
mod graphql;
mod orbs;
mod pages;
mod serve;

pub use serve::{ServeError, agent_router, router, serve};

/// What every handler is given.
pub(crate) type App = std::sync::Arc<towpath_control::Control>;
