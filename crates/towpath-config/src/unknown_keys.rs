//! Reports keys that a map does not have in the language.

use towpath_yaml::{Diagnostic, Entry, Node};

use crate::compiler::Compiler;
use towpath_types::nearest;

/// What happens to an unknown key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnknownKeys {
    /// It is ignored with a warning.
    Ignored,
    /// It is an error in version 2.1. A key without a value, and any key in version 2, is ignored with a warning.
    Refused,
}

impl Compiler<'_> {
    /// Reports the keys of `node` that are not in `known`. `what` describes the node: "a job".
    pub(crate) fn check_keys(&mut self, node: &Node, known: &[&str], what: &str, unknown: UnknownKeys) {
        let Some(mapping) = node.as_mapping() else { return };
        // The configuration or its orb keeps the node alive, so the address is not reused.
        if !self.checked.insert(node.identity()) {
            return;
        }
        self.check_entries(mapping, known, what, unknown);
    }

    /// Reports the entries whose keys are not in `known`.
    pub(crate) fn check_entries<'e>(
        &mut self,
        entries: impl IntoIterator<Item = &'e Entry>,
        known: &[&str],
        what: &str,
        unknown: UnknownKeys,
    ) {
        for part in entries {
            let key = &part.key.text;
            if known.contains(&&**key) {
                continue;
            }
            let mut diagnostic = if unknown == UnknownKeys::Refused && self.has_templates && !part.value.is_null() {
                let message = format!("`{key}` isn't allowed here: {what} has no such key");
                Diagnostic::error("config::unknown-key", message)
            } else {
                let message = format!("{what} has no key `{key}`; it is ignored");
                Diagnostic::warning("config::unknown-key", message)
            };
            diagnostic = match &part.merged_at {
                Some(merged) => diagnostic
                    .at(merged, "merged here")
                    .also(&part.key.span, "written here"),
                None => diagnostic.at(&part.key.span, ""),
            };
            if let Some(near) = nearest(key, known) {
                diagnostic = diagnostic.hint(format!("did you mean `{near}`?"));
            }
            self.report(diagnostic);
        }
    }
}
