//! What the agent reports, and what the server answers.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use towpath_types::Outcome;

/// A report with its sequence number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct SequencedReport {
    /// Begins at 0 and grows by one.
    pub sequence: u64,
    pub report: Report,
}

/// Something that happened to a job. Times are by the clock of the job's environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Report {
    /// A step began.
    StepStarted {
        /// The step's index.
        step: u32,
        /// Masked.
        name: String,
        /// Masked; `None` for steps that run no command.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        command: Option<String>,
        at: Timestamp,
    },
    /// A step ended. Its log is complete.
    StepFinished {
        /// The step's index.
        step: u32,
        /// `None` if no command ran, or the agent stopped it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit_code: Option<i32>,
        outcome: Outcome,
        /// The reason, unless the step succeeded: `Exited with code exit status 1`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
        at: Timestamp,
    },
    /// The job ended on this node. This is the last report.
    JobFinished {
        outcome: Outcome,
        /// The reason, unless the job succeeded.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
        at: Timestamp,
    },
}

/// How many bytes of a step's log the server has durably.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledged {
    /// The offset of the next byte.
    pub acknowledged: u64,
}

/// What the server wants a running job to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orders {
    /// Stop what runs, run nothing more, and report `Canceled`.
    pub cancel: bool,
}

/// The layers that a job may attach, in the order in which to unpack them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkspaceLayers {
    /// The layers of all jobs that this one requires, directly or through others, earlier jobs first.
    pub layers: Vec<WorkspaceLayer>,
}

/// The files that one `persist_to_workspace` step stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkspaceLayer {
    /// For [`crate::route::WORKSPACE_LAYER`]: one path segment of `[A-Za-z0-9._-]`.
    pub id: String,
    /// The name of the job that stored it.
    pub job: String,
    /// The layers that certainly came before this one: earlier ones of the same node, and those of the jobs that its job
    /// requires, directly or through others. If a file is also in a layer that is *not* listed, two unrelated jobs wrote it, and
    /// attaching fails as it does on CircleCI.
    #[serde(default)]
    pub follows: Vec<String>,
}

/// How long tests took in earlier jobs, in seconds, by each of the names by which they can be split.
///
/// Source: <https://circleci.com/docs/guides/optimize/parallelism-faster-jobs/>
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TestTimings {
    /// By the attribute `file` of a `<testcase>`.
    pub by_file: BTreeMap<String, f64>,
    /// By the attribute `classname`.
    pub by_class: BTreeMap<String, f64>,
    /// By the attribute `name`.
    pub by_name: BTreeMap<String, f64>,
}
