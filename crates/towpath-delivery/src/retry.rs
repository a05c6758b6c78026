//! Decides again when another writer was first.

use crate::error::DeliveryError;

/// How often to decide again before giving up.
const MOST_TRIES: usize = 20;

/// Counts the tries of one decision.
#[derive(Debug, Default)]
pub(crate) struct Tries(usize);

impl Tries {
    /// Whether to load and decide again: another commit was first, and there are tries left.
    pub(crate) fn again(&mut self, error: &DeliveryError) -> bool {
        self.0 += 1;
        let again = error.is_stale() && self.0 < MOST_TRIES;
        if again {
            tracing::debug!(error = error.chain(), "decided again");
        }
        again
    }
}

/// Awaits a future that loads, decides and commits; repeats it while another commit is first.
///
/// A macro, because the future of a generic async closure is not known to be `Send`.
macro_rules! until_stored {
    ($decide:expr) => {{
        let mut tries = $crate::retry::Tries::default();
        loop {
            let decided: Result<_, $crate::error::DeliveryError> = $decide.await;
            match decided {
                Err(error) if tries.again(&error) => {}
                decided => break decided,
            }
        }
    }};
}
pub(crate) use until_stored;

#[cfg(test)]
mod tests {
    use super::*;
    use towpath_store::StoreError;

    fn stale() -> DeliveryError {
        StoreError::Conflict { what: "a row".into() }.into()
    }

    #[tokio::test]
    async fn a_conflict_is_decided_again() {
        let mut tries = 0;
        let result = until_stored!(async {
            tries += 1;
            if tries < 3 { Err(stale()) } else { Ok(tries) }
        });
        assert_eq!(result.ok(), Some(3));
    }

    #[tokio::test]
    async fn anything_else_is_not() {
        let mut tries = 0;
        let result: Result<(), _> = until_stored!(async {
            tries += 1;
            Err(DeliveryError::invalid("no"))
        });
        assert!(result.is_err());
        assert_eq!(tries, 1);
    }

    #[tokio::test]
    async fn at_some_point_the_caller_is_told() {
        let mut tries = 0;
        let result: Result<(), _> = until_stored!(async {
            tries += 1;
            Err(stale())
        });
        assert!(result.is_err_and(|error| error.is_stale()));
        assert_eq!(tries, MOST_TRIES);
    }
}
