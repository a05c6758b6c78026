//! Source texts, byte ranges in them, and places as people write them.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use towpath_types::visible_name;

/// A named text that can turn byte offsets into lines and columns.
#[derive(PartialEq, Eq)]
pub struct SourceFile {
    name: Arc<str>,
    text: Box<str>,
    line_starts: Vec<u32>,
}

impl SourceFile {
    /// Wraps `text`. Diagnostics print `name`, which is usually a path relative to the repository.
    ///
    /// Offsets have 32 bits. [`crate::parse`] refuses texts long before that limit of 4 GiB.
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

    /// The name that diagnostics print.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn shared_name(&self) -> Arc<str> {
        self.name.clone()
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The line and the column of a byte offset. Both start at 1; the column counts characters.
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

    /// The text of a line (from 1) without its line break. Empty beyond the last line.
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

    /// The span of the word or the quoted text at a line and a column, both from 1. Empty beyond the end.
    ///
    /// Use it where only a [`Place`] was kept, such as in a compiled configuration.
    pub fn word_at(self: &Arc<SourceFile>, line: u32, column: u32) -> Span {
        let text = self.line(line);
        let skipped: usize = text
            .chars()
            .take(column.saturating_sub(1) as usize)
            .map(char::len_utf8)
            .sum();
        let start = match self.line_starts.get(line.saturating_sub(1) as usize) {
            Some(start) => *start as usize + skipped,
            None => self.text.len(),
        };
        let rest = &text[skipped..];
        let length = match rest.chars().next() {
            Some(quote @ ('"' | '\'')) => rest[1..].find(quote).map_or(rest.len(), |end| end + 2),
            Some(_) => rest
                .char_indices()
                .find(|(at, character)| match character {
                    ':' => rest[at + 1..].chars().next().is_none_or(|next| next.is_whitespace()),
                    character => {
                        character.is_whitespace() || (*at > 0 && matches!(character, ',' | '[' | ']' | '{' | '}'))
                    }
                })
                .map_or(rest.len(), |(at, _)| at),
            None => 0,
        };
        Span::new(self, start..start + length)
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

/// A byte range in a source file.
#[derive(Clone, PartialEq, Eq)]
pub struct Span {
    source: Arc<SourceFile>,
    start: u32,
    end: u32,
}

impl Span {
    /// Creates a span. The range is moved to character boundaries inside the text.
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

    /// The file that contains the span.
    pub fn source(&self) -> &Arc<SourceFile> {
        &self.source
    }

    /// The bytes that the span covers.
    pub fn range(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// The text that the span covers.
    pub fn text(&self) -> &str {
        &self.source.text[self.range()]
    }

    /// The place of the first byte.
    pub fn place(&self) -> Place {
        let (line, column) = self.source.line_column(self.start as usize);
        Place {
            file: self.source.shared_name(),
            line,
            column,
        }
    }

    /// A part of the span. `range` counts from the start of the span.
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

/// Where something was written. Prints as `file:line:column`.
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
        write!(formatter, "{}:{}:{}", visible_name(&self.file), self.line, self.column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_files_name_stays_in_its_line() {
        let place = Place {
            file: "a\nerror: all is well\u{1b}[2K.yml".into(),
            line: 1,
            column: 2,
        };
        assert_eq!(place.to_string(), "a\\u000aerror: all is well\\u001b[2K.yml:1:2");
    }

    #[test]
    fn a_word_is_found_by_its_place() {
        let file = SourceFile::new("c.yml", "steps:\n  - setup_remote_docker: {a: b}\n  - ü: \"x y\"\n");
        let check = |line: u32, column: u32, expect: &str| {
            let span = file.word_at(line, column);
            assert_eq!(span.text(), expect, "{line}:{column}");
        };
        check(1, 1, "steps");
        check(2, 5, "setup_remote_docker");
        check(2, 26, "{a");
        check(2, 27, "a");
        check(2, 30, "b");
        check(3, 5, "ü");
        check(3, 8, "\"x y\"");
        check(3, 99, "");
        check(9, 1, "");
    }
}
