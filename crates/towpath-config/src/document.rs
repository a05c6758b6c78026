//! A text that is parsed once and compiled as often as needed.

use std::sync::Arc;

use towpath_yaml::{Diagnostic, Node, ParseOptions, SourceFile};

/// A configuration or an orb, parsed. Clones share the tree.
#[derive(Clone, Debug)]
pub struct Document {
    source: Arc<SourceFile>,
    /// The YAML documents of the text. Only the first one counts.
    roots: Arc<[Node]>,
    diagnostics: Arc<[Diagnostic]>,
}

impl Document {
    /// Parses `text`. Diagnostics name it `name`, which is usually a path relative to the repository.
    pub fn parse(name: impl Into<Arc<str>>, text: impl Into<Box<str>>) -> Document {
        Document::of(SourceFile::new(name, text))
    }

    /// Parses a source file.
    pub fn of(source: Arc<SourceFile>) -> Document {
        let (roots, diagnostics) = towpath_yaml::parse(&source, &ParseOptions::default());
        Document {
            source,
            roots: roots.into(),
            diagnostics: diagnostics.into(),
        }
    }

    /// The text.
    pub fn source(&self) -> &Arc<SourceFile> {
        &self.source
    }

    /// The root of the first YAML document; `None` if the text is empty or no YAML.
    pub fn root(&self) -> Option<&Node> {
        self.roots.first()
    }

    /// The root of a second YAML document, which is ignored.
    pub(crate) fn second_root(&self) -> Option<&Node> {
        self.roots.get(1)
    }

    /// What the YAML parser reported.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }
}
