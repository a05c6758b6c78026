//! The vault: the values of the local target's Secrets and of the CircleCI contexts, sealed in the data directory.
//!
//! **Invariants.** A value is on the disk only sealed (XChaCha20-Poly1305), bound to the place it belongs to, to who set
//! it and when: moved to another key, secret, environment or context, or edited, it does not open. Whoever has the key
//! file *and* the folder has the values; either alone is worth nothing. A change is whole or did not happen, whatever
//! stops the process at whatever moment. A damaged file costs its own secret and no other. No value is in an error, in
//! `Debug`, or in a name.
//!
//! What is not hidden: which environments, secrets, keys and contexts there are, who set them, and how long each value
//! is. What is not noticed: a file that was put back to an older state of itself, or deleted.
//!
//! What it deliberately does not know: who may read what, how a value gets into a container, and masking.
//!
//! Everything here blocks on the disk (a change for a few `fsync`s, at most [`LOCK_PATIENCE`] for another writer): from
//! async code, call it in `spawn_blocking`.

mod disk;
mod error;
mod key;
mod names;
mod scope;
mod vault;

pub use disk::LOCK_PATIENCE;
pub use error::VaultError;
pub use key::Fingerprint;
pub use names::NameError;
pub use scope::Scope;
pub use vault::{Entry, Listing, Vault};

#[cfg(test)]
mod tests;
