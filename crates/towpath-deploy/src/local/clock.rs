//! The time of day, as the local target asks for it.

use jiff::Timestamp;

/// The time of day. Supplied, so that tests do not wait for midnight.
///
/// It may be asked at any time, from many tasks. It may be put forward and back.
pub trait Clock: Send + Sync {
    #[allow(missing_docs)]
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}
