//! The store's contract: a trait per noun for reading, and one way to write.

use crate::{
    Artifact, Cache, Changes, Commit, Committed, ContextRule, EnvironmentRow, EventRow, FetchedOrb, GateRow,
    HandledRef, ImagePush, JobRow, JobSpecRow, Lease, NodeRow, OrbNamespace, OrbRow, OrbVersionRow, PipelineConfig,
    PipelineRow, PlanRow, ProjectRow, ReleaseRow, RunRow, ServerRow, SessionRow, StepRow, StoreError, TestRow,
    TriggerRow, Work, WorkKey, WorkKind, WorkflowRow, WorkspaceLayer,
};
use async_trait::async_trait;
use jiff::Timestamp;
use std::time::Duration;
use towpath_types::{
    Digest, EnvironmentId, JobId, PipelineId, ProjectName, ReleaseId, ReleaseStatus, RunId, TriggerId, WorkflowId,
};

/// Projects, pipelines and their configurations.
#[async_trait]
pub trait PipelineStore {
    /// A project.
    async fn project(&self, name: &ProjectName) -> Result<Option<ProjectRow>, StoreError>;
    /// Every project, by name.
    async fn projects(&self) -> Result<Vec<ProjectRow>, StoreError>;
    /// A pipeline.
    async fn pipeline(&self, id: PipelineId) -> Result<Option<PipelineRow>, StoreError>;
    /// A project's pipeline by its number.
    async fn pipeline_by_number(&self, project: &ProjectName, number: i64) -> Result<Option<PipelineRow>, StoreError>;
    /// Pipelines, newest first: of `project` (of every project, if `None`), numbered below `before`, `limit` at most.
    async fn pipelines(
        &self,
        project: Option<&ProjectName>,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<PipelineRow>, StoreError>;
    /// A pipeline's configuration.
    async fn pipeline_config(&self, id: PipelineId) -> Result<Option<PipelineConfig>, StoreError>;
}

/// Triggers and handled refs.
#[async_trait]
pub trait TriggerStore {
    /// A trigger.
    async fn trigger(&self, id: TriggerId) -> Result<Option<TriggerRow>, StoreError>;
    /// The open triggers, which have neither made a pipeline nor been dropped, oldest first.
    async fn open_triggers(&self) -> Result<Vec<TriggerRow>, StoreError>;
    /// A project's handled refs, by name.
    async fn handled_refs(&self, project: &ProjectName) -> Result<Vec<HandledRef>, StoreError>;
}

/// Workflows and streams of events.
#[async_trait]
pub trait WorkflowStore {
    /// A workflow.
    async fn workflow(&self, id: WorkflowId) -> Result<Option<WorkflowRow>, StoreError>;
    /// The workflows of pipelines, by pipeline in the order asked for, then by position.
    async fn workflows_of(&self, pipelines: &[PipelineId]) -> Result<Vec<WorkflowRow>, StoreError>;
    /// Every workflow that has not ended, oldest first.
    async fn unfinished_workflows(&self) -> Result<Vec<WorkflowRow>, StoreError>;
    /// The events of a stream from `from` on, in order.
    async fn events(&self, stream: &str, from: u64) -> Result<Vec<EventRow>, StoreError>;
}

/// Jobs, nodes and steps.
#[async_trait]
pub trait JobStore {
    /// A job.
    async fn job(&self, id: JobId) -> Result<Option<JobRow>, StoreError>;
    /// A project's job by its number.
    async fn job_by_number(&self, project: &ProjectName, number: i64) -> Result<Option<JobRow>, StoreError>;
    /// The jobs of workflows, by workflow in the order asked for, then by position.
    async fn jobs_of(&self, workflows: &[WorkflowId]) -> Result<Vec<JobRow>, StoreError>;
    /// The jobs of every workflow that are claimed or running, oldest first.
    async fn active_jobs(&self) -> Result<Vec<JobRow>, StoreError>;
    /// What a job does.
    async fn job_spec(&self, id: JobId) -> Result<Option<JobSpecRow>, StoreError>;
    /// The nodes of an attempt that have reported, by node.
    async fn nodes(&self, job: JobId, attempt: u32) -> Result<Vec<NodeRow>, StoreError>;
    /// The steps of an attempt, by node and place.
    async fn steps(&self, job: JobId, attempt: u32) -> Result<Vec<StepRow>, StoreError>;
}

/// The results of jobs.
#[async_trait]
pub trait ArtifactStore {
    /// The artifacts of an attempt, by node and path.
    async fn artifacts(&self, job: JobId, attempt: u32) -> Result<Vec<Artifact>, StoreError>;
    /// The tests of an attempt, by node and file of results.
    async fn tests(&self, job: JobId, attempt: u32) -> Result<Vec<TestRow>, StoreError>;
    /// The tests of the project's newest `files` files of results.
    async fn recent_tests(&self, project: &ProjectName, files: u32) -> Result<Vec<TestRow>, StoreError>;
    /// Whether there is a cache of exactly this key in a trust domain.
    async fn has_cache(&self, project: &ProjectName, domain: &str, key: &str) -> Result<bool, StoreError>;
    /// The newest cache of a trust domain whose key begins with `prefix`. A newer one wins even over an exact match.
    ///
    /// Source: <https://circleci.com/docs/reference/configuration-reference/#restorecache>
    async fn find_cache(&self, project: &ProjectName, domain: &str, prefix: &str) -> Result<Option<Cache>, StoreError>;
    /// The layers of a workflow's workspace, by job, attempt, node and step.
    async fn workspace_layers(&self, workflow: WorkflowId) -> Result<Vec<WorkspaceLayer>, StoreError>;
}

/// Gates and plans.
#[async_trait]
pub trait GateStore {
    /// A gate, by its approval job.
    async fn gate(&self, job: JobId) -> Result<Option<GateRow>, StoreError>;
    /// Gates that wait, oldest first, of `project` (of every project, if `None`), `limit` at most from the `offset`th on.
    async fn waiting_gates(
        &self,
        project: Option<&ProjectName>,
        offset: u32,
        limit: u32,
    ) -> Result<Vec<GateRow>, StoreError>;
    /// How many gates wait.
    async fn count_waiting_gates(&self) -> Result<u64, StoreError>;
    /// The gates that wait and lead to an environment, oldest first.
    async fn gates_of(&self, environment: &EnvironmentId) -> Result<Vec<GateRow>, StoreError>;
    /// A plan by its digest.
    async fn plan(&self, digest: &Digest) -> Result<Option<PlanRow>, StoreError>;
}

/// Releases, one-off runs and pushed images.
#[async_trait]
pub trait ReleaseStore {
    /// A release.
    async fn release(&self, id: ReleaseId) -> Result<Option<ReleaseRow>, StoreError>;
    /// The releases of an environment, newest first, `limit` at most.
    async fn releases(&self, environment: &EnvironmentId, limit: u32) -> Result<Vec<ReleaseRow>, StoreError>;
    /// The newest release of an environment with one of `statuses`; with any status if `statuses` is empty.
    async fn last_release(
        &self,
        environment: &EnvironmentId,
        statuses: &[ReleaseStatus],
    ) -> Result<Option<ReleaseRow>, StoreError>;
    /// The open releases, oldest first.
    async fn open_releases(&self) -> Result<Vec<ReleaseRow>, StoreError>;
    /// The release that a job's step began in an environment.
    async fn release_of_job(&self, job: JobId, environment: &EnvironmentId) -> Result<Option<ReleaseRow>, StoreError>;
    /// A one-off run.
    async fn run(&self, id: RunId) -> Result<Option<RunRow>, StoreError>;
    /// The one-off runs of an environment, newest first, `limit` at most.
    async fn runs(&self, environment: &EnvironmentId, limit: u32) -> Result<Vec<RunRow>, StoreError>;
    /// What a workflow's jobs pushed, oldest first.
    async fn pushes_of(&self, workflow: WorkflowId) -> Result<Vec<ImagePush>, StoreError>;
    /// The last push of a tag by anybody: `repository` as in the image's name without its registry.
    async fn last_push(&self, repository: &str, tag: &str) -> Result<Option<ImagePush>, StoreError>;
}

/// Environments.
#[async_trait]
pub trait EnvironmentStore {
    /// An environment.
    async fn environment(&self, id: &EnvironmentId) -> Result<Option<EnvironmentRow>, StoreError>;
    /// Environments, by project and name: of `project`, or of every project.
    async fn environments(&self, project: Option<&ProjectName>) -> Result<Vec<EnvironmentRow>, StoreError>;
}

/// Orbs.
#[async_trait]
pub trait OrbStore {
    /// A namespace.
    async fn orb_namespace(&self, name: &str) -> Result<Option<OrbNamespace>, StoreError>;
    /// Every namespace, by name.
    async fn orb_namespaces(&self) -> Result<Vec<OrbNamespace>, StoreError>;
    /// An orb.
    async fn orb(&self, namespace: &str, name: &str) -> Result<Option<OrbRow>, StoreError>;
    /// Orbs, by name: of `namespace`, or of every namespace.
    async fn orbs(&self, namespace: Option<&str>) -> Result<Vec<OrbRow>, StoreError>;
    /// An orb's versions, in the order of their publication.
    async fn orb_versions(&self, namespace: &str, name: &str) -> Result<Vec<OrbVersionRow>, StoreError>;
    /// A cached orb from another registry.
    async fn fetched_orb(&self, reference: &str) -> Result<Option<FetchedOrb>, StoreError>;
}

/// The queue of work.
///
/// # Contract
/// - A piece of work is leased to one server at a time. A lease ends when its work is done, failed or returned, when it
///   is not renewed in time, and when [`WorkStore::forget_server`] is called for its server.
/// - Each claim of a piece of work has a higher fence than every claim of it before.
/// - `claim` never waits: of `wanted`, it claims the work that is due and either ready or with an ended lease, and
///   skips the rest.
#[async_trait]
pub trait WorkStore {
    /// Work of `kinds` that may be claimed at `now` by a server with `engines`: due, ready or with an ended lease, and
    /// bound to none or one of these engines. The oldest of each project by `created_at`, then the second of each, and so on:
    /// `limit` at most, however many one project has.
    async fn due_work(
        &self,
        kinds: &[WorkKind],
        engines: &[String],
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<Work>, StoreError>;
    /// Claims each of `wanted` for `server` until `now` plus `lasts`, and returns the leases that it got.
    async fn claim(
        &self,
        wanted: &[WorkKey],
        server: &str,
        now: Timestamp,
        lasts: Duration,
    ) -> Result<Vec<Lease>, StoreError>;
    /// Renews every lease of `server` until `now` plus `lasts`, and returns the keys and fences that it still has.
    async fn renew(&self, server: &str, now: Timestamp, lasts: Duration) -> Result<Vec<(WorkKey, u64)>, StoreError>;
    /// When the next piece of work of `kinds` becomes due or its lease ends; `None` when there is none.
    async fn next_due(&self, kinds: &[WorkKind]) -> Result<Option<Timestamp>, StoreError>;
    /// One piece of work.
    async fn work(&self, key: &WorkKey) -> Result<Option<Work>, StoreError>;
    /// Work that was set aside, oldest first.
    async fn set_aside(&self) -> Result<Vec<Work>, StoreError>;
    /// Ends every lease of a server that is gone.
    async fn forget_server(&self, server: &str) -> Result<(), StoreError>;
}

/// The servers that share the store.
#[async_trait]
pub trait ServerStore {
    /// Says that a server is alive; inserts or replaces its row.
    async fn put_server(&self, server: &ServerRow) -> Result<(), StoreError>;
    /// Every server that was seen since `since`, by id.
    async fn servers(&self, since: Timestamp) -> Result<Vec<ServerRow>, StoreError>;
    /// Removes a server that stopped in good order.
    async fn remove_server(&self, id: &str) -> Result<(), StoreError>;
}

/// Which jobs may use a context.
#[async_trait]
pub trait ContextStore {
    /// The rule of a context, if it has one.
    async fn context_rule(&self, context: &str) -> Result<Option<ContextRule>, StoreError>;
    /// Every rule, by context.
    async fn context_rules(&self) -> Result<Vec<ContextRule>, StoreError>;
}

/// Browsers that signed in.
#[async_trait]
pub trait SessionStore {
    /// A session, by the digest of its token.
    async fn session(&self, digest: &Digest) -> Result<Option<SessionRow>, StoreError>;
    /// Every session, oldest first.
    async fn sessions(&self) -> Result<Vec<SessionRow>, StoreError>;
}

/// Everything that Towpath remembers in rows.
///
/// # Contract
/// - `commit` stores all of a commit or nothing, durably, before it returns. Many tasks may call it at once. If a
///   caller is dropped while it waits, the commit still happens completely or not at all.
/// - A commit that fails with [`StoreError::Conflict`] or [`StoreError::Fenced`] stored nothing. One that fails with
///   [`StoreError::Unavailable`] may have been stored (its answer was lost): load again before a retry.
/// - Reads see every commit that was answered before them, by this server. Another server's commit is seen once it is
///   answered there.
/// - After each commit, every listener on every server that shares the store receives its topics. They are hints: they
///   may come twice, late or, after a lost connection, as [`crate::Change::Everything`].
#[async_trait]
pub trait Store:
    PipelineStore
    + TriggerStore
    + WorkflowStore
    + JobStore
    + ArtifactStore
    + GateStore
    + ReleaseStore
    + EnvironmentStore
    + OrbStore
    + WorkStore
    + ServerStore
    + SessionStore
    + ContextStore
    + Send
    + Sync
{
    /// Stores a commit.
    ///
    /// # Errors
    /// See the contract.
    async fn commit(&self, commit: Commit) -> Result<Committed, StoreError>;

    /// Subscribes to changes from now on.
    fn changes(&self) -> Changes;

    /// Notifies listeners of topics without storing anything, such as the growth of a log.
    fn announce(&self, topics: &[crate::Topic]);

    /// The store's own random name, which never changes and is the same for every server.
    fn instance(&self) -> &str;

    /// Whether the store was new when it was opened.
    fn is_new(&self) -> bool;
}
