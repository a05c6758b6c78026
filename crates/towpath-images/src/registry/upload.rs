//! Unfinished uploads. The received bytes are a file named after the session, so an upload survives a restart of the server.

use super::{
    RegistryError, RepositoryName,
    range::ByteRange,
    store::{Store, failed, if_there, remove},
};
use axum::body::Body;
use http_body_util::BodyExt;
use std::{
    collections::HashMap,
    fs, io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};
use tokio::{io::AsyncWriteExt, sync::OwnedMutexGuard};
use towpath_types::{Digest, DigestAlgorithm, Digester};
use uuid::Uuid;

/// A client that sends nothing for this long is gone, even if its connection is still open.
const SILENCE: Duration = Duration::from_secs(60);

/// Active uploads are written more often than this, so collecting older ones cannot race with a client.
pub(super) const LEAST_GRACE: Duration = Duration::from_secs(5 * 60);

/// How many uploads of one repository may be open. A client has a few at once; those that it left are collected after a while.
pub(super) const MOST_OPEN: usize = 100;

/// The digest of the file's first bytes; `None` when this process did not see all of them.
type Hashed = Option<(u64, Digester)>;

/// The sessions that this process knows: two requests never write to one upload at the same time.
#[derive(Default)]
pub(super) struct Uploads(Mutex<HashMap<Uuid, Session>>);

struct Session {
    path: PathBuf,
    hashed: Arc<tokio::sync::Mutex<Hashed>>,
}

/// Why the registry did not take bytes.
#[derive(Debug, thiserror::Error)]
pub(super) enum UploadError {
    #[error("there is no such upload: it was finished, cancelled, or abandoned for too long")]
    Unknown,
    #[error("{MOST_OPEN} uploads of this repository are open: finish or cancel some, or try again in an hour")]
    TooMany,
    #[error("the chunk begins at byte {begins}, but the upload is at byte {at}")]
    OutOfOrder { begins: u64, at: u64 },
    #[error("the request announced {claimed} bytes but carried {received}")]
    WrongLength { claimed: u64, received: u64 },
    #[error("the connection ended in the middle of the body, at byte {at} of the upload: resume from there")]
    Interrupted { at: u64 },
    #[error("the bytes have digest {actual}, not {claimed}")]
    WrongDigest { claimed: Digest, actual: Digest },
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// One upload. No other request writes to it while this value lives.
///
/// Its methods must run to their end: spawn them, so that a client that hangs up does not cut them off.
pub(super) struct Upload {
    store: Arc<Store>,
    repository: RepositoryName,
    path: PathBuf,
    hashed: OwnedMutexGuard<Hashed>,
}

/// What a request says about the size of its body.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Claimed {
    /// `Content-Range`.
    pub range: Option<ByteRange>,
    /// `Content-Length`, in bytes.
    pub length: Option<u64>,
}

impl Uploads {
    /// Begins an upload, unless too many of the repository are open.
    pub async fn begin(&self, store: &Arc<Store>, repository: &RepositoryName) -> Result<Uuid, UploadError> {
        let id = Uuid::new_v4();
        let (store, repository) = (store.clone(), repository.clone());
        let created = tokio::task::spawn_blocking(move || {
            if store.open_uploads(&repository)? >= MOST_OPEN {
                return Err(UploadError::TooMany);
            }
            Ok(store.create_upload(&repository, id)?)
        });
        created.await.map_err(|_| RegistryError::Stopping)??;
        Ok(id)
    }

    /// Waits until no other request uses the upload, and takes it.
    pub async fn open(&self, store: &Arc<Store>, repository: &RepositoryName, id: Uuid) -> Result<Upload, UploadError> {
        let path = store.upload_path(repository, id);
        if offset(&path).await?.is_none() {
            return Err(UploadError::Unknown);
        }
        let session = {
            let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let session = sessions.entry(id).or_insert_with(|| Session {
                path: path.clone(),
                hashed: Arc::default(),
            });
            session.hashed.clone()
        };
        let hashed = session.lock_owned().await;
        match touch(&path).await {
            Ok(()) => {}
            // Another request finished it meanwhile.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.forget_if_over(id);
                return Err(UploadError::Unknown);
            }
            Err(e) => return Err(failed("open", &path)(e).into()),
        }
        Ok(Upload {
            store: store.clone(),
            repository: repository.clone(),
            path,
            hashed,
        })
    }

    /// Drops sessions whose files are gone.
    pub fn forget_missing(&self) {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|_, session| session.path.exists());
    }

    /// Drops a session if its file is gone. While the file exists, all requests must share one session.
    pub fn forget_if_over(&self, id: Uuid) {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions.get(&id).is_some_and(|session| !session.path.exists()) {
            sessions.remove(&id);
        }
    }
}

/// How many bytes of an upload have arrived; `None` when there is no such upload.
pub(super) async fn offset(path: &std::path::Path) -> Result<Option<u64>, RegistryError> {
    let metadata = if_there(tokio::fs::metadata(path).await).map_err(failed("read", path))?;
    Ok(metadata.map(|m| m.len()))
}

/// Marks the upload as in use before anything is written to it, so that it is not collected.
async fn touch(path: &std::path::Path) -> io::Result<()> {
    let file = tokio::fs::OpenOptions::new().append(true).open(path).await?;
    file.into_std().await.set_modified(SystemTime::now())
}

impl Upload {
    /// Appends `body` and answers the upload's new length in bytes.
    ///
    /// If the connection breaks, what has arrived stays and the client may resume from there. If the body is not what the
    /// headers announced, or the disk is full, none of it stays.
    pub async fn append(&mut self, claimed: Claimed, body: Body) -> Result<u64, UploadError> {
        let begins = offset(&self.path).await?.ok_or(UploadError::Unknown)?;
        if let Some(range) = claimed.range
            && range.first != begins
        {
            return Err(UploadError::OutOfOrder {
                begins: range.first,
                at: begins,
            });
        }
        let known = self.hashed.as_ref().is_some_and(|(length, _)| *length == begins);
        if !known {
            *self.hashed = (begins == 0).then(Default::default);
        }
        let expected = claimed.range.map(ByteRange::len);
        let arrived = self.receive(begins, expected, body).await;
        let received = match arrived {
            Ok(received) => received,
            Err(e) => {
                if !matches!(e, UploadError::Interrupted { .. }) {
                    self.cut_back(begins).await;
                }
                return Err(e);
            }
        };
        if claimed.length.is_some_and(|length| received < length) {
            return Err(UploadError::Interrupted { at: begins + received });
        }
        if let Some(claimed) = expected.filter(|expected| *expected != received) {
            self.cut_back(begins).await;
            return Err(UploadError::WrongLength { claimed, received });
        }
        Ok(begins + received)
    }

    /// Writes the body after the first `begins` bytes and answers its length.
    async fn receive(&mut self, begins: u64, at_most: Option<u64>, mut body: Body) -> Result<u64, UploadError> {
        let mut file = tokio::fs::OpenOptions::new()
            .append(true)
            .open(&self.path)
            .await
            .map_err(failed("open", &self.path))?;
        let mut received = 0;
        let interrupted = loop {
            let frame = match tokio::time::timeout(SILENCE, body.frame()).await {
                Ok(None) => break false,
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(_))) | Err(_) => break true,
            };
            let Ok(bytes) = frame.into_data() else { continue };
            received += bytes.len() as u64;
            if let Some(claimed) = at_most.filter(|most| received > *most) {
                return Err(UploadError::WrongLength { claimed, received });
            }
            file.write_all(&bytes).await.map_err(failed("write", &self.path))?;
            if let Some((length, digester)) = self.hashed.as_mut() {
                digester.update(&bytes);
                *length += bytes.len() as u64;
            }
        };
        // Reports errors of writes that were still in progress.
        file.flush().await.map_err(failed("write", &self.path))?;
        if interrupted {
            return Err(UploadError::Interrupted { at: begins + received });
        }
        Ok(received)
    }

    /// Removes what this request added. Best effort: if the file stays longer than the client believes, the client asks for
    /// the offset.
    async fn cut_back(&mut self, length: u64) {
        *self.hashed = None;
        let path = self.path.clone();
        let cut = tokio::task::spawn_blocking(move || {
            fs::File::options()
                .write(true)
                .open(path)
                .and_then(|file| file.set_len(length))
        });
        if let Ok(Err(e)) = cut.await {
            tracing::warn!(error = %e, path = %self.path.display(), "failed to shorten an upload after a failed write");
        }
    }

    /// Compares the bytes with `claimed` and turns them into a blob of the repository. Ends the upload, except after an error
    /// of the disk.
    pub async fn finish(self, claimed: Digest) -> Result<(), UploadError> {
        let work = move || {
            let length = if_there(fs::metadata(&self.path))
                .map_err(failed("read", &self.path))?
                .ok_or(UploadError::Unknown)?
                .len();
            let actual = match &*self.hashed {
                Some((hashed, digester)) if *hashed == length && claimed.algorithm() == DigestAlgorithm::Sha256 => {
                    digester.clone().finish()
                }
                _ => digest_of(&self.path, claimed.algorithm())?,
            };
            if actual != claimed {
                remove(&self.path)?;
                return Err(UploadError::WrongDigest { claimed, actual });
            }
            fs::File::open(&self.path)
                .and_then(|file| file.sync_all())
                .map_err(failed("sync", &self.path))?;
            Ok(self.store.commit_blob(&self.repository, &self.path, &claimed)?)
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|_| UploadError::Registry(RegistryError::Stopping))?
    }

    /// Ends the upload and removes its bytes.
    pub async fn cancel(self) -> Result<(), RegistryError> {
        tokio::task::spawn_blocking(move || remove(&self.path))
            .await
            .map_err(|_| RegistryError::Stopping)?
            .map(drop)
    }
}

fn digest_of(path: &std::path::Path, algorithm: DigestAlgorithm) -> Result<Digest, RegistryError> {
    let mut digester = Digester::new(algorithm);
    let mut file = fs::File::open(path).map_err(failed("read", path))?;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match io::Read::read(&mut file, &mut buffer).map_err(failed("read", path))? {
            0 => return Ok(digester.finish()),
            read => digester.update(&buffer[..read]),
        }
    }
}
