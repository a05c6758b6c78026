//! A folder of blobs by digest: cache archives, workspace layers, artifacts.

use crate::StoreError;
use std::path::{Path, PathBuf};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use towpath_types::{Digest, Digester};

/// The blobs' folder.
#[derive(Debug, Clone)]
pub struct Blobs {
    folder: PathBuf,
    temporary: PathBuf,
}

/// A blob that was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its size.
    pub bytes: u64,
}

impl Blobs {
    pub(crate) fn new(folder: PathBuf, temporary: PathBuf) -> Self {
        Self { folder, temporary }
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(&digest.hex()[..2]).join(digest.hex())
    }

    /// Stores what `reader` has; a reader that breaks off leaves nothing.
    ///
    /// # Errors
    /// When the reader or the disk fails.
    pub async fn put(&self, mut reader: impl AsyncRead + Unpin) -> Result<StoredBlob, StoreError> {
        let temporary = tempfile::NamedTempFile::new_in(&self.temporary)
            .map_err(StoreError::io("make a file in", &self.temporary))?;
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
            file.write_all(&buffer[..read]).await.map_err(failed())?;
            bytes += read as u64;
        }
        file.flush().await.map_err(failed())?;
        file.sync_all().await.map_err(failed())?;
        let digest = digester.finish();
        let path = self.path(&digest);
        let parent = path.parent().unwrap_or(Path::new("/"));
        tokio::fs::create_dir_all(parent)
            .await
            .map_err(StoreError::io("make the folder", parent))?;
        temporary
            .persist(&path)
            .map_err(|error| StoreError::io("put in place", &path)(error.error))?;
        Ok(StoredBlob { digest, bytes })
    }

    /// Opens a blob.
    ///
    /// # Errors
    /// [`StoreError::NoBlob`] when there is none.
    pub async fn get(&self, digest: &Digest) -> Result<tokio::fs::File, StoreError> {
        let path = self.path(digest);
        match tokio::fs::File::open(&path).await {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(StoreError::NoBlob(digest.clone())),
            other => other.map_err(StoreError::io("open", path)),
        }
    }
}
