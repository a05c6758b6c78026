//! Pieces of work that delivery commits for servers to claim.

use jiff::Timestamp;
use towpath_store::{Guard, Work, WorkKey, WorkKind, WorkState};
use towpath_types::{EnvironmentId, ReleaseId, RunId};

fn work(kind: WorkKind, key: impl ToString, environment: &EnvironmentId, due: Timestamp) -> Work {
    Work {
        project: environment.project().parse().ok(),
        ..Work::new(WorkKey::new(kind, key), due)
    }
}

/// The work of carrying a release out.
pub(crate) fn release(id: ReleaseId, environment: &EnvironmentId, now: Timestamp) -> Work {
    work(WorkKind::Release, id, environment, now)
}

/// The work of looking at an environment.
pub(crate) fn look(environment: &EnvironmentId, now: Timestamp) -> Work {
    work(WorkKind::Environment, environment.slug(), environment, now)
}

/// The work of following a run to its end.
pub(crate) fn follow(id: RunId, environment: &EnvironmentId, due: Timestamp) -> Work {
    work(WorkKind::Run, id, environment, due)
}

/// Whether a piece of work is still leased under `guard`.
pub(crate) fn is_leased_by(work: &Work, guard: &Guard) -> bool {
    work.fence == guard.fence && matches!(work.state, WorkState::Leased { .. })
}
