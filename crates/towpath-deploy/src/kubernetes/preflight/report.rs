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
    /// Whether it is the Secret that pods pull images with, which no manifest has.
    pub brought: bool,
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
            // Without the server's answer, the manifest lacks the defaults. Compare only the fields that the manifest has.
            let known = |live: &Value| match &checked.would_be {
                Some(_) => with(live),
                None => with(&common(live, &checked.object.value)),
            };
            before.extend(checked.live.as_ref().map(known));
            let would_be = checked
                .would_be
                .as_ref()
                .map(|value| without_inventions(checked, value));
            after.push(with(would_be.as_ref().unwrap_or(&checked.object.value)));
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

/// The answer to a dry run, without what the server draws anew each time: the addresses and node ports of a Service. The real
/// values will differ, so a plan must not promise them.
fn without_inventions(checked: &CheckedObject, would_be: &Value) -> Value {
    let mut value = would_be.clone();
    if checked.object.kind != "Service" {
        return value;
    }
    let manifest = &checked.object.value;
    let is_drawn = |pointer: &str, drawn: &Value| {
        let known = |object: &Value| object.pointer(pointer) == Some(drawn);
        manifest.pointer(pointer).is_none() && !checked.live.as_ref().is_some_and(known)
    };
    let Some(spec) = value.get_mut("spec").and_then(Value::as_object_mut) else {
        return value;
    };
    for field in ["clusterIP", "clusterIPs", "healthCheckNodePort"] {
        let drawn = spec
            .get(field)
            .filter(|value| is_drawn(&format!("/spec/{field}"), value));
        if drawn.is_some() {
            spec.shift_remove(field);
        }
    }
    let ports = spec.get_mut("ports").and_then(Value::as_array_mut);
    for (index, port) in ports.into_iter().flatten().enumerate() {
        let Some(port) = port.as_object_mut() else { continue };
        let drawn = port.get("nodePort");
        if drawn.is_some_and(|drawn| is_drawn(&format!("/spec/ports/{index}/nodePort"), drawn)) {
            port.shift_remove("nodePort");
        }
    }
    value
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;
    use towpath_manifest::{DiffLine, Kind};

    /// The lines that a plan adds for a Service with these specs.
    fn added(manifest: Value, live: Option<Value>, would_be: Value) -> Vec<String> {
        let service =
            |spec: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec});
        let report = Report {
            objects: vec![CheckedObject {
                object: Object::from_value(service(manifest), "web.yaml").unwrap(),
                resource: Resource::of(&Kind::SERVICE),
                live: live.map(service),
                would_be: Some(service(would_be)),
                waits_for_definition: false,
                hands_over_replicas: false,
                applies: true,
                brought: false,
            }],
            ..Report::default()
        };
        let changes = report.changes(&[], &|_| String::new());
        let lines = changes
            .iter()
            .flat_map(|change| &change.hunks)
            .flat_map(|hunk| &hunk.lines);
        let lines = lines.filter_map(|line| match line {
            DiffLine::Added(text) => Some(text.trim().to_string()),
            _ => None,
        });
        lines.collect()
    }

    #[test]
    fn a_plan_promises_no_address_that_a_dry_run_drew() {
        let port = |extra: Value| {
            let mut port = json!({"port": 80});
            port.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            json!([port])
        };
        let drawn = json!({
            "clusterIP": "10.96.1.2", "clusterIPs": ["10.96.1.2"], "type": "NodePort",
            "ports": port(json!({"nodePort": 30123})),
        });
        let said = added(
            json!({"type": "NodePort", "ports": port(json!({}))}),
            None,
            drawn.clone(),
        );
        assert!(said.contains(&"type: NodePort".to_string()), "{said:?}");
        assert!(
            !said.iter().any(|line| line.contains("10.96") || line.contains("30123")),
            "{said:?}"
        );
        // The plan promises what the manifest sets, and existing values stay.
        let said = added(
            json!({"clusterIP": "10.96.1.2", "ports": port(json!({"nodePort": 30123}))}),
            None,
            drawn.clone(),
        );
        assert!(said.contains(&"clusterIP: 10.96.1.2".to_string()) && said.iter().any(|line| line.contains("30123")));
        let live = json!({"clusterIP": "10.96.1.2", "clusterIPs": ["10.96.1.2"], "type": "ClusterIP", "ports": port(json!({}))});
        let said = added(json!({"type": "NodePort", "ports": port(json!({}))}), Some(live), drawn);
        assert_eq!(said, ["type: NodePort"]);
        let headless = json!({"clusterIP": "None", "ports": port(json!({}))});
        assert!(added(headless.clone(), None, headless).contains(&"clusterIP: None".to_string()));
    }

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
                brought: false,
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
