//! The pushes that git is accepting now. A hook's token is valid only while its push is one of them.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};
use uuid::Uuid;

/// The pushes in progress in this process. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Pushes(Arc<Mutex<HashSet<Uuid>>>);

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
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        Push {
            id,
            pushes: self.clone(),
        }
    }

    /// Whether git is accepting this push now.
    #[must_use]
    pub fn is_under_way(&self, push: Uuid) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&push)
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
        self.pushes
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_is_under_way_until_it_is_dropped() {
        let pushes = Pushes::default();
        let push = pushes.begin();
        let other = pushes.begin();
        let id = push.id();
        assert!(pushes.is_under_way(id) && pushes.is_under_way(other.id()) && id != other.id());
        drop(push);
        assert!(!pushes.is_under_way(id) && pushes.is_under_way(other.id()));
    }
}
