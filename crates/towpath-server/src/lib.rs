//! HTTP: our own API, CircleCI's API, pages, the git remote, the registry, and the agents' socket. One folder per subject.
//!
//! It authorises, translates and answers, and decides nothing: a handler calls one part of [`towpath_control::System`] and
//! answers.
//!
//! - **Invariant:** without a token, a session or a job's token, a client gets only the sign-in page, the stylesheet and the
//!   script.
//! - **Invariant:** a session is a stored row, and its cookie applies only to the pages below [`PAGES`]. A request by cookie
//!   may change something only if it comes from our own pages. The server refuses a request for another host's name.
//! - **Invariant:** a request and its answer end with the credential that they were allowed for.
//! - **Invariant:** a request that changes something runs to its end, even if its client disconnects.
//! - **Invariant:** `GET` reads rows, logs and blobs. It asks no cluster, registry, engine or git (the git remote excepted).
//! - **Invariant:** an error's cause goes to the log. Only its message leaves, except to the owner.
//! - **Invariant:** what a client can make the server hold is bounded: connections, heads, bodies, and unpacked bodies.
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

/// The path below which the pages are. Browsers send the session cookie only there.
pub(crate) const PAGES: &str = "/towpath";

/// The state that every handler gets.
pub type App = std::sync::Arc<towpath_control::System>;
