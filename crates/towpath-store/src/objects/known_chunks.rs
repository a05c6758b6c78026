//! A server's memory of the parts of logs in an object store, so that it need not list them each time.
//!
//! Parts never change, and no part is missing between two known ones, so what is remembered is correct as far as it
//! goes. Only merging removes parts; a reader that misses one forgets the log and lists it again.

use super::log::LogId;
use std::{
    collections::HashMap,
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
};
use towpath_types::JobId;

/// The number of logs to remember.
const LOGS: usize = 512;

/// The parts of logs that are being written or read.
#[derive(Debug, Default)]
pub(super) struct KnownChunks {
    logs: Mutex<HashMap<LogId, Vec<Range<u64>>>>,
}

impl KnownChunks {
    fn logs(&self) -> MutexGuard<'_, HashMap<LogId, Vec<Range<u64>>>> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The start of the last known part.
    pub(super) fn last_start(&self, log: LogId) -> Option<u64> {
        self.logs().get(&log)?.last().map(|chunk| chunk.start)
    }

    /// The known minimum length of the log; `None` if nothing is known.
    pub(super) fn length(&self, log: LogId) -> Option<u64> {
        self.logs().get(&log).map(|chunks| length(chunks))
    }

    /// Remembers parts, sorted by their start, and returns the known minimum length of the log.
    pub(super) fn add(&self, log: LogId, chunks: impl IntoIterator<Item = Range<u64>>) -> u64 {
        let mut logs = self.logs();
        if logs.len() >= LOGS
            && !logs.contains_key(&log)
            && let Some(other) = logs.keys().next().copied()
        {
            logs.remove(&other);
        }
        let known = logs.entry(log).or_default();
        for chunk in chunks {
            if known.last().is_none_or(|last| last.start < chunk.start) {
                known.push(chunk);
            }
        }
        length(known)
    }

    /// The bytes of the parts (by their start) that make up a range, as far as they are known.
    pub(super) fn pieces(&self, log: LogId, wanted: Range<u64>) -> Vec<(u64, Range<u64>)> {
        let logs = self.logs();
        let Some(chunks) = logs.get(&log) else {
            return Vec::new();
        };
        let mut pieces = Vec::new();
        let mut at = wanted.start;
        while at < wanted.end {
            let before = &chunks[..chunks.partition_point(|chunk| chunk.start <= at)];
            let Some(chunk) = before.iter().rev().find(|chunk| chunk.end > at) else {
                break;
            };
            let to = chunk.end.min(wanted.end);
            pieces.push((chunk.start, at..to));
            at = to;
        }
        pieces
    }

    pub(super) fn forget(&self, log: LogId) {
        self.logs().remove(&log);
    }

    pub(super) fn forget_job(&self, job: JobId) {
        self.logs()
            .retain(|log, _| !matches!(log, LogId::Step { job: of, .. } if *of == job));
    }
}

fn length(chunks: &[Range<u64>]) -> u64 {
    chunks.iter().map(|chunk| chunk.end).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use towpath_types::RunId;

    #[test]
    fn a_range_is_put_together_from_parts_that_may_overlap() {
        let (known, log) = (KnownChunks::default(), LogId::Run(RunId::from_u128(1)));
        assert_eq!(known.length(log), None);
        assert_eq!(known.add(log, []), 0);
        assert_eq!(known.length(log), Some(0));
        assert_eq!(known.add(log, vec![0..10, 10..20]), 20);
        assert_eq!(known.add(log, vec![10..20, 20..25]), 25);
        assert_eq!(known.last_start(log), Some(20));
        assert_eq!(known.pieces(log, 5..22), [(0, 5..10), (10, 10..20), (20, 20..22)]);
        assert_eq!(known.pieces(log, 25..30), []);
        known.forget(log);
        // A merged part, with a leftover one.
        known.add(log, vec![0..25, 10..20]);
        assert_eq!(known.length(log), Some(25));
        assert_eq!(known.pieces(log, 5..99), [(0, 5..25)]);
        assert_eq!(known.pieces(log, 12..22), [(10, 12..20), (0, 20..22)]);
    }

    #[test]
    fn only_so_many_logs_are_remembered() {
        let known = KnownChunks::default();
        for bits in 0..2_000 {
            known.add(LogId::Run(RunId::from_u128(bits)), vec![0..1, 1..2]);
        }
        assert_eq!(known.logs().len(), LOGS);
    }
}
