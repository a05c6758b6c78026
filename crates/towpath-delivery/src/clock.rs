//! This machine's clock, and one that tests move by hand.

use jiff::{SignedDuration, Timestamp};
use std::{future::Future, pin::Pin, time::Duration};
use tokio::sync::watch;
use towpath_types::Clock;

/// The longest single sleep, so that a change of the system clock is noticed.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// This machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn sleep_until(&self, at: Timestamp) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            while let Ok(left) = Duration::try_from(at.duration_since(Timestamp::now()))
                && !left.is_zero()
            {
                tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
            }
        })
    }
}

/// A clock that stands still until a test moves it. Clones are the same clock.
#[derive(Debug, Clone)]
pub struct FakeClock {
    now: watch::Sender<Timestamp>,
}

impl FakeClock {
    /// A clock that says `now`.
    #[must_use]
    pub fn at(now: Timestamp) -> Self {
        Self {
            now: watch::Sender::new(now),
        }
    }

    /// Moves the clock forwards or backwards, and wakes the tasks whose time has come.
    pub fn advance(&self, by: SignedDuration) {
        self.now.send_modify(|now| {
            *now = now.checked_add(by).unwrap_or(*now);
        });
    }

    /// How many tasks sleep on this clock.
    #[must_use]
    pub fn sleepers(&self) -> usize {
        self.now.receiver_count()
    }
}

impl Default for FakeClock {
    /// A clock that says 2026-01-01T00:00:00Z.
    fn default() -> Self {
        Self::at(Timestamp::constant(1_767_225_600, 0))
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        *self.now.borrow()
    }

    fn sleep_until(&self, at: Timestamp) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let mut now = self.now.subscribe();
        Box::pin(async move {
            // The sender outlives this borrow of the clock.
            let _ = now.wait_for(|now| *now >= at).await;
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use futures::FutureExt as _;

    #[tokio::test]
    async fn a_fake_clock_wakes_whoever_waited_for_the_moment() {
        let clock = FakeClock::default();
        let start = clock.now();
        assert_eq!(start.to_string(), "2026-01-01T00:00:00Z");
        clock.sleep_until(start).await;
        let mut sleep = clock.sleep_until(start + SignedDuration::from_secs(10));
        assert!(sleep.as_mut().now_or_never().is_none());
        clock.advance(SignedDuration::from_secs(9));
        assert!(sleep.as_mut().now_or_never().is_none());
        assert_eq!(clock.sleepers(), 1);
        clock.clone().advance(SignedDuration::from_secs(1));
        sleep.await;
        assert_eq!(clock.sleepers(), 0);
    }

    #[tokio::test]
    async fn the_systems_clock_does_not_sleep_for_the_past() {
        let clock = SystemClock;
        clock.sleep_until(clock.now() - SignedDuration::from_hours(1)).await;
    }
}
