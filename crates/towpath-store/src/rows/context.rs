//! Who may have a context.

use serde::{Deserialize, Serialize};

/// Whose jobs may have a context's variables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ContextRule {
    pub context: String,
    /// Their names; empty: any project's.
    pub projects: Vec<String>,
    /// Names of branches, or beginnings of names with a `*` at the end; empty: any branch's, and a tag's.
    pub branches: Vec<String>,
}
