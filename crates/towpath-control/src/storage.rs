//! Maps storage failures to errors for the caller, and retries while the storage is away.

use std::time::Duration;
use towpath_delivery::DeliveryError;
use towpath_store::StoreError;
use towpath_types::Clock;

/// The first pause before retrying a storage that does not answer.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause between tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The error to return to the caller.
pub(crate) fn store_error(error: StoreError) -> DeliveryError {
    match error {
        StoreError::Conflict { .. } | StoreError::Fenced(_) => {
            DeliveryError::conflict("somebody else changed this at the same moment; look again, and ask again")
                .caused_by(error)
        }
        StoreError::NoBlob(_) => DeliveryError::not_found(error.to_string()),
        error => DeliveryError::unavailable("Towpath's own storage does not work").caused_by(error),
    }
}

/// The pauses between tries of one call: each doubles the one before, up to a limit.
#[derive(Debug)]
pub(crate) struct Pauses(Duration);

impl Default for Pauses {
    fn default() -> Self {
        Self(FIRST_PAUSE)
    }
}

impl Pauses {
    /// Waits, and logs what for and why.
    pub(crate) async fn wait<E>(&mut self, clock: &dyn Clock, what: &str, error: &E)
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let error = towpath_types::with_causes(error);
        tracing::warn!(what, error, "the storage does not answer; waiting for it");
        clock.sleep(self.0).await;
        self.0 = (self.0 * 2).min(LONGEST_PAUSE);
    }
}

/// Repeats `work` while the storage does not answer, for as long as that takes.
///
/// # Errors
/// Any other failure of `work`.
pub(crate) async fn patiently<T, F>(clock: &dyn Clock, what: &str, mut work: impl FnMut() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut pauses = Pauses::default();
    loop {
        match work().await {
            Err(error) if error.is_temporary() => pauses.wait(clock, what, &error).await,
            other => return other,
        }
    }
}
