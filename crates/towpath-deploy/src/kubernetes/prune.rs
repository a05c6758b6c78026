//! Which objects that left the manifests are removed, and why the others stay.

use super::{error::ClusterError, inventory::InventoryEntry, labels};
use crate::target::Environment;
use futures::future::try_join_all;
use serde_json::Value;
use std::{collections::BTreeSet, time::Duration};
use tokio::time::{Instant, sleep};
use towpath_kube::{Client, Discovery, Lookup, Resource, Select, managed_fields, text_at};
use towpath_manifest::{Kind, Object, ObjectId, Read, reads};

/// How long to wait for a pod after its grace period.
const AFTER_GRACE: Duration = Duration::from_secs(30);
/// How often to check whether the pods are gone.
const CHECK: Duration = Duration::from_millis(250);

/// Why no object of a kind is ever pruned. Needs no look at the object, so the account need not be allowed to read it.
pub(super) fn why_kind_stays(resource: &Resource) -> Option<&'static str> {
    if Kind::of(&resource.kind).holds_data {
        return Some("left the manifests and stays: deleting it would delete data. Delete it by hand");
    }
    (!resource.namespaced)
        .then_some("left the manifests and stays: other environments in the cluster may need it. Delete it by hand")
}

/// Why an object is not pruned; `None` if it is. Towpath prunes only the very object that it created, if the object's labels
/// still say that it belongs to the environment.
pub(super) fn why_object_stays(
    environment: &Environment,
    entry: &InventoryEntry,
    live: &Value,
) -> Option<&'static str> {
    if !entry.made {
        return Some("left the manifests and stays: Towpath did not create it. Delete it by hand");
    }
    let is_same = entry.uid.is_empty() || entry.uid == text_at(live, "/metadata/uid");
    let is_ours = labels::is_owned_by(live, environment) && managed_fields::ours(live).is_some();
    (!is_same || !is_ours).then_some("left the manifests and stays: somebody else has created it anew")
}

/// The pods of workloads that are removed. A renamed workload runs only when those of the old name are gone.
pub(super) struct Leaving<'a> {
    client: &'a Client,
    environment: &'a Environment,
    /// The uids of the pods of each workload.
    pods: Vec<(ObjectId, BTreeSet<String>)>,
    /// The longest of their grace periods.
    grace: Duration,
}

impl<'a> Leaving<'a> {
    pub(super) fn new(client: &'a Client, environment: &'a Environment) -> Self {
        Self {
            client,
            environment,
            pods: Vec::new(),
            grace: Duration::ZERO,
        }
    }

    async fn list(&self, select: &Select) -> Vec<Value> {
        let pods = Resource::of(&Kind::POD).collection(&self.environment.namespace);
        // Without permission to see pods there is nothing to wait for.
        let listed = self.client.list(&pods, select).await;
        listed.map(|(pods, _)| pods).unwrap_or_default()
    }

    /// Remembers the pods of a workload that is about to be deleted.
    pub(super) async fn add(&mut self, id: &ObjectId, live: &Value) {
        let labels = live.pointer("/spec/selector/matchLabels").and_then(Value::as_object);
        let labels: Vec<String> = labels
            .into_iter()
            .flatten()
            .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
            .collect();
        if !Kind::of(&id.kind).rolls_out || labels.is_empty() {
            return;
        }
        let pods = self.list(&Select::Labels(labels.join(","))).await;
        let own: Vec<&Value> = pods.iter().filter(|pod| belongs_to(pod, live)).collect();
        let graces = own
            .iter()
            .filter_map(|pod| pod.pointer("/spec/terminationGracePeriodSeconds")?.as_u64());
        self.grace = self.grace.max(Duration::from_secs(graces.max().unwrap_or(0)));
        let uids = own.iter().map(|pod| text_at(pod, "/metadata/uid"));
        self.pods.push((id.clone(), uids.collect()));
    }

    /// A pod that reads a ConfigMap or Secret and is none of those that leave: one of an older run or revision, or somebody
    /// else's.
    pub(super) async fn reader_of(&self, id: &ObjectId) -> Option<String> {
        if !matches!(id.kind.as_str(), "ConfigMap" | "Secret") {
            return None;
        }
        let leaves = |pod: &Value| {
            let uid = text_at(pod, "/metadata/uid");
            let has_ended = matches!(text_at(pod, "/status/phase").as_str(), "Succeeded" | "Failed");
            has_ended
                || !text_at(pod, "/metadata/deletionTimestamp").is_empty()
                || self.pods.iter().any(|(_, uids)| uids.contains(&uid))
        };
        let reads_it = |mut pod: Value| {
            // A list does not say what its items are.
            pod["apiVersion"] = Value::from("v1");
            pod["kind"] = Value::from("Pod");
            let pod = Object::from_value(pod, "the cluster").ok()?;
            let is_it = |read: &Read| read.kind.to_string() == id.kind && read.name == id.name;
            reads(&pod).iter().any(is_it).then_some(pod.name)
        };
        let pods = self.list(&Select::All).await;
        pods.into_iter().filter(|pod| !leaves(pod)).find_map(reads_it)
    }

    /// Waits until they are gone, at most for their grace period and a while. If its node has gone, a pod never disappears.
    pub(super) async fn wait(self, deadline: Instant, tell: impl Fn(&ObjectId, &str)) {
        let deadline = deadline.min(Instant::now() + self.grace + AFTER_GRACE);
        let mut told = BTreeSet::new();
        while self.pods.iter().any(|(_, uids)| !uids.is_empty()) {
            let pods = self.list(&Select::All).await;
            let present: BTreeSet<String> = pods.iter().map(|pod| text_at(pod, "/metadata/uid")).collect();
            let left = |uids: &BTreeSet<String>| uids.intersection(&present).count();
            if self.pods.iter().all(|(_, uids)| left(uids) == 0) || Instant::now() >= deadline {
                return;
            }
            for (id, uids) in &self.pods {
                let message = match left(uids) {
                    0 => continue,
                    1 => "1 of its pods is being stopped".to_string(),
                    left => format!("{left} of its pods are being stopped"),
                };
                if told.insert(message.clone()) {
                    tell(id, &message);
                }
            }
            sleep(CHECK).await;
        }
    }
}

/// Whether a pod is of a workload: its own, or of a ReplicaSet of that Deployment.
fn belongs_to(pod: &Value, workload: &Value) -> bool {
    let (name, uid) = (text_at(workload, "/metadata/name"), text_at(workload, "/metadata/uid"));
    let hash = text_at(pod, "/metadata/labels/pod-template-hash");
    let owners = pod.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    owners.into_iter().flatten().any(|owner| {
        text_at(owner, "/uid") == uid
            || (text_at(owner, "/kind") == "ReplicaSet" && text_at(owner, "/name") == format!("{name}-{hash}"))
    })
}

/// What a deployment does with an object that left the manifests.
pub(super) enum Fate {
    /// It removes the object, which looks like this now.
    Removed(Value),
    /// It keeps the object, for this reason.
    Stays(&'static str),
}

/// Looks up what happens to each of the objects `prune`. Leaves out objects that do not exist.
pub(super) async fn look_up(
    client: &Client,
    discovery: &Discovery,
    environment: &Environment,
    inventory: &[InventoryEntry],
    prune: &[ObjectId],
) -> Result<Vec<(ObjectId, Fate)>, ClusterError> {
    let entries = prune
        .iter()
        .filter_map(|id| inventory.iter().find(|entry| entry.id == *id));
    let fates = entries.map(|entry| async move {
        let lookup = discovery.find(client, &entry.api_version, &entry.id.kind).await?;
        let Lookup::Served(resource) = lookup else {
            return Ok(None);
        };
        if let Some(why) = why_kind_stays(&resource) {
            return Ok(Some((entry.id.clone(), Fate::Stays(why))));
        }
        let path = resource.object(&environment.namespace, &entry.id.name);
        let Some(live) = client.find(&path).await? else {
            return Ok(None);
        };
        let fate = match why_object_stays(environment, entry, &live) {
            Some(why) => Fate::Stays(why),
            None => Fate::Removed(live),
        };
        Ok::<_, ClusterError>(Some((entry.id.clone(), fate)))
    });
    Ok(try_join_all(fates).await?.into_iter().flatten().collect())
}
