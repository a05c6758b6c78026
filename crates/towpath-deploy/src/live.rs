//! The Secrets that pods read, and who keeps each of them.

use crate::target::{Environment, TargetError};
use futures::future::BoxFuture;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use towpath_types::SecretBytes;

/// Who keeps a Secret: whose values it has, and who would write them again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keeper {
    /// People set its values. Only these Secrets are written when somebody sets a value.
    People,
    /// Terraform, or a program that runs it.
    Terraform,
    /// A controller in the cluster, from an object of its own: an ExternalSecret, a SealedSecret, a Certificate.
    Operator,
    /// Manifests: those of the environment, or those that another program applies.
    Manifest,
    /// The cluster, or a program that keeps its own records there.
    Cluster,
}

impl fmt::Display for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::People => "people",
            Self::Terraform => "terraform",
            Self::Operator => "an operator",
            Self::Manifest => "manifests",
            Self::Cluster => "the cluster",
        })
    }
}

/// A Secret's keeper, and how that is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The keeper.
    pub by: Keeper,
    /// What shows it: a clause that can follow a colon.
    pub because: String,
}

impl Kept {
    /// A keeper and what shows it.
    pub fn new(by: Keeper, because: impl Into<String>) -> Self {
        Self {
            by,
            because: because.into(),
        }
    }
}

/// A Secret that pods can read, without its values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct LiveSecret {
    pub name: String,
    /// `Opaque`, `kubernetes.io/tls`, …
    pub kind: String,
    pub kept: Kept,
    pub keys: Vec<LiveKey>,
}

/// A key of a Secret, without its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct LiveKey {
    pub key: String,
    /// The length of the value.
    pub bytes: usize,
    /// Who wrote it last: a person, or the program's field manager. Empty if unknown.
    pub by: String,
    /// When that was recorded.
    pub at: Option<Timestamp>,
}

/// A change of one key of a Secret.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct KeyChange {
    pub secret: String,
    pub key: String,
    /// The new value; `None` to remove the key.
    pub value: Option<SecretBytes>,
    /// The person who changes it.
    pub by: String,
}

/// The Secrets that pods read: the truth about their values. A deployment reads them and writes none of them.
///
/// All methods may be called at any time and concurrently. No error contains a value.
pub trait LiveSecrets: Send + Sync {
    /// Whether it has to be known where an environment is. Otherwise its id is enough, so that Secrets can be set before its
    /// manifests are known.
    fn needs_place(&self) -> bool;

    /// The Secrets of an environment by name, except the records that Towpath keeps there.
    fn list<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Vec<LiveSecret>, TargetError>>;

    /// Changes one key of a Secret and nothing else of it, if people keep it; makes the Secret if there is none. Safe to repeat.
    ///
    /// `Refused` if somebody else keeps it, or changed this key at the same moment. `NotFound` for a key to remove that does not
    /// exist.
    fn change<'a>(
        &'a self,
        environment: &'a Environment,
        change: &'a KeyChange,
    ) -> BoxFuture<'a, Result<(), TargetError>>;
}
