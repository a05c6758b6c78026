//! The contract of a target: the place where environments run.

use bytes::Bytes;
use futures::{future::BoxFuture, stream::BoxStream};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, time::Duration};
use tokio::sync::{mpsc, oneshot};
use towpath_manifest::{Change, Fingerprints, HookEvent, Object, ObjectId, Place};
pub use towpath_types::EnvironmentId;
use towpath_types::{CommitId, ImageReference, Outcome, RecordedState, RegistryCredentials, ReleaseId, SecretBytes};

/// The label with the name of a job. All its runs have the same value, although each has its own name.
pub const JOB_LABEL: &str = "towpath.dev/job";

/// The name of the Secret that pods pull images with, if [`PullCredentials`] has credentials for their registry.
pub const PULL_SECRET: &str = "towpath-registry";

/// An environment and its location.
#[allow(missing_docs)]
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Environment {
    pub id: EnvironmentId,
    /// The kube context whose folder has its manifests.
    pub kube_context: String,
    /// The namespace of its objects, which is also part of the names of its Services (`app.<namespace>.svc`).
    pub namespace: String,
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id.fmt(f)
    }
}

/// Whether a finding prevents a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It prevents a deployment: the objects cannot be applied like this.
    Refused,
    /// It does not prevent a deployment, but somebody should know about it.
    Note,
}

/// Something about the objects that is known before anything changes.
#[allow(missing_docs)]
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Finding {
    pub severity: Severity,
    pub object: ObjectId,
    /// The field in the form of Kubernetes' documentation: `spec.template.spec.hostNetwork`. Empty for the whole object.
    pub field: String,
    pub place: Place,
    /// A sentence: what is wrong and what to do.
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

/// The result of a preflight.
#[derive(Debug, Clone, Default)]
pub struct Preflight {
    /// Everything that is wrong or worth knowing.
    pub findings: Vec<Finding>,
    /// The exact change of each object. `None` if the target's objects are always as they were applied: then the caller
    /// compares with the last release.
    pub changes: Option<Vec<Change>>,
}

impl Preflight {
    /// The findings that prevent a deployment.
    pub fn refused(&self) -> impl Iterator<Item = &Finding> {
        self.findings
            .iter()
            .filter(|finding| finding.severity == Severity::Refused)
    }
}

/// The record of a release. Targets that several people can deploy to keep it in the environment, so that all agree on what
/// runs.
///
/// This is a wire form, in an envelope with a version. Add fields with a default; raise the version when a field changes its
/// meaning.
#[allow(missing_docs)]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReleaseRecord {
    pub id: ReleaseId,
    /// From one, counted in each environment.
    pub number: i64,
    pub state: RecordedState,
    /// The project's images with their digests. The plan has them by name.
    pub images: Vec<ImageReference>,
    /// The commit that the image was built from.
    pub commit: Option<CommitId>,
    /// Who deployed it.
    pub by: String,
    /// What it came from: a gate, a command.
    pub cause: String,
    /// When it started.
    pub at: Timestamp,
    pub stopped_at: Option<Timestamp>,
    /// Why it failed.
    pub message: Option<String>,
    /// How often it was deployed again, which changed nothing.
    #[serde(default)]
    pub repeats: i64,
    /// The time of the last repeat.
    #[serde(default)]
    pub repeated_at: Option<Timestamp>,
    /// The plan that was carried out. A target reads only its `objects`.
    pub plan: serde_json::Value,
}

impl ReleaseRecord {
    /// Whether it ended well.
    #[must_use]
    pub fn has_succeeded(&self) -> bool {
        self.state == RecordedState::Ended(Outcome::Succeeded)
    }

    /// The images, separated by commas.
    #[must_use]
    pub fn images_text(&self) -> String {
        let images: Vec<String> = self.images.iter().map(ToString::to_string).collect();
        images.join(", ")
    }
}

/// A lock that a person puts on an environment: nobody else may deploy there for a while.
#[allow(missing_docs)]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// The person, who may still deploy.
    pub by: String,
    /// Shown to the others; may be empty.
    pub reason: String,
    pub since: Timestamp,
    /// When it ends by itself.
    pub until: Timestamp,
}

impl Hold {
    /// Whether it keeps `by` from deploying at `now`.
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

/// A running deployment, whoever started it.
#[allow(missing_docs)]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deploying {
    pub by: String,
    /// A sentence.
    pub what: String,
    pub since: Timestamp,
    /// When its process last gave a sign of life.
    pub renewed: Timestamp,
}

/// The state of an environment.
#[derive(Debug, Clone)]
pub struct Applied {
    /// The release that runs completely; `None` during a deployment and after one that failed.
    pub release: Option<ReleaseId>,
    /// The release that was started last.
    pub attempted: Option<ReleaseId>,
    /// Every object that was applied and not removed since then.
    pub objects: Vec<ObjectId>,
    /// Who keeps the others from deploying.
    pub hold: Option<Hold>,
    /// The running deployment, if the environment itself records it.
    pub deploying: Option<Deploying>,
}

/// A release that Helm has recorded in an environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelmRelease {
    /// The name of the release.
    pub name: String,
    /// Its newest revision.
    pub revision: i64,
    /// What Helm says of that: `deployed`, `failed`, `pending-upgrade`.
    pub status: String,
    /// How many of its revisions are recorded, each in a Secret.
    pub revisions: usize,
}

impl HelmRelease {
    /// The Secret with its newest revision.
    ///
    /// Source: <https://github.com/helm/helm/blob/main/pkg/storage/storage.go>
    #[must_use]
    pub fn secret(&self) -> String {
        format!("sh.helm.release.v1.{}.v{}", self.name, self.revision)
    }
}

/// What of an environment a deployment would take over, and what there is besides.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    /// The objects of the deployment.
    pub objects: Vec<Surveyed>,
    /// The objects that it does not have.
    pub others: Vec<OtherObject>,
    /// What could not be looked at; sentences.
    pub unseen: Vec<String>,
}

/// An object of a deployment, and whose it is now.
#[derive(Debug, Clone)]
pub struct Surveyed {
    /// What the deployment does to it.
    pub change: Change,
    /// Whether it exists, and Towpath owns none of its fields yet, or others own fields that Towpath takes over.
    pub is_taken_over: bool,
    /// Who has deployed it, as words: ``the Helm release `shop` ``. Empty if it does not exist.
    pub owners: Vec<String>,
    /// The field managers that lose fields, because the manifest has other values.
    pub overruled: Vec<String>,
}

/// An object that no manifest has.
#[allow(missing_docs)]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherObject {
    pub kind: String,
    pub name: String,
    /// Who has deployed it, as words.
    pub owners: Vec<String>,
}

/// An object that differs from its release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// The change from the release to the object as it is now. `Deleted` if the object is gone. The values of Secrets appear
    /// only as fingerprints.
    pub change: Change,
    /// Who wrote the fields that differ, latest first.
    pub writers: Vec<Writer>,
}

/// Somebody who wrote to an object, according to its `managedFields`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writer {
    /// The name of the field manager: `kubectl-edit`, `kubectl-scale`, a controller.
    pub manager: String,
    /// The time of the last write.
    pub at: Option<Timestamp>,
}

/// A CronJob and its runs.
#[allow(missing_docs)]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CronJobStatus {
    pub name: String,
    /// `0 3 * * *`.
    pub schedule: String,
    pub suspended: bool,
    /// The image of its first container.
    pub image: Option<String>,
    /// The number of runs under way.
    pub active: u32,
    /// When the last run started.
    pub last_run: Option<Timestamp>,
    /// When the last successful run ended.
    pub last_success: Option<Timestamp>,
    /// `None` if it is suspended.
    pub next_run: Option<Timestamp>,
    /// The failed runs that still exist, latest first.
    pub failures: Vec<CronFailure>,
}

/// A failed run of a CronJob.
#[allow(missing_docs)]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CronFailure {
    /// The name of the Job.
    pub job: String,
    pub at: Option<Timestamp>,
    /// A sentence on why it failed.
    pub message: String,
}

/// Why objects are applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// To carry out a release, which is recorded.
    Release,
    /// To go back to a release after a later one failed. Its record stays as it is.
    Back,
    /// To apply an object outside of any release. The environment's release stays the same.
    Beside,
}

/// What to apply.
#[allow(missing_docs)]
#[derive(Debug, Clone)]
pub struct ApplyRequest {
    pub environment: Environment,
    pub occasion: Occasion,
    /// The release that this carries out or goes back to. For [`Occasion::Beside`], only who applies it and why.
    pub record: ReleaseRecord,
    /// In any order. Objects of the environment that are not among them stay as they are.
    pub objects: Vec<Object>,
    /// The objects to remove after all workloads of `objects` have rolled out. They need not exist.
    pub prune: Vec<ObjectId>,
    /// The Jobs to run around it.
    pub hooks: Hooks,
    /// How long everything together may take. Each Deployment also has its own `progressDeadlineSeconds`.
    pub deadline: Duration,
    /// How long a pod may wait for a node; if `None`, as long as the target's own limit.
    pub unschedulable: Option<Duration>,
}

/// The Jobs to run around a deployment, in their order, each with the event that it runs at. They are runs as in
/// [`Target::run_job`]: each has a name of its own.
#[derive(Debug, Clone, Default)]
pub struct Hooks {
    /// Before anything else changes, except for the objects of `objects` that are hooks themselves, which are applied first.
    pub before: Vec<(HookEvent, Object)>,
    /// After all workloads have rolled out, before anything is removed.
    pub after: Vec<(HookEvent, Object)>,
}

/// A step of a deployment, for people who wait for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The object that it is about; `None` for the whole deployment.
    pub object: Option<ObjectId>,
    /// A sentence.
    pub message: String,
}

/// Why a request was not carried out.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}{message}", object.as_ref().map(|o| format!("{o}: ")).unwrap_or_default())]
pub struct ApplyError {
    /// `Failed`: a workload does not run. `TimedOut`: a deadline passed. `Rejected`: the request was refused, and nothing has
    /// changed. `Errored`: the target itself, or something that it depends on, failed.
    pub outcome: Outcome,
    /// The object that caused it.
    pub object: Option<ObjectId>,
    /// The name of the hook's run that caused it.
    pub hook: Option<String>,
    /// What happened and what to do, one or more lines.
    pub message: String,
    /// The last lines of the container that caused it, masked.
    pub log: Vec<String>,
    /// The workloads as they are now.
    pub running: Vec<WorkloadStatus>,
}

/// The status of one workload.
#[allow(missing_docs)]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadStatus {
    /// `Deployment`, `CronJob`, `Service`, `Ingress`, …
    pub kind: String,
    pub name: String,
    /// The image of the first container, as in its manifest.
    pub image: Option<String>,
    /// The number of pods that are ready.
    pub ready: u32,
    /// The number of pods that there should be.
    pub desired: u32,
    /// Since when it has this status, as far as the target knows.
    pub since: Option<Timestamp>,
    /// How often its containers have restarted.
    pub restarts: u32,
    /// A sentence on what it waits for, or why it fails; empty if all is well.
    pub message: String,
    /// Where it can be reached: `http://127.0.0.1:41234`.
    pub addresses: Vec<String>,
}

/// Output of a job, or a note about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobLine {
    /// Whole lines, masked.
    Output(Bytes),
    /// A sentence of Towpath's own, for example about a restart.
    Note(String),
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobEnd {
    /// `Succeeded`, `Failed`, `TimedOut` (its `activeDeadlineSeconds`), `Canceled` or `Errored`.
    pub outcome: Outcome,
    /// The exit code of the last attempt, if it has one.
    pub exit_code: Option<i64>,
    /// A sentence on why it ended like this; may be empty.
    pub message: String,
}

/// A running job. Dropping the handle does not stop the job.
#[derive(Debug)]
pub struct JobHandle {
    /// The name of the run.
    pub name: String,
    /// Everything that it prints, from its start and through all restarts.
    pub output: mpsc::Receiver<JobLine>,
    /// How it ended. Comes after the last of `output`.
    pub end: oneshot::Receiver<JobEnd>,
}

/// What happens to the volumes of an environment that is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Volumes {
    /// They stay, and an environment with the same name uses them again.
    Keep,
    /// They are deleted with their data.
    Delete,
}

/// Why an operation on a target failed.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// Nothing has that name.
    #[error("{0}")]
    NotFound(String),
    /// It cannot work like this: a person has to change something.
    #[error("{0}")]
    Refused(String),
    /// Something that the target depends on failed: the cluster, the engine, the disk, the source of secrets.
    #[error("failed to {attempted}")]
    Failed {
        /// What was attempted on what: `read the releases of claims/dev`.
        attempted: String,
        #[allow(missing_docs)]
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

    /// The error with its causes, in one text.
    #[must_use]
    pub fn chain(&self) -> String {
        towpath_types::with_causes(self)
    }
}

/// Why a source does not answer. Contains no value of a Secret.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// Where the credentials come from that pods pull images with. The caller of a target supplies it.
///
/// May be called at any time, any number of times, and concurrently. An answer is used and forgotten: the next container that
/// starts gets changed credentials. An error means that the source does not answer now, and the caller tries again.
pub trait PullCredentials: Send + Sync {
    /// The credentials for pulling from `registry` (`127.0.0.1:7070`); `None` to pull without.
    fn pull_credentials<'a>(
        &'a self,
        environment: &'a EnvironmentId,
        registry: &'a str,
    ) -> BoxFuture<'a, Result<Option<RegistryCredentials>, SourceError>>;
}

/// Where the values of Secrets come from on a target that keeps none itself. The caller of the target supplies it.
///
/// The contract is that of [`PullCredentials`]. A cluster keeps its Secrets itself.
pub trait SecretSource: PullCredentials {
    /// The keys and values of the Secret `secret`; `None` if it does not exist.
    fn values<'a>(
        &'a self,
        environment: &'a EnvironmentId,
        secret: &'a str,
    ) -> BoxFuture<'a, Result<Option<BTreeMap<String, SecretBytes>>, SourceError>>;

    /// A keyed hash of a value: equal for equal values, and revealing nothing about them.
    fn fingerprint(&self, value: &[u8]) -> String;
}

/// A place where environments run: it applies their objects and tells how they are doing.
///
/// One value serves all environments, and all tasks at once. The suite in [`crate::contract`] checks what follows on every
/// implementation. Where implementations may differ, [`crate::contract::Capabilities`] names the difference.
///
/// **Order.** There is no set-up: every method may be called first, also for an environment that was never applied. Nothing is
/// changed by `preflight`, `fingerprints`, `helm_releases`, `has_helm_deployed`, `survey`, `releases`, `current`, `status`, `drift`, `cron_jobs` and `logs`. A caller makes a
/// plan with `fingerprints` and `preflight` and then calls `apply`, but `apply` does not rely on that.
///
/// **Concurrency.** All methods may be called at the same time. Two `apply` for one environment never overlap: the second waits
/// until the first has ended, or is refused with `Rejected`. Different environments do not wait for each other.
/// `delete_environment` must not be called during an `apply` for the same environment.
///
/// **Twice.** `apply` with the same request does nothing the second time. `set_hold` and `delete_environment` end in the same
/// state. `run_job` and `start_cron_job` with the name of a Job that exists follow that Job and start nothing: the name
/// identifies the run, and whoever chooses it beforehand can ask again after a lost answer. `cancel_job` of a Job that has ended does nothing, or finds no Job.
///
/// **Refused.** `apply` refuses with `Rejected`, and has changed nothing, if `preflight` would refuse, if it contains a Job
/// (Jobs are run by name), if somebody else's hold keeps the caller out, or if the environment has changed since the plan was
/// made: a release that others began has its number, and left other objects than there were. Otherwise it gets the next free
/// number.
///
/// **After a failure** of `apply`, the old version still serves, the new one stays as it is, and nothing changes until the next
/// `apply`. The environment says so: `current` has no `release`, and `attempted` names the one that failed. The way back is
/// another `apply`: with the objects of the earlier release, its record and [`Occasion::Back`]. The same holds after the
/// process was killed, or the future of `apply` was dropped: the next `apply`, of whatever, converges.
///
/// **Unreachable.** If the place does not answer, methods fail with [`TargetError::Failed`] and `apply` with `Errored`. Then it
/// is unknown whether the call had an effect. Calling again is always safe.
pub trait Target: Send + Sync {
    /// Everything that is known to go wrong with `objects`, and what applying them and removing `prune` would change.
    fn preflight<'a>(
        &'a self,
        environment: &'a Environment,
        objects: &'a [Object],
        prune: &'a [ObjectId],
    ) -> BoxFuture<'a, Result<Preflight, TargetError>>;

    /// Fingerprints of what the pods of `objects` read: of Secrets, and of ConfigMaps that are not among `objects`.
    fn fingerprints<'a>(
        &'a self,
        environment: &'a Environment,
        objects: &'a [Object],
    ) -> BoxFuture<'a, Result<Fingerprints, TargetError>>;

    /// The releases that are recorded in the environment itself, newest first. Always empty if the caller's storage is the only
    /// record.
    fn releases<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Vec<ReleaseRecord>, TargetError>>;

    /// What is applied, and who is deploying. `None` for an environment that was never applied and has no hold.
    fn current<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Option<Applied>, TargetError>>;

    /// The releases that Helm has recorded in the environment, by name. Empty where Helm cannot deploy; `None` if the account may
    /// not look.
    fn helm_releases<'a>(
        &'a self,
        _environment: &'a Environment,
    ) -> BoxFuture<'a, Result<Option<Vec<HelmRelease>>, TargetError>> {
        Box::pin(async { Ok(Some(Vec::new())) })
    }

    /// Whether Helm has deployed one of `objects` in the environment, by what it notes on those that exist.
    fn has_helm_deployed<'a>(
        &'a self,
        _environment: &'a Environment,
        _objects: &'a [Object],
    ) -> BoxFuture<'a, Result<bool, TargetError>> {
        Box::pin(async { Ok(false) })
    }

    /// What applying `objects` would take over from whom, and what else there is. Empty for a target where nobody else can create
    /// objects.
    fn survey<'a>(
        &'a self,
        _environment: &'a Environment,
        _objects: &'a [Object],
    ) -> BoxFuture<'a, Result<Survey, TargetError>> {
        Box::pin(async { Ok(Survey::default()) })
    }

    /// Applies the objects of `request`, waits until every workload has rolled out, and then removes what is to be pruned. Runs
    /// the hooks before and after; one that does not succeed makes the rest fail. Their runs stay: the caller deletes them with
    /// [`crate::clean_up_hooks`] when it has recorded the end.
    /// Reports each step to `progress`; it is fine if nobody receives it. Dropping the future stops the waiting, but not what
    /// has begun.
    fn apply(
        &self,
        request: ApplyRequest,
        progress: mpsc::UnboundedSender<Progress>,
    ) -> BoxFuture<'_, Result<(), ApplyError>>;

    /// Counts on the record of the release `id` that it was deployed again at `at`, which changed nothing. Does nothing if the
    /// environment keeps no such record.
    fn count_repeat<'a>(
        &'a self,
        environment: &'a Environment,
        id: ReleaseId,
        at: Timestamp,
    ) -> BoxFuture<'a, Result<(), TargetError>>;

    /// How the workloads are doing. Empty for an environment that was never applied.
    fn status<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Vec<WorkloadStatus>, TargetError>>;

    /// Which of `objects`, the manifests of a release, somebody else has changed since, and who. Always empty if nobody but the
    /// target can change them.
    fn drift<'a>(
        &'a self,
        environment: &'a Environment,
        objects: &'a [Object],
    ) -> BoxFuture<'a, Result<Vec<Drift>, TargetError>>;

    /// Keeps everybody but `hold.by` from deploying until `hold.until`; `None` ends that. A running deployment continues.
    fn set_hold<'a>(
        &'a self,
        environment: &'a Environment,
        hold: Option<Hold>,
    ) -> BoxFuture<'a, Result<(), TargetError>>;

    /// The CronJobs and their runs, by name.
    fn cron_jobs<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Vec<CronJobStatus>, TargetError>>;

    /// Starts a Job, or follows the one that has its name.
    ///
    /// Runs of the same job have the same value of the label [`JOB_LABEL`]. A new run replaces those that have ended. Where
    /// runs exclude each other, it is refused while one is under way.
    ///
    /// The pods may wait for a node as long as `unschedulable`; if `None`, as long as the target's own limit.
    fn run_job<'a>(
        &'a self,
        environment: &'a Environment,
        job: Object,
        unschedulable: Option<Duration>,
    ) -> BoxFuture<'a, Result<JobHandle, TargetError>>;

    /// Follows the Job `name`, a name that was given to [`Target::run_job`] or [`Target::start_cron_job`], from its beginning;
    /// never starts one. `NotFound` if there is no such Job: it was never created, or was deleted since. `unschedulable` as for
    /// [`Target::run_job`].
    fn follow_job<'a>(
        &'a self,
        environment: &'a Environment,
        name: &'a str,
        unschedulable: Option<Duration>,
    ) -> BoxFuture<'a, Result<JobHandle, TargetError>>;

    /// Runs the CronJob `name` now as the Job `run`, whatever its schedule and its concurrency policy, or follows the Job that
    /// has that name. `unschedulable` as in [`Target::run_job`].
    fn start_cron_job<'a>(
        &'a self,
        environment: &'a Environment,
        name: &'a str,
        run: &'a str,
        unschedulable: Option<Duration>,
    ) -> BoxFuture<'a, Result<JobHandle, TargetError>>;

    /// Stops the Job `name`, which then ends as `Canceled`.
    fn cancel_job<'a>(&'a self, environment: &'a Environment, name: &'a str) -> BoxFuture<'a, Result<(), TargetError>>;

    /// The last `tail` lines of each container of a Deployment or Job, masked, and later lines if `follow`. If there are
    /// several pods, each line starts with the name of its pod.
    fn logs<'a>(
        &'a self,
        environment: &'a Environment,
        workload: &'a ObjectId,
        tail: u32,
        follow: bool,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Bytes>, TargetError>>;

    /// Stops and removes everything in the environment, and its records. Does nothing if there is nothing.
    fn delete_environment<'a>(
        &'a self,
        environment: &'a Environment,
        volumes: Volumes,
    ) -> BoxFuture<'a, Result<(), TargetError>>;
}
