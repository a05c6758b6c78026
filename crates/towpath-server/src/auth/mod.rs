//! Authentication and authorisation.

mod caller;
mod doors;
mod lasting;
mod origin;
mod session;

pub(crate) use caller::Caller;
pub use caller::owner_name;
pub(crate) use doors::require_owner;
pub(crate) use lasting::while_allowed;
pub(crate) use session::{no_session_cookie, session_cookie, session_token};
