//! One way to read a stream, and what it finds.

use super::{forms::Automaton, unescape::Unit};
use aho_corasick::automaton::StateID;

/// Where the automaton is in one of the readings.
#[derive(Debug)]
pub(super) struct Reading {
    pub state: StateID,
    /// Where the last bytes come from: as many as the longest form has. The length is a power of two.
    starts: Vec<u64>,
    count: usize,
}

impl Reading {
    pub(super) fn new(forms: &Automaton) -> Self {
        Self {
            state: forms.start(),
            starts: vec![0; forms.longest().next_power_of_two()],
            count: 0,
        }
    }

    fn start_of_last(&self, length: usize) -> u64 {
        self.starts[self.count.wrapping_sub(length) & (self.starts.len() - 1)]
    }

    /// Reads a byte. Answers the secret that ends with it.
    pub(super) fn read(&mut self, forms: &Automaton, unit: Unit) -> Option<(u64, u64)> {
        let mask = self.starts.len() - 1;
        self.starts[self.count & mask] = unit.start;
        self.count = self.count.wrapping_add(1);
        self.state = forms.next(self.state, unit.byte);
        let length = forms.found(self.state)?;
        Some((self.start_of_last(length), unit.end))
    }

    /// Where the beginning of a secret begins that this ends with.
    pub(super) fn pending(&self, forms: &Automaton) -> Option<u64> {
        match forms.depth(self.state) {
            0 => None,
            depth => Some(self.start_of_last(depth)),
        }
    }
}

/// Adds a secret, to the last one if they overlap.
pub(super) fn note(found: &mut Vec<(u64, u64)>, (mut start, mut end): (u64, u64)) {
    while let Some(last) = found.pop_if(|last| last.1 > start && last.0 < end) {
        start = start.min(last.0);
        end = end.max(last.1);
    }
    found.push((start, end));
}
