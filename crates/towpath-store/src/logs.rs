//! The logs of jobs: one append-only file a step.

use crate::StoreError;
use bytes::Bytes;
use std::{
    collections::HashMap,
    io::{Read, Seek, SeekFrom, Write},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::Notify;
use towpath_types::JobId;

type Key = (JobId, u32, u32);

/// The logs' folder.
#[derive(Debug, Clone)]
pub struct Logs {
    folder: PathBuf,
    /// One lock a log that is being written, so that two senders of the same bytes do not both append them.
    writers: Arc<Mutex<HashMap<Key, Arc<Mutex<()>>>>>,
    grown: Arc<Notify>,
}

impl Logs {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            writers: Arc::default(),
            grown: Arc::default(),
        }
    }

    fn path(&self, (job, node, step): Key) -> PathBuf {
        self.folder.join(job.to_string()).join(format!("{node}.{step}.log"))
    }

    /// Appends the part of `bytes`, which begin at `offset`, that the log does not have yet, and returns how long the log
    /// is then. The file's length is the only record of it, so what is acknowledged is what a later process finds.
    ///
    /// # Errors
    /// [`StoreError::LogGap`] when `offset` lies beyond the log's end; otherwise when the disk fails.
    pub async fn append(&self, job: JobId, node: u32, step: u32, offset: u64, bytes: &[u8]) -> Result<u64, StoreError> {
        let key = (job, node, step);
        let path = self.path(key);
        let writer = self
            .writers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(key)
            .or_default()
            .clone();
        let bytes = Bytes::copy_from_slice(bytes);
        let length = tokio::task::spawn_blocking(move || {
            let _guard = writer.lock().unwrap_or_else(PoisonError::into_inner);
            append(&path, offset, &bytes)
        })
        .await
        .map_err(|_| StoreError::Stopping)??;
        self.grown.notify_waiters();
        Ok(length)
    }

    /// How long a log is; 0 when there is none.
    pub async fn len(&self, job: JobId, node: u32, step: u32) -> u64 {
        tokio::fs::metadata(self.path((job, node, step)))
            .await
            .map_or(0, |metadata| metadata.len())
    }

    /// At most `limit` bytes of a log from `from`; empty at its end, and when there is none.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn read(&self, job: JobId, node: u32, step: u32, from: u64, limit: u64) -> Result<Bytes, StoreError> {
        let path = self.path((job, node, step));
        tokio::task::spawn_blocking(move || {
            let mut file = match std::fs::File::open(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Bytes::new()),
                other => other.map_err(StoreError::io("open", &path))?,
            };
            let mut bytes = Vec::new();
            file.seek(SeekFrom::Start(from))
                .map_err(StoreError::io("read", &path))?;
            file.take(limit)
                .read_to_end(&mut bytes)
                .map_err(StoreError::io("read", &path))?;
            Ok(bytes.into())
        })
        .await
        .map_err(|_| StoreError::Stopping)?
    }

    /// Waits until some log has grown. Ask before reading, so that nothing is missed in between.
    pub fn grown(&self) -> impl Future<Output = ()> + '_ {
        self.grown.notified()
    }

    /// Forgets the locks of a job that is over.
    pub fn close(&self, job: JobId) {
        self.writers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|(of, _, _), _| *of != job);
    }
}

fn append(path: &PathBuf, offset: u64, bytes: &[u8]) -> Result<u64, StoreError> {
    let failed = || StoreError::io("write", path);
    let open = || std::fs::OpenOptions::new().append(true).create(true).open(path);
    let mut file = match open() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let folder = path.parent().unwrap_or(path);
            std::fs::create_dir_all(folder).map_err(StoreError::io("make the folder", folder))?;
            open().map_err(failed())?
        }
        other => other.map_err(failed())?,
    };
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
    if let Err(error) = file.write_all(new) {
        // A write that was cut short (a full disk) must not leave bytes that nobody acknowledged and that a later,
        // differently cut resend would follow.
        let _ = file.set_len(length);
        return Err(failed()(error));
    }
    Ok(length + new.len() as u64)
}
