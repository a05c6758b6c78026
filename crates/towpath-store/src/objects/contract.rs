//! The contract of a storage for logs and blobs.

use super::log::LogId;
use crate::StoreError;
use async_trait::async_trait;
use bytes::Bytes;
use std::pin::Pin;
use tokio::io::AsyncRead;
use towpath_types::{Digest, JobId};

/// A blob that was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct StoredBlob {
    pub digest: Digest,
    pub bytes: u64,
}

/// A blob being read.
pub type BlobReader = Pin<Box<dyn AsyncRead + Send>>;

/// Where logs and blobs are stored.
///
/// # Contract
/// - `append_log` durably appends the part of `bytes` (which begin at `offset`) that the log does not have yet, and
///   returns the log's new length. Two concurrent senders of the same bytes append them once. Bytes that begin past the
///   end fail with [`StoreError::LogGap`]. After a failure the log is unchanged, or as after a success; repeating the
///   call is safe.
/// - `read_log` returns at most `limit` bytes from `from`; nothing at the end, or if there is no such log.
/// - `put_blob` stores the reader's bytes under their digest; a reader that fails leaves nothing visible. Storing the
///   same bytes twice has no further effect.
/// - All methods may run at once, on several servers that share the storage.
#[async_trait]
pub trait Objects: Send + Sync {
    /// Appends to a log; see the contract.
    ///
    /// # Errors
    /// [`StoreError::LogGap`], and whatever storing meets.
    async fn append_log(&self, log: LogId, offset: u64, bytes: Bytes) -> Result<u64, StoreError>;

    /// How long a log is; 0 where there is none.
    ///
    /// # Errors
    /// When the place does not answer.
    async fn log_length(&self, log: LogId) -> Result<u64, StoreError>;

    /// Part of a log; see the contract.
    ///
    /// # Errors
    /// When the place does not answer.
    async fn read_log(&self, log: LogId, from: u64, limit: u64) -> Result<Bytes, StoreError>;

    /// Declares that nothing more is appended to a job's logs, so that their parts may be merged.
    ///
    /// # Errors
    /// When the storage does not answer. Calling again is optional: reading works without it.
    async fn close_logs(&self, job: JobId) -> Result<(), StoreError>;

    /// Stores a blob; see the contract.
    ///
    /// # Errors
    /// When the reader or the place fails.
    async fn put_blob(&self, reader: BlobReader) -> Result<StoredBlob, StoreError>;

    /// Opens a blob.
    ///
    /// # Errors
    /// [`StoreError::NoBlob`] when there is none.
    async fn blob(&self, digest: &Digest) -> Result<BlobReader, StoreError>;
}
