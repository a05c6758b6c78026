//! Diagnostics: what is wrong in a file, where, and what to do about it.

use std::borrow::Cow;

use serde_json::{Value as Json, json};

use crate::source::Span;
use crate::stored::{Excerpt, Severity, StoredDiagnostic, WIDTH};
use towpath_types::visible_name;

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

    /// The diagnostic without its files.
    pub fn stored(&self) -> StoredDiagnostic {
        let excerpt = |label: &Label| excerpt(label, self.concealed);
        StoredDiagnostic {
            code: self.code.to_owned(),
            severity: self.severity,
            message: self.message.clone(),
            context: self.context.clone(),
            primary: self.primary.as_ref().map(excerpt),
            secondary: self.secondary.iter().map(excerpt).collect(),
            hint: self.hint.clone(),
        }
    }

    /// Formats the diagnostic as [`StoredDiagnostic::render`] does.
    pub fn render(&self, colour: bool) -> String {
        self.stored().render(colour)
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

/// The part of a line that fits around the label. If it is concealed, the text ends where the label begins.
fn excerpt(label: &Label, concealed: bool) -> Excerpt {
    let place = label.span.place();
    let text: Vec<char> = label
        .span
        .source()
        .line(place.line)
        .chars()
        .map(|character| if is_seen(character) { character } else { ' ' })
        .collect();
    let start = place.column.saturating_sub(1) as usize;
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
    let (text, length) = match concealed {
        true => (window.chars().take(indent).chain("…".chars()).collect(), 1),
        false => (
            window.trim_end().to_owned(),
            covered.min(WIDTH.saturating_sub(indent).max(1)),
        ),
    };
    Excerpt {
        file: place.file.to_string(),
        line: place.line,
        column: place.column,
        text,
        indent,
        length,
        note: label.message.to_string(),
    }
}

/// Whether a character of the source may be printed as it is.
fn is_seen(character: char) -> bool {
    let mut buffer = [0; 4];
    matches!(visible_name(character.encode_utf8(&mut buffer)), Cow::Borrowed(_))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{ParseOptions, SourceFile, parse};

    #[test]
    fn a_diagnostic_cannot_be_made_to_show_another_one() {
        let name = "a.yml\n\nerror[x]: forged\u{1b}[2J";
        let file = SourceFile::new(name, "job\u{202e}: 1\n");
        let (documents, _) = parse(&file, &ParseOptions::default());
        let key = documents[0]
            .as_mapping()
            .unwrap()
            .iter()
            .next()
            .unwrap()
            .key
            .span
            .clone();
        let forged = "x\nerror[x]: forged\u{1b}[2J";
        let shown = Diagnostic::error("config::x", forged)
            .at(&key, forged)
            .in_context(vec![forged.into()])
            .hint(forged)
            .render(false);
        assert!(!shown.chars().any(|c| c != '\n' && !is_seen(c)), "{shown:?}");
        let begins = |line: &str| line.starts_with("error[x]") || line.starts_with("forged");
        assert!(!shown.lines().any(begins), "{shown}");
    }

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
