//! Requests to the writer.

use crate::{Commit, Committed, Lease, ServerRow, StoreError, WorkKey, sql::faults::Faults};
use jiff::Timestamp;
use std::time::Duration;
use tokio::sync::oneshot;

/// One change of the database: all of it happens, or nothing.
#[derive(Debug, Clone)]
pub(crate) enum Operation {
    Commit(Commit),
    Claim {
        wanted: Vec<WorkKey>,
        server: String,
        now: Timestamp,
        lasts: Duration,
    },
    Renew {
        server: String,
        now: Timestamp,
        lasts: Duration,
    },
    ForgetServer(String),
    PutServer(ServerRow),
    RemoveServer(String),
}

/// The result of an operation.
#[derive(Debug)]
pub(crate) enum Done {
    Committed(Committed),
    Claimed(Vec<Lease>),
    Renewed(Vec<(WorkKey, u64)>),
    /// It has no answer.
    Nothing,
}

/// An operation whose sender waits for the answer, unless the sender has gone.
pub(crate) struct Request {
    pub(crate) operation: Operation,
    /// Records the statements.
    pub(crate) faults: Option<Faults>,
    pub(crate) answer: oneshot::Sender<Result<Done, StoreError>>,
}
