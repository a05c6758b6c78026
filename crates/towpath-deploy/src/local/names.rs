//! Names and labels. They are deterministic, so that two servers, or one before and after a `kill -9`, refer to the same
//! container.

use crate::target::EnvironmentId;
use serde_json::Value;
use std::collections::BTreeMap;
use towpath_container::{ContainerSummary, Labels};
use towpath_types::Digest;

/// The data directory's instance. The target touches only what carries this label.
pub(crate) const INSTANCE: &str = "dev.towpath.instance";
/// The environment's slug.
pub(crate) const ENVIRONMENT: &str = "dev.towpath.environment";
/// The pod of a container.
pub(crate) const POD: &str = "dev.towpath.pod";
/// The Deployment of a pod.
pub(crate) const DEPLOYMENT: &str = "dev.towpath.deployment";
/// The revision of a Deployment's pod.
pub(crate) const REVISION: &str = "dev.towpath.revision";
/// The Job of a pod.
pub(crate) const JOB: &str = "dev.towpath.batch-job";
/// How often the pod's containers had restarted when this one was created.
pub(crate) const RESTARTS: &str = "dev.towpath.restarts";
/// On a proxy: a digest of its wanted state.
pub(crate) const PROXY: &str = "dev.towpath.proxy";
/// On a volume: its claim.
pub(crate) const CLAIM: &str = "dev.towpath.claim";

/// The names in one environment.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    pub instance: String,
    pub slug: String,
}

impl Names {
    pub(crate) fn new(instance: &str, id: &EnvironmentId) -> Self {
        Self {
            instance: instance.to_string(),
            slug: id.slug(),
        }
    }

    fn of(&self, rest: &str) -> String {
        format!("towpath-{}-{}-{rest}", self.instance, self.slug)
    }

    pub(crate) fn network(&self) -> String {
        format!("towpath-{}-{}", self.instance, self.slug)
    }

    /// A dot separates the two names, because a container's name contains none.
    pub(crate) fn container(&self, pod: &str, container: &str) -> String {
        self.of(&format!("pod-{pod}.{container}"))
    }

    pub(crate) fn proxy(&self, proxy: &str) -> String {
        self.of(&format!("proxy-{proxy}"))
    }

    pub(crate) fn claim(&self, claim: &str) -> String {
        self.of(&format!("claim-{claim}"))
    }

    pub(crate) fn empty_dir(&self, pod: &str, volume: &str) -> String {
        self.of(&format!("pod-{pod}.{volume}"))
    }

    pub(crate) fn labels(&self) -> Labels {
        Labels::from([
            (INSTANCE.to_string(), self.instance.clone()),
            (ENVIRONMENT.to_string(), self.slug.clone()),
        ])
    }
}

/// The names of the containers, grouped by the value of one label.
pub(crate) fn by_label(containers: &[ContainerSummary], label: &str) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for container in containers {
        if let Some(value) = container.labels.get(label) {
            found.entry(value.clone()).or_default().push(container.name.clone());
        }
    }
    found
}

/// The revision of a pod template: a digest of its content in hex digits. The order of keys does not matter.
pub(crate) fn revision(template: &Value) -> String {
    let mut text = String::new();
    canonical(template, &mut text);
    Digest::of(text.as_bytes()).hex().to_string()
}

/// The part of a revision that a pod's name contains. Another revision may begin with the same digits, so pod names also have a
/// number, and a new pod takes the first free one.
pub(crate) fn short_revision(revision: &str) -> &str {
    revision.get(..8).unwrap_or(revision)
}

fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            out.push('{');
            for key in keys {
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                canonical(&map[key], out);
                out.push(',');
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for item in items {
                canonical(item, out);
                out.push(',');
            }
            out.push(']');
        }
        other => out.push_str(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_revision_does_not_depend_on_the_order_of_keys() {
        let one = revision(&json!({"a": {"x": 1, "y": [1, 2]}, "b": "c"}));
        assert_eq!(one, revision(&json!({"b": "c", "a": {"y": [1, 2], "x": 1}})));
        assert_ne!(one, revision(&json!({"b": "c", "a": {"y": [2, 1], "x": 1}})));
        assert_eq!((one.len(), short_revision(&one).len()), (64, 8));
    }
}
