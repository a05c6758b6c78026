//! This machine's identity and capacity.

use crate::engine::Capacity;
use std::{fs, path::Path};

/// An id that distinguishes this machine from others for as long as it is installed.
///
/// Source: <https://www.freedesktop.org/software/systemd/man/latest/machine-id.html>. Most containers have none. There it is
/// the host name, which the owner of the data directory has to keep.
pub(crate) fn id() -> String {
    let read = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_string());
    let files = [
        "/etc/machine-id",
        "/var/lib/dbus/machine-id",
        "/proc/sys/kernel/hostname",
    ];
    let ids = files.into_iter().filter_map(|path| read(path).ok());
    ids.into_iter()
        .find(|id| !id.is_empty())
        .unwrap_or_else(|| "unknown".to_string())
}

/// The processors and the memory that this process may use.
pub(crate) fn capacity() -> Capacity {
    let processors = std::thread::available_parallelism().map_or(1, |count| u64::try_from(count.get()).unwrap_or(1));
    let installed = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| installed_memory(&text));
    let allowed = fs::read_to_string("/proc/self/cgroup")
        .ok()
        .and_then(|text| allowed_memory(&text));
    Capacity {
        cpu_millis: processors * 1000,
        memory_bytes: installed.into_iter().chain(allowed).min().unwrap_or(u64::MAX),
    }
}

/// In bytes, from `/proc/meminfo`.
fn installed_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// The limit of this process's control group in bytes, if it has one.
///
/// Source: <https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files>, and of version 1
/// <https://docs.kernel.org/admin-guide/cgroup-v1/memory.html>
fn allowed_memory(cgroup: &str) -> Option<u64> {
    limit_file(cgroup).and_then(|path| fs::read_to_string(path).ok()?.trim().parse().ok())
}

fn limit_file(cgroup: &str) -> Option<std::path::PathBuf> {
    let groups = cgroup.lines().filter_map(|line| {
        let (controllers, group) = line.split_once(':')?.1.split_once(':')?;
        Some((controllers, group.trim_start_matches('/')))
    });
    let files = groups.filter_map(|(controllers, group)| {
        let root = Path::new("/sys/fs/cgroup");
        if controllers.split(',').any(|controller| controller == "memory") {
            return Some(root.join("memory").join(group).join("memory.limit_in_bytes"));
        }
        controllers.is_empty().then(|| root.join(group).join("memory.max"))
    });
    // If both versions are mounted, version 1 controls the memory, and comes first.
    files.into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_what_the_kernel_says() {
        assert_eq!(
            installed_memory("MemTotal:       24680000 kB\nMemFree: 1 kB\n"),
            Some(25_272_320_000)
        );
        assert_eq!(installed_memory("nonsense"), None);
        let file = |text: &str| limit_file(text).map(|path| path.display().to_string());
        let second = "0::/system.slice/towpath.service\n";
        let expect = "/sys/fs/cgroup/system.slice/towpath.service/memory.max";
        assert_eq!(file(second).as_deref(), Some(expect));
        let first = "4:memory:/docker/x\n1:name=systemd:/\n0::/\n";
        assert_eq!(
            file(first).as_deref(),
            Some("/sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes")
        );
        assert_eq!(file("garbage"), None);
    }

    #[test]
    fn this_machine_has_a_name_a_processor_and_memory() {
        assert!(!id().is_empty());
        let Capacity {
            cpu_millis,
            memory_bytes,
        } = capacity();
        assert!(
            cpu_millis >= 1000 && memory_bytes > 1 << 26 && memory_bytes < u64::MAX,
            "{memory_bytes}"
        );
    }
}
