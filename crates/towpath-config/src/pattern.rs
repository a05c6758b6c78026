//! Regular expressions of filters and conditions, in RE2 syntax.
//!
//! Source: <https://github.com/google/re2/wiki/Syntax>

use std::cell::RefCell;
use std::collections::HashMap;

use regex::Regex;
use regex_syntax::ast::Ast;

/// The number of compiled patterns that are cached.
const CACHED_PATTERNS: usize = 1_000;

thread_local! {
    /// Compiled patterns by their text. A filter or a condition is evaluated for every job that has it.
    static PATTERNS: RefCell<HashMap<String, Option<Regex>>> = RefCell::default();
}

/// Compiles a regular expression in RE2 syntax that must match the whole text. `None` if the pattern is invalid.
pub(crate) fn full_match(pattern: &str) -> Option<Regex> {
    PATTERNS.with_borrow_mut(|known| {
        if let Some(regex) = known.get(pattern) {
            return regex.clone();
        }
        if known.len() >= CACHED_PATTERNS {
            known.clear();
        }
        let regex = compiled(pattern);
        known.insert(pattern.to_owned(), regex.clone());
        regex
    })
}

fn compiled(pattern: &str) -> Option<Regex> {
    let pattern = from_re2(pattern);
    // Parse the pattern alone first: `a)|(?:b` is only valid inside the parentheses below.
    regex_syntax::parse(&pattern).ok()?;
    let tree = regex_syntax::ast::parse::Parser::new().parse(&pattern).ok()?;
    regex_syntax::ast::visit(&tree, NoStackedRepetition).ok()?;
    regex::RegexBuilder::new(&format!("^(?:{pattern})$"))
        .size_limit(1 << 20)
        .build()
        .ok()
}

/// Refuses a repetition directly after a repetition. RE2 does not know `a*+`, which is possessive in other dialects.
///
/// Source: <https://github.com/google/re2/wiki/Syntax>
struct NoStackedRepetition;

impl regex_syntax::ast::Visitor for NoStackedRepetition {
    type Output = ();
    type Err = ();

    fn finish(self) -> Result<(), ()> {
        Ok(())
    }

    fn visit_pre(&mut self, tree: &Ast) -> Result<(), ()> {
        match tree {
            Ast::Repetition(outer) if matches!(*outer.ast, Ast::Repetition(_)) => Err(()),
            _ => Ok(()),
        }
    }
}

/// Translates RE2 syntax to that of the `regex` crate. In RE2 `\w`, `\d` and `\s` are ASCII only; inside a class `[`, `&&`,
/// `--` and `~~` are literal; and `\Q…\E` quotes.
///
/// Source: <https://github.com/google/re2/wiki/Syntax>
fn from_re2(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut rest = pattern;
    let mut in_class = false;
    while let Some(character) = rest.chars().next() {
        let (token, after) = rest.split_at(character.len_utf8());
        rest = after;
        match character {
            '\\' => {
                if let Some(quoted) = rest.strip_prefix('Q') {
                    let (text, after) = quoted.split_once("\\E").unwrap_or((quoted, ""));
                    out.push_str(&regex::escape(text));
                    rest = after;
                    continue;
                }
                let Some(escaped) = rest.chars().next() else {
                    out.push('\\');
                    continue;
                };
                rest = &rest[escaped.len_utf8()..];
                if escaped.is_digit(8) {
                    let Some((code, length)) = octal(escaped, rest) else {
                        // RE2 has no such escape, and the `regex` crate refuses it, too.
                        out.push('\\');
                        out.push(escaped);
                        continue;
                    };
                    out.push_str(&format!("\\x{{{code:X}}}"));
                    rest = &rest[length..];
                    continue;
                }
                let class = match escaped {
                    'd' | 'D' => "0-9",
                    's' | 'S' => r"\t\n\f\r ",
                    'w' | 'W' => "0-9A-Za-z_",
                    // In the `regex` crate these escapes match the start and the end of a word.
                    '<' | '>' => {
                        out.push(escaped);
                        continue;
                    }
                    _ => {
                        out.push('\\');
                        out.push(escaped);
                        // Copy the braces of `\p{Greek}` and `\x{41}`.
                        if matches!(escaped, 'p' | 'P' | 'x')
                            && let Some(end) = rest.starts_with('{').then(|| rest.find('}')).flatten()
                        {
                            out.push_str(&rest[..=end]);
                            rest = &rest[end + 1..];
                        }
                        continue;
                    }
                };
                match (escaped.is_ascii_uppercase(), in_class) {
                    (true, _) => out.push_str(&format!("[^{class}]")),
                    (false, _) => out.push_str(&format!("[{class}]")),
                }
                // A range cannot start with a class, so this dash is literal.
                if in_class && let Some(after) = rest.strip_prefix('-') {
                    out.push_str("\\-");
                    rest = after;
                }
            }
            '[' if !in_class => {
                in_class = true;
                out.push('[');
                if let Some(after) = rest.strip_prefix('^') {
                    out.push('^');
                    rest = after;
                }
                // A `]` at the start of a class is literal.
                if let Some(after) = rest.strip_prefix(']') {
                    out.push_str("\\]");
                    rest = after;
                }
            }
            '[' => match rest.starts_with(':').then(|| rest.find(":]")).flatten() {
                Some(end) => {
                    out.push('[');
                    out.push_str(&rest[..end + 2]);
                    rest = &rest[end + 2..];
                }
                None => out.push_str("\\["),
            },
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            '&' | '~' | '-' if in_class && rest.starts_with(character) => {
                out.push('\\');
                out.push_str(token);
            }
            // A brace that starts no repetition is literal.
            '{' if !in_class && !is_repetition(rest) => out.push_str("\\{"),
            _ => out.push_str(token),
        }
    }
    out
}

/// The character of an octal escape, and the number of digits after the first one (up to two). `\1` alone would be a
/// backreference.
fn octal(first: char, rest: &str) -> Option<(u32, usize)> {
    let more = rest
        .bytes()
        .take(2)
        .take_while(|byte| (b'0'..=b'7').contains(byte))
        .count();
    if first != '0' && more == 0 {
        return None;
    }
    let digits = format!("{first}{}", &rest[..more]);
    Some((u32::from_str_radix(&digits, 8).ok()?, more))
}

/// Whether `rest` starts with the end of a repetition: `3}`, `3,}` or `3,5}`.
fn is_repetition(rest: &str) -> bool {
    let Some((inside, _)) = rest.split_once('}') else {
        return false;
    };
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match inside.split_once(',') {
        Some((from, to)) => number(from) && (to.is_empty() || number(to)),
        None => number(inside),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_have_the_meaning_that_re2_gives_them() {
        for (pattern, text, matches) in [
            (r"\w{1,255}", "some_name", true),
            (r"[\w.-]{1,100}", "v1.2-x", true),
            (r"\w+", "é", false),
            (r"\d", "٣", false),
            (r"[^\d]", "x", true),
            (r"[\D]", "7", false),
            (r"\Qa.b\E", "a.b", true),
            (r"\Qa.b\E", "axb", false),
            (r"[[a]", "[", true),
            (r"[]a]+", "]a", true),
            (r"[[:digit:]x]+", "3x", true),
            (r"[a&&b]+", "a&b", true),
            (r"a{2", "a{2", true),
            (r"a{2}", "aa", true),
            (r"(a*)+b", "aab", true),
            (r"a*?b", "aab", true),
            (r"\p{Greek}", "λ", true),
            (r"\x{41}", "A", true),
            (r"\101", "A", true),
            (r"\60", "0", true),
            (r"\<main\>", "main", false),
            (r"\<main\>", "<main>", true),
            (r"release\/[\w-.]+", "release/v-1.2", true),
            (r"feat[\w-z]+", "feat-x", true),
            (r"rel[\s-x]+", "relABC", false),
            (r"[\w--a]+", "x.", true),
        ] {
            let regex = full_match(pattern).unwrap_or_else(|| panic!("{pattern} is refused"));
            assert_eq!(regex.is_match(text), matches, "{pattern} on {text}");
        }
        for wrong in ["a)|(?:b", "(", "(?=x)", r"a\1", "a*+b", "a++", "a?+", "a{2}{3}", "a*?+"] {
            assert!(full_match(wrong).is_none(), "{wrong}");
        }
    }
}
