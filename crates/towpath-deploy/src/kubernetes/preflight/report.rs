//! The result of a preflight check.

use crate::kubernetes::{comparable::common, labels::without_marks};
use crate::target::{Finding, Severity};
use serde_json::Value;
use towpath_kube::Resource;
use towpath_manifest::{Change, ChangeKind, Fingerprint, Object, ObjectId, diff};

/// One object, and what applying it would make of it.
pub(in crate::kubernetes) struct CheckedObject {
    pub object: Object,
    pub resource: Resource,
    /// The object in the cluster, if it exists.
    pub live: Option<Value>,
    /// The object after applying it; `None` if that is the same as `live`, or not known yet.
    pub would_be: Option<Value>,
    /// Whether the server can check it only when its definition is applied, which comes with it.
    pub waits_for_definition: bool,
    /// Whether an autoscaler takes over its number of pods.
    pub hands_over_replicas: bool,
    /// Whether the deployment has to apply it.
    pub applies: bool,
    /// Whether it is a Secret from the vault, which no manifest has.
    pub from_vault: bool,
}

/// The result of a preflight check.
#[derive(Default)]
pub(in crate::kubernetes) struct Report {
    pub objects: Vec<CheckedObject>,
    pub findings: Vec<Finding>,
    /// Whether the server has checked every object. It cannot check objects whose namespace does not exist yet.
    pub is_complete: bool,
}

impl Report {
    pub(in crate::kubernetes) fn refused(&self) -> impl Iterator<Item = &Finding> {
        self.findings
            .iter()
            .filter(|finding| finding.severity == Severity::Refused)
    }

    /// The change of each object. `removed` are the objects that the deployment prunes.
    pub(in crate::kubernetes) fn changes(
        &self,
        removed: &[(ObjectId, Value)],
        fingerprint: Fingerprint<'_>,
    ) -> Vec<Change> {
        let (mut before, mut after, mut unchanged) = (Vec::new(), Vec::new(), Vec::new());
        for checked in &self.objects {
            if !checked.applies {
                unchanged.push(Change {
                    id: checked.object.id(),
                    kind: ChangeKind::Unchanged,
                    place: checked.object.place.clone(),
                    hunks: Vec::new(),
                });
                continue;
            }
            let with = |value: &Value| {
                let mut object = checked.object.clone();
                object.value = without_marks(value);
                object
            };
            // Without the server's word, the manifest has none of its defaults: compare what the manifest speaks of.
            let known = |live: &Value| match &checked.would_be {
                Some(_) => with(live),
                None => with(&common(live, &checked.object.value)),
            };
            before.extend(checked.live.as_ref().map(known));
            after.push(with(checked.would_be.as_ref().unwrap_or(&checked.object.value)));
        }
        for (id, value) in removed {
            if let Ok(object) = Object::from_value(without_marks(value), "the cluster") {
                debug_assert_eq!(object.id(), *id);
                before.push(object);
            }
        }
        let mut changes = diff(&before, &after, fingerprint);
        changes.extend(unchanged);
        changes
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;
    use towpath_manifest::Kind;

    #[test]
    fn the_change_of_a_refused_object_has_no_defaults_of_the_server() {
        let manifest = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
                              "spec": {"type": "Odd", "ports": [{"port": 80}]}});
        let live = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "uid": "1"},
                          "spec": {"type": "ClusterIP", "clusterIP": "10.0.0.1", "sessionAffinity": "None",
                                   "ports": [{"port": 80, "protocol": "TCP"}]}});
        let report = Report {
            objects: vec![CheckedObject {
                object: Object::from_value(manifest, "web.yaml").unwrap(),
                resource: Resource::of(&Kind::SERVICE),
                live: Some(live),
                would_be: None,
                waits_for_definition: false,
                hands_over_replicas: false,
                applies: true,
                from_vault: false,
            }],
            ..Report::default()
        };
        let diff: String = report
            .changes(&[], &|_| String::new())
            .iter()
            .map(ToString::to_string)
            .collect();
        assert!(diff.contains("-  type: ClusterIP\n+  type: Odd"), "{diff}");
        assert!(
            !diff.contains("protocol") && !diff.contains("clusterIP") && !diff.contains("sessionAffinity"),
            "{diff}"
        );
    }
}
