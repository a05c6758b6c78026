//! Where orbs come from: a repository's own folder, Towpath's registry, CircleCI's public registry, or a URL. The lock file
//! records which of them was used.
//!
//! - **Invariant:** the order is fixed: vendored, Towpath's, CircleCI's. The first place that knows the orb's name answers, so
//!   publishing the same name elsewhere changes nothing.
//! - **Invariant:** Towpath uses exactly the bytes that the lock file names, or it fails.
//!
//! This crate does not read YAML, and does not know what an orb says.

mod http;
mod lock;
mod lookup;
mod public;
mod reference;
mod sources;
mod url;

pub use lock::{LOCK_FILE, Lock, LockError, Locked};
pub use lookup::{Found, Lookup, LookupError, Origin};
pub use public::{DEFAULT_REGISTRY, PublicRegistry};
pub use reference::{OrbName, OrbReference, OrbVersion, ReferenceError, Selector};
pub use sources::{Sources, VENDORED_FOLDER, Vendored};
pub use url::{UrlOrbs, UrlPrefix, UrlPrefixError, is_url};
