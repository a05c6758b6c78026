//! Logs and blobs in a folder.

use super::{
    contract::{BlobReader, Objects, StoredBlob},
    log::LogId,
};
use crate::StoreError;
use async_trait::async_trait;
use bytes::Bytes;
use nix::fcntl::{Flock, FlockArg};
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use towpath_types::{Digest, Digester, JobId};

/// Logs and blobs in a folder. Clones share it; servers on one machine may, too.
///
/// ```text
/// <folder>/
///   logs/jobs/<job>/<attempt>.<node>.<step>.log
///   logs/releases/<release>.log
///   logs/runs/<run>.log
///   blobs/<2 hex digits>/<64 hex digits>
///   temporary/<process>/   blobs on their way; removed when their process is gone
/// ```
///
/// Logs and blobs are on the disk before they are acknowledged.
///
/// The last part of the disk is reserved for the database beside it, so that it can still record that the disk is full.
#[derive(Debug, Clone)]
pub struct FolderObjects {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    logs: PathBuf,
    blobs: PathBuf,
    /// This process's own folder for temporary files.
    temporary: PathBuf,
    /// Locked while the folder of temporary files is in use.
    lock: Option<Flock<File>>,
}

impl FolderObjects {
    /// Opens a folder; creates it with access for its owner only if it does not exist.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let (logs, blobs, temporaries) = (folder.join("logs"), folder.join("blobs"), folder.join("temporary"));
        for path in [folder, &logs, &blobs, &temporaries] {
            make(path)?;
        }
        remove_abandoned(&temporaries)?;
        let (temporary, lock) = claim(&temporaries)?;
        Ok(Self {
            shared: Arc::new(Shared {
                logs,
                blobs,
                temporary,
                lock: Some(lock),
            }),
        })
    }

    fn log(&self, log: LogId) -> PathBuf {
        self.shared.logs.join(format!("{log}.log"))
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.shared.blobs.join(&digest.hex()[..2]).join(digest.hex())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Whoever opens the folder next removes what remains.
        let _ = std::fs::remove_dir_all(&self.temporary);
        let _ = std::fs::remove_file(self.temporary.with_extension("lock"));
        drop(self.lock.take());
    }
}

/// The most bytes of a disk to reserve.
const RESERVE: u64 = 64 << 20;

/// The number of bytes to reserve on a disk of `size` bytes.
fn reserve(size: u64) -> u64 {
    (size / 8).min(RESERVE)
}

/// Returns an error if writing `bytes` more to the disk of `path` would use the reserve.
fn check_room(path: &Path, bytes: u64) -> Result<(), StoreError> {
    // If the disk cannot be queried, the write itself will report why.
    let Ok(disk) = nix::sys::statvfs::statvfs(path) else {
        return Ok(());
    };
    let block = disk.fragment_size();
    let (size, free) = (disk.blocks() * block, disk.blocks_available() * block);
    match free < reserve(size).saturating_add(bytes) {
        true => Err(StoreError::Full(path.display().to_string())),
        false => Ok(()),
    }
}

#[async_trait]
impl Objects for FolderObjects {
    async fn append_log(&self, log: LogId, offset: u64, bytes: Bytes) -> Result<u64, StoreError> {
        let path = self.log(log);
        let folder = self.shared.logs.clone();
        blocking(move || {
            check_room(&folder, bytes.len() as u64)?;
            append(&path, offset, &bytes)
        })
        .await
    }

    async fn log_length(&self, log: LogId) -> Result<u64, StoreError> {
        let path = self.log(log);
        match tokio::fs::metadata(&path).await {
            Ok(metadata) => Ok(metadata.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(StoreError::io("read", path)(error)),
        }
    }

    async fn read_log(&self, log: LogId, from: u64, limit: u64) -> Result<Bytes, StoreError> {
        let path = self.log(log);
        blocking(move || read(&path, from, limit)).await
    }

    async fn close_logs(&self, job: JobId) -> Result<(), StoreError> {
        let folder = self.shared.logs.join("jobs").join(job.to_string());
        blocking(move || sync_all(&folder)).await
    }

    async fn put_blob(&self, mut reader: BlobReader) -> Result<StoredBlob, StoreError> {
        let temporary = tempfile::NamedTempFile::new_in(&self.shared.temporary)
            .map_err(StoreError::io("make a file in", &self.shared.temporary))?;
        let failed = || StoreError::io("write", temporary.path());
        let file = temporary.as_file().try_clone().map_err(failed())?;
        let mut file = tokio::fs::File::from_std(file);
        let mut digester = Digester::default();
        let mut bytes = 0;
        let mut buffer = vec![0; 128 << 10];
        loop {
            let read = reader
                .read(&mut buffer)
                .await
                .map_err(StoreError::io("receive the bytes for", temporary.path()))?;
            if read == 0 {
                break;
            }
            digester.update(&buffer[..read]);
            check_room(&self.shared.temporary, read as u64)?;
            file.write_all(&buffer[..read]).await.map_err(failed())?;
            bytes += read as u64;
        }
        file.flush().await.map_err(failed())?;
        file.sync_all().await.map_err(failed())?;
        let digest = digester.finish();
        let path = self.blob_path(&digest);
        let name = path.clone();
        blocking(move || {
            let folder = name.parent().unwrap_or(Path::new("/"));
            make(folder)?;
            temporary
                .persist(&name)
                .map_err(|error| StoreError::io("put in place", &name)(error.error))?;
            sync(folder)
        })
        .await?;
        Ok(StoredBlob { digest, bytes })
    }

    async fn blob(&self, digest: &Digest) -> Result<BlobReader, StoreError> {
        let path = self.blob_path(digest);
        match tokio::fs::File::open(&path).await {
            Ok(file) => Ok(Box::pin(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(StoreError::NoBlob(digest.clone())),
            Err(error) => Err(StoreError::io("open", path)(error)),
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| StoreError::Stopping)?
}

fn make(path: &Path) -> Result<(), StoreError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(StoreError::io("make the folder", path))
}

/// Creates a folder for this process, with a lock that shows that the process is alive.
fn claim(temporaries: &Path) -> Result<(PathBuf, Flock<File>), StoreError> {
    loop {
        let name = uuid::Uuid::new_v4().simple().to_string()[..12].to_string();
        let path = temporaries.join(name);
        let lock = path.with_extension("lock");
        let file = File::create(&lock).map_err(StoreError::io("write", &lock))?;
        // A process that removes abandoned folders may be faster.
        if let Ok(locked) = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            && lock.exists()
        {
            make(&path)?;
            return Ok((path, locked));
        }
    }
}

/// Removes the temporary files of processes that are gone.
fn remove_abandoned(temporaries: &Path) -> Result<(), StoreError> {
    let failed = || StoreError::io("read the folder", temporaries);
    for entry in std::fs::read_dir(temporaries).map_err(failed())? {
        let lock = entry.map_err(failed())?.path();
        if lock.extension().is_none_or(|extension| extension != "lock") {
            continue;
        }
        let Ok(file) = File::open(&lock) else { continue };
        if let Ok(_locked) = Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            let path = lock.with_extension("");
            match std::fs::remove_dir_all(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(StoreError::io("remove", path)(error));
                }
                _ => {}
            }
            std::fs::remove_file(&lock).map_err(StoreError::io("remove", &lock))?;
        }
    }
    Ok(())
}

fn append(path: &Path, offset: u64, bytes: &[u8]) -> Result<u64, StoreError> {
    let failed = || StoreError::io("write", path);
    let open = || std::fs::OpenOptions::new().append(true).create(true).open(path);
    let folder = path.parent().unwrap_or(path);
    let file = match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make(folder)?;
            open().map_err(failed())?
        }
        other => other.map_err(failed())?,
    };
    // Two senders of the same bytes, in any process, must not both append them.
    let mut file = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| failed()(error.into()))?;
    let length = file.metadata().map_err(failed())?.len();
    let Some(skip) = length.checked_sub(offset) else {
        return Err(StoreError::LogGap { length });
    };
    let new = bytes
        .get(usize::try_from(skip).unwrap_or(usize::MAX)..)
        .unwrap_or_default();
    if new.is_empty() {
        return Ok(length);
    }
    if let Err(error) = file.write_all(new).and_then(|()| file.sync_data()) {
        // A partial write (on a full disk) must not leave unacknowledged bytes: a resend that is cut differently would
        // be appended after them.
        let _ = file.set_len(length);
        return Err(failed()(error));
    }
    if length == 0 {
        // The folder holds the file's name, and its parent holds the folder's.
        sync(folder)?;
        folder.parent().map_or(Ok(()), sync)?;
    }
    Ok(length + new.len() as u64)
}

fn read(path: &Path, from: u64, limit: u64) -> Result<Bytes, StoreError> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Bytes::new()),
        other => other.map_err(StoreError::io("open", path))?,
    };
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(from)).map_err(StoreError::io("read", path))?;
    file.take(limit)
        .read_to_end(&mut bytes)
        .map_err(StoreError::io("read", path))?;
    Ok(bytes.into())
}

fn sync(path: &Path) -> Result<(), StoreError> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(StoreError::io("write to the disk", path))
}

/// Syncs the files of a folder, and the folder itself, to the disk.
fn sync_all(folder: &Path) -> Result<(), StoreError> {
    let failed = || StoreError::io("read the folder", folder);
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(failed())?,
    };
    for entry in entries {
        sync(&entry.map_err(failed())?.path())?;
    }
    sync(folder)
}
