//! Source texts, spans in them, and places for people.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A text with a name, able to turn byte offsets into lines and columns.
#[derive(PartialEq, Eq)]
pub struct SourceFile {
    name: Arc<str>,
    text: Box<str>,
    line_starts: Vec<u32>,
}

impl SourceFile {
    /// Wraps `text`; `name` is what diagnostics print (usually a path relative to the repository).
    ///
    /// Offsets are 32 bits wide: a text past 4 GiB is refused by [`crate::parse`] long before they would not suffice.
    pub fn new(name: impl Into<Arc<str>>, text: impl Into<Box<str>>) -> Arc<SourceFile> {
        let text: Box<str> = text.into();
        let mut line_starts = vec![0];
        line_starts.extend(
            text.bytes()
                .enumerate()
                .filter(|(_, byte)| *byte == b'\n')
                .map(|(at, _)| u32::try_from(at + 1).unwrap_or(u32::MAX)),
        );
        Arc::new(SourceFile {
            name: name.into(),
            text,
            line_starts,
        })
    }

    /// The name that was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name, shared.
    pub(crate) fn shared_name(&self) -> Arc<str> {
        self.name.clone()
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Line and column (both from 1; the column counts characters) of a byte offset.
    pub fn line_column(&self, offset: usize) -> (u32, u32) {
        let offset = self.floor(offset);
        let line = self
            .line_starts
            .partition_point(|start| *start as usize <= offset)
            .max(1)
            - 1;
        let start = self.line_starts[line] as usize;
        let column = self.text[start..offset].chars().count();
        (line as u32 + 1, column as u32 + 1)
    }

    /// The text of a line (from 1), without its line break; empty past the end.
    pub fn line(&self, line: u32) -> &str {
        let index = line.saturating_sub(1) as usize;
        let Some(start) = self.line_starts.get(index) else {
            return "";
        };
        let end = self
            .line_starts
            .get(index + 1)
            .map_or(self.text.len(), |next| *next as usize);
        self.text[*start as usize..end].trim_end_matches(['\n', '\r'])
    }

    fn floor(&self, offset: usize) -> usize {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        offset
    }
}

impl fmt::Debug for SourceFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SourceFile({}, {} bytes)", self.name, self.text.len())
    }
}

/// A range of bytes in a source file.
#[derive(Clone, PartialEq, Eq)]
pub struct Span {
    source: Arc<SourceFile>,
    start: u32,
    end: u32,
}

impl Span {
    /// The bytes `range` of `source`.
    pub fn new(source: &Arc<SourceFile>, range: Range<usize>) -> Span {
        let start = source.floor(range.start);
        let end = source.floor(range.end).max(start);
        let narrow = |offset: usize| u32::try_from(offset).unwrap_or(u32::MAX);
        Span {
            source: source.clone(),
            start: narrow(start),
            end: narrow(end),
        }
    }

    /// The file it is in.
    pub fn source(&self) -> &Arc<SourceFile> {
        &self.source
    }

    /// The bytes it covers.
    pub fn range(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// The text it covers.
    pub fn text(&self) -> &str {
        &self.source.text[self.range()]
    }

    /// File, line and column of its first byte.
    pub fn place(&self) -> Place {
        let (line, column) = self.source.line_column(self.start as usize);
        Place {
            file: self.source.shared_name(),
            line,
            column,
        }
    }

    /// A part of it: `range` counts from its start.
    pub fn within(&self, range: Range<usize>) -> Span {
        let start = self.start as usize;
        Span::new(
            &self.source,
            (start + range.start).min(self.end as usize)..(start + range.end).min(self.end as usize),
        )
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.place())
    }
}

/// Where something was written: file, line and column (both from 1).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The name of the source file.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}:{}", self.file, self.line, self.column)
    }
}
