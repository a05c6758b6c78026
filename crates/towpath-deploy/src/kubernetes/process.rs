//! Identifies the process that holds a lock. A later process on the same machine sees at once that it is dead, without waiting
//! for the lock to expire.

use serde::{Deserialize, Serialize};

/// A process on a machine, until that machine reboots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    /// Identifies the machine, its boot, and the namespace of process ids.
    view: String,
    pid: u32,
    /// When it started, in ticks since the machine booted: process ids are reused.
    started: u64,
}

impl Process {
    /// This process; `None` if the kernel does not provide the data.
    pub(super) fn this() -> Option<Self> {
        let pid = std::process::id();
        Some(Self {
            view: view()?,
            pid,
            started: started(pid)?,
        })
    }

    /// Whether this process has certainly ended.
    pub(super) fn is_gone(&self) -> bool {
        view().is_some_and(|view| view == self.view) && started(self.pid) != Some(self.started)
    }
}

fn view() -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = std::fs::read_link("/proc/self/ns/pid").ok()?;
    Some(format!("{} {}", boot.trim(), namespace.display()))
}

/// Source: <https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html> (field 22; field 3 is the state)
fn started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program, in parentheses, may contain any characters.
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // A zombie has ended.
    let has_ended = matches!(*fields.first()?, "Z" | "X");
    if has_ended { None } else { fields.get(19)?.parse().ok() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_process_is_gone_once_it_has_ended() {
        let this = Process::this().unwrap();
        assert!(!this.is_gone());
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let of_child = Process {
            pid: child.id(),
            started: started(child.id()).unwrap(),
            ..this.clone()
        };
        assert!(!of_child.is_gone());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(of_child.is_gone());
        // Nothing is known about processes on other machines.
        let elsewhere = Process {
            view: "elsewhere".into(),
            ..of_child
        };
        assert!(!elsewhere.is_gone());
    }
}
