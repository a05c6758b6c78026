//! What Towpath remembers: events and rows in SQLite, logs and blobs in folders, all under one data directory.
//!
//! ```text
//! <data directory>/
//!   towpath.db       events, the rows that pages read, documents
//!   lock             held by the server that uses the directory
//!   instance         the directory's own random name
//!   logs/<job>/<node>.<step>.log
//!   blobs/<2 hex>/<64 hex>
//!   temporary/       files on their way to their place; emptied at each start
//! ```
//!
//! - **Invariant:** an event and the rows that follow from it are committed in one transaction, before anything acts on them.
//! - **Invariant:** a log file is exactly as long as what was acknowledged of it.
//! - **Invariant:** a blob is visible under its digest only when all its bytes are on the disk and were compared.
//!
//! It does not know what an event means, and it names no outcome. Only this crate names a database.

mod batch;
mod blobs;
mod error;
mod logs;
mod rows;
mod store;

pub use batch::Batch;
pub use blobs::{Blobs, StoredBlob};
pub use error::StoreError;
pub use logs::Logs;
pub use rows::{
    Artifact, Cache, Document, JobRow, PipelineRow, ReleaseRow, Row, TestRow, WorkflowRow, WorkspaceLayerRow,
};
pub use store::Store;
