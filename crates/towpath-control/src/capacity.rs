//! Which waiting jobs start now: a pure decision from the queue, the running jobs and the machine's capacity.

use std::collections::BTreeMap;
use towpath_store::{Work, WorkKey};
use towpath_types::ProjectName;

/// What a machine has, or what a job needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capacity {
    /// Processors, in thousandths of one.
    pub cpu_millis: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
}

impl Capacity {
    fn fits(self, need: Self) -> bool {
        need.cpu_millis <= self.cpu_millis && need.memory_bytes <= self.memory_bytes
    }

    fn less(self, need: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_sub(need.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_sub(need.memory_bytes),
        }
    }

    /// Caps `self` at what a machine with `all` has.
    #[must_use]
    pub fn at_most(self, all: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.min(all.cpu_millis),
            memory_bytes: self.memory_bytes.min(all.memory_bytes),
        }
    }
}

/// A job that runs here.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Occupant {
    pub project: Option<ProjectName>,
    pub needs: Capacity,
}

/// The jobs of `queue` (oldest first) that begin now on a machine with `all`, while `running` run there.
///
/// - Projects take turns: the next to begin is the oldest job of the project that has the fewest jobs running, and of
///   several such projects the one whose job waits longest.
/// - A job that needs more than the machine has counts as needing all of it: it runs alone rather than never.
/// - A job that does not fit now keeps its turn: nothing overtakes it within its project, and once it is the oldest of the
///   queue, nothing overtakes it at all, so a large job does not starve behind small ones.
#[must_use]
pub fn choose(queue: &[Work], running: &[Occupant], all: Capacity) -> Vec<WorkKey> {
    let mut free = running
        .iter()
        .fold(all, |free, occupant| free.less(occupant.needs.at_most(all)));
    let mut busy: BTreeMap<Option<&ProjectName>, usize> = BTreeMap::new();
    for occupant in running {
        *busy.entry(occupant.project.as_ref()).or_default() += 1;
    }
    let mut waiting: BTreeMap<Option<&ProjectName>, Vec<(usize, &Work)>> = BTreeMap::new();
    for (place, work) in queue.iter().enumerate().rev() {
        waiting.entry(work.project.as_ref()).or_default().push((place, work));
    }
    let mut chosen = Vec::new();
    loop {
        let next = waiting
            .iter()
            .filter_map(|(project, jobs)| {
                let (place, work) = jobs.last()?;
                Some((busy.get(project).copied().unwrap_or_default(), *place, *project, *work))
            })
            .min_by_key(|(running, place, _, _)| (*running, *place));
        let Some((_, place, project, work)) = next else {
            return chosen;
        };
        let need = Capacity {
            cpu_millis: work.cpu_millis,
            memory_bytes: work.memory_bytes,
        }
        .at_most(all);
        if free.fits(need) {
            free = free.less(need);
            *busy.entry(project).or_default() += 1;
            chosen.push(work.key.clone());
            if let Some(jobs) = waiting.get_mut(&project) {
                jobs.pop();
            }
            continue;
        }
        if place == 0 {
            // Start nothing until enough of the machine is free for the oldest job.
            return chosen;
        }
        // Later jobs of this project wait behind this one.
        waiting.remove(&project);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use jiff::Timestamp;
    use towpath_store::WorkKind;

    fn work(key: &str, project: &str, cpus: u64) -> Work {
        Work {
            project: Some(project.parse().unwrap()),
            cpu_millis: cpus * 1000,
            memory_bytes: cpus << 30,
            ..Work::new(WorkKey::new(WorkKind::Job, key), Timestamp::UNIX_EPOCH)
        }
    }

    fn occupant(project: &str, cpus: u64) -> Occupant {
        Occupant {
            project: Some(project.parse().unwrap()),
            needs: machine(cpus),
        }
    }

    fn machine(cpus: u64) -> Capacity {
        Capacity {
            cpu_millis: cpus * 1000,
            memory_bytes: cpus << 30,
        }
    }

    fn check(queue: &[Work], running: &[Occupant], cpus: u64, expected: &[&str]) {
        let chosen = choose(queue, running, machine(cpus));
        let keys: Vec<&str> = chosen.iter().map(|key| key.key.as_str()).collect();
        assert_eq!(keys, expected);
    }

    #[test]
    fn as_many_begin_as_fit() {
        let queue = [work("a", "p", 1), work("b", "p", 1), work("c", "p", 1)];
        check(&queue, &[], 2, &["a", "b"]);
        check(&queue, &[occupant("p", 1)], 2, &["a"]);
        check(&queue, &[occupant("p", 2)], 2, &[]);
        check(&[], &[], 2, &[]);
    }

    #[test]
    fn projects_take_turns() {
        let queue = [
            work("a1", "a", 1),
            work("a2", "a", 1),
            work("a3", "a", 1),
            work("b1", "b", 1),
        ];
        check(&queue, &[], 2, &["a1", "b1"]);
        check(&queue, &[occupant("a", 1)], 3, &["b1", "a1"]);
    }

    #[test]
    fn a_job_larger_than_the_machine_runs_alone() {
        let queue = [work("huge", "a", 20), work("small", "b", 1)];
        check(&queue, &[], 4, &["huge"]);
        check(&queue, &[occupant("c", 1)], 4, &[]);
    }

    #[test]
    fn the_oldest_job_is_not_overtaken_for_ever() {
        let queue = [work("large", "a", 4), work("small", "b", 1)];
        check(&queue, &[occupant("b", 1)], 4, &[]);
        check(&queue, &[], 4, &["large"]);
    }

    #[test]
    fn a_job_that_does_not_fit_lets_other_projects_pass_while_it_is_not_the_oldest() {
        let queue = [
            work("old", "a", 1),
            work("large", "b", 4),
            work("later", "b", 1),
            work("c", "c", 1),
        ];
        check(&queue, &[], 3, &["old", "c"]);
    }
}
