//! What a place for logs and blobs does.

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

/// Where logs and blobs are kept.
///
/// # Contract
/// - `append_log` appends the part of `bytes` (which begin at `offset`) that the log does not have yet, durably, and
///   answers with the log's length then. Two senders of the same bytes at once append them once. Bytes that begin beyond
///   the end are refused with [`StoreError::LogGap`]. After a failure the log is as it was, or as if the call had
///   succeeded; the same call again is safe.
/// - `read_log` gives at most `limit` bytes from `from`; nothing at the end, and where there is no such log.
/// - `put_blob` stores what the reader has under its digest; a reader that breaks off leaves nothing visible. Storing the
///   same bytes twice is storing them once.
/// - All may be called at once, by several servers that share the place.
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

    /// Says that nothing more is appended to the logs of a job: pieces may be put together.
    ///
    /// # Errors
    /// When the place does not answer; call it again later, or never: reading works all the same.
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
