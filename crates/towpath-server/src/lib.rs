//! HTTP: our own API, CircleCI's API, pages, the git remote, the registry, and the agents' socket. One folder per subject.
//!
//! It authorises, translates and answers, and decides nothing: a handler is a call of a part of [`towpath_control::System`]
//! and an answer.
//!
//! - **Invariant:** without a token, a session or a job's token, only the sign-in page, the stylesheet and the script are
//!   answered.
//! - **Invariant:** a session is a stored row, and its cookie goes to the pages below [`PAGES`] only. A request by cookie that
//!   changes something comes from our own pages. A request for another host's name is refused.
//! - **Invariant:** a request that changes something runs to its end, whatever becomes of its client.
//! - **Invariant:** `GET` reads rows, logs and blobs. It asks no cluster, registry, engine or git (the git remote excepted).
//! - **Invariant:** an error's cause goes to the log. Only its message leaves, except to the owner.
//! - **Invariant:** what a client can make the server hold is bounded: connections, heads, bodies, what a body unpacks to.
//! - **Invariant:** CircleCI's words for statuses exist in [`circleci_words`] alone.

mod address;
mod agents;
mod answer;
mod api;
mod auth;
mod circleci;
mod connections;
mod events;
mod git;
mod pages;
mod serve;
mod to_its_end;

pub use auth::owner_name;
pub use circleci::words as circleci_words;
pub use serve::{ServeError, agent_router, router, serve};

/// Below which path a browser finds the pages: the only one to which it sends the session's cookie.
pub(crate) const PAGES: &str = "/towpath";

/// What every handler is given.
pub type App = std::sync::Arc<towpath_control::System>;
