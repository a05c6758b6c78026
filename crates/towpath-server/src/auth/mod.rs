//! Who asks, and whether they may.

mod caller;
mod doors;
mod origin;
mod session;

pub use caller::owner_name;
pub(crate) use caller::{Caller, audience};
pub(crate) use doors::{identify, require_owner};
pub(crate) use session::{no_session_cookie, session_cookie, session_token};
