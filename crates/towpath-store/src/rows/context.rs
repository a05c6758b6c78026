//! Which jobs may use a context.

use serde::{Deserialize, Serialize};

/// Whose jobs may have a context's variables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ContextRule {
    pub context: String,
    /// Project names; empty means any project.
    pub projects: Vec<String>,
    /// Branch names, or prefixes that end with `*`; empty means any branch and any tag.
    pub branches: Vec<String>,
}
