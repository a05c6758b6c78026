//! The file system: one writer at a time, and files that are replaced as a whole.

use crate::SealedStoreError;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a change waits for another one before it gives up.
pub const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// The temporary file for new content. All writers use the same name, because only the holder of the lock writes. The next
/// writer overwrites what a killed process left there.
pub(crate) const TEMPORARY: &str = ".writing";

pub(crate) fn io_error<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> SealedStoreError + 'a {
    move |source| SealedStoreError::Io {
        doing,
        path: path.to_path_buf(),
        source,
    }
}

/// The right to change the sealed store until it is dropped. When a process dies, the kernel releases it.
#[derive(Debug)]
pub(crate) struct Lock(#[allow(dead_code)] File); // held, never read

/// Waits for the right to change `folder`.
///
/// Each call opens the lock file again, so that threads of one process exclude each other, too.
pub(crate) fn lock(folder: &Path, patience: Duration) -> Result<Lock, SealedStoreError> {
    let path = folder.join("lock");
    let open = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path);
    let file = open.map_err(io_error("open", &path))?;
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Lock(file)),
            Err(TryLockError::Error(source)) => return Err(io_error("lock", &path)(source)),
            Err(TryLockError::WouldBlock) if begun.elapsed() >= patience => {
                return Err(SealedStoreError::Locked {
                    lock_file: path,
                    waited: patience,
                });
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// Creates `folder` and its parents, for the owner only, durably: they survive a power cut.
pub(crate) fn make_folder(folder: &Path) -> Result<(), SealedStoreError> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        make_folder(parent)?;
    }
    fault::point("make folder", folder)?;
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            return Err(io_error("create the folder", folder)(source));
        }
        _ => {}
    }
    match folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => sync_folder(parent),
        None => Ok(()),
    }
}

/// Replaces `path` by `content`, completely or not at all. The caller holds the [`Lock`] of `root`, which contains `path`.
pub(crate) fn replace(root: &Path, path: &Path, content: &[u8]) -> Result<(), SealedStoreError> {
    let temporary = root.join(TEMPORARY);
    fault::point("open", &temporary)?;
    let open = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&temporary);
    let mut file = open.map_err(io_error("open", &temporary))?;
    let (first, second) = content.split_at(content.len() / 2);
    for half in [first, second] {
        fault::point("write", &temporary)?;
        file.write_all(half).map_err(io_error("write", &temporary))?;
    }
    fault::point("sync", &temporary)?;
    file.sync_all().map_err(io_error("sync", &temporary))?;
    fault::point("rename", path)?;
    fs::rename(&temporary, path).map_err(io_error("replace", path))?;
    sync_folder(path.parent().unwrap_or(root))
}

/// Deletes `path` durably. The caller holds the [`Lock`].
pub(crate) fn delete(path: &Path) -> Result<(), SealedStoreError> {
    fault::point("delete", path)?;
    fs::remove_file(path).map_err(io_error("delete", path))?;
    sync_folder(path.parent().unwrap_or(path))
}

fn sync_folder(folder: &Path) -> Result<(), SealedStoreError> {
    fault::point("sync folder", folder)?;
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(io_error("sync the folder", folder))
}

/// The content of `path`; `None` if there is no such file.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, SealedStoreError> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(io_error("read", path)(source)),
    }
}

/// The names in `folder` that are UTF-8, sorted; empty if there is no such folder.
pub(crate) fn names(folder: &Path) -> Result<Vec<String>, SealedStoreError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(io_error("list", folder)(source)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(io_error("list", folder))?;
        names.extend(entry.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}

/// Points at which a test can stop a write, as a kill or a full disk would.
pub(crate) mod fault {
    use crate::SealedStoreError;
    use std::path::Path;

    #[cfg(not(test))]
    #[allow(clippy::unnecessary_wraps)] // it fails in tests only
    pub(crate) fn point(_step: &'static str, _path: &Path) -> Result<(), SealedStoreError> {
        Ok(())
    }

    #[cfg(test)]
    thread_local! {
        /// How many more points this thread passes before it is stopped.
        pub(crate) static LEFT: std::cell::Cell<Option<usize>> = const { std::cell::Cell::new(None) };
    }

    #[cfg(test)]
    pub(crate) fn point(step: &'static str, path: &Path) -> Result<(), SealedStoreError> {
        match LEFT.get() {
            Some(0) => Err(super::io_error(step, path)(std::io::Error::other("injected"))),
            left => {
                LEFT.set(left.map(|left| left - 1));
                Ok(())
            }
        }
    }
}
