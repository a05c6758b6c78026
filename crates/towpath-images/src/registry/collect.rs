//! Garbage collection: removes what no manifest needs.

use super::{
    RegistryError, RepositoryName,
    manifest::parse,
    store::{Store, failed, if_there, names_in, remove},
    upload::LEAST_GRACE,
};
use std::{
    collections::HashSet,
    fs,
    path::Path,
    time::{Duration, SystemTime},
};
use towpath_types::{Digest, DigestAlgorithm};

/// What [`Registry::collect`](super::Registry::collect) removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Links of repositories to blobs. A blob that two repositories had counts twice.
    pub unlinked: usize,
    /// Files of blobs.
    pub blobs: usize,
    /// The size of those files.
    pub bytes: u64,
    /// Unfinished uploads.
    pub uploads: usize,
}

impl Store {
    /// Holds the gate exclusively throughout, so that no new manifest can refer to a blob that is being removed. Reading
    /// thousands of manifests takes about a second.
    pub fn collect(&self, grace: Duration) -> Result<Collected, RegistryError> {
        let _alone = self.alone()?;
        let mut collected = Collected::default();
        let mut repositories = Vec::new();
        self.find_repositories("", &mut repositories)?;

        // Read everything before removing anything.
        let mut needed = Vec::new();
        let mut linked = HashSet::new();
        for repository in &repositories {
            let (blobs, manifests) = self.needed_by(repository)?;
            linked.extend(manifests);
            needed.push(blobs);
        }
        for (repository, needed) in repositories.iter().zip(needed) {
            let dir = self.repository_dir(repository);
            for hex in names_in(&dir.join("_layers"))? {
                let Ok(digest) = Digest::of_hex(&hex) else { continue };
                let link = self.layer_link(repository, &digest);
                if needed.contains(&digest) || !is_older(&link, grace)? {
                    linked.insert(digest);
                } else if remove(&link)? {
                    collected.unlinked += 1;
                }
            }
            for name in names_in(&dir.join("_uploads"))? {
                let upload = dir.join("_uploads").join(name);
                if is_older(&upload, grace.max(LEAST_GRACE))? && remove(&upload)? {
                    collected.uploads += 1;
                }
            }
        }
        for blobs in DigestAlgorithm::ALL.map(|algorithm| self.blobs_dir(algorithm)) {
            for prefix in names_in(&blobs)? {
                for hex in names_in(&blobs.join(&prefix))? {
                    let digest = Digest::of_hex(&hex).ok();
                    let Some(digest) = digest.filter(|digest| !linked.contains(digest)) else {
                        continue;
                    };
                    let path = self.blob_path(&digest);
                    let size = if_there(fs::metadata(&path)).map_err(failed("read", &path))?;
                    if remove(&path)? {
                        collected.blobs += 1;
                        collected.bytes += size.map_or(0, |m| m.len());
                    }
                }
            }
        }
        Ok(collected)
    }

    /// Every folder below `repositories/` that has one of the registry's own folders. Those begin with an underscore, which
    /// no component of a repository's name does.
    fn find_repositories(&self, below: &str, found: &mut Vec<RepositoryName>) -> Result<(), RegistryError> {
        let mut is_repository = false;
        for name in names_in(&self.repositories_dir().join(below))? {
            if name.starts_with('_') {
                is_repository = true;
            } else {
                let path = if below.is_empty() {
                    name
                } else {
                    format!("{below}/{name}")
                };
                self.find_repositories(&path, found)?;
            }
        }
        if is_repository {
            found.extend(below.parse());
        }
        Ok(())
    }

    /// The blobs that the repository's manifests refer to, and the manifests themselves.
    fn needed_by(&self, repository: &RepositoryName) -> Result<(HashSet<Digest>, Vec<Digest>), RegistryError> {
        let mut blobs = HashSet::new();
        let mut manifests = Vec::new();
        for hex in names_in(&self.repository_dir(repository).join("_manifests"))? {
            let Ok(digest) = Digest::of_hex(&hex) else { continue };
            let damaged = |why: String| RegistryError::Damaged {
                path: self.blob_path(&digest),
                why,
            };
            let (record, bytes) = self
                .read_manifest(repository, &digest)?
                .ok_or_else(|| damaged("the manifest's bytes are missing: push it again, or delete it".to_string()))?;
            let document = parse(&record.media_type, &bytes).map_err(|e| damaged(e.to_string()))?;
            blobs.extend(document.blobs().map(|blob| blob.digest.clone()));
            // In BuildKit's cache the entries of an index are blobs.
            blobs.extend(document.manifests().map(|entry| entry.digest.clone()));
            manifests.push(digest);
        }
        Ok((blobs, manifests))
    }
}

/// Whether `path` was last written at least `grace` ago. A time in the future counts as new.
fn is_older(path: &Path, grace: Duration) -> Result<bool, RegistryError> {
    let Some(metadata) = if_there(fs::metadata(path)).map_err(failed("read", path))? else {
        return Ok(false);
    };
    let modified = metadata.modified().map_err(failed("read", path))?;
    Ok(SystemTime::now().duration_since(modified).is_ok_and(|age| age >= grace))
}
