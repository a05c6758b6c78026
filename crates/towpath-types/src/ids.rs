//! Ids as distinct types, so that a job is never looked up by a pipeline's id.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Why a text is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {what}")]
pub struct IdError {
    text: String,
    what: &'static str,
}

impl IdError {
    /// `text` is not `what`; only its beginning is kept.
    pub(crate) fn new(text: &str, what: &'static str) -> Self {
        Self {
            text: text.chars().take(80).collect(),
            what,
        }
    }
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(uuid::Uuid);

        impl $name {
            /// An id with chosen bits, for simulations and tests.
            #[must_use]
            pub const fn from_u128(bits: u128) -> Self {
                Self(uuid::Uuid::from_u128(bits))
            }

            /// The first eight characters after the time part: what people read in a log line. Not unique.
            #[must_use]
            pub fn short(&self) -> String {
                let text = self.0.simple().to_string();
                text[text.len() - 8..].to_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<uuid::Uuid> for $name {
            fn from(id: uuid::Uuid) -> Self {
                Self(id)
            }
        }

        impl From<$name> for uuid::Uuid {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                uuid::Uuid::parse_str(text)
                    .map(Self)
                    .map_err(|_| IdError::new(text, $what))
            }
        }
    };
}

uuid_id!(
    /// One run of a configuration for one trigger.
    PipelineId,
    "a pipeline's id (a UUID)"
);
uuid_id!(
    /// One workflow of one pipeline.
    WorkflowId,
    "a workflow's id (a UUID)"
);
uuid_id!(
    /// One job (approvals too) of one workflow.
    JobId,
    "a job's id (a UUID)"
);
uuid_id!(
    /// One plan carried out in one environment.
    ReleaseId,
    "a release's id (a UUID)"
);

uuid_id!(
    /// Something that asks for a pipeline: a push of one ref, a call of the API, a rerun.
    TriggerId,
    "a trigger's id (a UUID)"
);
uuid_id!(
    /// One run of a one-off job or of a cron job by hand.
    RunId,
    "a run's id (a UUID)"
);

/// A git commit: 40 lower-case hex digits (SHA-1) or 64 (SHA-256).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CommitId(String);

impl CommitId {
    /// The whole id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first seven digits, for people.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.0[..7]
    }
}

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for CommitId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let hex = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if hex && (text.len() == 40 || text.len() == 64) {
            Ok(Self(text.to_string()))
        } else {
            Err(IdError::new(text, "a git commit id (40 hex digits)"))
        }
    }
}

impl TryFrom<String> for CommitId {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<CommitId> for String {
    fn from(id: CommitId) -> Self {
        id.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_and_survive_text() {
        let (a, b) = (JobId::from_u128(1), JobId::from_u128(2));
        assert!(a < b);
        assert_eq!(a.to_string().parse::<JobId>(), Ok(a));
        assert!("x".parse::<JobId>().is_err());
    }

    #[test]
    fn a_commit_is_forty_or_sixty_four_hex_digits() {
        assert!("a".repeat(40).parse::<CommitId>().is_ok());
        assert!("a".repeat(64).parse::<CommitId>().is_ok());
        for bad in ["", "abc", &"g".repeat(40), &"A".repeat(40), &"a".repeat(41)] {
            assert!(bad.parse::<CommitId>().is_err(), "{bad}");
        }
    }
}
