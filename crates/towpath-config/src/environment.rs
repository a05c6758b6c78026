//! Environments: maps, lists of maps, and lists of `NAME=value`.

use std::sync::Arc;

use foldhash::{HashMap, HashMapExt};
use towpath_yaml::{Diagnostic, Entry, Mapping, Node, ScalarStyle, Span};

use crate::compiler::Compiler;
use crate::trace::FrameId;

impl Compiler<'_> {
    /// Merges environments into a list of maps with one key each. A later value replaces an earlier one in its position.
    pub(crate) fn environment(&mut self, sources: &[(Option<&Node>, FrameId)], at: &Span) -> Option<Node> {
        let mut merged = Mapping::default();
        let mut frames: HashMap<Arc<str>, FrameId> = HashMap::new();
        for (source, frame) in sources {
            let Some(source) = source else { continue };
            let mut own = Mapping::default();
            self.read_environment(source, &mut own);
            for part in &own {
                frames.insert(part.key.text.clone(), *frame);
                merged.insert(part.clone());
            }
        }
        if merged.is_empty() {
            return None;
        }
        let mut items = Vec::with_capacity(merged.len());
        for part in &merged {
            let item = Node::mapping(Mapping::from_entries([part.clone()]), part.key.span.clone());
            if let (Some(frame), Some(trace)) = (frames.get(&part.key.text), &mut self.trace) {
                trace.note_written(&item, *frame);
            }
            items.push(item);
        }
        Some(Node::sequence(items, at.clone()))
    }

    /// Reads an `environment`: a map, a list of maps, or a list of `NAME=value`.
    pub(crate) fn read_environment(&mut self, node: &Node, out: &mut Mapping) {
        if let Some(mapping) = node.as_mapping() {
            mapping.iter().for_each(|part| {
                out.insert(part.clone());
            });
        } else if let Some(items) = node.as_sequence() {
            for item in items {
                match (
                    item.as_mapping(),
                    item.as_scalar().map(|scalar| scalar.text.split_once('=')),
                ) {
                    (Some(mapping), _) => mapping.iter().for_each(|part| {
                        out.insert(part.clone());
                    }),
                    (_, Some(Some((name, value)))) => {
                        let value = Node::scalar(value, ScalarStyle::Quoted, item.span().clone());
                        out.insert(Entry::computed(name, value, item.span()));
                    }
                    (_, Some(None)) if !item.is_null() => {
                        let message = "an entry of an `environment` list must be `NAME=value` or a map";
                        self.report(Diagnostic::error("config::environment", message).at(item.span(), ""));
                    }
                    _ => {}
                }
            }
        } else if !node.is_null() {
            let message = format!("`environment` must be a map of names to values, not {}", node.kind());
            self.report(Diagnostic::error("config::environment", message).at(node.span(), ""));
        }
    }
}
