//! What the conductor keeps as documents beside the rows: data that only it reads.

use serde::{Deserialize, Serialize};
use towpath_config::CompiledConfig;
use towpath_types::{CommitId, ImageReference, JobId, PipelineId, WorkflowId};

/// Collections of documents.
pub(crate) mod collection {
    /// [`super::PipelineRecord`] by pipeline.
    pub(crate) const PIPELINES: &str = "pipelines";
    /// [`super::WorkflowRecord`] by workflow.
    pub(crate) const WORKFLOWS: &str = "workflows";
    /// A workflow's id by its job's.
    pub(crate) const JOBS: &str = "jobs";
    /// The commit that a ref led to when its push was handled, by `<project>/<ref>`.
    pub(crate) const REFS: &str = "refs";
    /// The images that a workflow pushed, by workflow.
    pub(crate) const IMAGES: &str = "images";
    /// A tag's last push, by `<repository>:<tag>`, and by `<workflow>/<repository>:<tag>` where a job pushed.
    pub(crate) const PUSHES: &str = "pushes";
    /// The image that a job's primary container runs, pinned, by job.
    pub(crate) const JOB_IMAGES: &str = "job-images";
    /// [`super::ServiceRecord`] by `<job>/<node>/<step>`.
    pub(crate) const JOB_SERVICES: &str = "job-services";
    /// Approved plans by their ids.
    pub(crate) const PLANS: &str = "plans";
    /// Namespaces of Towpath's orb registry, by name.
    pub(crate) const ORB_NAMESPACES: &str = "orb-namespaces";
    /// Its orbs, by `<namespace>/<orb>`.
    pub(crate) const ORBS: &str = "orbs";
    /// Their versions, by `<namespace>/<orb>@<version>`.
    pub(crate) const ORB_VERSIONS: &str = "orb-versions";
    /// Sources of releases that CircleCI's registry gave, by the same.
    pub(crate) const FETCHED_ORBS: &str = "fetched-orbs";
    /// The release that a job's step began, by `<job>/<environment>`.
    pub(crate) const JOB_RELEASES: &str = "job-releases";
}

/// One pipeline's input and what became of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PipelineRecord {
    /// The configuration as its author wrote it.
    pub source: String,
    /// What it compiles to; `None` when it does not.
    pub compiled: Option<CompiledConfig>,
    /// The same as text; empty when it does not compile.
    #[serde(default)]
    pub compiled_text: String,
    /// What was noticed.
    pub warnings: Vec<String>,
    /// `towpath.toml` at the commit.
    pub project_file: Option<String>,
    /// Who pushed or asked.
    pub user: String,
}

/// One workflow's jobs, with the ids that the outside knows them by.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WorkflowRecord {
    /// Its id.
    pub id: WorkflowId,
    /// The pipeline.
    pub pipeline: PipelineId,
    /// The pipeline's number.
    pub pipeline_number: i64,
    /// Its place among the pipeline's workflows.
    pub position: i64,
    /// The project.
    pub project: String,
    /// Its name in the configuration.
    pub name: String,
    /// The branch.
    pub branch: Option<String>,
    /// The tag.
    pub tag: Option<String>,
    /// The commit.
    pub commit: CommitId,
    /// Its jobs in order.
    pub jobs: Vec<JobRecord>,
}

/// One job of a workflow.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct JobRecord {
    /// Its id.
    pub id: JobId,
    /// Its name in the workflow.
    pub name: String,
    /// The environment that it opens, when it is a gate of one.
    pub gate_of: Option<String>,
}

impl WorkflowRecord {
    /// The job called `name`.
    pub(crate) fn named(&self, name: &str) -> Option<&JobRecord> {
        self.jobs.iter().find(|job| job.name == name)
    }

    /// The job `id`.
    pub(crate) fn job(&self, id: JobId) -> Option<&JobRecord> {
        self.jobs.iter().find(|job| job.id == id)
    }
}

/// The images of one workflow.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct WorkflowImages {
    /// Each by the tag that it was pushed under, pinned by its digest; the first push of a tag counts.
    pub images: Vec<ImageReference>,
}

/// When a tag was last pushed, and what.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Push {
    /// The image, with tag and digest.
    pub image: ImageReference,
    /// When.
    pub at: jiff::Timestamp,
    /// The workflow whose job pushed it.
    #[serde(default)]
    pub workflow: Option<WorkflowId>,
}

/// A service container of a job that ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ServiceRecord {
    /// The node.
    pub node: u32,
    /// Under which step its log is kept.
    pub step: u32,
    /// Its name, or its image.
    pub name: String,
    /// How it ended, if it did before the job.
    pub exit_code: Option<i64>,
    /// When its log was kept.
    pub at: jiff::Timestamp,
}
