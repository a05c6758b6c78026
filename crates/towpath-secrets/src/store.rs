//! The sealed store: setting, listing and revealing values.

use crate::disk::{LOCK_PATIENCE, delete, lock, make_folder, names, read, replace};
use crate::key::{Binding, Fingerprint, Keys, key_file};
use crate::names::{free, from_file_name, to_file_name};
use crate::{Scope, SealedStoreError};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use towpath_types::{NoVariable, SecretBytes, SeenSecrets};

/// The most bytes that all values of one Secret may have together.
///
/// Source: <https://kubernetes.io/docs/concepts/configuration/secret/#restriction-data-size>
const SECRET_BYTES: usize = 1 << 20;

/// The most bytes of an environment variable on Linux: name, `=`, value and the zero at the end.
///
/// Source: <https://man7.org/linux/man-pages/man2/execve.2.html> (`MAX_ARG_STRLEN`)
const VARIABLE_BYTES: usize = 128 << 10;

/// The version of the files' format.
const FORMAT: u32 = 1;

/// How much longer a sealed value is than the value: the nonce and the tag.
const SEAL_BYTES: usize = 24 + 16;

/// A folder of sealed values, and their key.
///
/// Threads and processes may share one folder. Changes wait for each other; readers see the state before or after a change. A
/// process should share one `SealedStore`, but several work, too.
#[derive(Debug)]
pub struct SealedStore {
    root: PathBuf,
    keys: Keys,
    patience: Duration,
    seen: SeenSecrets,
}

/// What may be known about a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Entry {
    pub key: String,
    /// The name of a person.
    pub set_by: String,
    pub set_at: Timestamp,
    /// The length of the value.
    pub bytes: usize,
    /// Stands for the value.
    pub fingerprint: Fingerprint,
}

/// The contents of a scope, without values.
#[derive(Debug, Default)]
pub struct Listing {
    /// The values that open, sorted by key.
    pub entries: Vec<Entry>,
    /// One error for each value that does not open.
    pub broken: Vec<SealedStoreError>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SealedFile {
    version: u32,
    scope: Scope,
    /// [`Keys::id`] of the key that sealed the values.
    key: String,
    values: BTreeMap<String, SealedValue>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SealedValue {
    set_by: String,
    set_at: Timestamp,
    sealed: String,
}

impl SealedStore {
    /// Opens the sealed store in `folder`. The first time, creates the folder and in it the key file `key` (mode 0600).
    ///
    /// # Errors
    /// [`SealedStoreError::KeyLost`] when the key file is missing but sealed files exist; [`SealedStoreError::KeyExposed`] when
    /// others may read it; [`SealedStoreError::KeyDamaged`]; [`SealedStoreError::Locked`]; [`SealedStoreError::Io`].
    pub fn open(folder: &Path) -> Result<Self, SealedStoreError> {
        Self::open_with_patience(folder, LOCK_PATIENCE)
    }

    pub(crate) fn open_with_patience(folder: &Path, patience: Duration) -> Result<Self, SealedStoreError> {
        make_folder(folder)?;
        let path = key_file(folder);
        let keys = match Keys::read(&path)? {
            Some(keys) => keys,
            None => {
                let _lock = lock(folder, patience)?;
                // Another process may have been first.
                if Keys::read(&path)?.is_none() {
                    if let Some(sealed) = any_sealed_file(folder)? {
                        return Err(SealedStoreError::KeyLost { key_file: path, sealed });
                    }
                    Keys::create(folder, &path)?;
                }
                Keys::read(&path)?.ok_or(SealedStoreError::KeyDamaged { key_file: path })?
            }
        };
        Ok(Self {
            root: folder.to_path_buf(),
            keys,
            patience,
            seen: SeenSecrets::default(),
        })
    }

    /// Notes every value that is set or revealed from now on in `seen`.
    #[must_use]
    pub fn noting(mut self, seen: SeenSecrets) -> Self {
        self.seen = seen;
        self
    }

    /// Sets `key` of `scope` to `value`, on behalf of the person `by`.
    ///
    /// When this returns, the value is on the disk. Safe to repeat. After an error, either the whole change happened or none.
    ///
    /// # Errors
    /// [`SealedStoreError::Name`] or [`SealedStoreError::Value`] when Kubernetes, CircleCI or Linux would not accept it; the errors of
    /// reading the scope's file; [`SealedStoreError::Locked`]; [`SealedStoreError::Io`].
    pub fn set(&self, scope: &Scope, key: &str, value: &SecretBytes, by: &str) -> Result<(), SealedStoreError> {
        self.seen.note(value);
        self.set_at(scope, key, value, by, Timestamp::now())
    }

    fn set_at(
        &self,
        scope: &Scope,
        key: &str,
        value: &SecretBytes,
        by: &str,
        set_at: Timestamp,
    ) -> Result<(), SealedStoreError> {
        scope.check()?;
        scope.check_key(key)?;
        free(by, "an author")?;
        let path = self.path(scope)?;
        let _lock = lock(&self.root, self.patience)?;
        let mut file = self.read(scope, &path)?.unwrap_or_else(|| SealedFile {
            version: FORMAT,
            scope: scope.clone(),
            key: self.keys.id.clone(),
            values: BTreeMap::new(),
        });
        let others = file.values.iter().filter(|(other, _)| *other != key);
        let others: usize = others
            .map(|(_, value)| (value.sealed.len() / 2).saturating_sub(SEAL_BYTES))
            .sum();
        if let Some(what) = refusal(scope, key, value.expose(), others) {
            return Err(SealedStoreError::Value {
                scope: scope.clone(),
                key: key.to_string(),
                what,
            });
        }
        let binding = Binding {
            scope,
            key,
            set_by: by,
            set_at,
        };
        let value = SealedValue {
            set_by: by.to_string(),
            set_at,
            sealed: self.keys.seal(&binding, value)?,
        };
        file.values.insert(key.to_string(), value);
        self.write(&path, &file)
    }

    /// Removes `key` from `scope` and answers whether it was there. Without keys, the scope no longer exists.
    ///
    /// # Errors
    /// Like [`SealedStore::set`].
    pub fn unset(&self, scope: &Scope, key: &str) -> Result<bool, SealedStoreError> {
        scope.check()?;
        let path = self.path(scope)?;
        let _lock = lock(&self.root, self.patience)?;
        let Some(mut file) = self.read(scope, &path)? else {
            return Ok(false);
        };
        if file.values.remove(key).is_none() {
            return Ok(false);
        }
        if file.values.is_empty() {
            delete(&path)?;
        } else {
            self.write(&path, &file)?;
        }
        Ok(true)
    }

    /// The contents of `scope` without the values. Empty if there is no such scope.
    ///
    /// # Errors
    /// [`SealedStoreError::OtherKey`] or [`SealedStoreError::Damaged`] when the file cannot be read. A single value that does not open is
    /// not an error here, but part of [`Listing::broken`].
    pub fn list(&self, scope: &Scope) -> Result<Listing, SealedStoreError> {
        scope.check()?;
        let path = self.path(scope)?;
        let mut listing = Listing::default();
        let values = self.read(scope, &path)?.map(|file| file.values).unwrap_or_default();
        for (key, value) in values {
            match self.open_value(scope, &path, &key, &value) {
                Ok(opened) => listing.entries.push(Entry {
                    bytes: opened.expose().len(),
                    fingerprint: self.fingerprint(&opened),
                    key,
                    set_by: value.set_by,
                    set_at: value.set_at,
                }),
                Err(error) => listing.broken.push(error),
            }
        }
        Ok(listing)
    }

    /// The values of `scope` by key. Empty if there is no such scope.
    ///
    /// Only for starting containers and jobs. No page, log or API answer may contain a value.
    ///
    /// # Errors
    /// Like [`SealedStore::list`], and [`SealedStoreError::DoesNotOpen`] if any value does not open: nobody is served by a container with
    /// half of its variables.
    pub fn reveal(&self, scope: &Scope) -> Result<BTreeMap<String, SecretBytes>, SealedStoreError> {
        scope.check()?;
        let path = self.path(scope)?;
        let values = self.read(scope, &path)?.map(|file| file.values).unwrap_or_default();
        let open = |(key, value): (String, SealedValue)| {
            let opened = self.open_value(scope, &path, &key, &value)?;
            self.seen.note(&opened);
            Ok((key, opened))
        };
        values.into_iter().map(open).collect()
    }

    /// The names of an environment's Secrets. Includes damaged ones, because their files are not read.
    ///
    /// # Errors
    /// [`SealedStoreError::Name`], [`SealedStoreError::Io`].
    pub fn secrets(&self, project: &str, environment: &str) -> Result<Vec<String>, SealedStoreError> {
        free(project, "a project")?;
        free(environment, "an environment")?;
        let folder = self
            .root
            .join("environments")
            .join(to_file_name(project))
            .join(to_file_name(environment));
        Ok(names(&folder)?.iter().filter_map(|file| from_file_name(file)).collect())
    }

    /// The names of the contexts. Includes damaged ones, because their files are not read.
    ///
    /// # Errors
    /// [`SealedStoreError::Io`].
    pub fn contexts(&self) -> Result<Vec<String>, SealedStoreError> {
        Ok(names(&self.root.join("contexts"))?
            .iter()
            .filter_map(|file| from_file_name(file))
            .collect())
    }

    /// The fingerprint that [`SealedStore::list`] would give `value`, to compare with a value from elsewhere.
    #[must_use]
    pub fn fingerprint(&self, value: &SecretBytes) -> Fingerprint {
        self.fingerprint_bytes(value.expose())
    }

    /// Like [`SealedStore::fingerprint`], for bytes from elsewhere, such as the `data` of a manifest.
    #[must_use]
    pub fn fingerprint_bytes(&self, value: &[u8]) -> Fingerprint {
        self.keys.fingerprint(value)
    }

    fn path(&self, scope: &Scope) -> Result<PathBuf, SealedStoreError> {
        Ok(self.root.join(scope.path()?))
    }

    fn read(&self, scope: &Scope, path: &Path) -> Result<Option<SealedFile>, SealedStoreError> {
        let damaged = |what: String| SealedStoreError::Damaged {
            file: path.to_path_buf(),
            scope: scope.clone(),
            what,
        };
        let Some(content) = read(path)? else { return Ok(None) };
        if content.is_empty() {
            return Err(damaged("it is empty".to_string()));
        }
        // Report only the position of a mistake. serde's message could quote a value that someone wrote there in plain text.
        let file: SealedFile = serde_json::from_slice(&content)
            .map_err(|error| damaged(format!("line {}, column {}", error.line(), error.column())))?;
        if file.version != FORMAT {
            return Err(damaged(format!(
                "its format is {}, and this version reads {FORMAT}",
                file.version
            )));
        }
        if file.scope != *scope {
            return Err(damaged(format!("it is the file of {}", file.scope)));
        }
        if file.key != self.keys.id {
            return Err(SealedStoreError::OtherKey {
                file: path.to_path_buf(),
                key_file: key_file(&self.root),
                scope: scope.clone(),
            });
        }
        Ok(Some(file))
    }

    fn write(&self, path: &Path, file: &SealedFile) -> Result<(), SealedStoreError> {
        // Maps with text keys always serialize; any error is one of the file system.
        let mut content = serde_json::to_vec_pretty(file).map_err(|source| SealedStoreError::Io {
            doing: "write",
            path: path.to_path_buf(),
            source: source.into(),
        })?;
        content.push(b'\n');
        if let Some(folder) = path.parent() {
            make_folder(folder)?;
        }
        replace(&self.root, path, &content)
    }

    fn open_value(
        &self,
        scope: &Scope,
        path: &Path,
        key: &str,
        value: &SealedValue,
    ) -> Result<SecretBytes, SealedStoreError> {
        let binding = Binding {
            scope,
            key,
            set_by: &value.set_by,
            set_at: value.set_at,
        };
        self.keys
            .open(&binding, &value.sealed)
            .ok_or_else(|| SealedStoreError::DoesNotOpen {
                file: path.to_path_buf(),
                scope: scope.clone(),
                key: key.to_string(),
            })
    }
}

/// Why a value cannot be set, without the value itself.
fn refusal(scope: &Scope, key: &str, value: &[u8], others: usize) -> Option<String> {
    match scope {
        Scope::Secret { .. } if value.len() + others > SECRET_BYTES => Some(format!(
            "has {} bytes and the Secret's other values have {others}, but Kubernetes accepts only {SECRET_BYTES} for all of them",
            value.len()
        )),
        Scope::Context { .. } if let Err(why) = NoVariable::check(value) => {
            Some(format!("{why}, so no environment variable can have it"))
        }
        Scope::Context { .. } if key.len() + value.len() + 2 > VARIABLE_BYTES => Some(format!(
            "has {} bytes, but Linux accepts only {VARIABLE_BYTES} for a variable, including its name",
            value.len()
        )),
        _ => None,
    }
}

/// Any sealed file.
fn any_sealed_file(root: &Path) -> Result<Option<PathBuf>, SealedStoreError> {
    let mut folders = vec![root.join("contexts"), root.join("environments")];
    while let Some(folder) = folders.pop() {
        for name in names(&folder)? {
            let path = folder.join(name);
            if path.is_dir() {
                folders.push(path);
            } else {
                return Ok(Some(path));
            }
        }
    }
    Ok(None)
}
