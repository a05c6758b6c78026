//! The tree: nodes with two places, raw scalars, mappings that keep their order.

use std::collections::HashMap;
use std::sync::Arc;

use crate::scalar::{ScalarRules, ScalarStyle, Typed};
use crate::source::Span;

/// A node of a document. Cloning shares the tree below it.
#[derive(Clone, Debug)]
pub struct Node {
    data: Arc<Data>,
    used_at: Option<Span>,
}

#[derive(Debug)]
struct Data {
    value: Value,
    span: Span,
    anchor: Option<Box<str>>,
    tag: Option<Box<str>>,
    weight: Weight,
}

/// How much a tree holds when every alias is written out.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weight {
    pub(crate) nodes: u64,
    pub(crate) bytes: u64,
    pub(crate) depth: u32,
    pub(crate) tagged: bool,
}

/// What a node is.
#[derive(Debug)]
pub enum Value {
    /// A single value, as raw text.
    Scalar(Scalar),
    /// A list.
    Sequence(Vec<Node>),
    /// A map, with merges carried out.
    Mapping(Mapping),
}

/// A single value: its text after unquoting, and how it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scalar {
    /// The text, escapes and folding resolved.
    pub text: Arc<str>,
    /// How it was written.
    pub style: ScalarStyle,
}

/// The key of a mapping's entry; always text (a key `1` is the text `1`).
#[derive(Clone, Debug)]
pub struct Key {
    /// The key's text.
    pub text: Arc<str>,
    /// Where it was written (for a merged entry: at its origin).
    pub span: Span,
}

/// One entry of a mapping.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// The value.
    pub value: Node,
    /// Where the `<<` is that brought it here, when it was merged.
    pub merged_at: Option<Span>,
}

/// A map that keeps the order in which its keys were written.
#[derive(Clone, Debug, Default)]
pub struct Mapping {
    entries: Vec<Entry>,
    /// Present once looking through the entries would be slow.
    index: Option<HashMap<Arc<str>, usize>>,
}

const INDEX_FROM: usize = 12;

impl Node {
    pub(crate) fn build(value: Value, span: Span, anchor: Option<Box<str>>, tag: Option<Box<str>>) -> Node {
        let mut weight = Weight {
            nodes: 1,
            bytes: 0,
            depth: 1,
            tagged: false,
        };
        let mut add = |child: Weight| {
            weight.nodes = weight.nodes.saturating_add(child.nodes);
            weight.bytes = weight.bytes.saturating_add(child.bytes);
            weight.depth = weight.depth.max(child.depth + 1);
            weight.tagged |= child.tagged;
        };
        match &value {
            Value::Scalar(scalar) => add(Weight {
                nodes: 0,
                bytes: scalar.text.len() as u64,
                depth: 0,
                tagged: scalar.text.contains("<<"),
            }),
            Value::Sequence(items) => items.iter().for_each(|item| add(item.weight())),
            Value::Mapping(mapping) => mapping.entries.iter().for_each(|entry| {
                add(Weight {
                    nodes: 0,
                    bytes: entry.key.text.len() as u64,
                    depth: 0,
                    tagged: false,
                });
                add(entry.value.weight());
            }),
        }
        Node {
            data: Arc::new(Data {
                value,
                span,
                anchor,
                tag,
                weight,
            }),
            used_at: None,
        }
    }

    /// A scalar that was computed rather than written; it lives at `span`.
    pub fn scalar(text: impl Into<Arc<str>>, style: ScalarStyle, span: Span) -> Node {
        Node::build(
            Value::Scalar(Scalar {
                text: text.into(),
                style,
            }),
            span,
            None,
            None,
        )
    }

    /// A sequence that was computed rather than written; it lives at `span`.
    pub fn sequence(items: Vec<Node>, span: Span) -> Node {
        Node::build(Value::Sequence(items), span, None, None)
    }

    /// A mapping that was computed rather than written; it lives at `span`.
    pub fn mapping(mapping: Mapping, span: Span) -> Node {
        Node::build(Value::Mapping(mapping), span, None, None)
    }

    pub(crate) fn weight(&self) -> Weight {
        self.data.weight
    }

    /// Whether a scalar in it contains `<<`, so that what reads templates can leave all other trees alone.
    pub fn mentions_tag(&self) -> bool {
        self.data.weight.tagged
    }

    /// How many nodes it holds with every alias written out.
    pub fn expanded_nodes(&self) -> u64 {
        self.data.weight.nodes
    }

    /// How many bytes its scalars hold with every alias written out.
    pub fn expanded_bytes(&self) -> u64 {
        self.data.weight.bytes
    }

    /// The same node, used at another place.
    pub fn used_at(&self, span: Span) -> Node {
        Node {
            data: self.data.clone(),
            used_at: Some(span),
        }
    }

    /// What it is.
    pub fn value(&self) -> &Value {
        &self.data.value
    }

    /// Where it is used: the alias, the merge, or where it was written.
    pub fn span(&self) -> &Span {
        self.used_at.as_ref().unwrap_or(&self.data.span)
    }

    /// Where it was written.
    pub fn origin(&self) -> &Span {
        &self.data.span
    }

    /// The name of the anchor on it, without the `&`.
    pub fn anchor(&self) -> Option<&str> {
        self.data.anchor.as_deref()
    }

    /// The tag on it as written in full (`tag:yaml.org,2002:str`).
    pub fn tag(&self) -> Option<&str> {
        self.data.tag.as_deref()
    }

    /// Whether both are one and the same tree (an alias and what it names).
    pub fn same(&self, other: &Node) -> bool {
        Arc::ptr_eq(&self.data, &other.data)
    }

    /// An address that tells trees apart while any node of them lives.
    pub fn identity(&self) -> usize {
        Arc::as_ptr(&self.data) as usize
    }

    /// Whether something else holds the same tree, too.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.data) > 1
    }

    /// The scalar, if it is one.
    pub fn as_scalar(&self) -> Option<&Scalar> {
        match &self.data.value {
            Value::Scalar(scalar) => Some(scalar),
            _ => None,
        }
    }

    /// The list, if it is one.
    pub fn as_sequence(&self) -> Option<&[Node]> {
        match &self.data.value {
            Value::Sequence(items) => Some(items),
            _ => None,
        }
    }

    /// The map, if it is one.
    pub fn as_mapping(&self) -> Option<&Mapping> {
        match &self.data.value {
            Value::Mapping(mapping) => Some(mapping),
            _ => None,
        }
    }

    /// The value under `key`, if it is a map that has one.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.as_mapping()?.get(key)
    }

    /// The type of a scalar under `rules`; `None` for lists and maps.
    ///
    /// An explicit tag decides: `!!str 1` is text, and `!!int "1"` is not.
    pub fn typed(&self, rules: ScalarRules) -> Option<Typed<'_>> {
        let scalar = self.as_scalar()?;
        let is_plain = scalar.style == ScalarStyle::Plain;
        let tag = self
            .tag()
            .map(|tag| tag.strip_prefix("tag:yaml.org,2002:").unwrap_or(tag));
        Some(match tag {
            Some("str" | "!") => Typed::Text(&scalar.text),
            Some("float") => match rules.resolve(&scalar.text) {
                Typed::Int(value) => Typed::Float(value as f64),
                typed => typed,
            },
            Some("int" | "bool" | "null") => rules.resolve(&scalar.text),
            _ if is_plain => rules.resolve(&scalar.text),
            _ => Typed::Text(&scalar.text),
        })
    }

    /// Whether it is `null`, `~` or nothing at all.
    pub fn is_null(&self) -> bool {
        matches!(self.typed(ScalarRules::Core12), Some(Typed::Null))
    }

    /// What it is, for people: "a list", "a map", "text".
    pub fn kind(&self) -> &'static str {
        match &self.data.value {
            Value::Sequence(_) => "a list",
            Value::Mapping(_) => "a map",
            Value::Scalar(_) => match self.typed(ScalarRules::CircleCi) {
                Some(Typed::Null) => "empty",
                Some(Typed::Bool(_)) => "a boolean",
                Some(Typed::Int(_)) => "an integer",
                Some(Typed::Float(_)) => "a number",
                _ => "text",
            },
        }
    }
}

impl Mapping {
    /// A mapping of these entries; of two with one key the last one's value stays, at the first one's position.
    pub fn from_entries(entries: impl IntoIterator<Item = Entry>) -> Mapping {
        let mut mapping = Mapping::default();
        for entry in entries {
            mapping.insert(entry);
        }
        mapping
    }

    /// Adds an entry, or replaces the one with the same key in its position; answers the replaced one.
    pub fn insert(&mut self, entry: Entry) -> Option<Entry> {
        if let Some(at) = self.position(&entry.key.text) {
            return Some(std::mem::replace(&mut self.entries[at], entry));
        }
        let at = self.entries.len();
        if let Some(index) = &mut self.index {
            index.insert(entry.key.text.clone(), at);
        }
        self.entries.push(entry);
        if self.index.is_none() && self.entries.len() >= INDEX_FROM {
            self.index = Some(
                self.entries
                    .iter()
                    .enumerate()
                    .map(|(at, entry)| (entry.key.text.clone(), at))
                    .collect(),
            );
        }
        None
    }

    fn position(&self, key: &str) -> Option<usize> {
        match &self.index {
            Some(index) => index.get(key).copied(),
            None => self.entries.iter().position(|entry| &*entry.key.text == key),
        }
    }

    /// The entry under `key`.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.position(key).map(|at| &self.entries[at])
    }

    /// The value under `key`.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// Whether there is an entry under `key`.
    pub fn contains(&self, key: &str) -> bool {
        self.position(key).is_some()
    }

    /// The entries, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Entry> {
        self.entries.iter()
    }

    /// The entries, in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl<'a> IntoIterator for &'a Mapping {
    type Item = &'a Entry;
    type IntoIter = std::slice::Iter<'a, Entry>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.iter()
    }
}
