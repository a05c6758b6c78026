//! The vault's key, and what is done with it.

use crate::disk::{TEMPORARY, io_error, read, replace};
use crate::{Scope, VaultError};
use chacha20poly1305::aead::{Aead as _, Generate as _, KeyInit as _, Payload};
use chacha20poly1305::{Key as CipherKey, XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use std::fmt;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use towpath_types::SecretString;
use zeroize::{Zeroize as _, Zeroizing};

/// A stand-in for a value: equal for equal values of one vault, and telling nothing to who lacks its key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// 32 hex digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The keys that are derived from the key file's: one per purpose, so that none helps against another.
pub(crate) struct Keys {
    sealing: Zeroizing<[u8; 32]>,
    fingerprint: Zeroizing<[u8; 32]>,
    /// Names the key in what it sealed. Tells nothing of it.
    pub(crate) id: String,
}

const NONCE_BYTES: usize = 24;

impl Keys {
    /// Reads the key file.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, VaultError> {
        let Some(content) = read(path)?.map(Zeroizing::new) else {
            return Ok(None);
        };
        let metadata = std::fs::metadata(path).map_err(io_error("look at", path))?;
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(VaultError::KeyExposed {
                key_file: path.to_path_buf(),
                mode,
            });
        }
        let mut master = Zeroizing::new([0_u8; 32]);
        let damaged = |_| VaultError::KeyDamaged {
            key_file: path.to_path_buf(),
        };
        hex::decode_to_slice(content.trim_ascii(), master.as_mut_slice()).map_err(damaged)?;
        Ok(Some(Self::derive(&master)))
    }

    /// Makes a key and its file. The caller holds the lock of `root` and knows that there is none yet.
    pub(crate) fn create(root: &Path, path: &Path) -> Result<(), VaultError> {
        let mut master = CipherKey::try_generate().map_err(|_| VaultError::Randomness)?;
        let mut text = Zeroizing::new(hex::encode(master));
        master.as_mut_slice().zeroize();
        text.push('\n');
        // A leftover could have another mode than a new file gets.
        let leftover = root.join(TEMPORARY);
        match std::fs::remove_file(&leftover) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(io_error("delete", &leftover)(source)),
            _ => replace(root, path, text.as_bytes()),
        }
    }

    fn derive(master: &[u8; 32]) -> Self {
        // HMAC as a key derivation: a uniformly random key needs no extraction, only a label per purpose.
        let derive = |purpose: &str| Zeroizing::new(keyed(master, purpose.as_bytes()));
        Self {
            sealing: derive("towpath vault 1: sealing"),
            fingerprint: derive("towpath vault 1: fingerprint"),
            id: hex::encode(&derive("towpath vault 1: id")[..8]),
        }
    }

    pub(crate) fn fingerprint(&self, value: &[u8]) -> Fingerprint {
        Fingerprint(hex::encode(&keyed(&self.fingerprint, value)[..16]))
    }

    /// Seals `value` to its `place`: hex digits of a random nonce and the sealed bytes.
    pub(crate) fn seal(&self, place: &Place<'_>, value: &SecretString) -> Result<String, VaultError> {
        let nonce = XNonce::try_generate().map_err(|_| VaultError::Randomness)?;
        let cipher = XChaCha20Poly1305::new((&*self.sealing).into());
        let payload = Payload {
            msg: value.expose().as_bytes(),
            aad: &place.to_bytes(),
        };
        // Sealing fails for texts of 256 GiB only; the limits of a value are far below.
        let sealed = cipher.encrypt(&nonce, payload).map_err(|_| VaultError::Randomness)?;
        Ok(format!("{}{}", hex::encode(nonce), hex::encode(sealed)))
    }

    /// Opens what was sealed to `place`. `None` when it was not sealed by this key, to this place, or was changed.
    pub(crate) fn open(&self, place: &Place<'_>, sealed: &str) -> Option<SecretString> {
        let bytes = hex::decode(sealed).ok()?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_BYTES)?;
        let nonce: [u8; NONCE_BYTES] = nonce.try_into().ok()?;
        let cipher = XChaCha20Poly1305::new((&*self.sealing).into());
        let payload = Payload {
            msg: sealed,
            aad: &place.to_bytes(),
        };
        let value = cipher.decrypt(&XNonce::from(nonce), payload).ok()?;
        match String::from_utf8(value) {
            Ok(value) => Some(SecretString::new(value)),
            Err(error) => {
                error.into_bytes().zeroize();
                None
            }
        }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.id)
    }
}

/// What a sealed value is bound to.
pub(crate) struct Place<'a> {
    pub(crate) scope: &'a Scope,
    pub(crate) key: &'a str,
    pub(crate) set_by: &'a str,
    pub(crate) set_at: jiff::Timestamp,
}

impl Place<'_> {
    /// The parts, each behind its length, so that no two places are written alike.
    fn to_bytes(&self) -> Vec<u8> {
        let at = self.set_at.to_string();
        let mut parts = vec!["towpath vault 1"];
        match self.scope {
            Scope::Secret {
                project,
                environment,
                secret,
            } => parts.extend(["secret", project, environment, secret]),
            Scope::Context { name } => parts.extend(["context", name]),
        }
        parts.extend([self.key, self.set_by, &at]);
        let mut bytes = Vec::new();
        for part in parts {
            bytes.extend((part.len() as u64).to_le_bytes());
            bytes.extend(part.as_bytes());
        }
        bytes
    }
}

fn keyed(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    // HMAC fills a short key up with zeros; done here, the type says that nothing can fail.
    let mut block = Zeroizing::new([0_u8; 64]);
    block[..32].copy_from_slice(key);
    let mut mac = <Hmac<Sha256> as hmac::KeyInit>::new((&*block).into());
    mac.update(message);
    mac.finalize().into_bytes().into()
}

/// The key file's path in the vault's folder.
pub(crate) fn key_file(root: &Path) -> PathBuf {
    root.join("key")
}
