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
use towpath_manifest::{Change, Fingerprints, Object, ObjectId, Place};
use towpath_types::{CommitId, Outcome, ReleaseId, SecretString};

/// The label that holds the name by which a Job is asked for, whatever its run is called.
pub const JOB_LABEL: &str = "towpath.dev/job";

/// The Secret with which pods pull from registries that the [`SecretSource`] has credentials for.
pub const PULL_SECRET: &str = "towpath-registry";

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

/// An environment and where it is: what `.k8s/<kube context>/<environment>/` and its manifests say.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Environment {
    /// Which.
    pub id: EnvironmentId,
    /// The kube context whose folder holds it.
    pub kube_context: String,
    /// The Kubernetes namespace of its objects, and whose name its Services answer to (`app.<namespace>.svc`).
    pub namespace: String,
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id.fmt(f)
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

/// What is to be known before anything is changed.
#[derive(Debug, Clone, Default)]
pub struct Preflight {
    /// What is wrong or worth knowing, all at once.
    pub findings: Vec<Finding>,
    /// The exact change of each object. `None` where a target's objects are nothing but what was applied: the caller
    /// compares with the release.
    pub changes: Option<Vec<Change>>,
}

impl Preflight {
    /// The findings that stand in the way.
    pub fn refused(&self) -> impl Iterator<Item = &Finding> {
        self.findings
            .iter()
            .filter(|finding| finding.severity == Severity::Refused)
    }
}

/// A release as it is recorded where it was carried out, so that everybody who deploys there agrees on what runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReleaseRecord {
    /// Its id.
    pub id: ReleaseId,
    /// Its number in the environment, from one.
    pub number: i64,
    /// `running`, or its outcome.
    pub state: String,
    /// The image, pinned.
    pub image: String,
    /// The commit that the image was built from.
    pub commit: Option<CommitId>,
    /// Who.
    pub by: String,
    /// How it came to be: a gate, a command.
    pub cause: String,
    /// When it began.
    pub at: Timestamp,
    /// When it ended.
    pub stopped_at: Option<Timestamp>,
    /// Why it failed.
    pub message: Option<String>,
    /// What was carried out: the conductor reads it, and a target its `objects`.
    pub plan: serde_json::Value,
}

/// A person's word that nobody else deploys to an environment for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Who; what this person deploys goes through.
    pub by: String,
    /// Why, for whoever finds it.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
    /// When it ends by itself.
    pub until: Timestamp,
}

impl Hold {
    /// Whether `by` has to wait for it at `now`.
    #[must_use]
    pub fn keeps_out(&self, by: &str, now: Timestamp) -> bool {
        self.by != by && now < self.until
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "locked by {} until {}",
            self.by,
            self.until.strftime("%Y-%m-%d %H:%M UTC")
        )?;
        if !self.reason.is_empty() {
            write!(f, " ({})", self.reason)?;
        }
        Ok(())
    }
}

/// A deployment that is under way, whoever began it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deploying {
    /// Who.
    pub by: String,
    /// What, a sentence.
    pub what: String,
    /// Since when.
    pub since: Timestamp,
    /// When its process last said that it is alive.
    pub renewed: Timestamp,
}

/// What an environment says of itself.
#[derive(Debug, Clone)]
pub struct Applied {
    /// The release that was carried out completely; `None` while one is under way or after one that failed.
    pub release: Option<ReleaseId>,
    /// The release that was begun last.
    pub attempted: Option<ReleaseId>,
    /// Every object that was applied and not removed since.
    pub objects: Vec<ObjectId>,
    /// Who keeps others out.
    pub hold: Option<Hold>,
    /// The deployment under way, where the environment itself knows of it.
    pub deploying: Option<Deploying>,
}

/// An object that is not as its release has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// From what the release has to what is there; `Deleted` when it is gone. Secrets' values only as fingerprints.
    pub change: Change,
    /// Who wrote the fields that differ, the latest first: the field manager's name.
    pub writers: Vec<Writer>,
}

/// Who wrote to an object, by its `managedFields`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writer {
    /// The field manager: `kubectl-edit`, `kubectl-scale`, a controller's name.
    pub manager: String,
    /// When it wrote last.
    pub at: Option<Timestamp>,
}

/// A CronJob and its runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CronJobStatus {
    /// Its name.
    pub name: String,
    /// `0 3 * * *`.
    pub schedule: String,
    /// Whether its schedule is suspended.
    pub suspended: bool,
    /// The image of its first container.
    pub image: Option<String>,
    /// How many runs are under way.
    pub active: u32,
    /// When a run was started last.
    pub last_run: Option<Timestamp>,
    /// When a run succeeded last.
    pub last_success: Option<Timestamp>,
    /// When the next run is due.
    pub next_run: Option<Timestamp>,
    /// The runs that failed and are still remembered, the latest first.
    pub failures: Vec<CronFailure>,
}

/// A run of a CronJob that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CronFailure {
    /// The Job's name.
    pub job: String,
    /// When it failed.
    pub at: Option<Timestamp>,
    /// Why, a sentence.
    pub message: String,
}

/// Why objects are applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// A release is carried out, and recorded.
    Release,
    /// A release is gone back to after a later one failed. What is recorded of it stays as it is.
    Back,
    /// One object is applied beside the releases: what runs there stays the release that it was.
    Beside,
}

/// What is to be carried out.
#[derive(Debug, Clone)]
pub struct ApplyRequest {
    /// Where.
    pub environment: Environment,
    /// Why.
    pub occasion: Occasion,
    /// The release that this carries out or goes back to; for what is applied beside the releases, who does it and why.
    pub record: ReleaseRecord,
    /// The objects, in any order. Objects that exist and are not named here stay as they are.
    pub objects: Vec<Object>,
    /// What is to be removed, after everything in `objects` is there and ready. What does not exist is no error.
    pub prune: Vec<ObjectId>,
    /// How long all of it may take. Each Deployment has its own `progressDeadlineSeconds` besides.
    pub deadline: Duration,
    /// How long a pod may wait for a node to take it; without it, as long as the target finds right.
    pub unschedulable: Option<Duration>,
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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
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
        towpath_types::with_causes(self)
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

    /// A stand-in for a value: equal for equal values, and telling nothing of them.
    fn fingerprint(&self, value: &[u8]) -> String;

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
    /// Everything that is known to go wrong with `objects`, and what applying them and removing `prune` would change;
    /// changes nothing.
    fn preflight<'a>(
        &'a self,
        environment: &'a Environment,
        objects: &'a [Object],
        prune: &'a [ObjectId],
    ) -> BoxFuture<'a, Result<Preflight, TargetError>>;

    /// Stand-ins for the values of the Secrets, and of the ConfigMaps that are not among them, that `objects` read.
    fn fingerprints<'a>(
        &'a self,
        environment: &'a Environment,
        objects: &'a [Object],
    ) -> BoxFuture<'a, Result<Fingerprints, TargetError>>;

    /// The releases that the environment itself has recorded, newest first; none where the conductor's storage is the
    /// only record.
    fn releases<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Vec<ReleaseRecord>, TargetError>>;

    /// What the environment says of itself; `None` for one where nothing was ever recorded.
    fn current<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Option<Applied>, TargetError>>;

    /// Carries `request` out and waits until every workload in it is rolled out. Dropping the future stops the waiting,
    /// not what was begun.
    fn apply(
        &self,
        request: ApplyRequest,
        progress: mpsc::UnboundedSender<Progress>,
    ) -> BoxFuture<'_, Result<(), ApplyError>>;

    /// How the environment's workloads are doing; empty for an environment that was never applied.
    fn status<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Vec<WorkloadStatus>, TargetError>>;

    /// Which of a release's `objects` are not as they were applied, and who changed them. Changes nothing. Empty where
    /// nobody but the target can change them.
    fn drift<'a>(
        &'a self,
        environment: &'a Environment,
        objects: &'a [Object],
    ) -> BoxFuture<'a, Result<Vec<Drift>, TargetError>>;

    /// Keeps others than `hold.by` from deploying; `None` lets everybody again. What is under way goes on.
    fn set_hold<'a>(
        &'a self,
        environment: &'a Environment,
        hold: Option<Hold>,
    ) -> BoxFuture<'a, Result<(), TargetError>>;

    /// The environment's CronJobs and their runs, by name.
    fn cron_jobs<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Vec<CronJobStatus>, TargetError>>;

    /// Starts the Job `job`, or follows the one that has its name. A Job with the label `towpath.dev/job` takes the place of
    /// those of the same value that ended, and is refused while one of them runs. Its pods may wait for a node as long as
    /// `unschedulable` says; without it, as long as the target finds right.
    fn run_job<'a>(
        &'a self,
        environment: &'a Environment,
        job: Object,
        unschedulable: Option<Duration>,
    ) -> BoxFuture<'a, Result<JobHandle, TargetError>>;

    /// Starts the CronJob `name` now, outside its schedule and whatever its concurrency policy is; `unschedulable` as for
    /// [`Target::run_job`].
    fn start_cron_job<'a>(
        &'a self,
        environment: &'a Environment,
        name: &'a str,
        unschedulable: Option<Duration>,
    ) -> BoxFuture<'a, Result<JobHandle, TargetError>>;

    /// Stops the Job `name`; it ends as `Canceled`.
    fn cancel_job<'a>(&'a self, environment: &'a Environment, name: &'a str) -> BoxFuture<'a, Result<(), TargetError>>;

    /// What the pods of a Deployment or Job print: the last `tail` lines of each, masked, each line with its pod's name
    /// before it when there are several; and all that follows when `follow`.
    fn logs<'a>(
        &'a self,
        environment: &'a Environment,
        workload: &'a ObjectId,
        tail: u32,
        follow: bool,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Bytes>, TargetError>>;

    /// Stops and removes everything of the environment. Does nothing when there is none.
    fn delete_environment<'a>(
        &'a self,
        environment: &'a Environment,
        volumes: Volumes,
    ) -> BoxFuture<'a, Result<(), TargetError>>;
}
