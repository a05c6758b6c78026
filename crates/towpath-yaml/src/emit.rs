//! Prints data as YAML, byte for byte as CircleCI does.
//!
//! CircleCI uses SnakeYAML's block style: lists are not indented under their key, multi-line text becomes a `|` block, text
//! is quoted only where a YAML 1.1 reader would otherwise take it for another type, and no line is folded.
//!
//! Source: <https://pyyaml.org/wiki/PyYAMLDocumentation>, of whose emitter SnakeYAML's is a port.

use std::fmt::Write as _;

use serde_json::Value as Json;

/// Keys of at least this many characters are written with a leading `?`.
const LONGEST_SIMPLE_KEY: usize = 128;

/// Prints `value` as a YAML document that ends with a line break.
pub fn emit(value: &Json) -> String {
    let mut emitter = Emitter::default();
    match value {
        Json::Object(map) if !map.is_empty() => emitter.mapping(map, 0, true),
        Json::Array(items) if !items.is_empty() => emitter.sequence(items, 0, true),
        value => {
            emitter.scalar(value, 0, false);
            emitter.out.push('\n');
        }
    }
    emitter.out
}

#[derive(Default)]
struct Emitter {
    out: String,
}

/// The styles in which a scalar's text can be written.
#[derive(Clone, Copy)]
struct Allowed {
    plain: bool,
    single: bool,
    block: bool,
    multiline: bool,
}

fn is_break(character: char) -> bool {
    matches!(character, '\n' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn is_blank(character: Option<char>) -> bool {
    character.is_none_or(|character| matches!(character, '\0' | ' ' | '\t' | '\r') || is_break(character))
}

/// Whether a text with this character can be written as it is. The breaks other than `\n` cannot: YAML 1.1 ends a line at them, and
/// 1.2 does not.
fn is_printable(character: char) -> bool {
    matches!(character, '\n' | '\u{20}'..='\u{7e}' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
        && !matches!(character, '\u{feff}' | '\u{2028}' | '\u{2029}')
}

fn allowed(text: &[char]) -> Allowed {
    if text.is_empty() {
        return Allowed {
            plain: false,
            single: true,
            block: false,
            multiline: false,
        };
    }
    let mut indicators = text.starts_with(&['-', '-', '-']) || text.starts_with(&['.', '.', '.']);
    let (mut breaks, mut special, mut break_space, mut space_break) = (false, false, false, false);
    for (at, character) in text.iter().copied().enumerate() {
        let before = at.checked_sub(1).map(|at| text[at]);
        let after = text.get(at + 1).copied();
        indicators |= match character {
            '#' => at == 0 || is_blank(before),
            ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`' => at == 0,
            '?' | '-' => at == 0 && is_blank(after),
            ':' => is_blank(after),
            _ => false,
        };
        breaks |= is_break(character);
        special |= !is_printable(character);
        break_space |= character == ' ' && before.is_some_and(is_break);
        space_break |= is_break(character) && before == Some(' ');
    }
    let (first, last) = (text[0], text[text.len() - 1]);
    let outer = [first, last].iter().any(|end| *end == ' ' || is_break(*end));
    let unquotable = break_space || space_break || special;
    Allowed {
        plain: !(outer || unquotable || breaks || indicators),
        single: !unquotable,
        block: !(last == ' ' || space_break || special),
        multiline: breaks,
    }
}

impl Emitter {
    fn indent(&mut self, columns: usize) {
        self.out.extend(std::iter::repeat_n(' ', columns));
    }

    /// Writes a map. `fresh` says that the cursor is at the start of a line, not behind `- `.
    fn mapping(&mut self, map: &serde_json::Map<String, Json>, column: usize, fresh: bool) {
        for (at, (key, value)) in map.iter().enumerate() {
            if at > 0 || fresh {
                self.indent(column);
            }
            let simple = key.chars().count() < LONGEST_SIMPLE_KEY && !key.contains(is_break);
            if !simple {
                self.out.push_str("? ");
            }
            self.text(key, column, simple);
            if !simple {
                self.out.push('\n');
                self.indent(column);
            }
            self.out.push(':');
            match value {
                Json::Object(map) if !map.is_empty() => {
                    self.out.push('\n');
                    self.mapping(map, column + 2, true);
                }
                Json::Array(items) if !items.is_empty() => {
                    self.out.push('\n');
                    self.sequence(items, column, true);
                }
                value => {
                    self.out.push(' ');
                    self.scalar(value, column, false);
                    self.out.push('\n');
                }
            }
        }
    }

    fn sequence(&mut self, items: &[Json], column: usize, fresh: bool) {
        for (at, item) in items.iter().enumerate() {
            if at > 0 || fresh {
                self.indent(column);
            }
            self.out.push_str("- ");
            match item {
                Json::Object(map) if !map.is_empty() => self.mapping(map, column + 2, false),
                Json::Array(items) if !items.is_empty() => self.sequence(items, column + 2, false),
                item => {
                    self.scalar(item, column, false);
                    self.out.push('\n');
                }
            }
        }
    }

    fn scalar(&mut self, value: &Json, column: usize, key: bool) {
        match value {
            Json::Null => self.out.push_str("null"),
            Json::Bool(value) => self.out.push_str(if *value { "true" } else { "false" }),
            Json::Number(number) => self.out.push_str(&number_text(number)),
            Json::Array(_) => self.out.push_str("[]"),
            Json::Object(_) => self.out.push_str("{}"),
            Json::String(text) => self.text(text, column, key),
        }
    }

    /// Writes text inside a collection at `column`. A `key` must stay on one line.
    fn text(&mut self, text: &str, column: usize, key: bool) {
        let characters: Vec<char> = text.chars().collect();
        let allowed = allowed(&characters);
        let indent = column + 2;
        if allowed.plain && is_text(text) && !(key && allowed.multiline) {
            self.out.push_str(text);
        } else if allowed.multiline && allowed.block && !key {
            self.block(&characters, indent);
        } else if !characters.is_empty() && allowed.single && !(key && allowed.multiline) || characters.is_empty() {
            self.single_quoted(&characters, indent);
        } else {
            self.double_quoted(&characters);
        }
    }

    /// Writes single-quoted text. A line break in it is written as two.
    fn single_quoted(&mut self, text: &[char], indent: usize) {
        self.out.push('\'');
        let mut breaks = false;
        for character in text {
            if is_break(*character) {
                if !breaks {
                    self.out.push('\n');
                }
                self.out.push(*character);
            } else {
                if breaks {
                    self.indent(indent);
                }
                if *character == '\'' {
                    self.out.push('\'');
                }
                self.out.push(*character);
            }
            breaks = is_break(*character);
        }
        if breaks {
            self.indent(indent);
        }
        self.out.push('\'');
    }

    fn double_quoted(&mut self, text: &[char]) {
        self.out.push('"');
        for character in text {
            let escaped = matches!(character, '"' | '\\') || is_break(*character) || !is_printable(*character);
            match escaped {
                true => self.out.push_str(&escape(*character)),
                false => self.out.push(*character),
            }
        }
        self.out.push('"');
    }

    fn block(&mut self, text: &[char], indent: usize) {
        self.out.push('|');
        if text[0] == ' ' || is_break(text[0]) {
            self.out.push('2');
        }
        let last = text.len() - 1;
        if !is_break(text[last]) {
            self.out.push('-');
        } else if last == 0 || is_break(text[last - 1]) {
            self.out.push('+');
        }
        self.out.push('\n');
        // The caller writes the last line break.
        let end = text.len() - usize::from(is_break(text[last]));
        let mut empty = true;
        for character in &text[..end] {
            if is_break(*character) {
                match character {
                    '\n' => self.out.push('\n'),
                    other => self.out.push(*other),
                }
                empty = true;
            } else {
                if empty {
                    self.indent(indent);
                    empty = false;
                }
                self.out.push(*character);
            }
        }
    }
}

fn escape(character: char) -> String {
    let short = match character {
        '\0' => '0',
        '\u{7}' => 'a',
        '\u{8}' => 'b',
        '\t' => 't',
        '\n' => 'n',
        '\u{b}' => 'v',
        '\u{c}' => 'f',
        '\r' => 'r',
        '\u{1b}' => 'e',
        '"' => '"',
        '\\' => '\\',
        '\u{85}' => 'N',
        '\u{a0}' => '_',
        '\u{2028}' => 'L',
        '\u{2029}' => 'P',
        other => {
            let mut out = String::new();
            let _ = match u32::from(other) {
                code @ ..=0xff => write!(out, "\\x{code:02x}"),
                code @ ..=0xffff => write!(out, "\\u{code:04x}"),
                code => write!(out, "\\U{code:08x}"),
            };
            return out;
        }
    };
    format!("\\{short}")
}

/// Formats a number as Java does: `1.0E10`, not `10000000000.0`.
///
/// Source: <https://docs.oracle.com/javase/8/docs/api/java/lang/Double.html#toString-double->
fn number_text(number: &serde_json::Number) -> String {
    let value = match number.as_f64() {
        Some(value) if number.is_f64() => value,
        _ => return number.to_string(),
    };
    let size = value.abs();
    if size != 0.0 && !(1e-3..1e7).contains(&size) {
        let text = format!("{value:E}");
        return match text.split_once('E') {
            Some((mantissa, exponent)) if !mantissa.contains('.') => format!("{mantissa}.0E{exponent}"),
            _ => text,
        };
    }
    format!("{value:?}")
}

/// Whether every reader takes an unquoted `text` for text, be it one of YAML 1.1 or of 1.2.
///
/// Source: <https://yaml.org/type/>, <https://yaml.org/spec/1.2.2/#103-core-schema>
fn is_text(text: &str) -> bool {
    if matches!(
        text,
        "" | "~"
            | "null"
            | "Null"
            | "NULL"
            | "yes"
            | "Yes"
            | "YES"
            | "no"
            | "No"
            | "NO"
            | "true"
            | "True"
            | "TRUE"
            | "false"
            | "False"
            | "FALSE"
            | "on"
            | "On"
            | "ON"
            | "off"
            | "Off"
            | "OFF"
            | "<<"
            | "="
    ) {
        return false;
    }
    let first = text.as_bytes()[0];
    !(first.is_ascii_digit() || matches!(first, b'-' | b'+' | b'.')) || !(is_number(text) || is_time(text))
}

fn digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_')
}

fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let starts = |text: &str| text.starts_with(|first: char| first.is_ascii_digit());
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let of = |prefix: &str, good: fn(u8) -> bool| {
        unsigned
            .strip_prefix(prefix)
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| good(byte) || byte == b'_'))
    };
    if of("0b", |byte| matches!(byte, b'0' | b'1'))
        || of("0o", |byte| matches!(byte, b'0'..=b'7'))
        || of("0x", |byte| byte.is_ascii_hexdigit())
    {
        return true;
    }
    // `08` is text in YAML 1.1, where a leading zero means octal, and 8 in YAML 1.2.
    if starts(unsigned) && digits(unsigned) {
        return true;
    }
    // Base 60: `12:30`, `1:30:59.5`.
    let mut parts = unsigned.split(':');
    let whole = parts.next().unwrap_or_default();
    let rest: Vec<&str> = parts.collect();
    if !rest.is_empty() {
        let (last, before) = rest
            .split_last()
            .map_or(("", &rest[..]), |(last, before)| (*last, before));
        let (last, fraction) = last
            .split_once('.')
            .map_or((last, None), |(last, fraction)| (last, Some(fraction)));
        let sixty = |part: &str| matches!(part.as_bytes(), [b'0'..=b'9'] | [b'0'..=b'5', b'0'..=b'9']);
        return starts(whole)
            && digits(whole)
            && (fraction.is_some() || !whole.starts_with('0'))
            && before.iter().copied().chain([last]).all(sixty)
            && fraction.is_none_or(digits);
    }
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (&unsigned[..at], Some(&unsigned[at + 1..])),
        None => (unsigned, None),
    };
    let exponent_ok = exponent.is_none_or(|exponent| {
        let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        !exponent.is_empty() && exponent.bytes().all(|byte| byte.is_ascii_digit())
    });
    match mantissa.split_once('.') {
        Some((whole, fraction)) => {
            let some = starts(whole) || (whole.is_empty() && starts(fraction));
            some && digits(whole) && digits(fraction) && exponent_ok
        }
        None => exponent.is_some() && starts(mantissa) && digits(mantissa) && exponent_ok,
    }
}

/// Whether `text` is a date, or a date with a time.
fn is_time(text: &str) -> bool {
    let mut parts = text.splitn(3, '-');
    let number =
        |part: &str, most: usize| (1..=most).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    let (Some(year), Some(month), Some(rest)) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    let end = rest.find(|other: char| !other.is_ascii_digit()).unwrap_or(rest.len());
    let (day, time) = rest.split_at(end);
    if year.len() != 4 || !number(year, 4) || !number(month, 2) || !number(day, 2) {
        return false;
    }
    if time.is_empty() {
        return month.len() == 2 && day.len() == 2;
    }
    let clock = time
        .strip_prefix(['T', 't'])
        .unwrap_or_else(|| time.trim_start_matches([' ', '\t']));
    let zone = clock
        .find(|other: char| !(other.is_ascii_digit() || matches!(other, ':' | '.')))
        .unwrap_or(clock.len());
    let (clock, zone) = clock.split_at(zone);
    let clock: Vec<&str> = clock.split(':').collect();
    let zone = zone.trim_start_matches([' ', '\t']);
    let zone_ok = zone.is_empty()
        || zone == "Z"
        || (zone.starts_with(['-', '+']) && zone[1..].bytes().all(|byte| byte.is_ascii_digit() || byte == b':'));
    matches!(clock[..], [hour, minute, second] if number(hour, 2) && number(minute, 2) && second.len() >= 2 && second.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'))
        && zone_ok
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{ParseOptions, ScalarRules, SourceFile, parse};

    #[test]
    fn values_print_as_circleci_prints_them() {
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
            "a: {}\nb: []\nc: null\n'1': \"\\e[0m\"\n",
        );
        check(
            json!(["\n x\n", "- ", "2020-01-01", "<<", "\t"]),
            "- |2\n\n   x\n- '- '\n- '2020-01-01'\n- '<<'\n- \"\\t\"\n",
        );
        check(
            json!(["0o17", "-0o7", "0o8", "08", "09", "0_8", "0O17"]),
            "- '0o17'\n- '-0o7'\n- 0o8\n- '08'\n- '09'\n- '0_8'\n- 0O17\n",
        );
        check(
            json!(["a\u{85}b", "a\u{2028}b\n", "\u{2029}", "a\n\u{85}\nb", {"k\u{85}": "v"}]),
            "- \"a\\Nb\"\n- \"a\\Lb\\n\"\n- \"\\P\"\n- \"a\\n\\N\\nb\"\n- ? \"k\\N\"\n  : v\n",
        );
    }
}
