//! Which process holds a lock, so that a later one on the same machine need not wait to see that it is dead.

use serde::{Deserialize, Serialize};

/// A process of a machine, for as long as that is up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    /// The machine since it started, and which of its processes see each other's numbers.
    view: String,
    pid: u32,
    /// When it began, in ticks since the machine did: numbers are used again.
    began: u64,
}

impl Process {
    /// This process; `None` where the kernel does not tell.
    pub(super) fn this() -> Option<Self> {
        let pid = std::process::id();
        Some(Self {
            view: view()?,
            pid,
            began: began(pid)?,
        })
    }

    /// Whether it is certain that this process has ended.
    pub(super) fn is_gone(&self) -> bool {
        view().is_some_and(|view| view == self.view) && began(self.pid) != Some(self.began)
    }
}

fn view() -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = std::fs::read_link("/proc/self/ns/pid").ok()?;
    Some(format!("{} {}", boot.trim(), namespace.display()))
}

/// Source: <https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html> (field 22; field 3 is the state)
fn began(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name, in brackets, may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // One that only waits for its parent to notice has ended.
    let has_ended = matches!(*fields.first()?, "Z" | "X");
    if has_ended { None } else { fields.get(19)?.parse().ok() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_process_is_gone_when_it_has_ended_and_not_before() {
        let this = Process::this().unwrap();
        assert!(!this.is_gone());
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let of_child = Process {
            pid: child.id(),
            began: began(child.id()).unwrap(),
            ..this.clone()
        };
        assert!(!of_child.is_gone());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(of_child.is_gone());
        // Of another machine's processes nothing is known.
        let elsewhere = Process {
            view: "elsewhere".into(),
            ..of_child
        };
        assert!(!elsewhere.is_gone());
    }
}
