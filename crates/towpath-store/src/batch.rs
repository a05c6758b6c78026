//! What is committed at once.

use crate::rows::{Document, Row};
use serde_json::Value;
use towpath_types::JobId;

/// Everything that is committed in one transaction, or not at all.
#[derive(Debug, Default)]
pub struct Batch {
    pub(crate) appends: Vec<Append>,
    pub(crate) rows: Vec<Row>,
    pub(crate) numbered: Vec<JobId>,
}

#[derive(Debug)]
pub(crate) struct Append {
    pub(crate) stream: String,
    pub(crate) expected: Option<u64>,
    pub(crate) events: Vec<Value>,
}

impl Batch {
    /// Appends events to a stream, which must be at version `expected` (the number of its events) when that is given.
    pub fn append(&mut self, stream: String, expected: Option<u64>, events: Vec<Value>) {
        self.appends.push(Append {
            stream,
            expected,
            events,
        });
    }

    /// Writes a row. Rows are written in the order in which they are put.
    pub fn put(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Writes a document; `None` removes it.
    pub fn document(&mut self, collection: &'static str, key: impl Into<String>, json: Option<Value>) {
        self.put(Row::Document(Document {
            collection,
            key: key.into(),
            json,
        }));
    }

    /// Gives a job the next number of its project, unless it has one. Its row must be there, or in this batch.
    pub fn number_job(&mut self, job: JobId) {
        self.numbered.push(job);
    }
}
