//! Makes views from rows.

use super::{
    seen::{SeenWireError, read_drift, read_seen},
    view::{EnvironmentView, ReleaseView, SightingView},
};
use crate::lock::UNDER_WAY;
use jiff::Timestamp;
use towpath_store::{EnvironmentRow, ReleaseRow, Sighting};
use towpath_types::{Outcome, ReleaseId, ReleaseStatus};

/// Whether lists show this environment: it is on the default branch, or something was deployed there.
#[must_use]
pub fn is_shown(row: &EnvironmentRow) -> bool {
    row.listed || row.release.is_some()
}

impl EnvironmentView {
    /// The view of an environment at `now`, from its row and its newest releases, newest first.
    ///
    /// # Errors
    /// When the row was written by a newer Towpath.
    pub fn from_row(row: &EnvironmentRow, releases: &[ReleaseRow], now: Timestamp) -> Result<Self, SeenWireError> {
        let seen = read_seen(&row.seen)?.unwrap_or_default();
        let is_under_way = |release: &&ReleaseRow| UNDER_WAY.contains(&release.status);
        let is_good = |release: &&ReleaseRow| release.status == ReleaseStatus::Succeeded;
        Ok(Self {
            project: row.id.project().to_string(),
            name: row.id.environment().to_string(),
            between: between_releases(seen.release, seen.attempted, seen.deploying.is_some(), releases),
            workloads: seen.workloads,
            addresses: seen.addresses,
            release: releases.iter().find(is_good).map(ReleaseView::from),
            deploying: releases.iter().find(is_under_way).map(ReleaseView::from),
            under_way: seen.deploying,
            hold: seen.hold.filter(|hold| now < hold.until),
            drift: read_drift(row)?,
            cron_jobs: seen.cron_jobs,
            sighting: match &row.sighting {
                Sighting::Never => SightingView::Never,
                Sighting::Seen { at } => SightingView::Seen { at: *at },
                Sighting::Unknown { since, because } => SightingView::Unknown {
                    since: *since,
                    because: because.clone(),
                },
            },
            ambiguous: row.ambiguous.clone(),
        })
    }
}

/// A sentence about an environment whose last deployment neither finished nor was undone. `release` and `attempted`
/// come from the environment itself; `rows` are its releases, newest first.
pub(crate) fn between_releases(
    release: Option<ReleaseId>,
    attempted: Option<ReleaseId>,
    is_deploying: bool,
    rows: &[ReleaseRow],
) -> Option<String> {
    if release.is_some() || is_deploying {
        return None;
    }
    let attempted = rows.iter().find(|row| Some(row.id) == attempted)?;
    if !attempted.status.is_over() {
        return None;
    }
    if attempted.status == ReleaseStatus::Succeeded {
        return Some(format!(
            "between releases: going back to release {} did not come to its end. Deploy again, or roll back",
            attempted.number
        ));
    }
    let how = attempted.outcome.map_or("ended", Outcome::as_str).replace('_', " ");
    let how = format!("release {}, which {how}", attempted.number);
    Some(match rows.iter().find(|row| row.status == ReleaseStatus::Succeeded) {
        Some(before) => format!(
            "between release {} and {how}: deploy again, or roll back",
            before.number
        ),
        None => format!("left half-way by {how}, and there is none before it: deploy again"),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        environment::seen::{Seen, write_seen},
        testing::rows,
    };
    use towpath_deploy::Hold;
    use towpath_types::RecordedState;

    fn release(number: i64, status: ReleaseStatus, outcome: Option<Outcome>) -> ReleaseRow {
        ReleaseRow {
            id: ReleaseId::from_u128(u128::try_from(number).unwrap()),
            number,
            status,
            outcome,
            ..rows::release("claims", "dev")
        }
    }

    fn between(attempted: i64, rows: &[ReleaseRow]) -> Option<String> {
        let attempted = ReleaseId::from_u128(u128::try_from(attempted).unwrap());
        between_releases(None, Some(attempted), false, rows)
    }

    #[test]
    fn an_environment_that_was_left_half_way_says_so() {
        let good = release(1, ReleaseStatus::Succeeded, Some(Outcome::Succeeded));
        let bad = release(2, ReleaseStatus::Failed, Some(Outcome::TimedOut));
        let open = release(3, ReleaseStatus::Applying, None);
        let rows = [open.clone(), bad.clone(), good.clone()];
        assert_eq!(
            between(2, &rows).as_deref(),
            Some("between release 1 and release 2, which timed out: deploy again, or roll back")
        );
        assert_eq!(
            between(2, &[bad]).as_deref(),
            Some("left half-way by release 2, which timed out, and there is none before it: deploy again")
        );
        assert_eq!(
            between(1, &rows).as_deref(),
            Some("between releases: going back to release 1 did not come to its end. Deploy again, or roll back")
        );
        // A deployment in progress does not count as unfinished.
        assert_eq!(between(3, &rows), None);
        assert_eq!(between_releases(None, Some(good.id), true, &rows), None);
        assert_eq!(between_releases(Some(good.id), Some(good.id), false, &rows), None);
        assert_eq!(between(9, &rows), None);
    }

    #[test]
    fn a_release_is_running_until_it_is_over() {
        let view = |status, outcome| ReleaseView::from(&release(1, status, outcome)).state;
        assert_eq!(view(ReleaseStatus::RollingBack, None), RecordedState::Running);
        assert_eq!(
            view(ReleaseStatus::RolledBack, Some(Outcome::TimedOut)),
            RecordedState::Ended(Outcome::TimedOut)
        );
    }

    #[test]
    fn a_lock_is_shown_until_it_ends() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let hold = Hold {
            by: "ann".into(),
            reason: String::new(),
            since: at("2026-01-01T00:00:00Z"),
            until: at("2026-01-01T01:00:00Z"),
        };
        let seen = Seen {
            hold: Some(hold.clone()),
            ..Seen::default()
        };
        let row = EnvironmentRow {
            seen: write_seen(&seen),
            ..rows::environment("claims", "dev")
        };
        let shown = |now: &str| EnvironmentView::from_row(&row, &[], at(now)).unwrap().hold;
        assert_eq!(shown("2026-01-01T00:59:59Z"), Some(hold));
        assert_eq!(shown("2026-01-01T01:00:00Z"), None);
    }
}
