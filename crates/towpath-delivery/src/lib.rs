//! Delivery: environments, images, plans, gates, freezes, locks, releases and one-off runs.
//!
//! This crate decides, and acts through traits: rows by [`towpath_store::Store`], clusters and engines by
//! [`towpath_deploy::Target`], commits by [`towpath_forge::Forge`], tags by [`towpath_images::Images`], time by
//! [`towpath_types::Clock`]. The server uses it, and so does the command line where no server is up.
//!
//! - **Invariant:** an approval carries out exactly the plan that the approver saw, or nothing ([`Gates`]).
//! - **Invariant:** nothing begins in a protected environment before somebody has seen its plan and agreed
//!   ([`Protections`]).
//! - **Invariant:** a decision is committed before it is acted on; when a process is killed at any point, any other
//!   process can continue ([`Releases::carry_out`]).
//! - **Invariant:** only [`Observer`], [`Gates::refresh`] and [`Discoverer`] query the outside for pages. Pages read
//!   rows ([`EnvironmentView::from_row`], [`PlanView::from_row`], [`ReleaseView`]).
//! - **Invariant:** only [`History::learn`] reconciles an environment's own record of its releases with the store's
//!   rows.
//!
//! It knows nothing of HTTP, of how steps run, or of who may ask for what.

mod adopt;
mod agreement;
mod clock;
mod delivery;
mod discover;
mod dockerfiles;
mod environment;
mod environment_tables;
mod error;
mod freeze;
mod gate;
mod history;
mod image;
mod image_table;
mod lock;
mod manifests;
mod observe;
mod occasion;
mod plan;
mod planner;
mod progress;
mod project_file;
mod project_schema;
mod protection;
mod release;
mod repository;
mod request;
mod retry;
mod run;
mod run_name;
mod secrets;
mod turn;
mod work;
mod workflow;

#[cfg(test)]
mod testing;

pub use adopt::{AdoptedObject, Adoption, AdoptionView};
pub use agreement::plan_digest;
pub use clock::SystemClock;
pub use delivery::{Delivery, Ports};
pub use discover::{Discovered, Discoverer};
pub use dockerfiles::{BuiltBecause, BuiltImage, built_images, is_of_a_pipeline};
pub use environment::{
    CronJobStatus, DriftView, DriftedObject, EnvironmentView, ReleaseView, SeenWireError, SightingView, WorkloadView,
    is_shown,
};
pub use environment_tables::EnvironmentTable;
pub use error::{DeliveryError, ErrorKind};
pub use freeze::{Freeze, Frozen, frozen};
pub use gate::{Approval, Gates};
pub use history::{HISTORY, History};
pub use image::{ImageFinder, image_in_manifests, image_repository, project_images, with_found_image, workload_images};
pub use image_table::ImageTable;
pub use lock::Locks;
pub use manifests::{
    check_project_name, environment_id, listed_path, manifest_files, namespace_before_rendering, select_manifests,
};
pub use observe::Observer;
pub use plan::{
    ChangeAction, ImageChange, Plan, PlanChange, PlanCommit, PlanHook, PlanHooks, PlanView, PlanWireError, read_plan,
    write_plan,
};
pub use planner::{Fingerprinter, Planner, PullSecret};
pub use progress::{Progress, Unheard};
pub use project_file::{Build, OnFailure, PROJECT_FILE, ProjectFile, ProjectFileError, Wait};
pub use project_schema::PROJECT_SCHEMA;
pub use protection::Protections;
pub use release::Releases;
pub use request::LaptopRequest;
pub use run::Runs;
pub use secrets::Secrets;
pub use towpath_deploy::{
    CronFailure, Deploying, HelmRelease, Hold, Keeper, Kept, LiveKey, LiveSecret, OtherObject, Writer,
};
pub use towpath_manifest::{
    DOT_K8S, Diagnostic, EnvironmentLayout, Layout, LayoutSettings, ListedPath, ManifestContent, ManifestFile, Named,
    Origin, Reading, Sourced, Tree, Wanted,
};
pub use workflow::WorkflowJobs;
