//! Jobs without a pod. A Job's status says nothing about pods that the server refuses, but its events do.

use super::end::has_ended;
use crate::kubernetes::rollout::Tolerance;
use crate::target::Environment;
use serde_json::Value;
use std::sync::Arc;
use tokio::time::{Duration, Instant};
use towpath_kube::{ApiError, Client, Informer, Resource, text_at};
use towpath_manifest::Kind;
use towpath_types::percent_encoded;

/// How long a Job may be without a pod before a note says so, and how often to ask for the reason.
const SHORT: Duration = Duration::from_secs(2);

/// What is known about a Job that has no pod.
pub(super) struct Podless {
    client: Arc<Client>,
    environment: Environment,
    tolerance: Tolerance,
    /// Since when it has none.
    since: Option<Instant>,
    /// When the events were last read.
    asked: Option<Instant>,
    /// Whether the account may not read events.
    is_denied: bool,
    /// Since when the server is known to refuse pods, and why.
    refused: Option<(Instant, String)>,
    /// Whether a note has said that the Job waits.
    told: bool,
}

/// The result of a check.
#[derive(Default)]
pub(super) struct Check {
    /// A note to show.
    pub note: Option<String>,
    /// Why there will be no pod.
    pub give_up: Option<String>,
}

impl Podless {
    pub(super) fn new(client: Arc<Client>, environment: Environment, tolerance: Tolerance) -> Self {
        Self {
            client,
            environment,
            tolerance,
            since: None,
            asked: None,
            is_denied: false,
            refused: None,
            told: false,
        }
    }

    /// Checks whether `job` has a pod, and if not, why.
    pub(super) async fn check(&mut self, job: &Value, pods: &Informer) -> Check {
        if !pods.is_listed() && pods.denied().is_none() {
            return Check::default();
        }
        let seen = pods.filter(|_| true);
        let count = |field: &str| {
            let count = job.pointer(&format!("/status/{field}")).and_then(Value::as_i64);
            count.unwrap_or(0)
        };
        let has_pod = count("active") > 0 || count("terminating") > 0 || seen.iter().any(|pod| !has_ended(pod));
        let is_suspended = job.pointer("/spec/suspend").and_then(Value::as_bool) == Some(true);
        if has_pod || is_suspended {
            self.since = None;
            self.refused = None;
            // A queue suspends Jobs for which it has no room yet.
            let note = is_suspended
                .then(|| self.tell_once("it is suspended, and starts when whoever suspended it resumes it".into()))
                .flatten();
            return Check { note, give_up: None };
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        if since.elapsed() < SHORT {
            return Check::default();
        }
        let had_pods = !seen.is_empty() || count("failed") > 0 || count("succeeded") > 0;
        self.ask_for_reason(job, &seen, had_pods).await;
        let refusal = self.tolerance.refusal;
        let (note, give_up) = match &self.refused {
            Some((first, why)) => (
                format!("it waits for a pod, which cannot be created: {why}"),
                (first.elapsed() >= refusal).then(|| format!("its pods cannot be created: {why}")),
            ),
            // Between two attempts, a Job has no pod for a while.
            None if had_pods => return Check::default(),
            None if self.is_denied => (
                "it waits for a pod".to_string(),
                (since.elapsed() >= refusal).then(|| {
                    format!(
                        "no pod was created for it within {} s. Reasons can be a used-up quota, an admission rule, or a service account \
                         that does not exist (permission to list `events` would tell)",
                        refusal.as_secs()
                    )
                }),
            ),
            // There is no refusal either: the controllers may be busy.
            None => (
                "it waits for a pod".to_string(),
                (since.elapsed() >= self.tolerance.unschedulable).then(|| {
                    format!(
                        "no pod was created for it within {} s, and no event says why: do the cluster's controllers run?",
                        self.tolerance.unschedulable.as_secs()
                    )
                }),
            ),
        };
        Check {
            note: self.tell_once(note),
            give_up,
        }
    }

    fn tell_once(&mut self, note: String) -> Option<String> {
        (!std::mem::replace(&mut self.told, true)).then_some(note)
    }

    async fn ask_for_reason(&mut self, job: &Value, pods: &[Value], had_pods: bool) {
        // If the earlier pods are gone, a refusal before them cannot be told from one after them.
        let is_ambiguous = had_pods && pods.is_empty();
        let is_due = self.asked.is_none_or(|asked| asked.elapsed() >= SHORT);
        if self.is_denied || is_ambiguous || !is_due {
            return;
        }
        self.asked = Some(Instant::now());
        match self.refusal(&text_at(job, "/metadata/uid"), pods).await {
            Ok(Some(why)) => {
                let first = self.refused.take().map_or_else(Instant::now, |(first, _)| first);
                self.refused = Some((first, why));
            }
            Ok(None) => self.refused = None,
            Err(error) => self.is_denied = error.is_forbidden(),
        }
    }

    /// The newest event that says why a pod could not be created for the Job `uid`, unless one of `pods` was created since.
    async fn refusal(&self, uid: &str, pods: &[Value]) -> Result<Option<String>, ApiError> {
        let newest = pods.iter().map(|pod| text_at(pod, "/metadata/creationTimestamp")).max();
        let newest = newest.unwrap_or_default();
        let selector = percent_encoded(&format!("involvedObject.uid={uid},reason=FailedCreate"));
        let collection = Resource::of(&Kind::EVENT).collection(&self.environment.namespace);
        let path = format!("{collection}?fieldSelector={selector}&limit=50");
        let answer = self.client.get(&path).await?;
        let events = answer.get("items").and_then(Value::as_array);
        let newest_event = events
            .into_iter()
            .flatten()
            .map(|event| (text_at(event, "/lastTimestamp"), text_at(event, "/message")))
            .filter(|(at, _)| newest.is_empty() || *at > newest)
            .max();
        Ok(newest_event.map(|(_, message)| message))
    }
}
