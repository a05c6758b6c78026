//! The objects that are watched during a rollout.

use serde_json::Value;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, OnceLock},
};
use tokio::{sync::Notify, time::Instant};
use towpath_kube::{Client, Gone, Informer, Resource, Select, text_at};
use towpath_manifest::{Kind, Object, Readiness};

/// A workload that is waited for.
pub(in crate::kubernetes) struct Awaited {
    pub object: Object,
    pub resource: Resource,
    /// The generation that was applied. A status of an earlier generation does not count.
    pub generation: i64,
}

/// The watched objects.
pub(super) struct Watched {
    client: Arc<Client>,
    namespace: String,
    workloads: HashMap<Resource, Informer>,
    pub pods: Informer,
    /// Started when something goes wrong, and when that was. Until then, nobody asks which pods belong to which template.
    replica_sets: OnceLock<(Instant, Informer)>,
}

impl Watched {
    /// Starts to watch everything that `awaited` needs. Notifies `changed` of every change.
    pub(super) fn start(client: &Arc<Client>, namespace: &str, awaited: &[Awaited], changed: &Arc<Notify>) -> Self {
        let start = |resource: &Resource| {
            let path = resource.collection(namespace);
            Informer::start(
                Arc::clone(client),
                path,
                Select::All,
                Gone::Forgotten,
                Arc::clone(changed),
            )
        };
        let resources: BTreeMap<&str, &Resource> = awaited
            .iter()
            .map(|one| (one.resource.plural.as_str(), &one.resource))
            .collect();
        Self {
            client: Arc::clone(client),
            namespace: namespace.to_string(),
            workloads: resources
                .into_values()
                .map(|resource| (resource.clone(), start(resource)))
                .collect(),
            pods: start(&Resource::of(&Kind::POD)),
            replica_sets: OnceLock::new(),
        }
    }

    /// The ReplicaSets, and since when they are watched. Starts to watch them.
    pub(super) fn replica_sets(&self) -> (Instant, &Informer) {
        let (since, replica_sets) = self.replica_sets.get_or_init(|| {
            let path = Resource::of(&Kind::REPLICA_SET).collection(&self.namespace);
            // The caller checks periodically, so it needs no notification.
            let informer = Informer::start(
                Arc::clone(&self.client),
                path,
                Select::All,
                Gone::Forgotten,
                Arc::default(),
            );
            (Instant::now(), informer)
        });
        (*since, replica_sets)
    }

    /// A workload as it is now.
    pub(super) fn live(&self, one: &Awaited) -> Option<Value> {
        self.workloads.get(&one.resource)?.get(&one.object.name)
    }

    /// Reads a workload without copying it; `None` if it does not exist.
    pub(super) fn with_live<T>(&self, one: &Awaited, read: impl FnOnce(&Value) -> Option<T>) -> Option<T> {
        let informer = self.workloads.get(&one.resource)?;
        informer.with(&one.object.name, |live| live.and_then(read))
    }

    /// How far a workload is. The error is a sentence on why that cannot be known.
    pub(super) fn readiness(&self, one: &Awaited) -> Result<Readiness, String> {
        let Some(informer) = self.workloads.get(&one.resource) else {
            return Ok(Readiness::Done);
        };
        if let Some(why) = informer.denied() {
            return Err(format!("cannot watch its rollout: {why}"));
        }
        if !informer.is_listed() {
            return Ok(Readiness::Waiting("reading its state".into()));
        }
        Ok(informer.with(&one.object.name, |live| {
            let Some(live) = live else {
                return Readiness::Waiting("it does not exist (any more)".into());
            };
            let generation = live.pointer("/metadata/generation").and_then(Value::as_i64);
            if generation.unwrap_or(0) < one.generation {
                return Readiness::Waiting("the cluster does not show the change yet".into());
            }
            Kind::of(&one.resource.kind).readiness(live)
        }))
    }

    /// The pods of the newest template of a workload.
    pub(super) fn current_pods(&self, one: &Awaited) -> Vec<Value> {
        let Some(live) = self.live(one) else {
            return Vec::new();
        };
        let uid = text_at(&live, "/metadata/uid");
        if one.resource.kind == "Deployment"
            && let (_, replica_sets) = self.replica_sets()
            && replica_sets.is_listed()
        {
            let revision = |object: &Value| text_at(object, "/metadata/annotations/deployment.kubernetes.io~1revision");
            let current = revision(&live);
            let sets = replica_sets.filter(|set| is_owned_by(set, &uid) && revision(set) == current);
            let Some(set) = sets.first() else { return Vec::new() };
            let uid = text_at(set, "/metadata/uid");
            return self.pods.filter(|pod| is_owned_by(pod, &uid));
        }
        let labels = live.pointer("/spec/selector/matchLabels").and_then(Value::as_object);
        let mut pods = self.pods.filter(|pod| {
            let of_pod = pod.pointer("/metadata/labels");
            labels.is_some_and(|labels| {
                let has = |(key, value): (&String, &Value)| of_pod.and_then(|of_pod| of_pod.get(key)) == Some(value);
                !labels.is_empty() && labels.iter().all(has)
            })
        });
        let update = text_at(&live, "/status/updateRevision");
        if update.is_empty() {
            // The ReplicaSets are not known: compare the pods with the template.
            let template = live.pointer("/spec/template").cloned().unwrap_or_default();
            pods.retain(|pod| is_of_template(pod, &template));
        } else {
            pods.retain(|pod| text_at(pod, "/metadata/labels/controller-revision-hash") == update);
        }
        pods
    }
}

/// Whether one of an object's owners has this uid.
pub(super) fn is_owned_by(object: &Value, uid: &str) -> bool {
    let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    owners.into_iter().flatten().any(|owner| text_at(owner, "/uid") == uid)
}

/// Whether a pod was created from `template`: it has the template's annotations and containers. Admission may have added more.
fn is_of_template(pod: &Value, template: &Value) -> bool {
    let annotations = template.pointer("/metadata/annotations").and_then(Value::as_object);
    let has_annotation = |(key, value): (&String, &Value)| {
        let of_pod = pod
            .pointer("/metadata/annotations")
            .and_then(|annotations| annotations.get(key));
        of_pod == Some(value)
    };
    if !annotations.into_iter().flatten().all(has_annotation) {
        return false;
    }
    ["initContainers", "containers"].iter().all(|list| {
        let of = |value: &Value, at: &str| {
            value
                .pointer(&format!("{at}/{list}"))
                .and_then(Value::as_array)
                .cloned()
        };
        let in_pod = of(pod, "/spec").unwrap_or_default();
        of(template, "/spec").unwrap_or_default().iter().all(|wanted| {
            let found = in_pod
                .iter()
                .find(|container| container.get("name") == wanted.get("name"));
            found.is_some_and(|found| {
                [
                    "image",
                    "command",
                    "args",
                    "env",
                    "envFrom",
                    "resources",
                    "ports",
                    "readinessProbe",
                    "livenessProbe",
                ]
                .iter()
                .all(|field| found.get(field) == wanted.get(field))
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_is_of_a_template_though_admission_has_added_to_it() {
        let template =
            json!({"metadata": {"annotations": {"a": "1"}}, "spec": {"containers": [{"name": "web", "image": "x"}]}});
        let pod = |annotation: &str, image: &str| {
            json!({"metadata": {"annotations": {"a": annotation, "injected": "yes"}},
                   "spec": {"containers": [{"name": "proxy", "image": "p"}, {"name": "web", "image": image, "tty": true}]}})
        };
        assert!(is_of_template(&pod("1", "x"), &template));
        assert!(!is_of_template(&pod("2", "x"), &template));
        assert!(!is_of_template(&pod("1", "y"), &template));
    }
}
