//! Processes of this machine: identifies them even if process ids are reused, waits for their end, and kills them.

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{PidfdFlags, pidfd_open},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    fs, io,
    time::{Duration, Instant},
};

/// A process that is identified by more than its process id, because the kernel reuses those.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    /// In clock ticks since boot.
    start_time: u64,
    boot_id: String,
}

impl Process {
    /// The process that has the id `pid` now.
    pub(crate) fn of(pid: i32) -> io::Result<Self> {
        let stat = Stat::of(pid).ok_or_else(|| io::Error::other(format!("process {pid} is gone already")))?;
        Ok(Self {
            pid,
            start_time: stat.start_time,
            boot_id: boot_id()?,
        })
    }

    pub(crate) fn is_running(&self) -> bool {
        let is_same = |stat: Stat| stat.start_time == self.start_time && stat.is_alive();
        boot_id().is_ok_and(|boot| boot == self.boot_id) && Stat::of(self.pid).is_some_and(is_same)
    }

    /// Sends a signal. Does nothing if the process has ended.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        if !self.is_running() {
            return Ok(());
        }
        match kill(Pid::from_raw(self.pid), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Waits at most `limit` until the process has ended, and returns whether it has. The process need not be our child.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.is_running() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let Some(pid) = rustix::process::Pid::from_raw(self.pid) else {
                return true;
            };
            let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else {
                // The process has just ended, or this kernel (before Linux 5.3) has no process handles.
                std::thread::sleep(left.min(Duration::from_millis(10)));
                continue;
            };
            // The handle was opened by process id, so it may belong to another process. Then this process has ended.
            if !self.is_running() {
                return true;
            }
            let mut handles = [PollFd::new(&handle, PollFlags::IN)];
            let timeout = Timespec::try_from(left).ok();
            // The loop checks again, whether the call was interrupted or not.
            let _ = poll(&mut handles, timeout.as_ref());
        }
        true
    }

    /// Whether this is an agent that an engine started: it runs `… agent` and leads its session.
    pub(crate) fn is_agent(&self) -> bool {
        let leads = nix::unistd::getsid(Some(Pid::from_raw(self.pid))) == Ok(Pid::from_raw(self.pid));
        let command = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        leads && command.split(|byte| *byte == 0).nth(1) == Some(b"agent")
    }

    /// A part of a file name that distinguishes this process from every other process of this boot.
    pub(crate) fn mark(&self) -> String {
        format!("{}-{}", self.pid, self.start_time)
    }
}

/// Every process of this machine that has `variable` (`NAME=value`) in its environment, or was started under `name`.
///
/// We cannot read the environments of other users' processes, nor of processes that closed theirs, as agents do. The name
/// identifies those, because everybody may read it.
pub(crate) fn marked(variable: &[u8], name: &[u8]) -> Vec<Process> {
    let items = |pid: i32, file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let marked = pids().filter(|pid| {
        let is_zero = |byte: &u8| *byte == 0;
        items(*pid, "environ").split(is_zero).any(|item| item == variable)
            || items(*pid, "cmdline").split(is_zero).next() == Some(name)
    });
    marked
        .filter_map(|pid| Process::of(pid).ok())
        .filter(Process::is_running)
        .collect()
}

/// Every process of this machine that has the user `id`, whatever it did to its environment and its name.
pub(crate) fn of_user(id: u32) -> Vec<Process> {
    pids()
        .filter(|pid| ids_of(*pid).contains(&id))
        .filter_map(|pid| Process::of(pid).ok())
        .filter(Process::is_running)
        .collect()
}

/// The users that have processes.
pub(crate) fn users() -> BTreeSet<u32> {
    pids().flat_map(ids_of).collect()
}

/// The process's real, effective and saved user.
fn ids_of(pid: i32) -> Vec<u32> {
    let status = fs::read(format!("/proc/{pid}/status")).unwrap_or_default();
    let status = String::from_utf8_lossy(&status);
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    ids.unwrap_or_default()
        .split_whitespace()
        .take(3)
        .filter_map(|id| id.parse().ok())
        .collect()
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
}

/// The fields of `/proc/<pid>/stat`.
///
/// Source: <https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html>
struct Stat {
    state: char,
    /// In clock ticks since boot.
    start_time: u64,
}

impl Stat {
    fn of(pid: i32) -> Option<Self> {
        let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
        let text = String::from_utf8_lossy(&text);
        // The name comes first, in parentheses, and may contain anything.
        let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
        Some(Self {
            state: fields.next()?.chars().next()?,
            start_time: fields.nth(18)?.parse().ok()?,
        })
    }

    fn is_alive(&self) -> bool {
        !matches!(self.state, 'Z' | 'X')
    }
}

fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_process_id_is_not_the_same_process() {
        let own = Process::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(own.is_running());
        let later = Process {
            start_time: own.start_time + 1,
            ..own.clone()
        };
        assert!(!later.is_running());
        let before_the_boot = Process {
            boot_id: "another".into(),
            ..own
        };
        assert!(!before_the_boot.is_running() && before_the_boot.wait(Duration::from_secs(60)));
    }

    #[test]
    fn a_process_is_found_by_its_environment_and_by_the_name_that_it_was_started_under() {
        use std::os::unix::process::CommandExt;
        let (variable, name) = ("TOWPATH_TEST_MARK=of process.rs", "/of/process.rs/state");
        let mut sleeps = [
            std::process::Command::new("sleep"),
            std::process::Command::new("sleep"),
            std::process::Command::new("sleep"),
        ];
        sleeps[0].env("TOWPATH_TEST_MARK", "of process.rs");
        sleeps[1].arg0(name).env_clear();
        sleeps[2].env_clear();
        let mut children = sleeps.map(|mut sleep| sleep.arg("1000").spawn().unwrap());
        // The child has its name and its environment only once it runs its program.
        let wanted: BTreeSet<i32> = children[..2]
            .iter()
            .map(|child| i32::try_from(child.id()).unwrap())
            .collect();
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut found = BTreeSet::new();
        while found != wanted && Instant::now() < deadline {
            let all = marked(variable.as_bytes(), name.as_bytes());
            found = all.into_iter().map(|process| process.pid).collect();
        }
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert_eq!(found, wanted);
    }

    #[test]
    fn the_end_of_a_process_is_waited_for() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let process = Process::of(i32::try_from(child.id()).unwrap()).unwrap();
        assert!(!process.wait(Duration::from_millis(30)));
        let began = Instant::now();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| process.wait(Duration::from_secs(60)));
            process.signal(Signal::SIGKILL).unwrap();
            assert!(waiting.join().unwrap(), "it has ended, though nobody has reaped it");
        });
        assert!(began.elapsed() < Duration::from_secs(30));
        child.wait().unwrap();
        assert!(process.wait(Duration::ZERO));
        process.signal(Signal::SIGKILL).unwrap();
    }
}
