//! What pages and the command line show of an environment.

use crate::plan::{ChangeAction, images_text};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
pub use towpath_deploy::CronJobStatus;
use towpath_deploy::{Deploying, Hold, Writer};
use towpath_store::ReleaseRow;
use towpath_types::{CommitId, Digest, ImageReference, Outcome, ReleaseId, ReleaseStatus};

/// One environment: what runs there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EnvironmentView {
    /// The project's name.
    pub project: String,
    /// `dev`.
    pub name: String,
    /// What runs, as it was seen last.
    pub workloads: Vec<WorkloadView>,
    /// Where its applications answer, such as `http://127.0.0.1:32768`.
    pub addresses: Vec<String>,
    /// The newest release that succeeded.
    pub release: Option<ReleaseView>,
    /// The release that is under way.
    pub deploying: Option<ReleaseView>,
    /// A deployment that the environment knows to be under way, whoever carries it out.
    pub under_way: Option<Deploying>,
    /// Who keeps others from deploying.
    pub hold: Option<Hold>,
    /// When the last deployment neither came to its end nor was undone: what there is to know, a sentence.
    pub between: Option<String>,
    /// What is not as the release has it, if anybody looked.
    pub drift: Option<DriftView>,
    /// Its CronJobs and their runs, as they were seen last.
    #[serde(default)]
    pub cron_jobs: Vec<CronJobStatus>,
    /// When it was seen, or since when it cannot be.
    pub sighting: SightingView,
    /// The kube contexts that have an environment of this name, if a name does not say which is meant.
    #[serde(default)]
    pub ambiguous: Vec<String>,
}

/// Whether an environment could be looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum SightingView {
    /// Nobody has looked yet.
    Never,
    /// It was looked at.
    Seen {
        /// When last.
        at: Timestamp,
    },
    /// It cannot be looked at. The view shows what was seen before.
    Unknown {
        /// Since when.
        since: Timestamp,
        /// Why, a sentence.
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
    /// What it does or waits for, a sentence; empty when all is well.
    pub message: String,
}

/// What in an environment is not as its release has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriftView {
    /// When somebody looked.
    pub at: Timestamp,
    /// Each object that differs.
    pub objects: Vec<DriftedObject>,
}

/// One object that is not as its release has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriftedObject {
    /// `changed` or `deleted`.
    pub action: ChangeAction,
    /// `Deployment`.
    pub kind: String,
    /// `claims-web`.
    pub name: String,
    /// A unified diff from the release to what is there. Values of Secrets are never in it.
    pub diff: String,
    /// Who wrote what differs, the latest first.
    pub writers: Vec<Writer>,
}

/// One release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseView {
    /// Names it everywhere.
    pub id: ReleaseId,
    /// Its number in the environment, from 1.
    pub number: i64,
    /// Where it stands.
    pub status: ReleaseStatus,
    /// `running`, or how it ended: `succeeded`, `failed`, `errored`, `timed_out`, `canceled`, `rejected`.
    pub state: String,
    /// The images, pinned by their digests, separated by commas.
    pub image: String,
    /// The images by name.
    pub images: BTreeMap<String, ImageReference>,
    /// The plan that it carries out.
    pub plan: Digest,
    /// The commit that the image was built from, or that the manifests are of.
    pub commit: Option<CommitId>,
    /// Who.
    pub by: String,
    /// When it was made.
    pub at: Timestamp,
    /// When it ended.
    pub stopped_at: Option<Timestamp>,
    /// How it came to be: `gate hold-dev of pipeline 3`, `towpath deploy dev latest`, `rollback to release 2`.
    pub cause: String,
    /// Why it failed.
    pub message: Option<String>,
    /// How often it was deployed again, which changed nothing.
    #[serde(default)]
    pub repeats: i64,
    /// When last.
    #[serde(default)]
    pub repeated_at: Option<Timestamp>,
}

impl ReleaseView {
    /// How often it was deployed again, for people: `deployed again 3 times, last at …`.
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
            state: row
                .outcome
                .filter(|_| row.status.is_over())
                .map_or("running", Outcome::as_str)
                .to_string(),
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
