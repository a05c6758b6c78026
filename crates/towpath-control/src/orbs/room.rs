//! Bounds the compilation of texts that people send for checking. The compiler bounds the cost of one text; this bounds
//! how many compile at once, and returns freed memory to the system.

use std::{sync::Arc, time::Duration};
use tokio::sync::Semaphore;
use towpath_delivery::DeliveryError;

/// The number of texts that compile at once.
const AT_ONCE: usize = 2;
/// The number of further texts that may wait for a turn.
const WAITING: usize = 16;
/// The longest wait for a turn.
const PATIENCE: Duration = Duration::from_secs(10);

/// Turns for compiling. Clones share them.
#[derive(Clone)]
pub(crate) struct Room {
    places: Arc<Semaphore>,
    turns: Arc<Semaphore>,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(AT_ONCE + WAITING)),
            turns: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }
}

impl Room {
    /// Runs CPU-bound `work` when it gets a turn. The work completes and keeps its turn even if the caller goes away.
    ///
    /// # Errors
    /// `Unavailable` when too many others wait, or no turn comes in time.
    pub(crate) async fn compile<T: Send + 'static>(
        &self,
        what: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, DeliveryError> {
        let busy = || DeliveryError::unavailable("too many configurations are being compiled: try again");
        let place = self.places.clone().try_acquire_owned().map_err(|_| busy())?;
        let turn = tokio::time::timeout(PATIENCE, self.turns.clone().acquire_owned());
        let turn = turn.await.map_err(|_| busy())?.map_err(|_| busy())?;
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            give_memory_back();
            drop((turn, place));
            done
        });
        done.await
            .map_err(|error| DeliveryError::internal(format!("{what} ended early")).caused_by(error))
    }
}

/// Returns freed memory to the system. The allocator would keep it, and one large text would leave the process large.
#[allow(unsafe_code)]
fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: any thread may call it at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::mpsc;

    #[tokio::test]
    async fn who_finds_no_room_is_told_and_a_turn_is_kept_by_work_that_nobody_waits_for() {
        let room = Room::default();
        let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
        let mut ends = Vec::new();
        for _ in 0..AT_ONCE {
            let (end, ended) = mpsc::channel::<()>();
            ends.push(end);
            let (room, begun) = (room.clone(), begun.clone());
            let waiting = tokio::spawn(async move {
                let work = move || {
                    begun.send(()).unwrap();
                    let _ = ended.recv();
                };
                room.compile("a test", work).await
            });
            begins.recv().await.unwrap();
            waiting.abort();
        }
        let waiting: Vec<_> = (0..WAITING)
            .map(|_| {
                let room = room.clone();
                tokio::spawn(async move { room.compile("a test", || ()).await })
            })
            .collect();
        tokio::task::yield_now().await;
        assert_eq!(room.places.available_permits(), 0);
        let refused = room.compile("a test", || ()).await.unwrap_err();
        assert_eq!(refused.kind(), towpath_delivery::ErrorKind::Unavailable);
        assert!(refused.to_string().contains("try again"), "{refused}");
        drop(ends);
        for one in waiting {
            one.await.unwrap().unwrap();
        }
        room.compile("a test", || ()).await.unwrap();
    }
}
