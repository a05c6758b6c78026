//! The error of a rollout that is given up, with everything that can be found out about its cause.

use super::{
    stuck::{SETTLING, Stuck},
    watched::{Awaited, Watched},
};
use crate::kubernetes::status::workload_status;
use crate::target::{ApplyError, Environment};
use futures::StreamExt as _;
use serde_json::Value;
use std::collections::BTreeSet;
use towpath_kube::{ApiError, Client, Resource, container_statuses, text_at};
use towpath_manifest::{Kind, Readiness, pod};
use towpath_types::{Mask, percent_encoded};

/// How many of a pod's last lines an error shows.
const LAST_LINES: u32 = 20;
/// How many events of an object an error shows.
const EVENTS: usize = 3;

/// Finds out why rollouts fail.
pub(super) struct Diagnosis<'a> {
    pub client: &'a Client,
    pub environment: &'a Environment,
    pub mask: &'a Mask,
}

/// Why a detail could not be found.
enum NoDetail {
    /// The account lacks the permission.
    Denied,
    Other,
}

impl From<ApiError> for NoDetail {
    fn from(error: ApiError) -> Self {
        if error.is_forbidden() {
            Self::Denied
        } else {
            Self::Other
        }
    }
}

impl Diagnosis<'_> {
    /// The error for `one`, which is stuck.
    pub(super) async fn of(&self, one: &Awaited, stuck: Stuck, awaited: &[Awaited], watched: &Watched) -> ApplyError {
        if stuck.pod.is_none() && one.resource.kind == "Deployment" {
            watched.replica_sets().1.settled(SETTLING).await;
        }
        let faulty = stuck.pod.or_else(|| {
            let pods = watched.current_pods(one);
            pods.iter().find(|value| pod(value) != Readiness::Done).cloned()
        });
        let mut message = stuck.message;
        let mut log = Vec::new();
        let mut missing_permissions: BTreeSet<&str> = BTreeSet::new();
        if let Some(why) = watched.pods.denied() {
            tracing::debug!(why, "not allowed to list pods");
            missing_permissions.insert("list `pods`");
        }
        if let Some(faulty) = &faulty {
            let name = text_at(faulty, "/metadata/name");
            if let Readiness::Failed(why) = pod(faulty)
                && !message.contains(&why)
            {
                message = format!("{message}; pod `{name}`: {why}");
            }
            match self.last_lines(faulty).await {
                Ok(lines) => log = lines,
                Err(NoDetail::Denied) => drop(missing_permissions.insert("get `pods/log`")),
                Err(NoDetail::Other) => {}
            }
        }
        let mut names = vec![one.object.name.clone()];
        names.extend(faulty.as_ref().map(|pod| text_at(pod, "/metadata/name")));
        match self.events(&names).await {
            Ok(events) => {
                for event in events {
                    message = format!("{message}\n  event: {event}");
                }
            }
            Err(NoDetail::Denied) => drop(missing_permissions.insert("list `events`")),
            Err(NoDetail::Other) => {}
        }
        if !missing_permissions.is_empty() {
            let permissions: Vec<&str> = missing_permissions.into_iter().collect();
            message = format!(
                "{message}\n  (permission to {} would tell more)",
                permissions.join(" and ")
            );
        }
        let running = awaited.iter().filter_map(|one| {
            let live = watched.live(one)?;
            Some(workload_status(&one.resource.kind, &live, &[]))
        });
        ApplyError {
            outcome: stuck.outcome,
            object: Some(one.object.id()),
            hook: None,
            message: self.mask.text(&message),
            log,
            running: running.collect(),
        }
    }

    /// The last lines of the first container of a pod that is not ready.
    async fn last_lines(&self, pod: &Value) -> Result<Vec<String>, NoDetail> {
        let statuses = container_statuses(pod);
        let faulty = statuses
            .iter()
            .find(|status| status.get("ready").and_then(Value::as_bool) != Some(true))
            .or(statuses.first());
        let Some(status) = faulty else {
            return Err(NoDetail::Other);
        };
        let container = text_at(status, "/name");
        let path = Resource::of(&Kind::POD).object(&self.environment.namespace, &text_at(pod, "/metadata/name"));
        // After a crash, the lines are those of the container that crashed.
        let has_crashed =
            status.pointer("/lastState/terminated").is_some() && status.pointer("/state/running").is_none();
        let path = format!(
            "{path}/log?container={}&tailLines={LAST_LINES}&previous={has_crashed}",
            percent_encoded(&container)
        );
        let mut stream = self.client.stream(&path).await?;
        let mut printed = Vec::new();
        while let Some(Ok(piece)) = stream.next().await {
            printed.extend_from_slice(&piece);
        }
        let printed = self.mask.text(&String::from_utf8_lossy(&printed));
        Ok(printed.lines().map(str::to_string).collect())
    }

    /// The last warning events about objects with these names.
    async fn events(&self, names: &[String]) -> Result<Vec<String>, NoDetail> {
        let collection = Resource::of(&Kind::EVENT).collection(&self.environment.namespace);
        let mut found = Vec::new();
        for name in names {
            let selector = percent_encoded(&format!("involvedObject.name={name},type=Warning"));
            let path = format!("{collection}?fieldSelector={selector}&limit=50");
            let answer = self.client.get(&path).await?;
            let events = answer.get("items").and_then(Value::as_array);
            let mut events: Vec<(String, String)> = events
                .into_iter()
                .flatten()
                .map(|event| {
                    let sentence = format!(
                        "{}/{}: {} ({})",
                        text_at(event, "/involvedObject/kind"),
                        text_at(event, "/involvedObject/name"),
                        text_at(event, "/message"),
                        text_at(event, "/reason")
                    );
                    (text_at(event, "/lastTimestamp"), sentence)
                })
                .collect();
            events.sort();
            found.extend(events.into_iter().rev().take(EVENTS).map(|(_, sentence)| sentence));
        }
        found.dedup();
        Ok(found)
    }
}
