//! Text that is printed as numbers, one for each byte or for a few.
//!
//! Lists (`[104, 117]`, `0x68,0x75`, `104 117`) and dumps (`xxd`, `hexdump`, `hexdump -C`, `od` with `-x`, `-b`, `-c`, `-t`) say
//! the same bytes in several notations. One token may be a number in more than one of them, so each notation is read on its own.
//! A line of a dump begins with an offset and may end with the text itself: neither is part of the numbers.

use super::{
    forms::Automaton,
    reading::{Reading, note},
    unescape::Unit,
};

/// The digits of one number: eight bytes in hex behind `0x`.
const LONGEST_TOKEN: usize = 18;
/// How many hex digits an offset has. Source: the manuals of `od` (7), `xxd` and `hexdump` (8).
const OFFSET: std::ops::RangeInclusive<usize> = 7..=16;
/// So few numbers at the end of a line that is no list are chance.
const SURE: usize = 4;
/// How many bytes of text a line of a dump may end with.
const LONGEST_TEXT: u64 = 512;
/// The width of a cell of `od -c`.
const CELL: usize = 4;

/// How a number says bytes.
#[derive(Debug, Clone, Copy)]
enum Notation {
    /// `104`, and `-61` where bytes are signed.
    Decimal,
    /// `150`, `0o150`; words of six digits as `od` prints them, the low byte first.
    Octal,
    /// `68`, `6875`, `0x68`.
    Hex,
    /// `7568`: words as `hexdump` and `od -x` print them, the low byte first.
    HexWords,
}

const NOTATIONS: [Notation; 4] = [Notation::Decimal, Notation::Octal, Notation::Hex, Notation::HexWords];

/// Reads numbers, and finds secrets in what they say.
#[derive(Debug)]
pub(super) struct Numbers {
    readings: [Reading; NOTATIONS.len()],
    /// The cells of `od -c`.
    cells: Reading,
    token: Token,
    line: Line,
    /// A secret on this line of a dump. The line ends with the text of it, which belongs to it.
    on_line: Option<(u64, u64)>,
}

#[derive(Debug, Clone, Copy)]
enum Token {
    /// None, or a word, which says nothing.
    None,
    /// What may be a number, with the place of its first byte.
    Number(u64),
}

#[derive(Debug, Clone, Copy)]
enum Line {
    Any,
    /// A line that begins with an offset.
    Dump {
        /// Behind the offset.
        begin: u64,
        /// Whether two blanks end the numbers: so it is behind an offset with a colon.
        colon: bool,
        /// Whether it may be of `od -c` so far.
        cells: bool,
        column: Column,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Numbers,
    Text,
}

/// The stream around the byte that is read.
#[derive(Clone, Copy)]
pub(super) struct Stream<'a> {
    pub text: &'a [u8],
    /// Where the text begins, counted from the beginning of the stream.
    pub base: u64,
}

impl Stream<'_> {
    fn slice(&self, start: u64, end: u64) -> &[u8] {
        let index = |at: u64| usize::try_from(at.saturating_sub(self.base)).unwrap_or(usize::MAX);
        self.text.get(index(start)..index(end)).unwrap_or_default()
    }

    fn before(&self, at: u64) -> Option<u8> {
        self.slice(at.checked_sub(1)?, at).first().copied()
    }
}

impl Numbers {
    pub(super) fn new(forms: &Automaton) -> Self {
        Self {
            readings: NOTATIONS.map(|_| Reading::new(forms)),
            cells: Reading::new(forms),
            token: Token::None,
            line: Line::Any,
            on_line: None,
        }
    }

    /// Whether `byte` says nothing while [`Self::is_idle`].
    pub(super) fn is_plain(byte: u8) -> bool {
        !byte.is_ascii_hexdigit()
    }

    pub(super) fn is_idle(&self, forms: &Automaton) -> bool {
        let start = |reading: &Reading| reading.state == forms.start();
        matches!((self.token, self.line), (Token::None, Line::Any))
            && start(&self.cells)
            && self.readings.iter().all(start)
    }

    /// Where the earliest number begins that may be of a secret.
    pub(super) fn pending(&self, forms: &Automaton) -> Option<u64> {
        let token = match self.token {
            Token::Number(start) => Some(start),
            Token::None => None,
        };
        let readings = self.readings.iter().chain([&self.cells]);
        readings
            .filter_map(|reading| reading.pending(forms))
            .chain(token)
            .chain(self.on_line.map(|(start, _)| start))
            .min()
    }

    /// Reads the byte at `at`.
    pub(super) fn push(
        &mut self,
        forms: &Automaton,
        stream: Stream<'_>,
        at: u64,
        byte: u8,
        found: &mut Vec<(u64, u64)>,
    ) {
        if byte == b'\n' {
            self.end_token(forms, stream, at, byte, found);
            self.end_line(forms, stream, at, found);
            return;
        }
        self.read_cell(forms, stream, at);
        // A line this long is no dump.
        if let Some(secret) = self.on_line.take_if(|(_, end)| at.saturating_sub(*end) > LONGEST_TEXT) {
            note(found, secret);
        }
        if matches!(
            self.line,
            Line::Dump {
                column: Column::Text,
                ..
            }
        ) {
            return;
        }
        match byte {
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => match self.token {
                Token::Number(start) if at - start >= LONGEST_TOKEN as u64 => {
                    self.token = Token::None;
                    self.forget(forms);
                }
                Token::Number(_) => {}
                Token::None if byte.is_ascii_hexdigit() && !is_word(stream.before(at)) => {
                    self.token = Token::Number(at)
                }
                Token::None => self.forget(forms),
            },
            b' ' | b'\t' | b'\r' | b',' | b':' | b';' | b'-' | b'[' | b']' | b'(' | b')' | b'{' | b'}' => {
                self.end_token(forms, stream, at, byte, found);
                if let Line::Dump {
                    begin,
                    colon: true,
                    column,
                    ..
                } = &mut self.line
                    && byte == b' '
                    && at > *begin + 1
                    && stream.before(at) == Some(b' ')
                {
                    *column = Column::Text;
                }
            }
            b'|' | b'>' if matches!(self.line, Line::Dump { .. }) => {
                self.end_token(forms, stream, at, byte, found);
                if let Line::Dump { column, .. } = &mut self.line {
                    *column = Column::Text;
                }
            }
            _ => {
                self.token = Token::None;
                self.forget(forms);
            }
        }
    }

    /// Takes the number that is pending: nothing follows.
    pub(super) fn finish(&mut self, forms: &Automaton, stream: Stream<'_>, found: &mut Vec<(u64, u64)>) {
        let end = stream.base + stream.text.len() as u64;
        self.end_token(forms, stream, end, b'\n', found);
        self.end_line(forms, stream, end, found);
    }

    fn forget(&mut self, forms: &Automaton) {
        for reading in &mut self.readings {
            reading.state = forms.start();
        }
    }

    fn end_token(&mut self, forms: &Automaton, stream: Stream<'_>, end: u64, by: u8, found: &mut Vec<(u64, u64)>) {
        let Token::Number(start) = std::mem::replace(&mut self.token, Token::None) else {
            return;
        };
        let text = stream.slice(start, end);
        let before = stream.before(start);
        if matches!(self.line, Line::Any)
            && matches!(before, None | Some(b'\n'))
            && OFFSET.contains(&text.len())
            && text.iter().all(u8::is_ascii_hexdigit)
            && matches!(by, b':' | b' ')
        {
            self.line = Line::Dump {
                begin: end + u64::from(by == b':'),
                colon: by == b':',
                cells: by == b' ',
                column: Column::Numbers,
            };
            return;
        }
        let is_dump = matches!(self.line, Line::Dump { .. });
        for (reading, notation) in self.readings.iter_mut().zip(NOTATIONS) {
            let Some(bytes) = notation.bytes(text, before == Some(b'-')) else {
                reading.state = forms.start();
                continue;
            };
            for byte in bytes {
                if let Some(secret) = reading.read(forms, Unit { byte, start, end }) {
                    keep(is_dump, &mut self.on_line, found, secret);
                }
            }
        }
    }

    /// Reads the cells of `od -c`: a blank at least, and a character, an escape or three octal digits at the right.
    fn read_cell(&mut self, forms: &Automaton, stream: Stream<'_>, at: u64) {
        let Line::Dump {
            begin,
            cells: cells @ true,
            ..
        } = &mut self.line
        else {
            return;
        };
        let end = at + 1;
        if !(end - *begin).is_multiple_of(CELL as u64) {
            return;
        }
        let start = end - CELL as u64;
        match cell(stream.slice(start, end)) {
            Some(byte) => {
                if let Some(secret) = self.cells.read(forms, Unit { byte, start, end }) {
                    keep(true, &mut self.on_line, &mut Vec::new(), secret);
                }
            }
            None => {
                *cells = false;
                self.cells.state = forms.start();
            }
        }
    }

    fn end_line(&mut self, forms: &Automaton, stream: Stream<'_>, end: u64, found: &mut Vec<(u64, u64)>) {
        match std::mem::replace(&mut self.line, Line::Any) {
            Line::Dump { .. } => {
                if let Some((start, _)) = self.on_line.take() {
                    note(found, (start, end));
                }
            }
            Line::Any => {
                self.cells.state = forms.start();
                // Many a line ends with a number. Were it held back because a secret begins with the same, people would wait
                // for the last line of what they watch.
                let is_list = stream.before(end) == Some(b',');
                for reading in &mut self.readings {
                    if !is_list && (1..SURE).contains(&forms.depth(reading.state)) {
                        reading.state = forms.start();
                    }
                }
            }
        }
    }
}

/// A secret in a dump is noted at the end of the line.
fn keep(is_dump: bool, on_line: &mut Option<(u64, u64)>, found: &mut Vec<(u64, u64)>, (start, end): (u64, u64)) {
    if is_dump {
        let earlier = on_line.map_or(start, |(earlier, _)| earlier.min(start));
        *on_line = Some((earlier, end));
    } else {
        note(found, (start, end));
    }
}

fn is_word(byte: Option<u8>) -> bool {
    byte.is_some_and(|byte| byte.is_ascii_alphanumeric())
}

impl Notation {
    /// The bytes that `token` says; `None` if it is no number in this notation.
    fn bytes(self, token: &[u8], negative: bool) -> Option<Vec<u8>> {
        let text = std::str::from_utf8(token).ok()?;
        let number = |digits: &str, radix| u64::from_str_radix(digits, radix).ok();
        let byte = |number: u64| u8::try_from(number).ok().map(|byte| vec![byte]);
        match self {
            Self::Decimal if text.len() <= 3 => {
                let byte = u8::try_from(number(text, 10)?).ok()?;
                Some(vec![if negative { byte.wrapping_neg() } else { byte }])
            }
            Self::Octal => match text.strip_prefix("0o") {
                Some(digits) => byte(number(digits, 8)?),
                None if text.len() == 6 => {
                    let word = u16::try_from(number(text, 8)?).ok()?;
                    Some(word.to_le_bytes().to_vec())
                }
                None if matches!(text.len(), 3 | 4) => byte(number(text, 8)?),
                None => None,
            },
            Self::Hex => match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
                Some(digits) if digits.len() == 1 => byte(number(digits, 16)?),
                Some(digits) => hex::decode(digits).ok(),
                None if matches!(text.len(), 2 | 4 | 8 | 16) => hex::decode(text).ok(),
                None => None,
            },
            Self::HexWords if matches!(text.len(), 4 | 8 | 16) => {
                let mut bytes = hex::decode(text).ok()?;
                bytes.reverse();
                Some(bytes)
            }
            Self::Decimal | Self::HexWords => None,
        }
    }
}

/// The byte of a cell of `od -c`.
///
/// Source: <https://www.gnu.org/software/coreutils/manual/html_node/od-invocation.html>
fn cell(cell: &[u8]) -> Option<u8> {
    Some(match cell {
        [b' ', b' ', b' ', byte] => *byte,
        [b' ', b' ', b'\\', letter] => match letter {
            b'0' => 0,
            b'a' => 0x07,
            b'b' => 0x08,
            b't' => b'\t',
            b'n' => b'\n',
            b'v' => 0x0b,
            b'f' => 0x0c,
            b'r' => b'\r',
            _ => return None,
        },
        [b' ', digits @ ..] => {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()?
        }
        _ => return None,
    })
}
