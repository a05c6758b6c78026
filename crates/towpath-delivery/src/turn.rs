//! Makes releases take turns in an environment, across servers.

use crate::{error::DeliveryError, progress::Progress};
use jiff::SignedDuration;
use towpath_store::{ReleaseRow, Store, Topic};
use towpath_types::{Clock, EnvironmentId, ReleaseId, ReleaseStatus};

/// How soon a waiting release looks again if it hears of no change.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_secs(5);

/// The releases of an environment that change it or are about to, in the order of their turns.
pub(crate) fn in_turn<'a>(
    open: &'a [ReleaseRow],
    environment: &EnvironmentId,
) -> impl Iterator<Item = &'a ReleaseRow> + use<'a> {
    let mut queue: Vec<&ReleaseRow> = open
        .iter()
        .filter(|row| row.environment == *environment)
        .filter(|row| row.status != ReleaseStatus::Planned && !row.status.is_over())
        .collect();
    queue.sort_by_key(|row| (row.number, row.id));
    queue.into_iter()
}

/// Waits until the release `mine` is the first in its environment; without `mine`, until there is none. Reports that it
/// waits.
pub(crate) async fn wait(
    store: &dyn Store,
    clock: &dyn Clock,
    environment: &EnvironmentId,
    mine: Option<ReleaseId>,
    progress: &dyn Progress,
) -> Result<(), DeliveryError> {
    let topic = Topic::Environment(environment.clone());
    let mut changes = store.changes();
    let mut told = false;
    loop {
        let open = store.open_releases().await?;
        let first = in_turn(&open, environment).next();
        if first.is_none_or(|first| Some(first.id) == mine) {
            return Ok(());
        }
        if !std::mem::replace(&mut told, true) {
            let environment = environment.environment();
            progress.line(&format!("waiting for another deployment to {environment} to end"));
        }
        let mut again = clock.sleep_until(clock.now() + LOOK_AGAIN);
        tokio::select! {
            is_open = changes.of(&topic) => if !is_open {
                again.await;
            },
            () = &mut again => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::rows;

    fn release(number: i64, status: ReleaseStatus) -> ReleaseRow {
        ReleaseRow {
            id: ReleaseId::from_u128(u128::try_from(number).unwrap()),
            number,
            status,
            ..rows::release("claims", "dev")
        }
    }

    #[test]
    fn the_lowest_number_that_is_under_way_goes_first() {
        let elsewhere = ReleaseRow {
            environment: EnvironmentId::new("claims", "qa").unwrap(),
            ..release(1, ReleaseStatus::Applying)
        };
        let open = [
            release(4, ReleaseStatus::Approved),
            release(3, ReleaseStatus::RollingBack),
            release(2, ReleaseStatus::Planned),
            release(1, ReleaseStatus::Succeeded),
            elsewhere,
        ];
        let dev = EnvironmentId::new("claims", "dev").unwrap();
        let numbers: Vec<i64> = in_turn(&open, &dev).map(|row| row.number).collect();
        assert_eq!(numbers, [3, 4]);
    }
}
