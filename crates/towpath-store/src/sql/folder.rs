//! The data directory of an embedded database: its lock, its name, and whether it is whole.

use crate::StoreError;
use nix::fcntl::{Flock, FlockArg};
use std::{
    fs::File,
    io::{self, Read, Seek, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// The database's file in a data directory.
pub(crate) fn database(folder: &Path) -> PathBuf {
    folder.join("towpath.db")
}

/// Makes the folder, for its owner alone, unless it is there.
pub(crate) fn make(path: &Path) -> Result<(), StoreError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(StoreError::io("make the folder", path))
}

/// Locks the folder for this process.
///
/// # Errors
/// [`StoreError::InUse`] when another process has it.
pub(crate) fn lock(folder: &Path) -> Result<Flock<File>, StoreError> {
    let path = folder.join("lock");
    let failed = || StoreError::io("write", &path);
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(failed())?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            lock.set_len(0).and_then(|()| lock.rewind()).map_err(failed())?;
            lock.write_all(std::process::id().to_string().as_bytes())
                .map_err(failed())?;
            Ok(lock)
        }
        Err((mut file, _)) => {
            let mut text = String::new();
            let pid = file
                .read_to_string(&mut text)
                .ok()
                .and_then(|_| text.trim().parse().ok());
            Err(StoreError::InUse {
                path: folder.to_path_buf(),
                pid,
            })
        }
    }
}

/// Refuses a folder that holds something which only its database explains. Ask when the database is missing or empty.
///
/// # Errors
/// [`StoreError::DatabaseLost`].
pub(crate) fn check_nothing_is_lost(folder: &Path) -> Result<(), StoreError> {
    let mut found = Vec::new();
    if read_name(folder)?.is_some() {
        found.push("`instance`");
    }
    for (name, shown) in [("logs", "`logs`"), ("blobs", "`blobs`")] {
        let path = folder.join(name);
        let failed = StoreError::io("read the folder", &path);
        match std::fs::read_dir(&path) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    found.push(shown);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    Err(StoreError::DatabaseLost {
        path: folder.to_path_buf(),
        found: found.join(" and "),
    })
}

/// Makes the file `instance` say the store's name.
///
/// # Errors
/// [`StoreError::OtherInstance`] when it says another one.
pub(crate) fn keep_name(folder: &Path, name: &str) -> Result<(), StoreError> {
    match read_name(folder)? {
        Some(found) if found == name => Ok(()),
        Some(found) => Err(StoreError::OtherInstance {
            path: folder.to_path_buf(),
            folder: found,
            database: name.to_string(),
        }),
        None => {
            let path = folder.join("instance");
            std::fs::write(&path, name).map_err(StoreError::io("write", path))
        }
    }
}

fn read_name(folder: &Path) -> Result<Option<String>, StoreError> {
    let path = folder.join("instance");
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.trim().to_string()).filter(|name| !name.is_empty())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io("read", path)(error)),
    }
}
