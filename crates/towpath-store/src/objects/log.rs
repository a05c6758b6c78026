//! Names of logs.

use std::fmt;
use towpath_types::{JobId, ReleaseId, RunId};

/// Names a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogId {
    /// The output of a step on one node of one attempt of a job.
    Step {
        /// The job.
        job: JobId,
        /// Its attempt, from 1.
        attempt: u32,
        /// The node, from 0.
        node: u32,
        /// The step, from 0.
        step: u32,
    },
    /// The messages about a release while it is carried out.
    Release(ReleaseId),
    /// The output of a one-off run.
    Run(RunId),
}

/// A log's path: `jobs/<job>/<attempt>.<node>.<step>`, `releases/<id>`, `runs/<id>`.
impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Step {
                job,
                attempt,
                node,
                step,
            } => write!(f, "jobs/{job}/{attempt}.{node}.{step}"),
            Self::Release(id) => write!(f, "releases/{id}"),
            Self::Run(id) => write!(f, "runs/{id}"),
        }
    }
}
