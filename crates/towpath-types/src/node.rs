//! One run of one node of a job, and the engine that it is placed on.

use crate::{IdError, JobId};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// One node of one attempt of a job. Each has an environment of its own: what a later attempt does is never taken for what an
/// earlier one did.
///
/// `Display` writes `<job>.<attempt>.<node>`, and `FromStr` reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId {
    #[allow(missing_docs)]
    pub job: JobId,
    /// From 1; a job that runs again has the next number.
    pub attempt: u32,
    /// From 0, up to the job's parallelism.
    pub node: u32,
}

impl NodeId {
    /// The node `node` of the first attempt of `job`.
    #[must_use]
    pub fn first_attempt(job: JobId, node: u32) -> Self {
        Self { job, attempt: 1, node }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.job, self.attempt, self.node)
    }
}

impl FromStr for NodeId {
    type Err = IdError;

    /// Reads what `Display` writes, and nothing else: two texts never name the same node.
    fn from_str(text: &str) -> Result<Self, IdError> {
        let read = || {
            let mut parts = text.split('.');
            let id = Self {
                job: parts.next()?.parse().ok()?,
                attempt: parts.next()?.parse().ok().filter(|attempt| *attempt > 0)?,
                node: parts.next()?.parse().ok()?,
            };
            (id.to_string() == text).then_some(id)
        };
        read().ok_or_else(|| {
            IdError::new(
                text,
                "a node's id (a job's id, an attempt from 1 and a node from 0, with dots)",
            )
        })
    }
}

/// Which engine on which machine. Equal names mean that a job that was placed on the one is found on the other.
///
/// A server that has no engine of the name that a job was placed on leaves the job alone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EngineName(String);

impl EngineName {
    /// The name made of the kind of engine, the machine or daemon that it is on, and what tells several on that one apart.
    #[must_use]
    pub fn new(kind: &str, machine: &str, instance: &str) -> Self {
        Self(format!("{kind}:{machine}/{instance}"))
    }

    #[allow(missing_docs)]
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EngineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// For a name that was stored.
impl From<String> for EngineName {
    fn from(name: String) -> Self {
        Self(name)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_id_survives_text() {
        let id = NodeId {
            attempt: 3,
            ..NodeId::first_attempt(JobId::from_u128(7), 12)
        };
        assert_eq!(id.to_string(), "00000000-0000-0000-0000-000000000007.3.12");
        assert_eq!(id.to_string().parse(), Ok(id));
        let job = JobId::from_u128(7);
        for bad in [
            String::new(),
            job.to_string(),
            format!("{job}.1"),
            format!("{job}.0.0"),
            format!("{job}.01.0"),
            format!("{job}.1.+0"),
            format!("{job}.1.0.0"),
            format!("{job}.1.-1"),
            format!(".removed-{job}.1.0"),
        ] {
            assert!(bad.parse::<NodeId>().is_err(), "{bad}");
        }
    }
}
