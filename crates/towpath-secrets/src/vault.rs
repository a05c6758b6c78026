//! The vault itself.

use crate::disk::{LOCK_PATIENCE, delete, lock, make_folder, names, read, replace};
use crate::key::{Fingerprint, Keys, Place, key_file};
use crate::names::{free, from_file_name, to_file_name};
use crate::{Scope, VaultError};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use towpath_types::SecretString;

/// The bytes that all values of one Secret may have together.
///
/// Source: <https://kubernetes.io/docs/concepts/configuration/secret/#restriction-data-size>
const SECRET_BYTES: usize = 1 << 20;

/// The bytes that Linux takes for one environment variable: name, `=`, value and the zero at its end.
///
/// Source: <https://man7.org/linux/man-pages/man2/execve.2.html> (`MAX_ARG_STRLEN`)
const VARIABLE_BYTES: usize = 128 << 10;

/// The version of the files' format.
const FORMAT: u32 = 1;

/// What a sealed value is longer than the value: nonce and tag.
const SEAL_BYTES: usize = 24 + 16;

/// A folder of sealed values, and the key to them.
///
/// Threads and processes may share one folder: changes wait for each other, and readers see the state before or after a
/// change. All of one process should share one `Vault`, though several work too.
#[derive(Debug)]
pub struct Vault {
    root: PathBuf,
    keys: Keys,
    patience: Duration,
}

/// One value, without the value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Who set it.
    pub set_by: String,
    /// When.
    pub set_at: Timestamp,
    /// Its value's stand-in.
    pub fingerprint: Fingerprint,
}

/// What a scope holds.
#[derive(Debug, Default)]
pub struct Listing {
    /// The values that open, by key.
    pub entries: Vec<Entry>,
    /// What is wrong with the others, one error per value.
    pub broken: Vec<VaultError>,
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

impl Vault {
    /// Opens the vault in `folder`; the first time, makes the folder and a key file `key` in it (mode 0600).
    ///
    /// # Errors
    /// [`VaultError::KeyLost`] when the key file is gone but sealed files are there; [`VaultError::KeyExposed`] when
    /// others may read it; [`VaultError::KeyDamaged`]; [`VaultError::Locked`]; [`VaultError::Io`].
    pub fn open(folder: &Path) -> Result<Self, VaultError> {
        Self::open_with_patience(folder, LOCK_PATIENCE)
    }

    pub(crate) fn open_with_patience(folder: &Path, patience: Duration) -> Result<Self, VaultError> {
        make_folder(folder)?;
        let path = key_file(folder);
        let keys = match Keys::read(&path)? {
            Some(keys) => keys,
            None => {
                let _lock = lock(folder, patience)?;
                // Another process may have been first.
                if Keys::read(&path)?.is_none() {
                    if let Some(sealed) = any_sealed_file(folder)? {
                        return Err(VaultError::KeyLost { key_file: path, sealed });
                    }
                    Keys::create(folder, &path)?;
                }
                Keys::read(&path)?.ok_or(VaultError::KeyDamaged { key_file: path })?
            }
        };
        Ok(Self {
            root: folder.to_path_buf(),
            keys,
            patience,
        })
    }

    /// Sets `key` of `scope` to `value`, on behalf of `by` (a person's name, for people).
    ///
    /// It is on the disk when this returns. Safe twice; after an error nothing has changed, or everything has.
    ///
    /// # Errors
    /// [`VaultError::Name`] or [`VaultError::Value`] when Kubernetes, CircleCI or Linux would not take it; what reading
    /// the scope's file can answer; [`VaultError::Locked`]; [`VaultError::Io`].
    pub fn set(&self, scope: &Scope, key: &str, value: &SecretString, by: &str) -> Result<(), VaultError> {
        self.set_at(scope, key, value, by, Timestamp::now())
    }

    fn set_at(
        &self,
        scope: &Scope,
        key: &str,
        value: &SecretString,
        by: &str,
        set_at: Timestamp,
    ) -> Result<(), VaultError> {
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
            return Err(VaultError::Value {
                scope: scope.clone(),
                key: key.to_string(),
                what,
            });
        }
        let place = Place {
            scope,
            key,
            set_by: by,
            set_at,
        };
        let value = SealedValue {
            set_by: by.to_string(),
            set_at,
            sealed: self.keys.seal(&place, value)?,
        };
        file.values.insert(key.to_string(), value);
        self.write(&path, &file)
    }

    /// Takes `key` out of `scope`; answers whether it was there. With its last key the scope is gone.
    ///
    /// # Errors
    /// As for [`Vault::set`].
    pub fn unset(&self, scope: &Scope, key: &str) -> Result<bool, VaultError> {
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

    /// What `scope` holds, by key: names, authors, times and fingerprints. Nothing when there is no such scope.
    ///
    /// # Errors
    /// [`VaultError::OtherKey`] or [`VaultError::Damaged`] when the whole file cannot be read. A single value that does
    /// not open is no error here, but one of [`Listing::broken`].
    pub fn list(&self, scope: &Scope) -> Result<Listing, VaultError> {
        scope.check()?;
        let path = self.path(scope)?;
        let mut listing = Listing::default();
        let values = self.read(scope, &path)?.map(|file| file.values).unwrap_or_default();
        for (key, value) in values {
            match self.open_value(scope, &path, &key, &value) {
                Ok(opened) => listing.entries.push(Entry {
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

    /// The values of `scope`, by key; empty when there is no such scope.
    ///
    /// For whoever starts a container or a job, and for nobody else: no page, log or API answer has a use for it.
    ///
    /// # Errors
    /// As for [`Vault::list`], and [`VaultError::DoesNotOpen`] when a single value does not: a container that starts
    /// with half of its variables helps nobody.
    pub fn reveal(&self, scope: &Scope) -> Result<BTreeMap<String, SecretString>, VaultError> {
        scope.check()?;
        let path = self.path(scope)?;
        let values = self.read(scope, &path)?.map(|file| file.values).unwrap_or_default();
        let open = |(key, value): (String, SealedValue)| {
            let opened = self.open_value(scope, &path, &key, &value)?;
            Ok((key, opened))
        };
        values.into_iter().map(open).collect()
    }

    /// The Secrets of an environment, by name. Their files are not read: a damaged one is among them.
    ///
    /// # Errors
    /// [`VaultError::Name`], [`VaultError::Io`].
    pub fn secrets(&self, project: &str, environment: &str) -> Result<Vec<String>, VaultError> {
        free(project, "a project")?;
        free(environment, "an environment")?;
        let folder = self
            .root
            .join("environments")
            .join(to_file_name(project))
            .join(to_file_name(environment));
        Ok(names(&folder)?.iter().filter_map(|file| from_file_name(file)).collect())
    }

    /// The contexts, by name. Their files are not read: a damaged one is among them.
    ///
    /// # Errors
    /// [`VaultError::Io`].
    pub fn contexts(&self) -> Result<Vec<String>, VaultError> {
        Ok(names(&self.root.join("contexts"))?
            .iter()
            .filter_map(|file| from_file_name(file))
            .collect())
    }

    /// The stand-in of a value, as [`Vault::list`] has it: for comparing a value from elsewhere.
    #[must_use]
    pub fn fingerprint(&self, value: &SecretString) -> Fingerprint {
        self.fingerprint_bytes(value.expose().as_bytes())
    }

    /// The stand-in of bytes that need not be text, such as a manifest's `data`.
    #[must_use]
    pub fn fingerprint_bytes(&self, value: &[u8]) -> Fingerprint {
        self.keys.fingerprint(value)
    }

    fn path(&self, scope: &Scope) -> Result<PathBuf, VaultError> {
        Ok(self.root.join(scope.path()?))
    }

    fn read(&self, scope: &Scope, path: &Path) -> Result<Option<SealedFile>, VaultError> {
        let damaged = |what: String| VaultError::Damaged {
            file: path.to_path_buf(),
            scope: scope.clone(),
            what,
        };
        let Some(content) = read(path)? else { return Ok(None) };
        if content.is_empty() {
            return Err(damaged("it is empty".to_string()));
        }
        // Only the place of a mistake, never serde's words: they may quote what someone wrote there in plain.
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
            return Err(VaultError::OtherKey {
                file: path.to_path_buf(),
                key_file: key_file(&self.root),
                scope: scope.clone(),
            });
        }
        Ok(Some(file))
    }

    fn write(&self, path: &Path, file: &SealedFile) -> Result<(), VaultError> {
        // Maps with text keys always serialise; an error would be the file system's in disguise.
        let mut content = serde_json::to_vec_pretty(file).map_err(|source| VaultError::Io {
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
    ) -> Result<SecretString, VaultError> {
        let place = Place {
            scope,
            key,
            set_by: &value.set_by,
            set_at: value.set_at,
        };
        self.keys
            .open(&place, &value.sealed)
            .ok_or_else(|| VaultError::DoesNotOpen {
                file: path.to_path_buf(),
                scope: scope.clone(),
                key: key.to_string(),
            })
    }
}

/// Why a value cannot be set, said about it without it.
fn refusal(scope: &Scope, key: &str, value: &str, others: usize) -> Option<String> {
    match scope {
        Scope::Secret { .. } if value.len() + others > SECRET_BYTES => Some(format!(
            "has {} bytes, the Secret's other values have {others}, and Kubernetes takes {SECRET_BYTES} for all of them",
            value.len()
        )),
        Scope::Context { .. } if value.contains('\0') => {
            Some("has a zero byte, which no environment variable can hold".to_string())
        }
        Scope::Context { .. } if key.len() + value.len() + 2 > VARIABLE_BYTES => Some(format!(
            "has {} bytes, and Linux takes {VARIABLE_BYTES} for a variable, its name included",
            value.len()
        )),
        _ => None,
    }
}

/// The first sealed file that there is.
fn any_sealed_file(root: &Path) -> Result<Option<PathBuf>, VaultError> {
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
