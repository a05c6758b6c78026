//! Diagnostics without the files that they are about: what is stored, sent and rendered.
//!
//! The stored form is `{"version": 1, "diagnostics": [{"code": …, "severity": "error", "message": …, "primary": {…}}]}`.
//!
//! - **Invariant:** Towpath can always read every version ever written. Adding an optional field is allowed; anything else needs
//!   a new version.
//! - **Invariant:** it holds of a file only the lines that it shows, and nothing of a secret that the diagnostic conceals.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use towpath_types::{visible, visible_name};

/// The version to write.
const VERSION: u32 = 1;
/// How many characters of a line an excerpt shows.
pub(crate) const WIDTH: usize = 160;

/// How serious a diagnostic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
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

/// Part of a line of a file, with a mark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excerpt {
    /// The name of the file.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// The column of the mark in the line, from 1; it counts characters.
    pub column: u32,
    /// The part of the line that is shown, without control characters.
    pub text: String,
    /// How many characters of `text` are before the mark.
    pub indent: usize,
    /// How many characters are marked.
    pub length: usize,
    /// The note at the mark; may be empty.
    #[serde(default)]
    pub note: String,
}

/// A diagnostic that needs no files any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredDiagnostic {
    /// A stable code: `config::unknown-parameter`.
    pub code: String,
    /// Whether the file can be used anyway.
    pub severity: Severity,
    /// What is wrong, in one sentence.
    pub message: String,
    /// The calls that lead there, outermost first.
    #[serde(default)]
    pub context: Vec<String>,
    /// Where the mistake takes effect.
    #[serde(default)]
    pub primary: Option<Excerpt>,
    /// Related places.
    #[serde(default)]
    pub secondary: Vec<Excerpt>,
    /// What to do about it.
    #[serde(default)]
    pub hint: Option<String>,
}

impl StoredDiagnostic {
    /// Whether the severity is [`Severity::Error`].
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// The context and the message, one per line, and after them the place: what CircleCI's API returns.
    pub fn message_with_place(&self) -> String {
        let lines = self.context.iter().chain(std::iter::once(&self.message));
        let text = lines.map(String::as_str).collect::<Vec<_>>().join("\n");
        match &self.primary {
            Some(at) => format!("{text} ({}:{}:{})", at.file, at.line, at.column),
            None => text,
        }
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
        let message = visible(&self.message);
        let mut message = message.lines();
        let _ = writeln!(out, "{}: {}", paint(tone, &head), message.next().unwrap_or_default());
        for line in message {
            let _ = writeln!(out, "  {line}");
        }
        let excerpts: Vec<(&Excerpt, bool)> = self
            .primary
            .iter()
            .map(|excerpt| (excerpt, true))
            .chain(self.secondary.iter().map(|excerpt| (excerpt, false)))
            .collect();
        let width = excerpts
            .iter()
            .map(|(excerpt, _)| excerpt.line.to_string().len())
            .max()
            .unwrap_or(1);
        let gutter = " ".repeat(width);
        // Group the excerpts by file, and sort those of one file by position.
        let mut files: Vec<&str> = Vec::new();
        for (excerpt, _) in &excerpts {
            if !files.contains(&excerpt.file.as_str()) {
                files.push(&excerpt.file);
            }
        }
        for (index, file) in files.iter().enumerate() {
            let mut here: Vec<_> = excerpts.iter().filter(|(excerpt, _)| excerpt.file == *file).collect();
            let arrow = if index == 0 { "-->" } else { ":::" };
            let first = here[0].0;
            let place = format!("{}:{}:{}", visible_name(file), first.line, first.column);
            let _ = writeln!(out, "{gutter}{} {place}", paint("34", arrow));
            let _ = writeln!(out, "{gutter} {}", paint("34", "|"));
            here.sort_by_key(|(excerpt, _)| (excerpt.line, excerpt.column));
            let mut last: Option<u32> = None;
            for (excerpt, primary) in here {
                if last.is_some_and(|last| excerpt.line > last.saturating_add(1)) {
                    let _ = writeln!(out, "{}", paint("34", "..."));
                }
                if last != Some(excerpt.line) {
                    let _ = writeln!(
                        out,
                        "{} {} {}",
                        paint("34", &format!("{:>width$}", excerpt.line)),
                        paint("34", "|"),
                        visible_name(&excerpt.text)
                    );
                }
                last = Some(excerpt.line);
                let mark = if *primary { "^" } else { "-" }.repeat(excerpt.length.min(WIDTH));
                let note = if excerpt.note.is_empty() {
                    String::new()
                } else {
                    format!(" {}", visible_name(&excerpt.note))
                };
                let line = paint(if *primary { tone } else { "34" }, &format!("{mark}{note}"));
                let indent = " ".repeat(excerpt.indent.min(WIDTH));
                let _ = writeln!(out, "{gutter} {} {indent}{line}", paint("34", "|"));
            }
        }
        for line in &self.context {
            let _ = writeln!(out, "{gutter} {} {}", paint("34", "="), visible_name(line));
        }
        if let Some(hint) = &self.hint {
            let hint = visible(hint).replace('\n', "\n  ");
            let _ = writeln!(out, "{}: {hint}", paint("1;36", "hint"));
        }
        out
    }
}

/// Why stored diagnostics cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StoredDiagnosticsError {
    /// A newer Towpath wrote them.
    #[error(
        "a newer Towpath stored these diagnostics (version {0}; this one reads up to version {VERSION}): use that one to see them"
    )]
    Version(u32),
    /// Towpath did not write them.
    #[error("what is stored is not a list of diagnostics")]
    Form(#[source] serde_json::Error),
}

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

#[derive(Deserialize)]
struct DiagnosticsV1 {
    diagnostics: Vec<StoredDiagnostic>,
}

/// Writes the stored form of a list of diagnostics.
#[must_use]
pub fn write_diagnostics(diagnostics: &[StoredDiagnostic]) -> Json {
    json!({ "version": VERSION, "diagnostics": diagnostics })
}

/// Reads what [`write_diagnostics`] wrote, in this or an earlier version.
///
/// # Errors
/// [`StoredDiagnosticsError`] when Towpath did not write it, or a newer Towpath did.
pub fn read_diagnostics(stored: &Json) -> Result<Vec<StoredDiagnostic>, StoredDiagnosticsError> {
    let Versioned { version } = Versioned::deserialize(stored).map_err(StoredDiagnosticsError::Form)?;
    match version {
        1 => {
            let DiagnosticsV1 { diagnostics } =
                DiagnosticsV1::deserialize(stored).map_err(StoredDiagnosticsError::Form)?;
            Ok(diagnostics)
        }
        other => Err(StoredDiagnosticsError::Version(other)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{Diagnostic, SourceFile};

    fn diagnostics() -> Vec<StoredDiagnostic> {
        let orb = SourceFile::new("acme/shop@1.0.0", "commands:\n  ship: {}\n");
        let config = SourceFile::new("config.yml", "jobs:\n  bad: {\u{1b}key: \"a\"}\n");
        let full = Diagnostic::error("config::key", "no such key\nsecond line")
            .at(&config.word_at(2, 9), "here")
            .also(&orb.word_at(2, 3), "called here")
            .in_context(vec!["Error calling job: 'bad'".into()])
            .hint("leave it out");
        [full, Diagnostic::warning("towpath::gate", "a gate was added")]
            .iter()
            .map(Diagnostic::stored)
            .collect()
    }

    #[test]
    fn version_1_is_read_for_ever() {
        let stored = json!({
            "version": 1,
            "diagnostics": [
                { "code": "towpath::gate", "severity": "warning", "message": "a gate was added" },
                {
                    "code": "config::key", "severity": "error", "message": "no such key", "context": ["in job 'bad'"],
                    "primary": { "file": "config.yml", "line": 12, "column": 3, "text": "  bad: {}", "indent": 2, "length": 3 },
                    "secondary": [],
                    "hint": "leave it out",
                },
            ],
        });
        let read = read_diagnostics(&stored).unwrap();
        assert_eq!(read[0].render(false), "warning[towpath::gate]: a gate was added\n");
        assert_eq!(
            read[1].render(false),
            "error[config::key]: no such key
  --> config.yml:12:3
   |
12 |   bad: {}
   |   ^^^
   = in job 'bad'
hint: leave it out
"
        );
        assert_eq!(
            read[1].message_with_place(),
            "in job 'bad'\nno such key (config.yml:12:3)"
        );
    }

    #[test]
    fn what_is_stored_is_read_back_and_rendered_alike() {
        let diagnostics = diagnostics();
        let text = write_diagnostics(&diagnostics).to_string();
        let read = read_diagnostics(&serde_json::from_str(&text).unwrap()).unwrap();
        assert_eq!(read, diagnostics);
        let rendered = read[0].render(false);
        assert!(
            rendered.contains(" --> config.yml:2:9\n") && rendered.contains(" ::: acme/shop@1.0.0:2:3\n"),
            "{rendered}"
        );
        assert!(!rendered.contains('\u{1b}'), "{rendered}");
        assert!(
            read[0]
                .render(true)
                .starts_with("\u{1b}[1;31merror[config::key]\u{1b}[0m: no such key\n  second line\n")
        );
    }

    #[test]
    fn a_newer_version_is_not_guessed_at() {
        let error = read_diagnostics(&json!({ "version": 2, "diagnostics": [] })).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a newer Towpath stored these diagnostics (version 2; this one reads up to version 1): use that one to see them"
        );
        for damaged in [
            json!({ "diagnostics": [] }),
            json!({ "version": 1 }),
            json!(["error"]),
            json!({ "version": 1, "diagnostics": [{ "code": "a", "severity": "fatal", "message": "b" }] }),
        ] {
            assert!(
                matches!(read_diagnostics(&damaged), Err(StoredDiagnosticsError::Form(_))),
                "{damaged}"
            );
        }
    }

    #[test]
    fn a_concealed_secret_is_not_stored() {
        let config = SourceFile::new("config.yml", "token: \"hunter2\"\n");
        let secret = Diagnostic::warning("lint::secret", "a token in plain text")
            .at(&config.word_at(1, 8), "")
            .concealed();
        let text = write_diagnostics(&[secret.stored()]).to_string();
        assert!(text.contains("token: …") && !text.contains("hunter"), "{text}");
    }
}
