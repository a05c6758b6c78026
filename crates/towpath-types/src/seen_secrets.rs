//! The mask over a process's own log.

use crate::{Mask, Secret, SecretBytes};
use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// The secrets that a process has had in its hands. Clones share them.
#[derive(Clone, Default)]
pub struct SeenSecrets(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    values: HashSet<SecretBytes>,
    /// Values that are kept with secrets and are none.
    public: HashSet<String>,
    /// Of all values; `None` since another one came.
    mask: Option<Mask>,
}

impl SeenSecrets {
    /// Never hides `value`, which everybody knows, though it is kept with secrets.
    pub fn leave(&self, value: &str) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.public.insert(value.to_string());
        if seen.values.remove(&SecretBytes::new(value.as_bytes().to_vec())) {
            seen.mask = None;
        }
    }

    /// Remembers `value`.
    pub fn note(&self, value: &impl Secret) {
        let value = SecretBytes::new(value.bytes().to_vec());
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_public = std::str::from_utf8(value.expose()).is_ok_and(|text| seen.public.contains(text));
        if !seen.values.contains(&value) && !is_public {
            seen.values.insert(value);
            seen.mask = None;
        }
    }

    /// Hides all of them.
    #[must_use]
    pub fn mask(&self) -> Mask {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Seen { values, mask, .. } = &mut *seen;
        mask.get_or_insert_with(|| Mask::new(values.iter())).clone()
    }
}

impl fmt::Debug for SeenSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SeenSecrets")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SecretString;

    #[test]
    fn what_was_seen_is_hidden_from_then_on() {
        let seen = SeenSecrets::default();
        assert_eq!(seen.mask().text("hunter2 and swordfish"), "hunter2 and swordfish");
        seen.clone().note(&SecretString::new("hunter2".into()));
        assert_eq!(seen.mask().text("hunter2 and swordfish"), "**** and swordfish");
        seen.note(&SecretString::new("swordfish".into()));
        assert_eq!(seen.mask().text("hunter2 and swordfish"), "**** and ****");
        assert_eq!(format!("{seen:?}"), "SeenSecrets");
        // Whether it was seen before or comes again.
        seen.leave("swordfish");
        seen.note(&SecretString::new("swordfish".into()));
        assert_eq!(seen.mask().text("hunter2 and swordfish"), "**** and swordfish");
    }
}
