//! What is stored at once.

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
    /// No row of that key.
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

/// One write. A row's own `version` field is not read: `Expect` says what is there, and the store counts.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// Inserts or updates a project.
    Project(ProjectRow, Expect),
    /// Inserts or updates a trigger. An insert with number 0 takes the project's next pipeline number.
    Trigger(TriggerRow, Expect),
    /// Writes down what a ref led to when its push was handled. Replaces what is there, unless that is of a later push:
    /// numbers are given in git's order.
    HandledRef(HandledRef),
    /// Inserts or updates a pipeline.
    Pipeline(PipelineRow, Expect),
    /// Inserts a pipeline's configuration.
    PipelineConfig(PipelineConfig),
    /// Appends events, in their writer's wire form, to a stream of exactly `expected` events.
    Events {
        /// `workflow/<id>`, `release/<id>`.
        stream: String,
        /// How many events the stream has.
        expected: u64,
        /// The new ones.
        events: Vec<Value>,
    },
    /// Inserts or updates a workflow.
    Workflow(WorkflowRow, Expect),
    /// Inserts or updates a job; its number is kept.
    Job(JobRow, Expect),
    /// Writes nothing, and expects that an attempt of a job goes on ([`JobRow::goes_on`]): what its step asked for is stored
    /// before the job is canceled, or not at all.
    JobGoesOn {
        /// The job.
        job: JobId,
        /// The attempt.
        attempt: u32,
    },
    /// Inserts what a job does.
    JobSpec(JobSpecRow),
    /// Gives a job the next number of its project, unless it has one. Its row must be there, or come earlier in the commit.
    NumberJob(JobId),
    /// Inserts or updates a node; its `reports` is the version.
    Node(NodeRow, Expect),
    /// Inserts a step or replaces the one of the same place; its node's version guards it.
    Step(StepRow),
    /// Keeps an artifact in place of the one of the same path: an agent sends what was not acknowledged again.
    Artifact(ProjectName, Artifact),
    /// Keeps the tests of one file of results in place of those that it had before.
    Tests {
        /// For timings of later runs.
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
    /// Keeps a cache unless its key is taken; whether it was is told by `Committed::cache_saved`.
    Cache(Cache),
    /// Keeps a layer of a workspace in place of the one that the same step kept before.
    WorkspaceLayer(WorkspaceLayer),
    /// Inserts or updates a gate.
    Gate(GateRow, Expect),
    /// Keeps a plan; the same digest twice is the same plan.
    Plan(PlanRow),
    /// Inserts or updates a release. An insert with number 0 takes the environment's next number; an update sets the number
    /// unless it is 0, for an environment may have recorded the release under another one.
    Release(ReleaseRow, Expect),
    /// Inserts or updates a one-off run.
    Run(RunRow, Expect),
    /// Records a pushed image. The same tag pushed again is another push.
    ImagePush(ImagePush),
    /// Inserts or updates an environment.
    Environment(EnvironmentRow, Expect),
    /// Inserts a namespace of orbs.
    OrbNamespace(OrbNamespace),
    /// Inserts an orb, or changes whether it is listed.
    Orb(OrbRow, Expect),
    /// Inserts a version of an orb; a development version replaces the one of the same name.
    OrbVersion(OrbVersionRow),
    /// Keeps what another registry gave.
    FetchedOrb(FetchedOrb),
    /// Replaces the rule of a context: what its owner said last holds.
    ContextRule(ContextRule),
    /// Inserts a session.
    Session(SessionRow),
    /// Notes that a session was used; one that has ended stays ended.
    SessionSeen {
        /// Of its token.
        digest: Digest,
        /// When.
        at: Timestamp,
    },
    /// Ends a session, if it has not ended.
    EndSession(Digest),
    /// Adds work unless there is work of that key; then makes that one due at the earlier of both moments, counts its
    /// failures anew and, if it was set aside, makes it ready. Work that is leased is marked to be done once more when its
    /// lease ends ([`Write::WorkDone`] then leaves it in the queue), so that no wish is lost.
    Work(Work),
    /// Ends the work of a guard: it is done. Fails with [`crate::StoreError::Fenced`] when the lease was lost.
    WorkDone(Guard),
    /// Removes work of a key, leased or not.
    CancelWork(WorkKey),
    /// Gives work back after a failure; its reason is counted with it.
    WorkFailed {
        /// The lease.
        guard: Guard,
        /// Why, a sentence.
        reason: String,
        /// When it may be tried again; `None` sets it aside.
        retry: Option<Timestamp>,
    },
    /// Binds leased work to an engine: should the lease end, only a server with that engine may claim it.
    WorkBound {
        /// The lease.
        guard: Guard,
        /// The engine's name.
        engine: String,
    },
    /// Gives work back without blame, due at a moment, for servers that have `engine` (any, if `None`).
    WorkReturned {
        /// The lease.
        guard: Guard,
        /// When it is due again.
        due: Timestamp,
        /// Which engine it needs from now on.
        engine: Option<String>,
    },
}

/// Everything that is stored in one transaction, or not at all.
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

    /// Adds a write. Writes happen in the order in which they are added.
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

    /// Tells listeners of a topic that follows from none of the writes.
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

/// What a commit decided.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Committed {
    /// The numbers that pipelines took, in the order of their triggers' writes.
    pub pipelines: Vec<(PipelineId, i64)>,
    /// The numbers that jobs took.
    pub jobs: Vec<(JobId, i64)>,
    /// The numbers that releases took.
    pub releases: Vec<(ReleaseId, i64)>,
    /// For each [`Write::Cache`], whether the key was free.
    pub caches_saved: Vec<bool>,
}
