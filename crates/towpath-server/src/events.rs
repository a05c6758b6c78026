//! Server-sent events that say which subjects have changed. `GET /events?topic=pipeline/<id>&topic=gates` sends events of these
//! topics only. Without a topic, it sends those of the board: every project and the gates.
//!
//! Each event is `change`, and its data is the topic. It says that something changed, not what: the reader fetches again.
//! Events of one topic are at least [`PAUSE`] apart. A burst of changes becomes two events, its first and its last.

use crate::{App, answer::Failure};
use async_stream::stream;
use axum::{
    Router,
    extract::{RawQuery, State},
    response::{Sse, sse},
    routing::get,
};
use futures::Stream;
use std::{collections::HashMap, convert::Infallible, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep_until};
use towpath_delivery::DeliveryError;
use towpath_store::{Change, Store, Topic};

/// The shortest time between two events of one topic.
const PAUSE: Duration = Duration::from_millis(300);
/// The most topics that one reader may name.
const MOST_TOPICS: usize = 50;

pub(crate) fn routes() -> Router<App> {
    Router::new().route("/events", get(events))
}

async fn events(
    State(app): State<App>,
    RawQuery(query): RawQuery,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>, Failure> {
    let interest = Interest::parse(query.as_deref().unwrap_or_default())?;
    let topics = topics(app.store.clone(), interest);
    let events = futures::StreamExt::map(topics, |topic| {
        Ok(sse::Event::default().event("change").data(topic.to_string()))
    });
    Ok(Sse::new(events).keep_alive(sse::KeepAlive::default()))
}

/// The topics that a reader subscribes to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Interest {
    /// The topics of the board.
    Board,
    /// Exactly these topics.
    Topics(Vec<Topic>),
}

impl Interest {
    fn parse(query: &str) -> Result<Self, DeliveryError> {
        let mut topics: Vec<Topic> = Vec::new();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            if name != "topic" {
                continue;
            }
            let topic = value.parse().map_err(DeliveryError::invalid)?;
            if !topics.contains(&topic) {
                topics.push(topic);
            }
        }
        if topics.len() > MOST_TOPICS {
            return Err(DeliveryError::invalid(format!("name at most {MOST_TOPICS} topics")));
        }
        Ok(match topics.as_slice() {
            [] => Self::Board,
            _ => Self::Topics(topics),
        })
    }

    /// The topics of `change` that the reader subscribes to.
    async fn of(&self, change: &Change, store: &dyn Store) -> Vec<Topic> {
        match (self, change) {
            (Self::Topics(wanted), Change::Everything) => wanted.clone(),
            (Self::Topics(wanted), Change::Topics(changed)) => {
                let heard = changed.iter().filter(|topic| wanted.contains(topic));
                heard.cloned().collect()
            }
            (Self::Board, Change::Topics(changed)) => {
                let shown = |topic: &&Topic| matches!(topic, Topic::Project(_) | Topic::Gates);
                changed.iter().filter(shown).cloned().collect()
            }
            (Self::Board, Change::Everything) => {
                // While the store is away, the event for the gates makes readers fetch again, and so they notice the other
                // changes.
                let projects = store.projects().await.unwrap_or_default();
                let projects = projects.into_iter().map(|row| Topic::Project(row.name));
                [Topic::Gates].into_iter().chain(projects).collect()
            }
        }
    }
}

/// The events for a reader from now on, at a limited rate for each topic.
fn topics(store: Arc<dyn Store>, interest: Interest) -> impl Stream<Item = Topic> {
    // Subscribe now, not at the first poll of the stream.
    let mut changes = store.changes();
    stream! {
        let mut pace = Pace::default();
        loop {
            let due = pace.next_due();
            let pause_is_over = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                change = changes.next() => {
                    let Some(change) = change else { return };
                    for topic in interest.of(&change, store.as_ref()).await {
                        pace.note(topic, Instant::now());
                    }
                }
                () = pause_is_over => {}
            }
            for topic in pace.take_due(Instant::now()) {
                yield topic;
            }
        }
    }
}

/// Delays events that follow too soon after one of the same topic.
#[derive(Debug, Default)]
struct Pace(HashMap<Topic, Slot>);

#[derive(Debug)]
struct Slot {
    /// The earliest time of the next event.
    next: Instant,
    /// Whether an event is waiting.
    pending: bool,
}

impl Pace {
    fn note(&mut self, topic: Topic, now: Instant) {
        let slot = self.0.entry(topic).or_insert(Slot {
            next: now,
            pending: false,
        });
        slot.pending = true;
    }

    /// When the next event is due.
    fn next_due(&self) -> Option<Instant> {
        self.0.values().filter(|slot| slot.pending).map(|slot| slot.next).min()
    }

    /// The topics whose event is due, in their order.
    fn take_due(&mut self, now: Instant) -> Vec<Topic> {
        let mut due = Vec::new();
        self.0.retain(|topic, slot| {
            if slot.next > now {
                return true;
            }
            if !slot.pending {
                return false;
            }
            due.push(topic.clone());
            *slot = Slot {
                next: now + PAUSE,
                pending: false,
            };
            true
        });
        due.sort();
        due
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use futures::StreamExt;
    use towpath_store::{Database, SqlStore};
    use towpath_types::{JobId, PipelineId};

    /// Long enough for every due event to arrive.
    const BOUND: Duration = Duration::from_secs(10);

    fn pipeline(number: u128) -> Topic {
        Topic::Pipeline(PipelineId::from_u128(number))
    }

    #[test]
    fn a_reader_names_topics_or_watches_the_board() {
        let topics = |query: &str| Interest::parse(query).map_err(|error| error.to_string());
        assert_eq!(topics(""), Ok(Interest::Board));
        let id = PipelineId::from_u128(1);
        assert_eq!(
            topics(&format!("topic=pipeline%2F{id}&topic=gates&topic=gates")),
            Ok(Interest::Topics(vec![pipeline(1), Topic::Gates]))
        );
        assert_eq!(topics("topic=nosuch/1"), Err("`nosuch/1` is not a topic".into()));
        let many: Vec<String> = (0..51).map(|n| format!("topic=job/{}", JobId::from_u128(n))).collect();
        assert_eq!(topics(&many.join("&")), Err("name at most 50 topics".into()));
    }

    #[test]
    fn a_burst_is_its_first_and_its_last_event() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut pace = Pace::default();
        pace.note(pipeline(1), at(0));
        assert_eq!(pace.take_due(at(0)), [pipeline(1)], "the first comes at once");
        for now in [10, 20, 299] {
            pace.note(pipeline(1), at(now));
            assert_eq!(pace.take_due(at(now)), []);
        }
        assert_eq!(pace.next_due(), Some(at(300)));
        // Another topic does not wait for this one.
        pace.note(pipeline(2), at(299));
        assert_eq!(pace.take_due(at(299)), [pipeline(2)]);
        assert_eq!(pace.take_due(at(300)), [pipeline(1)], "the last is not lost");
        assert_eq!(pace.next_due(), None);
        assert_eq!(pace.take_due(at(10_000)), []);
        assert!(pace.0.is_empty(), "nothing is kept of what is over");
    }

    /// The events that a reader receives, up to and including `last`.
    async fn until(stream: &mut (impl Stream<Item = Topic> + Unpin), last: Topic) -> Vec<Topic> {
        let mut heard = Vec::new();
        loop {
            match tokio::time::timeout(BOUND, stream.next()).await {
                Ok(Some(topic)) => heard.push(topic),
                Ok(None) => panic!("the stream ended after {heard:?}"),
                Err(_) => panic!("nothing more came after {heard:?}"),
            }
            if heard.last() == Some(&last) {
                return heard;
            }
        }
    }

    #[tokio::test]
    async fn a_change_of_another_pipeline_reaches_nobody_else() {
        let store: Arc<dyn Store> = Arc::new(SqlStore::open(Database::SqliteMemory).await.unwrap());
        let job = JobId::from_u128(9);
        let mut one = Box::pin(topics(store.clone(), Interest::Topics(vec![pipeline(1)])));
        let mut logs = Box::pin(topics(store.clone(), Interest::Topics(vec![Topic::JobLogs(job)])));
        let mut board = Box::pin(topics(store.clone(), Interest::Board));
        let project = Topic::Project("claims".parse().unwrap());
        store.announce(&[pipeline(2), Topic::JobLogs(JobId::from_u128(8))]);
        store.announce(&[Topic::JobLogs(job)]);
        store.announce(&[pipeline(2), project.clone()]);
        store.announce(&[pipeline(1)]);
        store.announce(&[Topic::Gates]);
        assert_eq!(until(&mut one, pipeline(1)).await, [pipeline(1)]);
        assert_eq!(until(&mut logs, Topic::JobLogs(job)).await, [Topic::JobLogs(job)]);
        assert_eq!(until(&mut board, Topic::Gates).await, [project, Topic::Gates]);
    }

    #[tokio::test]
    async fn a_noisy_subject_is_heard_of_a_few_times() {
        let store: Arc<dyn Store> = Arc::new(SqlStore::open(Database::SqliteMemory).await.unwrap());
        let mut stream = Box::pin(topics(store.clone(), Interest::Topics(vec![pipeline(1), Topic::Gates])));
        store.announce(&[pipeline(1)]);
        assert_eq!(until(&mut stream, pipeline(1)).await, [pipeline(1)]);
        for _ in 0..200 {
            store.announce(&[pipeline(1)]);
        }
        let began = Instant::now();
        assert_eq!(until(&mut stream, pipeline(1)).await, [pipeline(1)]);
        // They became one event. Only what comes after it is left.
        store.announce(&[Topic::Gates]);
        assert_eq!(until(&mut stream, Topic::Gates).await, [Topic::Gates]);
        assert!(began.elapsed() < BOUND);
    }
}
