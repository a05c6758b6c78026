//! The folder: where files are and how they become visible. Synchronous: call it from a thread that may block.

use super::{
    PushedManifest, RegistryError, RepositoryName, TagName,
    manifest::{Descriptor, ManifestDocument, Rejected, parse},
    pushed::NotNoted,
};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::SystemTime,
};
use towpath_types::{Digest, DigestAlgorithm};
use uuid::Uuid;

/// Turns an error of the disk into one that names the operation and the path.
pub(super) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RegistryError {
    let path = path.to_path_buf();
    move |source| RegistryError::Storage { action, path, source }
}

/// `Ok(None)` when the file does not exist.
pub(super) fn if_there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// The names in a folder; empty when it does not exist.
pub(super) fn names_in(dir: &Path) -> Result<Vec<String>, RegistryError> {
    let Some(entries) = if_there(fs::read_dir(dir)).map_err(failed("read", dir))? else {
        return Ok(Vec::new());
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed("read", dir))?;
        names.extend(entry.file_name().into_string());
    }
    Ok(names)
}

/// What the registry stores about a manifest beside its bytes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ManifestRecord {
    pub media_type: String,
}

/// Why a manifest is not accepted.
#[derive(Debug, thiserror::Error)]
pub(super) enum ManifestRefusal {
    #[error(transparent)]
    Rejected(#[from] Rejected),
    #[error("the body has digest {actual}, but the address names {claimed}")]
    WrongDigest { claimed: Digest, actual: Digest },
    #[error("the repository lacks {} of the blobs and manifests that this manifest refers to: push them first", .0.len())]
    Unknown(Vec<Digest>),
    #[error("{digest} has {actual} bytes, but the manifest says that it has {claimed}")]
    WrongSize { digest: Digest, claimed: u64, actual: u64 },
    #[error("the manifest is stored, but that it was pushed could not be noted: {0}; push again")]
    NotNoted(#[from] NotNoted),
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// A manifest that was accepted.
pub(super) struct Accepted {
    pub digest: Digest,
    pub subject: Option<Digest>,
}

pub(super) struct Store {
    root: PathBuf,
    /// Taken shared to publish and exclusively to remove, by the threads of this process. A lock on the file `gate` does the
    /// same among processes.
    gate: RwLock<()>,
    /// Says that the folder is served. The operating system releases it when the process ends, however it ends.
    _lock: File,
}

/// The gate, held. What other processes wait for is released first.
pub(super) struct Held<G> {
    _processes: File,
    _threads: G,
}

impl Store {
    pub fn open(root: PathBuf) -> Result<Self, RegistryError> {
        fs::create_dir_all(&root).map_err(failed("create", &root))?;
        let lock_path = root.join("lock");
        let lock = File::options()
            .create(true)
            .append(true)
            .open(&lock_path)
            .map_err(failed("open", &lock_path))?;
        let temporary = root.join("temporary");
        match lock.try_lock() {
            // Nobody else serves the folder, so nobody writes there.
            Ok(()) => {
                if_there(fs::remove_dir_all(&temporary)).map_err(failed("empty", &temporary))?;
            }
            Err(fs::TryLockError::WouldBlock) => {}
            Err(fs::TryLockError::Error(source)) => return Err(failed("lock", &lock_path)(source)),
        }
        lock.lock_shared().map_err(failed("lock", &lock_path))?;
        fs::create_dir_all(&temporary).map_err(failed("create", &temporary))?;
        for name in ["blobs", "repositories"] {
            let dir = root.join(name);
            fs::create_dir_all(&dir).map_err(failed("create", &dir))?;
        }
        sync_dir(&root)?;
        Ok(Self {
            root,
            gate: RwLock::new(()),
            _lock: lock,
        })
    }

    // A panic while the gate is held leaves nothing inconsistent: every file that it guards is renamed into place.
    fn shared(&self) -> Result<Held<RwLockReadGuard<'_, ()>>, RegistryError> {
        let threads = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        let (path, file) = self.gate_file()?;
        file.lock_shared().map_err(failed("lock", &path))?;
        Ok(Held {
            _processes: file,
            _threads: threads,
        })
    }

    pub(super) fn alone(&self) -> Result<Held<RwLockWriteGuard<'_, ()>>, RegistryError> {
        let threads = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        let (path, file) = self.gate_file()?;
        file.lock().map_err(failed("lock", &path))?;
        Ok(Held {
            _processes: file,
            _threads: threads,
        })
    }

    /// The gate's file, opened anew: locks belong to what was opened.
    fn gate_file(&self) -> Result<(PathBuf, File), RegistryError> {
        let path = self.root.join("gate");
        let opened = File::options().create(true).append(true).open(&path);
        Ok((path.clone(), opened.map_err(failed("open", &path))?))
    }

    pub(super) fn blobs_dir(&self, algorithm: DigestAlgorithm) -> PathBuf {
        self.root.join("blobs").join(algorithm.as_str())
    }

    pub(super) fn blob_path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.blobs_dir(digest.algorithm()).join(&hex[..2]).join(hex)
    }

    pub(super) fn repositories_dir(&self) -> PathBuf {
        self.root.join("repositories")
    }

    pub(super) fn repository_dir(&self, repository: &RepositoryName) -> PathBuf {
        self.repositories_dir().join(repository.as_str())
    }

    pub(super) fn layer_link(&self, repository: &RepositoryName, digest: &Digest) -> PathBuf {
        self.repository_dir(repository).join("_layers").join(digest.hex())
    }

    pub(super) fn manifest_link(&self, repository: &RepositoryName, digest: &Digest) -> PathBuf {
        self.repository_dir(repository).join("_manifests").join(digest.hex())
    }

    fn tags_dir(&self, repository: &RepositoryName) -> PathBuf {
        self.repository_dir(repository).join("_tags")
    }

    fn tag_path(&self, repository: &RepositoryName, tag: &TagName) -> PathBuf {
        self.tags_dir(repository).join(tag.as_str())
    }

    fn referrers_dir(&self, repository: &RepositoryName, subject: &Digest) -> PathBuf {
        self.repository_dir(repository).join("_referrers").join(subject.hex())
    }

    pub(super) fn uploads_dir(&self, repository: &RepositoryName) -> PathBuf {
        self.repository_dir(repository).join("_uploads")
    }

    pub fn upload_path(&self, repository: &RepositoryName, id: Uuid) -> PathBuf {
        self.uploads_dir(repository).join(id.hyphenated().to_string())
    }

    /// Creates the empty file of a new upload.
    pub fn create_upload(&self, repository: &RepositoryName, id: Uuid) -> Result<(), RegistryError> {
        create_dirs(&self.uploads_dir(repository))?;
        let path = self.upload_path(repository, id);
        File::create_new(&path).map_err(failed("create", &path))?;
        Ok(())
    }

    /// How many uploads of a repository are open.
    pub fn open_uploads(&self, repository: &RepositoryName) -> Result<usize, RegistryError> {
        let folder = self.uploads_dir(repository);
        let entries = if_there(fs::read_dir(&folder)).map_err(failed("list", &folder))?;
        Ok(entries.map_or(0, Iterator::count))
    }

    /// The size of a blob in bytes; `None` when the repository does not have it.
    pub fn blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<Option<u64>, RegistryError> {
        let link = self.layer_link(repository, digest);
        if !link.try_exists().map_err(failed("read", &link))? {
            return Ok(None);
        }
        self.blob_size(digest)
    }

    fn blob_size(&self, digest: &Digest) -> Result<Option<u64>, RegistryError> {
        let path = self.blob_path(digest);
        let metadata = if_there(fs::metadata(&path)).map_err(failed("read", &path))?;
        Ok(metadata.map(|m| m.len()))
    }

    /// Like [`Store::blob`], and protects the blob from collection for the grace period: a client that hears that it exists
    /// will not upload it and will refer to it.
    pub fn promise_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<Option<u64>, RegistryError> {
        let _shared = self.shared()?;
        let size = self.blob(repository, digest)?;
        if size.is_some() {
            touch(&self.layer_link(repository, digest))?;
        }
        Ok(size)
    }

    /// Moves a synced file whose bytes match `digest` into place and links it to the repository.
    pub fn commit_blob(&self, repository: &RepositoryName, from: &Path, digest: &Digest) -> Result<(), RegistryError> {
        let _shared = self.shared()?;
        // An existing blob is replaced by the same bytes, so pushing a blob again repairs one that the disk damaged.
        publish(from, &self.blob_path(digest))?;
        self.link_layer(repository, digest)
    }

    /// Links a blob of `from` to `repository` too. `None` when `from` has no such blob.
    pub fn mount_blob(
        &self,
        repository: &RepositoryName,
        from: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<()>, RegistryError> {
        let _shared = self.shared()?;
        if self.blob(from, digest)?.is_none() {
            return Ok(None);
        }
        self.link_layer(repository, digest).map(Some)
    }

    fn link_layer(&self, repository: &RepositoryName, digest: &Digest) -> Result<(), RegistryError> {
        let link = self.layer_link(repository, digest);
        create_dirs(&self.repository_dir(repository).join("_layers"))?;
        match File::create_new(&link) {
            Ok(_) => sync_dir(&self.repository_dir(repository).join("_layers")),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => touch(&link),
            Err(e) => Err(failed("create", &link)(e)),
        }
    }

    /// Removes a blob from the repository and answers whether it was there. [`Registry::collect`](super::Registry::collect)
    /// removes its bytes when no other repository has it.
    pub fn delete_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<bool, RegistryError> {
        let _alone = self.alone()?;
        remove(&self.layer_link(repository, digest))
    }

    pub fn manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<ManifestRecord>, RegistryError> {
        read_json(&self.manifest_link(repository, digest))
    }

    /// A manifest of the repository: its record and its bytes.
    pub fn read_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<(ManifestRecord, Vec<u8>)>, RegistryError> {
        let Some(record) = self.manifest(repository, digest)? else {
            return Ok(None);
        };
        let path = self.blob_path(digest);
        let bytes = if_there(fs::read(&path)).map_err(failed("read", &path))?;
        Ok(bytes.map(|bytes| (record, bytes)))
    }

    /// Checks a manifest and everything that it refers to, publishes it, and then moves the tag.
    pub fn put_manifest(
        &self,
        repository: &RepositoryName,
        claimed: Option<&Digest>,
        tag: Option<&TagName>,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Accepted, ManifestRefusal> {
        let digest = claimed.map(Digest::algorithm).unwrap_or_default().digest(bytes);
        if let Some(claimed) = claimed
            && *claimed != digest
        {
            return Err(ManifestRefusal::WrongDigest {
                claimed: claimed.clone(),
                actual: digest,
            });
        }
        let document = parse(media_type, bytes)?;
        let _shared = self.shared()?;
        self.check_references(repository, &document)?;

        let blob = self.blob_path(&digest);
        if self.blob_size(&digest)? != Some(bytes.len() as u64) {
            self.write(&blob, bytes)?;
        }
        if let Some(subject) = &document.subject {
            let descriptor = document.as_referrer(media_type, &digest, bytes.len() as u64);
            let path = self.referrers_dir(repository, &subject.digest).join(digest.hex());
            self.write_json(&path, &descriptor)?;
        }
        let record = ManifestRecord {
            media_type: media_type.to_string(),
        };
        self.write_json(&self.manifest_link(repository, &digest), &record)?;
        if let Some(tag) = tag {
            self.point(repository, tag, &digest)?;
        }
        Ok(Accepted {
            digest,
            subject: document.subject.map(|subject| subject.digest),
        })
    }

    /// Checks that the repository has everything that the manifest needs, with the sizes that the manifest states.
    fn check_references(
        &self,
        repository: &RepositoryName,
        document: &ManifestDocument,
    ) -> Result<(), ManifestRefusal> {
        let mut unknown = Vec::new();
        for needed in document.blobs() {
            let size = self.blob(repository, &needed.digest)?;
            check_size(needed, size, &mut unknown)?;
            if size.is_some() {
                // Protect the blob from a slow `collect` that read the manifests before this one.
                touch(&self.layer_link(repository, &needed.digest))?;
            }
        }
        for needed in document.manifests() {
            // An entry may be a blob: BuildKit's cache is an index of layers.
            let size = if self.manifest(repository, &needed.digest)?.is_some() {
                self.blob_size(&needed.digest)?
            } else {
                self.blob(repository, &needed.digest)?
            };
            check_size(needed, size, &mut unknown)?;
        }
        if unknown.is_empty() {
            Ok(())
        } else {
            Err(ManifestRefusal::Unknown(unknown))
        }
    }

    /// Removes a manifest, the tags that point to it, and its entry among the referrers of its subject. Answers whether it was
    /// there.
    pub fn delete_manifest(&self, repository: &RepositoryName, digest: &Digest) -> Result<bool, RegistryError> {
        let _alone = self.alone()?;
        let Some((record, bytes)) = self.read_manifest(repository, digest)? else {
            // Without its bytes it cannot be pulled; remove the link that is left.
            return remove(&self.manifest_link(repository, digest));
        };
        for tag in self.tags(repository)?.unwrap_or_default() {
            if self.resolve(repository, &tag)?.as_ref() == Some(digest) {
                remove(&self.tag_path(repository, &tag))?;
            }
        }
        if let Ok(document) = parse(&record.media_type, &bytes)
            && let Some(subject) = document.subject
        {
            remove(&self.referrers_dir(repository, &subject.digest).join(digest.hex()))?;
        }
        remove(&self.manifest_link(repository, digest))
    }

    /// Whether the repository was ever pushed to.
    fn is_known(&self, repository: &RepositoryName) -> Result<bool, RegistryError> {
        let dir = self.repository_dir(repository).join("_manifests");
        dir.try_exists().map_err(failed("read", &dir))
    }

    /// The tags in [`tag_order`]; `None` when there is no such repository.
    pub fn tags(&self, repository: &RepositoryName) -> Result<Option<Vec<TagName>>, RegistryError> {
        if !self.is_known(repository)? {
            return Ok(None);
        }
        let mut tags: Vec<TagName> = names_in(&self.tags_dir(repository))?
            .iter()
            .filter_map(|name| name.parse().ok())
            .collect();
        tags.sort_by_cached_key(tag_order);
        Ok(Some(tags))
    }

    pub fn resolve(&self, repository: &RepositoryName, tag: &TagName) -> Result<Option<Digest>, RegistryError> {
        let path = self.tag_path(repository, tag);
        let Some(text) = if_there(fs::read_to_string(&path)).map_err(failed("read", &path))? else {
            return Ok(None);
        };
        text.parse().map(Some).map_err(|e| RegistryError::Damaged {
            path,
            why: format!("{e}"),
        })
    }

    pub fn tag(&self, repository: &RepositoryName, digest: &Digest, tag: &TagName) -> Result<(), RegistryError> {
        let _shared = self.shared()?;
        if self.manifest(repository, digest)?.is_none() {
            return Err(RegistryError::ManifestUnknown {
                repository: repository.clone(),
                digest: digest.clone(),
            });
        }
        self.point(repository, tag, digest)
    }

    fn point(&self, repository: &RepositoryName, tag: &TagName, digest: &Digest) -> Result<(), RegistryError> {
        self.write(&self.tag_path(repository, tag), digest.as_str().as_bytes())
    }

    /// Removes a tag and answers whether it was there. The manifest stays.
    pub fn delete_tag(&self, repository: &RepositoryName, tag: &TagName) -> Result<bool, RegistryError> {
        let _alone = self.alone()?;
        remove(&self.tag_path(repository, tag))
    }

    /// Descriptors of the manifests that refer to `subject`, sorted by digest.
    pub fn referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
    ) -> Result<Vec<serde_json::Value>, RegistryError> {
        let dir = self.referrers_dir(repository, subject);
        let mut digests: Vec<Digest> = names_in(&dir)?
            .iter()
            .filter_map(|hex| Digest::of_hex(hex).ok())
            .collect();
        digests.sort();
        let mut descriptors = Vec::new();
        for digest in digests {
            // A descriptor is written before its manifest becomes visible.
            if self.manifest(repository, &digest)?.is_some() {
                descriptors.extend(read_json::<serde_json::Value>(&dir.join(digest.hex()))?);
            }
        }
        Ok(descriptors)
    }

    /// Writes a temporary file, syncs it, and renames it to `to`.
    fn write(&self, to: &Path, bytes: &[u8]) -> Result<(), RegistryError> {
        let aside = self.root.join("temporary").join(Uuid::new_v4().to_string());
        let written = File::create_new(&aside)
            .and_then(|mut file| {
                file.write_all(bytes)?;
                file.sync_all()
            })
            .map_err(failed("write", to))
            .and_then(|()| publish(&aside, to));
        if written.is_err() {
            // Best effort: the next start empties the temporary folder.
            let _ = fs::remove_file(&aside);
        }
        written
    }

    fn write_json(&self, to: &Path, value: &impl Serialize) -> Result<(), RegistryError> {
        let bytes = serde_json::to_vec(value).map_err(|e| failed("write", to)(e.into()))?;
        self.write(to, &bytes)
    }
}

/// The specification asks for lexical order that ignores case. The second part makes the order total.
pub(super) fn tag_order(tag: &TagName) -> (String, String) {
    (tag.as_str().to_ascii_lowercase(), tag.as_str().to_string())
}

fn check_size(needed: &Descriptor, size: Option<u64>, unknown: &mut Vec<Digest>) -> Result<(), ManifestRefusal> {
    match size {
        None => {
            unknown.push(needed.digest.clone());
            Ok(())
        }
        Some(actual) if actual != needed.size => Err(ManifestRefusal::WrongSize {
            digest: needed.digest.clone(),
            claimed: needed.size,
            actual,
        }),
        Some(_) => Ok(()),
    }
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, RegistryError> {
    let Some(bytes) = if_there(fs::read(path)).map_err(failed("read", path))? else {
        return Ok(None);
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|e| RegistryError::Damaged {
            path: path.to_path_buf(),
            why: e.to_string(),
        })
}

/// Creates `dir` and its parents durably: they survive a power cut.
fn create_dirs(dir: &Path) -> Result<(), RegistryError> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        create_dirs(parent)?;
        match fs::create_dir(dir) {
            Ok(()) => sync_dir(parent)?,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(failed("create", dir)(e)),
        }
    }
    Ok(())
}

/// Makes renames in `dir` durable.
fn sync_dir(dir: &Path) -> Result<(), RegistryError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(failed("sync", dir))
}

/// Moves a synced file into place, durably.
fn publish(from: &Path, to: &Path) -> Result<(), RegistryError> {
    let parent = to.parent().unwrap_or(to);
    create_dirs(parent)?;
    fs::rename(from, to).map_err(failed("write", to))?;
    sync_dir(parent)
}

/// Removes a file and answers whether it was there.
pub(super) fn remove(path: &Path) -> Result<bool, RegistryError> {
    let removed = if_there(fs::remove_file(path)).map_err(failed("remove", path))?;
    Ok(removed.is_some())
}

/// Sets the time of a link to now.
fn touch(link: &Path) -> Result<(), RegistryError> {
    File::options()
        .append(true)
        .open(link)
        .and_then(|file| file.set_modified(SystemTime::now()))
        .map_err(failed("touch", link))
}

impl Accepted {
    /// The observer's data about a push.
    pub fn pushed(&self, repository: &RepositoryName, tag: Option<&TagName>, by: Option<String>) -> PushedManifest {
        PushedManifest {
            repository: repository.clone(),
            tag: tag.cloned(),
            digest: self.digest.clone(),
            by,
        }
    }
}
