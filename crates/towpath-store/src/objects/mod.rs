//! Logs and blobs: data that is too large for rows.

mod contract;
mod folder;
mod known_chunks;
mod location;
mod log;
mod s3;

pub use contract::{BlobReader, Objects, StoredBlob};
pub use folder::FolderObjects;
pub use location::ObjectLocation;
pub use log::LogId;
pub use s3::S3Objects;
