//! Commits.

use towpath_types::CommitId;

/// A commit with its message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Commit {
    pub id: CommitId,
    /// The first line of the message.
    pub subject: String,
    /// The rest of the message, without blank lines around it.
    pub body: String,
    /// The author's name, without the address.
    pub author: String,
}
