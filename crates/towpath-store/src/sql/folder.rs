//! The data directory of an embedded database: its lock, its name, and its integrity.

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

/// Returns an error for a folder with content that needs its `database`. Call this when the database is missing or
/// empty.
///
/// # Errors
/// [`StoreError::DatabaseLost`].
pub(crate) fn check_nothing_is_lost(folder: &Path, database: &str) -> Result<(), StoreError> {
    let mut found = Vec::new();
    if read_name(folder)?.is_some() {
        found.push("`instance`");
    }
    // Without the database, every branch of the repositories would look newly pushed.
    for (name, shown, ending) in [
        ("git", "`git`", ".git"),
        ("registry/repositories", "`registry`", ""),
        ("logs", "`logs`", ""),
        ("blobs", "`blobs`", ""),
    ] {
        if has_entry(&folder.join(name), ending)? {
            found.push(shown);
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    Err(StoreError::DatabaseLost {
        path: folder.to_path_buf(),
        database: database.to_string(),
        found: found.join(" and "),
    })
}

/// Whether a folder has an entry whose name ends with `ending`.
fn has_entry(folder: &Path, ending: &str) -> Result<bool, StoreError> {
    let failed = || StoreError::io("read the folder", folder);
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other.map_err(failed())?,
    };
    for entry in entries {
        if entry.map_err(failed())?.file_name().to_string_lossy().ends_with(ending) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Checks that a data directory belongs to a database elsewhere, whose own name is `name`.
///
/// # Errors
/// [`StoreError::OtherInstance`] when it belongs to another one; [`StoreError::DatabaseLost`] when it belongs to a
/// database but does not name it.
pub fn belong_together(folder: &Path, name: &str, database: &str) -> Result<(), StoreError> {
    make(folder)?;
    if read_name(folder)?.is_none() {
        check_nothing_is_lost(folder, &format!("`{database}`"))?;
    }
    keep_name(folder, name)
}

/// Whether the database's file is shorter than its own header says. A kill while the journal is written back has the
/// same result, so a closer check has to follow.
///
/// Source: <https://www.sqlite.org/fileformat.html#the_database_header>
pub(crate) fn looks_cut_off(database: &Path) -> Result<bool, StoreError> {
    let failed = || StoreError::io("read", database);
    let mut file = match File::open(database) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other.map_err(failed())?,
    };
    let length = file.metadata().map_err(failed())?.len();
    let mut header = [0; 32];
    if file.read_exact(&mut header).is_err() {
        // The library reports that problem itself.
        return Ok(false);
    }
    let page = match u64::from(u16::from_be_bytes([header[16], header[17]])) {
        1 => 65_536,
        page => page,
    };
    let pages = u64::from(u32::from_be_bytes([header[28], header[29], header[30], header[31]]));
    Ok(length < page * pages)
}

/// Writes the store's name to the file `instance`, or checks it.
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
