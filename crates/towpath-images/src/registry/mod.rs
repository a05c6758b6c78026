//! The built-in registry: the OCI distribution API over a folder.
//!
//! ```text
//! registry/
//!   lock                                  held shared by each process that serves the folder
//!   gate                                  held shared to publish, and exclusively to remove
//!   temporary/                            files that are still being written; emptied by a process that is the only one
//!   blobs/sha256/ab/abcd…                 the bytes of blobs and manifests, each stored once
//!   repositories/team/app/
//!     _layers/<hex>                       empty: the repository has this blob; its time: when a client last heard of it
//!     _manifests/<hex>                    the manifest's media type
//!     _tags/<tag>                         the digest that the tag points to
//!     _referrers/<subject's hex>/<hex>    a descriptor of a manifest that refers to a subject
//!     _uploads/<uuid>                     the bytes of an unfinished upload
//! ```
//!
//! **Invariants.**
//! - A repository has a blob when its link exists. The link is created after the bytes are on the disk and match their digest.
//!   A client that may read one repository cannot read another one's blobs by knowing their digests.
//! - Whatever becomes visible is written to a temporary file, synced and renamed. A crash or a full disk loses nothing that was
//!   there before.
//! - Publishing takes the gate shared, removing (deletes and [`Registry::collect`]) takes it exclusively. So the registry never
//!   accepts a manifest for a blob that is being removed.
//! - Manifests are never collected. A release names a digest and keeps working when no tag points to it any more.
//!
//! It supports SHA-256 digests and the image formats of OCI and Docker (schema 2), and no others.
//!
//! Source: <https://github.com/opencontainers/distribution-spec/blob/main/spec.md>

mod access;
mod answer;
mod collect;
mod error;
mod http;
mod manifest;
mod names;
mod pushed;
mod range;
mod service;
mod store;
mod upload;

pub use access::{Access, Action, Authorize, Verdict};
pub use collect::Collected;
pub use error::RegistryError;
pub use http::router;
pub use names::{NameError, RepositoryName, TagName};
pub use pushed::{NotNoted, PushObserver, PushedManifest};
pub use service::Registry;
