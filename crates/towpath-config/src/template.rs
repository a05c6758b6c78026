//! Templates: tags, sections and escapes of `<< >>`.
//!
//! A section tag that is alone on its line removes the line, as in Mustache. A plain tag does not.
//!
//! Source: <https://circleci.com/docs/reference/configuration-reference/>, and the templates of published orbs for what that
//! page does not say.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use foldhash::HashMap;

use crate::expression::{self, ErrorKind, Expression};
use crate::value::Value;

/// A parsed text with tags.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    parts: Vec<Part>,
}

/// Templates by the address of their text. The text is kept so that its address is not reused.
pub(crate) type TemplateCache = HashMap<usize, (Arc<str>, Rc<Result<Template, TemplateError>>)>;

#[derive(Clone, Debug)]
enum Part {
    Text(String),
    Tag {
        expression: Expression,
        range: Range<usize>,
        body: usize,
    },
    Section {
        name: Arc<str>,
        inverted: bool,
        range: Range<usize>,
        parts: Vec<Part>,
    },
}

/// An error in a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TemplateError {
    pub(crate) message: String,
    /// The bytes of the text that are wrong.
    pub(crate) range: Range<usize>,
    pub(crate) hint: Option<&'static str>,
}

const UNCLOSED: &str = "Unclosed '<<' tag ('<<' must be escaped as '\\<<' in config v2.1+)";
const HEREDOC: &str = "write `\\<<EOF` for a here-document; the shell does not see the backslash";
const MAX_BODY: usize = 2048;
const MAX_SECTIONS: usize = 64;

/// Provides the values of the names in a template.
pub(crate) trait Lookup {
    /// The value of `name`, or `None` for an unknown name. `range` covers the tag in the text.
    fn lookup(&mut self, name: &str, range: &Range<usize>) -> Option<Value>;
}

struct Open {
    name: Arc<str>,
    inverted: bool,
    range: Range<usize>,
    parts: Vec<Part>,
}

/// Parses a template.
pub(crate) fn parse(text: &str) -> Result<Template, TemplateError> {
    let mut open: Vec<Open> = Vec::new();
    let mut parts: Vec<Part> = Vec::new();
    let mut literal = String::new();
    let mut at = 0;
    while let Some(found) = text[at..].find("<<") {
        let start = at + found;
        let before = &text[at..start];
        let slashes = before.len() - before.trim_end_matches('\\').len();
        if slashes == 1 {
            literal.push_str(&before[..before.len() - 1]);
            literal.push_str("<<");
            at = start + 2;
            continue;
        }
        literal.push_str(if slashes >= 2 {
            &before[..before.len() - 1]
        } else {
            before
        });
        let Some(length) = text[start + 2..].find(">>") else {
            return Err(TemplateError {
                message: UNCLOSED.to_owned(),
                range: start..start + 2,
                hint: Some(HEREDOC),
            });
        };
        let end = start + 2 + length + 2;
        let body = &text[start + 2..end - 2];
        let range = start..end;
        if body.len() >= MAX_BODY {
            let message = "Expressions must be less than 2048 characters".to_owned();
            return Err(TemplateError {
                message,
                range,
                hint: None,
            });
        }
        match body.as_bytes().first() {
            Some(kind @ (b'#' | b'^' | b'/')) => {
                let name = body[1..].trim();
                if !is_section_name(name) {
                    let message = "Expected valid identifier".to_owned();
                    return Err(TemplateError {
                        message,
                        range: start + 3..end - 2,
                        hint: None,
                    });
                }
                at = match standalone(text, &range) {
                    Some((blank, next)) => {
                        literal.truncate(literal.len() - blank);
                        next
                    }
                    None => end,
                };
                let current = open.last_mut().map_or(&mut parts, |open| &mut open.parts);
                push_text(current, &mut literal);
                if *kind == b'/' {
                    match open.pop() {
                        Some(section) if *section.name == *name => {
                            let part = Part::Section {
                                name: section.name,
                                inverted: section.inverted,
                                range: section.range,
                                parts: section.parts,
                            };
                            open.last_mut().map_or(&mut parts, |open| &mut open.parts).push(part);
                        }
                        _ => {
                            let message = "Expected section end tag to match start tag".to_owned();
                            return Err(TemplateError {
                                message,
                                range,
                                hint: None,
                            });
                        }
                    }
                } else {
                    if open.len() >= MAX_SECTIONS {
                        let message = format!("Sections are nested more than {MAX_SECTIONS} deep");
                        return Err(TemplateError {
                            message,
                            range,
                            hint: None,
                        });
                    }
                    open.push(Open {
                        name: name.into(),
                        inverted: *kind == b'^',
                        range,
                        parts: Vec::new(),
                    });
                }
            }
            _ => {
                let part = tag(text, range)?;
                let current = open.last_mut().map_or(&mut parts, |open| &mut open.parts);
                push_text(current, &mut literal);
                current.push(part);
                at = end;
            }
        }
    }
    literal.push_str(&text[at..]);
    if let Some(section) = open.last() {
        let message = "Unclosed section, expected '<</'".to_owned();
        return Err(TemplateError {
            message,
            range: section.range.clone(),
            hint: None,
        });
    }
    push_text(&mut parts, &mut literal);
    Ok(Template { parts })
}

fn push_text(parts: &mut Vec<Part>, literal: &mut String) {
    if !literal.is_empty() {
        parts.push(Part::Text(std::mem::take(literal)));
    }
}

/// If the tag is alone on its line: the number of blanks before it, and the offset of the next line.
fn standalone(text: &str, range: &Range<usize>) -> Option<(usize, usize)> {
    let before = &text[..range.start];
    let blanks = before.len() - before.trim_end_matches([' ', '\t']).len();
    let line_start = &before[..before.len() - blanks];
    if !(line_start.is_empty() || line_start.ends_with('\n')) {
        return None;
    }
    let after = &text[range.end..];
    let rest = after.trim_start_matches([' ', '\t']);
    let next = match rest.strip_prefix("\r\n").or_else(|| rest.strip_prefix('\n')) {
        Some(next) => next,
        None if rest.is_empty() && line_start.ends_with('\n') => rest,
        None => return None,
    };
    Some((blanks, text.len() - next.len()))
}

fn is_section_name(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(char::is_whitespace)
}

/// Whether a body that is no expression looks like a name. The names of parameters may contain colons, for example.
fn is_plain_name(body: &str) -> bool {
    let head = body.split('.').next().unwrap_or_default();
    let word = |character: char| character.is_ascii_alphanumeric() || character == '_' || character == '-';
    !head.is_empty()
        && head.chars().all(word)
        && !body.chars().any(char::is_whitespace)
        && !body.ends_with('.')
        && !body.contains("..")
}

fn tag(text: &str, range: Range<usize>) -> Result<Part, TemplateError> {
    let body = &text[range.start + 2..range.end - 2];
    if body.is_empty() {
        let message = "Expected expression after '<<'".to_owned();
        return Err(TemplateError {
            message,
            range: range.start..range.start + 2,
            hint: None,
        });
    }
    let offset = range.start + 2;
    match expression::parse(body) {
        Ok(expression) => Ok(Part::Tag {
            expression,
            range,
            body: offset,
        }),
        Err(_) if is_plain_name(body.trim()) => {
            let at = body.len() - body.trim_start().len();
            let expression = Expression::Name {
                name: body.trim().into(),
                at,
            };
            Ok(Part::Tag {
                expression,
                range,
                body: offset,
            })
        }
        Err(error) if body.contains('\n') && error.kind != ErrorKind::TooDeep => Err(TemplateError {
            message: UNCLOSED.to_owned(),
            range: range.start..range.start + 2,
            hint: Some(HEREDOC),
        }),
        Err(error) => {
            let hint = looks_like_a_here_document(body).then_some(HEREDOC);
            let start = offset + error.at;
            let range = if error.lexeme.is_empty() {
                offset..range.end - 2
            } else {
                start..start + error.lexeme.len()
            };
            Err(TemplateError {
                message: error.message(),
                range,
                hint,
            })
        }
    }
}

/// Whether `<<` was meant for the shell: `cat <<-'EOF' >> file`.
fn looks_like_a_here_document(body: &str) -> bool {
    let word = body.trim_start_matches(['-', '~', '<', ' ']);
    let word = word.trim_start_matches(['\'', '"', '\\']);
    let length = word
        .bytes()
        .take_while(|byte| byte.is_ascii_uppercase() || *byte == b'_')
        .count();
    length >= 2 || body.starts_with('<')
}

/// The result of rendering a template.
pub(crate) enum Rendered {
    /// The typed value of a template that is exactly one tag.
    Value(Value),
    /// The text of any other template.
    Text(String),
}

impl Template {
    /// Renders the template. A tag with an error counts as null, and the error is added to `errors`.
    pub(crate) fn render(&self, lookup: &mut dyn Lookup, errors: &mut Vec<TemplateError>) -> Rendered {
        if let [
            Part::Tag {
                expression,
                range,
                body,
            },
        ] = &self.parts[..]
        {
            return Rendered::Value(evaluate(expression, range, *body, lookup, errors));
        }
        let mut out = String::new();
        render(&self.parts, lookup, errors, &mut out);
        Rendered::Text(out)
    }
}

fn evaluate(
    expression: &Expression,
    range: &Range<usize>,
    body: usize,
    lookup: &mut dyn Lookup,
    errors: &mut Vec<TemplateError>,
) -> Value {
    match expression.evaluate(&mut |name| lookup.lookup(name, range)) {
        // An operation on null is false. A name alone may be null.
        Ok(Value::Null) if !matches!(expression, Expression::Name { .. } | Expression::Literal(_)) => {
            Value::Bool(false)
        }
        Ok(value) => value,
        // The lookup has already reported the unknown name.
        Err(error) if error.kind == ErrorKind::UnknownVariable => Value::Null,
        Err(error) => {
            let start = body + error.at;
            errors.push(TemplateError {
                message: error.message(),
                range: start..start + error.lexeme.len(),
                hint: None,
            });
            Value::Null
        }
    }
}

fn render(parts: &[Part], lookup: &mut dyn Lookup, errors: &mut Vec<TemplateError>, out: &mut String) {
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Tag {
                expression,
                range,
                body,
            } => evaluate(expression, range, *body, lookup, errors).interpolate(out),
            Part::Section {
                name,
                inverted,
                range,
                parts,
            } => {
                let value = lookup.lookup(name, range).unwrap_or(Value::Null);
                if value.truthy() != *inverted {
                    render(parts, lookup, errors, out);
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::Value as Json;
    use std::path::Path;

    struct Names<'a>(&'a [(&'a str, Value)]);

    impl Lookup for Names<'_> {
        fn lookup(&mut self, name: &str, _: &Range<usize>) -> Option<Value> {
            self.0
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| value.clone())
        }
    }

    fn render(text: &str, names: &[(&str, Value)]) -> Rendered {
        let mut errors = Vec::new();
        let rendered = parse(text).unwrap().render(&mut Names(names), &mut errors);
        assert_eq!(errors, []);
        rendered
    }

    #[test]
    fn a_single_tag_keeps_its_type_and_other_templates_are_text() {
        let names = [
            ("parameters.count", Value::Int(3)),
            ("parameters.on", Value::Bool(true)),
        ];
        let text = |text: &str| match render(text, &names) {
            Rendered::Text(text) => text,
            Rendered::Value(value) => format!("value {}", value.to_text()),
        };
        assert_eq!(text("<< parameters.count >>"), "value 3");
        assert_eq!(text("x<< parameters.count >>"), "x3");
        assert_eq!(text("cat \\<<EOF"), "cat <<EOF");
        assert_eq!(text("a\n<<# parameters.on >>\nb\n<</ parameters.on >>\nc"), "a\nb\nc");
        assert_eq!(text("<<^ parameters.on >>no<</ parameters.on >>yes"), "yes");
    }

    /// The cases of CircleCI's own tests, if they are beside the checkout.
    #[test]
    fn circlecis_own_cases_pass() {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus/circleci/oracle/templates/cases.json");
        let Ok(text) = std::fs::read_to_string(&path) else {
            println!("SKIPPED: there is no `{}`", path.display());
            return;
        };
        let cases: Json = serde_json::from_str(&text).unwrap();
        let (accepted, rejected) = (
            cases["accepted"].as_array().unwrap(),
            cases["rejected"].as_array().unwrap(),
        );
        for text in accepted {
            assert!(parse(text.as_str().unwrap()).is_ok(), "{text}");
        }
        for case in rejected {
            let text = case["text"].as_str().unwrap();
            let message = case["message"].as_str().unwrap();
            let error = parse(text).err().unwrap_or_else(|| panic!("{text} was accepted"));
            assert!(
                error.message.starts_with(message),
                "{text}: {} is not {message}",
                error.message
            );
        }
        for (text, whole) in cases["wholeValueTag"].as_object().unwrap() {
            let is_value = match parse(text) {
                Ok(template) => matches!(template.parts[..], [Part::Tag { .. }]),
                Err(_) => false,
            };
            assert_eq!(is_value, *whole, "{text}");
        }
        println!("templates: read {} cases", accepted.len() + rejected.len());
    }
}
