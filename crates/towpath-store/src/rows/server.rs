//! The servers that share a store.

use jiff::Timestamp;

/// One server process.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ServerRow {
    /// A random name, new with each start of the process.
    pub id: String,
    /// Its address, for people and for other servers.
    pub address: String,
    /// The engines that it has, by name.
    pub engines: Vec<String>,
    pub started_at: Timestamp,
    /// The time of its last heartbeat.
    pub seen_at: Timestamp,
}
