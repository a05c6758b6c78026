//! The protocol between agents and the server: HTTP/1.1 over a unix socket, with JSON and byte streams.
//!
//! The agent runs inside a job's environment and sends requests; the server only answers. Every request carries
//! `Authorization: Bearer <token>`. The token names one node of one attempt of a job, so paths do not; it is worth nothing once
//! that node has reported its end, or its job has ended. Either side may die and come back
//! at any moment; the rules below make that harmless.
//!
//! # The requests
//!
//! | request | body | answers |
//! | --- | --- | --- |
//! | `GET /agent/v1/job` | | `200` [`JobSpec`]; `202` if it is not ready yet |
//! | `POST /agent/v1/logs/{step}?offset=N&last=B` | raw bytes | `200` or `409` [`Acknowledged`] |
//! | `POST /agent/v1/reports` | [`SequencedReport`] | `204` |
//! | `GET /agent/v1/orders` | | `200` [`Orders`] |
//! | `GET /agent/v1/source` | | `200` a tar archive of the working tree with its `.git` |
//! | `HEAD /agent/v1/caches?key=K` | | `200` if there is a cache with exactly this key; `404` |
//! | `GET /agent/v1/caches?prefix=K` | | `200` archive, [`CACHE_KEY_HEADER`]; `404` |
//! | `PUT /agent/v1/caches?key=K` | archive | `201` stored; `200` if the key was taken and nothing was stored |
//! | `GET /agent/v1/workspace` | | `200` [`WorkspaceLayers`] |
//! | `GET /agent/v1/workspace/{layer}` | | `200` archive; `404` |
//! | `PUT /agent/v1/workspace/{step}` | archive | `201` |
//! | `PUT /agent/v1/artifacts?path=P` | the file's bytes | `201` |
//! | `PUT /agent/v1/test-results?path=P` | one JUnit XML file | `201`, and a line for everything that was left out or read otherwise than written |
//! | `POST /agent/v1/git/{project}` | what a git says that fetches | `200` what `git upload-pack` says, while the body is still sent |
//! | `GET /agent/v1/test-timings` | | `200` [`TestTimings`]; `404` if none are known |
//!
//! Any request may get these answers:
//! - `401`: the server does not accept the token. The agent stops with a message of its own.
//! - `410`: the job is over (finished, canceled or forgotten). The agent kills what runs and stops.
//! - `413`, `422`, `507` and other 4xx on a `PUT`: the server will not take the body. The answer is a sentence for the step's
//!   log (`text/plain`); the step fails.
//! - 5xx, or no connection: the agent asks again, waiting longer each time up to a limit, for as long as the job lasts.
//!
//! # The rules
//!
//! - **Long polls.** The server may hold `GET job` and `GET orders` open for up to [`LONG_POLL`]. The agent waits a little
//!   longer than that and asks again at once. The server answers `GET orders` early if `cancel` is true. It gives the same
//!   answer to `GET job` each time.
//! - **Logs.** Each step has one log: standard output and standard error merged in order, already masked. `offset` is the
//!   position of the body in the step's log. The server appends the bytes that it does not have and answers how many it has
//!   *durably*. It skips bytes that it has without comparing them. An offset beyond what it has is a gap: it answers `409`, and
//!   the agent goes back to `acknowledged`. So a lost answer or a restart leaves no gap and no duplicate line.
//! - **The server masks, too**, and replaces a secret by as many stars as it has bytes. It takes no byte that may be the beginning
//!   of a secret; the agent sends such bytes again, together with what follows. `last` is `true` with the last bytes of a log:
//!   nothing follows, and the server takes all of them.
//! - **Reports.** Sequence numbers begin at 0 and grow by one. The agent sends one report at a time, until it is answered. The
//!   server answers `204` to a sequence number that it has seen, and changes nothing.
//! - **Order.** [`Report::StepStarted`] of a step comes before the first byte of its log. The last byte is acknowledged before
//!   its [`Report::StepFinished`]. [`Report::JobFinished`] comes last. Background steps overlap others. Skipped steps (an
//!   `on_fail` step without a failure) have no reports.
//! - **Archives** are tar compressed with zstd, streamed (`Transfer-Encoding: chunked`), so that neither side holds one in
//!   memory. The server stores nothing of a body that ends early. Only `source` is not compressed.
//! - **Caches.** A key is taken once and never replaced. `GET` answers the project's newest cache whose key begins with
//!   `prefix`, with its whole key, percent-encoded, in [`CACHE_KEY_HEADER`].
//! - **Workspaces.** Job, node and step identify a layer; job, node and path identify an artifact or a file of test results. A
//!   repeated `PUT` replaces what the first one stored.
//! - `path` and `key` in a query are percent-encoded UTF-8. `path` is relative; its parts are separated by `/`, and none is
//!   empty, `.` or `..`. The server checks that, too.
//!
//! **Invariant:** this crate uses no HTTP library and does no IO.

mod job;
mod report;

pub use job::{CacheKeyValues, JobSpec, RunStep, Step, StepAction, StepWhen, Variable};
pub use report::{Acknowledged, Orders, Report, SequencedReport, TestTimings, WorkspaceLayer, WorkspaceLayers};

use std::time::Duration;

/// The routes, as axum's router writes them. `{step}` is a step's index in [`JobSpec::steps`], `{layer}` a
/// [`WorkspaceLayer::id`].
pub mod route {
    /// `GET`: the job's specification.
    pub const JOB: &str = "/agent/v1/job";
    /// `POST`: bytes of one step's log.
    pub const LOGS: &str = "/agent/v1/logs/{step}";
    /// `POST`: one [`SequencedReport`](super::SequencedReport).
    pub const REPORTS: &str = "/agent/v1/reports";
    /// `GET`: what the agent has to do.
    pub const ORDERS: &str = "/agent/v1/orders";
    /// `GET`: the working tree.
    pub const SOURCE: &str = "/agent/v1/source";
    /// `HEAD`, `GET`, `PUT`: the project's caches.
    pub const CACHES: &str = "/agent/v1/caches";
    /// `GET`: the layers that this job may attach.
    pub const WORKSPACE: &str = "/agent/v1/workspace";
    /// `GET`: one layer (`{layer}` is its id). `PUT`: this step's layer (`{layer}` is the step's index).
    pub const WORKSPACE_LAYER: &str = "/agent/v1/workspace/{layer}";
    /// `PUT`: one artifact.
    pub const ARTIFACTS: &str = "/agent/v1/artifacts";
    /// `PUT`: one file of test results.
    pub const TEST_RESULTS: &str = "/agent/v1/test-results";
    /// `POST`: a conversation with `git upload-pack`.
    pub const GIT: &str = "/agent/v1/git/{project}";
    /// `GET`: how long tests took in earlier jobs.
    pub const TEST_TIMINGS: &str = "/agent/v1/test-timings";

    /// The path for the bytes of `step`'s log that begin at `offset`. `last` says that the log ends with them.
    #[must_use]
    pub fn logs(step: u32, offset: u64, last: bool) -> String {
        format!("/agent/v1/logs/{step}?offset={offset}&last={last}")
    }
}

/// The largest piece of a log, report, file of test results, or list of refs that the server takes, in bytes.
pub const LARGEST_BODY_BYTES: usize = 64 << 20;

/// How long the server may hold a long poll open.
pub const LONG_POLL: Duration = Duration::from_secs(25);

/// The header with the whole key of the cache that was found, percent-encoded.
pub const CACHE_KEY_HEADER: &str = "towpath-cache-key";

/// The environment variables that an engine sets for an agent, and an agent for its steps.
///
/// An agent takes no arguments (`towpath agent`), because everybody on the machine can read those.
pub mod variable {
    /// The path of the server's unix socket, inside the environment.
    pub const AGENT_SOCKET: &str = "TOWPATH_AGENT_SOCKET";
    /// The agent's own token, with which it speaks for its node. No step ever has it. An engine sets it inside a container; on
    /// the machine itself, where root reads every environment, the agent reads it from its standard input instead.
    pub const AGENT_TOKEN: &str = "TOWPATH_AGENT_TOKEN";
    /// What a step has: it may ask for the deployment that its job's configuration names, and how long tests took. Logs never
    /// show it.
    pub const JOB_TOKEN: &str = "TOWPATH_JOB_TOKEN";
    /// The directory for the agent's spools, scripts and links. The agent creates it if it is missing.
    pub const STATE_DIR: &str = "TOWPATH_STATE_DIR";
}
