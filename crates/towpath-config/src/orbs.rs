//! The orbs that a caller has fetched for a compilation.

use std::sync::Arc;

use foldhash::HashMap;
use towpath_yaml::{SourceFile, Span};

use crate::document::Document;

/// The orbs that a caller has fetched, by the references under which configurations import them.
///
/// Each source is parsed once, when it is added. Clones share the parsed sources.
#[derive(Clone, Debug, Default)]
pub struct Orbs(HashMap<Arc<str>, Result<Arc<Orb>, OrbError>>);

/// The source of an orb, parsed.
#[derive(Debug)]
pub(crate) struct Orb {
    /// The exact version: `circleci/node@5.2.0`.
    pub(crate) resolved: String,
    pub(crate) document: Document,
}

/// The source of an orb.
#[derive(Clone, Debug)]
pub struct OrbSource {
    /// The exact version: `circleci/node@5.2.0`. Diagnostics use it as the name of the file.
    pub resolved: String,
    /// The packed source.
    pub text: Arc<str>,
}

/// Why an orb is not available. The import that asked for it becomes an error with this message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrbError {
    /// No registry has the orb.
    #[error("unknown orb '{0}'")]
    Unknown(String),
    /// The lookup failed.
    #[error("cannot fetch orb '{reference}': {reason}")]
    Unavailable {
        /// The reference as written.
        reference: String,
        /// Why the lookup failed, for people.
        reason: String,
    },
}

/// An orb that a configuration imports and the caller has not supplied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingOrb {
    /// `namespace/orb@1.2.3`, `@1.2`, `@1`, `@volatile`, `@dev:label`, or a URL.
    pub reference: String,
    /// The import, in the configuration or in an orb.
    pub span: Span,
}

impl Orbs {
    /// Adds what the caller found under `reference`: the orb, or the reason why there is none.
    pub fn insert(&mut self, reference: impl Into<Arc<str>>, answer: Result<OrbSource, OrbError>) {
        let orb = answer.map(|source| {
            let file = SourceFile::new(format!("orb {}", source.resolved), &*source.text);
            Arc::new(Orb {
                resolved: source.resolved,
                document: Document::of(file),
            })
        });
        self.0.insert(reference.into(), orb);
    }

    /// Forgets what was found under `reference`, so that it is asked for again.
    pub fn remove(&mut self, reference: &str) {
        self.0.remove(reference);
    }

    /// Whether there is an answer for `reference`, an orb or an error.
    pub fn contains(&self, reference: &str) -> bool {
        self.0.contains_key(reference)
    }

    /// The references for which there is no orb but an error.
    pub fn failed(&self) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(|(_, answer)| answer.is_err())
            .map(|(reference, _)| &**reference)
    }

    pub(crate) fn get(&self, reference: &str) -> Option<&Result<Arc<Orb>, OrbError>> {
        self.0.get(reference)
    }

    /// The texts of the orbs.
    pub(crate) fn sources(&self) -> impl Iterator<Item = &Arc<SourceFile>> {
        self.0.values().flatten().map(|orb| orb.document.source())
    }
}
