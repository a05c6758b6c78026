//! A commit: writes that are stored together.

use crate::{
    Artifact, Cache, ContextRule, EnvironmentRow, FetchedOrb, GateRow, HandledRef, ImagePush, JobRow, JobSpecRow,
    Lease, NodeRow, OrbNamespace, OrbRow, OrbVersionRow, PipelineConfig, PipelineRow, PlanRow, ProjectRow, ReleaseRow,
    RunRow, SessionRow, StepRow, TestRow, Topic, TriggerRow, Work, WorkKey, WorkflowRow, WorkspaceLayer,
};
use jiff::Timestamp;
use serde_json::Value;
use towpath_types::{Digest, JobId, PipelineId, ProjectName, ReleaseId};

/// What a write expects to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// No row has the key.
    Absent,
    /// The row at this version.
    Version(u64),
}

/// Proof that the writer still has the lease of a piece of work.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Guard {
    pub key: WorkKey,
    pub fence: u64,
}

impl From<&Lease> for Guard {
    fn from(lease: &Lease) -> Self {
        Self {
            key: lease.work.key.clone(),
            fence: lease.fence,
        }
    }
}

/// One write. The store ignores a row's own `version` field: `Expect` says what is there, and the store counts
/// versions.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// Inserts or updates a project.
    Project(ProjectRow, Expect),
    /// Inserts or updates a trigger. An insert with number 0 takes the project's next pipeline number.
    Trigger(TriggerRow, Expect),
    /// Records where a ref pointed when its push was handled. Replaces the row unless it belongs to a later push:
    /// numbers follow git's order.
    HandledRef(HandledRef),
    /// Inserts or updates a pipeline.
    Pipeline(PipelineRow, Expect),
    /// Inserts a pipeline's configuration.
    PipelineConfig(PipelineConfig),
    /// Appends events, in their writer's wire form, to a stream that has exactly `expected` events.
    Events {
        /// `workflow/<id>`, `release/<id>`.
        stream: String,
        /// How many events the stream has.
        expected: u64,
        /// The new events.
        events: Vec<Value>,
    },
    /// Inserts or updates a workflow.
    Workflow(WorkflowRow, Expect),
    /// Inserts or updates a job; keeps its number.
    Job(JobRow, Expect),
    /// Writes nothing, but expects that an attempt of a job is running ([`JobRow::goes_on`]): a step's request is
    /// stored before the job is canceled, or not at all.
    JobGoesOn {
        /// The job.
        job: JobId,
        /// The attempt.
        attempt: u32,
    },
    /// Inserts what a job does.
    JobSpec(JobSpecRow),
    /// Gives a job the next number of its project, unless it has one. Its row must exist or be written earlier in the
    /// commit.
    NumberJob(JobId),
    /// Inserts or updates a node; its `reports` is the version.
    Node(NodeRow, Expect),
    /// Inserts a step or replaces it; the version of its node guards it.
    Step(StepRow),
    /// Stores an artifact and replaces one of the same path, because agents resend what was not acknowledged.
    Artifact(ProjectName, Artifact),
    /// Stores the tests of one file of results, and replaces the file's earlier tests.
    Tests {
        /// The project, for the timings of later runs.
        project: ProjectName,
        /// The job.
        job: JobId,
        /// Its attempt.
        attempt: u32,
        /// The node.
        node: u32,
        /// The file's path in the job.
        path: String,
        /// Its tests.
        tests: Vec<TestRow>,
    },
    /// Stores a cache unless its key is taken; `Committed::caches_saved` says whether it was free.
    Cache(Cache),
    /// Stores a layer of a workspace, and replaces the same step's earlier one.
    WorkspaceLayer(WorkspaceLayer),
    /// Inserts or updates a gate.
    Gate(GateRow, Expect),
    /// Stores a plan; the same digest means the same plan.
    Plan(PlanRow),
    /// Inserts or updates a release. An insert with number 0 takes the environment's next number. An update sets the
    /// number unless it is 0, because the environment may have recorded the release under another one.
    Release(ReleaseRow, Expect),
    /// Inserts or updates a one-off run.
    Run(RunRow, Expect),
    /// Records a pushed image. Pushing the same tag again is another push.
    ImagePush(ImagePush),
    /// Inserts or updates an environment.
    Environment(EnvironmentRow, Expect),
    /// Inserts a namespace of orbs.
    OrbNamespace(OrbNamespace),
    /// Inserts an orb, or changes whether it is listed.
    Orb(OrbRow, Expect),
    /// Inserts a version of an orb; a development version replaces an earlier one of the same name.
    OrbVersion(OrbVersionRow),
    /// Stores an orb that another registry returned.
    FetchedOrb(FetchedOrb),
    /// Replaces a context's rule; the last write wins.
    ContextRule(ContextRule),
    /// Inserts a session.
    Session(SessionRow),
    /// Records that a session was used; does not reopen an ended session.
    SessionSeen {
        /// The digest of its token.
        digest: Digest,
        /// When it was used.
        at: Timestamp,
    },
    /// Ends a session unless it has already ended.
    EndSession(Digest),
    /// Adds work. If work with that key exists, makes it due at the earlier of both times, resets its failures and, if
    /// it was set aside, makes it ready. Leased work is marked to be done again when its lease ends
    /// ([`Write::WorkDone`] then leaves it in the queue), so that no request is lost.
    Work(Work),
    /// Removes the work of a guard: it is done. Fails with [`crate::StoreError::Fenced`] when the lease was lost.
    WorkDone(Guard),
    /// Removes work with a key, leased or not.
    CancelWork(WorkKey),
    /// Returns work after a failure; counts the failure and stores its reason.
    WorkFailed {
        /// The lease.
        guard: Guard,
        /// The reason, a sentence.
        reason: String,
        /// When it may be tried again; `None` sets it aside.
        retry: Option<Timestamp>,
    },
    /// Binds leased work to an engine: if the lease expires, only a server with that engine may claim it.
    WorkBound {
        /// The lease.
        guard: Guard,
        /// The engine's name.
        engine: String,
    },
    /// Returns work without counting a failure, due at a given time, for servers that have `engine` (any server, if
    /// `None`).
    WorkReturned {
        /// The lease.
        guard: Guard,
        /// When it is due again.
        due: Timestamp,
        /// The engine that it needs from now on.
        engine: Option<String>,
    },
}

/// Writes that are stored in one transaction, or not at all.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Commit {
    pub(crate) writes: Vec<Write>,
    pub(crate) guards: Vec<Guard>,
    pub(crate) topics: Vec<Topic>,
}

impl Commit {
    /// An empty commit.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a write. Writes are carried out in the order in which they are added.
    pub fn write(&mut self, write: Write) {
        self.writes.push(write);
    }

    /// The same, for chains.
    #[must_use]
    pub fn with(mut self, write: Write) -> Self {
        self.write(write);
        self
    }

    /// Requires that the lease still holds; otherwise nothing is stored and the commit fails with
    /// [`crate::StoreError::Fenced`].
    pub fn guard(&mut self, guard: impl Into<Guard>) {
        self.guards.push(guard.into());
    }

    /// Notifies listeners of a topic that no write implies.
    pub fn announce(&mut self, topic: Topic) {
        self.topics.push(topic);
    }

    /// Whether nothing would be stored or announced.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.topics.is_empty()
    }

    /// The writes, for assertions.
    #[must_use]
    pub fn writes(&self) -> &[Write] {
        &self.writes
    }
}

/// The values that a commit assigned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Committed {
    /// The numbers that pipelines took, in the order of their triggers' writes.
    pub pipelines: Vec<(PipelineId, i64)>,
    /// The numbers that jobs took.
    pub jobs: Vec<(JobId, i64)>,
    /// The numbers that releases took.
    pub releases: Vec<(ReleaseId, i64)>,
    /// Whether the key was free, for each [`Write::Cache`].
    pub caches_saved: Vec<bool>,
}
