//! What pages and the command line show of an environment.

use crate::plan::{ChangeAction, images_text};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
pub use towpath_deploy::CronJobStatus;
use towpath_deploy::{Deploying, Hold, Writer};
use towpath_store::ReleaseRow;
use towpath_types::{CommitId, Digest, ImageReference, RecordedState, ReleaseId, ReleaseStatus};

/// One environment: what runs there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EnvironmentView {
    /// The project's name.
    pub project: String,
    /// `dev`.
    pub name: String,
    /// The workloads, as last seen.
    pub workloads: Vec<WorkloadView>,
    /// The addresses of its applications, such as `http://127.0.0.1:32768`.
    pub addresses: Vec<String>,
    /// The newest release that succeeded.
    pub release: Option<ReleaseView>,
    /// The release in progress.
    pub deploying: Option<ReleaseView>,
    /// A deployment that the environment itself reports as in progress, whoever carries it out.
    pub under_way: Option<Deploying>,
    /// The lock that keeps others from deploying.
    pub hold: Option<Hold>,
    /// A sentence about the last deployment if it neither finished nor was undone.
    pub between: Option<String>,
    /// The differences from the release, if anybody looked for them.
    pub drift: Option<DriftView>,
    /// Its CronJobs and their runs, as last seen.
    #[serde(default)]
    pub cron_jobs: Vec<CronJobStatus>,
    /// When it was last seen, or since when it cannot be seen.
    pub sighting: SightingView,
    /// The kube contexts that have an environment of this name, if there are several.
    #[serde(default)]
    pub ambiguous: Vec<String>,
}

/// Whether a poller could see an environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum SightingView {
    /// Nobody has looked yet.
    Never,
    /// The last look succeeded.
    Seen {
        /// The time of the last look.
        at: Timestamp,
    },
    /// The last look failed. The view shows what was seen before.
    Unknown {
        /// The time of the first failed look.
        since: Timestamp,
        /// The reason, a sentence.
        because: String,
    },
}

/// One workload of an environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadView {
    /// `Deployment`, `CronJob`, `Job`.
    pub kind: String,
    /// `claims-web`.
    pub name: String,
    /// The image that it runs.
    pub image: String,
    /// How many pods are ready.
    pub ready: u32,
    /// How many pods there should be.
    pub desired: u32,
    /// How often its containers were restarted.
    pub restarts: u32,
    /// Its progress or problem, a sentence; empty when all is well.
    pub message: String,
}

/// The differences between an environment and its release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriftView {
    /// The time of the look.
    pub at: Timestamp,
    /// Each object that differs.
    pub objects: Vec<DriftedObject>,
}

/// One object that differs from its release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriftedObject {
    /// `changed` or `deleted`.
    pub action: ChangeAction,
    /// `Deployment`.
    pub kind: String,
    /// `claims-web`.
    pub name: String,
    /// A unified diff from the release to the current object. It never contains values of Secrets.
    pub diff: String,
    /// The writers of the differences, the latest first.
    pub writers: Vec<Writer>,
}

/// One release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseView {
    /// The id, which is unique everywhere.
    pub id: ReleaseId,
    /// Its number in the environment, from 1.
    pub number: i64,
    /// The status.
    pub status: ReleaseStatus,
    /// `running`, or how it ended.
    pub state: RecordedState,
    /// The images, pinned by their digests, separated by commas.
    pub image: String,
    /// The images by name.
    pub images: BTreeMap<String, ImageReference>,
    /// The plan that it carries out.
    pub plan: Digest,
    /// The commit that the image was built from; if that is unknown, the commit of the manifests.
    pub commit: Option<CommitId>,
    /// The actor who started it.
    pub by: String,
    /// When it was made.
    pub at: Timestamp,
    /// When it ended.
    pub stopped_at: Option<Timestamp>,
    /// Its origin: `gate hold-dev of pipeline 3`, `towpath deploy dev latest`, `rollback to release 2`.
    pub cause: String,
    /// Why it failed.
    pub message: Option<String>,
    /// How often it was deployed again without a change.
    #[serde(default)]
    pub repeats: i64,
    /// The time of the last repeat.
    #[serde(default)]
    pub repeated_at: Option<Timestamp>,
}

impl ReleaseView {
    /// Describes the repeats for people: `deployed again 3 times, last at …`.
    #[must_use]
    pub fn repeats_text(&self) -> Option<String> {
        let at = self.repeated_at?;
        match self.repeats {
            1 => Some(format!("deployed again at {at}: nothing changed")),
            repeats => Some(format!("deployed again {repeats} times, last at {at}: nothing changed")),
        }
    }
}

impl From<&ReleaseRow> for ReleaseView {
    fn from(row: &ReleaseRow) -> Self {
        Self {
            id: row.id,
            number: row.number,
            status: row.status,
            state: row.recorded_state(),
            image: images_text(&row.images),
            images: row.images.clone(),
            plan: row.plan.clone(),
            commit: row.commit.clone(),
            by: row.actor.name.clone(),
            at: row.created_at,
            stopped_at: row.stopped_at,
            cause: row.cause.clone(),
            message: row.message.clone(),
            repeats: row.repeats,
            repeated_at: row.repeated_at,
        }
    }
}
