//! Text from elsewhere, made safe to show.

use std::{borrow::Cow, fmt::Write as _};

/// `text` as a terminal or a page may show it: line breaks and tabs stay, and every other character that controls a terminal,
/// turns the direction of writing, or shows as nothing is written as its number, `\u001b`.
///
/// A commit's subject, a branch's name and a diff are written by whoever pushed. An escape sequence in them could hide or
/// forge what an approver reads. The form is the one of JSON strings, so that a JSON text stays the same text.
///
/// Source: <https://www.unicode.org/reports/tr9/#Directional_Formatting_Characters>, <https://trojansource.codes>
#[must_use]
pub fn visible(text: &str) -> Cow<'_, str> {
    numbered(text, is_unseen)
}

/// A name as one line may show it: like [`visible`], and a line break or a tab is written as its number too.
///
/// A name with a line break would otherwise end the line that it is in, and forge the next one.
#[must_use]
pub fn visible_name(name: &str) -> Cow<'_, str> {
    numbered(name, |c| matches!(c, '\n' | '\t') || is_unseen(c))
}

/// `text` with each character that `is_hidden` as its number.
fn numbered(text: &str, is_hidden: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_hidden(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(shown, "\\u{unit:04x}");
            }
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

fn is_unseen(c: char) -> bool {
    match c {
        '\n' | '\t' => false,
        // Directions, isolates and overrides.
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        // Line breaks that only some programs see, and what has no width. Joiners stay: words and emoji are written with them.
        '\u{2028}' | '\u{2029}' | '\u{ad}' | '\u{180e}' | '\u{200b}' | '\u{2060}'..='\u{2064}' | '\u{feff}' => true,
        // Tags: a whole invisible alphabet.
        '\u{e0000}'..='\u{e007f}' => true,
        c => c.is_control(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_shown_as_its_number() {
        for (text, expected) in [
            ("\u{1b}[2J\u{1b}[1;1Hplan", "\\u001b[2J\\u001b[1;1Hplan"),
            ("\u{1b}]0;title\u{7}", "\\u001b]0;title\\u0007"),
            ("\u{9b}31m", "\\u009b31m"),
            ("real\rfake\u{8}", "real\\u000dfake\\u0008"),
            ("\u{7f}", "\\u007f"),
            ("a\u{202e}b\u{2066}c\u{2069}", "a\\u202eb\\u2066c\\u2069"),
            ("x\u{200b}\u{feff}y\u{2028}", "x\\u200b\\ufeffy\\u2028"),
            ("\u{e0041}", "\\udb40\\udc41"),
        ] {
            assert_eq!(visible(text), expected);
        }
    }

    #[test]
    fn a_name_stays_in_its_line() {
        assert_eq!(
            visible_name("a\n  unchanged\tb\u{1b}[A"),
            "a\\u000a  unchanged\\u0009b\\u001b[A"
        );
        assert!(matches!(visible_name("ä b/c.yaml"), Cow::Borrowed(_)));
    }

    #[test]
    fn what_people_write_stays_as_it_is() {
        for text in [
            "",
            "Say «hello»: ä 日本語 עברית",
            "one\n\ttwo\n",
            "👩\u{200d}🔬",
            "می\u{200c}خواهم",
        ] {
            assert!(matches!(visible(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }
}
