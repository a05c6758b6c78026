//! The contract between the conductor and the places that it deploys to.

use bytes::Bytes;
use futures::{future::BoxFuture, stream::BoxStream};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};
use tokio::sync::{mpsc, oneshot};
use towpath_manifest::{Object, ObjectId, Place};
use towpath_types::{Outcome, ReleaseId, SecretString};

/// One environment of one project: `claims` in `dev`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EnvironmentId {
    project: String,
    environment: String,
}

/// Why a text cannot name a project or an environment here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` cannot name a project or an environment: 1 to 40 lower-case letters, digits, `-` and `_`, the first and last a letter or digit"
)]
pub struct EnvironmentIdError(String);

impl EnvironmentId {
    /// The environment `environment` of `project`.
    ///
    /// # Errors
    /// When a name does not fit into the names of folders, containers and networks.
    pub fn new(project: &str, environment: &str) -> Result<Self, EnvironmentIdError> {
        for name in [project, environment] {
            let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
            let good = (1..=40).contains(&name.len())
                && name.bytes().all(|b| alnum(b) || matches!(b, b'-' | b'_'))
                && name.bytes().next().is_some_and(alnum)
                && name.bytes().last().is_some_and(alnum);
            if !good {
                return Err(EnvironmentIdError(name.chars().take(80).collect()));
            }
        }
        Ok(Self {
            project: project.to_string(),
            environment: environment.to_string(),
        })
    }

    /// The project's name.
    #[must_use]
    pub fn project(&self) -> &str {
        &self.project
    }

    /// The environment's name within its project.
    #[must_use]
    pub fn environment(&self) -> &str {
        &self.environment
    }

    /// `claims.dev`: one word for the names of folders, networks and labels. A name holds no dot, so it is unique.
    #[must_use]
    pub fn slug(&self) -> String {
        format!("{}.{}", self.project, self.environment)
    }

    pub(crate) fn from_slug(slug: &str) -> Option<Self> {
        let (project, environment) = slug.split_once('.')?;
        Self::new(project, environment).ok()
    }
}

impl fmt::Display for EnvironmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.project, self.environment)
    }
}

/// Whether a finding stands in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The objects cannot be applied like this.
    Refused,
    /// They can be; this behaves otherwise here than on a cluster.
    Note,
}

/// Something about the objects that is to be known before anything is changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Finding {
    /// Whether it stands in the way.
    pub severity: Severity,
    /// Which object.
    pub object: ObjectId,
    /// The field as written in Kubernetes' documentation, such as `spec.template.spec.hostNetwork`; empty for the whole object.
    pub field: String,
    /// Where it is written.
    pub place: Place,
    /// What is wrong and what to do, a sentence.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.object)?;
        if !self.field.is_empty() {
            write!(f, " `{}`", self.field)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// What was applied last.
#[derive(Debug, Clone)]
pub struct Applied {
    /// The release that was carried out completely; `None` while one is under way or after one that failed.
    pub release: Option<ReleaseId>,
    /// The release that was begun last.
    pub attempted: Option<ReleaseId>,
    /// Every object as it was given, in the order of application. A Secret's manifest comes without values.
    pub objects: Vec<Object>,
}

/// What is to be carried out.
#[derive(Debug, Clone)]
pub struct ApplyRequest {
    /// Where.
    pub environment: EnvironmentId,
    /// The Kubernetes namespace whose name Services answer to (`app.<namespace>.svc`).
    pub namespace: String,
    /// The release that this carries out.
    pub release: ReleaseId,
    /// The objects, in any order. Objects that exist and are not named here stay as they are.
    pub objects: Vec<Object>,
    /// What is to be removed, after everything in `objects` is there and ready. What does not exist is no error.
    pub prune: Vec<ObjectId>,
    /// How long all of it may take. Each Deployment has its own `progressDeadlineSeconds` besides.
    pub deadline: Duration,
}

/// A line for whoever waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What it is about.
    pub object: Option<ObjectId>,
    /// A sentence.
    pub message: String,
}

/// Why objects were not carried out.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}{message}", object.as_ref().map(|o| format!("{o}: ")).unwrap_or_default())]
pub struct ApplyError {
    /// `Failed`: what is to run does not run. `TimedOut`: a deadline passed. `Rejected`: the objects are refused and
    /// nothing was changed. `Errored`: the engine or this machine.
    pub outcome: Outcome,
    /// Which object.
    pub object: Option<ObjectId>,
    /// What happened and what to do, a sentence or several lines.
    pub message: String,
    /// The last lines that its container printed, masked.
    pub log: Vec<String>,
    /// What runs now.
    pub running: Vec<WorkloadStatus>,
}

/// How one workload is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadStatus {
    /// `Deployment`, `CronJob`, `Job`, `Service` or `Ingress`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The first container's image, as written.
    pub image: Option<String>,
    /// Pods that are ready.
    pub ready: u32,
    /// Pods that there should be.
    pub desired: u32,
    /// Since when it is as it is, in this process's eyes.
    pub since: Option<Timestamp>,
    /// How often its containers were started again.
    pub restarts: u32,
    /// A sentence on what it waits for or why it fails; empty when all is well.
    pub message: String,
    /// Where it answers, such as `http://127.0.0.1:41234`.
    pub addresses: Vec<String>,
}

/// A line, or the piece of one, that a job printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobLine {
    /// Output, masked, whole lines.
    Output(Bytes),
    /// Something that Towpath has to say: an attempt begins, one failed.
    Note(String),
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobEnd {
    /// `Succeeded`, `Failed`, `TimedOut` (its `activeDeadlineSeconds`), `Canceled` or `Errored`.
    pub outcome: Outcome,
    /// The last attempt's exit code, when it came to have one.
    pub exit_code: Option<i64>,
    /// Why, a sentence.
    pub message: String,
}

/// A job that runs. Dropping it changes nothing for the job.
#[derive(Debug)]
pub struct JobHandle {
    /// The Job's name.
    pub name: String,
    /// What it prints from its beginning, through restarts, to its end.
    pub output: mpsc::Receiver<JobLine>,
    /// How it ended; comes after the last of `output`.
    pub end: oneshot::Receiver<JobEnd>,
}

/// What becomes of an environment's volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Volumes {
    /// They stay, and are found again when the environment is made anew.
    Keep,
    /// Their data is deleted for good.
    Delete,
}

/// Why an operation on a target did not come off.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// Nothing of that name is there.
    #[error("{0}")]
    NotFound(String),
    /// It can never come off like this: a person must change something.
    #[error("{0}")]
    Refused(String),
    /// The engine, the disk or a source of secrets failed.
    #[error("failed to {attempted}")]
    Failed {
        /// What was attempted on what.
        attempted: String,
        /// Why not.
        source: SourceError,
    },
}

impl TargetError {
    pub(crate) fn failed<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
        attempted: impl Into<String>,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Failed {
            attempted: attempted.into(),
            source: source.into(),
        }
    }

    /// The error with its causes, for a place that has room for one text only.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    }
}

/// User name and password for a registry.
#[derive(Debug, Clone)]
pub struct RegistryCredentials {
    /// The user's name.
    pub username: String,
    /// The password or token.
    pub password: SecretString,
}

/// Why a [`SecretSource`] cannot be asked now; it holds no value.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// Where Secrets' values and pull credentials come from. Supplied by the caller.
///
/// Each method may be called at any time, any number of times and at once. An answer is used and forgotten: a value that
/// changes is seen by the next container that is made. An error means that the source cannot be asked now, and the caller
/// tries again; it holds no value.
pub trait SecretSource: Send + Sync {
    /// The keys of the Secret `secret`; `None` when there is no such Secret.
    fn keys<'a>(
        &'a self,
        environment: &'a EnvironmentId,
        secret: &'a str,
    ) -> BoxFuture<'a, Result<Option<BTreeSet<String>>, SourceError>>;

    /// The keys and values of the Secret `secret`; `None` when there is no such Secret.
    fn values<'a>(
        &'a self,
        environment: &'a EnvironmentId,
        secret: &'a str,
    ) -> BoxFuture<'a, Result<Option<BTreeMap<String, SecretString>>, SourceError>>;

    /// The credentials for pulling from `registry` (`127.0.0.1:7070`); `None` pulls without.
    fn pull_credentials<'a>(
        &'a self,
        environment: &'a EnvironmentId,
        registry: &'a str,
    ) -> BoxFuture<'a, Result<Option<RegistryCredentials>, SourceError>>;
}

/// A place that environments' objects are carried to. Object-safe; one value serves all environments.
///
/// **At once.** Everything may be called at once, except `apply` and `delete_environment` for one environment: a second
/// call while one runs is refused.
///
/// **Twice.** `apply` with the same request does nothing the second time. After a `kill -9` in the middle of it, the same
/// call, or another one, converges. To undo, apply the previous objects and prune what they did not have: it is the same
/// call. `run_job` with a Job whose name exists follows that Job and starts nothing; the name is the run's identity.
///
/// **Never started.** `apply` refuses with `Rejected`, and changes nothing, when `preflight` would refuse.
///
/// **After a failure** of `apply` what ran before still serves, what is new stays as it is, and nothing moves until the
/// next `apply`.
pub trait Target: Send + Sync {
    /// Everything that is known to go wrong with `objects`, all at once; changes nothing.
    fn preflight<'a>(
        &'a self,
        environment: &'a EnvironmentId,
        objects: &'a [Object],
    ) -> BoxFuture<'a, Result<Vec<Finding>, TargetError>>;

    /// What was applied; `None` for an environment that never was.
    fn current<'a>(&'a self, environment: &'a EnvironmentId) -> BoxFuture<'a, Result<Option<Applied>, TargetError>>;

    /// Carries `request` out and waits until every workload in it is rolled out. Dropping the future stops the waiting,
    /// not what was begun.
    fn apply(
        &self,
        request: ApplyRequest,
        progress: mpsc::UnboundedSender<Progress>,
    ) -> BoxFuture<'_, Result<(), ApplyError>>;

    /// How the environment's workloads are doing; empty for an environment that was never applied.
    fn status<'a>(&'a self, environment: &'a EnvironmentId) -> BoxFuture<'a, Result<Vec<WorkloadStatus>, TargetError>>;

    /// Starts the Job `job`, or follows the one that has its name.
    fn run_job<'a>(
        &'a self,
        environment: &'a EnvironmentId,
        namespace: &'a str,
        job: Object,
    ) -> BoxFuture<'a, Result<JobHandle, TargetError>>;

    /// Starts the CronJob `name` now, outside its schedule and whatever its concurrency policy is.
    fn start_cron_job<'a>(
        &'a self,
        environment: &'a EnvironmentId,
        name: &'a str,
    ) -> BoxFuture<'a, Result<JobHandle, TargetError>>;

    /// Stops the Job `name`; it ends as `Canceled`.
    fn cancel_job<'a>(
        &'a self,
        environment: &'a EnvironmentId,
        name: &'a str,
    ) -> BoxFuture<'a, Result<(), TargetError>>;

    /// What the pods of a Deployment or Job print: the last `tail` lines of each, masked, each line with its pod's name
    /// before it when there are several; and all that follows when `follow`.
    fn logs<'a>(
        &'a self,
        environment: &'a EnvironmentId,
        workload: &'a ObjectId,
        tail: u32,
        follow: bool,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Bytes>, TargetError>>;

    /// Stops and removes everything of the environment. Does nothing when there is none.
    fn delete_environment<'a>(
        &'a self,
        environment: &'a EnvironmentId,
        volumes: Volumes,
    ) -> BoxFuture<'a, Result<(), TargetError>>;
}
