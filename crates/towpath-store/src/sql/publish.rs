//! How topics reach the listeners of this server and, on PostgreSQL, of the others.
//!
//! This server's listeners are told directly, others by a notification that names its sender, so that a server ignores
//! its own. A separate task sends notifications after their commits: inside the commits' transactions they would
//! serialise the commits of all servers. A killed server may not have sent its last notifications; when another server
//! ends its leases, it announces that everything may have changed.

use crate::{Change, Topic};
use tokio::sync::{broadcast, mpsc};

/// The channel of notifications.
pub(crate) const CHANNEL: &str = "towpath";

/// Above this many notifications, send one that says that anything may have changed.
const ROOM: usize = 7_500;

/// The payload for everything.
const PARTS: usize = 4;

/// What stands for everything.
const EVERYTHING: &str = "*";

/// Tells listeners.
#[derive(Clone)]
pub(crate) struct Publisher {
    /// Sends to other servers; `None` if there are none.
    pub(crate) origin: String,
    pub(crate) here: broadcast::Sender<Change>,
    /// Whoever tells other servers; nobody where there are none.
    pub(crate) others: Option<mpsc::UnboundedSender<Change>>,
}

impl Publisher {
    /// The task ends with the store.
    pub(crate) fn tell(&self, change: Change) {
        if let Change::Topics(topics) = &change
            && topics.is_empty()
        {
            return;
        }
        if let Some(others) = &self.others {
            // It is fine if nobody listens.
            let _ = others.send(change.clone());
        }
        // Nobody listening is fine.
        let _ = self.here.send(change);
    }

    /// Passes another server's notification to this server's listeners.
    pub(crate) fn heard(&self, payload: &str) {
        let (origin, topics) = payload.split_once(' ').unwrap_or((payload, EVERYTHING));
        if origin == self.origin {
            return;
        }
        // A newer server may send unknown topics.
        let topics: Result<Vec<Topic>, String> = topics.split(' ').map(str::parse).collect();
        let _ = self.here.send(match topics {
            Ok(topics) => Change::Topics(topics.into()),
            Err(_) => Change::Everything,
        });
    }
}

/// What to notify others of: `origin topic topic …`, for several changes at once.
pub(crate) fn payloads(origin: &str, changes: &[Change]) -> Vec<String> {
    let everything = || vec![format!("{origin} {EVERYTHING}")];
    let mut all: Vec<&Topic> = Vec::new();
    for change in changes {
        match change {
            Change::Topics(topics) => all.extend(topics.iter()),
            Change::Everything => return everything(),
        }
    }
    all.sort();
    all.dedup();
    let mut payloads: Vec<String> = Vec::new();
    for topic in all {
        let topic = topic.to_string();
        match payloads.last_mut() {
            Some(last) if last.len() + 1 + topic.len() <= ROOM => {
                last.push(' ');
                last.push_str(&topic);
            }
            _ => payloads.push(format!("{origin} {topic}")),
        }
    }
    if payloads.len() > PARTS { everything() } else { payloads }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use towpath_types::JobId;

    fn publisher(origin: &str) -> (Publisher, broadcast::Receiver<Change>) {
        let (here, receiver) = broadcast::channel(16);
        let publisher = Publisher {
            origin: origin.to_string(),
            here,
            others: None,
        };
        (publisher, receiver)
    }

    #[test]
    fn topics_reach_the_others_and_not_their_sender() {
        let topics: Vec<Topic> = (0..300).map(|n| Topic::Job(JobId::from_u128(n))).collect();
        let payloads = payloads("a", &[Change::Topics(topics.clone().into())]);
        assert_eq!(payloads.len(), 2);
        assert!(payloads.iter().all(|payload| payload.len() < 8_000));
        let (sender, mut own) = publisher("a");
        let (other, mut changes) = publisher("b");
        let mut heard = Vec::new();
        for payload in payloads {
            sender.heard(&payload);
            other.heard(&payload);
            let Change::Topics(part) = changes.try_recv().unwrap() else {
                panic!("everything")
            };
            heard.extend(part.iter().cloned());
        }
        assert_eq!(heard, topics);
        assert!(own.try_recv().is_err());
    }

    #[test]
    fn too_many_topics_and_unknown_ones_tell_everything() {
        let topics: Vec<Topic> = (0..1_000).map(|n| Topic::Job(JobId::from_u128(n))).collect();
        let many = Change::Topics(topics.into());
        assert_eq!(payloads("a", &[many]), ["a *"]);
        let some = Change::Topics([Topic::Gates].into());
        assert_eq!(payloads("a", &[some.clone(), some.clone()]), ["a gates"]);
        assert_eq!(payloads("a", &[some, Change::Everything]), ["a *"]);
        let (other, mut changes) = publisher("b");
        for payload in ["a *", "a gates newer/1", "a"] {
            other.heard(payload);
            assert_eq!(changes.try_recv().unwrap(), Change::Everything, "{payload}");
        }
    }
}
