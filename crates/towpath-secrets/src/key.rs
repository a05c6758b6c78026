//! The key of the sealed store: sealing, opening and fingerprints.

use crate::disk::{TEMPORARY, io_error, read, replace};
use crate::{Scope, SealedStoreError};
use chacha20poly1305::aead::{Aead as _, Generate as _, KeyInit as _, Payload};
use chacha20poly1305::{Key as CipherKey, XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use std::fmt;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use towpath_types::SecretBytes;
use zeroize::{Zeroize as _, Zeroizing};

/// A stand-in for a value. Equal values of one sealed store have equal fingerprints. Without the sealed store's key, a fingerprint reveals
/// nothing about its value.
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

/// The keys derived from the key file, one for each purpose, so that none of them reveals another.
pub(crate) struct Keys {
    sealing: Zeroizing<[u8; 32]>,
    fingerprint: Zeroizing<[u8; 32]>,
    /// Identifies the key in sealed files without revealing it.
    pub(crate) id: String,
}

const NONCE_BYTES: usize = 24;

impl Keys {
    /// Reads the key file.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, SealedStoreError> {
        let Some(content) = read(path)?.map(Zeroizing::new) else {
            return Ok(None);
        };
        let metadata = std::fs::metadata(path).map_err(io_error("read the permissions of", path))?;
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(SealedStoreError::KeyExposed {
                key_file: path.to_path_buf(),
                mode,
            });
        }
        let mut master = Zeroizing::new([0_u8; 32]);
        let damaged = |_| SealedStoreError::KeyDamaged {
            key_file: path.to_path_buf(),
        };
        hex::decode_to_slice(content.trim_ascii(), master.as_mut_slice()).map_err(damaged)?;
        Ok(Some(Self::derive(&master)))
    }

    /// Creates a key and its file. The caller holds the lock of `root` and knows that there is no key yet.
    pub(crate) fn create(root: &Path, path: &Path) -> Result<(), SealedStoreError> {
        let mut master = CipherKey::try_generate().map_err(|_| SealedStoreError::Randomness)?;
        let mut text = Zeroizing::new(hex::encode(master));
        master.as_mut_slice().zeroize();
        text.push('\n');
        // A leftover might have other permissions than a new file.
        let leftover = root.join(TEMPORARY);
        match std::fs::remove_file(&leftover) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(io_error("delete", &leftover)(source)),
            _ => replace(root, path, text.as_bytes()),
        }
    }

    fn derive(master: &[u8; 32]) -> Self {
        // HMAC as a key derivation: a uniformly random key needs no extraction, only a label for each purpose.
        let derive = |purpose: &str| Zeroizing::new(keyed(master, purpose.as_bytes()));
        Self {
            sealing: derive("towpath sealed store 1: sealing"),
            fingerprint: derive("towpath sealed store 1: fingerprint"),
            id: hex::encode(&derive("towpath sealed store 1: id")[..8]),
        }
    }

    pub(crate) fn fingerprint(&self, value: &[u8]) -> Fingerprint {
        Fingerprint(hex::encode(keyed(&self.fingerprint, value)))
    }

    /// Seals `value` and binds it to `binding`. The result is a random nonce and the sealed bytes, as hex digits.
    pub(crate) fn seal(&self, binding: &Binding<'_>, value: &SecretBytes) -> Result<String, SealedStoreError> {
        let nonce = XNonce::try_generate().map_err(|_| SealedStoreError::Randomness)?;
        let cipher = XChaCha20Poly1305::new((&*self.sealing).into());
        let payload = Payload {
            msg: value.expose(),
            aad: &binding.to_bytes(),
        };
        // Sealing fails only for texts of 256 GiB, far above the limits of a value.
        let sealed = cipher
            .encrypt(&nonce, payload)
            .map_err(|_| SealedStoreError::Randomness)?;
        Ok(format!("{}{}", hex::encode(nonce), hex::encode(sealed)))
    }

    /// Opens a sealed value. `None` if it was sealed with another key or binding, or was changed.
    pub(crate) fn open(&self, binding: &Binding<'_>, sealed: &str) -> Option<SecretBytes> {
        let bytes = hex::decode(sealed).ok()?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_BYTES)?;
        let nonce: [u8; NONCE_BYTES] = nonce.try_into().ok()?;
        let cipher = XChaCha20Poly1305::new((&*self.sealing).into());
        let payload = Payload {
            msg: sealed,
            aad: &binding.to_bytes(),
        };
        cipher.decrypt(&XNonce::from(nonce), payload).ok().map(SecretBytes::new)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.id)
    }
}

/// What a sealed value is bound to.
pub(crate) struct Binding<'a> {
    pub(crate) scope: &'a Scope,
    pub(crate) key: &'a str,
    pub(crate) set_by: &'a str,
    pub(crate) set_at: jiff::Timestamp,
}

impl Binding<'_> {
    /// The parts, each after its length, so that no two bindings have the same bytes.
    fn to_bytes(&self) -> Vec<u8> {
        let at = self.set_at.to_string();
        let mut parts = vec!["towpath sealed store 1"];
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
    // HMAC pads a short key with zeros. Doing it here makes the operation infallible.
    let mut block = Zeroizing::new([0_u8; 64]);
    block[..32].copy_from_slice(key);
    let mut mac = <Hmac<Sha256> as hmac::KeyInit>::new((&*block).into());
    mac.update(message);
    mac.finalize().into_bytes().into()
}

/// The key file's path in the sealed store's folder.
pub(crate) fn key_file(root: &Path) -> PathBuf {
    root.join("key")
}
