//! Printing a value as YAML, the way `circleci config process` prints it.

use std::fmt::Write as _;

use serde_json::Value as Json;

use crate::scalar::{ScalarRules, Typed};

/// The value as a YAML document in block style, ending with a line break: lists not indented under their key, several lines
/// of text as a `|` block, quotes only where a reader of YAML 1.1 or 1.2 would otherwise see something else than text.
pub fn emit(value: &Json) -> String {
    let mut out = String::new();
    match value {
        Json::Object(map) if !map.is_empty() => mapping(&mut out, map, 0, false),
        Json::Array(items) if !items.is_empty() => sequence(&mut out, items, 0, false),
        value => {
            scalar(&mut out, value, 0);
            out.push('\n');
        }
    }
    out
}

fn indent(out: &mut String, columns: usize) {
    out.extend(std::iter::repeat_n(' ', columns));
}

/// `inline`: the first entry continues a line that was begun by `- `.
fn mapping(out: &mut String, map: &serde_json::Map<String, Json>, column: usize, inline: bool) {
    for (at, (key, value)) in map.iter().enumerate() {
        if at > 0 || !inline {
            indent(out, column);
        }
        text(out, key, column, true);
        out.push(':');
        match value {
            Json::Object(map) if !map.is_empty() => {
                out.push('\n');
                mapping(out, map, column + 2, false);
            }
            Json::Array(items) if !items.is_empty() => {
                out.push('\n');
                sequence(out, items, column, false);
            }
            value => {
                out.push(' ');
                scalar(out, value, column + 2);
                out.push('\n');
            }
        }
    }
}

fn sequence(out: &mut String, items: &[Json], column: usize, inline: bool) {
    for (at, item) in items.iter().enumerate() {
        if at > 0 || !inline {
            indent(out, column);
        }
        out.push_str("- ");
        match item {
            Json::Object(map) if !map.is_empty() => mapping(out, map, column + 2, true),
            Json::Array(items) if !items.is_empty() => sequence(out, items, column + 2, true),
            item => {
                scalar(out, item, column + 2);
                out.push('\n');
            }
        }
    }
}

fn scalar(out: &mut String, value: &Json, column: usize) {
    match value {
        Json::Null => out.push_str("null"),
        Json::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Json::Number(number) => {
            let _ = write!(out, "{number}");
        }
        Json::Array(_) => out.push_str("[]"),
        Json::Object(_) => out.push_str("{}"),
        Json::String(value) => text(out, value, column, false),
    }
}

fn text(out: &mut String, value: &str, column: usize, key: bool) {
    // A break inside a line that a reader would fold or drop needs escapes; so does anything that does not print.
    let unprintable = value.chars().any(|character| {
        (character.is_control() && character != '\n' && character != '\t')
            || matches!(character, '\u{feff}' | '\u{2028}' | '\u{2029}' | '\u{85}')
    });
    let lines = value.contains('\n');
    if unprintable || (key && lines) || (lines && !block_fits(value)) || (value.contains('\t') && !lines) {
        double_quoted(out, value);
    } else if lines {
        block(out, value, column);
    } else if plain_fits(value) {
        out.push_str(value);
    } else {
        out.push('\'');
        out.push_str(&value.replace('\'', "''"));
        out.push('\'');
    }
}

fn block_fits(value: &str) -> bool {
    // Lines of blanks at the start confuse the detection of the indentation even with an indicator.
    value.lines().next().is_some_and(|first| !first.trim().is_empty())
}

fn block(out: &mut String, value: &str, column: usize) {
    let body = value.trim_end_matches('\n');
    let breaks = value.len() - body.len();
    out.push('|');
    if value.starts_with([' ', '\t']) {
        out.push('2');
    }
    match breaks {
        0 => out.push('-'),
        1 => {}
        _ => out.push('+'),
    }
    for line in body.split('\n') {
        out.push('\n');
        if !line.is_empty() {
            indent(out, column.max(2));
            out.push_str(line);
        }
    }
    out.extend(std::iter::repeat_n('\n', breaks.saturating_sub(1)));
}

fn double_quoted(out: &mut String, value: &str) {
    out.push('"');
    for character in value.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            character if character.is_control() || matches!(character, '\u{feff}' | '\u{2028}' | '\u{2029}') => {
                let _ = match u32::from(character) {
                    code @ 0..=0xff => write!(out, "\\x{code:02X}"),
                    code => write!(out, "\\u{code:04X}"),
                };
            }
            character => out.push(character),
        }
    }
    out.push('"');
}

fn plain_fits(value: &str) -> bool {
    let Some(first) = value.chars().next() else {
        return false;
    };
    let second = value[first.len_utf8()..].chars().next();
    let starts_well = match first {
        '-' | '?' | ':' => second.is_some_and(|second| !second.is_whitespace()) && !value.starts_with("---"),
        ',' | '[' | ']' | '{' | '}' | '#' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`' | '=' => false,
        first => !first.is_whitespace(),
    };
    starts_well
        && !value.starts_with("...")
        && value != "<<"
        && !value.ends_with(|last: char| last.is_whitespace() || last == ':')
        && !value.contains(": ")
        && !value.contains(" #")
        && !matches!(value, "y" | "Y" | "n" | "N")
        && [ScalarRules::CircleCi, ScalarRules::Core12, ScalarRules::Kubernetes]
            .iter()
            .all(|rules| matches!(rules.resolve(value), Typed::Text(_)))
        && !looks_like_time(value)
}

/// What YAML 1.1 reads as a date or a number to the base 60.
fn looks_like_time(value: &str) -> bool {
    let bytes = value.as_bytes();
    let date = bytes.len() >= 8
        && bytes[..4].iter().all(u8::is_ascii_digit)
        && bytes[4] == b'-'
        && bytes[5..]
            .iter()
            .all(|byte| byte.is_ascii_digit() || b"-:. tTzZ+".contains(byte));
    let sexagesimal = value.contains(':')
        && value.starts_with(|first: char| first.is_ascii_digit() || first == '-' || first == '+')
        && bytes
            .iter()
            .skip(1)
            .all(|byte| byte.is_ascii_digit() || b":._".contains(byte));
    date || sexagesimal
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{ParseOptions, SourceFile, parse};

    #[test]
    fn values_print_like_the_original() {
        let check = |value: Json, expect: &str| {
            let printed = emit(&value);
            assert_eq!(printed, expect);
            let (documents, diagnostics) = parse(&SourceFile::new("emitted", printed), &ParseOptions::default());
            assert_eq!(diagnostics, []);
            assert_eq!(documents[0].to_json(ScalarRules::CircleCi), value);
        };
        check(
            json!({"a": [{"b": 1, "c": [1, [2]]}, "x"]}),
            "a:\n- b: 1\n  c:\n  - 1\n  - - 2\n- x\n",
        );
        check(
            json!({"a": "x\ny\n", "b": "x\ny", "c": "x\n\n\n", "d": " x\ny"}),
            "a: |\n  x\n  y\nb: |-\n  x\n  y\nc: |+\n  x\n\n\nd: |2-\n   x\n  y\n",
        );
        check(
            json!({"a": "true", "b": "1", "c": "", "d": "x: y", "e": "12:30", "f": "it's", "g": "#x", "h": "a #b"}),
            "a: 'true'\nb: '1'\nc: ''\nd: 'x: y'\ne: '12:30'\nf: it's\ng: '#x'\nh: 'a #b'\n",
        );
        check(
            json!({"a": {}, "b": [], "c": null, "1": "\u{1b}[0m"}),
            "a: {}\nb: []\nc: null\n'1': \"\\x1B[0m\"\n",
        );
        check(
            json!(["\n x\n", "- ", "2020-01-01", "<<", "\t"]),
            "- \"\\n x\\n\"\n- '- '\n- '2020-01-01'\n- '<<'\n- \"\\t\"\n",
        );
    }
}
