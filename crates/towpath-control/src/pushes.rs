//! The pushes that git is accepting now. A hook's token is valid only while its push is one of them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The pushes in progress in this process. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Pushes(Arc<Mutex<HashMap<Uuid, CancellationToken>>>);

/// A push in progress, for as long as this value lives.
#[derive(Debug)]
pub struct Push {
    id: Uuid,
    pushes: Pushes,
}

impl Pushes {
    /// Begins a push.
    #[must_use]
    pub fn begin(&self) -> Push {
        let id = Uuid::new_v4();
        let end = CancellationToken::new();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id, end);
        Push {
            id,
            pushes: self.clone(),
        }
    }

    /// Whether git is accepting this push now.
    #[must_use]
    pub fn is_under_way(&self, push: Uuid) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(&push)
    }

    /// Waits until git has finished with this push.
    pub async fn until_over(&self, push: Uuid) {
        let end = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&push)
            .cloned();
        if let Some(end) = end {
            end.cancelled().await;
        }
    }
}

impl Push {
    /// The id in its hooks' token.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.id
    }
}

impl Drop for Push {
    fn drop(&mut self) {
        let end = self
            .pushes
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.id);
        if let Some(end) = end {
            end.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_push_is_under_way_until_it_is_dropped() {
        let pushes = Pushes::default();
        let push = pushes.begin();
        let other = pushes.begin();
        let id = push.id();
        assert!(pushes.is_under_way(id) && pushes.is_under_way(other.id()) && id != other.id());
        let mut over = Box::pin(pushes.until_over(id));
        assert!(futures::poll!(&mut over).is_pending());
        drop(push);
        over.await;
        pushes.until_over(id).await;
        assert!(!pushes.is_under_way(id) && pushes.is_under_way(other.id()));
    }
}
