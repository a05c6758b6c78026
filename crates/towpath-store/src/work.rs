//! Durable work: tasks for servers, leased to one server at a time.
//!
//! Work is enqueued in the commit that makes it necessary, so nothing acts on uncommitted data and no committed work is
//! forgotten. A server claims work with a lease. Each claim has a higher fence than the one before; a commit whose
//! [`crate::Guard`] has a lower fence is refused, so a server that lost its lease changes nothing.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use towpath_types::ProjectName;

/// The kind of work. The key beside it names the subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkKind {
    /// Make the pipeline of a trigger. Key: the trigger's id.
    Trigger,
    /// Run one attempt of a job. Key: the job's id.
    Job,
    /// Feed a timer's event to its workflow. Key: `<workflow>/<timer>`.
    Timer,
    /// Carry a release out. Key: the release's id.
    Release,
    /// Follow a one-off run to its end. Key: the run's id.
    Run,
    /// Refresh the plan of a gate. Key: the approval job's id.
    Gate,
    /// Look at an environment. Key: the environment's slug.
    Environment,
    /// Read the environments of a project from its default branch. Key: the project's name.
    Project,
}

impl WorkKind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Trigger,
        Self::Job,
        Self::Timer,
        Self::Release,
        Self::Run,
        Self::Gate,
        Self::Environment,
        Self::Project,
    ];

    /// The word in storage and in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trigger => "trigger",
            Self::Job => "job",
            Self::Timer => "timer",
            Self::Release => "release",
            Self::Run => "run",
            Self::Gate => "gate",
            Self::Environment => "environment",
            Self::Project => "project",
        }
    }
}

impl fmt::Display for WorkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Names one piece of work. Keys are unique.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub struct WorkKey {
    pub kind: WorkKind,
    pub key: String,
}

impl WorkKey {
    /// The work of `kind` on `key`.
    #[must_use]
    pub fn new(kind: WorkKind, key: impl ToString) -> Self {
        Self {
            kind,
            key: key.to_string(),
        }
    }
}

impl fmt::Display for WorkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.key)
    }
}

/// The state of a piece of work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkState {
    /// Any server that can do it may claim it once it is due.
    Ready,
    /// A server has claimed it.
    Leased {
        /// The server's id.
        server: String,
        /// When the lease ends unless it is renewed.
        until: Timestamp,
    },
    /// It failed repeatedly; a person has to look at it.
    SetAside {
        /// The reason, a sentence.
        reason: String,
    },
}

/// One piece of work.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Work {
    pub key: WorkKey,
    /// The project, for fairness between projects.
    pub project: Option<ProjectName>,
    /// For jobs: processors in thousandths of one, all nodes together.
    pub cpu_millis: u64,
    /// For jobs: bytes of memory, all nodes together.
    pub memory_bytes: u64,
    /// The engine that a server needs in order to claim it; `None` for any server.
    pub engine: Option<String>,
    /// When it may be claimed.
    pub due: Timestamp,
    /// How many of its claims failed.
    pub failures: u32,
    /// The last failure, a sentence.
    pub last_failure: Option<String>,
    pub state: WorkState,
    /// The fence of its last claim; 0 before the first.
    pub fence: u64,
    pub created_at: Timestamp,
}

impl Work {
    /// Work that is due at `now`, for any server.
    #[must_use]
    pub fn new(key: WorkKey, now: Timestamp) -> Self {
        Self {
            key,
            project: None,
            cpu_millis: 0,
            memory_bytes: 0,
            engine: None,
            due: now,
            failures: 0,
            last_failure: None,
            state: WorkState::Ready,
            fence: 0,
            created_at: now,
        }
    }
}

/// A claim on a piece of work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The work as it was claimed.
    pub work: Work,
    /// The server's id.
    pub server: String,
    /// Higher than the fence of every earlier claim.
    pub fence: u64,
}
