//! The tree: nodes that know where they are used and written, raw scalars, and ordered mappings.

use std::collections::HashMap;
use std::sync::Arc;

use crate::scalar::{ScalarRules, ScalarStyle, Typed};
use crate::source::Span;

/// A node of a document. Clones share the tree below it.
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

/// The size of a tree with every alias expanded.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weight {
    pub(crate) nodes: u64,
    pub(crate) bytes: u64,
    pub(crate) depth: u32,
    pub(crate) tagged: bool,
}

/// The content of a node.
#[derive(Debug)]
pub enum Value {
    /// A single value as raw text.
    Scalar(Scalar),
    /// A list.
    Sequence(Vec<Node>),
    /// A map whose `<<` merges have been applied.
    Mapping(Mapping),
}

/// A single value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scalar {
    /// The text without quotes, with escapes and folding resolved.
    pub text: Arc<str>,
    /// How the text was written.
    pub style: ScalarStyle,
}

/// A key of a mapping. Keys are always text: the key `1` is the text `1`.
#[derive(Clone, Debug)]
pub struct Key {
    #[allow(missing_docs)]
    pub text: Arc<str>,
    /// Where the key was written, also for a merged entry.
    pub span: Span,
}

/// An entry of a mapping.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Entry {
    pub key: Key,
    pub value: Node,
    /// For a merged entry, the place of the map that `<<` merged.
    pub merged_at: Option<Span>,
}

impl Entry {
    /// Creates an entry that was computed rather than written. Its key is placed at `at`.
    pub fn computed(key: impl Into<Arc<str>>, value: Node, at: &Span) -> Entry {
        Entry {
            key: Key {
                text: key.into(),
                span: at.clone(),
            },
            value,
            merged_at: None,
        }
    }
}

/// A map that keeps its keys in the order in which they were written.
#[derive(Clone, Debug, Default)]
pub struct Mapping {
    entries: Vec<Entry>,
    /// Built when the map has [`INDEX_FROM`] entries.
    index: Option<HashMap<Arc<str>, usize>>,
}

/// A smaller map is searched from the start, which is faster than hashing.
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

    /// Creates a scalar that was computed rather than written, and places it at `span`.
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

    /// Creates a list that was computed rather than written, and places it at `span`.
    pub fn sequence(items: Vec<Node>, span: Span) -> Node {
        Node::build(Value::Sequence(items), span, None, None)
    }

    /// Creates a map that was computed rather than written, and places it at `span`.
    pub fn mapping(mapping: Mapping, span: Span) -> Node {
        Node::build(Value::Mapping(mapping), span, None, None)
    }

    pub(crate) fn weight(&self) -> Weight {
        self.data.weight
    }

    /// Whether any scalar in the tree contains `<<`. Trees without it need no template processing.
    pub fn mentions_tag(&self) -> bool {
        self.data.weight.tagged
    }

    /// The number of nodes in the tree, with every alias expanded.
    pub fn expanded_nodes(&self) -> u64 {
        self.data.weight.nodes
    }

    /// The number of bytes in the tree's keys and scalars, with every alias expanded.
    pub fn expanded_bytes(&self) -> u64 {
        self.data.weight.bytes
    }

    /// Returns the same tree as used at another place.
    pub fn used_at(&self, span: Span) -> Node {
        Node {
            data: self.data.clone(),
            used_at: Some(span),
        }
    }

    /// The content of the node.
    pub fn value(&self) -> &Value {
        &self.data.value
    }

    /// Where the node is used: at the alias, or where it was written.
    pub fn span(&self) -> &Span {
        self.used_at.as_ref().unwrap_or(&self.data.span)
    }

    /// Where the node was written.
    pub fn origin(&self) -> &Span {
        &self.data.span
    }

    /// The name of the node's anchor, without the `&`.
    pub fn anchor(&self) -> Option<&str> {
        self.data.anchor.as_deref()
    }

    /// The node's explicit tag in full: `tag:yaml.org,2002:str`.
    pub fn tag(&self) -> Option<&str> {
        self.data.tag.as_deref()
    }

    /// Whether two nodes share one tree, as an alias and its target do.
    pub fn same(&self, other: &Node) -> bool {
        Arc::ptr_eq(&self.data, &other.data)
    }

    /// An address that identifies the tree as long as one of its nodes is alive.
    pub fn identity(&self) -> usize {
        Arc::as_ptr(&self.data) as usize
    }

    /// Whether another node shares the tree.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.data) > 1
    }

    /// The scalar, unless the node is a list or a map.
    pub fn as_scalar(&self) -> Option<&Scalar> {
        match &self.data.value {
            Value::Scalar(scalar) => Some(scalar),
            _ => None,
        }
    }

    /// The items, if the node is a list.
    pub fn as_sequence(&self) -> Option<&[Node]> {
        match &self.data.value {
            Value::Sequence(items) => Some(items),
            _ => None,
        }
    }

    /// The map, if the node is one.
    pub fn as_mapping(&self) -> Option<&Mapping> {
        match &self.data.value {
            Value::Mapping(mapping) => Some(mapping),
            _ => None,
        }
    }

    /// The value under `key`, if the node is a map that has the key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.as_mapping()?.get(key)
    }

    /// The type of a scalar under `rules`; `None` for lists and maps.
    ///
    /// An explicit tag overrides the rules: `!!str 1` is text and `!!int "1"` is an integer.
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

    /// Whether the node is `null`, `~` or empty.
    pub fn is_null(&self) -> bool {
        matches!(self.typed(ScalarRules::Core12), Some(Typed::Null))
    }

    /// The node's type in words, for messages: "a list", "a map", "text".
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
    /// Builds a map. Of two entries with the same key, the last value is kept at the first position.
    pub fn from_entries(entries: impl IntoIterator<Item = Entry>) -> Mapping {
        let mut mapping = Mapping::default();
        for entry in entries {
            mapping.insert(entry);
        }
        mapping
    }

    /// Adds an entry, or replaces the entry with the same key in its position. Returns the replaced entry.
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

    /// The entry with the key `key`.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.position(key).map(|at| &self.entries[at])
    }

    /// The value under `key`.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// Whether the map has the key `key`.
    pub fn contains(&self, key: &str) -> bool {
        self.position(key).is_some()
    }

    /// Iterates over the entries in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Entry> {
        self.entries.iter()
    }

    /// The entries in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the map has no entries.
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
