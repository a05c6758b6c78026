//! Browser sessions: random tokens, stored as digests, which expire and can be ended.

use crate::storage::{patiently, store_error};
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;
use towpath_delivery::DeliveryError;
use towpath_store::{Commit, SessionRow, Store, Topic, Write};
use towpath_types::{Clock, Digest, SecretString};

/// How long an unused session lasts.
const IDLE: SignedDuration = SignedDuration::from_hours(12);
/// How long a session lasts at most, even if it is in use.
pub const SESSION_LASTS: SignedDuration = SignedDuration::from_hours(7 * 24);
/// How often at most to store that a session was used.
const NOTED_EVERY: SignedDuration = SignedDuration::from_mins(1);
/// The most characters to store of a browser's `User-Agent`.
const LONGEST_BROWSER: usize = 200;

/// The sessions in a store. Clones share it.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct Sessions {
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
}

impl Sessions {
    /// Begins a session, and deletes expired ones. The token itself is not stored.
    ///
    /// # Errors
    /// When the storage does not work.
    pub async fn begin(&self, browser: &str) -> Result<SecretString, DeliveryError> {
        let token = SecretString::new(hex::encode(rand::random::<[u8; 32]>()));
        let now = self.clock.now();
        let mut commit = Commit::new();
        for row in self.store.sessions().await.map_err(store_error)? {
            if is_over(&row, now) {
                commit.write(Write::EndSession(row.digest));
            }
        }
        commit.write(Write::Session(SessionRow {
            digest: digest(&token),
            browser: browser.chars().take(LONGEST_BROWSER).collect(),
            made_at: now,
            seen_at: now,
        }));
        self.store.commit(commit).await.map_err(store_error)?;
        Ok(token)
    }

    /// Whether `token` belongs to an open session. Using it extends the session.
    ///
    /// # Errors
    /// When the storage does not work.
    pub async fn is_open(&self, token: &SecretString) -> Result<bool, DeliveryError> {
        let digest = digest(token);
        let now = self.clock.now();
        let row = self.store.session(&digest).await.map_err(store_error)?;
        let Some(row) = row.filter(|row| !is_over(row, now)) else {
            return Ok(false);
        };
        if now.duration_since(row.seen_at) >= NOTED_EVERY {
            let seen = Write::SessionSeen { digest, at: now };
            self.store.commit(Commit::new().with(seen)).await.map_err(store_error)?;
        }
        Ok(true)
    }

    /// Waits until the session of `token` has ended: signed out of, on whichever server, or expired.
    pub async fn ended(&self, token: &SecretString) {
        let digest = digest(token);
        // Subscribe before the first look, so that no end is missed.
        let mut changes = self.store.changes();
        loop {
            let read = || self.store.session(&digest);
            let row = match patiently(self.clock.as_ref(), "a session", read).await {
                Ok(row) => row.filter(|row| !is_over(row, self.clock.now())),
                Err(error) => {
                    let error = towpath_types::with_causes(&error);
                    tracing::error!(error, "failed to read a session; its answers end");
                    None
                }
            };
            let Some(row) = row else { return };
            tokio::select! {
                () = self.clock.sleep_until(ends_at(&row)) => {}
                goes_on = changes.of(&Topic::Sessions) => {
                    if !goes_on {
                        return;
                    }
                }
            }
        }
    }

    /// Ends one session; `None` ends all of them.
    ///
    /// # Errors
    /// When the storage does not work.
    pub async fn end(&self, token: Option<&SecretString>) -> Result<(), DeliveryError> {
        let mut commit = Commit::new();
        match token {
            Some(token) => commit.write(Write::EndSession(digest(token))),
            None => {
                for row in self.store.sessions().await.map_err(store_error)? {
                    commit.write(Write::EndSession(row.digest));
                }
            }
        }
        self.store.commit(commit).await.map(drop).map_err(store_error)
    }
}

fn digest(token: &SecretString) -> Digest {
    Digest::of(token.expose().as_bytes())
}

/// Whether a session is over. Pure.
fn is_over(row: &SessionRow, now: Timestamp) -> bool {
    now >= ends_at(row)
}

/// When a session ends if it is not used again. Pure.
fn ends_at(row: &SessionRow) -> Timestamp {
    let end = |from: Timestamp, lasts| from.checked_add(lasts).unwrap_or(Timestamp::MAX);
    end(row.seen_at, IDLE).min(end(row.made_at, SESSION_LASTS))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use towpath_store::{Database, SqlStore};
    use towpath_testkit::clock::FakeClock;

    #[tokio::test]
    async fn a_session_is_random_goes_on_while_it_is_used_and_ends() {
        let clock = Arc::new(FakeClock::at(Timestamp::UNIX_EPOCH));
        let store: Arc<dyn Store> = Arc::new(SqlStore::open(Database::SqliteMemory).await.unwrap());
        let sessions = Sessions {
            store: store.clone(),
            clock: clock.clone(),
        };
        let one = sessions.begin("one").await.unwrap();
        let other = sessions.begin("other").await.unwrap();
        assert_ne!(one.expose(), other.expose());
        assert!(one.expose().len() >= 64);
        let stored = format!("{:?}", store.sessions().await.unwrap());
        assert!(!stored.contains(one.expose()), "the token itself is stored");
        let forged = SecretString::new(digest(&one).to_string());
        assert!(!sessions.is_open(&forged).await.unwrap());
        // Used every eleven hours, it lasts for a week; unused, it ends after twelve.
        for _ in 0..15 {
            assert!(sessions.is_open(&one).await.unwrap());
            clock.advance(SignedDuration::from_hours(11));
        }
        assert!(!sessions.is_open(&other).await.unwrap());
        clock.advance(SignedDuration::from_hours(4));
        assert!(!sessions.is_open(&one).await.unwrap(), "a week is over");
        let ended = sessions.begin("ended").await.unwrap();
        let kept = sessions.begin("kept").await.unwrap();
        assert_eq!(
            store.sessions().await.unwrap().len(),
            2,
            "those that are over are forgotten"
        );
        sessions.end(Some(&ended)).await.unwrap();
        assert!(!sessions.is_open(&ended).await.unwrap());
        assert!(sessions.is_open(&kept).await.unwrap());
        sessions.end(None).await.unwrap();
        assert!(!sessions.is_open(&kept).await.unwrap());
    }

    #[tokio::test]
    async fn who_waits_for_a_sessions_end_hears_of_it() {
        let clock = Arc::new(FakeClock::at(Timestamp::UNIX_EPOCH));
        let store: Arc<dyn Store> = Arc::new(SqlStore::open(Database::SqliteMemory).await.unwrap());
        let sessions = Sessions {
            store,
            clock: clock.clone(),
        };
        let one = sessions.begin("one").await.unwrap();
        let other = sessions.begin("other").await.unwrap();
        let watch = |token: &SecretString| {
            let (sessions, token) = (sessions.clone(), token.clone());
            tokio::spawn(async move { sessions.ended(&token).await })
        };
        let (of_one, of_other) = (watch(&one), watch(&other));
        sessions.end(Some(&one)).await.unwrap();
        of_one.await.unwrap();
        // Whoever uses it meanwhile extends it.
        for _ in 0..2 {
            clock.advance(SignedDuration::from_hours(11));
            assert!(sessions.is_open(&other).await.unwrap());
        }
        assert!(!of_other.is_finished());
        clock.advance(SignedDuration::from_hours(12));
        of_other.await.unwrap();
    }
}
