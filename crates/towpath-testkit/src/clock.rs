//! A clock that tests move by hand, and the contract that it keeps as every clock does.

// A failed check is a failed test.
#![allow(clippy::expect_used)]

use futures::{
    FutureExt as _,
    future::{join, join_all},
};
use jiff::{SignedDuration, Timestamp};
use std::{future::Future, pin::Pin, time::Duration};
use tokio::{sync::watch, time::timeout};
use towpath_types::Clock;

#[derive(Debug, Clone, Copy)]
enum Reading {
    Still(Timestamp),
    /// This far ahead of the machine's clock.
    Ahead(SignedDuration),
}

impl Reading {
    fn now(self) -> Timestamp {
        match self {
            Self::Still(at) => at,
            Self::Ahead(by) => Timestamp::now().checked_add(by).unwrap_or(Timestamp::MAX),
        }
    }
}

/// A clock that a test moves; whoever sleeps on it notices at once. Clones are the same clock.
#[derive(Debug, Clone)]
pub struct FakeClock {
    reading: watch::Sender<Reading>,
}

impl FakeClock {
    /// A clock that stands still at this moment.
    #[must_use]
    pub fn at(now: Timestamp) -> Self {
        Self {
            reading: watch::Sender::new(Reading::Still(now)),
        }
    }

    /// A clock that runs as the machine's does.
    #[must_use]
    pub fn running() -> Self {
        Self {
            reading: watch::Sender::new(Reading::Ahead(SignedDuration::ZERO)),
        }
    }

    /// Sets the clock, which stands still from then on.
    pub fn set(&self, now: Timestamp) {
        self.reading.send_replace(Reading::Still(now));
    }

    /// Moves the clock forwards or backwards. It goes on running, or standing still.
    pub fn advance(&self, by: SignedDuration) {
        self.reading.send_modify(|reading| match reading {
            Reading::Still(at) => *at = at.checked_add(by).unwrap_or(*at),
            Reading::Ahead(ahead) => *ahead = ahead.checked_add(by).unwrap_or(*ahead),
        });
    }

    /// How many tasks sleep on this clock.
    #[must_use]
    pub fn sleepers(&self) -> usize {
        self.reading.receiver_count()
    }
}

impl Default for FakeClock {
    /// A clock that stands still at 2026-01-01T00:00:00Z.
    fn default() -> Self {
        Self::at(Timestamp::constant(1_767_225_600, 0))
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        self.reading.borrow().now()
    }

    fn sleep_until(&self, at: Timestamp) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let mut moved = self.reading.subscribe();
        Box::pin(async move {
            loop {
                let reading = *moved.borrow_and_update();
                let left = Duration::try_from(at.duration_since(reading.now())).unwrap_or_default();
                if left.is_zero() {
                    return;
                }
                tokio::select! {
                    // The sender outlives this borrow of the clock.
                    _ = moved.changed() => {}
                    () = tokio::time::sleep(left), if matches!(reading, Reading::Ahead(_)) => {}
                }
            }
        })
    }
}

/// The shortest time that passes in a check.
const STEP: Duration = Duration::from_millis(5);
/// How long a sleep may last whose moment has come.
const BOUND: Duration = Duration::from_secs(60);

/// Checks the contract of [`Clock`]. `pass` lets this much time pass on the clock.
///
/// # Panics
/// If the clock does not keep the contract.
pub async fn check(clock: &dyn Clock, pass: impl AsyncFn(Duration)) {
    let later = |by: Duration| clock.now().checked_add(by).expect("there is time left");
    let is_over = |sleep: &mut Pin<Box<dyn Future<Output = ()> + Send + '_>>| sleep.as_mut().now_or_never().is_some();

    let before = later(STEP);
    pass(STEP).await;
    assert!(clock.now() >= before, "time passes");

    for at in [Timestamp::MIN, clock.now() - SignedDuration::from_hours(1), clock.now()] {
        assert!(is_over(&mut clock.sleep_until(at)), "{at} has passed");
    }
    for at in [later(Duration::from_secs(3600)), Timestamp::MAX] {
        assert!(!is_over(&mut clock.sleep_until(at)), "{at} is still to come");
    }
    assert!(!is_over(&mut clock.sleep(Duration::MAX)));
    assert!(is_over(&mut clock.sleep(Duration::ZERO)));

    // Sleeps do not depend on each other, nor on one that was dropped.
    let mut dropped = clock.sleep_until(later(2 * STEP));
    let _ = is_over(&mut dropped);
    let sleepers = [6, 2, 4].map(|steps| {
        let at = later(steps * STEP);
        async move {
            clock.sleep_until(at).await;
            assert!(clock.now() >= at, "nobody wakes before {at}");
        }
    });
    let pause = async {
        let at = later(3 * STEP);
        clock.sleep(3 * STEP).await;
        assert!(clock.now() >= at, "a pause is not shorter than it was to be");
    };
    let passing = async {
        drop(dropped);
        for _ in 0..6 {
            pass(STEP).await;
        }
    };
    let all = join(join(join_all(sleepers), pause), passing);
    timeout(BOUND, all).await.expect("everybody wakes");

    // Nobody needs to have looked before the moment came.
    let mut late = clock.sleep_until(later(STEP));
    pass(STEP).await;
    assert!(is_over(&mut late), "its moment has passed");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn signed(by: Duration) -> SignedDuration {
        SignedDuration::try_from(by).unwrap()
    }

    #[tokio::test]
    async fn a_clock_that_stands_still_keeps_the_contract() {
        let clock = FakeClock::default();
        check(&clock, async |by| clock.advance(signed(by))).await;
    }

    #[tokio::test]
    async fn a_clock_that_runs_and_is_moved_keeps_the_contract() {
        let clock = FakeClock::running();
        check(&clock, async |by| clock.advance(signed(by))).await;
    }

    #[tokio::test]
    async fn a_clock_that_runs_alone_keeps_the_contract() {
        let clock = FakeClock::running();
        check(&clock, async |by| clock.sleep_until(clock.now() + signed(by)).await).await;
    }

    #[tokio::test]
    async fn sleepers_are_counted_and_wake_when_their_moment_comes() {
        let clock = FakeClock::default();
        let start = clock.now();
        assert_eq!(start.to_string(), "2026-01-01T00:00:00Z");
        let mut sleep = clock.sleep_until(start + SignedDuration::from_secs(10));
        assert!(sleep.as_mut().now_or_never().is_none());
        clock.advance(SignedDuration::from_secs(9));
        assert!(sleep.as_mut().now_or_never().is_none());
        clock.advance(SignedDuration::from_secs(-5));
        clock.advance(SignedDuration::from_secs(5));
        assert!(sleep.as_mut().now_or_never().is_none(), "a clock may go back");
        assert_eq!(clock.sleepers(), 1);
        clock.clone().advance(SignedDuration::from_secs(1));
        sleep.await;
        assert_eq!(clock.sleepers(), 0);
    }

    #[tokio::test]
    async fn a_clock_that_is_set_stands_still() {
        let clock = FakeClock::running();
        let moment = Timestamp::UNIX_EPOCH;
        clock.set(moment);
        assert_eq!((clock.now(), clock.now()), (moment, moment));
    }
}
