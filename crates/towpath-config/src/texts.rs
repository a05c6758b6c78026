//! Finds the text at a place of a compiled configuration.

use std::collections::HashMap;
use std::sync::Arc;

use towpath_yaml::{Place, SourceFile, Span};

use crate::document::Document;
use crate::orbs::Orbs;

/// The texts that a configuration was compiled from, by name.
pub struct Texts<'a>(HashMap<&'a str, &'a Arc<SourceFile>>);

impl<'a> Texts<'a> {
    /// Takes the texts of a configuration and its orbs.
    pub fn of(document: &'a Document, orbs: &'a Orbs) -> Texts<'a> {
        let texts = std::iter::once(document.source()).chain(orbs.sources());
        Texts(texts.map(|text| (text.name(), text)).collect())
    }

    /// The word at a place. `None` if the place is in another file.
    pub fn span(&self, place: &Place) -> Option<Span> {
        let text = self.0.get(&*place.file)?;
        Some(text.word_at(place.line, place.column))
    }
}
