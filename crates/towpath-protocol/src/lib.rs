//! What an agent and the server say to each other: HTTP/1.1 over a unix socket, JSON and byte streams.
//!
//! The agent runs inside a job's environment and always speaks first; the server only answers. Every request carries
//! `Authorization: Bearer <job token>`: the token names one node of one job, so no path does. Either side may die and
//! come back at any moment; the contract below is what makes that harmless.
//!
//! # The requests
//!
//! | request | body | answers |
//! | --- | --- | --- |
//! | `GET /agent/v1/job` | | `200` [`JobSpec`]; `202` not ready yet |
//! | `POST /agent/v1/logs/{step}?offset=N` | raw bytes | `200` or `409` [`Acknowledged`] |
//! | `POST /agent/v1/reports` | [`SequencedReport`] | `204` |
//! | `GET /agent/v1/orders` | | `200` [`Orders`] |
//! | `GET /agent/v1/source` | | `200` a tar of the working tree with its `.git` |
//! | `HEAD /agent/v1/caches?key=K` | | `200` there is a cache with exactly this key; `404` |
//! | `GET /agent/v1/caches?prefix=K` | | `200` archive, [`CACHE_KEY_HEADER`]; `404` |
//! | `PUT /agent/v1/caches?key=K` | archive | `201` stored; `200` the key was taken, nothing stored |
//! | `GET /agent/v1/workspace` | | `200` [`WorkspaceLayers`] |
//! | `GET /agent/v1/workspace/{layer}` | | `200` archive; `404` |
//! | `PUT /agent/v1/workspace/{step}` | archive | `201` |
//! | `PUT /agent/v1/artifacts?path=P` | the file's bytes | `201` |
//! | `PUT /agent/v1/test-results?path=P` | one JUnit XML file | `201` |
//! | `GET /agent/v1/test-timings` | | `200` [`TestTimings`]; `404` none are known |
//!
//! Answers that every request may get:
//! - `401`: the token is not one of ours. The agent stops with a message of its own.
//! - `410`: the job is over (finished, canceled and buried, or forgotten). The agent kills what runs and stops.
//! - `413`, `422`, `507` and other 4xx on a `PUT`: what was sent will not be taken. The body is a sentence for the step's
//!   log (`text/plain`); the step fails.
//! - 5xx, or no connection: the agent asks again, waiting longer each time up to a bound, for as long as the job lasts.
//!
//! # The rules
//!
//! - **Long polls.** `GET job` and `GET orders` may be held open for up to [`LONG_POLL`]; the agent gives up a little
//!   later and asks again at once. `GET orders` answers early when `cancel` is true and otherwise when the time is up.
//!   `GET job` may be asked more than once: the same answer each time.
//! - **Logs.** One log per step, standard output and standard error merged in order, already masked. `offset` is where in
//!   the step's log the body begins. The server appends what lies beyond what it has and answers how much it has
//!   *durably*; bytes that it has already are skipped without comparing them. An offset beyond what it has is a gap:
//!   `409`, and the agent goes back to `acknowledged`. So a lost answer or a restart leaves neither gap nor double line.
//! - **Reports.** Sequence numbers begin at 0 and grow by one. A report is sent until it is answered, one at a time. A
//!   sequence number that the server has seen is answered `204` and changes nothing.
//! - **Order.** [`Report::StepStarted`] of a step comes before its first log byte; its last log byte is acknowledged before
//!   its [`Report::StepFinished`]; [`Report::JobFinished`] is last of all. Background steps overlap others. Steps that were
//!   passed over (an `on_fail` step without a failure) get neither report.
//! - **Archives** are tar compressed with zstd and streamed (`Transfer-Encoding: chunked`); neither side holds one in
//!   memory, and a body that ends early is no archive: the server stores nothing of it. Only `source` is plain tar.
//! - **Caches.** A key is taken once and never replaced. `GET` answers the newest cache of the project whose key begins
//!   with `prefix`, and its whole key in [`CACHE_KEY_HEADER`], percent-encoded.
//! - **Workspaces.** A layer is known by job, node and step, an artifact and a file of test results by job, node and path:
//!   a `PUT` that is sent again replaces what it sent before.
//! - `path` and `key` in a query are percent-encoded UTF-8. `path` is relative, with `/` between its parts and no part
//!   that is empty, `.` or `..`; the server checks that too.
//!
//! **Invariant:** this crate knows no HTTP library and does no IO.

mod job;
mod report;

pub use job::{CacheKeyValues, JobSpec, RunStep, Step, StepAction, StepWhen, Variable};
pub use report::{Acknowledged, Orders, Report, SequencedReport, TestTimings, WorkspaceLayer, WorkspaceLayers};

use std::time::Duration;

/// The routes, in the notation of axum's router (`{step}` is a step's index in [`JobSpec::steps`], `{layer}` a
/// [`WorkspaceLayer::id`]).
pub mod route {
    /// `GET`: the job's specification.
    pub const JOB: &str = "/agent/v1/job";
    /// `POST`: bytes of one step's log.
    pub const LOGS: &str = "/agent/v1/logs/{step}";
    /// `POST`: what happened.
    pub const REPORTS: &str = "/agent/v1/reports";
    /// `GET`: what the agent has to do.
    pub const ORDERS: &str = "/agent/v1/orders";
    /// `GET`: the working tree.
    pub const SOURCE: &str = "/agent/v1/source";
    /// `HEAD`, `GET`, `PUT`: caches of the project.
    pub const CACHES: &str = "/agent/v1/caches";
    /// `GET`: the layers that this job may attach.
    pub const WORKSPACE: &str = "/agent/v1/workspace";
    /// `GET`: one layer (`{layer}` is its id). `PUT`: this step's layer (`{layer}` is the step's index).
    pub const WORKSPACE_LAYER: &str = "/agent/v1/workspace/{layer}";
    /// `PUT`: one artifact.
    pub const ARTIFACTS: &str = "/agent/v1/artifacts";
    /// `PUT`: one file of test results.
    pub const TEST_RESULTS: &str = "/agent/v1/test-results";
    /// `GET`: how long tests took in earlier jobs.
    pub const TEST_TIMINGS: &str = "/agent/v1/test-timings";

    /// Where the bytes of `step`'s log that begin at `offset` go.
    #[must_use]
    pub fn logs(step: u32, offset: u64) -> String {
        format!("/agent/v1/logs/{step}?offset={offset}")
    }
}

/// How long the server may hold a long poll open.
pub const LONG_POLL: Duration = Duration::from_secs(25);

/// Names the whole key of the cache that was found, percent-encoded.
pub const CACHE_KEY_HEADER: &str = "towpath-cache-key";

/// The environment variables by which an engine tells an agent, and an agent tells its steps, where they are.
///
/// An agent takes no arguments but its name (`towpath agent`): arguments are there for everybody on the machine to read.
pub mod variable {
    /// The path of the server's unix socket as seen from inside the environment.
    pub const AGENT_SOCKET: &str = "TOWPATH_AGENT_SOCKET";
    /// The job's token. Steps see it too, so that `towpath deploy` can speak for the job; logs never show it.
    pub const JOB_TOKEN: &str = "TOWPATH_JOB_TOKEN";
    /// A directory that the agent makes, if need be, and keeps its spools, scripts and links in.
    pub const STATE_DIR: &str = "TOWPATH_STATE_DIR";
}
