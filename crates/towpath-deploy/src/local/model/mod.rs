//! The subset of Kubernetes that the local target supports, as types.
//!
//! [`parse`] is strict: every field of an object is either in these types, or refused with its place. It reports all refusals
//! at once. It always accepts `status`, `metadata.creationTimestamp`, and all labels and annotations of objects. Some things
//! work differently on one machine than on a cluster. It reports them as a [`Severity::Note`]: an Ingress' `tls` (it answers on
//! plain HTTP on 127.0.0.1) and the size of a claim (the disk is the limit).

mod fields;
mod pod;
mod workload;

pub(crate) use fields::field_path;
pub(crate) use pod::{
    Check, Container, EnvSource, Hook, PodTemplate, Probe, PullPolicy, Source, TargetPort, VolumeSource,
};
pub(crate) use workload::{
    ConcurrencyPolicy, CronJob, Deployment, Ingress, Job, Resource, Service, ServicePort, Strategy,
};

use crate::target::Finding;
#[cfg(doc)]
use crate::target::Severity;
use fields::{Node, Report};
use towpath_manifest::Object;

/// Reads `object`. Returns the resource if nothing in it was refused. Findings may be notes.
pub(crate) fn parse(object: &Object) -> (Option<Resource>, Vec<Finding>) {
    let report = Report::new(object);
    let resource = workload::resource(object, Node::root(&report));
    let findings = report.into_findings();
    let refused = findings
        .iter()
        .any(|finding| finding.severity == crate::target::Severity::Refused);
    (resource.filter(|_| !refused), findings)
}

/// Reads the pod template of an object that was accepted before.
pub(crate) fn parse_template(template: &serde_json::Value) -> Option<PodTemplate> {
    let wrapped = serde_json::json!({
        "apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "template"}, "template": template,
    });
    let object = Object::from_value(wrapped, "store").ok()?;
    let report = Report::new(&object);
    let template = Node::root(&report)
        .fields()
        .get("template")
        .map(|node| pod::template(&node))?;
    report
        .into_findings()
        .iter()
        .all(|finding| finding.severity == crate::target::Severity::Note)
        .then_some(template)
}
