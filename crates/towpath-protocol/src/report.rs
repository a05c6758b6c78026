//! What the agent tells, and what it is told on the way.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use towpath_types::Outcome;

/// A report and its place in the order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequencedReport {
    /// From 0, growing by one.
    pub sequence: u64,
    /// What happened.
    pub report: Report,
}

/// Something that happened to a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Report {
    /// A step began.
    StepStarted {
        /// Its index.
        step: u32,
        /// Its name, masked.
        name: String,
        /// The command that runs, masked; absent for steps that run none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        command: Option<String>,
        /// When, by the environment's clock.
        at: Timestamp,
    },
    /// A step ended. Its log is complete.
    StepFinished {
        /// Its index.
        step: u32,
        /// The command's status when it exited by itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit_code: Option<i32>,
        /// How it ended.
        outcome: Outcome,
        /// Why, when it did not succeed: `Exited with code exit status 1`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
        /// When, by the environment's clock.
        at: Timestamp,
    },
    /// The job ended on this node. Nothing follows.
    JobFinished {
        /// How it ended.
        outcome: Outcome,
        /// Why, when it did not simply succeed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
        /// When, by the environment's clock.
        at: Timestamp,
    },
}

/// How many bytes of a step's log the server has, durably.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledged {
    /// The offset that the next byte goes to.
    pub acknowledged: u64,
}

/// What the server wants of a running job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orders {
    /// Stop what runs, run nothing more, report `Canceled`.
    pub cancel: bool,
}

/// The layers that a job may attach, in the order in which they are laid down.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkspaceLayers {
    /// Upstream jobs' layers: the transitive `requires`, earlier jobs first.
    pub layers: Vec<WorkspaceLayer>,
}

/// What one `persist_to_workspace` step kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkspaceLayer {
    /// Names it in [`crate::route::WORKSPACE_LAYER`]; one path segment of `[A-Za-z0-9._-]`.
    pub id: String,
    /// The name of the job that kept it.
    pub job: String,
    /// The layers that came before it for certain: the earlier ones of its own node, and those of the jobs that its job
    /// requires, transitively. A file that is also in a layer that is *not* listed was written by two jobs at once, and
    /// attaching fails as it does on CircleCI.
    #[serde(default)]
    pub follows: Vec<String>,
}

/// How long tests took before, in seconds, by each of the names they are split by.
///
/// Source: <https://circleci.com/docs/guides/optimize/parallelism-faster-jobs/>
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TestTimings {
    /// By the `file` of a `<testcase>`.
    pub by_file: BTreeMap<String, f64>,
    /// By its `classname`.
    pub by_class: BTreeMap<String, f64>,
    /// By its `name`.
    pub by_name: BTreeMap<String, f64>,
}
