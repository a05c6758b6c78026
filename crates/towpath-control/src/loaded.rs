//! A workflow as it is stored.

use std::{collections::BTreeMap, sync::Arc};
use towpath_store::{Expect, JobRow, PipelineRow, WorkflowRow};
use towpath_types::{ImageReference, JobId};
use towpath_workflow::Workflow;

/// A workflow as it is stored: its state, its rows and their versions.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    pub row: WorkflowRow,
    pub pipeline: Arc<PipelineRow>,
    /// Rows by job name.
    pub jobs: BTreeMap<String, JobRow>,
    pub state: Workflow,
    /// How many events its stream has.
    pub events: u64,
}

impl Loaded {
    /// The job `id`.
    pub(crate) fn job(&self, id: JobId) -> Option<&JobRow> {
        self.jobs.values().find(|row| row.id == id)
    }

    /// Records where a job runs.
    pub(crate) fn place(&mut self, placement: &Placement) {
        let Some(row) = self.jobs.values_mut().find(|row| row.id == placement.job) else {
            return;
        };
        if let Some(engine) = &placement.engine {
            row.engine = Some(engine.clone());
        }
        if let Some(image) = &placement.image {
            row.image = Some(image.clone());
        }
    }
}

/// Where a job runs: columns of its row that the state machine does not decide.
#[derive(Debug, Clone)]
pub(crate) struct Placement {
    pub job: JobId,
    /// The engine, once it is known.
    pub engine: Option<String>,
    /// The primary container's image, once it is known.
    pub image: Option<ImageReference>,
}

/// The expectation for writing a row that was read at `version`.
pub(crate) fn expecting(version: u64) -> Expect {
    match version {
        0 => Expect::Absent,
        version => Expect::Version(version),
    }
}
