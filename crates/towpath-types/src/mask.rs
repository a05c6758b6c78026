//! Takes secrets out of text that passes by.

mod encoding;
mod forms;
mod numbers;
mod reading;
mod unescape;

use crate::Secret;
use aho_corasick::automaton::StateID;
use forms::{Automaton, Forms};
use numbers::{Numbers, Stream};
use reading::{Reading, note};
use std::{fmt, sync::Arc};
use unescape::{Unescape, Unit};

/// What stands in a secret's place.
const STARS: &[u8] = b"****";
/// What may be the beginning of a secret is held back up to this many bytes of the stream.
const MOST_HELD: u64 = 64 << 10;
/// How much of what was given out is remembered, to tell what a line ends with.
const REMEMBERED: usize = 64;
/// A line that ends with so many digits of base64 or hex may go on in the next line.
const WRAPPED: usize = 16;
/// So many digits of an encoded secret at the end of a line are no chance.
const SURE: usize = 4;

/// The secrets of one job, in every form in which they are looked for. Cheap to clone.
///
/// A value is masked when it has at least four characters (bytes, if it is not text) and is neither `true` nor `false`; so is each
/// line of a value of several lines. It is found as it is; quoted by shells, JSON, HTML, URLs and programming languages, several
/// times over and mixed; with a terminal's control sequences inside; in base64 (both alphabets, at any place in a longer encoded
/// text, once or twice, also of UTF-16), base32 and hex, in one piece or wrapped; and as a list or a dump of numbers. One that is
/// not text is also found as programs show it that replace what is no text (U+FFFD). Encoded forms of very long values are not
/// looked for beyond 4 MiB in all.
#[derive(Clone)]
pub struct Mask(Option<Arc<Forms>>);

/// Masks a stream of bytes that arrives in pieces.
///
/// A tail that may be the beginning of a secret is held back until it is decided what it is, however long that takes: at most
/// as many bytes as the longest secret has, or 64 KiB where much of it is quoting.
#[derive(Debug)]
pub struct Masker {
    mask: Mask,
    style: Style,
    /// Bytes that are not given out yet, behind some that are.
    tail: Vec<u8>,
    /// Where the tail begins, counted from the beginning of the stream.
    base: u64,
    /// Up to where bytes have been given out, as they were or as stars.
    given: u64,
    /// Whether stars were the last thing given out, so that a secret that goes on needs no new ones.
    open: bool,
    /// Secrets that were found and are not given out yet.
    found: Vec<(u64, u64)>,
    search: Option<Search>,
}

/// What a secret becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    /// Four stars.
    Short,
    /// As many stars as it has bytes.
    SameLength,
}

/// The ways in which a stream is read at once.
#[derive(Debug)]
struct Search {
    /// As it is.
    plain: StateID,
    unescape: Unescape,
    /// Without quoting.
    unescaped: Reading,
    /// Without quoting, blanks and line breaks: how base64 and hex are wrapped.
    unwrapped: Reading,
    numbers: Numbers,
}

impl Mask {
    /// Prepares to look for `secrets`.
    #[must_use]
    pub fn new<'a, S: Secret + 'a>(secrets: impl IntoIterator<Item = &'a S>) -> Self {
        Self(Forms::new(secrets).map(Arc::new))
    }

    /// A masker for one stream.
    #[must_use]
    pub fn masker(&self) -> Masker {
        self.masker_of(Style::Short)
    }

    fn masker_of(&self, style: Style) -> Masker {
        Masker {
            search: self.0.as_deref().map(Search::new),
            mask: self.clone(),
            style,
            tail: Vec::new(),
            base: 0,
            given: 0,
            open: false,
            found: Vec::new(),
        }
    }

    /// `text` without secrets.
    #[must_use]
    pub fn text(&self, text: &str) -> String {
        if self.0.is_none() {
            return text.to_string();
        }
        let mut out = Vec::with_capacity(text.len());
        let mut masker = self.masker();
        masker.push(text.as_bytes(), &mut out);
        masker.finish(&mut out);
        // A form of a secret may end inside a character.
        String::from_utf8_lossy(&out).into_owned()
    }

    /// The beginning of `piece`, of the same length but with stars for secrets: all of it but what may be the beginning of a
    /// secret, which is to come again in front of what follows. Behind the `last` piece nothing follows.
    #[must_use]
    pub fn in_place(&self, piece: &[u8], last: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(piece.len());
        let mut masker = self.masker_of(Style::SameLength);
        masker.push(piece, &mut out);
        if last {
            masker.finish(&mut out);
        }
        out
    }
}

impl Search {
    fn new(forms: &Forms) -> Self {
        Self {
            plain: forms.texts.start(),
            unescape: Unescape::default(),
            unescaped: Reading::new(&forms.texts),
            unwrapped: Reading::new(&forms.encoded),
            numbers: Numbers::new(&forms.texts),
        }
    }

    fn is_idle(&self, forms: &Forms) -> bool {
        self.plain == forms.texts.start()
            && self.unescaped.state == forms.texts.start()
            && self.unwrapped.state == forms.encoded.start()
            && self.unescape.is_idle()
            && self.numbers.is_idle(&forms.texts)
    }

    /// Reads the byte of `text` at `index`. The first of `text` is at `base` of the stream.
    fn read(&mut self, forms: &Forms, (text, base): (&[u8], u64), index: usize, found: &mut Vec<(u64, u64)>) {
        let (byte, at) = (text[index], base + index as u64);
        self.plain = forms.texts.next(self.plain, byte);
        if let Some(length) = forms.texts.found(self.plain) {
            note(found, (at + 1 - length as u64, at + 1));
        }
        self.numbers.push(&forms.texts, Stream { text, base }, at, byte, found);
        let (unescaped, unwrapped) = (&mut self.unescaped, &mut self.unwrapped);
        self.unescape.push(byte, at, &mut |unit| {
            found_in(unescaped.read(&forms.texts, unit), found);
            found_in(unwrap(&forms.encoded, unwrapped, unit, (text, base)), found);
        });
    }

    fn finish(&mut self, forms: &Forms, (text, base): (&[u8], u64), found: &mut Vec<(u64, u64)>) {
        self.numbers.finish(&forms.texts, Stream { text, base }, found);
        let (unescaped, unwrapped) = (&mut self.unescaped, &mut self.unwrapped);
        self.unescape.finish(&mut |unit| {
            found_in(unescaped.read(&forms.texts, unit), found);
            found_in(unwrap(&forms.encoded, unwrapped, unit, (text, base)), found);
        });
    }

    /// Where the earliest thing begins that may become a secret. `end` is where the stream is.
    fn pending(&mut self, forms: &Forms, end: u64) -> u64 {
        let readings = [
            self.unescaped.pending(&forms.texts),
            self.unwrapped.pending(&forms.encoded),
            self.unescape.pending(),
            self.numbers.pending(&forms.texts),
        ];
        let mut quoted = readings.into_iter().flatten().min().unwrap_or(end);
        if end - quoted > MOST_HELD {
            let plain = self.plain;
            *self = Self::new(forms);
            self.plain = plain;
            quoted = end;
        }
        quoted.min(end - forms.texts.depth(self.plain) as u64)
    }
}

/// Reads a byte as part of something encoded, if it can be. Answers the secret that ends with it.
fn unwrap(forms: &Automaton, reading: &mut Reading, unit: Unit, (text, base): (&[u8], u64)) -> Option<(u64, u64)> {
    match unit.byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => return reading.read(forms, unit),
        // Digits of base64 that its two alphabets do not share, padding, and what stands between bytes in hex.
        b' ' | b'\t' | b'-' | b'_' | b'/' | b'=' | b':' | b',' => {}
        // Every line ends with some letter. Were it held back because an encoded secret begins with the same, people would
        // wait for the last letter of what they watch.
        b'\n' => {
            let depth = forms.depth(reading.state);
            if depth > 0 && depth < SURE {
                let before = usize::try_from(unit.start.saturating_sub(base)).unwrap_or_default();
                if !may_be_wrapped(&text[..before.min(text.len())]) {
                    reading.state = forms.start();
                }
            }
        }
        _ => reading.state = forms.start(),
    }
    None
}

/// Whether a line that ends so may be one of several of base64 or hex.
fn may_be_wrapped(line: &[u8]) -> bool {
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/-_=".contains(byte);
    let is_between = |byte: &u8| b" :\t,".contains(byte);
    let base64 = line.iter().rev().take_while(|byte| is_base64(byte)).count();
    let hex = line
        .iter()
        .rev()
        .take_while(|byte| byte.is_ascii_hexdigit() || is_between(byte));
    base64 >= WRAPPED || hex.filter(|byte| !is_between(byte)).count() >= WRAPPED
}

fn found_in(secret: Option<(u64, u64)>, found: &mut Vec<(u64, u64)>) {
    if let Some(secret) = secret {
        note(found, secret);
    }
}

impl Masker {
    /// Takes `bytes` and appends to `out` what is certain.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let (Some(forms), Some(search)) = (self.mask.0.clone(), &mut self.search) else {
            out.extend_from_slice(bytes);
            return;
        };
        let mut index = self.tail.len();
        self.tail.extend_from_slice(bytes);
        let text = (self.tail.as_slice(), self.base);
        while index < self.tail.len() {
            if search.is_idle(&forms) {
                let passes = |byte: &u8| {
                    forms.texts.begins_none(*byte)
                        && forms.encoded.begins_none(*byte)
                        && Unescape::is_plain(*byte)
                        && Numbers::is_plain(*byte)
                };
                index += self.tail[index..].iter().take_while(|byte| passes(byte)).count();
                if index == self.tail.len() {
                    break;
                }
            }
            search.read(&forms, text, index, &mut self.found);
            index += 1;
        }
        let end = self.base + self.tail.len() as u64;
        let pending = search.pending(&forms, end);
        self.give(pending, out);
    }

    /// Appends to `out` what is held back: the stream has ended.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        let end = self.base + self.tail.len() as u64;
        if let (Some(forms), Some(search)) = (self.mask.0.clone(), &mut self.search) {
            search.finish(&forms, (&self.tail, self.base), &mut self.found);
            *search = Search::new(&forms);
        }
        self.give(end, out);
    }

    /// Gives out everything before `limit`, and all of a secret that begins before it.
    fn give(&mut self, limit: u64, out: &mut Vec<u8>) {
        let mut found = std::mem::take(&mut self.found);
        found.sort_unstable();
        let mut rest = found.drain(..).peekable();
        while let Some((start, mut end)) = rest.next_if(|(start, _)| *start < limit) {
            // Secrets that overlap are one run of stars: what sticks out of one of them is part of another.
            while let Some((_, further)) = rest.next_if(|(next, _)| *next < end) {
                end = end.max(further);
            }
            if end <= self.given {
                continue;
            }
            self.give_plain(start, out);
            let goes_on = self.open && start < self.given;
            match self.style {
                Style::SameLength => out.extend((self.given..end).map(|_| b'*')),
                Style::Short if goes_on => {}
                Style::Short => out.extend_from_slice(STARS),
            }
            self.open = true;
            self.given = end;
        }
        self.found = rest.collect();
        self.give_plain(limit, out);
        let known = usize::try_from(self.given - self.base)
            .unwrap_or_default()
            .saturating_sub(REMEMBERED);
        self.tail.drain(..known);
        self.base += known as u64;
    }

    fn give_plain(&mut self, limit: u64, out: &mut Vec<u8>) {
        if limit > self.given {
            let index = |at: u64| usize::try_from(at - self.base).unwrap_or(usize::MAX);
            out.extend_from_slice(&self.tail[index(self.given)..index(limit)]);
            self.open = false;
            self.given = limit;
        }
    }
}

impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mask({} forms)", self.0.as_ref().map_or(0, |forms| forms.count()))
    }
}

#[cfg(test)]
#[path = "mask/tests.rs"]
mod tests;
