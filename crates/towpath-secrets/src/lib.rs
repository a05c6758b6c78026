//! The sealed store: the values of the local target's Secrets and of CircleCI contexts, sealed in the data directory.
//!
//! **Invariants.**
//! - On disk, every value is sealed (XChaCha20-Poly1305) and bound to its scope, its key, who set it and when. A value that was
//!   edited, or moved to another key, Secret, environment or context, does not open.
//! - Reading the values takes the key file *and* the folder. Either alone is useless.
//! - A change happens completely or not at all, whenever the process stops.
//! - A damaged file affects its own scope and no other.
//! - No error, `Debug` output or name contains a value.
//!
//! The sealed store does not hide which environments, Secrets, keys and contexts exist, who set them, or how long each value is. It
//! does not notice a file that was deleted, or replaced by an older version of itself.
//!
//! It does not know who may read what, how a value gets into a container, or how logs are masked.
//!
//! Every call blocks on the disk: a change for a few `fsync`s, and for another writer at most [`LOCK_PATIENCE`]. From async
//! code, use `spawn_blocking`.

mod disk;
mod error;
mod key;
mod names;
mod scope;
mod store;

pub use disk::LOCK_PATIENCE;
pub use error::SealedStoreError;
pub use key::Fingerprint;
pub use names::NameError;
pub use scope::Scope;
pub use store::{Entry, Listing, SealedStore};

#[cfg(test)]
mod tests;
