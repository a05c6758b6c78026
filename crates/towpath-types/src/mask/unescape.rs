//! Text as it was before a program quoted it.
//!
//! A value is rarely printed as it is: a shell quotes it, JSON and HTML escape it, a URL has it in percents. This takes all of that
//! away: `pa"ss\word'42`, `'pa"ss\word'\''42'`, `pa\"ss\\word\'42`, `pa&quot;ss\word&#39;42` and `pa%22ss%5Cword%2742` become the
//! same text. What it makes is for comparing, not for reading: a secret and a log go through the same rules, so it does not
//! matter that a rule changes text that nobody quoted.

/// A byte and where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unit {
    pub byte: u8,
    /// The first of the bytes that it was written with, counted from the beginning of the stream.
    pub start: u64,
    /// Behind the last of them.
    pub end: u64,
}

impl Unit {
    fn spanning(byte: u8, start: u64, end: u64) -> Self {
        Self { byte, start, end }
    }
}

/// The longest name or number of a character in HTML: `&#x1F600;`, `&quot;`.
const LONGEST_NAME: usize = 8;
/// The most hex digits of an escape: `\U0001F600`.
const MOST_DIGITS: usize = 8;
/// A control sequence of a terminal that is longer than this is text.
const LONGEST_SEQUENCE: u8 = 64;

/// A terminal's title or link that is longer than this is text.
const LONGEST_COMMAND: u16 = 4096;

/// Takes quoting away from a stream of bytes. Four rules follow each other: percents, backslashes, HTML, and what is left out.
#[derive(Debug, Default)]
pub(super) struct Unescape {
    percent: Percent,
    backslash: Backslash,
    /// The first half of a character that UTF-16 writes in two (`\ud83d\ude00`), and where it began.
    high: Option<(u32, u64)>,
    /// Whether the last byte was a terminal's escape character: a backslash behind it ends a title or a link.
    escape: bool,
    html: Html,
    terminal: Terminal,
}

#[derive(Debug, Default)]
enum Percent {
    #[default]
    None,
    Sign(Unit),
    Digit(Unit, Unit),
}

#[derive(Debug, Default)]
enum Backslash {
    #[default]
    None,
    /// One or more: text may be quoted several times over.
    Run(u64),
    /// `\x41`, `\u0041`, `\u{41}`, `\U00000041`: the letter, a brace and the digits so far.
    Digits {
        letter: Unit,
        brace: Option<Unit>,
        digits: Units<MOST_DIGITS>,
    },
    /// `\101`.
    Octal {
        start: u64,
        end: u64,
        value: u32,
        count: u8,
    },
}

#[derive(Debug, Default)]
enum Html {
    #[default]
    None,
    /// `&` and the name so far.
    Name { sign: Unit, name: Units<LONGEST_NAME> },
}

#[derive(Debug, Default)]
enum Terminal {
    #[default]
    None,
    /// Behind the escape character.
    Escape,
    /// In `ESC [ …`.
    Sequence(u8),
    /// In `ESC ] …`: a title or a link. It ends with BEL or `ESC \`.
    Command(u16),
}

/// A few units in a row: at most `N`.
#[derive(Debug, Default)]
struct Units<const N: usize>(Vec<Unit>);

impl<const N: usize> Units<N> {
    /// `false` when there is no room.
    fn push(&mut self, unit: Unit) -> bool {
        let has_room = self.0.len() < N;
        if has_room {
            self.0.push(unit);
        }
        has_room
    }

    fn number(&self, radix: u32) -> Option<u32> {
        self.text().and_then(|text| u32::from_str_radix(&text, radix).ok())
    }

    fn text(&self) -> Option<String> {
        let bytes = self.0.iter().map(|unit| unit.byte).collect();
        String::from_utf8(bytes).ok()
    }
}

impl Unescape {
    /// Whether `byte` means nothing but itself to every rule, so that it may pass while [`Self::is_idle`].
    pub(super) fn is_plain(byte: u8) -> bool {
        !matches!(byte, b'%' | b'\\' | b'&' | b'\'' | b'"' | b'$' | b'+' | 0x7f)
            && (byte >= b' ' || matches!(byte, b'\n' | b'\t'))
    }

    /// Whether no rule is in the middle of something.
    pub(super) fn is_idle(&self) -> bool {
        matches!(
            (&self.percent, &self.backslash, &self.html, &self.terminal, self.high),
            (Percent::None, Backslash::None, Html::None, Terminal::None, None)
        )
    }

    /// Where the bytes begin that a rule has not decided about yet.
    pub(super) fn pending(&self) -> Option<u64> {
        let percent = match &self.percent {
            Percent::None => None,
            Percent::Sign(sign) | Percent::Digit(sign, _) => Some(sign.start),
        };
        let backslash = match &self.backslash {
            Backslash::None => None,
            Backslash::Run(start) | Backslash::Octal { start, .. } => Some(*start),
            Backslash::Digits { letter, .. } => Some(letter.start),
        };
        let html = match &self.html {
            Html::None => None,
            Html::Name { sign, .. } => Some(sign.start),
        };
        let high = self.high.map(|(_, start)| start);
        [percent, backslash, html, high].into_iter().flatten().min()
    }

    /// Takes the next byte, which is at `at`.
    pub(super) fn push(&mut self, byte: u8, at: u64, sink: &mut impl FnMut(Unit)) {
        self.percent(Unit::spanning(byte, at, at + 1), sink);
    }

    /// Takes what is pending as it is: nothing follows.
    pub(super) fn finish(&mut self, sink: &mut impl FnMut(Unit)) {
        match std::mem::take(&mut self.percent) {
            Percent::None => {}
            Percent::Sign(sign) => self.backslash(sign, sink),
            Percent::Digit(sign, digit) => {
                self.backslash(sign, sink);
                self.backslash(digit, sink);
            }
        }
        self.give_up_escape(sink);
        self.give_up_name(sink);
    }

    /// Source: <https://www.rfc-editor.org/rfc/rfc3986#section-2.1>
    fn percent(&mut self, unit: Unit, sink: &mut impl FnMut(Unit)) {
        match std::mem::take(&mut self.percent) {
            Percent::None if unit.byte == b'%' => self.percent = Percent::Sign(unit),
            Percent::None => self.backslash(unit, sink),
            Percent::Sign(sign) if unit.byte.is_ascii_hexdigit() => self.percent = Percent::Digit(sign, unit),
            Percent::Sign(sign) => {
                self.backslash(sign, sink);
                self.percent(unit, sink);
            }
            Percent::Digit(sign, first) => {
                let digit = |unit: Unit| {
                    char::from(unit.byte)
                        .to_digit(16)
                        .and_then(|digit| u8::try_from(digit).ok())
                };
                match (digit(first), digit(unit)) {
                    (Some(high), Some(low)) => {
                        let decoded = Unit::spanning(high << 4 | low, sign.start, unit.end);
                        // A sign that was encoded begins another code: `%2522`.
                        if decoded.byte == b'%' {
                            self.percent = Percent::Sign(decoded);
                        } else {
                            self.backslash(decoded, sink);
                        }
                    }
                    _ => {
                        self.backslash(sign, sink);
                        self.backslash(first, sink);
                        self.percent(unit, sink);
                    }
                }
            }
        }
    }

    /// Escapes as JSON, C, Python, Go, Rust and `$'…'` of a shell write them.
    fn backslash(&mut self, unit: Unit, sink: &mut impl FnMut(Unit)) {
        let ends_command = std::mem::replace(&mut self.escape, unit.byte == 0x1b);
        match std::mem::take(&mut self.backslash) {
            Backslash::None if unit.byte == b'\\' && !ends_command => self.backslash = Backslash::Run(unit.start),
            Backslash::None => {
                self.high = None;
                self.html(unit, sink);
            }
            Backslash::Run(start) => {
                let is = |byte| Unit::spanning(byte, start, unit.end);
                match unit.byte {
                    b'\\' => self.backslash = Backslash::Run(start),
                    b'u' | b'U' | b'x' => {
                        self.backslash = Backslash::Digits {
                            letter: is(unit.byte),
                            brace: None,
                            digits: Units::default(),
                        }
                    }
                    digit @ b'0'..=b'7' => {
                        self.high = None;
                        self.backslash = Backslash::Octal {
                            start,
                            end: unit.end,
                            value: u32::from(digit - b'0'),
                            count: 1,
                        }
                    }
                    other => {
                        self.high = None;
                        let meant = match other {
                            b'a' => 0x07,
                            b'b' => 0x08,
                            b't' => b'\t',
                            b'n' => b'\n',
                            b'v' => 0x0b,
                            b'f' => 0x0c,
                            b'r' => b'\r',
                            b'e' => 0x1b,
                            other => other,
                        };
                        self.html(is(meant), sink);
                    }
                }
            }
            Backslash::Octal {
                start,
                end,
                value,
                count,
            } => match unit.byte {
                digit @ b'0'..=b'7' if count < 3 => {
                    self.backslash = Backslash::Octal {
                        start,
                        end: unit.end,
                        value: value * 8 + u32::from(digit - b'0'),
                        count: count + 1,
                    }
                }
                _ => {
                    self.html(Unit::spanning((value & 0xff) as u8, start, end), sink);
                    self.backslash(unit, sink);
                }
            },
            Backslash::Digits {
                letter,
                brace,
                mut digits,
            } => {
                let most = match (letter.byte, brace) {
                    (b'x', None) => 2,
                    (b'u', None) => 4,
                    _ => MOST_DIGITS,
                };
                if unit.byte == b'{' && letter.byte != b'U' && brace.is_none() && digits.0.is_empty() {
                    let brace = Some(unit);
                    self.backslash = Backslash::Digits { letter, brace, digits };
                } else if unit.byte.is_ascii_hexdigit() && digits.push(unit) {
                    if brace.is_none() && digits.0.len() == most {
                        self.decoded(letter, &digits, unit.end, sink);
                    } else {
                        self.backslash = Backslash::Digits { letter, brace, digits };
                    }
                } else if unit.byte == b'}' && brace.is_some() && !digits.0.is_empty() {
                    self.decoded(letter, &digits, unit.end, sink);
                } else {
                    self.backslash = Backslash::Digits { letter, brace, digits };
                    self.give_up_escape(sink);
                    self.backslash(unit, sink);
                }
            }
        }
    }

    /// An escape by number is complete.
    fn decoded(&mut self, letter: Unit, digits: &Units<MOST_DIGITS>, end: u64, sink: &mut impl FnMut(Unit)) {
        let high = self.high.take();
        let Some(number) = digits.number(16) else { return };
        if letter.byte == b'x' && number < 0x100 {
            return self.html(Unit::spanning((number & 0xff) as u8, letter.start, end), sink);
        }
        match (number, high) {
            (0xd800..=0xdbff, _) => self.high = Some((number, letter.start)),
            (0xdc00..=0xdfff, Some((high, start))) => {
                self.character(0x1_0000 + ((high - 0xd800) << 10) + (number - 0xdc00), start, end, sink);
            }
            _ => self.character(number, letter.start, end, sink),
        }
    }

    fn character(&mut self, number: u32, start: u64, end: u64, sink: &mut impl FnMut(Unit)) {
        let Some(character) = char::from_u32(number) else {
            return;
        };
        for byte in character.encode_utf8(&mut [0; 4]).bytes() {
            self.html(Unit::spanning(byte, start, end), sink);
        }
    }

    /// What began like an escape is none: its bytes are text.
    fn give_up_escape(&mut self, sink: &mut impl FnMut(Unit)) {
        match std::mem::take(&mut self.backslash) {
            Backslash::None | Backslash::Run(_) => {}
            Backslash::Octal { start, end, value, .. } => {
                self.html(Unit::spanning((value & 0xff) as u8, start, end), sink);
            }
            Backslash::Digits {
                letter,
                brace: None,
                digits,
            } if letter.byte == b'x' && !digits.0.is_empty() => {
                let end = digits.0.last().map_or(letter.end, |unit| unit.end);
                self.decoded(letter, &digits, end, sink);
            }
            Backslash::Digits { letter, brace, digits } => {
                self.high = None;
                for unit in std::iter::once(&letter).chain(&brace).chain(&digits.0) {
                    self.html(*unit, sink);
                }
            }
        }
    }

    /// Source: <https://html.spec.whatwg.org/multipage/parsing.html#character-reference-state>; of the names, those that programs
    /// escape text with.
    fn html(&mut self, unit: Unit, sink: &mut impl FnMut(Unit)) {
        match std::mem::take(&mut self.html) {
            Html::None if unit.byte == b'&' => {
                self.html = Html::Name {
                    sign: unit,
                    name: Units::default(),
                }
            }
            Html::None => self.clean(unit, sink),
            Html::Name { sign, mut name } => {
                if (unit.byte.is_ascii_alphanumeric() || unit.byte == b'#') && name.push(unit) {
                    self.html = Html::Name { sign, name };
                    return;
                }
                let named = (unit.byte == b';').then(|| name.text()).flatten();
                match named.and_then(|name| named_character(&name)) {
                    // `&amp;quot;` was escaped twice.
                    Some('&') => {
                        self.html = Html::Name {
                            sign: Unit::spanning(b'&', sign.start, unit.end),
                            name: Units::default(),
                        }
                    }
                    Some(character) => {
                        for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                            self.clean(Unit::spanning(byte, sign.start, unit.end), sink);
                        }
                    }
                    None => {
                        self.html = Html::Name { sign, name };
                        self.give_up_name(sink);
                        self.html(unit, sink);
                    }
                }
            }
        }
    }

    fn give_up_name(&mut self, sink: &mut impl FnMut(Unit)) {
        if let Html::Name { sign, name } = std::mem::take(&mut self.html) {
            for unit in std::iter::once(&sign).chain(&name.0) {
                self.clean(*unit, sink);
            }
        }
    }

    /// Leaves out what quotes, what ends a string and begins another (`'\''`, `'$'\n''`), and what only a terminal understands.
    fn clean(&mut self, unit: Unit, sink: &mut impl FnMut(Unit)) {
        match std::mem::take(&mut self.terminal) {
            Terminal::None => {}
            // Source: ECMA-48, 5.3 and 5.4
            Terminal::Escape => {
                match unit.byte {
                    b'[' => self.terminal = Terminal::Sequence(0),
                    b']' => self.terminal = Terminal::Command(0),
                    b' '..=b'/' => self.terminal = Terminal::Escape,
                    b'0'..=b'~' => {}
                    _ => self.clean(unit, sink),
                }
                return;
            }
            // Source: ECMA-48, 8.3.89, and the bell of xterm
            Terminal::Command(length) => {
                match unit.byte {
                    0x07 => {}
                    0x1b => self.terminal = Terminal::Escape,
                    b'\n' => self.clean(unit, sink),
                    _ if length < LONGEST_COMMAND => self.terminal = Terminal::Command(length + 1),
                    _ => self.clean(unit, sink),
                }
                return;
            }
            Terminal::Sequence(length) => {
                match unit.byte {
                    b' '..=b'?' if length < LONGEST_SEQUENCE => self.terminal = Terminal::Sequence(length + 1),
                    b'@'..=b'~' => {}
                    _ => self.clean(unit, sink),
                }
                return;
            }
        }
        match unit.byte {
            0x1b => self.terminal = Terminal::Escape,
            // A form writes a blank so.
            b'+' => sink(Unit { byte: b' ', ..unit }),
            b'\n' | b'\t' => sink(unit),
            b'\'' | b'"' | b'$' | b'\\' | 0x00..=0x1f | 0x7f => {}
            _ => sink(unit),
        }
    }
}

fn named_character(name: &str) -> Option<char> {
    if let Some(number) = name.strip_prefix('#') {
        let number = match number.strip_prefix(['x', 'X']) {
            Some(hex) => u32::from_str_radix(hex, 16),
            None => number.parse(),
        };
        return number.ok().and_then(char::from_u32);
    }
    match name {
        "amp" => Some('&'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "nbsp" => Some('\u{a0}'),
        _ => None,
    }
}

/// `text` without quoting.
pub(super) fn unescaped(text: &[u8]) -> Vec<u8> {
    let (mut unescape, mut out) = (Unescape::default(), Vec::with_capacity(text.len()));
    let mut sink = |unit: Unit| out.push(unit.byte);
    for (at, byte) in (0..).zip(text) {
        unescape.push(*byte, at, &mut sink);
    }
    unescape.finish(&mut sink);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        assert_eq!(String::from_utf8_lossy(&unescaped(text.as_bytes())), expected, "{text}");
    }

    #[test]
    fn quoting_of_every_kind_is_taken_away() {
        for quoted in [
            r#"pa"ss\word'42"#,
            r#"'pa"ss\word'\''42'"#,
            r#"'pa"ss\word'"'"'42'"#,
            r#"pa\"ss\\word\'42"#,
            r#""pa\\\"ss\\\\word'42""#,
            r"$'pa\x22ss\\word\04742'",
            r"pa\u0022ss\\word\u002742",
            r"pa\u{22}ss\\word\U0000002742",
            "pa&quot;ss\\word&#39;42",
            "pa&#x22;ss\\word&amp;apos;42",
            "pa%22ss%5Cword%2742",
            "pa%2522ss%255cword%252742",
            "pa%22ss%5c%5Cword%2742",
            "pa\u{1b}[1m\"\u{1b}(Bss\\word'4\u{7}2\0",
        ] {
            check(quoted, "password42");
        }
        check("a b+c%20d", "a b c d");
        check(r"\ud83d\ude00 \xc3\xa9 \303\251 &#233;", "😀 é é é");
        check(r"one\ntwo\\nthree", "one\ntwo\nthree");
    }

    #[test]
    fn what_only_begins_like_an_escape_is_text() {
        check("100% of 5%2", "100% of 5%2");
        check("a & b &c; &toolonganame;", "a & b &c; &toolonganame;");
        check(r"\u12 \q \", "u12 q ");
        check("%%41&&lt;", "%A&<");
        check(r"\u{110000}x", "x");
    }

    #[test]
    fn what_is_not_decided_is_pending() {
        for (text, pending) in [
            ("ab%4", 2),
            ("ab\\u00", 2),
            ("abc&am", 3),
            ("a\\ud83d", 1),
            ("a\\\\", 1),
        ] {
            let mut unescape = Unescape::default();
            for (at, byte) in (0..).zip(text.bytes()) {
                unescape.push(byte, at, &mut |_| {});
            }
            assert_eq!(unescape.pending(), Some(pending), "{text}");
            assert!(!unescape.is_idle());
        }
        assert_eq!(Unescape::default().pending(), None);
    }
}
