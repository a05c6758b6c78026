//! Logs and blobs in an S3-compatible object store.

use super::{
    contract::{BlobReader, Objects, StoredBlob},
    known_chunks::KnownChunks,
    log::LogId,
};
use crate::StoreError;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{
    BackoffConfig, Certificate, ClientOptions, Error, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    PutPayload, RetryConfig, WriteMultipart,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    path::Path as Key,
};
use std::{
    collections::BTreeMap,
    fmt, io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use towpath_types::{Digest, Digester, JobId};

/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(5);

/// How long to retry a failed request.
const RETRY: Duration = Duration::from_secs(15);

/// The size of the parts for writing large objects and reading blobs.
const PART: usize = 8 << 20;

/// How many requests one read or one upload makes at once.
const AT_ONCE: usize = 4;

/// How often an append starts again because another writer wrote at the same offset.
const TRIES: u32 = 50;

/// Logs and blobs in a bucket. Clones share it; any number of servers may.
///
/// ```text
/// <prefix>/logs/<log>/<offset, 20 digits>   part of a log from that offset on
/// <prefix>/blobs/<2 hex digits>/<64 hex digits>
/// ```
///
/// Each append writes one object, on the condition that no object exists at that offset: of two servers that append at
/// the same offset, one wins and the other looks again. [`Objects::close_logs`] writes a log as one object in place of
/// its first part and removes the rest. Meanwhile parts overlap, which is harmless because their bytes agree.
///
/// A blob's digest is known only at its end, so the blob is in a local file until then. Parts of interrupted uploads
/// stay invisible in the bucket until a lifecycle rule for incomplete multipart uploads removes them.
#[derive(Clone)]
pub struct S3Objects {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<dyn ObjectStore>,
    prefix: Key,
    /// A local folder for blobs before their upload.
    spool: PathBuf,
    known: KnownChunks,
}

impl fmt::Debug for S3Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Objects")
            .field("store", &self.shared.store.to_string())
            .field("prefix", &self.shared.prefix.as_ref())
            .finish_non_exhaustive()
    }
}

impl S3Objects {
    /// Opens a bucket and checks that it supports the conditional writes that logs need.
    ///
    /// `variables` are those that AWS's own tools read from the environment: `AWS_ACCESS_KEY_ID`,
    /// `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_REGION`, `AWS_ENDPOINT_URL`, and the ones for roles. Without
    /// keys or a role, the machine's own credentials are used. Other variables are ignored. Blobs wait in the folder
    /// `spool`.
    ///
    /// # Errors
    /// [`StoreError::Address`] when a variable cannot be read, or when the object store ignores conditions;
    /// [`StoreError::Object`] when it refuses or does not answer.
    pub async fn open(
        bucket: &str,
        prefix: &str,
        variables: impl IntoIterator<Item = (String, String)>,
        spool: &Path,
    ) -> Result<Self, StoreError> {
        // If the program has already installed one, that one is used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = AmazonS3Builder::new().with_bucket_name(bucket);
        let mut is_plain = false;
        for (name, value) in variables {
            let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() else {
                continue;
            };
            if !name.starts_with("AWS_") {
                continue;
            }
            is_plain |= name.starts_with("AWS_ENDPOINT") && value.starts_with("http://");
            builder = builder.with_config(key, value);
        }
        let mut client = ClientOptions::new()
            .with_timeout(REQUEST)
            .with_connect_timeout(CONNECT)
            .with_allow_http(is_plain);
        // The library loads the machine's certificates itself, and fails if there are none, even for an endpoint
        // without TLS.
        let untrusting =
            |why: String| StoreError::Address(format!("the object store `{bucket}` cannot be used: {why}"));
        for authority in towpath_trust::authorities().map_err(|error| untrusting(error.to_string()))? {
            let authority = Certificate::from_der(&authority).map_err(|error| untrusting(error.to_string()))?;
            client = client.with_root_certificate(authority);
        }
        let retry = RetryConfig {
            backoff: BackoffConfig::default(),
            max_retries: 10,
            retry_timeout: RETRY,
        };
        let store = builder
            .with_client_options(client)
            .with_retry(retry)
            .build()
            .map_err(|error| StoreError::Address(format!("the object store `{bucket}` cannot be used: {error}")))?;
        let objects = Self::over(Arc::new(store), prefix, spool);
        objects.check_conditions().await?;
        Ok(objects)
    }

    fn over(store: Arc<dyn ObjectStore>, prefix: &str, spool: &Path) -> Self {
        Self {
            shared: Arc::new(Shared {
                store,
                prefix: Key::from(prefix),
                spool: spool.to_path_buf(),
                known: KnownChunks::default(),
            }),
        }
    }

    /// If the object store ignored `If-None-Match`, two servers could both append to a log.
    async fn check_conditions(&self) -> Result<(), StoreError> {
        let key = self.key(&format!("probes/{}", uuid::Uuid::new_v4()));
        let first = self.create(&key, Bytes::from_static(b"probe")).await;
        first.map_err(failed("write", &key))?;
        let second = self.create(&key, Bytes::from_static(b"probe")).await;
        let removed = self.shared.store.delete(&key).await;
        removed.map_err(failed("remove", &key))?;
        match second {
            Err(Error::AlreadyExists { .. }) => Ok(()),
            Err(error) => Err(failed("write", &key)(error)),
            Ok(()) => Err(StoreError::Address(format!(
                "the object store `{}` overwrites objects although it is asked not to (`If-None-Match: *`), so logs \
                 cannot be kept there",
                self.shared.store
            ))),
        }
    }

    /// `<prefix>/<path>`.
    fn key(&self, path: &str) -> Key {
        let parts = path.split('/').map(Into::into);
        Key::from_iter(self.shared.prefix.parts().chain(parts))
    }

    fn log_key(&self, log: LogId) -> Key {
        self.key(&format!("logs/{log}"))
    }

    fn chunk_key(&self, log: LogId, offset: u64) -> Key {
        self.key(&format!("logs/{log}/{offset:020}"))
    }

    fn blob_key(&self, digest: &Digest) -> Key {
        self.key(&format!("blobs/{}/{}", &digest.hex()[..2], digest.hex()))
    }

    async fn create(&self, key: &Key, bytes: Bytes) -> Result<(), Error> {
        let options = PutOptions::from(PutMode::Create);
        self.shared.store.put_opts(key, bytes.into(), options).await.map(drop)
    }

    /// Looks for new parts of a log, and returns its length.
    async fn refresh(&self, log: LogId) -> Result<u64, StoreError> {
        let folder = self.log_key(log);
        let found = match self.shared.known.last_start(log) {
            Some(start) => {
                let last = self.chunk_key(log, start);
                self.shared.store.list_with_offset(Some(&folder), &last)
            }
            None => self.shared.store.list(Some(&folder)),
        };
        let found: Vec<ObjectMeta> = found.try_collect().await.map_err(failed("list", &folder))?;
        let mut chunks = Vec::with_capacity(found.len());
        for object in &found {
            chunks.push(chunk(object)?);
        }
        chunks.sort_by_key(|chunk| chunk.start);
        Ok(self.shared.known.add(log, chunks))
    }

    /// Merges the parts of each log in one folder into one object.
    async fn compact(&self, folder: &Key, parts: Vec<ObjectMeta>) -> Result<(), StoreError> {
        let mut chunks: Vec<(Range<u64>, Key)> = Vec::with_capacity(parts.len());
        for part in parts {
            chunks.push((chunk(&part)?, part.location));
        }
        chunks.sort_by_key(|(chunk, _)| chunk.start);
        let Some((_, first)) = chunks.first().cloned().filter(|_| chunks.len() > 1) else {
            return Ok(());
        };
        let upload = self.shared.store.put_multipart(&first).await;
        let mut upload = WriteMultipart::new_with_chunk_size(upload.map_err(failed("write", &first))?, PART);
        let mut length = 0u64;
        for (chunk, key) in &chunks {
            // Overlaps remain from an earlier attempt, and their bytes agree.
            let skip = length.saturating_sub(chunk.start);
            if chunk.start + skip >= chunk.end {
                continue;
            }
            let bytes = match self.shared.store.get(key).await {
                Ok(found) => found.bytes().await,
                Err(error) => Err(error),
            };
            match bytes {
                Ok(bytes) => upload.put(bytes.slice(usize::try_from(skip).unwrap_or(bytes.len())..)),
                Err(error) => {
                    // Another server may do the same and be ahead; both results are correct.
                    let _ = upload.abort().await;
                    return match error {
                        Error::NotFound { .. } => Ok(()),
                        error => Err(failed("read", key)(error)),
                    };
                }
            }
            upload
                .wait_for_capacity(AT_ONCE)
                .await
                .map_err(failed("write", &first))?;
            length = chunk.end;
        }
        upload.finish().await.map_err(failed("write", &first))?;
        let rest = stream::iter(chunks.into_iter().skip(1).map(|(_, key)| Ok(key))).boxed();
        let removed: Result<Vec<Key>, Error> = self.shared.store.delete_stream(rest).try_collect().await;
        match removed {
            Ok(_) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed("remove", folder)(error)),
        }
    }

    /// Uploads a spooled blob.
    async fn upload(&self, key: &Key, mut file: tokio::fs::File, bytes: u64) -> Result<(), StoreError> {
        let spool = &self.shared.spool;
        file.rewind().await.map_err(StoreError::io("read", spool))?;
        if bytes <= PART as u64 {
            let mut content = Vec::new();
            file.read_to_end(&mut content)
                .await
                .map_err(StoreError::io("read", spool))?;
            let written = self.shared.store.put(key, PutPayload::from(content)).await;
            return written.map(drop).map_err(failed("write", key));
        }
        let upload = self.shared.store.put_multipart(key).await;
        let mut upload = WriteMultipart::new_with_chunk_size(upload.map_err(failed("write", key))?, PART);
        loop {
            let mut part = BytesMut::with_capacity(128 << 10);
            if file.read_buf(&mut part).await.map_err(StoreError::io("read", spool))? == 0 {
                break;
            }
            upload.wait_for_capacity(AT_ONCE).await.map_err(failed("write", key))?;
            upload.put(part.freeze());
        }
        upload.finish().await.map(drop).map_err(failed("write", key))
    }
}

#[async_trait]
impl Objects for S3Objects {
    async fn append_log(&self, log: LogId, offset: u64, bytes: Bytes) -> Result<u64, StoreError> {
        let mut length = match self.shared.known.length(log) {
            Some(length) => length,
            None => self.refresh(log).await?,
        };
        for attempt in 0..TRIES {
            let skip = usize::try_from(length.saturating_sub(offset)).unwrap_or(usize::MAX);
            if offset > length || skip >= bytes.len() {
                // Another server may have appended since.
                length = self.refresh(log).await?;
                if offset > length {
                    return Err(StoreError::LogGap { length });
                }
                if offset + bytes.len() as u64 <= length {
                    return Ok(length);
                }
                continue;
            }
            let key = self.chunk_key(log, length);
            let new = bytes.slice(skip..);
            let end = length + new.len() as u64;
            match self.create(&key, new).await {
                Ok(()) => {
                    self.shared.known.add(log, std::iter::once(length..end));
                    return Ok(end);
                }
                // It may even be this server's own write whose answer was lost.
                Err(Error::AlreadyExists { .. }) => {
                    let found = self.refresh(log).await?;
                    if found == length {
                        // Another server is writing it right now.
                        tokio::time::sleep(Duration::from_millis(5) * (attempt + 1)).await;
                    }
                    length = found;
                }
                Err(error) => return Err(failed("write", &key)(error)),
            }
        }
        Err(StoreError::Object {
            attempt: "append to",
            key: self.log_key(log).to_string(),
            source: "others append to it at the same time".into(),
        })
    }

    async fn log_length(&self, log: LogId) -> Result<u64, StoreError> {
        self.refresh(log).await
    }

    async fn read_log(&self, log: LogId, from: u64, limit: u64) -> Result<Bytes, StoreError> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let to = from.saturating_add(limit);
            if self.shared.known.length(log).is_none_or(|length| length < to) {
                self.refresh(log).await?;
            }
            let pieces = self.shared.known.pieces(log, from..to);
            let read = stream::iter(pieces)
                .map(async |(start, range)| {
                    let key = self.chunk_key(log, start);
                    let range = range.start - start..range.end - start;
                    let bytes = self.shared.store.get_range(&key, range).await;
                    bytes.map_err(|error| (key, error))
                })
                .buffered(AT_ONCE)
                .try_fold(BytesMut::new(), async |mut all, piece| {
                    all.extend_from_slice(&piece);
                    Ok(all)
                })
                .await;
            match read {
                Ok(all) => return Ok(all.freeze()),
                // The parts have been merged.
                Err((_, Error::NotFound { .. })) if attempts < 3 => self.shared.known.forget(log),
                Err((key, error)) => return Err(failed("read", &key)(error)),
            }
        }
    }

    async fn close_logs(&self, job: JobId) -> Result<(), StoreError> {
        let folder = self.key(&format!("logs/jobs/{job}"));
        let found: Vec<ObjectMeta> = self
            .shared
            .store
            .list(Some(&folder))
            .try_collect()
            .await
            .map_err(failed("list", &folder))?;
        let mut logs: BTreeMap<String, Vec<ObjectMeta>> = BTreeMap::new();
        for object in found {
            let path = object.location.as_ref();
            let log = path.rsplit_once('/').map_or(path, |(log, _)| log).to_string();
            logs.entry(log).or_default().push(object);
        }
        for (log, parts) in logs {
            self.compact(&Key::from(log), parts).await?;
        }
        self.shared.known.forget_job(job);
        Ok(())
    }

    async fn put_blob(&self, mut reader: BlobReader) -> Result<StoredBlob, StoreError> {
        let spool = &self.shared.spool;
        let file = tempfile::tempfile_in(spool).map_err(StoreError::io("make a file in", spool))?;
        let mut file = tokio::fs::File::from_std(file);
        let mut digester = Digester::default();
        let mut bytes = 0;
        let mut buffer = vec![0; 128 << 10];
        loop {
            let read = reader
                .read(&mut buffer)
                .await
                .map_err(StoreError::io("receive the bytes for", spool))?;
            if read == 0 {
                break;
            }
            digester.update(&buffer[..read]);
            let written = file.write_all(&buffer[..read]).await;
            written.map_err(StoreError::io("write a file in", spool))?;
            bytes += read as u64;
        }
        file.flush().await.map_err(StoreError::io("write a file in", spool))?;
        let digest = digester.finish();
        let key = self.blob_key(&digest);
        match self.shared.store.head(&key).await {
            // The name is the digest, so the content is the same.
            Ok(found) if found.size == bytes => {}
            Ok(_) | Err(Error::NotFound { .. }) => self.upload(&key, file, bytes).await?,
            Err(error) => return Err(failed("look for", &key)(error)),
        }
        Ok(StoredBlob { digest, bytes })
    }

    async fn blob(&self, digest: &Digest) -> Result<BlobReader, StoreError> {
        let key = self.blob_key(digest);
        let size = match self.shared.store.head(&key).await {
            Ok(found) => found.size,
            Err(Error::NotFound { .. }) => return Err(StoreError::NoBlob(digest.clone())),
            Err(error) => return Err(failed("look for", &key)(error)),
        };
        // Read in parts, so that the time limit of one request does not cut off a slow reader.
        let store = self.shared.store.clone();
        let parts = stream::try_unfold(0, move |from| {
            let (store, key) = (store.clone(), key.clone());
            async move {
                if from >= size {
                    return Ok(None);
                }
                let to = size.min(from + PART as u64);
                let part = store.get_range(&key, from..to).await.map_err(io::Error::other)?;
                Ok::<_, io::Error>(Some((part, to)))
            }
        });
        Ok(Box::pin(tokio_util::io::StreamReader::new(Box::pin(parts))))
    }
}

/// The bytes of its log that an object holds: the name gives the start, the size the length.
fn chunk(object: &ObjectMeta) -> Result<Range<u64>, StoreError> {
    let start: Option<u64> = object.location.filename().and_then(|name| name.parse().ok());
    let start = start.ok_or_else(|| StoreError::Unreadable {
        what: format!("the object `{}`", object.location),
        why: "it is not named after an offset".into(),
    })?;
    Ok(start..start + object.size)
}

fn failed(attempt: &'static str, key: &Key) -> impl FnOnce(Error) -> StoreError {
    let key = key.to_string();
    move |error| StoreError::Object {
        attempt,
        key,
        source: Box::new(error),
    }
}
