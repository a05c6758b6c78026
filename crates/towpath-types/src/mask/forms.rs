//! The forms in which a secret is looked for.

use super::{encoding, unescape::unescaped};
use crate::Secret;
use aho_corasick::{
    Anchored,
    automaton::{Automaton as _, StateID},
    nfa::contiguous::NFA,
};
use std::collections::{BTreeSet, HashMap};

/// Shorter values are not masked: they would take half of every log with them.
///
/// Source: <https://circleci.com/docs/guides/security/env-vars/#secrets-masking>
const SHORTEST: usize = 4;
/// An encoded form shorter than this would be found where no secret is.
const SHORTEST_ENCODED: usize = 6;
/// A value that spells line breaks as `\n`, like the key in a service account's file, is also printed with real ones. Its lines
/// are looked for from this length on: shorter ones are words.
const SHORTEST_SPELLED_LINE: usize = 16;
/// A longer form is looked for in parts: what may be the beginning of one is held back, and that stays little.
const LONGEST_PART: usize = 1024;
/// Up to this length a value is also looked for encoded twice, as the Secret of a registry's credentials has it.
const LONGEST_TWICE: usize = 512;
/// How many bytes of encoded forms are looked for: a bound on memory. Short values come first.
const MOST_ENCODED_BYTES: usize = 4 << 20;

/// What a few secrets are looked for by.
pub(super) struct Forms {
    /// The values, and these without quoting.
    pub texts: Automaton,
    /// The values in base64, base32 and hex: letters and digits only.
    pub encoded: Automaton,
}

/// Finds a few forms in a stream.
pub(super) struct Automaton {
    states: NFA,
    start: StateID,
    /// How many bytes of a form that goes on a state has seen.
    depths: HashMap<StateID, usize>,
    longest: usize,
    count: usize,
    /// Whether a byte begins no form.
    begins_none: [bool; 256],
}

impl Forms {
    /// `None` when there is nothing to look for.
    pub(super) fn new<'a, S: Secret + 'a>(secrets: impl IntoIterator<Item = &'a S>) -> Option<Self> {
        let mut values: BTreeSet<&[u8]> = BTreeSet::new();
        let mut texts = BTreeSet::new();
        for secret in secrets {
            let value = secret.bytes();
            let all = std::iter::once(value).chain(lines(value)).map(trimmed);
            values.extend(all.filter(|text| is_masked(text)));
            match std::str::from_utf8(value) {
                Ok(text) => values.extend(text.lines().flat_map(spelled_lines).map(str::as_bytes)),
                Err(_) => texts.extend(replaced_lines(value)),
            }
        }
        if values.is_empty() {
            return None;
        }
        for value in &values {
            add(&mut texts, value);
            let plain = unescaped(value);
            if is_masked(trimmed(&plain)) {
                add(&mut texts, &plain);
            }
        }
        let mut by_length: Vec<&[u8]> = values.into_iter().collect();
        by_length.sort_by_key(|value| value.len());
        let mut room = MOST_ENCODED_BYTES;
        let mut encoded = BTreeSet::new();
        for form in by_length.into_iter().flat_map(encoded_forms) {
            let Some(less) = room.checked_sub(form.len()) else {
                break;
            };
            room = less;
            add(&mut encoded, &form);
        }
        Some(Self {
            texts: Automaton::new(&texts)?,
            encoded: Automaton::new(&encoded)?,
        })
    }

    pub(super) fn count(&self) -> usize {
        self.texts.count + self.encoded.count
    }
}

impl Automaton {
    fn new(patterns: &BTreeSet<Vec<u8>>) -> Option<Self> {
        // Refused only past two thousand million states; an environment and a cluster's Secrets are smaller than that.
        let automaton = NFA::new(patterns).ok()?;
        let start = automaton.start_state(Anchored::No).ok()?;
        let mut depths = HashMap::new();
        let mut ends = Vec::new();
        for pattern in patterns {
            let mut state = start;
            for (seen, byte) in (0..).zip(pattern) {
                if state != start {
                    depths.insert(state, seen);
                }
                state = automaton.next_state(Anchored::No, state, *byte);
            }
            ends.push((state, pattern));
        }
        // Where no form goes on, something may still go on that began later: `defg` of `abcdefg` and `defghi`.
        for (end, pattern) in ends {
            if depths.contains_key(&end) {
                continue;
            }
            let mut rest = pattern.as_slice();
            while let Some((_, shorter)) = rest.split_first() {
                let state = shorter
                    .iter()
                    .fold(start, |state, byte| automaton.next_state(Anchored::No, state, *byte));
                match depths.get(&state).copied() {
                    Some(depth) => {
                        depths.insert(end, depth);
                        break;
                    }
                    None if state == start => break,
                    // Another form ends here.
                    None => rest = shorter,
                }
            }
        }
        let mut begins_none = [false; 256];
        for (byte, none) in (0..=u8::MAX).zip(begins_none.iter_mut()) {
            *none = automaton.next_state(Anchored::No, start, byte) == start;
        }
        Some(Self {
            start,
            depths,
            longest: patterns.iter().map(Vec::len).max().unwrap_or_default(),
            count: patterns.len(),
            begins_none,
            states: automaton,
        })
    }

    pub(super) fn start(&self) -> StateID {
        self.start
    }

    pub(super) fn next(&self, state: StateID, byte: u8) -> StateID {
        self.states.next_state(Anchored::No, state, byte)
    }

    /// The length of the longest form that ends in this state.
    pub(super) fn found(&self, state: StateID) -> Option<usize> {
        if !self.states.is_special(state) || !self.states.is_match(state) {
            return None;
        }
        let count = self.states.match_len(state);
        (0..count)
            .map(|index| self.states.pattern_len(self.states.match_pattern(state, index)))
            .max()
    }

    /// How many bytes of a form that goes on this state has seen.
    pub(super) fn depth(&self, state: StateID) -> usize {
        self.depths.get(&state).copied().unwrap_or_default()
    }

    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    pub(super) fn begins_none(&self, byte: u8) -> bool {
        self.begins_none[usize::from(byte)]
    }
}

/// The lines, without their line ends.
fn lines(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = value.split(|byte| *byte == b'\n');
    lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

fn trimmed(text: &[u8]) -> &[u8] {
    let is_blank = |byte: &u8| matches!(byte, b'\n' | b'\r' | b' ' | b'\t');
    let end = text.iter().rposition(|byte| !is_blank(byte)).map_or(0, |last| last + 1);
    let text = &text[..end];
    let start = text.iter().position(|byte| !is_blank(byte)).unwrap_or(end);
    &text[start..]
}

fn is_masked(text: &[u8]) -> bool {
    let length = std::str::from_utf8(text).map_or(text.len(), |text| text.chars().count());
    length >= SHORTEST && !matches!(text, b"true" | b"false")
}

/// The lines of a value that is not text, as programs show them that replace what is no text. Lines with little else are left
/// out: they would hide what is no secret.
fn replaced_lines(value: &[u8]) -> Vec<Vec<u8>> {
    let shown = lines(value).map(|line| String::from_utf8_lossy(trimmed(line)).into_owned());
    let is_telling = |text: &String| {
        let rest = text.chars().filter(|char| *char != char::REPLACEMENT_CHARACTER);
        text.contains(char::REPLACEMENT_CHARACTER) && rest.count() >= SHORTEST
    };
    let mut forms = BTreeSet::new();
    for text in shown.filter(is_telling) {
        add(&mut forms, text.as_bytes());
    }
    forms.into_iter().collect()
}

fn spelled_lines(line: &str) -> impl Iterator<Item = &str> {
    let lines = line.split("\\n").filter(|piece| piece.len() < line.len());
    lines
        .map(|piece| piece.trim_matches(['\\', ' ', '"', '\'']))
        .filter(|piece| piece.len() >= SHORTEST_SPELLED_LINE)
}

/// Adds a form, in parts if it is long.
fn add(patterns: &mut BTreeSet<Vec<u8>>, form: &[u8]) {
    if form.len() <= LONGEST_PART {
        patterns.insert(form.to_vec());
        return;
    }
    patterns.extend(form.chunks_exact(LONGEST_PART).map(<[u8]>::to_vec));
    patterns.insert(form[form.len() - LONGEST_PART..].to_vec());
}

/// `text` in base64, base32 and hex, as [`super::Masker`] compares these: letters and digits only.
fn encoded_forms(text: &[u8]) -> Vec<Vec<u8>> {
    let once = encoding::base64_anywhere(text);
    let mut forms = vec![encoding::hex(text, false), encoding::hex(text, true)];
    if text.len() <= LONGEST_TWICE {
        forms.extend(once.iter().flat_map(|form| encoding::base64_anywhere(form)));
    }
    forms.extend(once);
    forms.extend(encoding::base32_anywhere(text));
    if let Ok(text) = std::str::from_utf8(text) {
        let wide = encoding::utf16(text);
        forms.push(encoding::hex(&wide, false));
        forms.push(encoding::hex(&wide, true));
        forms.extend(encoding::base64_anywhere(&wide));
    }
    for form in &mut forms {
        form.retain(u8::is_ascii_alphanumeric);
    }
    forms.retain(|form| form.len() >= SHORTEST_ENCODED);
    forms
}
