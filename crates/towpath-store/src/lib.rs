//! Towpath's storage: typed rows behind [`Store`], and logs and blobs behind [`Objects`].
//!
//! - **Invariant:** everything in one [`Commit`] is stored, or nothing is.
//! - **Invariant:** every write says what it expects to find; a write that finds something else fails the commit with
//!   [`StoreError::Conflict`] and changes nothing.
//! - **Invariant:** a log contains exactly the acknowledged bytes.
//! - **Invariant:** a blob becomes visible under its digest only after all its bytes are stored and verified.
//!
//! SQLite keeps the rows of one server, PostgreSQL those of several. Only this crate names a database. It does not know
//! what an event means or what follows from a status.

mod commit;
mod error;
mod objects;
mod rows;
mod sql;
mod store;
mod topic;
mod work;

pub use commit::{Commit, Committed, Expect, Guard, Write};
pub use error::StoreError;
pub use objects::{BlobReader, FolderObjects, LogId, ObjectLocation, Objects, S3Objects, StoredBlob};
pub use rows::*;
pub use sql::{Database, Faults, SqlStore, belong_together};
pub use store::{
    ArtifactStore, ContextStore, EnvironmentStore, GateStore, JobStore, OrbStore, PipelineStore, ReleaseStore,
    ServerStore, SessionStore, Store, TriggerStore, WorkStore, WorkflowStore,
};
pub use topic::{Change, Changes, Topic};
pub use work::{Lease, Work, WorkKey, WorkKind, WorkState};
