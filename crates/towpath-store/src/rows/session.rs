//! Browsers that signed in.

use jiff::Timestamp;
use towpath_types::Digest;

/// A browser that signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct SessionRow {
    /// The digest of its token. The token itself is not stored.
    pub digest: Digest,
    /// The browser's `User-Agent`, for people.
    pub browser: String,
    pub made_at: Timestamp,
    /// When it was last seen, to the minute.
    pub seen_at: Timestamp,
}
