//! The conductor: feeds events to the state machines, carries out the effects that they answer, and records both.
//!
//! - **Invariant:** an event is committed before anything acts on it.
//! - **Invariant:** every effect looks at what is there first, so that carrying it out twice is carrying it out once.
//! - **Invariant:** what an approver was shown is what is done, or nothing is.
//!
//! It knows nothing of HTTP: `towpath-server` translates, and decides nothing.

mod agents;
mod compile;
mod conductor;
mod control;
mod environment;
mod error;
mod gates;
mod jobs;
mod jobspec;
mod junit;
mod operations;
mod orbs;
mod plans;
mod project;
mod push;
mod queries;
mod records;
mod releases;
mod secrets;
mod steps;
mod tokens;
mod views;

pub use agents::LogAnswer;
pub use control::{Control, Settings, TargetSettings};
pub use error::{ControlError, ErrorKind};
pub use orbs::{Audience, CheckedText, NamespaceView, OrbVersionView, OrbView, Segment};
pub use plans::{check_project_name, workload_images};
pub use project::{Build, Freeze, OnFailure, PROJECT_FILE, ProjectFile, ProjectFileError, Wait};
pub use tokens::{Grant, TokenError, Tokens, presented};
pub use towpath_deploy::{CronFailure, CronJobStatus, Deploying, Hold, Identity, Writer};
pub use views::{
    ArtifactView, Board, DriftView, DriftedObject, EnvironmentView, GateView, JobDetail, JobView, KeyView,
    LaptopRequest, ManifestFile, PipelineView, PlanChange, PlanCommit, PlanView, Progress, ProjectView, ReleaseView,
    StepView, TestFailure, TestsView, WorkflowView, WorkloadView,
};
