//! Environments as rows and as pages show them: what a poller last saw, and since when it cannot see them.
//!
//! **Invariant:** a view comes from rows alone. Nothing here queries a cluster.

mod from_row;
mod row;
mod seen;
mod view;

pub(crate) use from_row::between_releases;
pub use from_row::is_shown;
pub(crate) use row::unseen;
pub use seen::SeenWireError;
pub(crate) use seen::{Seen, drift_view, write_drift, write_seen};
pub use view::{CronJobStatus, DriftView, DriftedObject, EnvironmentView, ReleaseView, SightingView, WorkloadView};
