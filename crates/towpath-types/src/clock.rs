//! The time of day, supplied, so that tests need not wait for it.

use jiff::Timestamp;
use std::{future::Future, pin::Pin, time::Duration};

/// What time it is.
///
/// # Contract
/// `towpath_testkit::clock::check` checks it on this machine's clock and on the clock of tests.
///
/// - Any task may call any method at any time. `now` does not wait.
/// - `sleep_until` never ends before `now` is `at`. It ends at once if that moment is now or has passed, and otherwise soon
///   after it has come. It waits for ever for a moment that never comes.
/// - Sleeps do not depend on each other. A sleep that nobody polls, or that is dropped, changes nothing for the others.
/// - A clock may jump, forwards and backwards. A sleeper notices within a minute. Whoever needs to know how long something
///   took measures that otherwise.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Timestamp;

    /// Waits until `now` is `at` or later.
    fn sleep_until(&self, at: Timestamp) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;

    /// Waits for `pause` from now on, or for as long as there is time.
    fn sleep(&self, pause: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let until = self.now().checked_add(pause).unwrap_or(Timestamp::MAX);
        self.sleep_until(until)
    }
}
