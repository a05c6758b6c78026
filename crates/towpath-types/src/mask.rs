//! Takes secrets out of text that passes by.

use crate::SecretString;
use aho_corasick::{AhoCorasick, MatchKind};
use std::{collections::BTreeSet, fmt, sync::Arc};

/// What stands in a secret's place.
const STARS: &[u8] = b"****";
/// Shorter values are not masked: they would take half of every log with them.
///
/// Source: <https://circleci.com/docs/guides/security/env-vars/#secrets-masking>
const SHORTEST: usize = 4;
/// An encoded form shorter than this would be found where no secret is.
const SHORTEST_ENCODED: usize = 6;

/// The secrets of one job, in every form in which they are looked for. Cheap to clone.
///
/// A value is masked when it has at least four characters and is neither `true` nor `false`; so are its base64 forms (both
/// alphabets, at any place in a longer encoded text), its percent-encoded form, and each line of a value of several lines.
#[derive(Clone)]
pub struct Mask(Arc<Forms>);

struct Forms {
    /// Sorted, so that "is this the beginning of one" is a binary search.
    patterns: Vec<Vec<u8>>,
    longest: usize,
    automaton: Option<AhoCorasick>,
}

/// Masks a stream of bytes that arrives in pieces.
///
/// A tail that may be the beginning of a secret is held back: at most as many bytes as the longest secret has. Whoever
/// reads the output live calls [`Masker::flush`] when nothing has come for a while; should the held beginning turn out to
/// be a secret after all, its remainder is still masked.
#[derive(Debug)]
pub struct Masker {
    mask: Mask,
    /// Bytes that a secret may still begin in.
    tail: Vec<u8>,
    /// How many of those have been given out already, as they were or as stars.
    given: usize,
    /// Whether stars were the last thing given out, so that a match that goes on needs no new ones.
    open: bool,
}

impl Mask {
    /// Prepares to look for `secrets`.
    #[must_use]
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a SecretString>) -> Self {
        let mut forms = BTreeSet::new();
        for secret in secrets {
            let value = secret.expose();
            for text in std::iter::once(value).chain(value.lines()) {
                let trimmed = text.trim_matches(['\n', '\r', ' ', '\t']);
                if trimmed.chars().count() >= SHORTEST && !matches!(trimmed, "true" | "false") {
                    forms.extend(forms_of(trimmed));
                }
            }
        }
        let patterns: Vec<Vec<u8>> = forms.into_iter().collect();
        // The automaton is refused only past four thousand million states; a job's specification is smaller than that.
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::Standard)
            .build(&patterns)
            .ok();
        Self(Arc::new(Forms {
            longest: patterns.iter().map(Vec::len).max().unwrap_or_default(),
            automaton: automaton.filter(|_| !patterns.is_empty()),
            patterns,
        }))
    }

    /// A masker for one stream.
    #[must_use]
    pub fn masker(&self) -> Masker {
        Masker {
            mask: self.clone(),
            tail: Vec::new(),
            given: 0,
            open: false,
        }
    }

    /// `text` without secrets.
    #[must_use]
    pub fn text(&self, text: &str) -> String {
        let mut masker = self.masker();
        let mut out = Vec::with_capacity(text.len());
        masker.push(text.as_bytes(), &mut out);
        masker.flush(&mut out);
        // Secrets are whole characters, so what is left is too.
        String::from_utf8_lossy(&out).into_owned()
    }
}

impl Forms {
    /// Where the earliest secret may begin that `bytes` ends in the middle of.
    fn pending(&self, bytes: &[u8]) -> usize {
        let first = (bytes.len() + 1).saturating_sub(self.longest);
        (first..bytes.len())
            .find(|&start| {
                let rest = &bytes[start..];
                let next = self.patterns.partition_point(|pattern| pattern.as_slice() <= rest);
                self.patterns.get(next).is_some_and(|pattern| pattern.starts_with(rest))
            })
            .unwrap_or(bytes.len())
    }
}

impl Masker {
    /// Takes `bytes` and appends to `out` what is certain.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.mask.0.automaton.is_none() {
            out.extend_from_slice(bytes);
            return;
        }
        self.tail.extend_from_slice(bytes);
        let pending = self.mask.0.pending(&self.tail);
        self.give(pending, out);
        self.tail.drain(..pending);
        self.given -= pending;
    }

    /// Gives out at least the first `limit` bytes of the tail, and all of a secret that begins in them.
    fn give(&mut self, limit: usize, out: &mut Vec<u8>) {
        let mask = Arc::clone(&self.mask.0);
        let Some(automaton) = &mask.automaton else {
            return;
        };
        // Secrets that overlap are one run of stars: what sticks out of one of them is part of another. The search
        // reports them by where they end.
        let mut covered: Vec<(usize, usize)> = Vec::new();
        for found in automaton.find_overlapping_iter(&self.tail) {
            let mut start = found.start();
            while let Some((previous, _)) = covered.pop_if(|(_, end)| *end > start) {
                start = start.min(previous);
            }
            covered.push((start, found.end()));
        }
        let mut at = self.given;
        for (start, end) in covered {
            if end <= at {
                continue;
            }
            if start >= limit {
                break;
            }
            if start > at {
                out.extend_from_slice(&self.tail[at..start]);
                self.open = false;
            }
            if !(self.open && start < at) {
                out.extend_from_slice(STARS);
            }
            self.open = true;
            at = end;
        }
        if at < limit {
            out.extend_from_slice(&self.tail[at..limit]);
            self.open = false;
            at = limit;
        }
        self.given = at;
    }

    /// Whether something is held back.
    #[must_use]
    pub fn holds_back(&self) -> bool {
        self.given < self.tail.len()
    }

    /// Appends to `out` what is held back: the stream has ended, or has been silent for long enough.
    pub fn flush(&mut self, out: &mut Vec<u8>) {
        self.give(self.tail.len(), out);
    }
}

impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mask({} forms)", self.0.patterns.len())
    }
}

fn forms_of(value: &str) -> Vec<Vec<u8>> {
    let bytes = value.as_bytes();
    let mut forms = vec![bytes.to_vec()];
    let mut encoded = vec![percent(bytes, false), percent(bytes, true)];
    for alphabet in [STANDARD, URL_SAFE] {
        encoded.push(base64(bytes, alphabet, true));
        // In a longer text the value begins at any of three places of a group of bytes; the digits at its edges depend
        // on its neighbours and are left out.
        for shift in 0..3 {
            let mut shifted = vec![0; shift];
            shifted.extend_from_slice(bytes);
            let whole = shifted.len() * 8 / 6;
            let first = (shift * 8).div_ceil(6);
            let digits = base64(&shifted, alphabet, false);
            encoded.push(digits[first.min(whole)..whole].to_vec());
        }
    }
    forms.extend(encoded.into_iter().filter(|form| form.len() >= SHORTEST_ENCODED));
    forms
}

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Source: <https://www.rfc-editor.org/rfc/rfc4648#section-4>
fn base64(bytes: &[u8], alphabet: &[u8; 64], padded: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for digit in 0..=group.len() {
            out.push(alphabet[(bits >> (18 - 6 * digit)) as usize & 63]);
        }
        if padded {
            out.resize(out.len() + 3 - group.len(), b'=');
        }
    }
    out
}

/// Source: <https://www.rfc-editor.org/rfc/rfc3986#section-2.1>; hex digits are upper case by rule and lower case in use.
fn percent(bytes: &[u8], lower: bool) -> Vec<u8> {
    let digits: &[u8; 16] = if lower {
        b"0123456789abcdef"
    } else {
        b"0123456789ABCDEF"
    };
    let mut out = Vec::with_capacity(bytes.len());
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            out.push(*byte);
        } else {
            out.extend_from_slice(&[b'%', digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]);
        }
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn mask(secrets: &[&str]) -> Mask {
        let secrets: Vec<SecretString> = secrets.iter().map(|s| SecretString::new((*s).to_string())).collect();
        Mask::new(&secrets)
    }

    /// The text in one piece, byte by byte, and cut in two at every place gives the same.
    fn check(secrets: &[&str], text: &str, expect: &str) {
        let mask = mask(secrets);
        assert_eq!(mask.text(text), expect, "{text}");
        let bytes = text.as_bytes();
        let run = |pieces: &mut dyn Iterator<Item = &[u8]>| {
            let (mut masker, mut out) = (mask.masker(), Vec::new());
            for piece in pieces {
                masker.push(piece, &mut out);
            }
            masker.flush(&mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(run(&mut bytes.chunks(1)), expect, "{text} byte by byte");
        for at in 0..=bytes.len() {
            assert_eq!(
                run(&mut [&bytes[..at], &bytes[at..]].into_iter()),
                expect,
                "{text} cut at {at}"
            );
        }
    }

    #[test]
    fn values_are_masked_wherever_the_pieces_end() {
        check(&[], "nothing to hide", "nothing to hide");
        check(&["hunter2"], "pass hunter2 word", "pass **** word");
        check(&["hunter2"], "hunter2hunter2", "********");
        check(&["hunter2"], "hunter", "hunter");
        check(&["hunter2"], "hunhunter2", "hun****");
        check(&["abcdef", "defghi"], "xabcdefghix", "x****x");
        check(&["abcd", "abcdefgh"], "abcdefgh abcdefg", "**** ****efg");
        check(&["bcde", "abcdef"], "abcdef abcde", "**** a****");
        check(&["aaaa"], "aaaaaaaaaaab", "****b");
        check(&["ünïcödé"], "é ünïcödé é", "é **** é");
    }

    #[test]
    fn short_values_and_booleans_are_left_alone() {
        check(
            &["abc", "true", "false", "", "    "],
            "abc true false",
            "abc true false",
        );
        check(&["äöüß"], "äöüß", "****");
    }

    #[test]
    fn encoded_forms_are_masked() {
        check(
            &["p@ss/w0rd!"],
            "url p%40ss%2Fw0rd%21 and p%40ss%2fw0rd%21",
            "url **** and ****",
        );
        check(&["hunter2"], "aHVudGVyMg==", "****");
        // user:hunter2 and admin:hunter2 in the three alignments
        check(&["hunter22"], "dXNlcjpodW50ZXIyMg==", "dXNlcjp****g==");
        let mask = mask(&["correct-horse?>"]);
        for (shift, alphabet) in [(0, STANDARD), (1, STANDARD), (2, URL_SAFE), (4, URL_SAFE)] {
            let text = [&vec![b'u'; shift], "correct-horse?>".as_bytes(), b"tail"].concat();
            let shown = mask.text(std::str::from_utf8(&base64(&text, alphabet, true)).unwrap());
            assert!(shown.contains("****") && shown.len() < 20, "{shown}");
        }
    }

    #[test]
    fn a_value_of_several_lines_is_masked_line_by_line() {
        check(
            &["-----BEGIN-----\nMIIEow\n}\n"],
            "-----BEGIN-----\r\nMIIEow\n}\n",
            "****\r\n****\n}\n",
        );
    }

    #[test]
    fn what_is_held_back_is_bounded_and_given_out_when_asked() {
        let mask = mask(&["hunter2"]);
        let (mut masker, mut out) = (mask.masker(), Vec::new());
        masker.push(b"password: hun", &mut out);
        assert_eq!(out, b"password: ");
        assert!(masker.holds_back());
        masker.flush(&mut out);
        assert_eq!(out, b"password: hun");
        assert!(!masker.holds_back());
        masker.push(b"ter2 and", &mut out);
        masker.flush(&mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "password: hun**** and");

        let (mut masker, mut out) = (mask.masker(), Vec::new());
        for _ in 0..1000 {
            masker.push(b"hunter", &mut out);
            assert!(masker.tail.len() < 7);
        }
    }

    #[test]
    fn nothing_of_it_prints() {
        assert!(!format!("{:?}", mask(&["hunter2"]).masker()).contains("hunter2"));
    }
}
