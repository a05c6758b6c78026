//! The time of day, supplied, so that tests need not wait for it.

use jiff::Timestamp;
use std::{future::Future, pin::Pin, time::Duration};

/// What time it is.
///
/// # Contract
/// - `sleep_until` ends at once for a moment that has passed, and is safe to drop.
/// - A clock may jump. Whoever needs to know how long something took measures that otherwise.
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
