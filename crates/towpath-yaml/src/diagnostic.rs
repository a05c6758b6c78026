//! Diagnostics: what is wrong in a file, where, and what to do about it.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::Serialize;
use serde_json::{Value as Json, json};

use crate::source::Span;

/// How serious a diagnostic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// The file can be used, but may not do what its author expects.
    Warning,
}

impl Severity {
    /// `error` or `warning`.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

/// A span with a short note, which may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Label {
    pub span: Span,
    pub message: Cow<'static, str>,
}

/// One finding about a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// A stable code: `config::unknown-parameter`.
    pub code: &'static str,
    /// Whether the file can be used anyway.
    pub severity: Severity,
    /// What is wrong, in one sentence. Where CircleCI reports the same mistake, this is CircleCI's sentence.
    pub message: String,
    /// The calls that lead there, outermost first: `Error calling workflow: 'w'`.
    pub context: Vec<String>,
    /// Where the mistake takes effect.
    pub primary: Option<Label>,
    /// Related places: where the value was written, declared, or first given.
    pub secondary: Vec<Label>,
    /// What to do about it.
    pub hint: Option<String>,
    /// Whether the text at the primary place is a secret that must not be shown.
    pub concealed: bool,
}

impl Diagnostic {
    /// Creates an error.
    pub fn error(code: &'static str, message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(code, Severity::Error, message.into())
    }

    /// Creates a warning.
    pub fn warning(code: &'static str, message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(code, Severity::Warning, message.into())
    }

    fn new(code: &'static str, severity: Severity, message: String) -> Diagnostic {
        Diagnostic {
            code,
            severity,
            message,
            context: Vec::new(),
            primary: None,
            secondary: Vec::new(),
            hint: None,
            concealed: false,
        }
    }

    /// Sets the primary place, and the note under its carets.
    #[must_use]
    pub fn at(mut self, span: &Span, label: impl Into<Cow<'static, str>>) -> Diagnostic {
        self.primary = Some(Label {
            span: span.clone(),
            message: label.into(),
        });
        self
    }

    /// Adds a related place, unless it is the primary one.
    #[must_use]
    pub fn also(mut self, span: &Span, label: impl Into<Cow<'static, str>>) -> Diagnostic {
        let same = self.primary.as_ref().is_some_and(|primary| primary.span == *span);
        if !same {
            self.secondary.push(Label {
                span: span.clone(),
                message: label.into(),
            });
        }
        self
    }

    /// Sets the hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Diagnostic {
        self.hint = Some(hint.into());
        self
    }

    /// Hides the text at the primary place.
    #[must_use]
    pub fn concealed(mut self) -> Diagnostic {
        self.concealed = true;
        self
    }

    /// Sets the calls that lead to the primary place.
    #[must_use]
    pub fn in_context(mut self, context: Vec<String>) -> Diagnostic {
        self.context = context;
        self
    }

    /// Whether the severity is [`Severity::Error`].
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// The context and the message, one per line, as CircleCI's API returns them.
    pub fn full_message(&self) -> String {
        let mut lines = self.context.clone();
        lines.push(self.message.clone());
        lines.join("\n")
    }

    /// Formats the diagnostic as rustc does, with excerpts of the source. Ends with a line break.
    pub fn render(&self, colour: bool) -> String {
        let mut out = String::new();
        let paint = |code: &'static str, text: &str| match colour {
            true => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            false => text.to_owned(),
        };
        let tone = match self.severity {
            Severity::Error => "1;31",
            Severity::Warning => "1;33",
        };
        let head = format!("{}[{}]", self.severity.as_str(), self.code);
        let mut message = self.message.lines();
        let _ = writeln!(out, "{}: {}", paint(tone, &head), message.next().unwrap_or_default());
        for line in message {
            let _ = writeln!(out, "  {line}");
        }
        let labels: Vec<(&Label, bool)> = self
            .primary
            .iter()
            .map(|label| (label, true))
            .chain(self.secondary.iter().map(|label| (label, false)))
            .collect();
        let width = labels
            .iter()
            .map(|(label, _)| label.span.place().line.to_string().len())
            .max()
            .unwrap_or(1);
        let gutter = " ".repeat(width);
        // Group the labels by file, and sort those of one file by position.
        let mut files: Vec<&std::sync::Arc<crate::source::SourceFile>> = Vec::new();
        for (label, _) in &labels {
            if !files
                .iter()
                .any(|file| std::sync::Arc::ptr_eq(file, label.span.source()))
            {
                files.push(label.span.source());
            }
        }
        for (index, file) in files.iter().enumerate() {
            let mut here: Vec<_> = labels
                .iter()
                .filter(|(label, _)| std::sync::Arc::ptr_eq(file, label.span.source()))
                .collect();
            let arrow = if index == 0 { "-->" } else { ":::" };
            let _ = writeln!(out, "{gutter}{} {}", paint("34", arrow), here[0].0.span.place());
            let _ = writeln!(out, "{gutter} {}", paint("34", "|"));
            here.sort_by_key(|(label, _)| label.span.range().start);
            let mut last: Option<u32> = None;
            for (label, primary) in here {
                let place = label.span.place();
                if last.is_some_and(|last| place.line > last + 1) {
                    let _ = writeln!(out, "{}", paint("34", "..."));
                }
                let (mut text, start, length) = excerpt(label, place.line, place.column);
                if self.concealed {
                    text = text.chars().take(start).chain("…".chars()).collect();
                }
                if last != Some(place.line) {
                    let _ = writeln!(
                        out,
                        "{} {} {text}",
                        paint("34", &format!("{:>width$}", place.line)),
                        paint("34", "|")
                    );
                }
                last = Some(place.line);
                let length = if self.concealed { 1 } else { length };
                let mark = if *primary { "^" } else { "-" }.repeat(length);
                let words = if label.message.is_empty() {
                    String::new()
                } else {
                    format!(" {}", label.message)
                };
                let line = format!("{}{}", mark, words);
                let line = paint(if *primary { tone } else { "34" }, &line);
                let _ = writeln!(out, "{gutter} {} {}{line}", paint("34", "|"), " ".repeat(start));
            }
        }
        for line in &self.context {
            let _ = writeln!(out, "{gutter} {} {line}", paint("34", "="));
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(out, "{}: {hint}", paint("1;36", "hint"));
        }
        out
    }

    /// Formats the diagnostic as JSON: `{code, severity, message, context, primary, secondary, hint}`.
    pub fn to_json(&self) -> Json {
        let label = |label: &Label| {
            let place = label.span.place();
            let (end_line, end_column) = label.span.source().line_column(label.span.range().end);
            json!({
                "file": place.file, "line": place.line, "column": place.column,
                "end_line": end_line, "end_column": end_column, "message": label.message,
            })
        };
        json!({
            "code": self.code,
            "severity": self.severity.as_str(),
            "message": self.message,
            "context": self.context,
            "primary": self.primary.as_ref().map(label),
            "secondary": self.secondary.iter().map(label).collect::<Vec<_>>(),
            "hint": self.hint,
        })
    }
}

/// Formats several diagnostics, separated by blank lines.
pub fn render_all(diagnostics: &[Diagnostic], colour: bool) -> String {
    diagnostics
        .iter()
        .map(|diagnostic| diagnostic.render(colour))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The part of a line that fits around the label, the first column to mark (from 0), and the number of columns to mark.
fn excerpt(label: &Label, line: u32, column: u32) -> (String, usize, usize) {
    const WIDTH: usize = 160;
    let text: Vec<char> = label
        .span
        .source()
        .line(line)
        .chars()
        .map(|character| if character.is_control() { ' ' } else { character })
        .collect();
    let start = column.saturating_sub(1) as usize;
    let covered = label
        .span
        .text()
        .split(['\n', '\r'])
        .next()
        .unwrap_or_default()
        .trim_end()
        .chars()
        .count()
        .max(1);
    let first = if start > WIDTH * 3 / 4 { start - WIDTH / 4 } else { 0 };
    let window: String = text.iter().skip(first).take(WIDTH).collect();
    let indent = start - first;
    let length = covered.min(WIDTH.saturating_sub(indent).max(1));
    (window.trim_end().to_owned(), indent, length)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{ParseOptions, SourceFile, parse};

    #[test]
    fn render_shows_the_use_and_the_origin() {
        let text = "ecr: &ecr\n  repo-nam: app\njob:\n  <<: *ecr\n";
        let (documents, _) = parse(&SourceFile::new("config.yml", text), &ParseOptions::default());
        let entry = documents[0]
            .get("job")
            .unwrap()
            .as_mapping()
            .unwrap()
            .entry("repo-nam")
            .unwrap()
            .clone();
        let diagnostic = Diagnostic::error("config::unknown-parameter", "`build` has no parameter `repo-nam`")
            .at(&entry.merged_at.unwrap(), "merged here")
            .also(&entry.key.span, "written here, under `&ecr`")
            .hint("did you mean `repo`?");
        assert_eq!(
            diagnostic.render(false),
            "error[config::unknown-parameter]: `build` has no parameter `repo-nam`
 --> config.yml:4:7
  |
2 |   repo-nam: app
  |   -------- written here, under `&ecr`
...
4 |   <<: *ecr
  |       ^^^^ merged here
hint: did you mean `repo`?
"
        );
        let json = diagnostic.to_json();
        assert_eq!(json["primary"]["line"], 4);
        assert_eq!(json["secondary"][0]["end_column"], 11);
    }
}
