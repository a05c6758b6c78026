//! This machine's clock.

use jiff::Timestamp;
use std::{future::Future, pin::Pin, time::Duration};
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use jiff::SignedDuration;

    #[tokio::test]
    async fn this_machines_clock_keeps_the_contract() {
        let clock = SystemClock;
        let pass = async |by: Duration| {
            let until = clock.now() + SignedDuration::try_from(by).unwrap();
            while clock.now() < until {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        towpath_testkit::clock::check(&clock, pass).await;
    }
}
