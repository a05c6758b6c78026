//! The rows, a module per noun. Fields are the columns.
//!
//! A row that changes has a `version`: 1 when it is inserted, incremented by each update. JSON columns hold wire forms
//! that their writers version themselves (`{"version": 1, …}`).

mod artifact;
mod context;
mod environment;
mod gate;
mod job;
mod orb;
mod pipeline;
mod release;
mod server;
mod session;
mod trigger;
mod workflow;

pub use artifact::{Artifact, Cache, TestRow, WorkspaceLayer};
pub use context::ContextRule;
pub use environment::{EnvironmentRow, Sighting};
pub use gate::{GateRow, PlanRow};
pub use job::{JobRow, JobSpecRow, NodeRow, StepRow};
pub use orb::{FetchedOrb, OrbNamespace, OrbRow, OrbVersionRow};
pub use pipeline::{PipelineConfig, PipelineRow, ProjectRow};
pub use release::{ImagePush, ReleaseRow, RunRow};
pub use server::ServerRow;
pub use session::SessionRow;
pub use trigger::{HandledRef, TriggerKind, TriggerRow};
pub use workflow::{EventRow, WorkflowRow};
