//! Parses text into nodes: resolves anchors and aliases, applies merges, and enforces limits.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use granit_parser::{Event, Parser, ScalarStyle as RawStyle, Tag};

use crate::diagnostic::Diagnostic;
use crate::node::{Entry, Key, Mapping, Node, Scalar, Value};
use crate::scalar::ScalarStyle;
use crate::source::{SourceFile, Span};

/// The largest document that is read. The defaults are far above any real file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of text.
    pub source_bytes: usize,
    /// Levels of nested lists and maps.
    pub depth: u32,
    /// Nodes, with every alias expanded.
    pub nodes: u64,
    /// Bytes in keys and scalars, with every alias expanded.
    pub expanded_bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            source_bytes: 32 << 20,
            depth: 192,
            nodes: 2_000_000,
            expanded_bytes: 256 << 20,
        }
    }
}

/// How to report a key that is written twice in one map. The last value counts either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DuplicateKeys {
    /// Report a warning.
    Warn,
    /// Report an error.
    Refuse,
}

/// How to parse a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ParseOptions {
    pub limits: Limits,
    pub duplicate_keys: DuplicateKeys,
    /// Whether an unquoted key `<<` merges maps.
    pub merge: bool,
}

impl Default for ParseOptions {
    fn default() -> ParseOptions {
        ParseOptions {
            limits: Limits::default(),
            duplicate_keys: DuplicateKeys::Warn,
            merge: true,
        }
    }
}

/// Parses all documents of `source`, and skips empty ones.
///
/// Returns what it could read along with the diagnostics. A syntax error ends the parsing: the document that contains it
/// and everything after it are left out.
pub fn parse(source: &Arc<SourceFile>, options: &ParseOptions) -> (Vec<Node>, Vec<Diagnostic>) {
    let mut builder = Builder {
        source,
        options,
        documents: Vec::new(),
        diagnostics: Vec::new(),
        stack: Vec::new(),
        root: None,
        anchors: HashMap::new(),
        open_anchors: HashMap::new(),
        pending_scalar: None,
        refused: false,
    };
    let limits = &options.limits;
    if source.text().len() > limits.source_bytes {
        let message = format!("`{}` is larger than {} bytes", source.name(), limits.source_bytes);
        return (Vec::new(), vec![Diagnostic::error("yaml::too-large", message)]);
    }
    let depth = limits.depth as usize;
    let parser_options = granit_parser::options! {
        emit_comments: false,
        emit_anchor_events: true,
        emit_unresolved_aliases: true,
        flow_nesting_limit: depth,
        block_nesting_limit: depth,
        simple_key_max_lookahead: 4096,
    };
    let text = with_marks_before_documents(source.text());
    for next in Parser::new_from_str_with_options(&text, parser_options) {
        match next {
            Ok((event, span)) => {
                let start = span.start.byte_offset().unwrap_or(0);
                let end = span.end.byte_offset().unwrap_or(start);
                builder.event(event, start..end.max(start));
                if builder.refused {
                    builder.documents.clear();
                    break;
                }
            }
            Err(error) => {
                builder.flush();
                let at = error.marker().byte_offset().unwrap_or_else(|| source.text().len());
                let span = Span::new(source, at..at + 1);
                if matches!(error.kind(), granit_parser::ErrorKind::RecursionLimitExceeded) {
                    builder.too_deep(&span);
                    builder.documents.clear();
                    break;
                }
                builder.diagnostics.push(
                    Diagnostic::error("yaml::syntax", format!("cannot read this as YAML: {}", error.info()))
                        .at(&span, ""),
                );
                break;
            }
        }
    }
    (builder.documents, builder.diagnostics)
}

/// A text in which no byte order mark is between `---` and its document.
///
/// Tools that join files leave one there. YAML allows a mark only before the `---`, and Kubernetes' own tools read it. The bytes
/// of the mark become blanks at the end of the line before, so that every place stays where it is.
fn with_marks_before_documents(text: &str) -> Cow<'_, str> {
    const MARK: &str = "\u{feff}";
    let mut out = String::new();
    let mut done = 0;
    for (at, _) in text.match_indices(MARK) {
        let before = &text[done..at];
        let line_end = before.trim_end_matches('\n').trim_end_matches('\r');
        let line = line_end.rsplit('\n').next().unwrap_or_default();
        let is_start = line.strip_prefix("---").is_some_and(|rest| {
            let rest = rest.trim_start_matches([' ', '\t']);
            rest.is_empty() || rest.starts_with('#')
        });
        let breaks = &before[line_end.len()..];
        if !is_start || !matches!(breaks, "\n" | "\r\n") {
            continue;
        }
        out.push_str(line_end);
        out.push_str(&" ".repeat(MARK.len()));
        out.push_str(breaks);
        done = at + MARK.len();
    }
    match done {
        0 => Cow::Borrowed(text),
        _ => {
            out.push_str(&text[done..]);
            Cow::Owned(out)
        }
    }
}

struct Builder<'a> {
    source: &'a Arc<SourceFile>,
    options: &'a ParseOptions,
    documents: Vec<Node>,
    diagnostics: Vec<Diagnostic>,
    stack: Vec<Frame>,
    root: Option<Node>,
    /// Complete anchored nodes, by the parser's anchor number.
    anchors: HashMap<usize, Node>,
    /// Anchored collections that are still being read.
    open_anchors: HashMap<usize, ()>,
    /// The parser reports a scalar before the name of its anchor. The scalar waits here.
    pending_scalar: Option<PendingScalar>,
    /// Whether a limit was exceeded, and parsing has to stop.
    refused: bool,
}

struct PendingScalar {
    scalar: Scalar,
    at: std::ops::Range<usize>,
    tag: Option<Box<str>>,
    anchor_id: usize,
}

struct Frame {
    start: usize,
    anchor_id: usize,
    anchor: Option<Box<str>>,
    tag: Option<Box<str>>,
    content: Content,
}

enum Content {
    Sequence(Vec<Node>),
    Mapping {
        entries: Vec<(Node, Node)>,
        key: Option<Node>,
    },
}

fn tag_text(tag: Option<Cow<'_, Tag>>) -> Option<Box<str>> {
    tag.map(|tag| format!("{}{}", tag.handle(), tag.suffix()).into_boxed_str())
}

/// The value of a block scalar as YAML 1.1 readers have it.
///
/// The parser ends each last line with a line break. If the file ends without one, so does the value, as in SnakeYAML, PyYAML
/// and go-yaml. A last line of spaces that is not indented further than the block has no part in the value: the line before
/// it is the last, and that has its line break.
fn without_invented_break<'t>(value: &'t str, source: &str, at: &std::ops::Range<usize>) -> &'t str {
    const BREAKS: [char; 2] = ['\n', '\r'];
    if at.end < source.len() || source.ends_with(BREAKS) {
        return value;
    }
    let before = |offset: usize| source.get(..offset).unwrap_or(source);
    let line_start = |offset: usize| before(offset).rfind(BREAKS).map_or(0, |line_break| line_break + 1);
    let last_line = &source[line_start(source.len())..];
    if value.bytes().all(|byte| byte == b'\n') {
        // Nothing but blank lines, after the line of the indicator: the value has a line break for each that has one.
        let block = source[before(at.start).len()..].replace("\r\n", "\n");
        let blank_lines = block.matches(BREAKS).count().saturating_sub(1);
        return &value[..blank_lines.min(value.len())];
    }
    // The parser's range starts behind the indentation of the first line with content.
    let indentation = at.start - line_start(at.start);
    let is_indentation = last_line.len() <= indentation && last_line.bytes().all(|byte| byte == b' ');
    match value.strip_suffix('\n') {
        Some(cut_off) if !is_indentation => cut_off,
        _ => value,
    }
}

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, at: std::ops::Range<usize>) {
        if let Event::Anchor(_, name) = &event {
            match (&mut self.pending_scalar, self.stack.last_mut()) {
                (Some(_), _) => self.flush_scalar(Some(name.as_ref().into())),
                (None, Some(frame)) => frame.anchor = Some(name.as_ref().into()),
                (None, None) => {}
            }
            return;
        }
        self.flush();
        match event {
            Event::Scalar(text, style, anchor_id, tag) => {
                let style = match style {
                    RawStyle::Plain => ScalarStyle::Plain,
                    RawStyle::SingleQuoted | RawStyle::DoubleQuoted => ScalarStyle::Quoted,
                    RawStyle::Literal | RawStyle::Folded => ScalarStyle::Block,
                };
                let text = match style {
                    ScalarStyle::Block => without_invented_break(&text, self.source.text(), &at),
                    ScalarStyle::Plain | ScalarStyle::Quoted => &text,
                };
                let scalar = Scalar {
                    text: text.into(),
                    style,
                };
                self.pending_scalar = Some(PendingScalar {
                    scalar,
                    at,
                    tag: tag_text(tag),
                    anchor_id,
                });
            }
            Event::SequenceStart(_, anchor_id, tag) => {
                self.open(at.start, anchor_id, tag, Content::Sequence(Vec::new()))
            }
            Event::MappingStart(_, anchor_id, tag) => {
                self.open(
                    at.start,
                    anchor_id,
                    tag,
                    Content::Mapping {
                        entries: Vec::new(),
                        key: None,
                    },
                );
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(at.end),
            Event::Alias(id) => self.alias(id, at),
            Event::UnresolvedAlias(name) => {
                let span = Span::new(self.source, at);
                self.diagnostics.push(
                    Diagnostic::error(
                        "yaml::unknown-anchor",
                        format!("no anchor `&{name}` is defined before this"),
                    )
                    .at(&span, ""),
                );
                self.add(Node::scalar("", ScalarStyle::Plain, span));
            }
            Event::DocumentStart(..) => {
                self.anchors.clear();
                self.open_anchors.clear();
            }
            Event::DocumentEnd => {
                if let Some(root) = self.root.take()
                    && !(root.is_null() && root.origin().text().is_empty())
                {
                    self.documents.push(root);
                }
            }
            _ => {}
        }
    }

    fn open(&mut self, start: usize, anchor_id: usize, tag: Option<Cow<'_, Tag>>, content: Content) {
        if self.stack.len() as u32 >= self.options.limits.depth {
            let span = Span::new(self.source, start..start + 1);
            self.too_deep(&span);
            return;
        }
        if anchor_id != 0 {
            self.open_anchors.insert(anchor_id, ());
        }
        self.stack.push(Frame {
            start,
            anchor_id,
            anchor: None,
            tag: tag_text(tag),
            content,
        });
    }

    fn too_deep(&mut self, span: &Span) {
        let message = format!(
            "lists and maps are nested more than {} levels deep",
            self.options.limits.depth
        );
        self.diagnostics
            .push(Diagnostic::error("yaml::too-deep", message).at(span, "here"));
        self.refused = true;
    }

    fn close(&mut self, end: usize) {
        let Some(frame) = self.stack.pop() else { return };
        let value = match frame.content {
            Content::Sequence(items) => Value::Sequence(items),
            Content::Mapping { entries, .. } => Value::Mapping(self.mapping(entries)),
        };
        // A block collection ends where the next token starts. Leave out the blank space before that.
        let text = self.source.text();
        let end = end.clamp(frame.start, text.len());
        let trimmed = text
            .get(frame.start..end)
            .map_or(end, |text| frame.start + text.trim_end().len());
        let node = Node::build(
            value,
            Span::new(self.source, frame.start..trimmed),
            frame.anchor,
            frame.tag,
        );
        if frame.anchor_id != 0 {
            self.open_anchors.remove(&frame.anchor_id);
            self.anchors.insert(frame.anchor_id, node.clone());
        }
        self.add(node);
    }

    fn flush(&mut self) {
        self.flush_scalar(None);
    }

    fn flush_scalar(&mut self, anchor: Option<Box<str>>) {
        let Some(PendingScalar {
            scalar,
            at,
            tag,
            anchor_id,
        }) = self.pending_scalar.take()
        else {
            return;
        };
        let node = Node::build(Value::Scalar(scalar), Span::new(self.source, at), anchor, tag);
        if anchor_id != 0 {
            self.anchors.insert(anchor_id, node.clone());
        }
        self.add(node);
    }

    fn alias(&mut self, id: usize, at: std::ops::Range<usize>) {
        let span = Span::new(self.source, at);
        match self.anchors.get(&id) {
            Some(node) => {
                let node = node.used_at(span);
                self.add(node);
            }
            None => {
                let message = match self.open_anchors.contains_key(&id) {
                    true => "this alias refers to a node that contains it",
                    false => "this alias refers to nothing",
                };
                self.diagnostics
                    .push(Diagnostic::error("yaml::recursive-alias", message).at(&span, ""));
                self.add(Node::scalar("", ScalarStyle::Plain, span));
            }
        }
    }

    /// Adds a complete node to the collection that is being read, and checks the limits.
    fn add(&mut self, node: Node) {
        let weight = node.weight();
        let limits = self.options.limits;
        if weight.nodes > limits.nodes || weight.bytes > limits.expanded_bytes {
            let message = match weight.nodes > limits.nodes {
                true => format!("with all aliases expanded, this has more than {} nodes", limits.nodes),
                false => format!(
                    "with all aliases expanded, this has more than {} bytes",
                    limits.expanded_bytes
                ),
            };
            self.diagnostics.push(
                Diagnostic::error("yaml::too-large", message)
                    .at(node.span(), "the limit is exceeded here")
                    .hint(
                        "nested aliases multiply: ten aliases on each level make the text ten times as large per level",
                    ),
            );
            self.refused = true;
            return;
        }
        if self.stack.len() as u32 + weight.depth > limits.depth {
            self.too_deep(node.span());
            return;
        }
        match self.stack.last_mut().map(|frame| &mut frame.content) {
            None => self.root = Some(node),
            Some(Content::Sequence(items)) => items.push(node),
            Some(Content::Mapping { entries, key }) => match key.take() {
                None => *key = Some(node),
                Some(key) => entries.push((key, node)),
            },
        }
    }

    /// Applies merges. A key that is written in the map itself wins, then the first merged map that has it. A key stays at
    /// the position of its first appearance, as in the YAML 1.1 loader that CircleCI uses.
    fn mapping(&mut self, pairs: Vec<(Node, Node)>) -> Mapping {
        let mut mapping = Mapping::default();
        let mut written = 0u64;
        for (key, value) in pairs {
            let Some(scalar) = key.as_scalar() else {
                self.diagnostics.push(
                    Diagnostic::error("yaml::complex-key", format!("a key must be text, not {}", key.kind()))
                        .at(key.span(), "")
                        .hint("put text that starts with `{` or `[` in quotes"),
                );
                continue;
            };
            self.check_indentation(scalar, &key);
            if self.options.merge && scalar.style == ScalarStyle::Plain && &*scalar.text == "<<" {
                self.merge(&mut mapping, &key, &value, &mut written);
                if self.refused {
                    return mapping;
                }
                continue;
            }
            let entry = Entry {
                key: Key {
                    text: scalar.text.clone(),
                    span: key.span().clone(),
                },
                value,
                merged_at: None,
            };
            let span = entry.key.span.clone();
            if let Some(replaced) = mapping.insert(entry)
                && replaced.merged_at.is_none()
            {
                let message = format!(
                    "`{}` is written twice in one map; the last one counts",
                    replaced.key.text
                );
                let diagnostic = match self.options.duplicate_keys {
                    DuplicateKeys::Warn => Diagnostic::warning("yaml::duplicate-key", message),
                    DuplicateKeys::Refuse => Diagnostic::error("yaml::duplicate-key", message),
                };
                self.diagnostics
                    .push(diagnostic.at(&span, "").also(&replaced.key.span, "written here first"));
            }
        }
        mapping
    }

    /// Other blanks than spaces look like indentation and are none: the key has them in its name.
    fn check_indentation(&mut self, key: &Scalar, node: &Node) {
        let blank = key
            .text
            .chars()
            .next()
            .filter(|first| first.is_whitespace() && !first.is_ascii());
        let Some(blank) = blank.filter(|_| key.style == ScalarStyle::Plain) else {
            return;
        };
        let name = match blank {
            '\u{a0}' => "a no-break space",
            '\u{3000}' => "an ideographic space",
            _ => "a blank",
        };
        let message = format!(
            "`{}` is indented with {name} (U+{:04X}), which YAML takes for a part of the key",
            key.text.trim(),
            u32::from(blank)
        );
        self.diagnostics.push(
            Diagnostic::error("yaml::indentation", message)
                .at(node.span(), "")
                .hint("replace it with spaces"),
        );
    }

    fn merge(&mut self, mapping: &mut Mapping, key: &Node, value: &Node, written: &mut u64) {
        let sources: Vec<&Node> = match value.value() {
            Value::Sequence(items) => items.iter().collect(),
            _ => vec![value],
        };
        for source in sources {
            let Some(merged) = source.as_mapping() else {
                if !source.is_null() {
                    self.diagnostics.push(
                        Diagnostic::error(
                            "yaml::bad-merge",
                            format!("`<<` can only merge maps, not {}", source.kind()),
                        )
                        .at(source.span(), ""),
                    );
                }
                continue;
            };
            *written += merged.len() as u64;
            if *written > self.options.limits.nodes {
                let message = format!("this map merges more than {} entries", self.options.limits.nodes);
                self.diagnostics
                    .push(Diagnostic::error("yaml::too-large", message).at(key.span(), ""));
                self.refused = true;
                return;
            }
            for entry in merged {
                if !mapping.contains(&entry.key.text) {
                    mapping.insert(Entry {
                        key: entry.key.clone(),
                        value: entry.value.clone(),
                        merged_at: Some(source.span().clone()),
                    });
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::scalar::ScalarRules;

    fn read(text: &str) -> (Vec<Node>, Vec<Diagnostic>) {
        parse(&SourceFile::new("test.yml", text), &ParseOptions::default())
    }

    fn check(text: &str, expect: &str) {
        let (documents, diagnostics) = read(text);
        let mut found: Vec<String> = documents
            .iter()
            .map(|document| document.to_json(ScalarRules::CircleCi).to_string())
            .collect();
        found.extend(diagnostics.iter().map(|diagnostic| {
            let place = diagnostic
                .primary
                .as_ref()
                .map(|label| label.span.place().to_string())
                .unwrap_or_default();
            format!("{} {place}", diagnostic.code)
        }));
        assert_eq!(found.join("\n"), expect, "{text}");
    }

    #[test]
    fn merges_anchors_and_aliases_follow_yaml_1_1() {
        check(
            "a: &x {p: 1, q: 2}\nb: {<<: *x, q: 3}",
            r#"{"a":{"p":1,"q":2},"b":{"p":1,"q":3}}"#,
        );
        check(
            "a: &x {p: 1}\nb: &y {p: 2, q: 2}\nc: {<<: [*x, *y]}",
            r#"{"a":{"p":1},"b":{"p":2,"q":2},"c":{"p":1,"q":2}}"#,
        );
        check(
            "a: &x {p: 1}\nb: &y {q: 2}\nc:\n  <<: *x\n  <<: *y",
            r#"{"a":{"p":1},"b":{"q":2},"c":{"p":1,"q":2}}"#,
        );
        check("a: &x 1\nb: &x 2\nc: *x", r#"{"a":1,"b":2,"c":2}"#);
        check("a: {'<<': 1}", r#"{"a":{"<<":1}}"#);
        check("a:\r\n  b: on\r\n", r#"{"a":{"b":true}}"#);
        check("a: << parameters.x >>", r#"{"a":"<< parameters.x >>"}"#);
        check("a: 1\n---\nb: 2\n---\n", "{\"a\":1}\n{\"b\":2}");
        check("a: !!str 1", r#"{"a":"1"}"#);
        check("a: !!int \"1\"", r#"{"a":1}"#);
        check("a: !!bool 'yes'", r#"{"a":true}"#);
        check("a: !!float 1", r#"{"a":1.0}"#);
        check("1: a\n? b\n: c", r#"{"1":"a","b":"c"}"#);
    }

    #[test]
    fn a_block_at_the_end_of_a_file_has_the_breaks_that_are_written() {
        // The results are those of libyaml, which go-yaml is a port of.
        for (text, expect) in [
            ("a: |\n  make", "make"),
            ("a: |\n  make\n", "make\n"),
            ("a: |\r\n  make\r\n", "make\n"),
            ("a: |\n  make\n ", "make\n"),
            ("a: |\n  make\n  ", "make\n"),
            ("a: |\n  make\n    ", "make\n  "),
            ("a: |\n  make\n    \n  ", "make\n  \n"),
            ("a: >\n  make\n  all\n  ", "make all\n"),
            ("a: >\n  make\n  all", "make all"),
            ("a: >-\n  make\n ", "make"),
            ("a: |+\n  make\n\n  ", "make\n\n"),
            ("a: >+\n  make\n  ", "make\n"),
            ("a: >+\n  make\n\n   ", "make\n\n "),
            ("a: |2\n    make\n  ", "  make\n"),
            ("a: |2\n   ", " "),
            ("a: |+\n  ", ""),
            ("a: |+\n\n ", "\n"),
            ("a: |+\r\n\r\n ", "\n"),
            ("|\n make\n ", "make\n"),
            ("a:\n- |\n  make\n  ", "make\n"),
        ] {
            let (documents, diagnostics) = read(text);
            assert!(diagnostics.is_empty(), "{text:?}");
            let node = documents[0].get("a").unwrap_or(&documents[0]);
            let node = node.as_sequence().map_or(node, |items| &items[0]);
            assert_eq!(&*node.as_scalar().unwrap().text, expect, "{text:?}");
        }
    }

    #[test]
    fn diagnostics_have_a_code_and_a_place() {
        check("a: 1\na: 2", "{\"a\":2}\nyaml::duplicate-key test.yml:2:1");
        check("a: *x", "{\"a\":null}\nyaml::unknown-anchor test.yml:1:4");
        check("a: &x [*x]", "{\"a\":[null]}\nyaml::recursive-alias test.yml:1:8");
        check("<<: 3", "{}\nyaml::bad-merge test.yml:1:5");
        check("{a: 1}: 2", "{}\nyaml::complex-key test.yml:1:1");
        check("a: [1", "yaml::syntax test.yml:1:4");
        check(
            "jobs:\n\u{a0}\u{a0}t:\n",
            "{\"jobs\":null,\"\u{a0}\u{a0}t\":null}\nyaml::indentation test.yml:2:1",
        );
        check("'\u{a0}a': 1\nb\u{a0}c: 2", "{\"\u{a0}a\":1,\"b\u{a0}c\":2}");
    }

    #[test]
    fn merged_entries_and_aliases_know_both_places() {
        let (documents, _) = read("a: &x\n  p: 1\nb:\n  <<: *x\n");
        let entry = documents[0]
            .get("b")
            .unwrap()
            .as_mapping()
            .unwrap()
            .entry("p")
            .unwrap()
            .clone();
        assert_eq!(entry.merged_at.unwrap().place().to_string(), "test.yml:4:7");
        assert_eq!(entry.key.span.place().to_string(), "test.yml:2:3");
        assert_eq!(documents[0].get("a").unwrap().anchor(), Some("x"));
        let (documents, _) = read("a: &x 1\nb: *x\n");
        let node = documents[0].get("b").unwrap();
        assert_eq!((node.span().place().line, node.origin().place().line), (2, 1));
    }

    #[test]
    fn texts_beyond_a_limit_are_refused() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let previous = level - 1;
            text += &format!(
                "a{level}: &a{level} [{}]\n",
                vec![format!("*a{previous}"); 10].join(", ")
            );
        }
        let (documents, diagnostics) = read(&text);
        assert!(documents.is_empty());
        assert_eq!(diagnostics[0].code, "yaml::too-large");
        assert!(
            diagnostics[0].message.contains("2000000 nodes"),
            "{}",
            diagnostics[0].message
        );

        for (open, close) in [("[", "]"), ("{a: ", "}"), ("- ", "")] {
            let (documents, diagnostics) = read(&(open.repeat(100_000) + &close.repeat(100_000)));
            assert!(documents.is_empty() && !diagnostics.is_empty(), "{open}");
        }
        let mut chain = String::from("a0: &a0 [x]\n");
        for level in 1..400 {
            chain += &format!("a{level}: &a{level} [*a{}]\n", level - 1);
        }
        assert_eq!(read(&chain).1[0].code, "yaml::too-deep");
    }

    #[test]
    fn a_byte_order_mark_may_be_behind_the_marker_of_a_document() {
        check(
            "\u{feff}a: 1\n---\n\u{feff}b: 2\nc: 3\n",
            "{\"a\":1}\n{\"b\":2,\"c\":3}",
        );
        check("---  # one\r\n\u{feff}---\r\n\u{feff}b: 2\r\n", "{\"b\":2}");
        let (documents, _) = read("---\n\u{feff}b: ä\nc: 3\n");
        let third = documents[0].get("c").map(|node| node.span().place().to_string());
        assert_eq!(third.as_deref(), Some("test.yml:3:4"));
        // In a text it is the text's.
        check("a: |\n  ---\n  \u{feff}b\n", "{\"a\":\"---\\n\u{feff}b\\n\"}");
    }
}
