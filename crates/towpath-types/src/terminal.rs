//! Text of a terminal as plain text.

use std::{iter::Peekable, str::Chars};

/// A control string that is longer than this has lost its end: the rest is text.
const LONGEST_STRING: usize = 4096;

/// `text` without what only a terminal understands.
///
/// A carriage return goes back to the beginning of a line; here each state of a progress bar is a line.
#[must_use]
pub fn plain_text(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\u{1b}' => skip_escape(&mut characters),
            '\r' if characters.peek() == Some(&'\n') => {}
            '\r' => plain.push('\n'),
            '\n' | '\t' => plain.push(character),
            // Not characters: no text has them.
            '\u{fffe}' | '\u{ffff}' => {}
            other if other.is_control() => {}
            other => plain.push(other),
        }
    }
    plain
}

/// Skips the rest of an escape sequence: `ESC I… F`, `ESC [ … F`, or a string up to its end.
///
/// Source: ECMA-48, 5.3, 5.4 and 5.6
fn skip_escape(characters: &mut Peekable<Chars<'_>>) {
    match characters.peek() {
        Some('[') => {
            characters.next();
            while characters.next_if(|next| (' '..='?').contains(next)).is_some() {}
            characters.next_if(|next| ('@'..='~').contains(next));
        }
        Some(']' | 'P' | 'X' | '^' | '_') => {
            characters.next();
            skip_string(characters);
        }
        _ => {
            while characters.next_if(|next| (' '..='/').contains(next)).is_some() {}
            characters.next_if(|next| ('0'..='~').contains(next));
        }
    }
}

/// Skips a string, such as the address of a link, if it has an end.
fn skip_string(characters: &mut Peekable<Chars<'_>>) {
    let mut ahead = characters.clone();
    for _ in 0..LONGEST_STRING {
        match ahead.next() {
            Some('\u{7}') => {
                *characters = ahead;
                return;
            }
            Some('\u{1b}') => {
                ahead.next_if_eq(&'\\');
                *characters = ahead;
                return;
            }
            Some('\n') | None => return,
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_only_a_terminal_understands_is_left() {
        let check = |text: &str, expected: &str| assert_eq!(plain_text(text), expected, "{text:?}");
        check("\u{1b}[1;32mok\u{1b}[0m done\n", "ok done\n");
        check("a\r\nb\rc\u{7}", "a\nb\nc");
        check("\u{1b}", "");
        check("\u{1b}[", "");
        check("\u{1b}[1", "");
        // What `tput sgr0` prints, and other designations of character sets.
        check(
            "\u{1b}[1mbold\u{1b}(B\u{1b}[m plain\u{1b}(0\u{1b})A\u{1b}%G end",
            "bold plain end",
        );
        check(
            "\u{1b} Fseven\u{1b}#8bits\u{1b}7\u{1b}8\u{1b}=\u{1b}>\u{1b}c",
            "sevenbits",
        );
        // A sequence that is broken off by another one, or by text.
        check("\u{1b}(\u{1b}[31mred", "red");
        check("\u{1b}[3\nnext line", "\nnext line");
        check("\u{1b}é", "é");
        check(
            "\u{1b}]8;;https://example.org\u{1b}\\link\u{1b}]8;;\u{7} end",
            "link end",
        );
        check("\u{1b}]0;title without an end\nline", "0;title without an end\nline");
        check("a\u{fffe}b\u{fffd}\0", "ab\u{fffd}");
    }
}
